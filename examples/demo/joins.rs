//! Three more flows, which join two topics each, and what comes out of them as pictures.

use crate::flights::cancellations::{self, Day, SCHEDULE};
use crate::flights::picture::write_page;
use crate::flights::routes::{self, ARRIVALS, Route};
use crate::flights::table::{grouped, heading, say, table};
use crate::flights::weather::{self, ByVisibility, WEATHER};
use crate::flights::{Departure, as_expected};
use crate::flow::DEPARTURES;
use rivermark::connectors::LogSource;
use rivermark::{BoxError, Engine, Flow};

/// Runs the flows, compares their rows with those that were computed elsewhere, and writes a page.
pub fn run(engine: &Engine) -> Result<(), BoxError> {
    heading("5  Joined with the weather, the arrivals and the schedule");
    weather::append(engine.log())?;
    routes::append(engine.log())?;
    cancellations::append(engine.log())?;

    let departures = || LogSource::<Departure>::topic(DEPARTURES).until_end();
    let by_weather = weather::flow("by-visibility", departures(), LogSource::topic(WEATHER).until_end());
    let busiest = routes::flow("busiest-routes", departures(), LogSource::topic(ARRIVALS).until_end());
    let cancelled = cancellations::flow("cancelled", LogSource::topic(SCHEDULE).until_end(), departures());
    let lines = [
        measured(engine, "as-of join", "late by visibility", by_weather)?,
        measured(engine, "interval join", "the ten busiest routes of each week", busiest)?,
        measured(engine, "left join, timed out", "flights that never left", cancelled)?,
    ];
    table(&["join", "of which comes", "records read", "records/s"], &lines);

    let log = engine.log();
    let by_weather: Vec<ByVisibility> = as_expected(log, "by-visibility", "p2_delay_by_visibility.csv")?;
    let busiest: Vec<Route> = as_expected(log, "busiest-routes", "p3_top10_routes_weekly.csv")?;
    let cancelled: Vec<Day> = as_expected(log, "cancelled", "p4_cancellations_daily.csv")?;
    let sections =
        [weather::section(&by_weather), routes::section(&busiest), cancellations::section(&cancelled)];
    let page = write_page(&std::env::temp_dir(), "rivermark-flights.html", &sections)?;
    println!();
    say("correct: every row of all three is as computed elsewhere");
    say(format!("pictures of them: {}", page.display()));
    Ok(())
}

/// Runs a flow. Answers a line of the table.
fn measured(engine: &Engine, join: &str, what: &str, flow: Flow) -> Result<Vec<String>, BoxError> {
    let metrics = engine.run(flow)?;
    let rate = metrics.records_read as f64 / metrics.running.as_secs_f64();
    Ok(vec![join.into(), what.into(), grouped(metrics.records_read), grouped(rate as u64)])
}
