//! `deploy VERSION`: the plan, the question, and then `run`.
//!
//! One process has the data directory, and it alone can start a version beside the live one. So this command shows the plan, asks, and becomes
//! that process: what follows is `run --deploy VERSION`. While a pipeline runs it is refused, and says what to do: stop that one and start it with
//! `run --deploy VERSION`. A pipeline that ends in order and goes on loses nothing.

use super::Pipeline;
use super::run::Run;
use crate::exit::{Exit, Failure, Result};
use crate::inspect::deploy::DeployCommand;
use crate::inspect::place::Place;
use crate::output::ask;
use crate::when::duration;
use clap::Args;
use rivermark_engine::{Engine, Replay, Savepoint};
use rivermark_operators::RateLimit;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Deploy {
    #[command(subcommand)]
    command: Option<DeployCommand>,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, Args)]
struct Start {
    /// The version that is deployed
    version: Option<u64>,
    #[command(flatten)]
    begin: Begin,
    /// Prints what would happen, and does nothing
    #[arg(long)]
    plan_only: bool,
    /// Does not ask
    #[arg(short, long)]
    yes: bool,
}

/// How a version begins, and how it takes over.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Begin {
    /// Where the version begins if it has no checkpoint yet: `earliest`, `savepoint:NAME`, or `folder:PATH` of a savepoint that was exported [default: earliest]
    #[arg(long, value_name = "WHERE", value_parser = from)]
    from: Option<From>,
    /// Promotes the version as soon as it has caught up
    #[arg(long)]
    auto_promote: bool,
    /// Reads at most so many records a second of each source until the version is promoted
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    rate_limit: Option<u64>,
    /// How many workers the version has
    #[arg(long)]
    workers: Option<usize>,
    /// How long the version before it is kept once it is promoted, as 36h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    keep_old_for: Option<Duration>,
}

/// Where a version begins.
#[derive(Clone, Debug)]
enum From {
    Earliest,
    Savepoint(String),
    Folder(String),
}

fn from(text: &str) -> Result<From, String> {
    match text.split_once(':') {
        None if text == "earliest" => Ok(From::Earliest),
        Some(("savepoint", name)) if !name.is_empty() => Ok(From::Savepoint(name.to_owned())),
        Some(("folder", path)) if !path.is_empty() => Ok(From::Folder(path.to_owned())),
        _ => Err("it is `earliest`, `savepoint:NAME` or `folder:PATH`".to_owned()),
    }
}

impl Begin {
    /// What the program and the command line say.
    pub(super) fn replay(&self, pipeline: &Pipeline, engine: &Engine, version: u64) -> Result<Replay> {
        let replay = match &self.from {
            None | Some(From::Earliest) => Replay::from_earliest(),
            Some(From::Savepoint(name)) => Replay::from_savepoint(engine.savepoint(&pipeline.name, name)?),
            Some(From::Folder(path)) => Replay::from_savepoint(Savepoint::open(path)?),
        };
        let mut replay = (pipeline.replay)(version, replay);
        if self.auto_promote {
            replay = replay.promote_when_caught_up();
        }
        if let Some(records) = self.rate_limit {
            replay = replay.rate_limit(RateLimit::records_per_second(records));
        }
        if let Some(workers) = self.workers {
            replay = replay.workers(workers);
        }
        if let Some(keeps) = self.keep_old_for {
            replay = replay.keep_old_for(keeps);
        }
        Ok(replay)
    }
}

impl Pipeline {
    pub(super) fn deploy(&self, deploy: Deploy, place: &mut Place) -> Result<()> {
        match (deploy.command, deploy.start.version) {
            (Some(command), _) => command.run(place),
            (None, Some(version)) => self.start(version, deploy.start, place),
            (None, None) => {
                let known: Vec<String> = self.versions.keys().map(u64::to_string).collect();
                Err(Failure::usage(format!(
                    "deploying: which version? the program has {}; or say `deploy list`",
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                )))
            }
        }
    }

    fn start(&self, version: u64, start: Start, place: &mut Place) -> Result<()> {
        let attempt = format!("deploying version {version}");
        self.check(&attempt)?;
        let flow = self.flow_of(&attempt, version)?;
        let advice = format!("stop it, and start it again with `run --deploy {version}`");
        let engine = self.open(&attempt, &advice, place)?;
        let plan = engine.plan(flow, &start.begin.replay(self, &engine, version)?)?;
        match (place.output.is_json(), start.plan_only) {
            (true, true) => place.output.document(&plan)?,
            // Lines of what it does follow.
            (true, false) => place.output.json_line(&plan)?,
            (false, _) => place.output.text(&plan.to_string())?,
        }
        place.output.flush()?;
        if !plan.can_start {
            return Err(Failure::new(
                Exit::Failed,
                format!("{attempt}: it cannot start: {}", plan.problems.join("; ")),
            ));
        }
        if start.plan_only {
            return Ok(());
        }
        if !start.yes
            && !ask(&format!("Deploy version {version} of `{}`?", self.name), "--yes, or --plan-only")?
        {
            return Err(Failure::of(attempt, "nothing was done, as you said"));
        }
        self.run_on(&engine, &Run::deploying(version, start.begin), place)
    }
}
