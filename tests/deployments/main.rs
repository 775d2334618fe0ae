//! Versions of a flow beside each other, of which one is live: promoted, rolled back, retired, killed; every row that readers see is compared with a
//! plain program's.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod crashes;
mod failed;
mod queries;
mod support;
mod switches;
mod upserts;
mod verify;
