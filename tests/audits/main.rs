//! Audits: what was published is proven to be what the log implies, through everything that may happen to a job; and what was tampered with is found.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod explain;
mod identical;
mod redrive;
mod support;
mod tampered;
