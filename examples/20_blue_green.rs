//! Blue and green: a corrected version replays the log beside the live one, is compared with it, and takes its place, while nobody who reads the
//! output misses a row or sees one twice.
//!
//! `cargo run --release --example 20_blue_green`
//!
//! Version 1 counts flights by the day, and takes the day from UTC. Version 2 takes it from New York, four or five hours behind. Should it turn out to
//! be wrong, version 1 is still there: it goes on behind version 2, and takes its place again at once.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Position, RecordBatch};
use rivermark::{
    BoxError, CaughtUp, Engine, Flow, Options, Replay, State, Watermarks, Windowed, Windows, days, hours,
    millis, minutes,
};

/// A version of the flow. What it writes has a topic of its own; `flights-per-day` is an alias that follows the live version.
fn flights_per_day(version: u64) -> Flow {
    let day = Windows::tumbling(days(1));
    let day = if version == 1 { day } else { day.starting_at(hours(5)) };
    let flow = Flow::new("flights-per-day").version(version);
    flow.source(LogSource::<Departure>::topic("departures"))
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
        .key_by(|departure| departure.origin.clone())
        .window(day)
        .count()
        .sink(LogSink::output("flights-per-day").key(|row: &Windowed<String, u64>| {
            format!("{} {}", row.key, &row.window.start.to_string()[..10]).into_bytes()
        }));
    flow
}

/// How many rows readers of the alias see.
fn rows(engine: &Engine) -> Result<u64, BoxError> {
    let mut reader = engine.outputs().reader(engine.log(), "flights-per-day", 0, Position::Earliest)?;
    while reader.next_batch()?.is_some() {}
    Ok(reader.position())
}

fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let engine = Engine::open_with(directory.path(), Options::new().checkpoint_every(millis(100)))?;
    let departures = flights::departures()?;
    let (past, future) = departures.split_at(departures.len() / 2);
    flights::append_by_origin(engine.log(), "departures", past)?;

    // The first version is live at once.
    let caught_up = CaughtUp::new().within_event_time(hours(1)).for_at_least(millis(200));
    let replay = Replay::from_earliest().caught_up(caught_up).workers(1);
    let blue = engine.deploy(flights_per_day(1), replay.clone())?;
    while blue.progress().is_none_or(|progress| progress.records_behind > 0) {
        std::thread::sleep(millis(10));
    }

    println!("{}", engine.plan(flights_per_day(2), &replay)?);
    let green = engine.deploy(flights_per_day(2), replay)?;
    if !green.wait_for(State::CaughtUp, minutes(1)) {
        return Err("version 2 has not caught up".into());
    }
    let mut compared = green.compare()?;
    compared.outputs.iter_mut().for_each(|output| output.samples.truncate(5));
    println!("{compared}");

    let before = rows(&engine)?;
    green.promote()?;
    let topic = engine.log().topic("departures")?;
    for departure in future {
        let mut batch = RecordBatch::new();
        batch.push(None, Some(&serde_json::to_vec(departure)?), 0);
        topic.append(departure.partition(), &mut batch)?;
    }
    while green.progress().is_none_or(|progress| progress.records_behind > 0) {
        std::thread::sleep(millis(10));
    }
    println!("version 1 is {}, version 2 {}; readers saw {before} rows before", blue.state(), green.state());
    green.roll_back("the office counts in UTC after all")?;
    println!("version 1 is {} again, version 2 {}", blue.state(), green.state());
    println!("readers have seen {} rows, each once", rows(&engine)?);
    Ok(())
}
