//! What is asked of the service, and the numbers it is drawn from: the one model of operations, for
//! `wallex loadtest` and for the load of the tests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Numbers from a seed: SplitMix64. They look random and can be had again.
#[derive(Debug, Clone)]
pub struct Draw(pub u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 where that is empty.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// A time of `from..to` milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to.saturating_sub(from)))
    }
}

/// One operation. Amounts are cents; ids are of letters, digits and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    Create { wallet: String, amount: i64 },
    Credit { wallet: String, amount: i64 },
    Debit { wallet: String, amount: i64 },
    Transfer { from: String, to: String, amount: i64 },
}

impl Ask {
    /// Path and body. The reference goes into the events, a new wallet's as its owner.
    pub fn request(&self, reference: Option<&str>) -> (String, String) {
        let member = |name: &str| {
            reference.map_or_else(String::new, |text| format!(r#","{name}":"{text}""#))
        };
        let moved =
            |amount: &i64| format!(r#""amount":"{}"{}"#, money(*amount), member("reference"));
        match self {
            Self::Create { wallet, amount } => {
                let (opening, owner) = (money(*amount), member("ownerId"));
                let body =
                    format!(r#"{{"walletId":"{wallet}","initialBalance":"{opening}"{owner}}}"#);
                ("/wallets".to_owned(), body)
            }
            Self::Credit { wallet, amount } => {
                (format!("/wallets/{wallet}/credit"), format!("{{{}}}", moved(amount)))
            }
            Self::Debit { wallet, amount } => {
                (format!("/wallets/{wallet}/debit"), format!("{{{}}}", moved(amount)))
            }
            Self::Transfer { from, to, amount } => {
                let body = format!(r#"{{"toWalletId":"{to}",{}}}"#, moved(amount));
                (format!("/wallets/{from}/transfer"), body)
            }
        }
    }
}

/// Cents as a decimal.
pub fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
