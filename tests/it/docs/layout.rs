//! Answers as documents show them: for `WALLEX_DOCS_WRITE`.

use serde_json::Value;

use super::compare::left_out;

/// An answer as a document shows it: JSON broken into lines.
pub fn shown(answer: &str) -> String {
    let mut text = String::new();
    let mut rest = answer.trim_end();
    while !rest.is_empty() {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let json = rest.starts_with(['{', '[']) && matches!(stream.next(), Some(Ok(_)));
        let end = if json { stream.byte_offset() } else { rest.find('\n').unwrap_or(rest.len()) };
        let (part, after) = rest.split_at(end);
        if json {
            text.push_str(&pretty(part));
            text.push('\n');
        } else if !left_out(part) {
            text.push_str(part.trim_end());
            text.push('\n');
        }
        rest = after.strip_prefix('\n').unwrap_or(after);
    }
    text
}

/// JSON in its own order, in lines of at most 110 characters where it can be.
fn pretty(json: &str) -> String {
    fn skip_string(json: &str, from: usize) -> usize {
        let mut escaped = false;
        for (at, c) in json[from + 1..].char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return from + 1 + at + 1,
                _ => {}
            }
        }
        json.len()
    }
    /// The parts of an object or array, split at its own commas.
    fn parts(inner: &str) -> Vec<&str> {
        let (mut depth, mut begun, mut at) = (0, 0, 0);
        let mut parts = Vec::new();
        while at < inner.len() {
            match inner.as_bytes()[at] {
                b'"' => {
                    at = skip_string(inner, at);
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b',' if depth == 0 => {
                    parts.push(inner[begun..at].trim());
                    begun = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        parts.push(inner[begun..].trim());
        parts
    }
    fn lay(json: &str, indent: usize, out: &mut String) {
        if indent + json.len() <= 108 || json.len() < 3 || !json.starts_with(['{', '[']) {
            out.push_str(json);
            return;
        }
        let (open, close) = (&json[..1], &json[json.len() - 1..]);
        let pad = " ".repeat(indent + 2);
        out.push_str(open);
        let mut line = 0;
        for (n, part) in parts(&json[1..json.len() - 1]).into_iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            let nested = part.ends_with(['}', ']']) && indent + 2 + part.len() > 108;
            if n == 0 || nested || line + part.len() > 106 {
                out.push('\n');
                out.push_str(&pad);
                line = pad.len();
            } else {
                out.push(' ');
                line += 1;
            }
            if nested {
                match part.split_once(':').filter(|_| part.starts_with('"')) {
                    Some((name, value)) => {
                        out.push_str(&format!("{name}:"));
                        lay(value, indent + 2, out);
                    }
                    None => lay(part, indent + 2, out),
                }
                line = usize::MAX / 2;
            } else {
                out.push_str(part);
                line += part.len() + 1;
            }
        }
        out.push('\n');
        out.push_str(&" ".repeat(indent));
        out.push_str(close);
    }
    let mut out = String::new();
    // What a tool printed in lines already stays so.
    if json.contains('\n') {
        return json.to_owned();
    }
    lay(json, 0, &mut out);
    out
}
