//! `/admin/dead-letters`: what `wallex dlq` does, through the same functions.

use axum::extract::State;
use axum::response::Response;

use crate::answer::{DeadLetterStoryView, DeadLettersView, Problem, ProblemCode, RequestView};
use crate::http::body::CommandBody;
use crate::http::openapi::problems::{DeadLetterProblems, DeadLetterRequestProblems, ReadProblems};
use crate::http::openapi::requests;
use crate::http::path::TextPath;
use crate::http::problem::{HttpError, HttpResult};
use crate::http::query::Parameters;
use crate::http::views::json;
use crate::http::{HttpState, cursor};
use crate::request::{Fault, Ids, Text, Value, body, one_of, words};
use crate::store::dead_letters::requests::{self as asked, MatchedRows, ReplaySelector};
use crate::store::dead_letters::{self, Filter, STATES, Source};
use crate::store::{self, Connection, parked};
use crate::wallet::WalletId;

const LIMIT: i64 = 50;

/// Dead letters, newest first, and parked wallets.
#[utoipa::path(
    get, path = "/admin/dead-letters", tag = "admin", operation_id = "listDeadLetters",
    params(requests::DeadLetterFilter),
    responses((status = 200, description = "What needs an operator", body = DeadLettersView), ReadProblems)
)]
pub(in crate::http) async fn list(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> HttpResult<Response> {
    let text = |name| parameters.text(name).map(str::to_owned);
    let word = |name: &'static str| {
        let known = |word: &str| STATES.iter().chain(&parked::STATES).any(|state| *state == word);
        parameters.one_of(name, |word| known(word).then(|| word.to_owned()))
    };
    let filter = Filter {
        wallet: text("walletId"),
        cause: text("cause"),
        source: parameters.one_of("source", known_source)?,
        state: word("state")?,
        before: cursor::position(&parameters)?,
        limit: parameters.limit(LIMIT)?,
    };
    let mut connection = store::acquire(&state.pools.upkeep).await?;
    let letters = dead_letters::list(&mut connection, &filter).await?;
    let last = cursor::last_of_full(&letters, filter.limit).map(|letter| letter.id);
    let first_page = filter.before.is_none();
    let wanted = first_page && asked::has_parked(&filter.cause, &filter.source);
    let wallets = match wanted {
        false => Vec::new(),
        true => {
            let Filter { wallet, state, limit, .. } = filter;
            let filter = parked::Filter { wallet, state, limit };
            parked::list(&mut connection, &filter).await?
        }
    };
    Ok(json(&DeadLettersView {
        dead_letters: letters.into_iter().map(Into::into).collect(),
        parked_wallets: wallets.into_iter().map(Into::into).collect(),
        next_cursor: last.map(|id| cursor::encode(&id)),
    }))
}

/// One dead letter, with its bytes and its history.
#[utoipa::path(
    get, path = "/admin/dead-letters/{id}", tag = "admin", operation_id = "getDeadLetter",
    params(("id" = i64, Path, description = "As the list has it")),
    responses((status = 200, description = "The dead letter", body = DeadLetterStoryView), DeadLetterProblems)
)]
pub(in crate::http) async fn show(
    State(state): State<HttpState>,
    TextPath(id): TextPath,
) -> HttpResult<Response> {
    let number = id.parse().map_err(|_| {
        HttpError::at(ProblemCode::InvalidId, "path", "the id of a dead letter is a whole number")
    })?;
    let mut connection = store::acquire(&state.pools.upkeep).await?;
    let found = dead_letters::show(&mut connection, number).await?;
    let story = found.ok_or_else(|| not_found(&[number]))?;
    Ok(json(&DeadLetterStoryView::from(story)))
}

/// Asks for dead letters to be sent again, and for parked wallets to be tried again now.
///
/// The request is kept; a service with Kafka carries it out within seconds. What is named by its id is
/// replayed whatever its state, else only what is open.
#[utoipa::path(
    post, path = "/admin/dead-letters/replay", tag = "admin", operation_id = "replayDeadLetters",
    request_body = ReplayDeadLettersBody,
    responses((status = 200, description = "What will be replayed", body = RequestView), DeadLetterRequestProblems)
)]
pub(in crate::http) async fn replay(
    State(state): State<HttpState>,
    CommandBody(body): CommandBody<ReplayDeadLettersBody>,
) -> HttpResult<Response> {
    let (selection, dry_run) = (body.selection.checked()?, body.dry_run);
    let mut connection = store::acquire(&state.pools.upkeep).await?;
    let chosen = choose(&mut connection, &selection).await?;
    if !dry_run {
        asked::replay(&mut connection, &chosen).await?;
    }
    Ok(json(&chosen.view(dry_run)))
}

/// Settles dead letters: they are kept, and replayed only by their ids from now on.
#[utoipa::path(
    post, path = "/admin/dead-letters/quarantine", tag = "admin", operation_id = "quarantineDeadLetters",
    request_body = QuarantineDeadLettersBody,
    responses((status = 200, description = "What is settled", body = RequestView), DeadLetterRequestProblems)
)]
pub(in crate::http) async fn quarantine(
    State(state): State<HttpState>,
    CommandBody(body): CommandBody<QuarantineDeadLettersBody>,
) -> HttpResult<Response> {
    let (selection, dry_run, note) = (body.selection.checked()?, body.dry_run, body.note.0);
    let mut connection = store::acquire(&state.pools.upkeep).await?;
    let MatchedRows { ids, .. } = choose(&mut connection, &selection).await?;
    if !dry_run {
        asked::quarantine(&mut connection, &ids, &note).await?;
    }
    Ok(json(&MatchedRows { ids, wallets: Vec::new() }.view(dry_run)))
}

body! {
    /// Which dead letters and parked wallets are to be tried again. Everything given must agree.
    pub struct ReplayDeadLettersBody {
        /// Changes nothing.
        dry_run as "dryRun": bool,
        ..selection: SelectionBody,
    }
}

body! {
    /// Which dead letters are settled. Everything given must agree.
    pub struct QuarantineDeadLettersBody {
        /// Why, kept for later readers.
        note as "note": Text,
        /// Changes nothing.
        dry_run as "dryRun": bool,
        ..selection: SelectionBody,
    }
}

body! {
    /// Which dead letters and parked wallets are meant.
    pub struct SelectionBody {
        /// Whatever their state; without ids only what is open.
        ids as "ids": Option<Ids>,
        /// What has this wallet's id as its key; for a replay also the wallet itself where it is parked.
        wallet_id as "walletId": Option<WalletId>,
        /// An error class; for a replay also `parked`: the parked wallets alone.
        cause as "cause": Option<String>,
        /// What was meant to be an event, or a command; parked wallets are of events.
        source as "source": Option<SourceWord>,
        /// Needed where none of the others is given.
        all as "all": bool,
    }
}

/// One of [`Source::WORDS`].
#[derive(Debug)]
pub struct SourceWord(&'static str);

impl Value for SourceWord {
    fn read(token: &str) -> Result<Self, Fault> {
        one_of(token, Source::WORDS.into_iter().map(|word| (word, word))).map(Self)
    }

    fn schema() -> utoipa::openapi::Schema {
        words(Source::WORDS.into_iter())
    }
}

impl SelectionBody {
    /// What is selected: all of them only where the request says so.
    fn checked(self) -> HttpResult<ReplaySelector> {
        let selection = ReplaySelector {
            ids: self.ids.map_or_else(Vec::new, |ids| ids.0),
            wallet: self.wallet_id.map(|id| id.as_str().to_owned()),
            cause: self.cause,
            source: self.source.map(|source| source.0.to_owned()),
        };
        let ReplaySelector { ids, wallet, cause, source } = &selection;
        let named = !ids.is_empty() || [wallet, cause, source].iter().any(|one| one.is_some());
        match self.all || named {
            true => Ok(selection),
            false => Err(HttpError::at(
                ProblemCode::MissingField,
                "/all",
                "is required, or one of ids, walletId, cause and source",
            )),
        }
    }
}

fn known_source(word: &str) -> Option<String> {
    Source::WORDS.contains(&word).then(|| word.to_owned())
}

async fn choose(
    connection: &mut Connection,
    selection: &ReplaySelector,
) -> HttpResult<MatchedRows> {
    let chosen = asked::choose(connection, selection).await?;
    let unknown: Vec<i64> =
        selection.ids.iter().copied().filter(|id| !chosen.ids.contains(id)).collect();
    if unknown.is_empty() { Ok(chosen) } else { Err(not_found(&unknown)) }
}

fn not_found(ids: &[i64]) -> HttpError {
    let ids: Vec<String> = ids.iter().take(10).map(i64::to_string).collect();
    let detail = format!("no dead letter that the request selects has the id {}", ids.join(", "));
    HttpError(Problem::new(ProblemCode::DeadLetterNotFound, detail))
}
