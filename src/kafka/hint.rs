//! What to do about an error, and its text for people: said once, without the clients' own wrapping. What
//! a port answered instead of Kafka's protocol tells what listens there. Knows texts alone.

use super::error::Class;

/// For an address that is not from the settings.
pub(super) const ADVERTISED: &str = "a broker answers, but gives an address that does not: is the broker of that address \
     running, and do the brokers' advertised.listeners name what can be reached from here?";
const NOT_TLS: &str =
    "the port does not speak TLS: check host and port in KAFKA_BROKERS, or set KAFKA_SSL=false";
const NO_COMMON_TLS: &str =
    "the broker refuses the way that the service speaks TLS: it needs TLS 1.2 or 1.3";
const SPEAKS_TLS: &str = "the port expects TLS: set KAFKA_SSL=true, and KAFKA_SSL_CA_FILE";
const CLOSES: &str = "the port takes connections and closes them: it may expect a login (KAFKA_SASL_*) or TLS \
     (KAFKA_SSL), or not be Kafka; `wallex verify-kafka` tells which";

/// Where a closer look has told nothing more.
pub(super) const CLOSES_ALWAYS: &str = "the port closes each connection, whatever is said to it: no Kafka, or a proxy whose broker is away";

/// What is heard at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Kafka,
    Tls,
    Http,
    Postgres,
    /// Another protocol.
    Other,
    /// It takes connections, and says nothing.
    Silence,
}

impl Heard {
    /// By the first bytes of an answer.
    pub(super) fn of(first: [u8; 4]) -> Self {
        match first {
            // A record of TLS: an alert or a handshake.
            [0x15 | 0x16, 3, ..] => Self::Tls,
            [b'H', b'T', b'T', b'P'] => Self::Http,
            [b'E', 0, 0, _] => Self::Postgres,
            _ => Self::Other,
        }
    }

    /// What to do where Kafka was expected. `tls`: the settings want it; `login`: they have one.
    pub(super) fn hint(self, tls: bool, login: bool) -> Option<&'static str> {
        Some(match self {
            Self::Kafka if tls => {
                "Kafka speaks plain text at this port: set KAFKA_SSL=false, or use the port of its TLS listener"
            }
            Self::Kafka if !login => {
                "Kafka listens there and wants a login: set KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and \
                 KAFKA_SASL_MECHANISM"
            }
            Self::Tls if !tls => SPEAKS_TLS,
            Self::Kafka | Self::Tls => return None,
            Self::Http => {
                "an HTTP server listens there, not Kafka: check host and port in KAFKA_BROKERS"
            }
            Self::Postgres => {
                "PostgreSQL listens there, not Kafka: check host and port in KAFKA_BROKERS"
            }
            Self::Other => {
                "something else than Kafka listens there: check host and port in KAFKA_BROKERS"
            }
            Self::Silence => {
                "the port takes connections and says nothing: a broker that is frozen or overloaded, a proxy \
                 or firewall before it, or no Kafka at all"
            }
        })
    }

    fn name(self, first: [u8; 4]) -> String {
        match self {
            Self::Tls => "TLS".to_owned(),
            Self::Http => "HTTP".to_owned(),
            Self::Postgres => "an error of PostgreSQL".to_owned(),
            _ if first.iter().all(|byte| (b' '..=b'~').contains(byte)) => {
                format!("{:?}", String::from_utf8_lossy(&first))
            }
            _ => format!("the bytes {:02x?}", first),
        }
    }
}

/// The text without what the class says already, and with what was answered in words.
pub(super) fn plain(text: &str) -> String {
    let mut plain = text.replace("; last error: ", ": ");
    let wrappings = [
        "network error: ",
        "authentication error: ",
        "operation timed out: ",
        "protocol error (InvalidLength): ",
    ];
    for wrapping in wrappings {
        plain = plain.replace(wrapping, "");
    }
    // The first four bytes of an answer are its length: these are something else's text.
    for (mark, wrapping) in LENGTHS {
        let Some((before, rest)) = plain.split_once(mark) else { continue };
        if let Some(first) = first_bytes(rest) {
            let before = before.split(wrapping).next().unwrap_or_default();
            return format!("{before}it answers with {}", Heard::of(first).name(first));
        }
    }
    plain
}

/// What stands before such a length in the clients' texts, and what belongs to it there.
const LENGTHS: [(&str, &str); 5] = [
    ("negative message size: ", "\n"),
    ("Negative message size: ", "\n"),
    ("message size ", "\n"),
    ("Invalid pre-authentication response length: ", "\n"),
    ("but got ", "Message too large"),
];

/// An answer of Kafka may be large; text and TLS are larger than any.
const LARGEST: u32 = 256 * 1024 * 1024;

/// The length that `text` begins with, as bytes, where it can be none.
fn first_bytes(text: &str) -> Option<[u8; 4]> {
    let number: String = text.chars().take_while(|c| *c == '-' || c.is_ascii_digit()).collect();
    let number: i64 = number.parse().ok()?;
    let first =
        i32::try_from(number).map(i32::cast_unsigned).or_else(|_| u32::try_from(number)).ok()?;
    (first > LARGEST).then(|| first.to_be_bytes())
}

/// By class and text.
pub(super) fn hint(class: Class, message: &str) -> Option<&'static str> {
    let says = |text: &str| message.contains(text);
    Some(match class {
        Class::Dns => "no broker of KAFKA_BROKERS has an address: check the names",
        Class::Auth => of_access(message),
        Class::Network => of_network(message),
        Class::Timeout if says("connecting") || says("connection to") => {
            "the broker is unreachable, frozen or overloaded, or something else listens there: check host and \
             port in KAFKA_BROKERS, the firewalls on the way, and the broker"
        }
        Class::Timeout => "the broker is unreachable, frozen or overloaded",
        Class::Topic if says("Authorization") => "the user lacks rights on the topic",
        Class::Topic => {
            "the topic or the partition does not exist here: start the service, which makes its topics, or run \
             `wallex topics ensure`; or is KAFKA_BROKERS another cluster than the one that is meant?"
        }
        Class::UnknownOutcome => {
            "it was sent and may have been taken: the service finds out, or sends it again, and nothing is lost; \
             has the broker just stopped, or is it frozen or overloaded?"
        }
        Class::Refused if says("MessageTooLarge") => "the topic's max.message.bytes is too low",
        Class::Refused if says("Authorization") => {
            "the user lacks rights: docs/OPERATIONS.md lists what it needs"
        }
        Class::Refused if says("NotEnoughReplicas") => {
            "too few replicas are in step: look at the brokers, and at min.insync.replicas of the topic"
        }
        Class::Refused => return None,
    })
}

fn of_access(message: &str) -> &'static str {
    let says = |text: &str| message.contains(text);
    if says("_FILE") {
        "the file must be readable and hold what its name says"
    } else if says("NotValidForName") || says("not valid for name") {
        "the broker's certificate is for other names: use one of them in KAFKA_BROKERS, and in the brokers' \
         advertised.listeners"
    } else if says("CertificateRequired") {
        "the broker wants a certificate of its clients, and the service has none: use a listener that lets \
         clients in by SASL (ssl.client.auth=none)"
    } else if says("Expired") || says("expired") {
        "the broker's certificate has expired"
    } else if says("ertificate") || says("UnknownIssuer") {
        "the broker's certificate is not trusted: set KAFKA_SSL_CA_FILE to the authority that signed it"
    } else if says("fatal alert") {
        NO_COMMON_TLS
    } else if says("IllegalSaslState") || says("UnsupportedSaslMechanism") {
        "the port does not offer this login: check KAFKA_SASL_MECHANISM and the port, or set \
         KAFKA_SASL_ENABLED=false"
    } else {
        "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM; a user is made for each \
         mechanism apart"
    }
}

fn of_network(message: &str) -> &'static str {
    let says = |text: &str| message.contains(text);
    if let Some((_, answer)) = message.split_once("it answers with ") {
        let named = [Heard::Tls, Heard::Http, Heard::Postgres];
        let heard = named.into_iter().find(|heard| answer.starts_with(&heard.name([0; 4])));
        return heard.unwrap_or(Heard::Other).hint(false, false).unwrap_or(CLOSES);
    }
    if says("onnection refused") {
        "nothing listens there: is Kafka running, and is KAFKA_BROKERS right?"
    } else if says("tls handshake eof") || says("corrupt message") {
        NOT_TLS
    } else if says("fatal alert") {
        NO_COMMON_TLS
    } else if says("onnection closed") || says("onnection reset") || says("roken pipe") {
        CLOSES
    } else if says("unreachable") || says("No route") {
        "there is no way to this address from here: check the host in KAFKA_BROKERS, the network and its firewalls"
    } else {
        "the way to the broker is disturbed: its log may say more, and `wallex verify-kafka` walks it step by step"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(number: i64) -> String {
        plain(&format!(
            "network error: could not connect to any of [a:1]; last error: protocol error \
             (InvalidLength): message size {number} exceeds maximum 104857600"
        ))
    }

    #[test]
    fn what_a_port_answers_tells_what_listens_there() {
        let cases = [
            (*b"HTTP", "HTTP", "HTTP server"),
            ([0x15, 3, 3, 0], "TLS", "KAFKA_SSL=true"),
            ([b'E', 0, 0, 0x8c], "an error of PostgreSQL", "PostgreSQL listens"),
            (*b"SSH-", "\"SSH-\"", "something else than Kafka"),
            ([0x4a, 0, 0, 0], "the bytes [4a, 00, 00, 00]", "something else than Kafka"),
        ];
        for (first, answer, what) in cases {
            let text = refused(i64::from(u32::from_be_bytes(first)));
            assert_eq!(
                text,
                format!("could not connect to any of [a:1]: it answers with {answer}")
            );
            let hint = hint(Class::Network, &text).unwrap();
            assert!(hint.contains(what), "{text}: {hint}");
        }
        let negative = plain("negative message size: -16777216");
        assert_eq!(negative, "it answers with the bytes [ff, 00, 00, 00]");
        let login =
            plain("Invalid pre-authentication response length: 352518912 (max: 1048576); no");
        assert_eq!(login, "it answers with TLS");
        let other = plain("a: Message too large, limit is 16777216 bytes but got 1213486160 bytes");
        assert_eq!(other, "a: it answers with HTTP");
        let large = "message size 105000000 exceeds maximum 104857600";
        assert_eq!(plain(large), large, "that may be Kafka's");
    }

    #[test]
    fn the_class_is_said_once() {
        let said = "network error: could not connect to any of [a:1]; last error: network error: \
                    Connection refused (os error 111)";
        let text = plain(said);
        assert_eq!(text, "could not connect to any of [a:1]: Connection refused (os error 111)");
        assert_eq!(
            plain("authentication error: SaslAuthenticationFailed"),
            "SaslAuthenticationFailed"
        );
    }

    #[test]
    fn everything_that_keeps_us_out_has_a_hint() {
        let classes = [
            Class::Dns,
            Class::Network,
            Class::Auth,
            Class::Timeout,
            Class::Topic,
            Class::UnknownOutcome,
        ];
        for class in classes {
            assert!(hint(class, "whatever").is_some(), "{class:?}");
        }
        let closes = hint(Class::Network, "connection closed").unwrap();
        for word in ["KAFKA_SASL_*", "KAFKA_SSL", "verify-kafka"] {
            assert!(closes.contains(word), "{closes}");
        }
    }
}
