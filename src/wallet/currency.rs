//! Currencies: ISO 4217 codes with their number of decimals.

use std::fmt;

use rust_decimal::Decimal;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An ISO 4217 currency that has decimals defined (no metals, funds or test codes).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency {
    iso: iso_currency::Currency,
    scale: u32,
}

impl Currency {
    /// US dollars, what a wallet is in when its creator does not say.
    pub const USD: Self = Self { iso: iso_currency::Currency::USD, scale: 2 };

    /// The currency of an upper-case three-letter code.
    pub fn parse(code: &str) -> Option<Self> {
        let iso = iso_currency::Currency::from_code(code)?;
        let scale = u32::from(iso.exponent()?);
        Some(Self { iso, scale })
    }

    pub fn code(self) -> &'static str {
        self.iso.code()
    }

    /// Decimals of one unit: USD 2, JPY 0, KWD 3.
    pub fn scale(self) -> u32 {
        self.scale
    }

    /// The value with exactly the currency's decimals, so that it prints as `150.00`. The value
    /// must not have more: nothing is rounded because nothing finer is ever accepted.
    pub fn scaled(self, mut value: Decimal) -> Decimal {
        value.rescale(self.scale);
        value
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Self::parse(&code).ok_or_else(|| D::Error::custom(format!("currency {code}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_those_of_iso_4217() {
        for (code, scale) in [("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)] {
            assert_eq!(Currency::parse(code).map(Currency::scale), Some(scale), "{code}");
        }
    }

    #[test]
    fn what_is_no_money_is_refused() {
        for code in ["", "usd", "US", "USDX", "XXX", "XTS", "XAU", "ÄÖÜ"] {
            assert_eq!(Currency::parse(code), None, "{code:?}");
        }
    }
}
