//! The breaker, hints, groups and republications, against real and fake brokers.

mod breaker;
mod groups;
mod republished;
