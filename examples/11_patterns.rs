//! Patterns: which planes were late all day, and on time again the next morning?
//!
//! `cargo run --release --example 11_patterns [DIRECTORY]`
//!
//! The legs of a plane are looked through in event-time order for two patterns: three or more in a row an hour late, and then, within a day, one
//! that is not late at all; and one five hours late after which New York does not see the plane for two days, which something that is missing
//! tells. The program ends with an error if a row is not what another program computed.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use flights::legs::{self, Leg, PLANNED, Planned, Recovery};
use flights::table::table;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{
    AfterMatch, BoxError, Engine, Flow, Interval, Pattern, Stream, Timestamp, Watermarks, days, hours,
};

/// How often that happened, as another program counted.
const NOT_SEEN: usize = 304;

/// Each departure with its plane, which only the schedule knows.
fn legs(flow: &Flow) -> Stream<Leg> {
    let schedule = flow
        .source(LogSource::<Planned>::topic(PLANNED).until_end())
        .event_time(Planned::due, Watermarks::monotonous())
        .key_by(|flight| flight.flight_id);
    flow.source(LogSource::<Departure>::topic("departures").until_end())
        .event_time(Departure::departed, Watermarks::monotonous())
        .key_by(|flight| flight.flight_id)
        .interval_join(schedule, Interval::around(days(1), hours(1)))
        .inner(|_, departure, planned| Leg::of(departure, planned))
        .filter(|leg| !leg.tailnum.is_empty())
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;
    legs::append(engine.log())?;

    let recovered = Pattern::begin("late")
        .where_(|leg: &Leg| leg.delay_min >= 60)
        .times_or_more(3)
        .consecutive()
        .next("on time")
        .where_(|leg| leg.delay_min <= 0)
        .within(days(1))
        // Of a plane that was late four times the match with all four, and not also the one with the last three.
        .after_match(AfterMatch::SkipPastLastEvent);
    let lost = Pattern::begin("very late")
        .where_(|leg: &Leg| leg.delay_min >= 300)
        .not_followed_by("any other")
        .where_(|_| true)
        .within(days(2));

    let flow = Flow::new("planes");
    let legs = legs(&flow);
    let plane = |leg: &Leg| leg.tailnum.clone();
    legs.clone()
        .key_by(plane)
        .pattern(recovered)
        .select(|plane, found| Recovery::of(plane, found))
        .sink(LogSink::topic("recoveries"));
    legs.key_by(plane)
        .pattern(lost)
        .select(|plane, found| (plane.clone(), found.first("very late").map(|leg| leg.delay_min)))
        .sink(LogSink::topic("not-seen"));
    engine.run(flow)?;

    let mut rows: Vec<Recovery> = flights::as_expected(engine.log(), "recoveries", "p7_recoveries.csv")?;
    rows.sort_by_key(|row| -row.max_delay_min);
    let at = |secs| Timestamp::from_secs(secs).to_string();
    let line = |row: &Recovery| {
        let legs = row.legs.to_string();
        vec![row.tailnum.clone(), at(row.late_since), legs, row.max_delay_min.to_string(), at(row.on_time_at)]
    };
    println!("{} planes recovered overnight. From the longest delays:\n", rows.len());
    let lines: Vec<_> = rows.iter().take(10).map(line).collect();
    table(&["plane", "late since", "legs", "minutes at worst", "on time at"], &lines);
    let not_seen: Vec<(String, Option<i64>)> = flights::read(engine.log(), "not-seen")?;
    println!("\n{} were five hours late, and then not seen for two days.", not_seen.len());
    assert_eq!(not_seen.len(), NOT_SEEN);
    Ok(())
}
