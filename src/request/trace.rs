//! Ids that a caller hands on, of requests and of traces: which of them are carried into events.

const ID_BYTES_MAX: usize = 128;

/// Short, and of visible characters: it can break no log line.
pub fn is_plain_id(value: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic())
}

/// W3C Trace Context, version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
pub fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let hex = |part: &str, length| {
        part.len() == length
            && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match parts.as_slice() {
        [version, trace, parent, flags] => {
            *version == "00" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_traceparents_are_carried_on() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00",
            "00-xyz-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn an_id_that_could_break_a_log_line_is_none() {
        assert!(is_plain_id("order-7"));
        for bad in ["", "has space", "line\n", &"x".repeat(129)] {
            assert!(!is_plain_id(bad), "{bad:?}");
        }
    }
}
