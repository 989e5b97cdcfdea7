//! The problem of a command that was not decided, whatever way it came in.

use super::{Failure, Problem, ProblemCode};

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let (code, detail) = match failure {
            Failure::Overloaded => {
                (ProblemCode::Overloaded, "too many commands are waiting; nothing was done")
            }
            Failure::Unavailable => (
                ProblemCode::DatabaseUnavailable,
                "nothing was done; the same request may be sent again",
            ),
            Failure::Schema => (
                ProblemCode::DatabaseUnavailable,
                "the database's schema does not fit this build: run `wallex migrate`, or start the release \
                 that /readyz names; nothing was done",
            ),
            Failure::OutcomeUnknown => (
                ProblemCode::OutcomeUnknown,
                "send the same request with the same Idempotency-Key: it tells or does, never twice",
            ),
            Failure::WalletBusy => {
                (ProblemCode::WalletBusy, "nothing was done; the same request may be sent again")
            }
            Failure::KeyInFlight => (
                ProblemCode::IdempotencyKeyInFlight,
                "the first request under this key is not decided yet; ask again",
            ),
            Failure::KeyReused => (
                ProblemCode::IdempotencyKeyReused,
                "this Idempotency-Key belongs to another request",
            ),
            Failure::KeyExpired { transaction_id } => {
                let code = ProblemCode::IdempotencyKeyExpired;
                let problem =
                    Problem::new(code, "the request took effect before; see transactionId");
                let transaction_id = Some(transaction_id.to_string());
                return Self { transaction_id, ..problem };
            }
            // An atomic request is answered with its one refusal, never with this.
            Failure::Abandoned | Failure::Broken => {
                (ProblemCode::Internal, "nothing was done; the log has the cause")
            }
        };
        Self::new(code, detail)
    }
}
