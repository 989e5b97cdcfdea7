//! The accounts that money of wallets comes from and goes to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! accounts {
    ($($(#[$about:meta])* $account:ident $name:literal;)*) => {
        /// Where a wallet's money comes from and goes to. System accounts have no row: no command queues
        /// for them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(inline)]
        pub enum CounterAccount { $($(#[$about])* $account),* }

        impl CounterAccount {
            pub const ALL: &[Self] = &[$(Self::$account),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$account => $name),* }
            }
        }
    };
}

accounts! {
    /// The outside world.
    External "external";
    /// Transfers between their two events.
    TransfersInFlight "transfers_in_flight";
    /// Between the two currencies of a conversion.
    CurrencyExchange "currency_exchange";
    /// What a conversion rounds away.
    FxRounding "fx_rounding";
    /// What promotional grants are paid with.
    Promotions "promotions";
    /// Paid credit that expired unused.
    Breakage "breakage";
    /// What callers owe for invoices.
    Receivables "receivables";
    Revenue "revenue";
    TaxPayable "tax_payable";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_one_name_in_events_and_in_the_books() {
        for account in CounterAccount::ALL {
            let name = serde_json::to_value(account).unwrap();
            assert_eq!(name, account.as_str());
        }
    }
}
