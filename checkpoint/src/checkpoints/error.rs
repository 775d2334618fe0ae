//! What can go wrong with a flow's checkpoints.

use std::io;
use std::path::PathBuf;

use super::FlowId;
use crate::history::Damage;
use crate::store::StoreError;
use crate::{Digest, Epoch, Generation};

/// What can go wrong with a flow's checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No generation could be claimed.
    #[error("cannot claim a generation of flow `{flow}`: {reason}")]
    Fence {
        /// The flow's name.
        flow: String,
        /// What the store said.
        reason: String,
    },
    /// Another process runs the flow now.
    #[error("generation {generation} of flow `{flow}` is fenced: another process runs it now")]
    Fenced {
        /// The flow's name.
        flow: String,
        /// The generation that has lost.
        generation: Generation,
    },
    /// The name cannot be part of an object's name.
    #[error(
        "`{name}` cannot name a flow: use ASCII letters, digits, `-`, `_` and `.`, not beginning with a dot"
    )]
    FlowName {
        /// The name.
        name: String,
    },
    /// The newest checkpoint cannot be read.
    #[error(
        "checkpoint entry `{object}` is damaged: {damage}; \
         restore it from a copy, or ask for an older checkpoint (`RestoreFrom::LatestValid` or `RestoreFrom::Epoch`)"
    )]
    Damaged {
        /// The entry.
        object: String,
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
    /// A checkpoint of some other flow lies where this one's should.
    #[error("`{object}` is a checkpoint of flow `{found}`, version {version}, not of `{}`, version {}", flow.name, flow.version)]
    OtherFlow {
        /// The entry.
        object: String,
        /// The flow found.
        found: String,
        /// Its version.
        version: u64,
        /// The flow wanted.
        flow: FlowId,
    },
    /// There is no intact checkpoint of that epoch.
    #[error(
        "flow `{flow}` has no intact checkpoint of epoch {epoch}; `Checkpoints::list` names those it has"
    )]
    NoSuchEpoch {
        /// The flow's name.
        flow: String,
        /// The epoch wanted.
        epoch: Epoch,
    },
    /// That a recovery continues from an older checkpoint could not be written down.
    #[error("cannot record the return of flow `{flow}` to epoch {epoch}: {reason}")]
    Rewind {
        /// The flow's name.
        flow: String,
        /// The epoch.
        epoch: Epoch,
        /// What the store said.
        reason: String,
    },
    /// The store does not have a state file that a manifest names.
    #[error("state file `{file}` is missing from the checkpoint store: there is no object `{object}`")]
    MissingFile {
        /// The operator's name for it.
        file: String,
        /// The object.
        object: String,
    },
    /// A state file is not what was stored.
    #[error(transparent)]
    Corrupt(Box<Corruption>),
    /// A local file could not be used.
    #[error("cannot {attempt} state file {}: {reason}", path.display())]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        reason: io::Error,
    },
}

/// A state file that is not what was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "state file `{file}` (object `{object}`) is damaged: expected SHA-256 {expected} of {expected_bytes} bytes, \
     found {found} of {found_bytes} bytes"
)]
pub struct Corruption {
    /// The operator's name for it.
    pub file: String,
    /// The object.
    pub object: String,
    /// The digest that the manifest states.
    pub expected: Digest,
    /// The size that the manifest states.
    pub expected_bytes: u64,
    /// The digest found.
    pub found: Digest,
    /// The size found.
    pub found_bytes: u64,
}
