//! Rows that travel with a statement as arrays, one for each column. The builder numbers parameters
//! itself: a column is declared once, with its name, its type and where its value comes from.

use std::fmt::Write as _;

use sqlx::postgres::{PgArguments, PgHasArrayType};
use sqlx::{Arguments as _, Encode, Postgres, Type};

use crate::store::{Error, Result};

/// The parameters of one statement, in the order in which they are bound.
#[derive(Default)]
pub(super) struct Parameters {
    arguments: PgArguments,
    count: usize,
}

/// Some columns of `rows`, as a statement names them.
pub(super) struct Rows<'r, R> {
    rows: &'r [R],
    columns: Vec<Column>,
}

struct Column {
    name: &'static str,
    /// `$7::text[]`
    array: String,
    /// What is selected of it: its name, with a cast where it travels as another type.
    value: String,
}

impl Parameters {
    /// A single value; answers with its placeholder.
    pub fn value<'q, T>(&mut self, value: T) -> Result<String>
    where
        T: 'q + Encode<'q, Postgres> + Type<Postgres>,
    {
        self.arguments.add(value).map_err(Error::corrupt)?;
        self.count += 1;
        Ok(format!("${}", self.count))
    }

    pub fn into_arguments(self) -> PgArguments {
        self.arguments
    }
}

impl<'r, R> Rows<'r, R> {
    pub fn new(rows: &'r [R]) -> Self {
        Self { rows, columns: Vec::new() }
    }

    /// Adds a column of an SQL type.
    pub fn column<T>(
        &mut self,
        parameters: &mut Parameters,
        (name, kind): (&'static str, &str),
        of: impl Fn(&'r R) -> T,
    ) -> Result<&mut Self>
    where
        T: Encode<'r, Postgres> + Type<Postgres> + PgHasArrayType + 'r,
    {
        let values: Vec<T> = self.rows.iter().map(of).collect();
        let array = format!("{}::{kind}[]", parameters.value(values)?);
        self.columns.push(Column { name, array, value: name.to_owned() });
        Ok(self)
    }

    /// Casts the column that was added last: it travels as text and is stored as `kind`.
    pub fn stored_as(&mut self, kind: &str) -> &mut Self {
        if let Some(column) = self.columns.last_mut() {
            let _ = write!(column.value, "::{kind}");
        }
        self
    }

    /// `a, b, c`: the columns to insert into.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        names.join(", ")
    }

    /// `a, b::json, c`: what is inserted.
    pub fn values(&self) -> String {
        let values: Vec<&str> = self.columns.iter().map(|column| column.value.as_str()).collect();
        values.join(", ")
    }

    /// `unnest($1::text[], $2::int8[]) as e(a, b)`: the rows as a table.
    pub fn table(&self, alias: &str) -> String {
        let arrays: Vec<&str> = self.columns.iter().map(|column| column.array.as_str()).collect();
        format!("unnest({}) as {alias}({})", arrays.join(", "), self.names())
    }

    /// The array that a column travels as, to be used again without sending it again. A name that is no
    /// column stays as it is, which the statement refuses.
    pub fn array<'n>(&'n self, name: &'n str) -> &'n str {
        let column = self.columns.iter().find(|column| column.name == name);
        column.map_or(name, |column| column.array.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_numbered_in_the_order_in_which_they_are_bound() {
        let mut parameters = Parameters::default();
        assert_eq!(parameters.value("t").unwrap(), "$1");
        let rows = [("a", 1_i64), ("b", 2)];
        let mut e = Rows::new(&rows);
        e.column(&mut parameters, ("id", "text"), |row| row.0).unwrap();
        e.column(&mut parameters, ("payload", "text"), |row| row.0).unwrap().stored_as("json");
        e.column(&mut parameters, ("version", "int8"), |row| row.1).unwrap();
        assert_eq!(
            e.insert_into("events"),
            "insert into events (id, payload, version) select id, payload::json, version \
             from unnest($2::text[], $3::text[], $4::int8[]) as r(id, payload, version)"
        );
        assert_eq!((e.array("version"), e.array("nothing")), ("$4::int8[]", "nothing"));
        assert_eq!(parameters.value(7_i64).unwrap(), "$5");
        assert_eq!(parameters.into_arguments().len(), 5);
    }
}
