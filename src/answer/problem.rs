//! Problem documents (RFC 9457): every error the service gives, with a stable code.

use rust_decimal::Decimal;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::Refusal;
use super::members::{Members, OpenHold};
use crate::wallet::Rejection;

/// Every code, once: its status, its title, and whether the same request may succeed later.
macro_rules! problem_codes {
    ($($variant:ident $code:literal $status:literal $retryable:literal $title:literal;)*) => {
        /// The stable code of a problem; clients switch on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemCode { $($variant),* }

        impl ProblemCode {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
            pub fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable),* }
            }
        }
    };
}

problem_codes! {
    MalformedJson "malformed_json" 400 false "The body is not valid JSON";
    UnknownField "unknown_field" 400 false "The body has a field that this route does not know";
    MissingField "missing_field" 400 false "A required field is missing";
    InvalidValue "invalid_value" 400 false "A value cannot be used";
    InvalidAmount "invalid_amount" 400 false "An amount cannot be used";
    AmountScale "amount_scale" 400 false "The amount has more decimals than its currency";
    BalanceOverflow "balance_overflow" 400 false "The balance would leave its range";
    InvalidId "invalid_id" 400 false "An id cannot be used";
    InvalidCurrency "invalid_currency" 400 false "The currency is not known";
    CurrencyMismatch "currency_mismatch" 400 false "The wallets have different currencies";
    SameWallet "same_wallet" 400 false "A transfer needs two different wallets";
    InsufficientFunds "insufficient_funds" 400 false "The wallet has too little available";
    InvalidIdempotencyKey "invalid_idempotency_key" 400 false "The idempotency key cannot be used";
    MalformedRequest "malformed_request" 400 false "The request is not HTTP/1.1 as RFC 9112 has it";
    Forbidden "forbidden" 403 false "The service may not do this";
    AmountExceedsHold "amount_exceeds_hold" 400 false "The hold has less left";
    WalletNotFound "wallet_not_found" 404 false "There is no such wallet";
    TransactionNotFound "transaction_not_found" 404 false "There is no such transaction";
    HoldNotFound "hold_not_found" 404 false "There is no such hold";
    TopicNotFound "topic_not_found" 404 false "The service has no such topic";
    DeadLetterNotFound "dead_letter_not_found" 404 false "There is no such dead letter";
    RouteNotFound "route_not_found" 404 false "There is no such route";
    MethodNotAllowed "method_not_allowed" 405 false "The route does not take this method";
    RequestTimeout "request_timeout" 408 true "The request did not arrive in time";
    WalletExists "wallet_exists" 409 false "There is already a wallet with this id";
    WalletFrozen "wallet_frozen" 409 false "The wallet is frozen";
    WalletSuspended "wallet_suspended" 409 false "The wallet is suspended";
    WalletClosed "wallet_closed" 409 false "The wallet is closed";
    HoldExists "hold_exists" 409 false "There is already a hold with this id";
    HoldClosed "hold_closed" 409 false "The hold is closed";
    HoldExpired "hold_expired" 409 false "The hold has expired";
    TooManyHolds "too_many_holds" 409 false "The wallet has too many open holds";
    StatusUnchanged "status_unchanged" 409 false "The wallet has this status already";
    WalletNotEmpty "wallet_not_empty" 409 false "The wallet has a balance";
    WalletHasHolds "wallet_has_holds" 409 false "The wallet has open holds";
    LimitInUse "limit_in_use" 409 false "More than the new limit is in use";
    IdempotencyKeyInFlight "idempotency_key_in_flight" 409 true "A request with this key is still running";
    IdempotencyKeyExpired "idempotency_key_expired" 409 false "The first answer under this key is no longer kept";
    KafkaDisabled "kafka_disabled" 409 false "The service runs without Kafka";
    RebuildRunning "rebuild_running" 409 true "A projection is being rebuilt";
    Archived "archived" 410 false "The events are in an archive";
    VersionMismatch "version_mismatch" 412 false "The wallet has another version";
    BodyTooLarge "body_too_large" 413 false "The body is too large";
    UriTooLong "uri_too_long" 414 false "The path and its query are too long";
    UnsupportedMediaType "unsupported_media_type" 415 false "The body must be application/json, not encoded";
    IdempotencyKeyReused "idempotency_key_reused" 422 false "The key was used for another request";
    Overloaded "overloaded" 429 true "The service has more work than it can take";
    HeadersTooLarge "headers_too_large" 431 false "The headers are too many or too long";
    DatabaseUnavailable "database_unavailable" 503 true "The database cannot be reached";
    KafkaUnavailable "kafka_unavailable" 503 true "Kafka cannot be reached, or refused";
    OutcomeUnknown "outcome_unknown" 503 true "Whether the request took effect is not known yet";
    WalletBusy "wallet_busy" 503 true "The wallet is held by another transaction";
    ResultTooLarge "result_too_large" 413 false "The command was executed, and its result is larger than the topic takes";
    ProjectionBehind "projection_behind" 503 true "The projection has not reached the token yet";
    Internal "internal_error" 500 true "The service made a mistake";
}

impl ProblemCode {
    pub fn of(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::WalletNotFound { .. } => Self::WalletNotFound,
            Rejection::WalletExists { .. } => Self::WalletExists,
            Rejection::WalletFrozen { .. } => Self::WalletFrozen,
            Rejection::WalletSuspended { .. } => Self::WalletSuspended,
            Rejection::WalletClosed { .. } => Self::WalletClosed,
            Rejection::InsufficientFunds { .. } => Self::InsufficientFunds,
            Rejection::BalanceOverflow { .. } => Self::BalanceOverflow,
            Rejection::AmountScale { .. } => Self::AmountScale,
            Rejection::CurrencyMismatch { .. } => Self::CurrencyMismatch,
            Rejection::SameWallet => Self::SameWallet,
            Rejection::VersionMismatch { .. } => Self::VersionMismatch,
            Rejection::InvalidField { .. } => Self::InvalidValue,
            Rejection::MissingField { .. } => Self::MissingField,
            Rejection::HoldNotFound { .. } => Self::HoldNotFound,
            Rejection::HoldExists { .. } => Self::HoldExists,
            Rejection::HoldClosed { .. } => Self::HoldClosed,
            Rejection::HoldExpired { .. } => Self::HoldExpired,
            Rejection::AmountExceedsHold { .. } => Self::AmountExceedsHold,
            Rejection::BelowCaptured { .. } => Self::InvalidAmount,
            Rejection::TooManyHolds { .. } => Self::TooManyHolds,
            Rejection::StatusUnchanged { .. } => Self::StatusUnchanged,
            Rejection::WalletNotEmpty { .. } => Self::WalletNotEmpty,
            Rejection::WalletHasHolds { .. } => Self::WalletHasHolds,
            Rejection::LimitInUse { .. } => Self::LimitInUse,
            Rejection::Unlocked { .. } => Self::WalletBusy,
            Rejection::MoneyEventsOff { .. } => Self::Forbidden,
        }
    }
}

/// One problem on its way to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: ProblemCode,
    pub detail: String,
    pub request_id: String,
    pub errors: Vec<FieldError>,
    /// Extra member of `idempotency_key_expired` and `result_too_large`.
    pub transaction_id: Option<String>,
    /// The numbers behind a refusal.
    pub members: Box<Members>,
}

/// Which part of the request is meant: a JSON Pointer, `?name` or a header's name, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

/// A problem as it is sent (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    #[schema(pattern = "^urn:wallex:problem:[a-z_]+$")]
    r#type: String,
    /// The same for every problem of this code.
    title: &'a str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request.
    detail: &'a str,
    #[schema(schema_with = codes)]
    code: &'a str,
    /// Names the request in the log.
    request_id: &'a str,
    /// Every part of the request that is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
    /// With `idempotency_key_expired` and `result_too_large`: what was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    transaction_id: Option<&'a str>,
    /// What may be spent: the balance without what is held, with the overdraft.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    available: Option<Decimal>,
    /// The balance without what is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    own: Option<Decimal>,
    /// The balance without grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    main: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    held: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    overdraft_limit: Option<Decimal>,
    /// What was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    amount: Option<Decimal>,
    /// What may still be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    left: Option<Decimal>,
    /// What is in use of a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    used: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, pattern = "^(captured|released|expired)$")]
    hold_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, pattern = "^(capture|release|expiry)$")]
    closed_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, format = DateTime)]
    closed_at: Option<&'a str>,
    /// The wallet's largest open holds.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    holds: &'a [OpenHold],
    /// Whether the same request may succeed later.
    retryable: bool,
}

fn codes() -> Schema {
    let codes = ProblemCode::ALL.iter().map(|code| code.as_str());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).into()
}

impl Problem {
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            request_id: String::new(),
            errors: Vec::new(),
            transaction_id: None,
            members: Box::default(),
        }
    }

    /// A problem with one part of the request.
    pub fn at(code: ProblemCode, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let error = FieldError { pointer: pointer.into(), detail: detail.into() };
        // The whole body has an empty pointer.
        let detail = match error.pointer.is_empty() {
            true => error.detail.clone(),
            false => format!("{}: {}", error.pointer, error.detail),
        };
        Self { errors: vec![error], ..Self::new(code, detail) }
    }

    /// A refusal of the domain, with the numbers that explain it.
    pub fn of_rejection(rejection: &Rejection) -> Self {
        let detail = match rejection {
            Rejection::WalletNotFound { wallet } => format!("no wallet has the id {wallet}"),
            Rejection::WalletExists { wallet } => format!("a wallet with the id {wallet} exists"),
            Rejection::WalletFrozen { wallet } => format!("wallet {wallet} is frozen"),
            Rejection::WalletClosed { wallet } => format!("wallet {wallet} is closed"),
            Rejection::InsufficientFunds { available, amount, .. } => {
                format!("{available} is available, {amount} was asked for")
            }
            Rejection::BalanceOverflow { wallet } => {
                format!("the balance of wallet {wallet} must stay within 10^18")
            }
            Rejection::AmountScale { currency } => {
                format!("{} has {} decimals", currency.code(), currency.scale())
            }
            Rejection::CurrencyMismatch { from, to } => {
                format!("the source is in {}, the destination in {}", from.code(), to.code())
            }
            Rejection::SameWallet => "toWalletId is the source itself".to_owned(),
            Rejection::VersionMismatch { expected, actual } => {
                format!("If-Match asks for version {expected}, the wallet is at {actual}")
            }
            Rejection::InvalidField { field, rule } | Rejection::MissingField { field, rule } => {
                let code = ProblemCode::of(rejection);
                return Self::at(code, format!("/{field}"), rule.as_str());
            }
            Rejection::WalletSuspended { wallet } => format!("wallet {wallet} is suspended"),
            later => of_later(later),
        };
        let members = Box::new(Members::of(rejection));
        Self { members, ..Self::new(ProblemCode::of(rejection), detail) }
    }

    /// The document of a refusal, as its first request got it.
    pub fn of_refusal(refusal: &Refusal) -> Self {
        let problem = Self::of_rejection(&refusal.rejection).with_request_id(&refusal.request_id);
        match refusal.operation {
            Some(at) => problem.of_operation(at),
            None => problem,
        }
    }

    /// The problem of one operation as that of the whole request.
    pub fn of_operation(self, at: usize) -> Self {
        let Self { transaction_id, request_id, members, .. } = self;
        let at = Self::at(self.code, format!("/operations/{at}"), self.detail);
        Self { transaction_id, request_id, members, ..at }
    }

    pub fn with_request_id(self, request_id: &str) -> Self {
        Self { request_id: request_id.to_owned(), ..self }
    }

    pub fn status(&self) -> u16 {
        self.code.status()
    }

    pub fn to_json(&self) -> String {
        let members = &*self.members;
        let document = ProblemDocument {
            r#type: format!("urn:wallex:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.status(),
            detail: &self.detail,
            code: self.code.as_str(),
            request_id: &self.request_id,
            errors: &self.errors,
            transaction_id: self.transaction_id.as_deref(),
            available: members.available,
            own: members.own,
            main: members.main,
            held: members.held,
            overdraft_limit: members.overdraft_limit,
            amount: members.amount,
            left: members.left,
            used: members.used,
            hold_status: members.hold_status,
            closed_by: members.closed_by,
            closed_at: members.closed_at.as_deref(),
            holds: &members.holds,
            retryable: self.code.retryable(),
        };
        serde_json::to_string(&document).unwrap_or_default()
    }
}

/// What refusals say that came after the first ones.
fn of_later(rejection: &Rejection) -> String {
    match rejection {
        Rejection::HoldNotFound { hold } => format!("no hold has the id {hold}"),
        Rejection::HoldExists { hold } => format!("a hold with the id {hold} exists"),
        Rejection::HoldClosed { hold, status, .. } => {
            format!("hold {hold} is closed: {}", status.as_str())
        }
        Rejection::HoldExpired { hold, .. } => format!("hold {hold} has expired"),
        Rejection::AmountExceedsHold { amount, left } => {
            format!("{left} may still be captured, {amount} was asked for")
        }
        Rejection::BelowCaptured { amount, captured } => {
            format!("{captured} of the hold is captured already, which {amount} does not exceed")
        }
        Rejection::TooManyHolds { max } => format!("a wallet has {max} open holds at most"),
        Rejection::StatusUnchanged { wallet, status } => {
            format!("wallet {wallet} is {} already", status.as_str())
        }
        Rejection::WalletNotEmpty { wallet, balance } => {
            format!("wallet {wallet} has a balance of {balance}; sweepTo moves one above zero")
        }
        Rejection::WalletHasHolds { wallet, open } => {
            format!("wallet {wallet} has {open} open holds")
        }
        Rejection::LimitInUse { used } => format!("{used} of the overdraft is in use"),
        Rejection::MoneyEventsOff { op } => format!("{op} needs MONEY_EVENTS=on"),
        _ => "nothing was done; the same request may be sent again".to_owned(),
    }
}
