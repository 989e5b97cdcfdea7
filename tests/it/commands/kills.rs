//! Thousands of commands, some of them bad in six ways, and the service killed again and again while it
//! works on them: each good one takes effect once, each bad one is set aside with its cause, and every
//! sender is told. `WALLEX_TEST_FULL=1`: 10,000 commands, 500 of them bad, five kills.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rskafka::record::Record;
use serde_json::json;

use super::{command, commands, consumed, letters, results, send, start, told};
use crate::dead_letters::wire::{self, header, record};
use crate::support::app::{App, Setup};
use crate::support::eventually;
use crate::support::load::Draw;

/// For the whole of the long form on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
const WALLETS: u64 = 40;
const OPENING: i64 = 100_000;

/// What is sent, and what has to come of it.
#[derive(Default)]
struct Plan {
    records: Vec<Record>,
    good: BTreeSet<String>,
    /// Transfers have an event on each side.
    transfers: BTreeSet<String>,
    /// Ids of bad commands that can be read, with the class of their error.
    bad: BTreeMap<String, &'static str>,
    /// How many bad ones there are of each class.
    classes: BTreeMap<&'static str, usize>,
    /// In cents.
    balances: BTreeMap<String, i64>,
}

impl Plan {
    fn draw(count: usize, bad: usize, draw: &mut Draw) -> Self {
        let wallets = (0..WALLETS).map(|n| (format!("w-{n}"), OPENING));
        let mut plan = Self { balances: wallets.collect(), ..Self::default() };
        let every = count / bad;
        for number in 0..count {
            match number % every {
                0 => plan.bad(number, number / every, draw),
                _ => plan.good(number, draw),
            }
        }
        plan
    }

    fn good(&mut self, number: usize, draw: &mut Draw) {
        let (wallet, other) = (draw.below(WALLETS), draw.below(WALLETS - 1));
        let other = format!("w-{}", (wallet + 1 + other) % WALLETS);
        let (wallet, id) = (format!("w-{wallet}"), format!("c-{number}"));
        let cents = 1 + draw.below(20) as i64;
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let mut value = json!({"commandId": id, "walletId": wallet, "amount": amount,
                               "reference": id});
        let (op, change) =
            [("credit", cents), ("debit", -cents), ("transfer", -cents)][draw.below(3) as usize];
        value["op"] = json!(op);
        *self.balances.get_mut(&wallet).unwrap() += change;
        if op == "transfer" {
            value["toWalletId"] = json!(other);
            *self.balances.get_mut(&other).unwrap() += cents;
            self.transfers.insert(id.clone());
        }
        self.good.insert(id);
        self.records.push(command(&value));
    }

    /// Six ways, in turn; the first three hide the id.
    fn bad(&mut self, number: usize, way: usize, draw: &mut Draw) {
        let (wallet, id) = (format!("w-{}", draw.below(WALLETS)), format!("b-{number}"));
        let good = json!({"commandId": id, "op": "credit", "walletId": wallet, "amount": "1.00",
                          "reference": id});
        let text = good.to_string();
        let (class, has_id, value) = match way % 6 {
            0 => ("invalid_utf8", false, [text.as_bytes(), b"\xff"].concat()),
            1 => ("malformed_json", false, text.as_bytes()[..text.len() - 1].to_vec()),
            2 => ("missing_field", false, text.replace("commandId", "metadata").into_bytes()),
            3 => ("invalid_value", true, text.replace("\"credit\"", "\"burn\"").into_bytes()),
            4 => ("unknown_field", true, text.replace("reference", "referenz").into_bytes()),
            _ => ("invalid_amount", true, text.replace("1.00", "a lot").into_bytes()),
        };
        if has_id {
            self.bad.insert(id, class);
        }
        *self.classes.entry(class).or_default() += 1;
        self.records.push(record(Some(wallet.as_bytes()), Some(&value)));
    }
}

async fn effects(app: &App) -> i64 {
    let count = "select count(distinct payload->>'reference') from events";
    sqlx::query_scalar(count).fetch_one(&app.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_take_effect_once_while_the_service_is_killed() {
    let full = std::env::var("WALLEX_TEST_FULL").is_ok_and(|full| full == "1");
    let (count, bad, kills) = if full { (10_000, 500, 5) } else { (1_000, 50, 2) };
    let mut app = start(Setup::shared()).await;
    for wallet in 0..WALLETS {
        app.open(&format!("w-{wallet}"), "1000.00").await;
    }
    let mut plan = Plan::draw(count, bad, &mut Draw(7));
    let records = std::mem::take(&mut plan.records);
    let begun = Instant::now();
    let (mut sent, mut in_hand) = (0, Vec::new());
    for slice in records.chunks(count.div_ceil(kills + 1)) {
        let before = effects(&app).await;
        send(&app, slice.to_vec()).await;
        sent += slice.len() as i64;
        if in_hand.len() == kills {
            break;
        }
        eventually("the first of them take effect", PATIENCE, async || {
            (effects(&app).await > before).then_some(())
        })
        .await;
        app.kill(nix::sys::signal::Signal::SIGKILL);
        in_hand.push(sent - consumed(&app).await);
        app.spawn();
        app.ready().await;
    }
    assert_eq!(sent, count as i64);
    eventually("all are consumed", PATIENCE, async || (consumed(&app).await == sent).then_some(()))
        .await;
    let took = begun.elapsed();
    let told = told(&app).await;
    let repeated = assert_told(&plan, &told);
    let letters = assert_set_aside(&app, &plan).await;
    assert_effects(&app, &plan).await;
    app.drain().await;
    app.assert_reconciled();
    println!(
        "{count} commands, {bad} of them bad, {kills} kills with {in_hand:?} not consumed, {took:?}: \
         {} applied once, {} results ({repeated} repeated) in {}, {letters} dead letters for {bad}",
        plan.good.len(),
        told.len(),
        results(&app),
    );
    assert!(in_hand.iter().any(|left| *left > 0), "no kill met anything at work: {in_hand:?}");
}

/// Every command whose id can be read has its result, and each copy of it says the same.
fn assert_told(plan: &Plan, told: &BTreeMap<String, Vec<super::Told>>) -> usize {
    assert_eq!(told.len(), plan.good.len() + plan.bad.len());
    for (id, told) in told {
        let [first, copies @ ..] = &told[..] else { panic!("{id}") };
        assert!(copies.iter().all(|copy| copy.record.value == first.record.value), "{told:?}");
        match plan.bad.get(id) {
            Some(class) => {
                assert_eq!((first.status, &first.body["code"]), (400, &json!(class)), "{id}");
            }
            None => assert!(plan.good.contains(id) && first.status == 201, "{id}: {told:?}"),
        }
    }
    told.values().map(|told| told.len() - 1).sum()
}

/// Every bad one is among the dead letters, and nothing else is; how many records that takes.
async fn assert_set_aside(app: &App, plan: &Plan) -> usize {
    let records = wire::read(&letters(app)).await;
    let mut found: BTreeMap<(String, String), String> = BTreeMap::new();
    for (_, _, letter) in &records {
        assert_eq!(header(letter, "original-topic"), commands(app));
        let place = (header(letter, "original-partition"), header(letter, "original-offset"));
        let class = header(letter, "error-class");
        let before = found.insert(place, class.clone());
        assert!(before.is_none_or(|before| before == class), "one cause for each");
    }
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    for class in found.values() {
        *classes.entry(class).or_default() += 1;
    }
    assert_eq!(classes, plan.classes);
    records.len()
}

/// Each good command's events are there once, and the balances are those of the plan.
async fn assert_effects(app: &App, plan: &Plan) {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select payload->>'reference', count(*) from events \
         where payload->>'reference' is not null group by 1",
    )
    .fetch_all(&app.pool)
    .await
    .unwrap();
    let found: BTreeMap<String, i64> = rows.into_iter().collect();
    let wanted =
        plan.good.iter().map(|id| (id.clone(), 1 + i64::from(plan.transfers.contains(id))));
    assert_eq!(found, wanted.collect());
    let rows: Vec<(String, i64)> =
        sqlx::query_as("select id, (balance * 100)::bigint from wallets")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert_eq!(rows.into_iter().collect::<BTreeMap<_, _>>(), plan.balances);
}
