//! Records that are no events, wallets that cannot be projected, topics that are made anew: each
//! holds up nobody else, nothing is lost, and an operator can mend it.

mod parked;
mod poison;
mod recreated;
mod replay;
pub mod wire;
