//! The whole engine, through the facade alone, over a year of real flights: every result is compared with answers that were computed
//! elsewhere (`examples/data/README.md` says how).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../examples/flights/mod.rs"]
mod flights;
#[path = "../common/sips.rs"]
mod sips;

mod deaths;
mod delays;
mod errors;
mod joins;
mod kill;
mod rescale;
mod sessions;
mod setup;
mod simulated;
