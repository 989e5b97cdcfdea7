//! Rows that travel with a statement as arrays, one for each column. The builder numbers parameters
//! itself: a column is declared once, with its name, its type and where its value comes from.
//!
//! Binding makes no text: a statement's text is the same for every batch of its kind, and is made once.

use std::fmt;

use sqlx::postgres::{PgArguments, PgHasArrayType};
use sqlx::{Arguments as _, Encode, Postgres, Type};

use crate::store::{Error, Result};

/// The parameters of one statement, in the order in which they are bound.
#[derive(Default)]
pub(super) struct Parameters {
    arguments: PgArguments,
    count: usize,
}

/// Where a parameter stands in the text: `$7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placeholder(usize);

/// Some columns of `rows`, as they are bound.
pub(super) struct Rows<'r, R> {
    rows: &'r [R],
    columns: Columns,
}

/// Columns that are bound, as the text of a statement names them.
#[derive(Default)]
pub(super) struct Columns(Vec<Column>);

struct Column {
    name: &'static str,
    /// The type that it travels as.
    kind: &'static str,
    array: Placeholder,
    /// The type that it is stored as, where that is another one.
    stored_as: Option<&'static str>,
    /// What is stored in place of null.
    or: Option<&'static str>,
}

impl Parameters {
    /// Binds a single value; answers with its placeholder.
    pub fn value<'q, T>(&mut self, value: T) -> Result<Placeholder>
    where
        T: 'q + Encode<'q, Postgres> + Type<Postgres>,
    {
        self.arguments.add(value).map_err(Error::corrupt)?;
        self.count += 1;
        Ok(Placeholder(self.count))
    }

    pub fn into_arguments(self) -> PgArguments {
        self.arguments
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.0)
    }
}

impl<'r, R> Rows<'r, R> {
    pub fn new(rows: &'r [R]) -> Self {
        Self { rows, columns: Columns::default() }
    }

    /// Binds a column of an SQL type.
    pub fn column<T>(
        &mut self,
        parameters: &mut Parameters,
        (name, kind): (&'static str, &'static str),
        of: impl Fn(&'r R) -> T,
    ) -> Result<&mut Self>
    where
        T: Encode<'r, Postgres> + Type<Postgres> + PgHasArrayType + 'r,
    {
        let values: Vec<T> = self.rows.iter().map(of).collect();
        let array = parameters.value(values)?;
        self.columns.0.push(Column { name, kind, array, stored_as: None, or: None });
        Ok(self)
    }

    /// Casts the column that was added last: it travels as text and is stored as `kind`.
    pub fn stored_as(&mut self, kind: &'static str) -> &mut Self {
        if let Some(column) = self.columns.0.last_mut() {
            column.stored_as = Some(kind);
        }
        self
    }

    /// Stores a value, as SQL has it, where the column that was added last is null.
    pub fn or(&mut self, value: &'static str) {
        if let Some(column) = self.columns.0.last_mut() {
            column.or = Some(value);
        }
    }

    pub fn into_columns(self) -> Columns {
        self.columns
    }
}

impl Columns {
    /// `a, b, c`: the columns to insert into.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|column| column.name).collect();
        names.join(", ")
    }

    /// `a, b::json, c`: what is inserted.
    pub fn values(&self) -> String {
        let values: Vec<String> = self.0.iter().map(Column::value).collect();
        values.join(", ")
    }

    /// `unnest($1::text[], $2::int8[]) as e(a, b)`: the rows as a table.
    pub fn table(&self, alias: &str) -> String {
        let arrays: Vec<String> = self.0.iter().map(Column::array).collect();
        format!("unnest({}) as {alias}({})", arrays.join(", "), self.names())
    }

    /// The array that a column travels as, to be used again without sending it again. A name that is no
    /// column stays as it is, which the statement refuses.
    pub fn array(&self, name: &str) -> String {
        let column = self.0.iter().find(|column| column.name == name);
        column.map_or_else(|| name.to_owned(), Column::array)
    }

    /// `insert into … select … from unnest(…)`.
    pub fn insert_into(&self, table: &str) -> String {
        format!(
            "insert into {table} ({}) select {} from {}",
            self.names(),
            self.values(),
            self.table("r")
        )
    }
}

impl Column {
    fn array(&self) -> String {
        format!("{}::{}[]", self.array, self.kind)
    }

    fn value(&self) -> String {
        match (self.stored_as, self.or) {
            (Some(kind), _) => format!("{}::{kind}", self.name),
            (None, Some(value)) => format!("coalesce({}, {value})", self.name),
            (None, None) => self.name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_numbered_in_the_order_in_which_they_are_bound() {
        let mut parameters = Parameters::default();
        assert_eq!(parameters.value("t").unwrap().to_string(), "$1");
        let rows = [("a", 1_i64), ("b", 2)];
        let mut e = Rows::new(&rows);
        e.column(&mut parameters, ("id", "text"), |row| row.0).unwrap();
        e.column(&mut parameters, ("payload", "text"), |row| row.0).unwrap().stored_as("json");
        e.column(&mut parameters, ("version", "int8"), |row| row.1).unwrap();
        let e = e.into_columns();
        assert_eq!(
            e.insert_into("events"),
            "insert into events (id, payload, version) select id, payload::json, version \
             from unnest($2::text[], $3::text[], $4::int8[]) as r(id, payload, version)"
        );
        assert_eq!((&*e.array("version"), &*e.array("nothing")), ("$4::int8[]", "nothing"));
        assert_eq!(parameters.value(7_i64).unwrap().to_string(), "$5");
        assert_eq!(parameters.into_arguments().len(), 5);
    }
}
