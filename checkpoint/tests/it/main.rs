//! The tests of `rivermark-checkpoint`, in one binary.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod coordinator;
mod driver;
mod explore;
