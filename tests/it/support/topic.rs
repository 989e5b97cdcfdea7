//! The topic read back from its first offset, and held against the tables: what was published is
//! what happened, in order per wallet, and the projections are what was published.

use std::collections::BTreeMap;

use serde_json::Value;

use super::app::App;
use super::checker::{Figures, check_topic};
use super::records;

/// Fails where topic, events, ledger and read model are not the same.
pub async fn assert_same(bootstrap: &str, app: &App) -> Figures {
    let (figures, findings) = check_topic(&app.pool, bootstrap, &app.topic).await;
    findings.assert_none(&figures);
    assert_projected(app).await;
    figures
}

/// The ledger has the two legs of every event that moves money, the read model every wallet as it
/// is, the outbox nothing that waits.
pub async fn assert_projected(app: &App) {
    let (wrong_entries, wrong_wallets, waiting): (i64, i64, i64) = sqlx::query_as(
        "select \
         (select count(*) from (select event_id, amount from events, \
              lateral (select (payload ->> 'changeAmount')::numeric as amount) a \
              where event_type <> 'WalletCreated') e \
          full join (select event_id, count(*) as legs, min(amount) as low, max(amount) as high, \
                 count(distinct side) as sides from ledger_entries group by event_id) l \
              using (event_id) \
          where l.legs is distinct from 2 or l.low is distinct from e.amount \
             or l.high is distinct from e.amount or l.sides is distinct from 2), \
         (select count(*) from wallets w full join wallets_read_model r using (tenant_id, id) \
          where (w.balance, w.version, w.owner_id) is distinct from \
                (r.balance, r.version, r.owner_id)), \
         (select count(*) from outbox where processed_at is null)",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert_eq!((wrong_entries, wrong_wallets, waiting), (0, 0, 0), "entries, wallets, backlog");
}

/// The versions of each wallet in a topic, as they stand in it.
pub async fn versions(bootstrap: &str, topic: &str) -> BTreeMap<String, Vec<i64>> {
    let mut versions: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in records::read(bootstrap, topic).await {
        let value: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        let wallet = String::from_utf8(record.key.unwrap()).unwrap();
        versions.entry(wallet).or_default().push(value["aggregateVersion"].as_i64().unwrap());
    }
    versions
}
