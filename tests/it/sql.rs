//! Every statement of the sources is prepared on a migrated database: its text is SQL that this
//! schema takes, it has as many parameters as are bound, of types that it takes, and its columns
//! are what the code reads them as. What this cannot follow is listed here, with the reason.

mod scope;
mod sites;
mod text;
mod tree;
mod types;

use sqlx::SqlSafeStr as _;
use sqlx::{Column as _, Connection as _, Executor as _, PgConnection, TypeInfo as _};

use crate::support::app::Setup;
use sites::{Call, Site};
use tree::Tree;
use types::Ty;

/// Statements whose text is put together at run time, as `file: function`, and why.
const UNREAD: [(&str, &str); 12] = [
    ("store/commands/write.rs: write_batch", "numbers its own columns; every command runs it"),
    ("store/connect/roles.rs: prepare", "the grants of the migrations, which they have run"),
    ("store/connect/roles.rs: attempt", "names a login, which no statement can be given"),
    ("store/connect/session.rs: configure", "the session's own settings; every connection runs it"),
    ("store/checkpoints.rs: standing", TABLE),
    ("store/feed.rs: walk", TABLE),
    ("store/rebuild.rs: clear", TABLE),
    ("store/rebuild.rs: remove_cleared", TABLE),
    ("store/rebuild.rs: remove_orphans", TABLE),
    ("store/entries.rs: of_reference", FILTERS),
    ("store/entries.rs: filtered", FILTERS),
    ("store/read_model.rs: list", FILTERS),
];

const TABLE: &str = "names the table of a projection; those of all are rebuilt by tests";
const FILTERS: &str = "has the conditions that a filter sets: one text for all would get one plan";

/// How a statement begins in the sources.
const WORDS: [&str; 14] = [
    "sqlx::query(",
    "sqlx::query::<",
    "sqlx::query_as(",
    "sqlx::query_as::<",
    "sqlx::query_scalar(",
    "sqlx::query_scalar::<",
    "sqlx::raw_sql(",
    "sqlx::query_with(",
    "sqlx::query_with::<",
    "sqlx::query_as_with(",
    "sqlx::query_as_with::<",
    "sqlx::query_scalar_with(",
    "sqlx::query_scalar_with::<",
    "QueryBuilder::new(",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_fits_the_schema_and_the_code_that_uses_it() {
    let sources = tree::sources();
    let written = written(&sources);
    let tree = Tree::read(sources);
    let sites = sites::all(&tree);
    let mut wrong = Vec::new();
    for (file, count) in &written {
        let found = sites.iter().filter(|site| tree.name(site.scope.file) == file).count();
        if found != *count {
            wrong.push(format!("{file}: {count} statements are written there, {found} were found"));
        }
    }
    let app = Setup::without_kafka().migrated();
    let mut connection = PgConnection::connect(&app.database_url).await.unwrap();
    let mut seen = Seen::default();
    let mut excused = Vec::new();
    for site in &sites {
        let known = match site.call {
            Call::Built => Err("it is put together at run time".to_owned()),
            _ => text::texts(&tree, &site.scope, &site.text),
        };
        let texts = match known {
            Ok(texts) => texts,
            Err(why) if UNREAD.iter().any(|(place, _)| *place == site.place) => {
                excused.push((site.place.clone(), why));
                continue;
            }
            Err(why) => {
                wrong.push(format!("{}: its text is not known: {why}", site.place));
                continue;
            }
        };
        for text in texts {
            let checked = match site.call {
                Call::Raw => raw(&mut connection, &text).await,
                _ => prepared(&mut connection, &tree, site, &text, &mut seen).await,
            };
            for why in checked {
                wrong.push(format!("{}: {why}\n    {}", site.place, short(&text)));
            }
        }
    }
    for (place, _) in UNREAD {
        if !excused.iter().any(|(excused, _)| excused == place) {
            wrong.push(format!("{place}: is listed and need not be"));
        }
    }
    // What is not known is not compared: it must stay the exception.
    if seen.binds_known * 100 < seen.binds * 85 || seen.columns_known * 100 < seen.columns * 85 {
        wrong.push(format!("too few types are known: {seen:?}"));
    }
    println!("{} statements; {seen:?}", sites.len());
    assert!(wrong.is_empty(), "{} statements do not fit:\n{}", wrong.len(), wrong.join("\n"));
}

/// How much of it could be compared.
#[derive(Debug, Default)]
struct Seen {
    binds: usize,
    binds_known: usize,
    columns: usize,
    columns_known: usize,
}

/// The files that speak to Postgres, and how often.
fn written(sources: &[(String, String)]) -> Vec<(String, usize)> {
    let mut counts = Vec::new();
    for (name, text) in sources {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.collect::<Vec<_>>().join("\n");
        let count: usize = WORDS.iter().map(|word| code.matches(word).count()).sum();
        if count > 0 {
            counts.push((name.clone(), count));
        }
    }
    counts
}

/// A statement without parameters, or several of them.
async fn raw(connection: &mut PgConnection, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        let prepared = connection.prepare(sqlx::AssertSqlSafe(statement.to_owned()).into_sql_str());
        if let Err(error) = prepared.await {
            wrong.push(error.to_string());
        }
    }
    wrong
}

async fn prepared(
    connection: &mut PgConnection,
    tree: &Tree,
    site: &Site,
    text: &str,
    seen: &mut Seen,
) -> Vec<String> {
    let described = connection.describe(sqlx::AssertSqlSafe(text.to_owned()).into_sql_str()).await;
    let described = match described {
        Ok(described) => described,
        Err(error) => return vec![error.to_string()],
    };
    let inferred: Vec<String> = match described.parameters() {
        Some(sqlx::Either::Left(types)) => types.iter().map(|t| t.name().to_owned()).collect(),
        _ => Vec::new(),
    };
    let kinds: Vec<Ty> = site.binds.iter().map(|e| site.scope.kind(tree, e)).collect();
    let mut wrong = binds(connection, text, &kinds, &inferred, seen).await;
    if site.fetch.is_none() {
        return wrong;
    }
    let columns: Vec<(String, String, Option<bool>)> = described
        .columns()
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let kind = column.type_info().name().to_owned();
            (column.name().to_owned(), kind, described.nullable(at))
        })
        .collect();
    seen.columns += columns.len();
    match site.call {
        Call::Query => {
            for (name, kind) in &site.reads {
                match columns.iter().find(|(known, ..)| known == name) {
                    Some(column) => wrong.extend(read_as(text, column, kind, seen)),
                    None => wrong.push(format!("no column {name}")),
                }
            }
        }
        Call::Scalar => {
            if columns.len() != 1 {
                wrong.push(format!("{} columns for one value", columns.len()));
            }
            wrong.extend(columns.first().and_then(|column| read_as(text, column, &site.row, seen)));
        }
        Call::As => wrong.extend(rows(tree, site.scope.file, text, &site.row, &columns, seen)),
        Call::Raw | Call::Built => {}
    }
    wrong
}

/// The statement takes what is bound to it: as many, of the types that it infers, and of those that
/// the driver declares.
async fn binds(
    connection: &mut PgConnection,
    text: &str,
    kinds: &[Ty],
    inferred: &[String],
    seen: &mut Seen,
) -> Vec<String> {
    let mut wrong = Vec::new();
    if inferred.len() != kinds.len() {
        wrong.push(format!("{} parameters, {} are bound", inferred.len(), kinds.len()));
    }
    for (at, (inferred, kind)) in inferred.iter().zip(kinds).enumerate() {
        seen.binds += 1;
        let taken = match kind.readable() {
            Some(names) => {
                seen.binds_known += 1;
                let json =
                    inferred.starts_with("JSON") && names.iter().any(|n| n.starts_with("TEXT"));
                // Postgres widens a number as it must.
                let number =
                    names.len() == 1 && ["INT2", "INT4", "INT8"].contains(&names[0].as_str());
                names.contains(inferred) || json || number && !inferred.ends_with("[]")
            }
            // Whatever is in it: a list is not one value.
            None => !matches!(kind, Ty::List(_)) || inferred.ends_with("[]"),
        };
        if !taken {
            wrong.push(format!("${} is {inferred}, and {kind:?} is bound", at + 1));
        }
    }
    let names: Vec<String> = kinds.iter().map(Ty::parameter).collect();
    let declared = match names.is_empty() {
        true => String::new(),
        false => format!("({})", names.join(", ")),
    };
    let prepare = format!("prepare checked{declared} as {text}");
    match sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut *connection).await {
        Ok(_) => drop(sqlx::raw_sql("deallocate checked").execute(connection).await.unwrap()),
        Err(error) => wrong.push(format!("with ({}): {error}", names.join(", "))),
    }
    wrong
}

type Described = (String, String, Option<bool>);

/// A row that is read as a tuple, by place, or as a struct, by name.
fn rows(
    tree: &Tree,
    file: usize,
    text: &str,
    row: &Ty,
    columns: &[Described],
    seen: &mut Seen,
) -> Vec<String> {
    match row {
        Ty::Tuple(parts) if parts.len() == columns.len() => {
            let pairs = columns.iter().zip(parts);
            pairs.filter_map(|(column, kind)| read_as(text, column, kind, seen)).collect()
        }
        Ty::Tuple(parts) => vec![format!("{} columns for {} parts", columns.len(), parts.len())],
        Ty::Named(name) => {
            let Some(found) = tree.structure(file, name) else {
                return vec![format!("the struct {name} is not found")];
            };
            let mut wrong = Vec::new();
            for (field, kind, flat) in &found.fields {
                if *flat {
                    wrong.extend(rows(tree, file, text, kind, columns, seen));
                    continue;
                }
                let field = field.trim_start_matches("r#");
                match columns.iter().find(|(name, ..)| name == field) {
                    Some(column) => wrong.extend(read_as(text, column, kind, seen)),
                    None => wrong.push(format!("no column {field} of {name}")),
                }
            }
            wrong
        }
        _ => vec![format!("what its rows are read as is not known: {row:?}")],
    }
}

fn read_as(text: &str, column: &Described, kind: &Ty, seen: &mut Seen) -> Option<String> {
    let (name, found, nullable) = column;
    let wanted = kind.readable()?;
    seen.columns_known += 1;
    if !wanted.contains(found) {
        return Some(format!("column {name} is {found}, and read as {kind:?}"));
    }
    let excluded = text.contains(&format!("{name} is not null"));
    if *nullable == Some(true) && !kind.optional().1 && !excluded {
        return Some(format!("column {name} may be null, and is read as {kind:?}"));
    }
    None
}

fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    text.chars().take(160).collect()
}
