//! The same flow in processes that are killed while they work.

use crate::flights::kill::{Progress, run_and_kill, run_slowly, run_to_end};
use crate::flights::table::{grouped, heading, say, table};
use crate::flights::throttle::{Allowance, Throttled};
use crate::flights::{self, Departure};
use crate::flow::{DEPARTURES, Output, Version, delays};
use crate::results::Results;
use rivermark::connectors::LogSource;
use rivermark::{BoxError, Engine};
use std::path::Path;
use std::process::Command;

/// The first argument of a process that is to be killed.
pub const CHILD: &str = "child";

const NAME: &str = "delay-by-origin-hour-killed";

/// After how many records each process is killed.
const KILLS: [u64; 5] = [30_000, 45_000, 35_000, 60_000, 40_000];
/// How many more it may read at the most; all of it together is less than there is, so none can end before it is killed.
const MARGIN: u64 = 20_000;

fn output(directory: &Path) -> Output {
    Output::new(directory, "delays-killed")
}

/// What the child does: it opens the directory and runs the flow, as on any start.
pub fn child(directory: &Path, at_most: u64) -> Result<(), BoxError> {
    let engine = crate::open(directory)?;
    let allowance = Allowance::default();
    let source = Throttled::new(LogSource::<Departure>::topic(DEPARTURES).until_end(), &allowance);
    let job = engine.start(delays(NAME, Version::One, source, &output(directory)))?;
    run_slowly(job, &allowance, at_most)?;
    Ok(())
}

/// Runs the flow in children, kills all but the last, and compares the result with that of an undisturbed run.
pub fn run(directory: &Path, undisturbed: &Results) -> Result<Engine, BoxError> {
    heading("3  The same, killed by SIGKILL again and again");
    let start = |at_most: u64| -> Result<Command, BoxError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).arg(directory).arg(at_most.to_string());
        Ok(command)
    };
    let mut lives = Vec::new();
    for records in KILLS {
        lives.push(run_and_kill(&mut start(records + MARGIN)?, records)?);
    }
    lives.push(run_to_end(&mut start(flights::DEPARTURES)?)?);
    show(&lives);

    let engine = crate::open(directory)?;
    let results = Results::read(engine.log(), &output(directory))?;
    let read: u64 = lives.iter().map(|life| life.records).sum();
    let again = read.saturating_sub(flights::DEPARTURES);
    println!();
    say(format!("{} kills; {} records at least were read twice", KILLS.len(), grouped(again)));
    say(format!(
        "undisturbed  {} rows, digest {}",
        grouped(undisturbed.json.len() as u64),
        undisturbed.digest()
    ));
    say(format!("killed       {} rows, digest {}", grouped(results.json.len() as u64), results.digest()));
    crate::results::compare("a line of the killed job's CSV files", &results.csv, &undisturbed.csv)?;
    crate::results::compare("a record of the killed job's topic", &results.json, &undisturbed.json)?;
    say("the same: topic and files, sorted, byte for byte");
    Ok(engine)
}

fn show(lives: &[Progress]) {
    let row = |(at, life): (usize, &Progress)| {
        vec![
            (at + 1).to_string(),
            if at == 0 {
                "the log's beginning".into()
            } else {
                format!("epoch {}", life.first_epoch.saturating_sub(1))
            },
            grouped(life.records),
            life.checkpoints.to_string(),
            if at + 1 < lives.len() { "killed".into() } else { "read to the end".into() },
        ]
    };
    let rows: Vec<_> = lives.iter().enumerate().map(row).collect();
    table(&["process", "began from", "records read", "checkpoints", "then"], &rows);
}
