//! State + command → events or a rejection. The one place that refuses for reasons of the domain.
//!
//! The rules of a family of commands are in a file of their own; what several need is here.

mod due;
mod holds;
mod limits;
mod movement;
mod open;
mod status;
mod transfer;

use rust_decimal::Decimal;

use super::{
    Amount, Booking, Change, ChangeType, Command, Currency, Details, EventBody, EventType,
    Expected, Facts, Funds, HoldBrief, NewEvent, Policy, Rejection, Status, Wallet, WalletId,
    WalletState, World,
};

pub use due::{DUE_MAX, SWEEP_MAX, due, overdue};

/// Decides one command. Whatever it names has been read into `world`.
pub fn decide(command: &Command, world: &World, policy: &Policy) -> Result<Decision, Rejection> {
    let rules = Rules { world, policy, command };
    let events = match command {
        Command::Create(create) => rules.open(create)?,
        Command::Credit(movement) => rules.movement(movement, EventType::WalletCredited)?,
        Command::Debit(movement) => rules.movement(movement, EventType::WalletDebited)?,
        Command::Transfer(transfer) => rules.transfer(transfer)?,
        Command::Touch(_) => Vec::new(),
        later if !policy.money_events => {
            return Err(Rejection::MoneyEventsOff { op: later.op().as_str().to_owned() });
        }
        Command::Hold(place) => rules.place_hold(place)?,
        Command::Adjust(adjust) => rules.adjust_hold(adjust)?,
        Command::Capture(capture) => rules.capture_hold(capture)?,
        Command::Release(release) => rules.release_hold(release)?,
        Command::Status(set) => rules.set_status(set)?,
        Command::Close(close) => rules.close(close)?,
        Command::Limits(set) => rules.set_limits(set)?,
        Command::Metadata(set) => rules.set_metadata(set)?,
    };
    Ok(Decision { events })
}

/// What an accepted command changes.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// In the order in which they happen.
    pub events: Vec<NewEvent>,
}

/// The rules over one world. A struct of their own, since each needs all of it.
struct Rules<'a> {
    world: &'a World,
    policy: &'a Policy,
    command: &'a Command,
}

/// What a command does to a wallet, as far as the wallet's status may forbid it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Money comes in.
    In,
    /// Money leaves, or is promised.
    Out,
    /// Money that is on hold already leaves.
    Captured,
    /// What is on hold is given back.
    Released,
}

impl Use {
    fn is_allowed(self, status: Status) -> bool {
        match status {
            Status::Active => true,
            Status::Suspended => self != Self::Out,
            Status::Frozen => self == Self::Released,
            Status::Closed => false,
        }
    }
}

impl<'a> Rules<'a> {
    /// How an allowed change moves the balance, and the state that it leaves.
    fn changed(
        &self,
        wallet: &Wallet,
        amount: Amount,
        direction: ChangeType,
    ) -> Result<(Change, WalletState), Rejection> {
        let amount = in_scale(amount, wallet.currency)?;
        self.changed_by(wallet, amount, direction)
    }

    /// The same by an amount that is in the wallet's scale.
    fn changed_by(
        &self,
        wallet: &Wallet,
        amount: Decimal,
        direction: ChangeType,
    ) -> Result<(Change, WalletState), Rejection> {
        if direction == ChangeType::Debit && amount > wallet.available() {
            return Err(self.insufficient(wallet, amount));
        }
        let balance = self.moved(wallet, amount, direction)?;
        let before = wallet.state();
        let available_balance = before.available_balance.map(|a| a - before.balance + balance);
        let after = WalletState { balance, available_balance, ..before };
        Ok((Change { previous_balance: wallet.balance, amount, direction }, after))
    }

    /// The balance after a change, within its range.
    fn moved(
        &self,
        wallet: &Wallet,
        amount: Decimal,
        direction: ChangeType,
    ) -> Result<Decimal, Rejection> {
        let balance = match direction {
            ChangeType::Credit => wallet.balance.checked_add(amount),
            ChangeType::Debit => wallet.balance.checked_sub(amount),
        };
        let fits = |balance: &Decimal| balance.abs() <= self.policy.balance_max;
        let overflow = || Rejection::BalanceOverflow { wallet: wallet.id.clone() };
        balance.filter(fits).ok_or_else(overflow)
    }

    /// The refusal of an amount that is not there, with what there is.
    fn insufficient(&self, wallet: &Wallet, amount: Decimal) -> Rejection {
        let mut holds: Vec<HoldBrief> = self
            .world
            .open_holds_of(&wallet.id)
            .filter(|hold| !hold.remaining().is_zero())
            .map(HoldBrief::of)
            .collect();
        holds.sort_by(|a, b| b.amount.cmp(&a.amount).then(a.id.cmp(&b.id)));
        holds.truncate(HoldBrief::MAX);
        let funds = Funds {
            own: wallet.own(),
            main: wallet.balance,
            held: wallet.held_balance,
            overdraft_limit: wallet.overdraft_limit,
            holds,
        };
        let funds = Some(Box::new(funds));
        Rejection::InsufficientFunds { available: wallet.available(), amount, funds }
    }

    /// The wallet, where it is there, at an expected version, and may be used like this.
    fn usable(
        &self,
        id: &WalletId,
        expected_version: Option<&Expected>,
        purpose: Use,
    ) -> Result<&'a Wallet, Rejection> {
        let missing = || Rejection::WalletNotFound { wallet: id.clone() };
        let wallet = self.world.wallet(id).ok_or_else(missing)?;
        at_version(wallet, expected_version)?;
        match wallet.status {
            status if purpose.is_allowed(status) => Ok(wallet),
            Status::Closed => Err(Rejection::WalletClosed { wallet: id.clone() }),
            Status::Suspended => Err(Rejection::WalletSuspended { wallet: id.clone() }),
            Status::Active | Status::Frozen => Err(Rejection::WalletFrozen { wallet: id.clone() }),
        }
    }
}

fn at_version(wallet: &Wallet, expected: Option<&Expected>) -> Result<(), Rejection> {
    match expected {
        Some(expected) if !expected.includes(wallet.version) => {
            let expected = expected.clone();
            Err(Rejection::VersionMismatch { expected, actual: wallet.version })
        }
        _ => Ok(()),
    }
}

fn in_scale(amount: Amount, currency: Currency) -> Result<Decimal, Rejection> {
    if amount.scale() > currency.scale() {
        return Err(Rejection::AmountScale { currency });
    }
    Ok(currency.scaled(amount.value()))
}

/// What an event says that moves no money, and the state that it leaves: `change` makes it of the one
/// before, but for what may be spent, which follows.
fn still(wallet: &Wallet, change: impl FnOnce(&mut WalletState)) -> (Change, WalletState) {
    let zero = wallet.currency.scaled(Decimal::ZERO);
    let mut after = wallet.state();
    change(&mut after);
    let previous_balance = wallet.balance;
    let change = Change { previous_balance, amount: zero, direction: ChangeType::Credit };
    (change, told(after, wallet.overdraft_limit))
}

/// The state, with what may be spent said in any case.
fn told(after: WalletState, overdraft_limit: Decimal) -> WalletState {
    let available_balance = Some(after.balance - after.held_balance + overdraft_limit);
    WalletState { available_balance, ..after }
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
            booking: Booking::default(),
        },
    }
}

#[cfg(test)]
mod tests;
