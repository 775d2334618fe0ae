//! Tests of the log through its public interface.
#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod damage;
mod durability;
mod processes;
mod support;
mod tailing;
mod transactions;
mod upkeep;
