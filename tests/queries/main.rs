//! Queries of running jobs through the public API: what they see is the state at one stored epoch, of all operators and workers.
#![expect(clippy::unwrap_used, reason = "tests")]

mod consistency;
mod latest;
mod questions;
mod support;
