//! The commands that need no code of a pipeline.

pub(crate) mod append;
pub(crate) mod checkpoint;
pub(crate) mod compare;
pub(crate) mod deploy;
pub(crate) mod log;
pub(crate) mod place;
pub(crate) mod savepoint;
pub(crate) mod state;
pub(crate) mod tail;

use crate::exit::Result;
use clap::Subcommand;
use place::Place;

/// The commands that need no code of a pipeline.
#[derive(Debug, Subcommand)]
pub(crate) enum Inspect {
    /// Topics of the log and their records
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Checkpoints: which there are, what they consist of, whether they are whole
    #[command(subcommand)]
    Checkpoint(checkpoint::CheckpointCommand),
    /// Keyed state in a checkpoint or savepoint
    #[command(subcommand)]
    State(state::StateCommand),
}

impl Inspect {
    pub(crate) fn run(self, place: &mut Place) -> Result<()> {
        match self {
            Inspect::Log(command) => command.run(place),
            Inspect::Checkpoint(command) => command.run(place),
            Inspect::State(command) => command.run(place),
        }
    }
}

/// Prints the script that completes a command line in a shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Completions {
    pub(crate) fn run(&self, mut command: clap::Command, place: &mut Place) -> Result<()> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        place.output.text(&String::from_utf8_lossy(&script))?;
        place.output.flush()
    }
}
