//! Every connector keeps to the conformance suites; what is particular to one is tested beside.
#![allow(clippy::unwrap_used, reason = "tests")]

mod files;
mod log;
mod memory;
