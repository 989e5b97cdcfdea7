//! In step: the highest rate at which both projections stay close behind the answers, for long. What is
//! beyond it is a burst: it is answered as well, and paid for later.

use std::time::Duration;

use anyhow::ensure;
use sqlx::{Connection, PgConnection};
use tokio::time::{MissedTickBehavior, interval};

use crate::commands::{Work, seconds};
use crate::load::{self, Tally};
use crate::reading::Reading;
use crate::search::{Search, Trial};
use crate::seed::Seed;
use crate::service::{Service, position};
use crate::world::{Database, World};

/// How often it is asked how far the projections are behind.
const LOOK: Duration = Duration::from_millis(200);
/// The last answer comes no later behind the end of the load: otherwise the rate was not kept.
const LATE: Duration = Duration::from_millis(500);

/// Searches with short probes and proves the rate by holding it.
pub async fn measure(world: &mut World, work: Work) -> anyhow::Result<Reading> {
    let database = world.copy_of(Seed::Wallets).await?;
    let service = Service::start(world, &database, &[]).await?;
    let (request, time) = (work.request(), world.scale.probe);
    let burst = load::closed(service.port, work.connections(), &request, time).await?;
    service.drain(world.scale.patience).await?;
    let mut search = Search::below(burst.rate(), world.scale.probes);
    let mut found = Reading::missing("in step at no rate");
    while let Some(trial) = search.next() {
        let (rate, time) = match trial {
            Trial::Probe(rate) => (rate, world.scale.probe),
            Trial::Hold(rate) => (rate, world.scale.hold),
        };
        if let Trial::Hold(_) = trial {
            // As before every other reading: it pays for no page of the probes, and for all of its own.
            world.postgres.psql("checkpoint")?;
        }
        let attempt = Attempt { world, service: &service, database: &database, work, rate, time };
        let went = attempt.run().await?;
        eprintln!("    {trial:.0?} a second: {}", went.as_ref().err().map_or("in step", |why| why));
        service.drain(world.scale.patience).await?;
        match (trial, went) {
            (Trial::Hold(_), Ok(reading)) => {
                found = reading;
                break;
            }
            (_, went) => search.went(trial, went.is_ok()),
        }
    }
    service.stop().await?;
    world.discard(database).await?;
    Ok(found)
}

/// One rate, for some time.
struct Attempt<'a> {
    world: &'a World,
    service: &'a Service,
    database: &'a Database,
    work: Work,
    /// Requests a second.
    rate: f64,
    time: Duration,
}

/// Ends an attempt early: a projection was too far behind.
#[derive(Debug, thiserror::Error)]
#[error("a projection is {0:.1?} behind after {1:.1?}")]
struct Behind(Duration, Duration);

/// Why a rate is none that is held.
type Why = String;

impl Attempt<'_> {
    async fn run(&self) -> anyhow::Result<Result<Reading, Why>> {
        // A load that begins leaves the pipeline behind for moments: rounds have to grow with it.
        self.load(self.world.scale.lead_in).await?;
        let mut connection = self.service.connect().await?;
        let before = position(&mut connection).await?.written;
        let pid = Some(self.service.pid());
        let from = self.world.begin(pid).await?;
        let (watched, tally) =
            match tokio::try_join!(self.watch(&mut connection), self.load(self.time)) {
                Ok(both) => both,
                Err(error) if error.is::<Behind>() => return Ok(Err(error.to_string())),
                Err(error) => return Err(error),
            };
        let to = self.world.mark(pid).await?;
        let written = position(&mut connection).await?.written - before;
        connection.close().await?;
        if let Some(why) = self.missed(&tally, &watched) {
            return Ok(Err(why));
        }
        let weight = self.work.weight();
        let promised = i64::try_from(tally.answered * weight.events)?;
        ensure!(written == promised, "answers promised {promised} events, {written} were written");
        let events = u64::try_from(written)?;
        let statements = self.world.breakdown(self.database, from.until(&to, events), events);
        let reading = Reading::of(tally.rate() * weight.operations as f64)
            .with_latency(&tally.latency)
            .with_cost(from.until(&to, tally.answered * weight.operations))
            .with_statements(statements.await?);
        Ok(Ok(reading
            .with("s behind, longest", seconds(watched.longest))
            .with("times looked", watched.looks as f64)
            .with("s held", seconds(self.time))))
    }

    /// Why service, generator or database did not keep the rate, although no projection was behind.
    fn missed(&self, tally: &Tally, watched: &Watched) -> Option<Why> {
        let late = tally.elapsed.saturating_sub(self.time);
        if tally.errors > 0 {
            return Some(format!("{} errors, the last {}", tally.errors, tally.last_error));
        }
        if late > LATE {
            return Some(format!("the last answer came {late:.1?} late"));
        }
        let least = self.world.scale.looks * seconds(self.time);
        ((watched.looks as f64) < least).then(|| format!("looked at {} times only", watched.looks))
    }

    async fn load(&self, time: Duration) -> anyhow::Result<Tally> {
        let (port, request) = (self.service.port, self.work.request());
        load::open(port, self.work.connections(), &request, time, self.rate).await
    }

    /// Asks the database, not the service, how long ago the oldest event was written that a projection has
    /// yet to apply. By wallet: one that stands still is seen, however many others go on.
    async fn watch(&self, connection: &mut PgConnection) -> anyhow::Result<Watched> {
        let mut watched = Watched { longest: Duration::ZERO, looks: 0 };
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begin = tokio::time::Instant::now();
        while ticks.tick().await < begin + self.time {
            let lag: f64 = sqlx::query_scalar(
                "select /* bench */ coalesce(extract(epoch from \
                    max(clock_timestamp() - e.created_at)), 0)::float8 \
                 from (select tenant_id, wallet_id, min(version) as version \
                    from projected_versions \
                    where projector in ('ledger-projector', 'read-model-projector') \
                    group by tenant_id, wallet_id) p \
                 join wallets w on w.tenant_id = p.tenant_id and w.id = p.wallet_id \
                    and w.version > p.version \
                 cross join lateral (select created_at from events \
                    where tenant_id = p.tenant_id and wallet_id = p.wallet_id \
                      and version = p.version + 1 limit 1) e",
            )
            .fetch_one(&mut *connection)
            .await?;
            watched.longest = watched.longest.max(Duration::from_secs_f64(lag.max(0.0)));
            watched.looks += 1;
            if watched.longest > self.world.scale.in_step {
                return Err(Behind(watched.longest, begin.elapsed()).into());
            }
        }
        Ok(watched)
    }
}

struct Watched {
    longest: Duration,
    looks: u64,
}
