//! Triggers: how many flights an airport has a day, told while the day goes on, when it is over, and again for those who left late.
//!
//! `cargo run --release --example 12_triggers [DIRECTORY]`
//!
//! The days are those of the schedule, read in the order in which the planes really left. The watermark allows for an hour of disorder. Early panes
//! come each six hours of event time, the pane on time when the watermark passes midnight, and a late pane for every ten that left later than that.
//! All of them are the same in every replay. Panes that retract say what they take back: the table of them counts the days by their size.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use flights::table::table;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, Change, Engine, Flow, Paned, Timing, Trigger, Watermarks, Windows, days, hours};
use std::collections::BTreeMap;

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;

    let flow = Flow::new("flights-per-day");
    let trigger = Trigger::on_watermark().early_every(hours(6)).late_on_count(10);
    let panes = flow
        .source(LogSource::<Departure>::topic("departures").until_end())
        .event_time(Departure::scheduled, Watermarks::bounded(hours(1)))
        .key_by(|departure| departure.origin.clone())
        .window(Windows::tumbling(days(1)))
        .allowed_lateness(hours(12))
        .trigger(trigger)
        .retracting()
        .count();
    panes.clone().sink(LogSink::topic("panes"));
    // Days of an airport by hundreds of flights: a day that has grown leaves its group for another.
    let by_size =
        panes.to_window_table().group_by(|(airport, _), flights| (airport.clone(), flights / 100)).count();
    by_size.to_stream().sink(LogSink::topic("days-by-size"));
    engine.run(flow)?;

    let rows: Vec<Paned<String, Change<u64>>> = flights::read(engine.log(), "panes")?;
    let count = |timing| rows.iter().filter(|row| row.pane.timing == timing).count();
    let (early, on_time, late) = (count(Timing::Early), count(Timing::OnTime), count(Timing::Late));
    println!("{early} early panes, {on_time} on time, {late} late. The day with the most of them:\n");

    let mut windows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    rows.iter().for_each(|row| windows.entry((row.window, &row.key)).or_default().push(row));
    let most = windows.into_iter().max_by_key(|(_, panes)| panes.len());
    let ((window, airport), panes) = most.ok_or("no panes")?;
    let shown = |row: Option<&u64>| row.map_or(String::new(), u64::to_string);
    let line = |row: &&Paned<String, Change<u64>>| {
        let told = (shown(row.value.before()), shown(row.value.after()));
        vec![row.pane.index.to_string(), format!("{:?}", row.pane.timing), told.0, told.1]
    };
    let day = format!("{airport}, {}", &window.start.to_string()[..10]);
    println!("{day}");
    table(&["pane", "timing", "taken back", "flights so far"], &panes.iter().map(line).collect::<Vec<_>>());

    let sizes: Vec<rivermark::Upsert<(String, u64), u64>> = flights::read(engine.log(), "days-by-size")?;
    let last: BTreeMap<_, _> = sizes.into_iter().map(|row| (row.key, row.value)).collect();
    println!("\nDays of {airport}:");
    for ((_, hundreds), days) in last.iter().filter(|((of, _), _)| of == airport) {
        println!("  {:>3} to {:>3} flights: {}", hundreds * 100, hundreds * 100 + 99, days.unwrap_or(0));
    }
    Ok(())
}
