//! Queries of a running job: its state at an epoch, read beside the workers and without them.
//!
//! 1. When a checkpoint is stored, its manifest is put on the job's *board*. That is all that a job does for queries as long as nobody asks.
//! 2. The first query starts the *reader*, a thread of the job. Of the newest manifest it makes a [`View`]: for each operator the rows of its
//!    base and deltas, by [`rivermark_state::view`]. From then on it makes one of each epoch, from the one before it and the files that are new.
//! 3. A view becomes visible as a whole, by the exchange of one pointer: all operators and all workers at once, and only what is stored. So it
//!    is what the sinks show at that epoch, and never a state that a failure takes back.
//! 4. When nobody has asked for a while the reader lets go of the view, and rests until somebody does.
//! 5. Whoever queries holds a view for as long as it likes: files it needs are linked or in memory. No worker knows of it.
//!
//! What is newer than any stored epoch is asked of the worker that owns the key ([`LatestQuery`]): it answers between two batches.
//!
//! What asks for the version of a flow that is live is led from one job's views to another's by [`LiveVersion`].
//!
//! Files are collected when no retained checkpoint names them. While the reader is at work on one that is about to go, nothing is
//! collected ([`Board::may_collect`]); the next collection takes what was left.

mod asking;
mod board;
mod latest;
mod live;
mod query;
mod reader;
mod view;

pub use self::asking::Queries;
pub(crate) use self::board::Board;
pub use self::latest::LatestQuery;
pub(crate) use self::live::LiveVersion;
pub use self::query::{Query, WindowQuery};
pub(crate) use self::reader::JobQueries;
pub use self::view::{PartitionOffset, View};
