//! What an error of Kafka means. Reads the clients' errors; decides nothing about retries.

use std::error::Error as _;
use std::fmt;

use krafka::KrafkaError;
use krafka::error::ErrorCode;
use rskafka::client::error::{Error as RskafkaError, ProtocolError};

use super::hint::{self, hint};

/// What went wrong, by where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Dns,
    Network,
    Auth,
    Timeout,
    /// The topic is missing, not ours, or lacks the partition.
    Topic,
    /// The broker answered no.
    Refused,
    /// Sent, and no answer: it may have taken effect.
    UnknownOutcome,
}

/// An error of Kafka or of the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub class: Class,
    pub message: String,
    pub hint: Option<&'static str>,
}

impl Class {
    /// As in the label of `kafka_connection_errors_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Network => "network",
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::Topic => "topic",
            Self::Refused => "refused",
            Self::UnknownOutcome => "unknown-outcome",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.as_str(), self.message)?;
        self.hint.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(super) fn new(class: Class, message: impl Into<String>) -> Self {
        let message = message.into();
        let hint = hint(class, &message);
        Self { class, message, hint }
    }

    pub(super) fn timeout(what: &str, after: std::time::Duration) -> Self {
        Self::new(Class::Timeout, format!("{what}: no answer within {} ms", after.as_millis()))
    }

    /// None of the brokers that the settings name took the connection in time.
    pub(super) fn connecting(brokers: &[String], after: std::time::Duration) -> Self {
        Self::timeout(&format!("connecting to {}", brokers.join(",")), after)
    }

    /// Whether Kafka as a whole is out of reach, rather than one topic or request at fault.
    pub fn is_outage(&self) -> bool {
        !matches!(self.class, Class::Topic | Class::Refused)
    }

    pub(super) fn from_krafka(error: &KrafkaError) -> Self {
        let class = match error {
            // Not TLS at all: no certificate was seen.
            KrafkaError::Auth { .. } if error.to_string().contains("corrupt message") => {
                Class::Network
            }
            KrafkaError::Auth { .. } => Class::Auth,
            // It tried again and again within its time: what kept it is in the text.
            KrafkaError::Timeout { .. } if error.to_string().contains("onnection refused") => {
                Class::Network
            }
            KrafkaError::Timeout { .. } => Class::Timeout,
            KrafkaError::Network(cause) if cause.to_string().contains("timed out") => {
                Class::Timeout
            }
            KrafkaError::Broker { code, .. } => match code {
                ErrorCode::UnknownTopicOrPartition | ErrorCode::TopicAuthorizationFailed => {
                    Class::Topic
                }
                _ => Class::Refused,
            },
            KrafkaError::Config { .. } => Class::Refused,
            _ => Class::Network,
        };
        Self::new(class, hint::plain(&error.to_string()))
    }

    /// On the way to a broker whose address another broker gave: that one, not the settings, names it.
    pub(super) fn behind_advertised(self) -> Self {
        match self.class {
            Class::Dns | Class::Network | Class::Timeout => {
                Self { hint: Some(hint::ADVERTISED), ..self }
            }
            _ => self,
        }
    }

    /// None of the addresses that the brokers give can be reached, though one of the settings can.
    pub fn advertised(addresses: &[String]) -> Self {
        let text =
            format!("the brokers advertise {}: not reachable from here", addresses.join(", "));
        Self::new(Class::Network, text).behind_advertised()
    }

    pub(super) fn from_rskafka(error: &RskafkaError) -> Self {
        let error = unwrapped(error);
        let class = match error {
            RskafkaError::ServerError { protocol_error, .. } => match protocol_error {
                ProtocolError::UnknownTopicOrPartition
                | ProtocolError::TopicAuthorizationFailed
                | ProtocolError::InvalidTopicException => Class::Topic,
                _ => Class::Refused,
            },
            // The topic has fewer partitions than asked for.
            RskafkaError::InvalidResponse(text) if text.contains("find metadata") => Class::Topic,
            RskafkaError::Timeout => Class::Timeout,
            other if is_about_access(&other.to_string()) => Class::Auth,
            _ => Class::Network,
        };
        match error {
            // The whole request is in the text otherwise.
            RskafkaError::ServerError { protocol_error, error_message, .. } => {
                let detail = error_message.as_deref().unwrap_or("no detail given");
                Self::new(class, format!("{protocol_error:?}: {detail}"))
            }
            other => Self::new(class, hint::plain(&other.to_string())),
        }
    }
}

/// rskafka has no class of its own for what keeps us out.
fn is_about_access(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("sasl") || text.contains("certificate")
}

/// With its own retries off, rskafka wraps what it would have retried: the cause is inside.
pub(super) fn unwrapped(error: &RskafkaError) -> &RskafkaError {
    match error {
        RskafkaError::RetryFailed(wrapper) => wrapper
            .source()
            .and_then(|source| source.downcast_ref::<RskafkaError>())
            .unwrap_or(error),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_class_its_cause_and_what_to_do() {
        let error = Error::new(Class::Network, "Connection refused (os error 111)");
        let text = error.to_string();
        assert!(text.starts_with("network: Connection refused"), "{text}");
        assert!(text.contains("KAFKA_BROKERS"), "{text}");
        assert!(error.is_outage());
        assert!(!Error::new(Class::Topic, "UnknownTopicOrPartition").is_outage());
    }
}
