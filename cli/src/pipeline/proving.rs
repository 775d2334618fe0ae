//! `audit` and `explain`: what was published, held against the log.
//!
//! Both run the flow once more, in a directory of their own below the data directory, so they take code; and the data directory must be free. (A program
//! that runs a pipeline can audit it meanwhile: [`Engine::audit`].)

use super::Pipeline;
use crate::exit::{Exit, Failure, Result};
use crate::inspect::place::Place;
use crate::output::shows_progress;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rivermark_engine::{Audit, AuditProgress, Engine, Explain, Options, Stage};
use rivermark_operators::Flow;
use std::time::Duration;

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);
/// What to do about a pipeline that runs.
const ADVICE: &str = "stop it, and start it again afterwards: it goes on where it was; or let its own program call Engine::audit";

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// The version that is audited [default: the live one]
    version: Option<u64>,
    /// Audits what was published since this savepoint [default: everything]
    #[arg(long, value_name = "SAVEPOINT")]
    from: Option<String>,
    /// Audits what was published up to this savepoint [default: up to the newest checkpoint]
    #[arg(long, value_name = "SAVEPOINT")]
    until: Option<String>,
    /// Compares the rows of a key without their order
    #[arg(long)]
    any_order: bool,
    /// How many workers replay
    #[arg(long)]
    workers: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The topic in which the row lies
    topic: String,
    /// The partition
    partition: u32,
    /// The offset
    offset: u64,
    /// The version that has made it [default: the live one]
    #[arg(short, long)]
    version: Option<u64>,
    /// How many records are listed of each sort, the last ones
    #[arg(long, value_name = "RECORDS", default_value_t = 20)]
    at_most: usize,
}

impl Pipeline {
    pub(super) fn audit(&self, arguments: &AuditArguments, place: &mut Place) -> Result<()> {
        let attempt = format!("auditing flow `{}`", self.name);
        let (engine, flow) = self.to_run_again(&attempt, arguments.version, place)?;
        let mut audit = match &arguments.from {
            Some(name) => Audit::from_savepoint(engine.savepoint(&self.name, name)?),
            None => Audit::from_earliest(),
        };
        if let Some(name) = &arguments.until {
            audit = audit.up_to(engine.savepoint(&self.name, name)?);
        }
        if let Some(workers) = arguments.workers {
            audit = audit.workers(workers);
        }
        if arguments.any_order {
            audit = audit.any_order();
        }
        let run = engine.audit(flow, audit)?;
        let is_shown = shows_progress(place.output.is_json());
        let bar = if is_shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        while !run.is_over() {
            show(&bar, &run.progress());
            std::thread::sleep(TICK);
        }
        bar.finish_and_clear();
        let report = run.wait()?;
        if place.output.is_json() {
            place.output.document(&report)?;
        } else {
            place.output.text(&report.to_string())?;
        }
        place.output.flush()?;
        // The report has said it.
        if report.is_identical() { Ok(()) } else { Err(Failure::new(Exit::Found, "")) }
    }

    pub(super) fn explain(&self, arguments: &ExplainArguments, place: &mut Place) -> Result<()> {
        let ExplainArguments { topic, partition, offset, .. } = arguments;
        let attempt = format!("explaining the row at offset {offset} of {topic}[{partition}]");
        let (engine, flow) = self.to_run_again(&attempt, arguments.version, place)?;
        let explain = Explain::row(topic, *partition, *offset).at_most(arguments.at_most);
        let explanation = engine.explain(flow, explain)?;
        if place.output.is_json() {
            return place.output.document(&explanation);
        }
        place.output.text(&explanation.to_string())?;
        place.output.flush()
    }

    /// The engine, and the flow as it ran: of a version, or without any.
    fn to_run_again(&self, attempt: &str, version: Option<u64>, place: &mut Place) -> Result<(Engine, Flow)> {
        self.check(attempt)?;
        // An engine would make what is not there.
        place.directory()?;
        let engine = place.engine(attempt, ADVICE, (self.options)(Options::new()))?;
        let flow = match version {
            None => self.live_flow(attempt, &engine)?,
            Some(_) if self.flow.is_some() => {
                return Err(Failure::usage(format!(
                    "{attempt}: the program has one flow without versions; name none"
                )));
            }
            Some(version) => self.flow_of(attempt, version)?,
        };
        Ok((engine, flow))
    }
}

fn show(bar: &ProgressBar, now: &AuditProgress) {
    let (template, length, position) = match now.stage {
        Stage::Replaying => {
            ("replaying {wide_bar} {human_pos} of {human_len} records, {eta}", now.of_records, now.records)
        }
        _ => ("comparing {wide_msg} {human_pos} rows read", now.rows, now.rows),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_length(length);
    bar.set_position(position);
}
