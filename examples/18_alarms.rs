//! Alarms by rules that change while the flow runs: a small table that every record can see, duplicates that are dropped, and ranks.
//!
//! `cargo run --release --example 18_alarms [DIRECTORY]`
//!
//! Rules say from which delay on a flight is an alarm. They are a topic of their own, and in force from their own time on, for the flights of that
//! time, also when the log is read again. Of the alarms of an airline at an airport within six hours the first is told.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use flights::airlines::{self, RULES};
use flights::table::table;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::join::{BroadcastContext, BroadcastFunction};
use rivermark::{BoxError, Engine, Flow, Keep, Side, Upsert, Watermarks, Window, Windows, days, hours};
use std::cmp::Reverse;

/// Flights that are alarms but for half an hour.
const NEARLY: Side<Departure> = Side::new("nearly");

/// Tells which flights are alarms: by the rule for the airline, or the one for all.
#[derive(Clone)]
struct Judge;

impl BroadcastFunction<String, Departure, String, i64> for Judge {
    type Out = Departure;

    fn on_record(
        &mut self,
        _origin: &String,
        flight: Departure,
        cx: &mut BroadcastContext<'_, '_, String, String, i64, Departure>,
    ) -> Result<(), BoxError> {
        let own = cx.broadcast(&flight.carrier)?;
        let Some(limit) = own.or(cx.broadcast(&"all".to_string())?) else { return Ok(()) };
        if flight.dep_delay_min >= limit {
            cx.emit(flight);
        } else if flight.dep_delay_min >= limit - 30 {
            cx.emit_to(NEARLY, flight);
        }
        Ok(())
    }
}

fn flow() -> Flow {
    let flow = Flow::new("alarms");
    let rules = flow
        .source(LogSource::<Upsert<String, i64>>::table(RULES).until_end())
        .event_time(|rule| rule.time, Watermarks::monotonous())
        .to_table();
    let judged = flow
        .source(LogSource::<Departure>::topic("departures").until_end())
        .event_time(Departure::departed, Watermarks::monotonous())
        .key_by(|flight| flight.origin.clone())
        .process_with_broadcast(rules, Judge);
    judged.side_output(NEARLY).sink(LogSink::topic("nearly"));
    let alarms = judged
        .key_by(|flight| (flight.carrier.clone(), flight.origin.clone()))
        .deduplicate(Keep::First, hours(6));
    alarms.clone().sink(LogSink::topic("alarms"));
    // The first of each route, and never another.
    let routes = alarms.clone().key_by(|flight| (flight.origin.clone(), flight.dest.clone()));
    routes.distinct().sink(LogSink::topic("routes"));
    // The three airlines with the most alarms of all in each thirty days.
    let counts = alarms.key_by(|flight| flight.carrier.clone()).window(Windows::tumbling(days(30))).count();
    let most = counts.top_n(3, |carrier, alarms| (*alarms, Reverse(carrier.clone())));
    most.sink(LogSink::topic("most"));
    flow
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;
    airlines::append_rules(engine.log())?;
    engine.run(flow())?;

    let count =
        |topic| -> Result<usize, BoxError> { Ok(flights::read::<Departure>(engine.log(), topic)?.len()) };
    let (alarms, routes, nearly) = (count("alarms")?, count("routes")?, count("nearly")?);
    println!("{alarms} alarms, on {routes} routes; {nearly} flights nearly were.\n");
    let mut most: Vec<(Window, Vec<(String, u64)>)> = flights::read(engine.log(), "most")?;
    most.sort();
    let line = |(window, airlines): &(Window, Vec<(String, u64)>)| {
        let day = window.start.to_string()[..10].to_string();
        let mut cells = vec![format!("from {day}")];
        cells.extend(airlines.iter().map(|(carrier, alarms)| format!("{carrier} with {alarms}")));
        cells.resize(4, String::new());
        cells
    };
    table(&["thirty days", "most alarms", "second", "third"], &most.iter().map(line).collect::<Vec<_>>());
    Ok(())
}
