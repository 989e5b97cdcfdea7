//! What is to be done, as a function of seed and number: the same seed gives the same operations,
//! however many connections share them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};

use super::ask::{Ask, Draw};

/// The largest amount of one operation, in cents: a fifth of a wallet's opening balance.
const CENTS_MAX: i64 = 2_000;
/// With `hot`, the share of operations on the one wallet.
const HOT_PERCENT: u64 = 90;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Credit,
    Debit,
    Transfer,
}

/// One operation; wallets by their number in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    pub kind: Kind,
    pub wallet: u64,
    /// The other side of a transfer.
    pub other: u64,
    pub cents: i64,
}

impl Operation {
    /// What is asked, given the wallets' ids by their numbers.
    pub fn ask(&self, id: impl Fn(u64) -> String) -> Ask {
        let (wallet, amount) = (id(self.wallet), self.cents);
        match self.kind {
            Kind::Credit => Ask::Credit { wallet, amount },
            Kind::Debit => Ask::Debit { wallet, amount },
            Kind::Transfer => Ask::Transfer { from: wallet, to: id(self.other), amount },
        }
    }
}

/// The share of each kind: `credit=70,debit=20,transfer=10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    credit: u32,
    debit: u32,
    transfer: u32,
}

/// How the operations spread over the wallets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Spread {
    /// All alike
    Uniform,
    /// The n-th wallet 1/n as often as the first
    Zipf,
    /// Nine of ten operations on one wallet
    Hot,
}

/// The operations of a run.
#[derive(Debug)]
pub struct Plan {
    seed: u64,
    mix: Mix,
    spread: Spread,
    wallets: u64,
    /// For `zipf`: the sum of the weights up to each wallet.
    cumulated: Vec<u64>,
}

impl Plan {
    pub fn new(seed: u64, mix: Mix, spread: Spread, wallets: u64) -> Self {
        let mut sum = 0;
        let cumulated = match spread {
            Spread::Zipf => (1..=wallets)
                .map(|rank| {
                    sum += (1 << 32) / rank;
                    sum
                })
                .collect(),
            Spread::Uniform | Spread::Hot => Vec::new(),
        };
        Self { seed, mix, spread, wallets, cumulated }
    }

    pub fn operation(&self, number: u64) -> Operation {
        let mut draw = Draw(self.seed ^ number.wrapping_mul(0xD134_2543_DE82_EF95));
        let kind = self.mix.pick(&mut draw);
        let wallet = self.wallet(&mut draw);
        let other = match kind {
            // The other side is any of the rest.
            Kind::Transfer => {
                let step = 1 + draw.below(self.wallets.saturating_sub(1));
                (wallet + step).checked_rem(self.wallets).unwrap_or(0)
            }
            Kind::Credit | Kind::Debit => wallet,
        };
        let cents = 1 + i64::try_from(draw.below(CENTS_MAX.unsigned_abs())).unwrap_or(0);
        Operation { kind, wallet, other, cents }
    }

    fn wallet(&self, draw: &mut Draw) -> u64 {
        match self.spread {
            Spread::Hot if draw.below(100) < HOT_PERCENT => 0,
            Spread::Hot | Spread::Uniform => draw.below(self.wallets),
            Spread::Zipf => {
                let at = draw.below(self.cumulated.last().copied().unwrap_or(0));
                let rank = self.cumulated.partition_point(|sum| *sum <= at);
                u64::try_from(rank).unwrap_or(0)
            }
        }
    }
}

impl Mix {
    fn pick(self, draw: &mut Draw) -> Kind {
        let (credit, debit) = (u64::from(self.credit), u64::from(self.debit));
        match draw.below(credit + debit + u64::from(self.transfer)) {
            at if at < credit => Kind::Credit,
            at if at < credit + debit => Kind::Debit,
            _ => Kind::Transfer,
        }
    }
}

impl FromStr for Mix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut mix = Self { credit: 0, debit: 0, transfer: 0 };
        for part in text.split(',') {
            let (name, share) =
                part.split_once('=').context("use credit=70,debit=20,transfer=10")?;
            let share: u32 = share.parse().with_context(|| format!("{share} is no share"))?;
            match name {
                "credit" => mix.credit = share,
                "debit" => mix.debit = share,
                "transfer" => mix.transfer = share,
                _ => bail!("{name} is none of credit, debit, transfer"),
            }
        }
        if (mix.credit, mix.debit, mix.transfer) == (0, 0, 0) {
            bail!("all shares are 0");
        }
        Ok(mix)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credit={},debit={},transfer={}", self.credit, self.debit, self.transfer)
    }
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Debit => "debit",
            Self::Transfer => "transfer",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(spread: Spread) -> Plan {
        Plan::new(7, "credit=70,debit=20,transfer=10".parse().unwrap(), spread, 100)
    }

    #[test]
    fn the_same_seed_gives_the_same_operations_in_the_asked_mix() {
        let (one, two) = (plan(Spread::Uniform), plan(Spread::Uniform));
        let mut counts = [0; 3];
        for number in 0..10_000 {
            let operation = one.operation(number);
            assert_eq!(operation, two.operation(number));
            assert!(operation.wallet < 100 && operation.other < 100);
            assert!((1..=CENTS_MAX).contains(&operation.cents));
            assert_eq!(operation.wallet != operation.other, operation.kind == Kind::Transfer);
            counts[operation.kind as usize] += 1;
        }
        assert!((6_700..7_300).contains(&counts[0]), "{counts:?}");
        assert!((1_800..2_200).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn spreads_differ_in_how_often_the_first_wallet_is_met() {
        let first = |spread| {
            let plan = plan(spread);
            (0..10_000).filter(|number| plan.operation(*number).wallet == 0).count()
        };
        assert!((50..150).contains(&first(Spread::Uniform)));
        // 1 / (1 + 1/2 + … + 1/100) = 0.193
        assert!((1_750..2_100).contains(&first(Spread::Zipf)));
        assert!((8_900..9_200).contains(&first(Spread::Hot)));
    }

    #[test]
    fn a_mix_names_kinds_and_shares() {
        assert_eq!("debit=1".parse::<Mix>().unwrap().to_string(), "credit=0,debit=1,transfer=0");
        for wrong in ["", "credit", "credit=-1", "fee=3", "credit=0", "credit=1;debit=2"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
