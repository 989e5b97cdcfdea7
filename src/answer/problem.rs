//! Problem documents (RFC 9457): every error the service gives, with a stable code.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::Refusal;
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
    WalletNotFound "wallet_not_found" 404 false "There is no such wallet";
    TransactionNotFound "transaction_not_found" 404 false "There is no such transaction";
    TopicNotFound "topic_not_found" 404 false "The service has no such topic";
    DeadLetterNotFound "dead_letter_not_found" 404 false "There is no such dead letter";
    RouteNotFound "route_not_found" 404 false "There is no such route";
    MethodNotAllowed "method_not_allowed" 405 false "The route does not take this method";
    RequestTimeout "request_timeout" 408 true "The request did not arrive in time";
    WalletExists "wallet_exists" 409 false "There is already a wallet with this id";
    WalletFrozen "wallet_frozen" 409 false "The wallet is frozen";
    WalletClosed "wallet_closed" 409 false "The wallet is closed";
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
            Rejection::WalletClosed { .. } => Self::WalletClosed,
            Rejection::InsufficientFunds { .. } => Self::InsufficientFunds,
            Rejection::BalanceOverflow { .. } => Self::BalanceOverflow,
            Rejection::AmountScale { .. } => Self::AmountScale,
            Rejection::CurrencyMismatch { .. } => Self::CurrencyMismatch,
            Rejection::SameWallet => Self::SameWallet,
            Rejection::VersionMismatch { .. } => Self::VersionMismatch,
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
            Rejection::InsufficientFunds { available, amount } => {
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
        };
        Self::new(ProblemCode::of(rejection), detail)
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
        let (transaction_id, request_id) = (self.transaction_id, self.request_id);
        let at = Self::at(self.code, format!("/operations/{at}"), self.detail);
        Self { transaction_id, request_id, ..at }
    }

    pub fn with_request_id(self, request_id: &str) -> Self {
        Self { request_id: request_id.to_owned(), ..self }
    }

    pub fn status(&self) -> u16 {
        self.code.status()
    }

    pub fn to_json(&self) -> String {
        let document = ProblemDocument {
            r#type: format!("urn:wallex:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.status(),
            detail: &self.detail,
            code: self.code.as_str(),
            request_id: &self.request_id,
            errors: &self.errors,
            transaction_id: self.transaction_id.as_deref(),
            retryable: self.code.retryable(),
        };
        serde_json::to_string(&document).unwrap_or_default()
    }
}
