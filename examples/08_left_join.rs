//! A left join with time-out rows: which flights never left?
//!
//! `cargo run --release --example 08_left_join [DIRECTORY]`
//!
//! Nobody sends a record that says "cancelled". A flight of the schedule that has met no departure after a day gives a row of its own, and
//! the watermark is what says that the day is over. The flow is [`cancellations::flow`], where the tests find it too; they kill it. The
//! program ends with an error if a row is not what another engine computed.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use flights::cancellations::{self, Day, SCHEDULE};
use flights::picture::write_page;
use flights::table::{grouped, table};
use rivermark::connectors::LogSource;
use rivermark::{BoxError, Engine, Timestamp};

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;
    cancellations::append(engine.log())?;

    let schedule = LogSource::topic(SCHEDULE).until_end();
    let departures = LogSource::<Departure>::topic("departures").until_end();
    let metrics = engine.run(cancellations::flow("cancellations", schedule, departures))?;
    println!("{} records read in {:?}\n", grouped(metrics.records_read), metrics.running);

    let rows: Vec<Day> = flights::as_expected(engine.log(), "cancellations", "p4_cancellations_daily.csv")?;
    show(&rows);
    let page =
        write_page(&std::env::temp_dir(), "rivermark-cancellations.html", &[cancellations::section(&rows)])?;
    println!("\nAll rows are as expected. A picture: {}", page.display());
    Ok(())
}

/// The worst days.
fn show(rows: &[Day]) {
    let mut worst: Vec<&Day> = rows.iter().collect();
    worst.sort_by_key(|day| std::cmp::Reverse(day.not_departed));
    let line = |day: &&Day| {
        vec![
            Timestamp::from_secs(day.window_start).to_string()[..10].to_owned(),
            day.origin.clone(),
            day.scheduled.to_string(),
            day.not_departed.to_string(),
            format!("{:.0} %", day.percent_not_departed()),
        ]
    };
    let lines: Vec<_> = worst.iter().take(10).map(line).collect();
    table(&["day", "airport", "scheduled", "did not leave", "share"], &lines);
    let total: u64 = rows.iter().map(|day| day.not_departed).sum();
    println!("\n{} flights of the year did not leave.", grouped(total));
}
