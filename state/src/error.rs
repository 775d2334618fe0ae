//! What can go wrong, with what was attempted and on what.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::codec::CodecError;
use crate::handle::StateKind;

/// The result of an operation on state.
pub type Result<T, E = StateError> = std::result::Result<T, E>;

/// An operation on keyed state failed.
#[derive(Debug, Error)]
pub enum StateError {
    /// A key or value does not encode, or what is stored does not decode as the type that the program now uses.
    #[error(
        "operator {operator}, state {state} ({schema}): {source}; was the type changed since the snapshot?"
    )]
    Codec {
        /// The operator's uid.
        operator: Arc<str>,
        /// The state's name.
        state: Arc<str>,
        /// The types the program uses.
        schema: String,
        /// What the codec said.
        #[source]
        source: CodecError,
    },
    /// The backend could not read or write.
    #[error("cannot {attempted} in the state backend at {place}: {reason}")]
    Backend {
        /// What was attempted.
        attempted: &'static str,
        /// Directory or name of the backend.
        place: String,
        /// What it said.
        reason: String,
    },
    /// A snapshot's file is damaged.
    #[error(
        "snapshot file {file} is damaged at byte {position}: {reason}; fetch it again or restore an older checkpoint"
    )]
    Corrupt {
        /// The file's name.
        file: String,
        /// Where, in bytes from its start.
        position: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A file that a snapshot needs was not handed in.
    #[error("operator {operator}: the snapshot names file {file}, which was not handed in")]
    MissingFile {
        /// The operator's uid.
        operator: Arc<str>,
        /// The file's name.
        file: String,
    },
    /// Something about files failed.
    #[error("cannot {attempted} {path}: {source}")]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The name is used with another kind or other types than before.
    #[error(
        "operator {operator}, state {state}: it is {found_kind} of {found_schema}, but the program opens it as {kind} of {schema}; \
         use another name, or count its version on and give a migration"
    )]
    Schema {
        /// The operator's uid.
        operator: Arc<str>,
        /// The state's name.
        state: Arc<str>,
        /// The kind asked for.
        kind: StateKind,
        /// The types asked for.
        schema: String,
        /// The kind it has.
        found_kind: StateKind,
        /// The types it has.
        found_schema: String,
    },
    /// The state was stored under another version of its schema, and nothing leads from there to the version that the program has.
    #[error(
        "operator {operator}, state {state}: it is stored as version {found}, and the program has version {version}: {problem}"
    )]
    Version {
        /// The operator's uid.
        operator: Arc<str>,
        /// The state's name.
        state: Arc<str>,
        /// The version that the program has.
        version: u32,
        /// The version that is stored.
        found: u32,
        /// What is missing or wrong, and what to do.
        problem: String,
    },
    /// States are stored that the program does not have any more.
    #[error(
        "operator {operator}: its state holds {states}, which the program does not declare; declare them, or drop each by name with \
         `flow.drop_state(\"{operator}\", ..)`"
    )]
    Gone {
        /// The operator's uid.
        operator: Arc<str>,
        /// Their names.
        states: String,
    },
    /// A state is opened after the start that was not declared then.
    #[error(
        "operator {operator}, state {state}: it is used and was not declared; name it in the function's `states`, where its version is \
         checked before any record is processed"
    )]
    Undeclared {
        /// The operator's uid.
        operator: Arc<str>,
        /// The state's name.
        state: Arc<str>,
    },
    /// A state has a time to live where no time passes.
    #[error(
        "operator {operator}, state {state}: it has a time to live, but the stream tells no time; call `.event_time(..)` or \
         `.processing_time(..)` on the stream before `.key_by(..)`"
    )]
    Timeless {
        /// The operator's uid.
        operator: Arc<str>,
        /// The state's name.
        state: Arc<str>,
    },
    /// The rows are laid out otherwise than the program expects.
    #[error(
        "operator {operator}: its state is of {found}, but the program has {layout}; \
         raise the flow's version to compute everything anew, or give the operator another name to begin with no state"
    )]
    Layout {
        /// The operator's uid.
        operator: Arc<str>,
        /// What the program declares.
        layout: String,
        /// What the state was declared to be.
        found: String,
    },
    /// A snapshot does not have a state that is asked for.
    #[error("operator {operator}: the snapshot has no state {state}{}", having(existing))]
    NoSuchState {
        /// The operator's uid.
        operator: Arc<str>,
        /// Kind and name of what was asked for.
        state: String,
        /// Kind, name and types of those that there are.
        existing: Vec<String>,
    },
    /// The snapshots do not fit the store that should be restored from them.
    #[error("operator {operator}: cannot restore: {reason}")]
    Mismatch {
        /// The operator's uid.
        operator: Arc<str>,
        /// What does not fit.
        reason: String,
    },
}

fn having(existing: &[String]) -> String {
    match existing {
        [] => "; it has none".to_owned(),
        existing => format!("; it has {}", existing.join(", ")),
    }
}
