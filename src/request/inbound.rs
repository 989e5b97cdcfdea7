//! A command of the inbound topic: an operation of `POST /bulk`, or several as its body has them, with an
//! id of its own instead of an idempotency key.

use utoipa::openapi::Schema;

use super::bulk::{BulkBody, Parsed};
use super::values::{Key, one_of, words};
use super::{Body, BulkItem, Fault, Fields, OPERATIONS, Operation, Value};
use crate::answer::{Problem, ProblemCode};
use crate::wallet::{Command, WalletId};

/// Bytes of one command, at most: as many as a request's body may have.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;

/// One command, and the id under which it takes effect once.
#[derive(Debug, Clone)]
pub struct WalletCommand {
    pub id: String,
    pub what: Commanded,
}

/// What a command asks for.
#[derive(Debug, Clone)]
pub enum Commanded {
    One(Command),
    Many {
        /// All of them or none.
        atomic: bool,
        operations: Vec<Command>,
        parsed: Parsed,
    },
}

/// What `op` names: an operation, or several of them.
#[derive(Clone)]
enum Kind {
    One(&'static Operation),
    Many,
}

impl Value for Kind {
    fn read(token: &str) -> Result<Self, Fault> {
        let one = OPERATIONS.iter().map(|operation| (operation.name, operation));
        let kinds = one.map(|(name, operation)| (name, Self::One(operation)));
        one_of(token, kinds.chain([("bulk", Self::Many)]))
    }

    fn schema() -> Schema {
        words(OPERATIONS.iter().map(|operation| operation.name).chain(["bulk"]))
    }
}

/// A record that is no command.
#[derive(Debug)]
pub struct InvalidCommand {
    /// Its id, where that much could be read: its sender can be told.
    pub id: Option<String>,
    /// Short and stable: a problem's code, or what kept the value from being read at all.
    pub class: &'static str,
    pub problem: Problem,
}

impl WalletCommand {
    /// Reads a record's value; `make_id` gives the id of a wallet whose caller gives none.
    pub fn parse(
        value: Option<&[u8]>,
        make_id: impl FnMut() -> WalletId,
    ) -> Result<Self, Box<InvalidCommand>> {
        let unread = |class, detail: String| {
            let problem = Problem::new(ProblemCode::MalformedJson, detail);
            Box::new(InvalidCommand { id: None, class, problem })
        };
        let value = value.filter(|value| !value.is_empty());
        let Some(value) = value else {
            return Err(unread("empty_value", "the record has no value".to_owned()));
        };
        let value = unframed(value);
        if value.len() > COMMAND_BYTES_MAX {
            let detail = format!("a command has {COMMAND_BYTES_MAX} bytes at most");
            return Err(unread("too_large", detail));
        }
        if let Err(error) = std::str::from_utf8(value) {
            return Err(unread("invalid_utf8", error.to_string()));
        }
        let refused = |id, problem: Problem| {
            Box::new(InvalidCommand { id, class: problem.code.as_str(), problem })
        };
        let mut fields = Fields::parse(value).map_err(|problem| refused(None, problem))?;
        let id = fields.take::<Key>("commandId").map(|key| key.0);
        Self::of(id.clone(), fields, make_id).map_err(|problem| refused(id, problem))
    }

    fn of(
        id: Option<String>,
        mut fields: Fields,
        mut make_id: impl FnMut() -> WalletId,
    ) -> Result<Self, Problem> {
        match fields.take::<Kind>("op") {
            None => Err(fields.refuse()),
            Some(Kind::One(operation)) => {
                let command = operation.take(&mut fields, &mut make_id);
                let (id, command) = fields.finish(id.zip(command))?;
                let command = command.map_err(|rejection| Problem::of_rejection(&rejection))?;
                Ok(Self { id, what: Commanded::One(command) })
            }
            Some(Kind::Many) => {
                let bulk = BulkBody::take(&mut fields);
                let (id, bulk) = fields.finish(id.zip(bulk))?;
                Ok(Self { id, what: many(&bulk, make_id)? })
            }
        }
    }
}

/// Serializers that speak to a schema registry put a zero and the schema's id (4 bytes, or 8) before the
/// JSON. No JSON begins with a zero.
fn unframed(value: &[u8]) -> &[u8] {
    let [0, rest @ ..] = value else { return value };
    let texts = [4, 8].into_iter().filter_map(|id| rest.get(id..));
    { texts }.find(|text| text.trim_ascii_start().starts_with(b"{")).unwrap_or(value)
}

/// A command is valid or it is not: one operation that cannot be read is the whole command's problem,
/// and none of it is done.
fn many(bulk: &BulkBody, make_id: impl FnMut() -> WalletId) -> Result<Commanded, Problem> {
    let items = bulk.keyless_items(make_id);
    let parsed = bulk.parsed(&items);
    let operations = items.into_iter().map(|item| item.map(|BulkItem { command, .. }| command));
    let operations = operations.collect::<Result<_, _>>()?;
    Ok(Commanded::Many { atomic: bulk.atomic, operations, parsed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WalletCommand, Box<InvalidCommand>> {
        WalletCommand::parse(Some(text.as_bytes()), || WalletId::stored("made"))
    }

    #[test]
    fn a_command_is_an_operation_with_an_id() {
        let text = r#"{"commandId":"c-1","op":"credit","walletId":"w","amount":1.50}"#;
        let read = parse(text).unwrap();
        let wallet = |read: &WalletCommand| match &read.what {
            Commanded::One(command) => command.wallet_id().as_str().to_owned(),
            Commanded::Many { operations, .. } => format!("{} of them", operations.len()),
        };
        assert_eq!((read.id.as_str(), wallet(&read).as_str()), ("c-1", "w"));
        let made = parse(r#"{"commandId":"c-2","op":"create","ownerId":"o"}"#).unwrap();
        assert_eq!(wallet(&made), "made");
        let credit = r#"{"op":"credit","walletId":"w","amount":1}"#;
        let many = |rest: &str| parse(&format!(r#"{{"commandId":"c-3","op":"bulk",{rest}}}"#));
        assert_eq!(wallet(&many(&format!(r#""operations":[{credit}]"#)).unwrap()), "1 of them");
        for (rest, class, pointer) in [
            (r#""atomic":true"#.to_owned(), "missing_field", "/operations"),
            (r#""operations":[]"#.to_owned(), "invalid_value", "/operations"),
            (format!(r#""operations":[{credit}],"walletId":"w""#), "unknown_field", "/walletId"),
            (
                format!(r#""operations":[{credit},{{"op":"bulk"}}]"#),
                "invalid_value",
                "/operations/1/op",
            ),
            (
                format!(
                    r#""operations":[{}]"#,
                    credit.replace(":1}", r#":1,"idempotencyKey":"k"}"#)
                ),
                "unknown_field",
                "/operations/0/idempotencyKey",
            ),
        ] {
            let unread = many(&rest).unwrap_err();
            assert_eq!((unread.class, unread.id.as_deref()), (class, Some("c-3")), "{rest}");
            assert_eq!(unread.problem.errors[0].pointer, pointer, "{rest}");
        }
    }

    #[test]
    fn one_operation_alone_and_in_a_list_are_different_commands() {
        let credit = r#"{"op":"credit","walletId":"w","amount":1}"#;
        let parsed = |atomic: bool, list: &str| {
            let text = format!(
                r#"{{"commandId":"c","op":"bulk","atomic":{atomic},"operations":[{list}]}}"#
            );
            let Commanded::Many { parsed, .. } = parse(&text).unwrap().what else { panic!() };
            parsed
        };
        let (one, two) = (parsed(false, credit), parsed(false, &format!("{credit},{credit}")));
        assert_eq!(one, parsed(false, r#"{"amount":"1","walletId":"w", "op":"credit"}"#));
        for other in [two, parsed(true, credit), parsed(false, &credit.replace(r#""w""#, r#""v""#))]
        {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn the_frame_of_a_schema_registry_is_taken_off() {
        let text = br#"{"commandId":"c","op":"credit","walletId":"w","amount":1}"#;
        let read = |frame: &[u8]| {
            WalletCommand::parse(Some(&[frame, text].concat()), || WalletId::stored("made"))
        };
        for frame in [&[][..], &[0, 0, 0, 1, 2], &[0, 0, 0, 0, 0, 0, 0, 1, 2]] {
            assert_eq!(read(frame).unwrap().id, "c", "{frame:?}");
        }
        for other in [&[0][..], &[1, 0, 0, 1, 2], &[0, 0, 1, 2], &[0, 0, 0, 0, 1, 2]] {
            assert!(read(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn what_is_no_command_says_why_and_its_id_where_it_has_one() {
        let id = Some("c");
        for (text, class, known) in [
            ("", "empty_value", None),
            ("{", "malformed_json", None),
            ("[]", "invalid_value", None),
            (r#"{"op":"credit","walletId":"w","amount":1}"#, "missing_field", None),
            (
                r#"{"commandId":"","op":"credit","walletId":"w","amount":1}"#,
                "invalid_idempotency_key",
                None,
            ),
            (r#"{"commandId":7,"op":"credit","walletId":"w","amount":1}"#, "invalid_value", None),
            (r#"{"commandId":"c","op":"burn","walletId":"w","amount":1}"#, "invalid_value", id),
            (r#"{"commandId":"c","walletId":"w","amount":1}"#, "missing_field", id),
            (r#"{"commandId":"c","op":"credit","walletId":"w","amount":-1}"#, "invalid_amount", id),
            (
                r#"{"commandId":"c","op":"credit","walletId":"w","amount":1,"x":1}"#,
                "unknown_field",
                id,
            ),
            (
                r#"{"commandId":"c","op":"credit","walletId":"w","amount":1,"idempotencyKey":"k"}"#,
                "unknown_field",
                id,
            ),
        ] {
            let unread = parse(text).unwrap_err();
            assert_eq!((unread.class, unread.id.as_deref()), (class, known), "{text}");
        }
        let unread = WalletCommand::parse(None, || WalletId::stored("made")).unwrap_err();
        assert_eq!(unread.class, "empty_value");
        let unread = WalletCommand::parse(Some(b"{\"\xff\":1}"), || WalletId::stored("made"));
        assert_eq!(unread.unwrap_err().class, "invalid_utf8");
        let large = vec![b' '; COMMAND_BYTES_MAX + 1];
        let unread = WalletCommand::parse(Some(&large), || WalletId::stored("made"));
        assert_eq!(unread.unwrap_err().class, "too_large");
    }
}
