//! What the load asks of the service, and what each of it has to leave behind: the checker's own
//! arithmetic of every operation.

use serde::{Deserialize, Serialize};

/// One operation. Amounts are cents; ids are of letters, digits and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    Create {
        wallet: String,
        amount: i64,
    },
    Credit {
        wallet: String,
        amount: i64,
    },
    Debit {
        wallet: String,
        amount: i64,
    },
    Transfer {
        from: String,
        to: String,
        amount: i64,
    },
    /// Money of a wallet that may be captured, up to `most`, until it expires.
    Hold {
        wallet: String,
        hold: String,
        amount: i64,
        most: i64,
        seconds: u64,
    },
    Capture {
        wallet: String,
        hold: String,
        amount: i64,
        last: bool,
    },
    Release {
        wallet: String,
        hold: String,
    },
    /// Takes `amount` of a transaction back; each wallet gets the opposite of what it got.
    Reverse {
        transaction: String,
        amount: i64,
        back: Vec<(String, i64)>,
    },
}

impl Ask {
    /// Path and body. The key goes into the events: as their reference, as the owner of a new
    /// wallet, or as the reason of what has no reference of its own.
    pub fn request(&self, key: &str) -> (String, String) {
        match self {
            Self::Create { wallet, amount } => {
                let opening = money(*amount);
                let body = format!(
                    r#"{{"walletId":"{wallet}","initialBalance":"{opening}","ownerId":"{key}"}}"#
                );
                ("/wallets".to_owned(), body)
            }
            Self::Credit { wallet, amount } => {
                (format!("/wallets/{wallet}/credit"), format!("{{{}}}", moved(*amount, key)))
            }
            Self::Debit { wallet, amount } => {
                (format!("/wallets/{wallet}/debit"), format!("{{{}}}", moved(*amount, key)))
            }
            Self::Transfer { from, to, amount } => {
                let body = format!(r#"{{"toWalletId":"{to}",{}}}"#, moved(*amount, key));
                (format!("/wallets/{from}/transfer"), body)
            }
            Self::Hold { wallet, hold, amount, most, seconds } => {
                let (most, moved) = (money(*most), moved(*amount, key));
                let body = format!(
                    r#"{{"holdId":"{hold}","maxCapture":"{most}","expiresIn":{seconds},{moved}}}"#
                );
                (format!("/wallets/{wallet}/holds"), body)
            }
            Self::Capture { hold, amount, last, .. } => {
                let body = format!(r#"{{"final":{last},{}}}"#, moved(*amount, key));
                (format!("/holds/{hold}/capture"), body)
            }
            Self::Release { hold, .. } => {
                (format!("/holds/{hold}/release"), format!(r#"{{"reason":"{key}"}}"#))
            }
            Self::Reverse { transaction, amount, .. } => {
                let body = format!(r#"{{"amount":"{}","reason":"{key}"}}"#, money(*amount));
                (format!("/transactions/{transaction}/reverse"), body)
            }
        }
    }

    /// The events that it makes where it is accepted: wallet, type, and by how much the balance moves.
    pub fn expected(&self) -> Vec<(&str, &'static str, i64)> {
        match self {
            Self::Create { wallet, amount } => {
                vec![(wallet, "WalletCreated", 0), (wallet, "WalletCredited", *amount)]
            }
            Self::Credit { wallet, amount } => vec![(wallet, "WalletCredited", *amount)],
            Self::Debit { wallet, amount } => vec![(wallet, "WalletDebited", -amount)],
            Self::Transfer { from, to, amount } => vec![
                (from, "WalletTransferInitiated", -amount),
                (to, "WalletTransferCompleted", *amount),
            ],
            Self::Hold { wallet, .. } => vec![(wallet, "WalletHoldPlaced", 0)],
            Self::Capture { wallet, amount, .. } => vec![(wallet, "WalletHoldCaptured", -amount)],
            Self::Release { wallet, .. } => vec![(wallet, "WalletHoldReleased", 0)],
            Self::Reverse { back, .. } => {
                back.iter().map(|(wallet, change)| (&**wallet, "WalletReversed", *change)).collect()
            }
        }
    }

    /// What takes its transaction back, where it can be taken back: all of it, or a part.
    pub fn reversal(&self, transaction: &str, part: i64) -> Option<Self> {
        let changes = match self {
            Self::Credit { .. } | Self::Debit { .. } | Self::Transfer { .. } => self.expected(),
            Self::Capture { .. } => self.expected(),
            Self::Create { .. } | Self::Hold { .. } | Self::Release { .. } => return None,
            Self::Reverse { .. } => return None,
        };
        let whole = changes.first()?.2.abs();
        let amount = if part == 0 { whole } else { 1 + part % whole };
        let back = changes.iter().map(|(wallet, _, change)| {
            ((*wallet).to_owned(), if *change < 0 { amount } else { -amount })
        });
        let (transaction, back) = (transaction.to_owned(), back.collect());
        Some(Self::Reverse { transaction, amount, back })
    }
}

fn moved(amount: i64, key: &str) -> String {
    format!(r#""amount":"{}","reference":"{key}""#, money(amount))
}

/// Cents as a decimal.
fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
