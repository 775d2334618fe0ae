//! Audit and explain: is what was published what the log says, and why is this row what it is?
//!
//! `cargo run --release --example 23_audit_and_explain`
//!
//! The mean delay of each hour and airport, from departures of which one is damaged. It becomes a dead letter, is mended and put in again. Then the
//! flow runs from the log once more and every row is compared; and a row of an hour for which a flight came too late is explained.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use rivermark::connectors::{DeadLetters, LogSink, LogSource};
use rivermark::log::RecordBatch;
use rivermark::source::RawRecord;
use rivermark::{Audit, BoxError, DeadLetter, Engine, Explain, Flow, Job, OnError, Watermarks};
use rivermark::{Windowed, Windows, hours};

fn mean_delays() -> Flow {
    let flow = Flow::new("mean-delays");
    flow.source(LogSource::<Departure>::topic("departures"))
        .named("departures")
        .on_error(OnError::DeadLetter)
        .event_time(Departure::scheduled, Watermarks::bounded(hours(3)))
        .key_by(|flight| flight.origin.clone())
        .window(Windows::tumbling(hours(1)))
        .late_output(|late| late.map(|late| late.value).sink_as("late", LogSink::topic("late")))
        .average(|flight| flight.dep_delay_min as f64)
        .sink(LogSink::topic("mean-delays"));
    flow.dead_letters_to(LogSink::topic("dead-letters"));
    flow
}

/// Somebody has written minutes as text.
fn mend(letter: &DeadLetter) -> Result<Option<RawRecord>, BoxError> {
    let value = String::from_utf8(letter.value().unwrap_or_default().to_vec())?;
    Ok(Some(RawRecord { key: None, value: Some(value.replace("\"7 min\"", "7").into_bytes()) }))
}

fn read(job: &Job, records: u64) -> Result<(), BoxError> {
    job.wait_until(|job| job.metrics().records_read >= records);
    Ok(job.checkpoint().map(drop)?)
}

fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let engine = Engine::open(directory.path())?;
    let departures = flights::departures()?;
    flights::append_by_origin(engine.log(), "departures", &departures)?;
    let mut damaged = serde_json::to_value(&departures[departures.len() - 1])?;
    damaged["dep_delay_min"] = "7 min".into();
    let mut batch = RecordBatch::new();
    batch.push(None, Some(damaged.to_string().as_bytes()), 0);
    engine.log().topic("departures")?.append(0, &mut batch)?;

    let all = departures.len() as u64 + 1;
    let job = engine.start(mean_delays())?;
    read(&job, all)?;
    let letters = DeadLetters::of_topic(engine.log(), "dead-letters").error("invalid type");
    for filed in letters.list()? {
        println!("a dead letter: {}", filed?.letter.error);
    }
    println!("{}\n", letters.redrive("minutes-as-text").mend(mend).run()?);
    read(&job, all + 1)?;

    // Beside the job, which goes on.
    let report = engine.audit(mean_delays(), Audit::from_earliest())?.wait()?;
    println!("{report}");
    if !report.is_identical() {
        return Err("what was published is not what the log says".into());
    }

    let late = flights::read::<Departure>(engine.log(), "late")?.pop().ok_or("nothing was late")?;
    let rows: Vec<Windowed<String, f64>> = flights::read(engine.log(), "mean-delays")?;
    let is_in = |window: rivermark::Window| (window.start..window.end).contains(&late.scheduled());
    let hour = |row: &Windowed<String, f64>| row.key == late.origin && is_in(row.window);
    let offset = rows.iter().position(hour).ok_or("the hour of the late flight has no row")?;
    println!("{}", engine.explain(mean_delays(), Explain::row("mean-delays", 0, offset as u64).at_most(5))?);
    Ok(())
}
