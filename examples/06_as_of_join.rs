//! An as-of join: how late are planes when one cannot see far?
//!
//! `cargo run --release --example 06_as_of_join [DIRECTORY]`
//!
//! Each departure is joined with the newest weather that its airport had reported by then. The flow, [`weather::flow`], stands where the
//! tests find it too; they kill it. The program ends with an error if a row is not what another engine computed.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::picture::write_page;
use flights::table::{grouped, table};
use flights::weather::{self, BANDS, ByVisibility, WEATHER};
use flights::{Departure, ORIGINS};
use rivermark::connectors::LogSource;
use rivermark::{BoxError, Engine};

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;
    weather::append(engine.log())?;

    // Two sources, each with its own watermark: neither has to be read before the other.
    let departures = LogSource::<Departure>::topic("departures").until_end();
    let observations = LogSource::topic(WEATHER).until_end();
    let metrics = engine.run(weather::flow("delay-by-visibility", departures, observations))?;
    println!("{} records read in {:?}\n", grouped(metrics.records_read), metrics.running);

    let rows: Vec<ByVisibility> =
        flights::as_expected(engine.log(), "delay-by-visibility", "p2_delay_by_visibility.csv")?;
    show(&rows);
    let page = write_page(&std::env::temp_dir(), "rivermark-visibility.html", &[weather::section(&rows)])?;
    println!("\nAll rows are as expected. A picture: {}", page.display());
    Ok(())
}

/// Bands of visibility, and the airports' late flights beside each other.
fn show(rows: &[ByVisibility]) {
    let find =
        |origin: &str, band: &str| rows.iter().find(|row| row.origin == origin && row.visibility == band);
    let line = |band: &&str| {
        let flights: u64 = ORIGINS.iter().filter_map(|origin| find(origin, band)).map(|row| row.n).sum();
        let late = |origin: &&str| {
            find(origin, band).map_or(String::new(), |row| format!("{:.1} %", row.percent_late()))
        };
        let cells = [format!("{band} miles"), grouped(flights)].into_iter();
        cells.chain(ORIGINS.iter().map(late)).collect::<Vec<_>>()
    };
    let lines: Vec<_> = BANDS.iter().map(line).collect();
    table(&["visibility", "flights", "late at EWR", "at JFK", "at LGA"], &lines);
}
