//! The dashboard: a page that the program serves itself, with the graph of its flows, their checkpoints, the versions of a flow beside each other,
//! the log and the state.
//!
//! `cargo run --release --features dashboard --example 22_dashboard`
//!
//! A year of flights goes on at many times its speed. Version 1 counts flights by the day of UTC and is live; version 2 counts them by the day of New
//! York, and catches up while you watch. Promote it, and roll it back. Enter ends the program.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use rivermark::connectors::{Collect, LogSink, LogSource};
use rivermark::log::RecordBatch;
use rivermark::server::Server;
use rivermark::{
    BoxError, CaughtUp, Context, Engine, Flow, Options, ProcessFunction, RateLimit, Replay, Value,
    Watermarks, Windowed, Windows, days, hours, millis, secs,
};

const FLOWN: Value<u64> = Value::new("flown");

/// Counts the flights to each airport.
#[derive(Clone)]
struct Flown;

impl ProcessFunction<String, Departure> for Flown {
    type Out = u64;

    fn on_record(
        &mut self,
        _: &String,
        _: Departure,
        cx: &mut Context<'_, String, u64>,
    ) -> Result<(), BoxError> {
        let flown = cx.state(FLOWN).get()?.unwrap_or(0) + 1;
        cx.state(FLOWN).set(flown)
    }
}

fn destinations() -> Flow {
    let flow = Flow::new("destinations");
    let departures = flow.source(LogSource::<Departure>::topic("departures")).named("departures");
    let departures = departures.event_time(Departure::departed, Watermarks::bounded(hours(1)));
    let by_airport = departures.key_by(|departure| departure.dest.clone());
    by_airport.process(Flown).named("by airport").sink(Collect::new());
    flow
}

fn flights_per_day(version: u64) -> Flow {
    let day = Windows::tumbling(days(1));
    let day = if version == 1 { day } else { day.starting_at(hours(5)) };
    let flow = Flow::new("flights-per-day").version(version);
    flow.source(LogSource::<Departure>::topic("departures"))
        .named("departures")
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
        .named("scheduled")
        .key_by(|departure| departure.origin.clone())
        .window(day)
        .count()
        .named("per day")
        .sink(LogSink::output("flights-per-day").key(|row: &Windowed<String, u64>| {
            format!("{} {}", row.key, &row.window.start.to_string()[..10]).into_bytes()
        }));
    flow
}

fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let engine = Engine::open_with(directory.path(), Options::new().workers(2).checkpoint_every(secs(1)))?;
    let departures = flights::departures()?;
    let (past, future) = departures.split_at(departures.len() / 3);
    flights::append_by_origin(engine.log(), "departures", past)?;

    let replay = Replay::from_earliest().caught_up(CaughtUp::new().within_event_time(days(10)));
    let job = engine.start(destinations())?;
    let blue = engine.deploy(flights_per_day(1), replay.clone())?;
    // Slowly, to be watched.
    let _green =
        engine.deploy(flights_per_day(2), replay.rate_limit(RateLimit::records_per_second(8_000)))?;

    let port = std::env::var("PORT").map_or(Ok(0), |port| port.parse())?;
    let server = Server::new().deployments(&blue).serve::<String, _>(&job, FLOWN).log(engine.log());
    let server = server.dashboard().listen_on(([127, 0, 0, 1], port)).start()?;
    println!("The dashboard is at      http://{}/", server.address());
    println!("What it asks is told by  http://{}/openapi.json", server.address());
    println!("and for Prometheus by    http://{}/metrics\nEnter ends the program.", server.address());
    let (enter, entered) = std::sync::mpsc::channel();
    std::thread::spawn(move || enter.send(std::io::stdin().read_line(&mut String::new())));
    let topic = engine.log().topic("departures")?;
    let mut flights = future.iter();
    // Some thousands a second, and none when the year is over.
    while entered.recv_timeout(millis(10)).is_err() {
        for flight in flights.by_ref().take(20) {
            let mut batch = RecordBatch::new();
            batch.push(None, Some(&serde_json::to_vec(flight)?), flight.dep_ts * 1000);
            topic.append(flight.partition(), &mut batch)?;
        }
    }
    Ok(())
}
