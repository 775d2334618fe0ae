//! How a command ends: the exit codes, and errors as people read them.

use rivermark_operators::BoxError;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// What a command's exit code says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was done, and nothing was found wrong.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// It was asked for in a way that makes no sense; nothing was done.
    Usage = 2,
    /// A verification found damage, or a comparison a difference.
    Found = 3,
    /// Another process holds the data directory.
    Busy = 4,
    /// What was named is not there: a directory, topic, flow, version, checkpoint, state or key.
    Missing = 5,
    /// The running pipeline refused, as things are now.
    Refused = 6,
    /// There is no running pipeline, or it could not be reached.
    Unreachable = 7,
}

/// The table that `--help` ends with.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  done
  1  failed
  2  usage: the command line makes no sense
  3  a verification found damage, or a comparison a difference
  4  another process holds the data directory
  5  what was named is not there
  6  the running pipeline refused, as things are now
  7  there is no running pipeline, or it cannot be reached";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command was not done: what was attempted, why it was not possible, what to do.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The sentence for people; empty if there is nothing to say.
    pub message: String,
}

/// A result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub(crate) fn missing(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Missing, message)
    }

    /// An ordinary failure of something that was attempted.
    pub(crate) fn of(attempt: impl fmt::Display, problem: impl fmt::Display) -> Failure {
        Failure::new(Exit::Failed, format!("{attempt}: {problem}"))
    }

    /// Whoever read the output has gone away: nobody is left to be told.
    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<rivermark_operators::Error> for Failure {
    fn from(error: rivermark_operators::Error) -> Failure {
        Failure::new(Exit::Failed, error.to_string())
    }
}

impl From<rivermark_log::Error> for Failure {
    fn from(error: rivermark_log::Error) -> Failure {
        use rivermark_log::Error;
        let exit = match &error {
            Error::Locked { .. } => Exit::Busy,
            Error::UnknownTopic { .. } | Error::UnknownPartition { .. } | Error::OffsetOutOfRange { .. } => {
                Exit::Missing
            }
            Error::Corrupt { .. } | Error::BadFile { .. } => Exit::Found,
            _ => Exit::Failed,
        };
        Failure::new(exit, error.to_string())
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Failure {
        Failure::new(Exit::Failed, error.to_string())
    }
}

/// Of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(Exit::Done, "");
        }
        Failure::of("writing to standard output", error)
    }
}
