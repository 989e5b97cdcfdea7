//! The refusals of each route, from the table of codes: a status, its codes, and the document. What a
//! command can be refused for is declared beside its handler ([`problems!`]), of the sets here.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{
    Content, Header, Object, Ref, RefOr, Response, ResponseBuilder, content::ContentBuilder,
};

use crate::answer::ProblemCode::{self, *};

/// What a body alone can be refused for.
pub(in crate::http) const BODY: &[ProblemCode] = &[
    MalformedJson,
    UnknownField,
    MissingField,
    InvalidValue,
    InvalidAmount,
    AmountScale,
    InvalidId,
    BodyTooLarge,
    UnsupportedMediaType,
];
/// What any command can end in.
pub(in crate::http) const COMMAND: &[ProblemCode] = &[
    InvalidIdempotencyKey,
    IdempotencyKeyInFlight,
    IdempotencyKeyExpired,
    IdempotencyKeyReused,
    Overloaded,
    DatabaseUnavailable,
    OutcomeUnknown,
    WalletBusy,
    Internal,
];
/// What a command on an existing wallet can be refused for.
pub(in crate::http) const MOVEMENT: &[ProblemCode] =
    &[BalanceOverflow, WalletNotFound, WalletFrozen, WalletClosed, VersionMismatch];
/// What a command that takes money out of a wallet can be refused for.
pub(in crate::http) const SPENT: &[ProblemCode] = &[InsufficientFunds, WalletSuspended];
/// What a command can be refused for whose events came later than the first ones.
pub(in crate::http) const LATER: &[ProblemCode] = &[Forbidden];
/// What a command on a hold can be refused for.
pub(in crate::http) const ON_HOLD: &[ProblemCode] =
    &[HoldNotFound, HoldClosed, HoldExpired, AmountExceedsHold];
/// What a read can end in.
const READ: &[ProblemCode] = &[InvalidValue, DatabaseUnavailable, Internal];
/// What a repair with a body can end in.
const REPAIR: &[ProblemCode] = &[
    MalformedJson,
    UnknownField,
    MissingField,
    InvalidValue,
    InvalidId,
    BodyTooLarge,
    UnsupportedMediaType,
    DatabaseUnavailable,
    Internal,
];

/// Declares the answers of routes that are refused for any code of these sets.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($codes:expr),+;)*) => {
        $(
            $(#[$doc])*
            pub struct $name;

            impl utoipa::IntoResponses for $name {
                fn responses() -> std::collections::BTreeMap<
                    String,
                    utoipa::openapi::RefOr<utoipa::openapi::Response>,
                > {
                    $crate::http::openapi::problems::answers(&[$($codes),+])
                }
            }
        )*
    };
}
pub(in crate::http) use problems;

problems! {
    /// Reads with parameters only.
    ReadProblems: READ;
    /// Reads of projections.
    ProjectedProblems: READ, &[ProjectionBehind];
    /// Reads of projections with an id in the path.
    ProjectedByIdProblems: READ, &[InvalidId, ProjectionBehind];
    /// Reads of a wallet that must exist.
    ReadWalletProblems: READ, &[InvalidId, WalletNotFound];
    /// GET /wallets/{id}/explain
    ExplainProblems: READ, &[InvalidId, InvalidAmount, WalletNotFound];
    /// Reads of a transaction that must exist.
    TransactionProblems: READ, &[InvalidId, TransactionNotFound];
    /// Reads of a wallet's events.
    WalletEventsProblems: READ, &[InvalidId, WalletNotFound, Archived];
    /// Reads of a wallet's entries.
    WalletEntriesProblems: READ, &[InvalidId, ProjectionBehind, Archived];
    /// Reads of a hold that must exist.
    ReadHoldProblems: READ, &[InvalidId, HoldNotFound];
    /// Reads of a dead letter that must exist.
    DeadLetterProblems: READ, &[InvalidId, DeadLetterNotFound];
    /// Requests about dead letters.
    DeadLetterRequestProblems: READ, &[
        MalformedJson, UnknownField, MissingField, InvalidId, BodyTooLarge, UnsupportedMediaType,
        DeadLetterNotFound
    ];
    /// Repairs of the outbox's rows.
    RepairProblems: REPAIR;
    /// POST /admin/outbox/republish
    RepublishProblems: REPAIR, &[KafkaDisabled, Archived];
    /// POST /admin/projections/rebuild
    RebuildProblems: REPAIR, &[Forbidden, RebuildRunning, Archived];
    /// GET /admin/topics
    TopicsProblems: &[KafkaDisabled, KafkaUnavailable, DatabaseUnavailable, Internal];
    /// GET /admin/topics/{name}
    TopicProblems: &[
        InvalidId, TopicNotFound, KafkaDisabled, KafkaUnavailable, DatabaseUnavailable, Internal
    ];
    /// POST /admin/topics/…
    TopicChangeProblems: REPAIR, &[KafkaDisabled, KafkaUnavailable];
    /// POST /admin/topics/delete
    TopicDeleteProblems: REPAIR, &[TopicNotFound, KafkaDisabled, KafkaUnavailable];
    /// Computations with parameters.
    ComputeProblems: &[InvalidValue, Internal];
    /// Reads without parameters.
    StateProblems: &[DatabaseUnavailable, Internal];
    /// GET /admin/reconcile
    CheckProblems: &[Overloaded, DatabaseUnavailable, Internal];
    /// Files that may not be there.
    FileProblems: &[InvalidId, RouteNotFound, Internal];
    /// Routes that take nothing.
    InternalProblems: &[Internal];
}

/// One answer for each status of the codes.
pub(in crate::http) fn answers(codes: &[&[ProblemCode]]) -> BTreeMap<String, RefOr<Response>> {
    let mut statuses: BTreeMap<u16, Vec<ProblemCode>> = BTreeMap::new();
    for code in ProblemCode::ALL.iter().filter(|code| codes.concat().contains(code)) {
        statuses.entry(code.status()).or_default().push(*code);
    }
    let answer = |(status, codes): (u16, Vec<ProblemCode>)| {
        (status.to_string(), RefOr::T(answer(status, &codes)))
    };
    statuses.into_iter().map(answer).collect()
}

fn answer(status: u16, codes: &[ProblemCode]) -> Response {
    let lines: Vec<String> =
        codes.iter().map(|code| format!("- `{}`: {}", code.as_str(), code.title())).collect();
    let mut response = ResponseBuilder::new()
        .description(lines.join("\n"))
        .content("application/problem+json", document(status, codes));
    if codes.iter().any(|code| code.retryable()) {
        let mut header = Header::new(Object::with_type(Type::String));
        header.description = Some("Seconds, where `retryable` is true".to_owned());
        response = response.header("Retry-After", header);
    }
    response.build()
}

/// The problem document, narrowed to what this answer may say.
fn document(status: u16, codes: &[ProblemCode]) -> Content {
    let codes = codes.iter().map(|code| code.as_str());
    let narrowed = ObjectBuilder::new()
        .property("code", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)))
        .property(
            "status",
            ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([status])),
        );
    let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(narrowed);
    ContentBuilder::new().schema(Some(schema)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_answer_of_some_route() {
        let document = String::from_utf8(crate::http::document().to_vec()).unwrap();
        for code in ProblemCode::ALL {
            // Known to no route: refused before there is one; a topic's own.
            let before = [
                MethodNotAllowed,
                MalformedRequest,
                RequestTimeout,
                UriTooLong,
                HeadersTooLarge,
                ResultTooLarge,
            ];
            if !before.contains(code) {
                let line = format!("- `{}`: {}", code.as_str(), code.title());
                assert!(document.contains(&line), "{code:?} is documented nowhere");
            }
        }
    }
}
