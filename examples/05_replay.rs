//! Replay: a corrected version of a flow reads the log again from offset zero, beside the output of the one it replaces.
//!
//! `cargo run --release --example 05_replay [DIRECTORY]`
//!
//! Version 1 counts flights by the day, and takes the day from UTC: a flight that leaves New York at eight in the evening is counted on the
//! next. Nothing has to be restored or migrated to put that right: the log still has every departure.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, Engine, Flow, Watermarks, Windowed, Windows, days, hours};
use std::collections::BTreeMap;

/// A version has checkpoints and state of its own; the topic it writes has its number, too.
fn flights_per_day(version: u64, day: Windows) -> Flow {
    let flow = Flow::new("flights-per-day").version(version);
    flow.source(LogSource::<Departure>::topic("departures").until_end())
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
        .key_by(|departure| departure.origin.clone())
        .window(day)
        .count()
        .sink(LogSink::topic(format!("flights-per-day-v{version}")));
    flow
}

/// Flights by day of the month, from the output of one version.
fn february(engine: &Engine, version: u64) -> Result<BTreeMap<i64, u64>, BoxError> {
    const DAY: i64 = 86_400;
    const BEGIN: i64 = 1_359_676_800;
    let rows: Vec<Windowed<String, u64>> =
        flights::read(engine.log(), &format!("flights-per-day-v{version}"))?;
    let mut days = BTreeMap::new();
    for row in rows.iter().filter(|row| row.key == "JFK") {
        let day = (row.window.start.secs() - BEGIN).div_euclid(DAY) + 1;
        days.insert(day, row.value);
    }
    Ok(days.into_iter().filter(|(day, _)| (5..=12).contains(day)).collect())
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;

    let utc = Windows::tumbling(days(1));
    let first = engine.run(flights_per_day(1, utc))?;
    println!("version 1 read {} departures in {:?}", first.records_read, first.running);

    // New York is four or five hours behind, and no plane is due between midnight and one.
    let new_york = utc.starting_at(hours(5));
    let second = engine.run(flights_per_day(2, new_york))?;
    println!("version 2 read {} departures in {:?}", second.records_read, second.running);

    println!("\nJFK, February 2013   version 1   version 2");
    let (before, after) = (february(&engine, 1)?, february(&engine, 2)?);
    for (day, count) in &after {
        let blizzard = if (8..=9).contains(day) { "  the blizzard" } else { "" };
        println!("{day:>19}   {:>9}   {count:>9}{blizzard}", before.get(day).copied().unwrap_or(0));
    }
    Ok(())
}
