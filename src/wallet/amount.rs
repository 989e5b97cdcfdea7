//! Exact money in requests: parsed from the token as sent, never through a float.

use std::str::FromStr;

use rust_decimal::Decimal;
use serde::Serialize;

/// The most one command may move: 10^15, in units of the currency.
pub const AMOUNT_MAX: Decimal = Decimal::from_parts(2_764_472_320, 232_830, 0, false, 0);
/// The most a wallet may hold or owe: 10^18. Fits `numeric(28,8)` and 28 digits of a `Decimal`.
pub const BALANCE_MAX: Decimal = Decimal::from_parts(2_808_348_672, 232_830_643, 0, false, 0);
/// Decimals that the tables keep; a currency may allow fewer.
const SCALE_MAX: u32 = 8;
/// Longer tokens are refused before they are read.
const TOKEN_CHARS_MAX: usize = 40;

/// A positive amount of at most [`AMOUNT_MAX`] with at most 8 decimals, trailing zeros removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Amount(Decimal);

/// Why a token is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error(
        "must be a plain decimal such as \"150.00\": digits, at most one point, no sign or exponent"
    )]
    NotDecimal,
    #[error("must be greater than zero")]
    NotPositive,
    #[error("must not exceed 1000000000000000")]
    TooLarge,
    #[error("has more decimals than any currency")]
    TooFine,
}

impl Amount {
    /// Reads a request's token: `150`, `150.00`. Zero, signs and exponents are refused.
    pub fn parse(token: &str) -> Result<Self, AmountError> {
        Self::from_decimal(parse_decimal(token)?)
    }

    /// An amount from a value that is already exact.
    pub fn from_decimal(value: Decimal) -> Result<Self, AmountError> {
        if value <= Decimal::ZERO {
            return Err(AmountError::NotPositive);
        }
        if value > AMOUNT_MAX {
            return Err(AmountError::TooLarge);
        }
        let value = value.normalize();
        if value.scale() > SCALE_MAX {
            return Err(AmountError::TooFine);
        }
        Ok(Self(value))
    }

    pub fn value(self) -> Decimal {
        self.0
    }

    /// Decimals that matter: `1.50` has one.
    pub fn scale(self) -> u32 {
        self.0.scale()
    }
}

/// Reads a non-negative plain decimal: JSON's number grammar without sign and exponent.
pub fn parse_decimal(token: &str) -> Result<Decimal, AmountError> {
    let (whole, fraction) = match token.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (token, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let plain = token.len() <= TOKEN_CHARS_MAX
        && digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits);
    if !plain {
        return Err(AmountError::NotDecimal);
    }
    // Past 18 whole digits nothing is allowed; past 10 decimals `Decimal` would begin to round.
    if whole.len() > 18 {
        return Err(AmountError::TooLarge);
    }
    let fraction = fraction.unwrap_or("").trim_end_matches('0');
    let scale = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
    if scale > SCALE_MAX {
        return Err(AmountError::TooFine);
    }
    let exact = if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") };
    let value = Decimal::from_str(&exact).map_err(|_| AmountError::NotDecimal)?;
    if value > AMOUNT_MAX { Err(AmountError::TooLarge) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_the_powers_of_ten_they_claim() {
        assert_eq!(AMOUNT_MAX, Decimal::from(10_u64.pow(15)));
        assert_eq!(BALANCE_MAX, Decimal::from(10_u64.pow(18)));
    }

    #[test]
    fn tokens_that_are_no_plain_decimal_are_refused() {
        for token in [
            "",
            "-1",
            "-0",
            "+1",
            "1e3",
            "1E3",
            "NaN",
            "Infinity",
            ".5",
            "1.",
            " 1",
            "1 ",
            "1_000",
            "1,000",
            "0x10",
            "00.10",
            "01",
            "٣",
            "1.2.3",
            "null",
            "\u{0}",
            "1.00000000000000000000000000000000000000000000000000",
        ] {
            assert_eq!(Amount::parse(token), Err(AmountError::NotDecimal), "{token:?}");
        }
    }

    #[test]
    fn zero_too_large_and_too_fine_are_told_apart() {
        assert_eq!(Amount::parse("0"), Err(AmountError::NotPositive));
        assert_eq!(Amount::parse("0.00"), Err(AmountError::NotPositive));
        assert_eq!(Amount::parse("1000000000000000.01"), Err(AmountError::TooLarge));
        assert_eq!(Amount::parse("79228162514264337593543950336"), Err(AmountError::TooLarge));
        assert_eq!(Amount::parse("0.000000001"), Err(AmountError::TooFine));
        assert!(Amount::parse("1000000000000000").is_ok());
    }

    #[test]
    fn trailing_zeros_do_not_make_another_amount() {
        assert_eq!(Amount::parse("1.00"), Amount::parse("1"));
        assert_eq!(Amount::parse("0.10").map(Amount::scale), Ok(1));
    }

    proptest! {
        #[test]
        fn every_parsed_amount_prints_back_to_itself(cents in 1_u64..=100_000_000_000_000_000) {
            let text = format!("{}.{:02}", cents / 100, cents % 100);
            let amount = Amount::parse(&text).unwrap();
            let mut value = amount.value();
            value.rescale(2);
            prop_assert_eq!(value.to_string(), text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = Amount::parse(&text);
        }
    }
}
