//! `savepoint`: those that there are.

use super::checkpoint;
use super::place::{Place, STOP_IT};
use crate::exit::{Exit, Failure, Result};
use crate::output::{Table, bytes, progress_bar};
use crate::when::{ago, now_ms, shown};
use clap::{Args, Subcommand};
use rivermark_engine::{Options, Savepoint};
use serde_json::{Value, json};

/// The commands about savepoints that are there.
#[derive(Debug, Subcommand)]
pub(crate) enum SavepointCommand {
    /// Lists the savepoints of flows
    List(List),
    /// Shows what a savepoint consists of
    Show(Named),
    /// Reads the files of a savepoint and compares them with their digests
    Verify(Named),
    /// Deletes a savepoint
    Delete(Named),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The flow [default: all]
    #[arg(short, long)]
    flow: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Its name
    name: String,
    /// The flow [default: the only one there is]
    #[arg(short, long)]
    flow: Option<String>,
}

impl SavepointCommand {
    pub(crate) fn run(self, place: &mut Place) -> Result<()> {
        match self {
            SavepointCommand::List(list) => list.run(place),
            SavepointCommand::Show(named) => {
                let savepoint = named.open("showing a savepoint", place)?;
                checkpoint::show(&savepoint.summary()?, place)
            }
            SavepointCommand::Verify(named) => named.verify(place),
            SavepointCommand::Delete(named) => named.delete(place),
        }
    }
}

impl List {
    fn run(self, place: &mut Place) -> Result<()> {
        let directory = place.directory()?;
        let flows = match &self.flow {
            Some(flow) => vec![place.flow("listing savepoints", &directory, Some(flow))?],
            None => directory.flows()?,
        };
        let (mut documents, mut table) =
            (Vec::new(), Table::new(["flow", "name", "version", "epoch", "taken", "age", "state"]));
        for flow in flows {
            for savepoint in directory.savepoints(&flow)? {
                documents.push(document(&savepoint));
                let created_ms = savepoint.created_at().millis();
                table.row([
                    flow.clone(),
                    savepoint.name().to_owned(),
                    savepoint.version().to_string(),
                    savepoint.epoch().to_string(),
                    shown(created_ms),
                    ago(created_ms, now_ms()),
                    bytes(savepoint.state_bytes()),
                ]);
            }
        }
        if place.output.is_json() {
            return place.output.document(&json!({ "savepoints": documents }));
        }
        place.output.table(table)
    }
}

/// A savepoint for programs.
pub(crate) fn document(savepoint: &Savepoint) -> Value {
    json!({
        "flow": savepoint.flow(),
        "name": savepoint.name(),
        "version": savepoint.version(),
        "epoch": savepoint.epoch().0,
        "created_at_ms": savepoint.created_at().millis(),
        "state_bytes": savepoint.state_bytes(),
        "folder": savepoint.folder(),
    })
}

impl Named {
    fn open(&self, attempt: &str, place: &Place) -> Result<Savepoint> {
        let directory = place.directory()?;
        let flow = place.flow(attempt, &directory, self.flow.as_deref())?;
        place.savepoint(attempt, &directory, &flow, &self.name)
    }

    fn verify(self, place: &mut Place) -> Result<()> {
        let savepoint = self.open("verifying a savepoint", place)?;
        let bar =
            progress_bar(savepoint.state_bytes(), place.output.is_json()).with_message(self.name.clone());
        let found = savepoint.verify_files(|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        if place.output.is_json() {
            place.output.document(&found)?;
        } else {
            place.output.line(format!("{} files of {} are whole", found.files, bytes(found.bytes)))?;
            found
                .damage
                .iter()
                .try_for_each(|damage| place.output.line(format!("damaged: {}", damage.problem)))?;
        }
        place.output.flush()?;
        match found.damage.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(
                Exit::Found,
                format!("verifying savepoint `{}`: it is damaged; copy it there once more", self.name),
            )),
        }
    }

    fn delete(self, place: &mut Place) -> Result<()> {
        let attempt = "deleting a savepoint";
        let directory = place.directory()?;
        let flow = place.flow(attempt, &directory, self.flow.as_deref())?;
        place.savepoint(attempt, &directory, &flow, &self.name)?;
        let engine = place.engine(attempt, STOP_IT, Options::new())?;
        engine.delete_savepoint(&flow, &self.name)?;
        if place.output.is_json() {
            return place.output.document(&json!({ "flow": flow, "deleted": self.name }));
        }
        place.output.line(format!("deleted savepoint `{}` of flow `{flow}`", self.name))?;
        place.output.flush()
    }
}
