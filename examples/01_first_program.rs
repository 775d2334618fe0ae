//! The first program: clicks per page and minute, from one topic of the embedded log to another.
//!
//! `cargo run --release --example 01_first_program [DIRECTORY]`
//!
//! With a DIRECTORY of your own, run it twice: the second time nothing is left to do, and the result is still there.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Isolation, Log, Position, RecordBatch, TopicOptions};
use rivermark::{BoxError, Engine, Flow, Timestamp, Watermarks, Windowed, Windows, minutes, secs};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Click {
    page: String,
    at: Timestamp,
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);

    // 1. An engine is a data directory and what runs on it: a log, checkpoints, state.
    let engine = Engine::open(&directory)?;
    append_clicks(engine.log())?;

    // 2. A flow is a description. Records are as old as they say, up to 5 seconds out of order; each page's are counted by the minute.
    let flow = Flow::new("clicks-per-minute");
    flow.source(LogSource::<Click>::topic("clicks").until_end())
        .event_time(|click| click.at, Watermarks::bounded(secs(5)))
        .key_by(|click| click.page.clone())
        .window(Windows::tumbling(minutes(1)))
        .count()
        .sink(LogSink::topic("clicks-per-minute"));

    // 3. Running it ends here because the source ends. Without `until_end` it would wait for more clicks.
    let metrics = engine.run(flow)?;
    println!("{} clicks read in {:?}\n", metrics.records_read, metrics.running);

    // 4. The result is a topic like any other.
    let mut rows =
        engine.log().topic("clicks-per-minute")?.reader(0, Position::Earliest, Isolation::ReadCommitted)?;
    println!("{:<22} {:<8} {:>6}", "minute", "page", "clicks");
    while let Some(records) = rows.next_batch()? {
        for record in records {
            let row: Windowed<String, u64> = serde_json::from_slice(record.value.unwrap_or_default())?;
            println!("{:<22} {:<8} {:>6}", row.window.start.to_string(), row.key, row.value);
        }
    }
    Ok(())
}

/// Three minutes of clicks, a second or so out of order, unless they are in the log already.
fn append_clicks(log: &Log) -> Result<(), BoxError> {
    let clicks = log.ensure_topic("clicks", TopicOptions::new(1))?;
    if clicks.info(0)?.end > 0 {
        return Ok(());
    }
    let mut batch = RecordBatch::new();
    for n in 0..600_i64 {
        let at = Timestamp::from_millis(1_700_000_040_000 + n * 300 + n * 37 % 1000);
        let page = ["/", "/", "/", "/docs", "/docs", "/blog"][(n % 6) as usize];
        let click = serde_json::to_vec(&Click { page: page.into(), at })?;
        batch.push(None, Some(&click), at.millis());
    }
    clicks.append(0, &mut batch)?;
    Ok(())
}
