//! Event time: flights per airport and hour of the *schedule*, read in the order in which the planes really left.
//!
//! `cargo run --release --example 02_event_time_and_late_data [DIRECTORY]`
//!
//! A watermark that allows for an hour of disorder lets windows close early, and whoever left later than that is late. Late records are
//! counted and can be had as a stream; or windows are kept for a while longer, and corrected.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{
    BoxError, Engine, Flow, Late, Metrics, Watermarks, Windowed, WindowedStream, Windows, hours,
};
use std::collections::BTreeMap;

type Row = Windowed<String, u64>;

/// What both flows begin with.
fn hourly(flow: &Flow) -> WindowedStream<String, Departure> {
    flow.source(LogSource::<Departure>::topic("departures").until_end())
        .event_time(Departure::scheduled, Watermarks::bounded(hours(1)))
        .key_by(|departure| departure.origin.clone())
        .window(Windows::tumbling(hours(1)))
}

/// Late departures leave the flow by a side door.
fn with_late_output(engine: &Engine) -> Result<Metrics, BoxError> {
    let flow = Flow::new("hourly");
    hourly(&flow)
        .late_output(|late| late.sink(LogSink::topic("late-departures")))
        .count()
        .sink(LogSink::topic("flights-per-hour"));
    Ok(engine.run(flow)?)
}

/// Windows stay for another four hours; a departure that comes within them gives its window's row again, corrected.
fn with_allowed_lateness(engine: &Engine) -> Result<Metrics, BoxError> {
    let flow = Flow::new("hourly-corrected");
    hourly(&flow).allowed_lateness(hours(4)).count().sink(LogSink::topic("flights-per-hour-corrected"));
    Ok(engine.run(flow)?)
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;

    let metrics = with_late_output(&engine)?;
    let rows: Vec<Row> = flights::read(engine.log(), "flights-per-hour")?;
    let mut late: Vec<Late<String, Departure>> = flights::read(engine.log(), "late-departures")?;
    println!(
        "{} departures in {} rows; {} were late:",
        flights::DEPARTURES,
        rows.len(),
        metrics.late_records
    );
    late.sort_by_key(|late| -late.value.dep_delay_min);
    for Late { value: flight, .. } in late.iter().take(5) {
        let (from, to, due) = (&flight.origin, &flight.dest, flight.scheduled());
        println!("  {from} to {to}, due {due}, left {:>4} minutes after", flight.dep_delay_min);
    }

    let metrics = with_allowed_lateness(&engine)?;
    let corrected: Vec<Row> = flights::read(engine.log(), "flights-per-hour-corrected")?;
    let mut history: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for row in &corrected {
        history.entry((row.window, &row.key)).or_default().push(row.value);
    }
    let corrections = corrected.len() - history.len();
    println!(
        "\nwith 4 hours of allowed lateness: {corrections} corrections, and {} late",
        metrics.late_records
    );
    let mut most: Vec<_> = history.iter().collect();
    most.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.len()));
    for ((window, origin), counts) in most.iter().take(3) {
        println!("  {origin} {}: {counts:?}", window.start);
    }
    Ok(())
}
