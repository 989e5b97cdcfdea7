//! The projections and the check of the books, over a real PostgreSQL and without a service.

pub mod books;
mod feeds;
mod postings;
mod reads;
mod reconcile;
mod third;
mod together;
mod versions;
