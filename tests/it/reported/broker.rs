//! The breaker, hints, groups and republications, against real and fake brokers.

mod breaker;
mod fake;
mod groups;
mod hints;
mod republished;
