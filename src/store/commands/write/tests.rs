//! How a batch's events are cut into rows of the outbox.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::wallet::{EventBody, WalletId};

fn event(tenant: &str, partition: i32, second: i64, wallet: &str, version: i64) -> Event {
    let change = json!({
        "transactionId": Uuid::nil(), "previousBalance": "0.00", "newBalance": "1.00",
        "changeAmount": "1.00", "changeType": "CREDIT", "currency": "USD",
    });
    Event {
        tenant: TenantId::stored(tenant),
        wallet_id: WalletId::stored(wallet),
        version,
        event_id: Uuid::nil(),
        transaction_id: Uuid::nil(),
        partition,
        created_at: DateTime::from_timestamp(second, 0).unwrap(),
        origin: Arc::default(),
        body: EventBody::from_data("WalletCredited", 1, &change.to_string()).unwrap(),
    }
}

/// The rows that sorted events get: tenant, partition, time, first and last.
fn rows(events: &[Event]) -> Vec<(&str, i32, i64, i32, i32)> {
    let batches = outbox_batches(events);
    let row = |batch: &OutboxBatch<'_>| {
        let seconds = (batch.of.created_at - DateTime::UNIX_EPOCH).num_seconds();
        (batch.of.partition, seconds, batch.first, batch.last)
    };
    let tenant = |at: i32| events[usize::try_from(at).unwrap() - 1].tenant.as_str();
    let rows = batches.iter().map(row);
    rows.map(|(partition, time, first, last)| (tenant(first), partition, time, first, last))
        .collect()
}

#[test]
fn events_share_a_row_by_tenant_partition_and_time_in_the_order_of_their_versions() {
    let mut writes = Writes {
        events: vec![
            event("b", 1, 5, "w", 1),
            event("a", 2, 5, "z", 3),
            event("a", 1, 5, "y", 1),
            event("a", 1, 5, "x", 9),
            event("a", 1, 5, "x", 8),
            // Its clock was ahead when it changed last.
            event("a", 2, 7, "c", 2),
            event("a", 2, 5, "z", 4),
        ],
        ..Writes::default()
    };
    writes.sort();
    let order: Vec<(&str, i64)> =
        writes.events.iter().map(|event| (event.wallet_id.as_str(), event.version)).collect();
    assert_eq!(order, [("x", 8), ("x", 9), ("y", 1), ("z", 3), ("z", 4), ("c", 2), ("w", 1)]);
    let expected = [("a", 1, 5, 1, 3), ("a", 2, 5, 4, 5), ("a", 2, 7, 6, 6), ("b", 1, 5, 7, 7)];
    assert_eq!(rows(&writes.events), expected);
    assert!(rows(&[]).is_empty());
}

#[test]
fn a_row_has_no_more_events_than_a_claim_can_bear() {
    let events: Vec<Event> = (1..=2300).map(|version| event("a", 1, 5, "w", version)).collect();
    let expected = [("a", 1, 5, 1, 1000), ("a", 1, 5, 1001, 2000), ("a", 1, 5, 2001, 2300)];
    assert_eq!(rows(&events), expected);
}

fn wallet() -> Wallet {
    let created = json!({
        "transactionId": Uuid::nil(), "ownerId": "o", "overdraftLimit": "0.00",
        "previousBalance": "0.00", "newBalance": "0.00", "changeAmount": "0.00",
        "changeType": "CREDIT", "currency": "USD",
    });
    let created = EventBody::from_data("WalletCreated", 1, &created.to_string()).unwrap();
    Wallet::opened(WalletId::stored("w"), &created, DateTime::UNIX_EPOCH).unwrap()
}

/// Pinned: what a plain wallet costs must not grow with what others have.
#[test]
fn a_batch_of_plain_wallets_is_written_by_the_text_of_ever() {
    let text = |wide| {
        let updated = vec![(TenantId::stored("t"), wallet())];
        let writes = Writes { updated, wide, ..Writes::default() };
        statement("topic", DateTime::UNIX_EPOCH, &writes).unwrap().0
    };
    let plain = "with updated as (update wallets w set status = r.status, balance = r.balance, \
        held_balance = r.held_balance, overdraft_limit = r.overdraft_limit, version = r.version, \
        updated_at = r.updated_at from (select r.*, found.row from unnest($1::text[], $2::text[], \
        $3::text[], $4::numeric[], $5::numeric[], $6::numeric[], $7::int8[], $8::timestamptz[]) as \
        r(tenant_id, id, status, balance, held_balance, overdraft_limit, version, updated_at) \
        cross join lateral ( select ctid as row from wallets where tenant_id = r.tenant_id and \
        id = r.id limit 1) found) r where w.ctid = r.row returning 1) select count(*) from updated";
    assert_eq!(text(false), plain);
    assert!(matches!(text(false), Cow::Borrowed(_)), "it is made once");
    assert!(text(true).contains("features = r.features, next_due_at = r.next_due_at"));
}
