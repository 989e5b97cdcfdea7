//! Getting in: every kind of listener works, every wrong credential, authority or host is named
//! within the connection timeout, and no secret is ever shown.

pub mod broker;
mod canaries;
mod kinds;
mod verify;
mod wrong;
