//! What limits a wallet's spending, and what its owner notes on it.

use rust_decimal::Decimal;

use super::{Rules, Use, next, still, told};
use crate::wallet::{
    Details, EventType, Facts, Limits, LimitsChange, NewEvent, Rejection, SetLimits, SetMetadata,
};

impl Rules<'_> {
    pub(super) fn set_limits(&self, set: &SetLimits) -> Result<Vec<NewEvent>, Rejection> {
        let wallet = self.usable(&set.wallet_id, set.expected_version.as_ref(), Use::In)?;
        let currency = wallet.currency;
        let limit = set.overdraft_limit.unwrap_or(wallet.overdraft_limit);
        if limit.normalize().scale() > currency.scale() {
            return Err(Rejection::AmountScale { currency });
        }
        let limit = currency.scaled(limit);
        if wallet.own() + limit < Decimal::ZERO {
            return Err(Rejection::LimitInUse { used: -wallet.own() });
        }
        let (change, after) = still(wallet, |_| {});
        let facts = Facts::Limits(Box::new(LimitsChange {
            previous: Limits { overdraft_limit: wallet.overdraft_limit },
            new: Limits { overdraft_limit: limit },
        }));
        let details = Details { description: Some(set.reason.clone()), ..Details::default() };
        let changed = (change, told(after, limit));
        Ok(vec![next(wallet, EventType::WalletLimitsChanged, facts, changed, &details)])
    }

    pub(super) fn set_metadata(&self, set: &SetMetadata) -> Result<Vec<NewEvent>, Rejection> {
        let wallet = self.usable(&set.wallet_id, set.expected_version.as_ref(), Use::In)?;
        let changed = still(wallet, |_| {});
        let details = Details { metadata: Some(set.metadata.clone()), ..Details::default() };
        Ok(vec![next(wallet, EventType::WalletMetadataChanged, Facts::Metadata, changed, &details)])
    }
}
