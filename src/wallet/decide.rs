//! State + command → events or a rejection. The one place that refuses for reasons of the domain.

use rust_decimal::Decimal;

use super::{
    Amount, Change, ChangeType, Command, CreateWallet, Currency, Details, EventBody, EventType,
    Expected, Facts, Footprint, Movement, NewEvent, Policy, Rejection, Status, Transfer, Wallet,
    WalletId, WalletState, World,
};

/// Decides one command. Whatever it names has been read into `world`.
pub fn decide(command: &Command, world: &World, policy: &Policy) -> Result<Decision, Rejection> {
    let rules = Rules { world, policy };
    let events = match command {
        Command::Create(create) => rules.open(create)?,
        Command::Credit(movement) => rules.movement(movement, EventType::WalletCredited)?,
        Command::Debit(movement) => rules.movement(movement, EventType::WalletDebited)?,
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
        let event = |version, kind: EventType, facts, amount, reason: &str| NewEvent {
            wallet_id: id.clone(),
            version,
            body: EventBody {
                kind,
                facts,
                change: Change { previous_balance: zero, amount, direction: kind.direction() },
                after: WalletState {
                    balance: amount,
                    held_balance: zero,
                    available_balance: None,
                    status: Status::Active,
                },
                currency,
                reason: Some(reason.to_owned()),
                reference: None,
                metadata: None,
            },
        };
        let overdraft_limit = currency.scaled(create.overdraft_limit);
        let facts = Facts::Creation { owner_id: create.owner_id.clone(), overdraft_limit };
        let mut created = event(1, EventType::WalletCreated, facts, zero, "wallet created");
        created.body.metadata.clone_from(&create.metadata);
        let Some(amount) = create.initial_balance else { return Ok(vec![created]) };
        let (kind, amount) = (EventType::WalletCredited, in_scale(amount, currency)?);
        Ok(vec![created, event(2, kind, Facts::Balance, amount, "initial balance")])
    }

    /// A credit or a debit.
    fn movement(&self, movement: &Movement, kind: EventType) -> Result<Vec<NewEvent>, Rejection> {
        let expected = movement.expected_version.as_ref();
        let wallet = self.usable(&movement.wallet_id, expected)?;
        let changed = self.changed(wallet, movement.amount, kind.direction())?;
        Ok(vec![next(wallet, kind, Facts::Balance, changed, &movement.details)])
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
        let side = |wallet: &Wallet, kind: EventType, other: &WalletId| -> Result<_, Rejection> {
            let changed = self.changed(wallet, *amount, kind.direction())?;
            Ok(next(wallet, kind, Facts::Transfer { other: other.clone() }, changed, details))
        };
        Ok(vec![
            side(source, EventType::WalletTransferInitiated, to)?,
            side(destination, EventType::WalletTransferCompleted, from)?,
        ])
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
    kind: EventType,
    facts: Facts,
    (change, after): (Change, WalletState),
    details: &Details,
) -> NewEvent {
    NewEvent {
        wallet_id: wallet.id.clone(),
        version: wallet.version + 1,
        body: EventBody {
            kind,
            facts,
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
