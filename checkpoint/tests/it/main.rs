//! The tests of `rivermark-checkpoint`, in one binary.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod aligner;
mod conformance;
mod coordinator;
mod driver;
mod entry;
mod explore;
mod faults;
mod restore;
mod retention;
mod savepoints;
