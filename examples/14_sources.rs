//! Sources that come and go: one topic an airport, of which one falls silent, and another appears when half a year is over.
//!
//! `cargo run --release --example 14_sources [DIRECTORY]`
//!
//! A pattern chooses the topics. Their records carry watermarks, so none has to be guessed. Nobody waits long for the silent one, and nobody
//! has waited for the one that appears: of its months that were over, each flight is late. That was an accident of the day. It is written down with
//! the checkpoints, and version 2, which reads the log anew, repeats it; a flow that nobody has run before sees what is in the log.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::table::table;
use flights::towers::{self, Line};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, Engine, Flow, Options, RateLimit, Timestamp, Watermarks, Windows, days, millis};

/// Flights by airport and day of the schedule.
fn flow(name: &str, version: u64, towers: LogSource<Line>) -> Flow {
    let flow = Flow::new(name).version(version);
    let watermarks = Watermarks::punctuated()
        // Who has sent nothing for so long is not waited for.
        .idle_after(millis(200))
        // Nobody is read more than a week ahead of the others, and other sources could join: that bounds what has to be kept.
        .align_group("towers", days(7));
    flow.source(towers)
        .named("towers")
        .rate_limit(RateLimit::records_per_second(500_000))
        .event_time_punctuated(Line::due, watermarks, Line::says)
        .named("time")
        .filter_map(Line::flight)
        .key_by(|flight| flight.origin.clone())
        .window(Windows::tumbling(days(1)))
        .count()
        .sink(LogSink::topic(format!("{name}-{version}")));
    flow
}

fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let engine = Engine::open_with(&directory, Options::new().discover_every(millis(20)))?;
    let departures = flights::departures()?;
    // The beginning of the year, of March and of July.
    let [january, march, july, end] =
        [1_356_998_400, 1_362_096_000, 1_372_636_800, 1_388_534_400].map(Timestamp::from_secs);
    let mut lines = towers::append(engine.log(), "EWR", &departures, [january, july])?;
    lines += towers::append(engine.log(), "JFK", &departures, [january, march])?;

    let towers = LogSource::topics_matching("tower-*");
    let job = engine.start(flow("live", 1, towers))?;
    let has_come_to = |time| job.metrics().operator("time").is_some_and(|it| it.watermark >= time);
    job.wait_until(|_| has_come_to(july - days(2)));
    lines += towers::append(engine.log(), "LGA", &departures, [march, end])?;
    job.wait_until(|job| job.metrics().records_read == lines);
    job.drain();
    let live = job.wait()?;

    let towers = || LogSource::topics_matching("tower-*").until_end();
    let replayed = engine.run(flow("live", 2, towers()))?;
    let other = engine.run(flow("undisturbed", 1, towers()))?;
    let months = |topic| towers::months(engine.log(), topic);
    let (first, second, third) = (months("live-1")?, months("live-2")?, months("undisturbed-1")?);
    let line = |month: &String| {
        let columns = [(&first, "EWR"), (&first, "JFK"), (&first, "LGA"), (&second, "LGA"), (&third, "LGA")];
        let cells =
            columns.map(|(rows, airport)| rows[month].get(airport).map_or("-".into(), u64::to_string));
        [vec![month.clone()], cells.to_vec()].concat()
    };
    let lines: Vec<_> = first.keys().map(line).collect();
    table(&["month", "EWR", "JFK", "LGA, live", "replayed", "never live"], &lines);
    let late = [live, replayed, other].map(|metrics| metrics.late_records);
    println!("\nlate: {} live, {} replayed, {} in a flow that was never live", late[0], late[1], late[2]);
    if first != second || late[0] != late[1] || late[2] > 0 {
        return Err("the replay is another: this is a bug in Rivermark".into());
    }
    Ok(())
}
