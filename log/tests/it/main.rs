//! Tests of the log through its public interface.
#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod support;
mod transactions;
mod upkeep;
