//! What can go wrong, and where.

use crate::batch::Origin;
use crate::time::Timestamp;
use std::any::Any;
use std::fmt;

/// Any error that a user's function, a connector or a format returns.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the engine's own functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which record a user's function was given when it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// The operator's name in the flow.
    pub operator: String,
    /// The record's place, by index into the job's partitions.
    pub origin: Origin,
    /// The record's event time.
    pub time: Timestamp,
    /// Topic or file and partition in the source's own words, once the job has looked them up.
    pub partition: Option<String>,
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operator `{}`", self.operator)?;
        match (&self.partition, self.origin.partition(), self.origin.offset()) {
            (Some(name), _, Some(offset)) => write!(f, ", record {name} offset {offset}"),
            (None, Some(partition), Some(offset)) => {
                write!(f, ", source partition #{partition} offset {offset}")
            }
            _ => Ok(()),
        }?;
        if self.time != Timestamp::MIN { write!(f, ", event time {}", self.time) } else { Ok(()) }
    }
}

/// An error of a flow, its connectors or the engine that runs it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The flow as described cannot run; nothing was started.
    #[error("flow `{flow}`: {problem}")]
    Flow {
        /// The flow's name.
        flow: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A user's function returned an error. The record was not processed and no later one was.
    #[error("{blame}: {source}")]
    Function {
        /// Which operator, on which record.
        blame: Box<Blame>,
        /// What the function said.
        source: BoxError,
    },
    /// A user's function panicked. The record was not processed and no later one was.
    #[error("{blame}: panicked: {message}")]
    Panic {
        /// Which operator, on which record.
        blame: Box<Blame>,
        /// What the panic said.
        message: String,
    },
    /// A source could not be read.
    #[error("source `{source_name}`: {attempt}: {source}")]
    Source {
        /// The source's name in the flow.
        source_name: String,
        /// What was attempted, on which partition.
        attempt: String,
        /// Why it failed.
        source: BoxError,
    },
    /// A sink could not be written or committed.
    #[error("sink `{sink}`: {attempt}: {source}")]
    Sink {
        /// The sink's name in the flow.
        sink: String,
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: BoxError,
    },
    /// Keyed state could not be read or written.
    #[error("operator `{operator}`: {attempt}: {source}")]
    State {
        /// The operator whose state it is.
        operator: String,
        /// What was attempted.
        attempt: String,
        /// Why it failed.
        source: BoxError,
    },
    /// The engine itself could not do something: open a directory, start a thread, store a checkpoint.
    #[error("{attempt}: {source}")]
    Engine {
        /// What was attempted, on what.
        attempt: String,
        /// Why it failed.
        source: BoxError,
    },
}

impl Error {
    /// An engine error: what was attempted, and why it failed.
    pub fn engine(attempt: impl Into<String>, source: impl Into<BoxError>) -> Error {
        Error::Engine { attempt: attempt.into(), source: source.into() }
    }

    /// A state error of one operator.
    pub fn state(operator: &str, attempt: impl Into<String>, source: impl Into<BoxError>) -> Error {
        Error::State { operator: operator.into(), attempt: attempt.into(), source: source.into() }
    }

    /// A source error.
    pub fn source(source_name: &str, attempt: impl Into<String>, source: impl Into<BoxError>) -> Error {
        Error::Source { source_name: source_name.into(), attempt: attempt.into(), source: source.into() }
    }

    /// A sink error.
    pub fn sink(sink: &str, attempt: impl Into<String>, source: impl Into<BoxError>) -> Error {
        Error::Sink { sink: sink.into(), attempt: attempt.into(), source: source.into() }
    }
}

/// What a panic said, if that is text: what [`std::panic::catch_unwind`] caught.
pub fn panic_message(panic: &(dyn Any + Send)) -> Option<&str> {
    let message = panic.downcast_ref::<&str>().copied();
    message.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
}
