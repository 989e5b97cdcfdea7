//! The four commands, read from the fields of a body. What a path says comes as an argument.

use super::Fields;
use crate::answer::{Problem, ProblemCode};
use crate::wallet::{
    Command, CreateWallet, Expected, IdOrigin, Movement, Rejection, Transfer, WalletId,
};

/// A wallet to open; `made` is its id where the caller gives none.
pub fn create(mut fields: Fields, made: WalletId) -> Result<Command, Problem> {
    let id = match fields.new_id("walletId") {
        Some(id) => (id, IdOrigin::Given),
        None => (made, IdOrigin::Made),
    };
    let create = CreateWallet {
        id,
        owner_id: fields.owner_id("ownerId"),
        currency: fields.currency("currency"),
        initial_balance: fields.optional_amount("initialBalance", true),
        overdraft_limit: fields.limit("overdraftLimit"),
        metadata: fields.metadata("metadata"),
    };
    fields.finish()?;
    Ok(Command::Create(create))
}

/// A credit or a debit of `wallet_id`.
pub fn movement(
    mut fields: Fields,
    wallet_id: WalletId,
    expected_version: Option<Expected>,
) -> Result<Movement, Problem> {
    let amount = fields.amount("amount");
    let details = fields.details();
    fields.finish()?;
    Ok(Movement { wallet_id, amount, details, expected_version })
}

/// A transfer from `from`.
pub fn transfer(
    mut fields: Fields,
    from: WalletId,
    expected_version: Option<Expected>,
) -> Result<Command, Problem> {
    let to = fields.required_wallet_id("toWalletId");
    let amount = fields.amount("amount");
    let details = fields.details();
    let place = fields.place().to_owned();
    fields.finish()?;
    if to == from {
        let problem = Problem::of_rejection(&Rejection::SameWallet);
        // In a list of operations it has to be said which one.
        return Err(match place.is_empty() {
            true => problem,
            false => Problem::at(ProblemCode::SameWallet, place, problem.detail),
        });
    }
    Ok(Command::Transfer(Transfer { from, to, amount, details, expected_version }))
}
