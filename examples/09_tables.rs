//! Tables: how many planes of each airline are in the air?
//!
//! `cargo run --release --example 09_tables [DIRECTORY]`
//!
//! A departure is an upsert of a flight, its arrival the delete: together they are the table of flights in the air. It is joined with the table of
//! airlines, grouped and counted. When two airlines merge, a change of two names takes all their flights out of their groups and puts them into
//! another. The program ends with an error if a row is not what another program computed.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use flights::airlines::{self, AIRLINES, InTheAir, MERGER};
use flights::routes::{self, ARRIVALS, Arrival};
use flights::table::{grouped, table};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, Engine, Flow, Interval, Keep, Table, Timestamp, Upsert, Watermarks, days};

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;
    routes::append(engine.log())?;
    airlines::append(engine.log())?;

    let flow = Flow::new("in-the-air");
    let departures = flow
        .source(LogSource::<Departure>::topic("departures").until_end())
        .event_time(Departure::departed, Watermarks::monotonous());
    let arrivals = flow
        .source(LogSource::<Arrival>::topic(ARRIVALS).until_end())
        .event_time(Arrival::arrived, Watermarks::monotonous())
        .key_by(|flight| flight.flight_id);
    let up = departures.clone().map(|flight| Upsert {
        time: flight.departed(),
        key: flight.flight_id,
        value: Some(flight.carrier),
    });
    // Some never arrive where they should: nobody waits for them longer than a day.
    let down = departures
        .key_by(|flight| flight.flight_id)
        .interval_join(arrivals, Interval::after(days(1)))
        .left(|id, flight, _| Upsert { time: flight.departed(), key: *id, value: None });
    let in_the_air: Table<u32, String> = up.union(down).to_table();
    // A compacted topic is a table: keys, values, and the log's timestamps.
    let airlines_now = flow
        .source(LogSource::<Upsert<String, String>>::table(AIRLINES).until_end())
        .event_time(|row| row.time, Watermarks::monotonous())
        .to_table();
    let named =
        in_the_air.join_on(airlines_now, |_, carrier| carrier.clone()).inner(|_, _, name| name.clone());
    // A flight that lands, or whose airline has another name, is taken back from its group.
    let counts = named.group_by(|_, name| name.clone()).count();
    counts.clone().to_stream().sink(LogSink::table("flights-in-the-air"));
    // And back: a table is a stream of upserts and deletes.
    let changes = counts.to_stream();
    changes.clone().filter(|change| change.time == MERGER).sink(LogSink::topic("merger"));
    let years = changes.map(InTheAir::now).key_by(|row| row.airline.clone()).reduce(InTheAir::then);
    let last = years.key_by(|row| row.airline.clone()).deduplicate(Keep::Last, days(366));
    last.sink(LogSink::topic("in-the-air"));
    let metrics = engine.run(flow)?;
    println!("{} records read in {:?}\n", grouped(metrics.records_read), metrics.running);

    let rows: Vec<InTheAir> = flights::as_expected(engine.log(), "in-the-air", "p6_in_the_air.csv")?;
    let at = |row: &InTheAir| Timestamp::from_secs(row.at).to_string();
    let line = |row: &InTheAir| vec![row.airline.clone(), row.most.to_string(), at(row)];
    table(&["airline", "most in the air", "when"], &rows.iter().map(line).collect::<Vec<_>>());
    println!("\nWhat the merger changed, at {MERGER}:");
    let mut changes: Vec<Upsert<String, u64>> = flights::read(engine.log(), "merger")?;
    changes.sort();
    for Upsert { key, value, .. } in changes {
        println!("  {key}: {}", value.map_or("gone".into(), |flights| format!("{flights} flights")));
    }
    Ok(())
}
