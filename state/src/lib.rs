//! Keyed state of Rivermark: typed tables in memory over an ordered byte store, timers and key groups.
//!
//! It knows nothing of streams. One [`KeyedStore`] belongs to one task (one operator on one worker), which owns
//! the keys of a [`KeyGroupRange`].
//!
//! 1. A record's key is hashed once ([`hash_key`]) and the hash is carried along; its high half names the key
//!    group, hence the worker, its low half the bucket of the table.
//! 2. A table ([`ValueTable`], [`WindowTable`], [`MapTable`], [`ListTable`], [`WaitingTable`], [`Timers`]) is a hash table of typed
//!    entries: a record costs one look-up and no encoding.
//! 3. When the [`MemoryBudget`] is exhausted, entries that were not used lately are encoded and written to the
//!    [`Backend`] in sorted batches, and read back when asked for.
//! 4. At a barrier [`KeyedStore::snapshot`] encodes what changed since the last one into a *delta* file. A snapshot is a
//!    *base* (a checkpoint of the backend) and the deltas since. See [`snapshot`] for why that is right.
//! 5. [`KeyedStore::open`] restores from the files of one task, or takes its key groups out of those of several.
//!
//! The hot tier follows Flink's heap state with incremental snapshots, the cold one its RocksDB state, and the split
//! between both is FASTER's hybrid log in spirit: mutable in memory, immutable below.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod backend;
mod budget;
mod codec;
mod delta;
pub mod described;
mod error;
mod expire;
mod handle;
mod hash;
mod key;
mod latest;
mod limits;
mod migrate;
pub mod rest;
mod schema;
mod scope;
pub mod snapshot;
mod store;
mod table;
pub mod view;

#[cfg(feature = "rocksdb")]
pub use backend::rocks::{RocksBackend, RocksBackends, RocksOptions};
pub use backend::{Backend, Backends, Batch, Frozen, Visit, memory::MemoryBackend, memory::MemoryBackends};
pub use budget::MemoryBudget;
pub use codec::{CodecError, StateValue, decode, encode_into};
pub use described::Types;
pub use error::{Result, StateError};
pub use expire::{DeadlineOf, Expired, Expiring, Expiry, Timed, Ttl};
pub use handle::{List, Map, Reducing, StateKind, Value};
pub use hash::{StableHasher, hash_key};
pub use key::{DEFAULT_KEY_GROUPS, Key, KeyArg, KeyGroup, KeyGroupRange, key_group, range_of, worker_of};
pub use latest::{Latest, Mailbox};
pub use limits::Limits;
pub use migrate::Migrations;
pub use rest::{AtRest, DescribedEntry, Entries, StateImage, Written};
pub use snapshot::{
    FileRole, HeldFile, RestoreFile, RestorePart, RestoreSource, SharedBytes, Snapshot, SnapshotFile,
    SnapshotSource, StateDescription, is_native, states_of,
};
pub use store::{
    ExpiringListTable, ExpiringMapTable, ExpiringValueTable, Finding, KeyedStore, Rehearsal, StoreSpec,
    TableId, Verdict, WARM_CHUNK,
};
pub use table::list::ListTable;
pub use table::live::Access;
pub use table::map::MapTable;
pub use table::timers::Timers;
pub use table::value::ValueTable;
pub use table::waiting::{Waiter, WaitingTable};
pub use table::window::{Namespace, WindowTable};
pub use view::{PartFiles, Queried, StateView, ViewFile};
