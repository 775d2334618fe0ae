//! The command line: a pipeline as a program that is run, deployed and looked at.
//!
//! `cargo run --release --features cli --example 21_command_line`
//! `cargo run --release --features cli --example 21_command_line -- --help`
//!
//! Of each airport, the flight that has been the latest so far. Version 2 takes delays of more than half a day for mistakes. Without arguments it is a tour
//! of the commands, each as somebody would type it; with arguments it does what they say.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use rivermark::cli::Pipeline;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, CaughtUp, Flow, Watermarks, days, millis};
use std::process::ExitCode;

/// Departures that were two hours late, and not later than `most` minutes.
fn worst_delays(most: i64, until_end: bool) -> Flow {
    let departures = LogSource::<Departure>::topic("departures");
    let flow = Flow::new("worst-delays");
    flow.source(if until_end { departures.until_end() } else { departures })
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
        .filter(move |flight| (120..most).contains(&flight.dep_delay_min))
        .key_by(|flight| flight.origin.clone())
        .reduce(|worst, next| {
            if next.dep_delay_min > worst.dep_delay_min {
                *worst = next;
            }
        })
        .sink(LogSink::output("worst-delays").key(|worst: &Departure| worst.origin.clone().into_bytes()));
    flow
}

/// All of the program but its `main`.
fn pipeline(until_end: bool) -> Pipeline {
    Pipeline::new("worst-delays")
        .version(1, move || worst_delays(i64::MAX, until_end))
        .version(2, move || worst_delays(720, until_end))
        .options(|options| options.checkpoint_every(millis(200)))
        .replay(|_, replay| replay.caught_up(CaughtUp::new().for_at_least(millis(200))))
        .state_type::<Departure>()
        .prepare(|engine| match engine.log().topic("departures") {
            Ok(_) => Ok(()),
            Err(_) => {
                flights::append_by_origin(engine.log(), "departures", &flights::departures()?[..50_000])
            }
        })
}

/// Commands, as somebody would type them.
fn tour() -> Result<ExitCode, BoxError> {
    let directory = tempfile::tempdir()?;
    let commands = [
        "run --deploy 1",
        "log topics",
        "log tail worst-delays.v1 --count 2 --partition 0",
        "checkpoint list",
        "state scan reduce-1 total",
        "state stats",
        "deploy 2 --plan-only",
        "run --deploy 2",
        "deploy list",
        "savepoint before-the-switch",
    ];
    for command in commands {
        println!("\n$ worst-delays {command}");
        let data = ["worst-delays".into(), "--data".into(), directory.path().into()];
        let code = pipeline(true).main_with(data.into_iter().chain(command.split(' ').map(Into::into)));
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> Result<ExitCode, BoxError> {
    if std::env::args_os().len() == 1 { tour() } else { Ok(pipeline(false).main()) }
}
