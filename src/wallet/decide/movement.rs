//! Credits and debits against the outside.

use super::{Rules, Use, next};
use crate::wallet::{ChangeType, EventType, Facts, Movement, NewEvent, Rejection};

impl Rules<'_> {
    /// A credit or a debit.
    pub(super) fn movement(
        &self,
        movement: &Movement,
        kind: EventType,
    ) -> Result<Vec<NewEvent>, Rejection> {
        let expected = movement.expected_version.as_ref();
        let purpose = match kind.direction() {
            ChangeType::Credit => Use::In,
            ChangeType::Debit => Use::Out,
        };
        let wallet = self.usable(&movement.wallet_id, expected, purpose)?;
        let changed = self.changed(wallet, movement.amount, kind.direction())?;
        Ok(vec![next(wallet, kind, Facts::Balance, changed, &movement.details)])
    }
}
