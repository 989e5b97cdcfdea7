//! The breaker, hints, groups and republications, against real and fake brokers.
