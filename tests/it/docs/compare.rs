//! A documented answer held against the one that came.

use std::collections::BTreeMap;

use serde_json::Value;

/// Values that depend on the moment, by the name of their field: it must be there, no more.
const VARYING: &[&str] = &[
    "latencyMs",
    "lagMs",
    "applied",
    "healed",
    "duplicates",
    "errors",
    "lastError",
    "error",
    "pingMs",
    "publishedLastMinute",
];

/// What varies by nature, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uuid,
    Time,
    Token,
    Version,
}

/// The length of something varying at the beginning of `text`.
fn varying(text: &str) -> Option<(Kind, usize)> {
    let bytes = text.as_bytes();
    let shaped = |shape: &str| {
        bytes.len() >= shape.len()
            && shape.bytes().zip(bytes).all(|(want, is)| match want {
                b'x' => is.is_ascii_hexdigit(),
                b'0' => is.is_ascii_digit(),
                exact => exact == *is,
            })
    };
    if shaped("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") {
        return Some((Kind::Uuid, 36));
    }
    if shaped("0000-00-00T00:00:00.000Z") {
        return Some((Kind::Time, 24));
    }
    if shaped("CreateTime:0000000000000") {
        return Some((Kind::Time, 24));
    }
    if shaped("TopicId: ") {
        let id = bytes[9..].iter().take_while(|b| b.is_ascii_alphanumeric() || b"-_".contains(b));
        return Some((Kind::Token, 9 + id.count()));
    }
    if let Some(rest) = text.strip_prefix("wallex ") {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        return (digits > 4).then_some((Kind::Version, 7 + digits));
    }
    None
}

/// Ids of a document and what they are in this run, both ways.
#[derive(Debug, Default, Clone)]
pub struct Ids {
    actual: BTreeMap<String, String>,
    documented: BTreeMap<String, String>,
}

impl Ids {
    fn same(&mut self, documented: &str, actual: &str) -> bool {
        let known = self.actual.get(documented).map(String::as_str);
        let other = self.documented.get(actual).map(String::as_str);
        if known.is_none() && other.is_none() {
            self.actual.insert(documented.to_owned(), actual.to_owned());
            self.documented.insert(actual.to_owned(), documented.to_owned());
            return true;
        }
        known == Some(actual) && other == Some(documented)
    }

    /// A documented command with the ids of this run.
    pub fn in_command(&self, command: &str) -> String {
        let mut command = command.to_owned();
        for (documented, actual) in &self.actual {
            command = command.replace(documented, actual);
        }
        command
    }

    fn texts(&mut self, documented: &str, actual: &str) -> bool {
        let (mut d, mut a) = (documented, actual);
        loop {
            match (varying(d), varying(a)) {
                (Some((kind, n)), Some((other, m))) if kind == other => {
                    if kind == Kind::Uuid && !self.same(&d[..n], &a[..m]) {
                        return false;
                    }
                    (d, a) = (&d[n..], &a[m..]);
                    continue;
                }
                (None, None) => {}
                _ => return false,
            }
            let (Some(x), Some(y)) = (d.chars().next(), a.chars().next()) else {
                return d.is_empty() && a.is_empty();
            };
            if x != y {
                return false;
            }
            (d, a) = (&d[x.len_utf8()..], &a[y.len_utf8()..]);
        }
    }

    fn values(&mut self, documented: &Value, actual: &Value) -> bool {
        match (documented, actual) {
            (Value::String(d), Value::String(a)) => self.texts(d, a),
            (Value::Array(d), Value::Array(a)) => {
                d.len() == a.len() && d.iter().zip(a).all(|(d, a)| self.values(d, a))
            }
            (Value::Object(d), Value::Object(a)) => {
                d.len() == a.len()
                    && d.iter().all(|(name, d)| {
                        a.get(name)
                            .is_some_and(|a| VARYING.contains(&name.as_str()) || self.values(d, a))
                    })
            }
            (d, a) => d == a,
        }
    }

    /// Whether an answer says what the document says it does.
    pub fn answers(&mut self, documented: &str, actual: &str) -> bool {
        let before = self.clone();
        let (d, a) = (split(documented), split(actual));
        let same = d.0.len() == a.0.len()
            && d.0.iter().zip(&a.0).all(|(d, a)| self.texts(d, a))
            && d.1.len() == a.1.len()
            && d.1.iter().zip(&a.1).all(|(d, a)| self.values(d, a));
        if !same {
            *self = before;
        }
        same
    }
}

/// An answer taken apart: lines of text, and JSON documents.
fn split(answer: &str) -> (Vec<String>, Vec<Value>) {
    let (mut lines, mut documents) = (Vec::new(), Vec::new());
    let mut rest = answer.trim_end();
    while !rest.is_empty() {
        if rest.starts_with(['{', '[']) {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            if let Some(Ok(value)) = stream.next() {
                let end = stream.byte_offset();
                documents.push(value);
                rest = rest[end..].trim_start_matches('\n');
                continue;
            }
        }
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if !left_out(line) {
            lines.push(line.trim_end().to_owned());
        }
        rest = after;
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    (lines, documents)
}

/// Lines that no document shows.
pub fn left_out(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["date:", "content-length:", "connection:", "keep-alive:"]
        .iter()
        .any(|name| line.starts_with(name))
}

#[test]
fn an_answer_that_differs_is_noticed() {
    let one = "01a1fdd4-fe13-71be-895e-fe6328cb7879";
    let two = "01a1fdd4-fe89-7690-b949-b500d4eab75b";
    let same = |documented: &str, actual: &str| Ids::default().answers(documented, actual);
    assert!(same(
        r#"{"a": "1.00", "at": "2026-01-01T00:00:00.000Z"}"#,
        r#"{"at":"2027-01-01T00:00:00.001Z","a":"1.00"}"#
    ));
    assert!(!same(r#"{"a": "1.00"}"#, r#"{"a":"1.01"}"#));
    assert!(!same(r#"{"a": 1}"#, r#"{"a":1,"b":2}"#));
    assert!(!same("HTTP/1.1 201 Created", "HTTP/1.1 200 OK"));
    assert!(same("x\n{\"lagMs\": 5}", "x\ndate: today\n{\"lagMs\":7}"));
    assert!(same(&format!("{one} {one}"), &format!("{two} {two}")));
    assert!(!same(&format!("{one} {one}"), &format!("{one} {two}")), "one id became two");
    assert!(!same(&format!("{one} {two}"), &format!("{one} {one}")), "two ids became one");
    assert!(!same("", "said something"));
}
