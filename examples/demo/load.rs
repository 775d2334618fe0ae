//! The departures' way into the log.

use crate::flights::table::{bytes, facts, grouped, heading, table};
use crate::flights::{self, Departure, ORIGINS};
use crate::flow::DEPARTURES;
use indicatif::{ProgressBar, ProgressStyle};
use rivermark::{BoxError, Engine};
use std::time::Instant;

/// Appends all departures, unless an earlier run has, and answers them.
pub fn load(engine: &Engine) -> Result<Vec<Departure>, BoxError> {
    heading("1  A year of departures goes into the log");
    let departures = flights::departures()?;
    let style = ProgressStyle::with_template("  {bar:50} {human_pos} of {human_len} records, {per_sec}")?;
    let bar = ProgressBar::new(departures.len() as u64).with_style(style);
    let started = Instant::now();
    let count = |records| bar.inc(records as u64);
    flights::append(engine.log(), DEPARTURES, 3, &departures, Departure::partition, count)?;
    let took = started.elapsed();
    bar.finish_and_clear();
    engine.log().sync()?;

    let topic = engine.log().topic(DEPARTURES)?;
    let (mut rows, mut records, mut stored) = (Vec::new(), 0, 0);
    for (partition, origin) in (0..topic.partitions()).zip(ORIGINS) {
        let info = topic.info(partition)?;
        (records, stored) = (records + info.records, stored + info.bytes);
        let name = format!("{DEPARTURES}[{partition}]");
        rows.push(vec![name, origin.to_string(), grouped(info.records), bytes(info.bytes)]);
    }
    table(&["partition", "airport", "records", "stored"], &rows);
    println!();
    facts(&[
        ("appended", format!("{} records in {} (JSON, LZ4)", grouped(records), bytes(stored))),
        (
            "rate",
            format!("{} records/s, encoding included", grouped((records as f64 / took.as_secs_f64()) as u64)),
        ),
    ]);
    if records != flights::DEPARTURES {
        return Err(format!("the log holds {records} departures, not {}", flights::DEPARTURES).into());
    }
    Ok(departures)
}
