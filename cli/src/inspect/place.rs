//! The data directory that a command is about, and how things in it are found by name.

use crate::exit::{Exit, Failure, Result};
use crate::nearest::unknown;
use crate::output::Output;
use rivermark_engine::{DataDirectory, DirectoryInUse, Engine, Options, Savepoint, State, Types};
use rivermark_log::{Log, Topic};
use rivermark_operators::Result as EngineResult;
use std::path::PathBuf;

/// The data directory if nobody names one.
pub(crate) const DEFAULT: &str = "data";
/// The variable of the environment that names one.
pub(crate) const VARIABLE: &str = "RIVERMARK_DATA";

/// What to do about another process that holds it.
pub(crate) const STOP_IT: &str = "stop it first: it ends in order when it is interrupted";

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// The data directory [default: $RIVERMARK_DATA, or `data`]
    #[arg(short, long, global = true, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which version of which flow a command is about.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The flow [default: the only one there is]
    #[arg(short, long)]
    pub(crate) flow: Option<String>,
    /// The version of the flow [default: the live one, or the newest]
    #[arg(short, long, value_name = "VERSION")]
    pub(crate) version: Option<u64>,
}

/// Which checkpoint or savepoint a command reads.
#[derive(Debug, clap::Args)]
pub(crate) struct At {
    #[command(flatten)]
    pub(crate) which: Which,
    /// The checkpoint of this number [default: the newest]
    #[arg(short, long)]
    pub(crate) epoch: Option<u64>,
    /// A savepoint in the place of a checkpoint
    #[arg(short, long, value_name = "NAME", conflicts_with_all = ["epoch", "version"])]
    pub(crate) savepoint: Option<String>,
    /// The folder for scratch databases, when state is large [default: the system's temporary folder]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) scratch: Option<PathBuf>,
}

/// Where a command works, and where it prints.
pub(crate) struct Place {
    root: PathBuf,
    /// The flow of the pipeline whose binary this is.
    flow: Option<String>,
    /// The types that the pipeline has told.
    pub(crate) types: Types,
    pub(crate) output: Output,
}

/// A flow and a version of it.
pub(crate) struct Chosen {
    pub(crate) flow: String,
    pub(crate) version: u64,
}

/// The process that keeps an engine from being opened, if that is what does.
fn holder_of(error: &rivermark_operators::Error) -> Option<String> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(in_use) = error.downcast_ref::<DirectoryInUse>() {
            return Some(in_use.holder.clone());
        }
        if let Some(rivermark_log::Error::Locked { holder, .. }) = error.downcast_ref() {
            return Some(holder.to_string());
        }
        cause = error.source();
    }
    None
}

impl Place {
    pub(crate) fn of(common: &Common, default: PathBuf, flow: Option<String>, types: Types) -> Place {
        let variable = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = common.data.clone().or_else(variable).unwrap_or(default);
        Place { root, flow, types, output: Output::new(common.json) }
    }

    /// Where the data directory is, or will be.
    pub(crate) fn root(&self) -> &PathBuf {
        &self.root
    }

    /// The data directory, to look at.
    pub(crate) fn directory(&self) -> Result<DataDirectory> {
        DataDirectory::open(&self.root).map_err(|e| {
            Failure::missing(format!(
                "{e}; name one with --data DIRECTORY, or with {VARIABLE} in the environment"
            ))
        })
    }

    /// The data directory, to change it.
    ///
    /// # Errors
    /// Another process holds it: then that is the exit code, and the message names it.
    pub(crate) fn engine(&self, attempt: &str, advice: &str, options: Options) -> Result<Engine> {
        Engine::open_with(&self.root, options).map_err(|error| match holder_of(&error) {
            Some(holder) => {
                let root = self.root.display();
                Failure::new(
                    Exit::Busy,
                    format!("{attempt}: {holder} holds the data directory {root}; {advice}"),
                )
            }
            None => Failure::of(attempt, error),
        })
    }

    /// A topic of the log.
    pub(crate) fn topic(&self, attempt: &str, log: &Log, name: &str) -> Result<Topic> {
        let topics = log.topics()?;
        match topics.iter().find(|topic| topic.name() == name) {
            Some(topic) => Ok(topic.clone()),
            None => {
                let names: Vec<String> = topics.iter().map(|topic| topic.name().to_owned()).collect();
                Err(unknown(attempt, "topic", name, &names))
            }
        }
    }

    /// The flow that is meant.
    pub(crate) fn flow(
        &self,
        attempt: &str,
        directory: &DataDirectory,
        named: Option<&str>,
    ) -> Result<String> {
        let flows = directory.flows()?;
        if let Some(name) = named.or(self.flow.as_deref()) {
            return match flows.iter().any(|flow| flow == name) {
                true => Ok(name.to_owned()),
                false => Err(unknown(attempt, "flow", name, &flows)),
            };
        }
        match &flows[..] {
            [flow] => Ok(flow.clone()),
            [] => Err(Failure::missing(format!("{attempt}: no flow has run in {}", self.root.display()))),
            several => Err(Failure::usage(format!(
                "{attempt}: which flow? say --flow; there are `{}`",
                several.join("`, `")
            ))),
        }
    }

    /// The flow and the version that are meant.
    pub(crate) fn choose(&self, attempt: &str, directory: &DataDirectory, which: &Which) -> Result<Chosen> {
        let flow = self.flow(attempt, directory, which.flow.as_deref())?;
        let versions = directory.versions(&flow)?;
        let record = directory.deployments(&flow)?;
        if let Some(version) = which.version {
            if versions.contains(&version) {
                return Ok(Chosen { flow, version });
            }
            let known: Vec<String> = versions.iter().map(u64::to_string).collect();
            let retired = match record.state(version) {
                Some(State::Retired) => ": it was retired, and what it had is freed",
                _ => "",
            };
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Failure::missing(format!(
                "{attempt}: version {version} of flow `{flow}` has no checkpoints{retired}; versions that have: {known}"
            )));
        }
        let live = record.live().filter(|live| versions.contains(live));
        let version = live.or(versions.last().copied()).ok_or_else(|| {
            Failure::missing(format!(
                "{attempt}: flow `{flow}` has no checkpoints in {}",
                self.root.display()
            ))
        })?;
        Ok(Chosen { flow, version })
    }

    /// Reads the checkpoint or savepoint that is meant.
    pub(crate) fn read<R>(
        &self,
        attempt: &str,
        at: &At,
        mut read: impl FnMut(&Savepoint) -> EngineResult<R>,
    ) -> Result<R> {
        let directory = self.directory()?;
        let mut read = |savepoint: &Savepoint| match &at.scratch {
            Some(folder) => read(&savepoint.clone().scratch_in(folder)),
            None => read(savepoint),
        };
        if let Some(name) = &at.savepoint {
            let flow = self.flow(attempt, &directory, at.which.flow.as_deref())?;
            return Ok(read(&self.savepoint(attempt, &directory, &flow, name)?)?);
        }
        let chosen = self.choose(attempt, &directory, &at.which)?;
        let listed = directory.checkpoints(&chosen.flow, chosen.version)?;
        if let Some(epoch) = at.epoch.filter(|epoch| listed.iter().all(|known| known.epoch.0 != *epoch)) {
            let known: Vec<String> = listed.iter().map(|known| known.epoch.to_string()).collect();
            return Err(Failure::missing(format!(
                "{attempt}: version {} of flow `{}` has no checkpoint {epoch}; it has {}",
                chosen.version,
                chosen.flow,
                known.join(", ")
            )));
        }
        Ok(directory.with_checkpoint(&chosen.flow, chosen.version, at.epoch, read)?)
    }

    /// A savepoint of a flow.
    pub(crate) fn savepoint(
        &self,
        attempt: &str,
        directory: &DataDirectory,
        flow: &str,
        name: &str,
    ) -> Result<Savepoint> {
        let names: Vec<String> =
            directory.savepoints(flow)?.iter().map(|savepoint| savepoint.name().to_owned()).collect();
        if !names.iter().any(|known| known == name) {
            return Err(unknown(attempt, "savepoint", name, &names));
        }
        Ok(directory.savepoint(flow, name)?)
    }
}
