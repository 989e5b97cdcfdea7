//! Keeps the index of transactions summarized, but for what was written a moment ago: what it does not know
//! of is read whole by each look-up.

use std::time::Duration;

use crate::background::task::Task;
use crate::store::transactions::{self, Summarized};
use crate::store::{self, Pool};

const EVERY: Duration = Duration::from_secs(1);
/// Ranges in one statement, which keeps the table from being vacuumed: some tens of milliseconds.
const MOST: i32 = 1000;
/// Another session works on the table; the look-ups do without meanwhile.
const IN_THE_WAY: &str = "55P03";

pub(super) struct Summaries {
    pool: Pool,
    reached: Summarized,
}

impl Summaries {
    pub fn new(pool: Pool) -> Self {
        Self { pool, reached: Summarized::default() }
    }
}

impl Task for Summaries {
    const NAME: &'static str = "transaction index";
    const MAY_BE_CUT: bool = true;
    type Error = store::Error;

    async fn round(&mut self) -> store::Result<Duration> {
        let walked = transactions::summarize(&self.pool, &mut self.reached, MOST).await;
        match walked {
            Ok(walked) if walked >= i64::from(MOST) => Ok(Duration::ZERO),
            Ok(_) => Ok(EVERY),
            Err(error) if error.sqlstate().is_some_and(|state| &*state == IN_THE_WAY) => Ok(EVERY),
            Err(error) => Err(error),
        }
    }
}
