//! State + command → events or a rejection. The one place that refuses for reasons of the domain.

use rust_decimal::Decimal;

use super::{
    Amount, BALANCE_MAX, Change, ChangeType, Command, CreateWallet, Currency, Details, EventBody,
    EventKind, Expected, NewEvent, Rejection, Status, Transfer, Wallet, WalletId, WalletState,
};

/// Decides one command on the wallets as they stand. `wallets` answers with the state of an id, or
/// none where there is no such wallet.
pub fn decide<'a>(
    command: &Command,
    wallets: impl Fn(&WalletId) -> Option<&'a Wallet>,
) -> Result<Vec<NewEvent>, Rejection> {
    match command {
        Command::Create(create) => open(create, wallets(&create.id.0)),
        Command::Credit(movement) => {
            let wallet = usable(&movement.wallet_id, &wallets, movement.expected_version.as_ref())?;
            let up = changed(wallet, movement.amount, ChangeType::Credit)?;
            Ok(vec![next(wallet, EventKind::Credited, up, &movement.details)])
        }
        Command::Debit(movement) => {
            let wallet = usable(&movement.wallet_id, &wallets, movement.expected_version.as_ref())?;
            let down = changed(wallet, movement.amount, ChangeType::Debit)?;
            Ok(vec![next(wallet, EventKind::Debited, down, &movement.details)])
        }
        Command::Transfer(transfer) => move_between(transfer, &wallets),
    }
}

fn open(create: &CreateWallet, existing: Option<&Wallet>) -> Result<Vec<NewEvent>, Rejection> {
    let (id, currency) = (&create.id.0, create.currency);
    if existing.is_some() {
        return Err(Rejection::WalletExists { wallet: id.clone() });
    }
    if create.overdraft_limit.normalize().scale() > currency.scale() {
        return Err(Rejection::AmountScale { currency });
    }
    let zero = currency.scaled(Decimal::ZERO);
    let event = |version, kind, amount: Decimal, reason: &str, metadata| NewEvent {
        wallet_id: id.clone(),
        version,
        body: EventBody {
            kind,
            change: Change { previous_balance: zero, amount, direction: ChangeType::Credit },
            after: WalletState {
                balance: amount,
                held_balance: zero,
                available_balance: None,
                status: Status::Active,
            },
            currency,
            reason: Some(reason.to_owned()),
            reference: None,
            metadata,
        },
    };
    let overdraft_limit = currency.scaled(create.overdraft_limit);
    let kind = EventKind::Created { owner_id: create.owner_id.clone(), overdraft_limit };
    let mut events = vec![event(1, kind, zero, "wallet created", create.metadata.clone())];
    if let Some(amount) = create.initial_balance {
        let amount = in_scale(amount, currency)?;
        events.push(event(2, EventKind::Credited, amount, "initial balance", None));
    }
    Ok(events)
}

fn move_between<'a>(
    transfer: &Transfer,
    wallets: &impl Fn(&WalletId) -> Option<&'a Wallet>,
) -> Result<Vec<NewEvent>, Rejection> {
    let Transfer { from, to, amount, details, expected_version } = transfer;
    if from == to {
        return Err(Rejection::SameWallet);
    }
    let source = usable(from, wallets, expected_version.as_ref())?;
    let destination = usable(to, wallets, None)?;
    if source.currency != destination.currency {
        let (from, to) = (source.currency, destination.currency);
        return Err(Rejection::CurrencyMismatch { from, to });
    }
    let out = changed(source, *amount, ChangeType::Debit)?;
    let into = changed(destination, *amount, ChangeType::Credit)?;
    let initiated = EventKind::TransferInitiated { to: to.clone() };
    let completed = EventKind::TransferCompleted { from: from.clone() };
    Ok(vec![next(source, initiated, out, details), next(destination, completed, into, details)])
}

/// How an allowed change moves the balance, and the state that it leaves.
fn changed(
    wallet: &Wallet,
    amount: Amount,
    direction: ChangeType,
) -> Result<(Change, WalletState), Rejection> {
    let amount = in_scale(amount, wallet.currency)?;
    let overflow = || Rejection::BalanceOverflow { wallet: wallet.id.clone() };
    let balance = match direction {
        ChangeType::Credit => wallet.balance.checked_add(amount),
        ChangeType::Debit if amount > wallet.available() => {
            return Err(Rejection::InsufficientFunds { available: wallet.available(), amount });
        }
        ChangeType::Debit => wallet.balance.checked_sub(amount),
    };
    let balance = balance.filter(|b| b.abs() <= BALANCE_MAX).ok_or_else(overflow)?;
    let before = wallet.state();
    let available_balance = before.available_balance.map(|a| a - before.balance + balance);
    let after = WalletState { balance, available_balance, ..before };
    Ok((Change { previous_balance: wallet.balance, amount, direction }, after))
}

fn in_scale(amount: Amount, currency: Currency) -> Result<Decimal, Rejection> {
    if amount.scale() > currency.scale() {
        return Err(Rejection::AmountScale { currency });
    }
    Ok(currency.scaled(amount.value()))
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

fn next(
    wallet: &Wallet,
    kind: EventKind,
    (change, after): (Change, WalletState),
    details: &Details,
) -> NewEvent {
    NewEvent {
        wallet_id: wallet.id.clone(),
        version: wallet.version + 1,
        body: EventBody {
            kind,
            change,
            after,
            currency: wallet.currency,
            reason: details.description.clone(),
            reference: details.reference.clone(),
            metadata: details.metadata.clone(),
        },
    }
}

#[cfg(test)]
mod tests;
