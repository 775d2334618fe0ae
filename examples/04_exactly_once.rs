//! Exactly-once: a process that is killed by SIGKILL, three times, and whose output is the same none the less.
//!
//! `cargo run --release --example 04_exactly_once`
//!
//! The program starts itself as a child, which runs a job with a checkpoint every 20 ms, and kills the child when it has come far enough
//! to have something to lose. What a checkpoint holds (offsets, state, prepared output) becomes valid at once or not at all.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::kill::{run_and_kill, run_slowly, run_to_end};
use flights::throttle::{Allowance, Throttled};
use flights::{DEPARTURES, Departure};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, Engine, Flow, Options, Watermarks, Windowed, Windows, days, hours, millis};
use std::path::Path;
use std::process::Command;

/// The flow, over a source that gives as much as it is allowed to.
fn flights_per_hour(topic: &str, allowance: &Allowance) -> Flow {
    let flow = Flow::new(topic);
    flow.source(Throttled::new(LogSource::<Departure>::topic("departures").until_end(), allowance))
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
        .key_by(|departure| departure.origin.clone())
        .window(Windows::tumbling(hours(1)))
        .count()
        .sink(LogSink::topic(topic));
    flow
}

/// What the child does: no different from any program that starts, since every start is a recovery.
fn child(directory: &Path, at_most: u64) -> Result<(), BoxError> {
    let engine = Engine::open_with(directory, Options::new().checkpoint_every(millis(20)))?;
    let allowance = Allowance::default();
    run_slowly(engine.start(flights_per_hour("killed", &allowance))?, &allowance, at_most)?;
    Ok(())
}

fn rows(engine: &Engine, topic: &str) -> Result<Vec<Windowed<String, u64>>, BoxError> {
    let mut rows: Vec<Windowed<String, u64>> = flights::read(engine.log(), topic)?;
    rows.sort_by(|a, b| (a.window, &a.key).cmp(&(b.window, &b.key)));
    Ok(rows)
}

fn main() -> Result<(), BoxError> {
    if let [_, directory, at_most] = &std::env::args().collect::<Vec<_>>()[..] {
        return child(directory.as_ref(), at_most.parse()?);
    }
    let directory = tempfile::tempdir()?;
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;
    let allowance = Allowance::default();
    // More than there is, so that the source comes to its end.
    allowance.add(2 * DEPARTURES);
    engine.run(flights_per_hour("undisturbed", &allowance))?;
    // Only one process at a time may have the directory.
    drop(engine);

    let start = |at_most: u64| -> Result<Command, BoxError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(directory.path()).arg(at_most.to_string());
        Ok(command)
    };
    for records in [40_000, 60_000, 80_000] {
        let progress = run_and_kill(&mut start(100_000)?, records)?;
        println!("killed after {:>6} records and {} checkpoints", progress.records, progress.checkpoints);
    }
    let progress = run_to_end(&mut start(DEPARTURES)?)?;
    println!("ended  after {:>6} records, the rest", progress.records);

    let engine = Engine::open(&directory)?;
    let (killed, undisturbed) = (rows(&engine, "killed")?, rows(&engine, "undisturbed")?);
    println!("\n{} rows where nothing happened, {} rows after three kills", undisturbed.len(), killed.len());
    if killed != undisturbed {
        return Err("they differ: this is a bug in Rivermark".into());
    }
    println!("they are the same, each once");
    Ok(())
}
