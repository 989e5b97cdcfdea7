//! Opening a wallet.

use rust_decimal::Decimal;

use super::{Rules, in_scale};
use crate::wallet::{
    Booking, Change, CreateWallet, EventBody, EventType, Facts, NewEvent, Rejection, Status,
    WalletState,
};

impl Rules<'_> {
    pub(super) fn open(&self, create: &CreateWallet) -> Result<Vec<NewEvent>, Rejection> {
        let (id, currency) = (&create.id.0, create.currency);
        if self.world.wallet(id).is_some() {
            return Err(Rejection::WalletExists { wallet: id.clone() });
        }
        if create.overdraft_limit.normalize().scale() > currency.scale() {
            return Err(Rejection::AmountScale { currency });
        }
        let zero = currency.scaled(Decimal::ZERO);
        let event = |version, kind: EventType, facts, amount, reason: &str| NewEvent {
            wallet_id: id.clone(),
            version,
            body: EventBody {
                kind,
                facts,
                change: Change { previous_balance: zero, amount, direction: kind.direction() },
                after: WalletState {
                    balance: amount,
                    held_balance: zero,
                    available_balance: None,
                    status: Status::Active,
                },
                currency,
                reason: Some(reason.to_owned()),
                reference: None,
                metadata: None,
                booking: Booking::default(),
            },
        };
        let overdraft_limit = currency.scaled(create.overdraft_limit);
        let facts = Facts::Creation { owner_id: create.owner_id.clone(), overdraft_limit };
        let mut created = event(1, EventType::WalletCreated, facts, zero, "wallet created");
        created.body.metadata.clone_from(&create.metadata);
        let Some(amount) = create.initial_balance else { return Ok(vec![created]) };
        let (kind, amount) = (EventType::WalletCredited, in_scale(amount, currency)?);
        Ok(vec![created, event(2, kind, Facts::Balance, amount, "initial balance")])
    }
}
