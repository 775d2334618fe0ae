//! Records on which something fails: they leave the flow as dead letters, with their bytes and where they lay, and the rest goes on.
//!
//! `cargo run --release --example 13_errors [DIRECTORY]`
//!
//! Three records are appended that are no departures. One cannot be decoded, two do not stand up to a check, and neither do the longest delays of
//! the year, which are real. Without `on_error` the job would stop at the first, and its error would name the record.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Log, RecordBatch};
use rivermark::{BoxError, DeadLetter, Engine, Flow, OnError, RateLimit, Watermarks, Windowed};

/// A departure that can be believed. Whatever error it returns is in the letter, with the errors behind it.
fn check(flight: Departure) -> Result<Departure, BoxError> {
    if !flights::ORIGINS.contains(&&*flight.origin) {
        return Err(format!("nothing leaves from {:?}", flight.origin).into());
    }
    if flight.dep_delay_min > 18 * 60 {
        return Err(format!("{} minutes late: somebody has to look at that", flight.dep_delay_min).into());
    }
    Ok(flight)
}

fn append_damaged(log: &Log, sample: &Departure) -> Result<(), BoxError> {
    let lost = Departure { origin: "XYZ".into(), ..sample.clone() };
    let nameless = Departure { origin: String::new(), ..sample.clone() };
    let values =
        [b"{\"dep_ts\": 138\xff".to_vec(), serde_json::to_vec(&lost)?, serde_json::to_vec(&nameless)?];
    for (partition, value) in values.iter().enumerate() {
        let mut batch = RecordBatch::new();
        batch.push(Some(b"damaged"), Some(value), 0);
        log.topic("departures")?.append(partition as u32, &mut batch)?;
    }
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    let departures = flights::departures()?;
    flights::append_by_origin(engine.log(), "departures", &departures)?;
    append_damaged(engine.log(), &departures[departures.len() - 1])?;

    let flow = Flow::new("delays");
    flow.source(LogSource::<Departure>::topic("departures").until_end())
        .named("departures")
        .on_error(OnError::DeadLetter)
        // Fast, and yet not as fast as it could: results are the same.
        .rate_limit(RateLimit::records_per_second(500_000))
        .try_map(check)
        .named("check")
        .on_error(OnError::DeadLetter)
        .event_time(Departure::departed, Watermarks::monotonous())
        .key_by(|flight| flight.origin.clone())
        .window(flights::whole_year())
        .average(|flight| flight.dep_delay_min as f64)
        .sink(LogSink::topic("delays"));
    // Of all operators that said so; `stream.dead_letters()` would take those of one.
    flow.dead_letters_to(LogSink::topic("dead-letters"));
    engine.run(flow)?;

    println!("{:10} {:23} {:>6}  what failed", "operator", "record", "offset");
    for letter in flights::read::<DeadLetter>(engine.log(), "dead-letters")? {
        let place = letter.partition().unwrap_or("no single one");
        println!("{:10} {place:23} {:>6}  {}", letter.operator, letter.offset().unwrap_or(0), letter.error);
        let bytes = letter.value().unwrap_or_default().escape_ascii().to_string();
        println!("{:42}  {}", "", bytes.replace("\\\"", "\""));
    }
    for row in flights::read::<Windowed<String, f64>>(engine.log(), "delays")? {
        println!("{}: {:.1} minutes late on average", row.key, row.value);
    }
    Ok(())
}
