//! The producer's settings: a profile, and what is set beside it.
//!
//! What is set wins over the profile. What cannot work is refused here, by name.

use std::time::Duration;

use super::declared::name;
use super::error::{ConfigError, invalid};
use super::read::Reader;

/// The longest linger: half of what makes /health/kafka speak of a backlog would hide one.
const LINGER_MAX_MS: u64 = 10_000;
/// What ends a linger unless something else is set: a batch of Kafka's own producer.
const BATCH_BYTES: usize = 16 * 1024;
/// Of one request, unless something else is set.
const REQUEST_BYTES: usize = 900_000;
/// Without end, as Kafka's own producer has it.
const RETRIES: &str = "2147483647";

impl Reader {
    pub(super) fn linger(&self, name: &str) -> Result<Duration, ConfigError> {
        let profiles = [("low-latency", 0), ("throughput", 5)];
        let of_profile = self.one_of(name::PRODUCER_PROFILE, &profiles)?;
        let set = self.is_set(name)?;
        let ms = if set { self.within(name, 0, LINGER_MAX_MS)? } else { of_profile };
        Ok(Duration::from_millis(ms))
    }

    /// Events are sent again until the topic has them.
    pub(super) fn no_last_attempt(&self, name: &str) -> Result<(), ConfigError> {
        let text = self.text(name)?;
        if text == RETRIES {
            return Ok(());
        }
        let problem = format!(
            "events are sent again until the topic has them, and fewer attempts would lose some: leave \
             it out, or use {RETRIES}; KAFKA_RETRY_MAX_MS is the longest pause between two attempts"
        );
        Err(invalid(name, &text, &problem))
    }

    /// A request is one batch, and the topic takes none above its limit.
    pub(super) fn max_request_bytes(&self, name: &str) -> Result<usize, ConfigError> {
        let limit: usize = self.parsed(name::KAFKA_MAX_MESSAGE_BYTES, "a number of bytes")?;
        let bytes: usize = self.parsed(name, "a number of bytes")?;
        if bytes == REQUEST_BYTES {
            return Ok(bytes.min(limit));
        }
        if bytes > limit {
            let problem = format!(
                "the topic takes no batch that large: use at most KAFKA_MAX_MESSAGE_BYTES, {limit}"
            );
            return Err(invalid(name, &bytes.to_string(), &problem));
        }
        self.within(name, 1000, limit)
    }

    pub(super) fn batch_bytes(&self, name: &str) -> Result<usize, ConfigError> {
        let most = self.max_request_bytes(name::PRODUCER_MAX_REQUEST_BYTES)?;
        if !self.is_set(name)? {
            return Ok(BATCH_BYTES.min(most));
        }
        let bytes = self.within(name, 1, usize::MAX)?;
        if bytes > most {
            let problem =
                format!("no request is that large: use at most PRODUCER_MAX_REQUEST_BYTES, {most}");
            return Err(invalid(name, &bytes.to_string(), &problem));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ProducerSettings, given};

    fn producer(variables: &[(&str, &str)]) -> Result<ProducerSettings, String> {
        given(variables).map(|(settings, _)| settings.producer)
    }

    #[test]
    fn a_profile_fills_in_what_is_not_set() {
        let waits = |variables: &[(&str, &str)]| {
            let producer = producer(variables).unwrap();
            (producer.linger.as_millis(), producer.batch_bytes)
        };
        let throughput = ("PRODUCER_PROFILE", "throughput");
        assert_eq!(waits(&[]), (0, 16_384));
        assert_eq!(waits(&[("PRODUCER_PROFILE", "low-latency")]), (0, 16_384));
        assert_eq!(waits(&[throughput]), (5, 16_384));
        assert_eq!(waits(&[throughput, ("PRODUCER_LINGER_MS", "0")]), (0, 16_384));
        let low_latency = ("PRODUCER_PROFILE", "low-latency");
        assert_eq!(waits(&[low_latency, ("PRODUCER_LINGER_MS", "20")]), (20, 16_384));
        assert_eq!(waits(&[throughput, ("PRODUCER_BATCH_BYTES", "65536")]), (5, 65_536));
        assert_eq!(waits(&[throughput, ("PRODUCER_MAX_REQUEST_BYTES", "2000")]), (5, 2000));
    }

    #[test]
    fn a_request_is_no_larger_than_a_batch_that_the_topic_takes() {
        let request = |variables: &[(&str, &str)]| producer(variables).unwrap().max_request_bytes;
        let (large, small) =
            (("KAFKA_MAX_MESSAGE_BYTES", "20971520"), ("KAFKA_MAX_MESSAGE_BYTES", "131072"));
        assert_eq!(request(&[large]), 900_000);
        assert_eq!(request(&[large, ("PRODUCER_MAX_REQUEST_BYTES", "20000000")]), 20_000_000);
        assert_eq!(request(&[small]), 131_072);
        assert_eq!(request(&[("PRODUCER_RETRIES", "2147483647")]), 900_000);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (variables, name, hint) in [
            (&[("PRODUCER_ACKS", "1")][..], "PRODUCER_ACKS", "use all"),
            (&[("PRODUCER_PROFILE", "fast")], "PRODUCER_PROFILE", "low-latency or throughput"),
            (&[("PRODUCER_LINGER_MS", "-1")], "PRODUCER_LINGER_MS", "from 0 to 10000"),
            (&[("PRODUCER_LINGER_MS", "10001")], "PRODUCER_LINGER_MS", "from 0 to 10000"),
            (&[("PRODUCER_BATCH_BYTES", "0")], "PRODUCER_BATCH_BYTES", "from 1"),
            (
                &[("PRODUCER_BATCH_BYTES", "1000000")],
                "PRODUCER_BATCH_BYTES",
                "PRODUCER_MAX_REQUEST_BYTES, 900000",
            ),
            (&[("PRODUCER_COMPRESSION", "brotli")], "PRODUCER_COMPRESSION", "gzip or snappy"),
            (&[("KAFKA_CLOUDEVENTS", "yes")], "KAFKA_CLOUDEVENTS", "true"),
            (&[("PRODUCER_RETRIES", "5")], "PRODUCER_RETRIES", "KAFKA_RETRY_MAX_MS"),
            (
                &[("PRODUCER_MAX_REQUEST_BYTES", "20000000")],
                "PRODUCER_MAX_REQUEST_BYTES",
                "KAFKA_MAX_MESSAGE_BYTES, 10485760",
            ),
            (&[("PRODUCER_MAX_REQUEST_BYTES", "1")], "PRODUCER_MAX_REQUEST_BYTES", "from 1000"),
            (&[("KAFKA_MAX_MESSAGE_BYTES", "1000")], "KAFKA_MAX_MESSAGE_BYTES", "from 131072"),
            (&[("KAFKA_MAX_MESSAGE_BYTES", "200000000")], "KAFKA_MAX_MESSAGE_BYTES", "104857600"),
            (&[("CONSUMER_FETCH_MAX_BYTES", "0")], "CONSUMER_FETCH_MAX_BYTES", "from 1024"),
        ] {
            let error = producer(variables).unwrap_err();
            assert!(error.starts_with(name) && error.contains(hint), "{error}");
        }
    }
}
