//! The Nexmark benchmark on Rivermark.
//!
//! An auction house has persons, auctions and bids; sixteen queries ask what happens there. `SPEC.md` says what the events are, to the last byte,
//! and what the answers are, to the last row; `ANSWERS` has their digests, so that any engine's answers can be checked.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`generator`], [`event`], [`inline`] | the events |
//! | [`queries`] | each query as a flow, one file a query, as a user would write it |
//! | [`floor`] | each query as a loop by hand |
//! | [`answer`], [`sink`] | rows and their digests |
//! | [`source`], [`codec`] | where the engine reads the events from: the generator, or the embedded log |
//! | [`run`], [`compare`] | one run and what is measured; every query beside its floor |
//! | [`latency`] | how long a result takes, at a rate |
//! | [`scale`] | what becomes of a query when its state outgrows memory |

pub mod answer;
pub mod codec;
pub mod compare;
pub mod event;
pub mod floor;
pub mod generator;
pub mod inline;
pub mod latency;
pub mod queries;
pub mod run;
pub mod scale;
pub mod sink;
pub mod source;
