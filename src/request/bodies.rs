//! The bodies of the commands, and the commands that they make with what the path says.

use super::body::body;
use super::values::{Description, NewWalletId, NonNegative, OwnerId, Reference};
use crate::wallet::{
    Amount, CloseWallet, Command, CreateWallet, Currency, Details, Expected, IdOrigin, Metadata,
    Movement, NewStatus, Rejection, SetLimits, SetMetadata, SetStatus, Transfer, WalletId,
};

body! {
    /// A wallet to open.
    pub struct CreateWalletBody {
        /// Made when left out. Visible characters, stored as sent; not `.` or `..`, which no client
        /// can ask for.
        wallet_id as "walletId": Option<NewWalletId>,
        owner_id as "ownerId": OwnerId,
        /// ISO 4217 code; USD when left out.
        currency as "currency": Option<Currency>,
        initial_balance as "initialBalance": Option<NonNegative>,
        /// How far below zero the wallet may go, no more decimals than the currency has; none when left
        /// out.
        overdraft_limit as "overdraftLimit": Option<NonNegative>,
        metadata as "metadata": Option<Metadata>,
    }
}

body! {
    /// A credit or a debit.
    pub struct MovementBody {
        amount as "amount": Amount,
        ..details: DetailsBody,
    }
}

body! {
    /// A transfer from the wallet in the path.
    pub struct TransferBody {
        to_wallet_id as "toWalletId": WalletId,
        amount as "amount": Amount,
        ..details: DetailsBody,
    }
}

body! {
    /// Why a wallet's status is changed.
    pub struct StatusBody {
        reason as "reason": Description,
    }
}

body! {
    /// Why a wallet is closed.
    pub struct CloseBody {
        reason as "reason": Description,
        /// The wallet that a balance above zero goes to first; without it the balance must be zero.
        sweep_to as "sweepTo": Option<WalletId>,
    }
}

body! {
    /// A wallet's new limits.
    pub struct LimitsBody {
        /// How far below zero the wallet may go, no more decimals than the currency has; as before when
        /// left out.
        overdraft_limit as "overdraftLimit": Option<NonNegative>,
        reason as "reason": Description,
    }
}

body! {
    /// A wallet's new metadata: all of them.
    pub struct MetadataBody {
        metadata as "metadata": Metadata,
    }
}

body! {
    /// What a caller may note beside an amount.
    pub struct DetailsBody {
        description as "description": Option<Description>,
        /// The caller's own id of this: what `/ledger/reference/{reference}` finds.
        reference as "reference": Option<Reference>,
        metadata as "metadata": Option<Metadata>,
    }
}

impl CreateWalletBody {
    /// Opens a wallet; `make_id` gives its id where the caller gives none.
    pub fn command(self, make_id: impl FnOnce() -> WalletId) -> Command {
        let id = match self.wallet_id {
            Some(NewWalletId(id)) => (id, IdOrigin::Given),
            None => (make_id(), IdOrigin::Generated),
        };
        Command::Create(CreateWallet {
            id,
            owner_id: self.owner_id.0,
            currency: self.currency.unwrap_or(Currency::USD),
            // Of what can be read only zero is no amount: it is as good as leaving it out.
            initial_balance: self.initial_balance.and_then(|b| Amount::from_decimal(b.0).ok()),
            overdraft_limit: self.overdraft_limit.map_or_else(Default::default, |limit| limit.0),
            metadata: self.metadata,
        })
    }
}

impl MovementBody {
    /// Raises or lowers `wallet_id`.
    pub fn movement(self, wallet_id: WalletId, expected_version: Option<Expected>) -> Movement {
        Movement { wallet_id, amount: self.amount, details: self.details.into(), expected_version }
    }
}

impl TransferBody {
    /// Moves money out of `from`.
    pub fn command(
        self,
        from: WalletId,
        expected_version: Option<Expected>,
    ) -> Result<Command, Rejection> {
        let Self { to_wallet_id: to, amount, details } = self;
        if to == from {
            return Err(Rejection::SameWallet);
        }
        let details = details.into();
        Ok(Command::Transfer(Transfer { from, to, amount, details, expected_version }))
    }
}

impl StatusBody {
    pub fn command(
        self,
        wallet_id: WalletId,
        status: NewStatus,
        expected_version: Option<Expected>,
    ) -> Command {
        let reason = self.reason.0;
        Command::Status(SetStatus { wallet_id, status, reason, expected_version })
    }
}

impl CloseBody {
    pub fn command(self, wallet_id: WalletId, expected_version: Option<Expected>) -> Command {
        let (reason, sweep_to) = (self.reason.0, self.sweep_to);
        Command::Close(CloseWallet { wallet_id, reason, sweep_to, expected_version })
    }
}

impl LimitsBody {
    pub fn command(self, wallet_id: WalletId, expected_version: Option<Expected>) -> Command {
        let (overdraft_limit, reason) = (self.overdraft_limit.map(|limit| limit.0), self.reason.0);
        Command::Limits(SetLimits { wallet_id, overdraft_limit, reason, expected_version })
    }
}

impl MetadataBody {
    pub fn command(self, wallet_id: WalletId, expected_version: Option<Expected>) -> Command {
        let metadata = self.metadata;
        Command::Metadata(SetMetadata { wallet_id, metadata, expected_version })
    }
}

impl From<DetailsBody> for Details {
    fn from(body: DetailsBody) -> Self {
        Self {
            description: body.description.map(|description| description.0),
            reference: body.reference.map(|reference| reference.0),
            metadata: body.metadata,
        }
    }
}
