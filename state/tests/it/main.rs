//! Tests of keyed state through its public API.
#![allow(clippy::unwrap_used, reason = "tests")]

mod backend;
mod budget;
mod evolution;
mod expiring;
mod failures;
mod model;
mod rest;
mod snapshots;
mod stores;
mod view;
mod waiting;
