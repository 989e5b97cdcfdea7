//! Settings, command lines and compose files as their users write them.
