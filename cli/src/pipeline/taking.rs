//! `savepoint NAME`: a savepoint of a pipeline that does not run at the moment.
//!
//! What the newest checkpoint has prepared may not be committed yet, and only the flow's sinks can tell. So the live version is started, reads
//! nothing, and stops behind the savepoint.

use super::Pipeline;
use crate::exit::{Failure, Result};
use crate::inspect::place::Place;
use crate::inspect::savepoint::{SavepointCommand, document};
use crate::output::bytes;
use clap::Args;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SavepointArguments {
    #[command(subcommand)]
    command: Option<SavepointCommand>,
    /// The name of the savepoint that is taken
    name: Option<String>,
}

impl Pipeline {
    pub(super) fn savepoint(&self, arguments: SavepointArguments, place: &mut Place) -> Result<()> {
        match (arguments.command, arguments.name) {
            (Some(command), _) => command.run(place),
            (None, Some(name)) => self.take(&name, place),
            (None, None) => Err(Failure::usage("taking a savepoint: say its name; or `savepoint list`")),
        }
    }

    fn take(&self, name: &str, place: &mut Place) -> Result<()> {
        let attempt = format!("taking savepoint `{name}`");
        self.check(&attempt)?;
        // An engine would make what is not there.
        place.directory()?;
        let advice = "stop it, take the savepoint, and start it again: it goes on where it was";
        let engine = self.open(&attempt, advice, place)?;
        let flow = self.live_flow(&attempt, &engine)?;
        let job = engine.start(flow)?;
        job.pause();
        let savepoint = job.stop_with_savepoint(name)?;
        if place.output.is_json() {
            return place.output.document(&document(&savepoint));
        }
        let (version, epoch) = (savepoint.version(), savepoint.epoch());
        let size = bytes(savepoint.state_bytes());
        place
            .output
            .line(format!("savepoint `{name}` of version {version}: epoch {epoch}, {size} of state"))?;
        if let Some(folder) = savepoint.folder() {
            place.output.line(format!("it is the folder {}", folder.display()))?;
        }
        place.output.flush()
    }
}
