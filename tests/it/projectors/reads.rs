//! What HTTP reads from the projections: pages, filters, totals.

use wallex::ledger::TransactionType;
use wallex::projector::{LEDGER, Projection};
use wallex::store::entries::{self, EntryCursor, EntryFilter};
use wallex::store::read_model::{WalletFilter, list};
use wallex::wallet::{Currency, Status, TenantId};

use super::books::{Books, id, some_history};

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_paged_filtered_and_summed() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    books.project(Projection::LEDGER).await;
    let mut connection = books.pool.acquire().await.unwrap();
    let (c, tenant) = (&mut connection, TenantId::default_tenant());
    let limit = |limit| EntryFilter { limit, ..EntryFilter::default() };

    let summary = entries::summary(c, &tenant, LEDGER, &id("w0")).await.unwrap();
    assert_eq!((&*summary.total_credits, &*summary.total_debits), ("104.35", "3.10"));
    assert_eq!((summary.transaction_count, summary.last.unwrap().version), (4, 5));
    let yen = entries::summary(c, &tenant, LEDGER, &id("y1")).await.unwrap();
    assert_eq!((&*yen.total_credits, &*yen.total_debits), ("500", "0"));
    let nobody = entries::summary(c, &tenant, LEDGER, &id("nobody")).await.unwrap();
    assert_eq!((&*nobody.total_credits, nobody.transaction_count, nobody.last), ("0.00", 0, None));
    assert_eq!(entries::projected_version(c, &tenant, LEDGER, &id("w0")).await.unwrap(), 5);
    assert_eq!(entries::projected_version(c, &tenant, LEDGER, &id("nobody")).await.unwrap(), 0);

    let page = entries::of_wallet(c, &tenant, &id("w0"), &limit(2), None).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.version).collect::<Vec<_>>(), [5, 4]);
    let page = entries::of_wallet(c, &tenant, &id("w0"), &limit(2), Some(4)).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.version).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(page[0].amount.to_string(), "1.25");
    let out = EntryFilter { transaction_type: Some(TransactionType::TransferOut), ..limit(9) };
    let out = entries::of_wallet(c, &tenant, &id("w0"), &out, None).await.unwrap();
    let both = entries::of_reference(c, &tenant, &out[0].reference_id, 50, None).await.unwrap();
    assert_eq!((out.len(), both.len()), (1, 2));

    let (mut all, mut after) = (Vec::new(), None);
    while let Some(page) =
        Some(entries::of_all(c, &tenant, &limit(7), after).await.unwrap()).filter(|p| !p.is_empty())
    {
        let last = page.last().unwrap();
        after = Some(EntryCursor { created_at: last.created_at, event_id: last.event_id });
        all.extend(page);
    }
    let unique: std::collections::HashSet<_> = all.iter().map(|entry| entry.event_id).collect();
    assert_eq!((all.len(), unique.len()), (81, 81));
    let moment = Some(all[0].created_at);
    let filter = EntryFilter { start: moment, end: moment, ..limit(100) };
    let of_moment = entries::of_all(c, &tenant, &filter, None).await.unwrap();
    assert_eq!(of_moment.len(), all.iter().filter(|e| Some(e.created_at) == moment).count());
}

#[tokio::test(flavor = "multi_thread")]
async fn wallets_are_paged_and_filtered() {
    let mut books = Books::open().await;
    books.write(&some_history()).await;
    books.project(Projection::READ_MODEL).await;
    let mut connection = books.pool.acquire().await.unwrap();
    let (c, tenant) = (&mut connection, TenantId::default_tenant());
    let limit = |limit| WalletFilter { limit, ..WalletFilter::default() };
    let gold = |value: &str| vec![("tier".to_owned(), value.to_owned())];

    let dollars = WalletFilter {
        owner_id: Some("owner-w".to_owned()),
        metadata: gold("gold"),
        status: Some(Status::Active),
        ..limit(15)
    };
    let first = list(c, &tenant, &dollars).await.unwrap();
    let last = first.last().unwrap();
    let after = Some((last.created_at, last.id.clone()));
    let second = list(c, &tenant, &WalletFilter { after, ..dollars }).await.unwrap();
    assert_eq!((first.len(), second.len(), first[0].balance.scale()), (15, 5, 2));
    for wallet in first.iter().chain(&second) {
        assert_eq!(wallet, &books.wallets[&wallet.id]);
    }
    let yen = WalletFilter { currency: Currency::parse("JPY"), ..limit(9) };
    assert_eq!(list(c, &tenant, &yen).await.unwrap().len(), 1);
    let none = WalletFilter { metadata: gold("silver"), ..limit(9) };
    assert_eq!(list(c, &tenant, &none).await.unwrap(), []);
}
