//! The flow as it runs when nothing happens to it.

use crate::flights::table::{bytes, facts, grouped, heading, millis, say, table};
use crate::flights::{Departure, HourlyDelays};
use crate::flow::{DEPARTURES, Output, Version, delays};
use crate::results::{Results, expected};
use rivermark::connectors::LogSource;
use rivermark::{BoxError, Engine, Metrics, Timestamp};

/// The flow's name.
pub const NAME: &str = "delay-by-origin-hour";

/// Runs a version over the whole topic and checks what it wrote.
pub fn run(
    engine: &Engine,
    version: Version,
    departures: &[Departure],
    output: &Output,
) -> Result<Results, BoxError> {
    let source = LogSource::<Departure>::topic(DEPARTURES).until_end();
    let metrics = engine.run(delays(NAME, version, source, output))?;
    let results = Results::read(engine.log(), output)?;
    measured(&metrics, &results);
    results.check(&expected(version, departures)?)?;
    if metrics.late_records > 0 {
        return Err(format!("{} records were late within a bound of 24 hours", metrics.late_records).into());
    }
    Ok(results)
}

/// Version 1, with what there is to see in its result.
pub fn first_version(
    engine: &Engine,
    departures: &[Departure],
    output: &Output,
) -> Result<Results, BoxError> {
    heading("2  Delays by airport and scheduled hour");
    let results = run(engine, Version::One, departures, output)?;
    say(format!("correct: all {} rows are as computed elsewhere", grouped(results.json.len() as u64)));
    let mut rows = results.rows()?;
    rows.sort_by_key(|row| (std::cmp::Reverse(row.n), row.window_start));
    println!("\n  The busiest hours:");
    show(&rows[..5]);
    rows.retain(|row| row.n >= 10);
    rows.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    println!("\n  The most delayed hours of at least ten flights:");
    show(&rows[..5]);
    Ok(results)
}

fn mean(row: &HourlyDelays) -> f64 {
    row.sum_delay_min as f64 / row.n as f64
}

fn show(rows: &[HourlyDelays]) {
    let cells = |row: &HourlyDelays| {
        vec![
            Timestamp::from_secs(row.window_start).to_string(),
            row.origin.clone(),
            row.n.to_string(),
            format!("{:.1}", mean(row)),
            row.max_delay_min.to_string(),
            row.n_late15.to_string(),
        ]
    };
    let header = ["hour", "airport", "flights", "mean delay, min", "worst", "late"];
    table(&header, &rows.iter().map(cells).collect::<Vec<_>>());
}

fn measured(metrics: &Metrics, results: &Results) {
    let mut durations: Vec<_> = metrics.checkpoints.iter().map(|checkpoint| checkpoint.duration).collect();
    durations.sort();
    let median = durations.get(durations.len() / 2).copied().unwrap_or_default();
    let state = metrics.checkpoints.iter().map(|checkpoint| checkpoint.state_bytes).max().unwrap_or(0);
    let rate = metrics.records_read as f64 / metrics.running.as_secs_f64();
    facts(&[
        ("records read", format!("{} in {}", grouped(metrics.records_read), millis(metrics.running))),
        ("rate", format!("{} records/s, from start to the last commit", grouped(rate as u64))),
        ("late records", metrics.late_records.to_string()),
        ("checkpoints", format!("{}, median {}", metrics.checkpoints_completed, millis(median))),
        ("largest state", format!("{} in a checkpoint", bytes(state))),
        (
            "result",
            format!(
                "{} rows, in a topic and in {} CSV files",
                grouped(results.json.len() as u64),
                results.files
            ),
        ),
    ]);
}
