//! Sending the claimed rows of one partition: one request, cut by bytes; after a refusal record by
//! record, so that one bad record holds up its own wallet only. Never touches Postgres.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::source::{Batch, Mark, SentRow};
use crate::envelope::{DEPLOYMENT, record_time};
use crate::kafka::{self, Outgoing, ProduceError, Producer};
use crate::store::outbox::{OutboxRow, Refusal};
use crate::wallet::{TenantId, WalletId};

/// What came of it.
#[derive(Debug)]
pub struct Sent {
    /// What is to be marked.
    pub mark: Mark,
    pub trouble: Option<Trouble>,
    /// The broker would not take the batch; its records went one by one.
    pub refused_batch: bool,
    /// Rows wait that were not sent this time.
    pub more: bool,
    /// Bytes, not rows, were the limit.
    pub cut: bool,
}

/// Why sending stopped.
#[derive(Debug)]
pub struct Trouble {
    pub error: kafka::Error,
    /// The topic may hold what was not confirmed.
    pub in_doubt: bool,
    /// Rows of the request that failed.
    pub rows: u64,
}

impl Sent {
    fn new(partition: i32, epoch: i64, more: bool) -> Self {
        let mark = Mark { partition, epoch, ..Mark::default() };
        Self { mark, trouble: None, refused_batch: false, more, cut: false }
    }

    fn take(&mut self, rows: &[&OutboxRow], offsets: &[i64]) {
        self.mark.sent.extend(rows.iter().map(|row| SentRow::of(row)));
        self.mark.last_offset = self.mark.last_offset.max(offsets.iter().max().copied());
    }

    fn refuse(&mut self, row: &OutboxRow, cause: String) {
        self.mark.refusals.push(Refusal {
            tenant_id: row.slot.tenant_id.clone(),
            id: row.slot.id,
            wallet_id: row.wallet_id.clone(),
            version: row.version,
            cause,
        });
        self.more = true;
    }

    fn stop(&mut self, error: &ProduceError, rows: usize) {
        let in_doubt = matches!(error, ProduceError::Unknown(_));
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        self.trouble = Some(Trouble { error: error.cause().clone(), in_doubt, rows });
    }
}

/// How records are made.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Bytes of one request, at most.
    pub max_bytes: usize,
    /// With the headers of CloudEvents, too.
    pub cloud_events: bool,
    /// Whose events they are.
    pub deployment: Option<Uuid>,
}

/// Sends a batch's rows, or as many of them as fit into one request, in their order. Begins nothing after
/// `until`: another instance may have the partition then.
pub async fn send(
    producer: &Producer,
    epoch: i64,
    batch: Batch,
    form: Form,
    until: Instant,
) -> Sent {
    let mut sent = Sent::new(batch.partition, epoch, batch.more);
    send_rows(producer, &mut sent, &batch.rows, form, until).await;
    if sent.mark.sent.len() == batch.rows.len() {
        sent.mark.cursor = batch.cursor;
    } else {
        sent.more = true;
    }
    sent
}

async fn send_rows(
    producer: &Producer,
    sent: &mut Sent,
    rows: &[OutboxRow],
    form: Form,
    until: Instant,
) {
    let mut blocked = HashSet::new();
    let (mut batch, mut records, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
    for row in rows {
        if blocked.contains(&wallet(row)) {
            continue;
        }
        let record = match outgoing(row, form, now()) {
            Ok(record) => record,
            Err(error) => {
                sent.refuse(row, format!("not a valid envelope: {error}"));
                blocked.insert(wallet(row));
                continue;
            }
        };
        bytes = bytes.saturating_add(record.size());
        if bytes > form.max_bytes && !batch.is_empty() {
            sent.cut = true;
            sent.more = true;
            break;
        }
        batch.push(row);
        records.push(record);
    }
    if batch.is_empty() {
        return;
    }
    if !is_open(producer, sent, batch.len(), until).await {
        return;
    }
    match producer.produce(sent.mark.partition, records).await {
        Ok(offsets) => sent.take(&batch, &offsets),
        Err(ProduceError::Refused { cause, records: true, .. }) => match batch.as_slice() {
            [row] => sent.refuse(row, cause.to_string()),
            _ => {
                sent.refused_batch = true;
                send_singly(producer, sent, &batch, form, until).await;
            }
        },
        Err(error) => sent.stop(&error, batch.len()),
    }
}

/// Whether something may be sent: the way is open, and the lease stands. Connecting takes its time,
/// so the clock is looked at after it.
async fn is_open(producer: &Producer, sent: &mut Sent, rows: usize, until: Instant) -> bool {
    if let Err(error) = producer.connect(sent.mark.partition).await {
        sent.stop(&error, rows);
        return false;
    }
    let open = Instant::now() < until;
    sent.more |= !open;
    open
}

async fn send_singly(
    producer: &Producer,
    sent: &mut Sent,
    batch: &[&OutboxRow],
    form: Form,
    until: Instant,
) {
    let mut blocked = HashSet::new();
    for row in batch {
        if blocked.contains(&wallet(row)) {
            continue;
        }
        // It was valid a moment ago.
        let Ok(record) = outgoing(row, form, now()) else { return };
        if !is_open(producer, sent, 1, until).await {
            return;
        }
        match producer.produce(sent.mark.partition, vec![record]).await {
            Ok(offsets) => sent.take(&[row], &offsets),
            Err(ProduceError::Refused { cause, records: true, .. }) => {
                sent.refuse(row, cause.to_string());
                blocked.insert(wallet(row));
            }
            Err(error) => return sent.stop(&error, 1),
        }
    }
}

impl SentRow {
    fn of(row: &OutboxRow) -> Self {
        let (tenant, id) = (&row.slot.tenant_id, &row.wallet_id);
        Self {
            slot: row.slot.clone(),
            wallet: (TenantId::stored(tenant), WalletId::stored(id)),
            version: row.version,
            refused: row.refused,
        }
    }
}

fn wallet(row: &OutboxRow) -> (&str, &str) {
    (&row.slot.tenant_id, &row.wallet_id)
}

/// For the times of records that are sent late: nothing that the books know.
#[allow(clippy::disallowed_methods, reason = "records are stamped by their producer")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The record of a row: key, value and headers as docs/EVENTS.md has them.
fn outgoing(
    row: &OutboxRow,
    form: Form,
    now: DateTime<Utc>,
) -> Result<Outgoing, serde_json::Error> {
    let envelope = row.envelope()?;
    let mut headers = envelope.headers(row.traceparent.as_deref());
    if let Some(deployment) = form.deployment {
        headers.push((DEPLOYMENT, deployment.to_string().into_bytes()));
    }
    if form.cloud_events {
        headers.extend(envelope.cloud_event_headers());
    }
    Ok(Outgoing {
        key: row.wallet_id.as_bytes().to_vec(),
        value: envelope.to_json()?,
        headers,
        timestamp: record_time(row.created_at, row.is_again(), now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::outbox::Slot;

    fn form(cloud_events: bool) -> Form {
        Form { max_bytes: 1000, cloud_events, deployment: Some(Uuid::nil()) }
    }

    fn slot(id: i64) -> Slot {
        Slot { tenant_id: "default".to_owned(), id, part: 0, place: 1, events: 1 }
    }

    fn row(payload: &str) -> OutboxRow {
        OutboxRow {
            slot: slot(1),
            refused: false,
            partition: 8,
            wallet_id: "w-000001".to_owned(),
            version: 2,
            event_id: Uuid::nil(),
            event_type: "WalletCredited".to_owned(),
            schema_version: 1,
            payload: payload.to_owned(),
            correlation_id: Some("c-1".to_owned()),
            causation_id: None,
            traceparent: None,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_record_carries_the_payload_untouched_and_every_header() {
        let record = outgoing(&row(r#"{"newBalance":  "1.50"}"#), form(false), now()).unwrap();
        let value = String::from_utf8(record.value).unwrap();
        assert!(value.contains(r#""data":{"newBalance":  "1.50"}"#), "{value}");
        assert!(value.contains(r#""timestamp":"1970-01-01T00:00:00.000Z""#), "{value}");
        assert_eq!(record.key, b"w-000001");
        assert_eq!(record.headers.len(), 8);
        let whose = Uuid::nil().to_string().into_bytes();
        assert_eq!(record.headers.last(), Some(&(DEPLOYMENT, whose)));
        assert!(record.headers.contains(&("correlation-id", b"c-1".to_vec())));
        assert!(record.headers.contains(&("causation-id", Vec::new())));
    }

    #[test]
    fn an_old_event_is_dated_by_its_sending_and_keeps_its_time_in_the_envelope() {
        let (old, at) = (row("{}"), now());
        for (id, back) in [(1, chrono::TimeDelta::hours(1)), (-1, chrono::TimeDelta::zero())] {
            let row = OutboxRow { slot: slot(id), ..old.clone() };
            let record = outgoing(&row, form(true), at).unwrap();
            assert_eq!(record.timestamp, at - back);
            let value = String::from_utf8(record.value).unwrap();
            assert!(value.contains(r#""timestamp":"1970-01-01T00:00:00.000Z""#), "{value}");
            assert!(record.headers.contains(&("ce_time", b"1970-01-01T00:00:00.000Z".to_vec())));
        }
    }

    #[test]
    fn a_payload_that_is_no_json_is_refused_before_it_is_sent() {
        assert!(outgoing(&row("{"), form(false), now()).is_err());
    }

    #[test]
    fn the_headers_of_cloud_events_come_on_top_and_count_as_bytes() {
        let mut row = row("{}");
        row.slot.tenant_id = "a b/ü".to_owned();
        let (plain, full) = (
            outgoing(&row, form(false), now()).unwrap(),
            outgoing(&row, form(true), now()).unwrap(),
        );
        assert_eq!((&plain.key, &plain.value), (&full.key, &full.value));
        assert_eq!(full.headers[..8], plain.headers[..]);
        let added: Vec<(&str, &str)> = full.headers[8..]
            .iter()
            .map(|(name, text)| (*name, std::str::from_utf8(text).unwrap()))
            .collect();
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "00000000-0000-0000-0000-000000000000"),
            ("ce_source", "/wallex/a%20b%2F%C3%BC"),
            ("ce_type", "WalletCredited"),
            ("ce_time", "1970-01-01T00:00:00.000Z"),
            ("ce_subject", "w-000001"),
            ("ce_dataschema", "urn:wallex:event:WalletCredited:1"),
            ("ce_partitionkey", "w-000001"),
            ("content-type", "application/json"),
        ];
        assert_eq!(added, expected);
        let bytes: usize = expected.iter().map(|(name, text)| name.len() + text.len()).sum();
        assert_eq!(full.size(), plain.size() + bytes);
    }
}
