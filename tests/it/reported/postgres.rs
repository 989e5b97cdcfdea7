//! Postgres as it is met in the field: managed, pooled, read-only, reconnecting.
