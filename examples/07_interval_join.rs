//! An interval join, and windows on top of it: which are the busiest routes of each week?
//!
//! `cargo run --release --example 07_interval_join [DIRECTORY]`
//!
//! A departure meets its arrival, which comes within a day; what comes out is counted by route and week, and ranked. The flow is
//! [`routes::flow`], where the tests find it too; they kill it. The program ends with an error if a row is not what another engine computed.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use flights::picture::write_page;
use flights::routes::{self, ARRIVALS, Route};
use flights::table::{grouped, table};
use rivermark::connectors::LogSource;
use rivermark::{BoxError, Engine};

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;
    routes::append(engine.log())?;

    let departures = LogSource::<Departure>::topic("departures").until_end();
    let arrivals = LogSource::topic(ARRIVALS).until_end();
    let metrics = engine.run(routes::flow("busiest-routes", departures, arrivals))?;
    println!("{} records read in {:?}\n", grouped(metrics.records_read), metrics.running);

    let rows: Vec<Route> =
        flights::as_expected(engine.log(), "busiest-routes", "p3_top10_routes_weekly.csv")?;
    show(&rows);
    let page = write_page(&std::env::temp_dir(), "rivermark-routes.html", &[routes::section(&rows)])?;
    println!("\nAll rows are as expected. A picture: {}", page.display());
    Ok(())
}

/// The routes that were among the first ten with the most flights, and how they did.
fn show(rows: &[Route]) {
    let line = |weeks: &Vec<&Route>| {
        let mut year = Route::default();
        weeks.iter().for_each(|week| year.add(week));
        let ranks = weeks.iter().map(|week| week.rank);
        vec![
            format!("{} to {}", year.origin, year.dest),
            weeks.len().to_string(),
            ranks.min().unwrap_or_default().to_string(),
            grouped(year.n),
            format!("{:.1}", year.sum_recovered_min as f64 / year.n as f64),
            format!("{:.1}", year.sum_gate_to_gate_s as f64 / 3600.0 / year.n as f64),
        ]
    };
    let lines: Vec<_> = routes::by_route(rows).iter().take(10).map(line).collect();
    table(&["route", "weeks", "best rank", "flights", "minutes made up", "hours gate to gate"], &lines);
}
