//! Look-ups: each departure is enriched by asking a service outside, which is slow, sometimes fails, and thinks better of it later.
//!
//! `cargo run --release --example 16_look_ups [DIRECTORY]`
//!
//! The service says how far one could see when the plane left, in a blizzard. Up to 32 questions are out at once; one that fails is asked again,
//! and a station that stays silent is done without. What it answered is journaled, and so is the clock, where a flow is of processing time: version
//! 2 reads the log again when the service has revised its reports, and has the answers and the times of version 1, without asking.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use flights::service::{Answer, BLIZZARD, Question, Service, by_visibility};
use flights::table::table;
use rivermark::connectors::{LogSink, LogSource, blocking};
use rivermark::{BoxError, Engine, Flow, LookUp, Windowed, Windows, millis};

/// A flight's delay, and what it was answered.
type Row = (u32, i64, Answer);
/// How many flights of an airport were read in a tenth of a second.
type Pace = Windowed<String, u64>;

fn flow(version: u64, service: &Service) -> Flow {
    let flow = Flow::new("seen").version(version);
    let service = service.clone();
    let visibility = LookUp::new(blocking(32, move |question| service.ask(question)))
        .capacity(32)
        .time_out(millis(2000))
        .retries(2, millis(10))
        .or_else(|_, _| Ok(Answer { miles: None, revision: 0 }));
    let rows = flow
        .source(LogSource::<Departure>::topic("blizzard").until_end())
        // Behind this, time is when records were read. With `event_time` in its place it would be as old as the flights are.
        .processing_time(millis(10))
        .look_up(visibility, Question::about, |flight, answer| (flight, answer));
    rows.clone()
        .map(|(flight, answer)| (flight.flight_id, flight.dep_delay_min, answer))
        .sink(LogSink::topic(format!("seen-v{version}")));
    rows.key_by(|(flight, _)| flight.origin.clone())
        .window(Windows::tumbling(millis(100)))
        .count()
        .sink(LogSink::topic(format!("pace-v{version}")));
    flow
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    let is_of_the_days = |flight: &Departure| BLIZZARD.contains(&flight.dep_ts);
    let departures: Vec<_> = flights::departures()?.into_iter().filter(is_of_the_days).collect();
    flights::append_by_origin(engine.log(), "blizzard", &departures)?;

    let service = Service::new()?;
    let mut lines = Vec::new();
    let mut run = |version| -> Result<(Vec<Row>, Vec<Pace>), BoxError> {
        engine.run(flow(version, &service))?;
        let mut rows: Vec<Row> = flights::read(engine.log(), &format!("seen-v{version}"))?;
        let mut pace: Vec<Pace> = flights::read(engine.log(), &format!("pace-v{version}"))?;
        rows.sort_by_key(|row| row.0);
        pace.sort_by(|a, b| (a.window, &a.key).cmp(&(b.window, &b.key)));
        let answers = |revision| rows.iter().filter(|row| row.2.revision == revision).count();
        let (asked, failed) = service.take_counts();
        let cells = [version, asked, failed, answers(1) as u64, answers(2) as u64, answers(0) as u64];
        lines.push(cells.map(|cell| cell.to_string()).to_vec());
        Ok((rows, pace))
    };
    let first = run(1)?;
    service.revise();
    let second = run(2)?;
    table(&["version", "asked", "failed", "as first reported", "as revised", "without"], &lines);
    if first != second {
        return Err("version 2 has other rows: this is a bug in Rivermark".into());
    }
    println!(
        "\nBoth have the same {} rows, and counted the same flights in each tenth of a second.\n",
        first.0.len()
    );

    table(&["miles", "flights", "minutes late"], &by_visibility(first.0.iter().map(|row| (row.1, &row.2))));
    Ok(())
}
