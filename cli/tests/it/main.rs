//! The binary against data directories that pipelines have used, or use at the moment.
#![allow(clippy::unwrap_used, reason = "tests")]

mod checkpoints;
mod deployments;
mod http;
mod log;
mod running;
mod state;
mod support;
mod usage;
mod words;
