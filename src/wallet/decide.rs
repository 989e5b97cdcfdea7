//! State + command → events or a rejection. The one place that refuses for reasons of the domain.

use rust_decimal::Decimal;

use super::{
    Amount, Change, ChangeType, Command, CreateWallet, Currency, Details, EventBody, EventKind,
    Expected, Footprint, Movement, NewEvent, Policy, Rejection, Status, Transfer, Wallet, WalletId,
    WalletState, World,
};

/// Decides one command. Whatever it names has been read into `world`.
pub fn decide(command: &Command, world: &World, policy: &Policy) -> Result<Decision, Rejection> {
    let rules = Rules { world, policy };
    let events = match command {
        Command::Create(create) => rules.open(create)?,
        Command::Credit(movement) => rules.movement(movement, ChangeType::Credit)?,
        Command::Debit(movement) => rules.movement(movement, ChangeType::Debit)?,
        Command::Transfer(transfer) => rules.transfer(transfer)?,
    };
    Ok(Decision { events })
}

/// What is due on the command's wallets and has to happen before it, whatever becomes of it. Nothing
/// that a wallet has today falls due.
pub fn due(_footprint: &Footprint<'_>, _world: &World) -> Vec<NewEvent> {
    Vec::new()
}

/// What an accepted command changes.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// In the order in which they happen.
    pub events: Vec<NewEvent>,
}

/// The rules over one world. A struct of their own, since each needs both.
struct Rules<'a> {
    world: &'a World,
    policy: &'a Policy,
}

impl<'a> Rules<'a> {
    fn open(&self, create: &CreateWallet) -> Result<Vec<NewEvent>, Rejection> {
        let (id, currency) = (&create.id.0, create.currency);
        if self.world.wallet(id).is_some() {
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

    /// A credit or a debit.
    fn movement(
        &self,
        movement: &Movement,
        direction: ChangeType,
    ) -> Result<Vec<NewEvent>, Rejection> {
        let expected = movement.expected_version.as_ref();
        let wallet = self.usable(&movement.wallet_id, expected)?;
        let changed = self.changed(wallet, movement.amount, direction)?;
        let kind = match direction {
            ChangeType::Credit => EventKind::Credited,
            ChangeType::Debit => EventKind::Debited,
        };
        Ok(vec![next(wallet, kind, changed, &movement.details)])
    }

    fn transfer(&self, transfer: &Transfer) -> Result<Vec<NewEvent>, Rejection> {
        let Transfer { from, to, amount, details, expected_version } = transfer;
        if from == to {
            return Err(Rejection::SameWallet);
        }
        let source = self.usable(from, expected_version.as_ref())?;
        let destination = self.usable(to, None)?;
        if source.currency != destination.currency {
            let (from, to) = (source.currency, destination.currency);
            return Err(Rejection::CurrencyMismatch { from, to });
        }
        let out = self.changed(source, *amount, ChangeType::Debit)?;
        let into = self.changed(destination, *amount, ChangeType::Credit)?;
        let initiated = EventKind::TransferInitiated { to: to.clone() };
        let completed = EventKind::TransferCompleted { from: from.clone() };
        Ok(vec![next(source, initiated, out, details), next(destination, completed, into, details)])
    }

    /// How an allowed change moves the balance, and the state that it leaves.
    fn changed(
        &self,
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
        let fits = |balance: &Decimal| balance.abs() <= self.policy.balance_max;
        let balance = balance.filter(fits).ok_or_else(overflow)?;
        let before = wallet.state();
        let available_balance = before.available_balance.map(|a| a - before.balance + balance);
        let after = WalletState { balance, available_balance, ..before };
        Ok((Change { previous_balance: wallet.balance, amount, direction }, after))
    }

    /// The wallet, where it is there, active and at an expected version.
    fn usable(
        &self,
        id: &WalletId,
        expected_version: Option<&Expected>,
    ) -> Result<&'a Wallet, Rejection> {
        let missing = || Rejection::WalletNotFound { wallet: id.clone() };
        let wallet = self.world.wallet(id).ok_or_else(missing)?;
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
}

fn in_scale(amount: Amount, currency: Currency) -> Result<Decimal, Rejection> {
    if amount.scale() > currency.scale() {
        return Err(Rejection::AmountScale { currency });
    }
    Ok(currency.scaled(amount.value()))
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
