//! State + command → events or a rejection. The one place that refuses for reasons of the domain.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::{
    Amount, BALANCE_MAX, BalanceChange, ChangeType, Command, CreateWallet, Currency, Details,
    EventData, Expected, Rejection, Status, Transfer, TransferChange, Wallet, WalletCreated,
    WalletId,
};

/// An event to be: the wallet's next version and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub wallet_id: WalletId,
    pub version: i64,
    pub data: EventData,
}

/// Decides one command on the wallets as they stand. `wallets` answers with the state of an id, or
/// none where there is no such wallet; `transaction_id` names what happens, if it does.
pub fn decide<'a>(
    command: &Command,
    wallets: impl Fn(&WalletId) -> Option<&'a Wallet>,
    transaction_id: Uuid,
) -> Result<Vec<NewEvent>, Rejection> {
    match command {
        Command::Create(create) => open(create, wallets(&create.id.0), transaction_id),
        Command::Credit(movement) => {
            let wallet = usable(&movement.wallet_id, &wallets, movement.expected_version.as_ref())?;
            let change = changed(wallet, movement.amount, ChangeType::Credit)?;
            let data = balance_change(wallet, &change, &movement.details, transaction_id);
            Ok(vec![next(wallet, EventData::WalletCredited(data))])
        }
        Command::Debit(movement) => {
            let wallet = usable(&movement.wallet_id, &wallets, movement.expected_version.as_ref())?;
            let change = changed(wallet, movement.amount, ChangeType::Debit)?;
            let data = balance_change(wallet, &change, &movement.details, transaction_id);
            Ok(vec![next(wallet, EventData::WalletDebited(data))])
        }
        Command::Transfer(order) => transfer(order, &wallets, transaction_id),
    }
}

fn open(
    create: &CreateWallet,
    existing: Option<&Wallet>,
    transaction_id: Uuid,
) -> Result<Vec<NewEvent>, Rejection> {
    let (id, currency) = (&create.id.0, create.currency);
    if existing.is_some() {
        return Err(Rejection::WalletExists { wallet: id.clone() });
    }
    if create.overdraft_limit.normalize().scale() > currency.scale() {
        return Err(Rejection::AmountScale { currency });
    }
    let zero = currency.scaled(Decimal::ZERO);
    let mut events = vec![NewEvent {
        wallet_id: id.clone(),
        version: 1,
        data: EventData::WalletCreated(WalletCreated {
            transaction_id,
            owner_id: create.owner_id.clone(),
            currency: currency.code().to_owned(),
            overdraft_limit: currency.scaled(create.overdraft_limit),
            previous_balance: zero,
            new_balance: zero,
            change_amount: zero,
            change_type: ChangeType::Credit,
            reason: Some("wallet created".to_owned()),
            metadata: create.metadata.clone(),
        }),
    }];
    if let Some(amount) = create.initial_balance {
        let amount = in_scale(amount, currency)?;
        events.push(NewEvent {
            wallet_id: id.clone(),
            version: 2,
            data: EventData::WalletCredited(BalanceChange {
                transaction_id,
                previous_balance: zero,
                new_balance: amount,
                change_amount: amount,
                change_type: ChangeType::Credit,
                reason: Some("initial balance".to_owned()),
                currency: currency.code().to_owned(),
                reference: None,
                metadata: None,
            }),
        });
    }
    Ok(events)
}

fn transfer<'a>(
    order: &Transfer,
    wallets: &impl Fn(&WalletId) -> Option<&'a Wallet>,
    transfer_id: Uuid,
) -> Result<Vec<NewEvent>, Rejection> {
    if order.from == order.to {
        return Err(Rejection::SameWallet);
    }
    let from = usable(&order.from, wallets, order.expected_version.as_ref())?;
    let to = usable(&order.to, wallets, None)?;
    if from.currency != to.currency {
        return Err(Rejection::CurrencyMismatch { from: from.currency, to: to.currency });
    }
    let out = changed(from, order.amount, ChangeType::Debit)?;
    let into = changed(to, order.amount, ChangeType::Credit)?;
    let data = |wallet: &Wallet, change: &Change| TransferChange {
        transfer_id,
        from_wallet_id: order.from.as_str().to_owned(),
        to_wallet_id: order.to.as_str().to_owned(),
        previous_balance: wallet.balance,
        new_balance: change.new_balance,
        change_amount: change.amount,
        change_type: change.kind,
        reason: order.details.description.clone(),
        currency: wallet.currency.code().to_owned(),
        reference: order.details.reference.clone(),
        metadata: order.details.metadata.clone(),
    };
    Ok(vec![
        next(from, EventData::WalletTransferInitiated(data(from, &out))),
        next(to, EventData::WalletTransferCompleted(data(to, &into))),
    ])
}

/// A change of a balance that is allowed.
struct Change {
    amount: Decimal,
    new_balance: Decimal,
    kind: ChangeType,
}

fn changed(wallet: &Wallet, amount: Amount, kind: ChangeType) -> Result<Change, Rejection> {
    let amount = in_scale(amount, wallet.currency)?;
    let overflow = || Rejection::BalanceOverflow { wallet: wallet.id.clone() };
    let new_balance = match kind {
        ChangeType::Credit => wallet.balance.checked_add(amount),
        ChangeType::Debit if amount > wallet.available() => {
            return Err(Rejection::InsufficientFunds { available: wallet.available(), amount });
        }
        ChangeType::Debit => wallet.balance.checked_sub(amount),
    };
    let new_balance = new_balance.filter(|b| b.abs() <= BALANCE_MAX).ok_or_else(overflow)?;
    Ok(Change { amount, new_balance, kind })
}

fn in_scale(amount: Amount, currency: Currency) -> Result<Decimal, Rejection> {
    if amount.scale() > currency.scale() {
        return Err(Rejection::AmountScale { currency });
    }
    Ok(currency.scaled(amount.value()))
}

fn balance_change(
    wallet: &Wallet,
    change: &Change,
    details: &Details,
    transaction_id: Uuid,
) -> BalanceChange {
    BalanceChange {
        transaction_id,
        previous_balance: wallet.balance,
        new_balance: change.new_balance,
        change_amount: change.amount,
        change_type: change.kind,
        reason: details.description.clone(),
        currency: wallet.currency.code().to_owned(),
        reference: details.reference.clone(),
        metadata: details.metadata.clone(),
    }
}

fn usable<'a>(
    id: &WalletId,
    wallets: &impl Fn(&WalletId) -> Option<&'a Wallet>,
    expected_version: Option<&Expected>,
) -> Result<&'a Wallet, Rejection> {
    let wallet = wallets(id).ok_or_else(|| Rejection::WalletNotFound { wallet: id.clone() })?;
    if let Some(expected) = expected_version
        && !expected.includes(wallet.version)
    {
        let expected = expected.clone();
        return Err(Rejection::VersionMismatch { expected, actual: wallet.version });
    }
    match wallet.status {
        Status::Active => Ok(wallet),
        Status::Frozen => Err(Rejection::WalletFrozen { wallet: id.clone() }),
        Status::Closed => Err(Rejection::WalletClosed { wallet: id.clone() }),
    }
}

fn next(wallet: &Wallet, data: EventData) -> NewEvent {
    NewEvent { wallet_id: wallet.id.clone(), version: wallet.version + 1, data }
}

#[cfg(test)]
mod tests;
