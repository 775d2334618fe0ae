//! Operators as a worker builds them, without an engine.
#![allow(clippy::unwrap_used, reason = "tests")]

mod budget;
