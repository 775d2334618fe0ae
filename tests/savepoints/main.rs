//! Savepoints over the whole engine: what they keep, where they can be carried, and how they are read and edited offline.
#![expect(clippy::unwrap_used, reason = "tests")]

mod at_rest;
mod crashes;
mod evolution;
mod expiring;
mod golden;
mod golden_journals;
mod running;
mod support;
