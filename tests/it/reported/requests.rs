//! Requests and commands with several operations: one key, one fingerprint, one effect.
