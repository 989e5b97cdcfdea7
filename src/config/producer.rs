//! The producer's settings: a profile, and what is set beside it.
//!
//! What is set wins over the profile. What cannot work is refused here, by name.

use std::time::Duration;

use super::read::{ConfigError, Reader, invalid};
use super::{Codec, ProducerSettings};

/// The longest linger: half of what makes /health/kafka speak of a backlog would hide one.
const LINGER_MAX_MS: u64 = 10_000;
/// What ends a linger unless something else is set: a batch of Kafka's own producer.
const BATCH_BYTES: usize = 16 * 1024;
const REQUEST_BYTES_MAX: usize = 10_485_760;

impl Reader {
    pub(super) fn producer(&self) -> Result<ProducerSettings, ConfigError> {
        // Kafka's clients know it by both names.
        self.one_of("PRODUCER_ACKS", &[("all", ()), ("-1", ())])?;
        let profile = self.one_of("PRODUCER_PROFILE", &[("low-latency", 0), ("throughput", 5)])?;
        let linger = match self.is_set("PRODUCER_LINGER_MS")? {
            true => self.within("PRODUCER_LINGER_MS", 0, LINGER_MAX_MS)?,
            false => profile,
        };
        let max_request_bytes =
            self.within("PRODUCER_MAX_REQUEST_BYTES", 1000, REQUEST_BYTES_MAX)?;
        Ok(ProducerSettings {
            compression: self.one_of(
                "PRODUCER_COMPRESSION",
                &[
                    ("gzip", Codec::Gzip),
                    ("snappy", Codec::Snappy),
                    ("lz4", Codec::Lz4),
                    ("zstd", Codec::Zstd),
                    ("none", Codec::None),
                ],
            )?,
            max_request_bytes,
            linger: Duration::from_millis(linger),
            batch_bytes: self.batch_bytes(max_request_bytes)?,
            cloud_events: self.flag("KAFKA_CLOUDEVENTS")?,
        })
    }

    fn batch_bytes(&self, max_request_bytes: usize) -> Result<usize, ConfigError> {
        let name = "PRODUCER_BATCH_BYTES";
        if !self.is_set(name)? {
            return Ok(BATCH_BYTES.min(max_request_bytes));
        }
        let bytes = self.within(name, 1, REQUEST_BYTES_MAX)?;
        if bytes > max_request_bytes {
            let problem = format!(
                "no request is that large: use at most PRODUCER_MAX_REQUEST_BYTES, {max_request_bytes}"
            );
            return Err(invalid(name, &bytes.to_string(), &problem));
        }
        Ok(bytes)
    }

    fn is_set(&self, name: &str) -> Result<bool, ConfigError> {
        Ok(!self.text(name)?.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::{Overrides, load_from};
    use super::*;

    fn producer(variables: &[(&str, &str)]) -> Result<ProducerSettings, String> {
        let variables: HashMap<String, String> =
            variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let loaded = load_from(&variables, &Overrides::new());
        loaded.map(|(settings, _)| settings.producer).map_err(|error| error.to_string())
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
        ] {
            let error = producer(variables).unwrap_err();
            assert!(error.starts_with(name) && error.contains(hint), "{error}");
        }
    }
}
