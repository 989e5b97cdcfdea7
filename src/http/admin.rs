//! The routes of operators, below `/admin`: what the commands do.

pub mod dead_letters;
