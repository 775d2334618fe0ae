//! The command line of Rivermark.
//!
//! The binary `rivermark` looks at data directories without any code of theirs: the log, checkpoints, state, deployments. A pipeline's own binary
//! gets the same commands, and `run`, `deploy` and `savepoint`, with one line: see [`Pipeline`].
//!
//! | module | what lives there |
//! | --- | --- |
//! | `inspect` | the commands that need no code of a pipeline |
//! | `pipeline` | [`Pipeline`]: the commands of a pipeline's own binary |
//! | `remote` | the running pipeline, over HTTP |
//! | `exit` | [`Exit`]: exit codes, and errors as people read them |
//! | `output` | tables for people, JSON for programs |
//! | `nearest` | what somebody may have meant |
//! | `when` | times and durations as people type them |
//!
//! 1. Arguments are parsed into a command.
//! 2. Commands that look take no lock: they work beside a running pipeline ([`DataDirectory`](rivermark_engine::DataDirectory)). Commands that change
//!    something take the lock of the data directory, or ask the process that has it, over HTTP.
//! 3. What is printed for people is a table, what is printed for programs (`--json`) one document. Errors go to standard error, in the form
//!    `rivermark: what was attempted: why; what to do`.
//!
//! `docs/command-line.md` has all commands with their output.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod exit;
mod inspect;
mod nearest;
mod output;
mod pipeline;
mod remote;
mod when;

pub use exit::{Exit, Failure};
pub use pipeline::{Pipeline, Running, Serving};

use clap::{CommandFactory, Parser, Subcommand};
use inspect::deploy::DeployCommand;
use inspect::place::{Common, DEFAULT, Place};
use inspect::savepoint::SavepointCommand;
use inspect::{Completions, Inspect};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Looks at the data directories of Rivermark pipelines, also while they run.
#[derive(Debug, Parser)]
#[command(name = "rivermark", version, after_help = exit::TABLE)]
struct Inspector {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: InspectorCommand,
}

#[derive(Debug, Subcommand)]
enum InspectorCommand {
    #[command(flatten)]
    Inspect(Inspect),
    /// Versions of flows that are deployed
    #[command(subcommand)]
    Deploy(DeployCommand),
    /// Savepoints
    #[command(subcommand)]
    Savepoint(SavepointCommand),
    /// Prints the script that completes command lines in a shell
    Completions(Completions),
}

/// The binary `rivermark`: does what the arguments say, and answers the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let inspector = match Inspector::try_parse_from(arguments) {
        Ok(inspector) => inspector,
        Err(error) => return refused(&error),
    };
    let mut place = Place::of(&inspector.common, DEFAULT.into(), None, inspect::state::own_types());
    let done = match inspector.command {
        InspectorCommand::Inspect(command) => command.run(&mut place),
        InspectorCommand::Deploy(command) => command.run(&mut place),
        InspectorCommand::Savepoint(command) => command.run(&mut place),
        InspectorCommand::Completions(command) => command.run(Inspector::command(), &mut place),
    };
    drop(place);
    ended("rivermark", done)
}

/// What a command line that cannot be parsed, or asks for help, ends with.
fn refused(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told if this fails.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}

/// Tells how a command has ended.
fn ended(program: &str, done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            if !failure.is_silent() {
                // Nobody is left to be told if this fails.
                let _ = writeln!(std::io::stderr(), "{program}: {failure}");
            }
            failure.exit.into()
        }
    }
}
