//! What a wallet's ledger must look like, as a function of what the ledger routes answered.

use rust_decimal::Decimal;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    pub transactions: Vec<Entry>,
    pub next_cursor: Option<String>,
    pub projected_version: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    transaction_type: String,
    amount: Decimal,
    balance_before: Decimal,
    balance_after: Decimal,
    version: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    total_credits: Decimal,
    total_debits: Decimal,
    transaction_count: i64,
}

impl Summary {
    /// What contradicts the wallet's balance and number of entries.
    pub fn compare(&self, balance: Decimal, entries: i64) -> Vec<String> {
        let mut wrong = Vec::new();
        let (credits, debits) = (self.total_credits, self.total_debits);
        if credits.checked_sub(debits) != Some(balance) {
            wrong.push(format!(
                "balance {balance}, ledger: credits {credits} - debits {debits} = {}",
                credits.checked_sub(debits).unwrap_or(Decimal::MAX)
            ));
        }
        if self.transaction_count != entries {
            let count = self.transaction_count;
            wrong.push(format!("{count} ledger entries, the wallet's version says {entries}"));
        }
        wrong
    }
}

/// What is wrong in a chain of entries, newest first: each must begin where the one before ended,
/// from 0 up to the wallet's balance, without a gap in the versions.
pub fn chain(entries: &[Entry], balance: Decimal, version: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut balance_next, mut version_next) = (balance, version);
    for entry in entries {
        let Entry { transaction_type, amount, balance_before, balance_after, version } = entry;
        if *version != version_next {
            wrong.push(format!("entry of version {version} where {version_next} belongs"));
        }
        if *balance_after != balance_next {
            wrong.push(format!(
                "entry of version {version} ends with {balance_after}, what follows it begins with \
                 {balance_next}"
            ));
        }
        if change(transaction_type, *amount).and_then(|c| balance_before.checked_add(c))
            != Some(*balance_after)
        {
            wrong.push(format!(
                "entry of version {version}: {transaction_type} {amount} does not lead from \
                 {balance_before} to {balance_after}"
            ));
        }
        (balance_next, version_next) = (*balance_before, version - 1);
    }
    if !balance_next.is_zero() {
        wrong.push(format!("the oldest entry begins with {balance_next}, not with 0"));
    }
    wrong
}

/// The entry's effect on the balance; none for a type that this tool does not know.
fn change(transaction_type: &str, amount: Decimal) -> Option<Decimal> {
    match transaction_type {
        "CREDIT" | "TRANSFER_IN" => Some(amount),
        "DEBIT" | "TRANSFER_OUT" => Some(-amount),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: i64, transaction_type: &str, numbers: [&str; 3]) -> Entry {
        let [amount, balance_before, balance_after] = numbers.map(|n| n.parse().unwrap());
        let transaction_type = transaction_type.to_owned();
        Entry { transaction_type, amount, balance_before, balance_after, version }
    }

    fn right() -> Vec<Entry> {
        vec![
            entry(4, "TRANSFER_OUT", ["5.00", "12.50", "7.50"]),
            entry(3, "CREDIT", ["2.50", "10.00", "12.50"]),
            entry(2, "CREDIT", ["10.00", "0.00", "10.00"]),
        ]
    }

    #[test]
    fn a_chain_without_a_fault_has_no_findings() {
        assert_eq!(chain(&right(), "7.5".parse().unwrap(), 4), Vec::<String>::new());
        assert_eq!(chain(&[], Decimal::ZERO, 1), Vec::<String>::new());
    }

    #[test]
    fn every_single_alteration_is_found() {
        let balance = "7.5".parse().unwrap();
        let alter: [fn(&mut Vec<Entry>); 6] = [
            |entries| entries[1].amount = Decimal::ONE,
            |entries| entries[1].balance_after = Decimal::ONE,
            |entries| entries[2].balance_before = Decimal::ONE,
            |entries| entries[0].transaction_type = "CREDIT".to_owned(),
            |entries| drop(entries.remove(1)),
            |entries| drop(entries.remove(2)),
        ];
        for (number, alter) in alter.iter().enumerate() {
            let mut entries = right();
            alter(&mut entries);
            assert!(!chain(&entries, balance, 4).is_empty(), "alteration {number}");
        }
        assert!(!chain(&right(), Decimal::ZERO, 4).is_empty());
        assert!(!chain(&right(), balance, 5).is_empty());
    }

    #[test]
    fn a_summary_is_held_against_balance_and_count() {
        let summary = Summary {
            total_credits: "12.50".parse().unwrap(),
            total_debits: "5.00".parse().unwrap(),
            transaction_count: 3,
        };
        assert!(summary.compare("7.50".parse().unwrap(), 3).is_empty());
        assert_eq!(summary.compare("7.51".parse().unwrap(), 4).len(), 2);
    }
}
