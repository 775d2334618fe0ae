//! The checkpoint protocol of Rivermark: coordinator, aligner, manifest and store.
//!
//! Exactly-once is one sentence: *an epoch is committed only after it is stored, and a stored epoch is never
//! aborted.* Everything here serves it.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`coordinator`] | what happens next: a pure function of state, time and event |
//! | [`aligner`] | which input channels of an operator wait for a barrier |
//! | [`manifest`] | what a checkpoint is, in bytes |
//! | [`history`] | how an epoch becomes *stored*, and how a generation is fenced, with put-if-absent alone |
//! | [`store`] | the object store: a directory, memory, and a faulty one for tests |
//! | [`files`] | state files: content-addressed, uploaded once, verified at restore |
//! | [`retention`] | which checkpoints and files may go |
//! | [`savepoint`] | checkpoints that somebody has named: kept, self-contained, portable |
//! | [`checkpoints`] | the blocking handle that puts these together for the engine's driver |
//!
//! The crate knows nothing of streams, starts no thread and reads no clock: time, identity and randomness are handed
//! in, so that a deterministic simulation drives the very code that runs in production.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod aligner;
pub mod checkpoints;
pub mod coordinator;
mod epoch;
pub mod files;
pub mod history;
pub mod manifest;
pub mod retention;
pub mod savepoint;
pub mod store;

pub use aligner::{Aligner, Alignment};
pub use checkpoints::{Checkpoints, Error, Fetch, FlowId, Recovered, RestoreFrom, Source, Summary, Writer};
pub use coordinator::{Action, BarrierKind, Coordinator, Event, Failure, Job, Options, Outcome, StoreReply};
pub use epoch::{Epoch, Generation, TaskId};
pub use files::{Digest, FileRef};
pub use manifest::{
    Blob, FileRole, JournalState, KeyGroups, Manifest, OperatorPart, PartitionState, Parts, Prepared,
    SourcePart, StateFile, Stop, StopAt, TaskState,
};
pub use savepoint::{Filling, Place, Savepoint, SavepointError};
pub use store::{Certainty, Put, Store, StoreError};
