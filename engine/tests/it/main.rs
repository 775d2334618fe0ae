//! The engine on threads, over small sources and sinks.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ends;
mod jobs;
mod limits;
mod metrics;
mod patterns;
mod simulations;
mod support;
mod troubles;
mod unions;
