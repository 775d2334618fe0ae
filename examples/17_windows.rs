//! Windows of other kinds: with all their records, by count, without an end, and two streams in the same window.
//!
//! `cargo run --release --example 17_windows [DIRECTORY]`
//!
//! Each asks something about the delays of the year that a sum in an hour does not tell. All of it is in order of event time, and so the same in
//! every replay.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use flights::table::table;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, Engine, Flow, Paned, Trigger, Watermarks, Windowed, Windows, days, minutes};
use std::collections::BTreeMap;

/// A route, and which of two flights of the same quarter of an hour left with the smaller delay: the first (-1), the second (1), or neither (0).
type Duel = (String, i8);

fn flow() -> Flow {
    let flow = Flow::new("windows");
    let departures = flow
        .source(LogSource::<Departure>::topic("departures").until_end())
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)));
    let by_origin = |flight: &Departure| flight.origin.clone();

    // A function is given all records of a window, and its bounds: here for the median, which no sum gives.
    let weekly = departures.clone().key_by(by_origin).window(Windows::tumbling(days(7)));
    let medians = weekly.process(|week| {
        let mut delays: Vec<i64> = week.value.iter().map(|flight| flight.dep_delay_min).collect();
        delays.sort_unstable();
        Ok(delays.get(delays.len() / 2).map(|median| (week.key, week.window.start.secs(), *median)))
    });
    medians.sink(LogSink::topic("medians"));

    // Each hundred flights, the last two hundred, however long that took: a row's window is from the first to the last of them.
    let runs = departures.clone().key_by(by_origin).sliding_count_windows(200, 100);
    runs.average(|flight| flight.dep_delay_min as f64).sink(LogSink::topic("runs"));

    // One window for good, which is told each 25,000 flights.
    let so_far = departures.clone().key_by(by_origin).window(Windows::global());
    let every = Trigger::on_watermark().early_on_count(25_000);
    so_far
        .trigger(every)
        .accumulating()
        .average(|flight| flight.dep_delay_min as f64)
        .sink(LogSink::topic("so-far"));

    // Two airlines, the same route, the same quarter of an hour.
    let of = |carrier: &'static str| {
        let flights = departures.clone().filter(move |flight| flight.carrier == carrier);
        flights.key_by(|flight| (flight.origin.clone(), flight.dest.clone()))
    };
    of("UA")
        .window_join(of("AA"), Windows::tumbling(minutes(15)))
        .inner(|(from, to), _, united, american| {
            (format!("{from} to {to}"), united.dep_delay_min.cmp(&american.dep_delay_min) as i8)
        })
        .sink(LogSink::topic("duels"));
    flow
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;
    engine.run(flow())?;

    let medians: Vec<(String, i64, i64)> = flights::read(engine.log(), "medians")?;
    let runs: Vec<Windowed<String, f64>> = flights::read(engine.log(), "runs")?;
    let so_far: Vec<Paned<String, f64>> = flights::read(engine.log(), "so-far")?;
    let line = |origin: &&str| {
        let weeks = medians.iter().filter(|row| row.0 == *origin).map(|row| row.2);
        let worst = runs.iter().filter(|row| row.key == *origin).max_by(|a, b| a.value.total_cmp(&b.value));
        let worst = worst.map_or(String::new(), |row| format!("{:.0} from {}", row.value, row.window.start));
        let means = so_far.iter().filter(|row| row.key == *origin).map(|row| format!("{:.1}", row.value));
        let (least, most) = (weeks.clone().min().unwrap_or(0), weeks.max().unwrap_or(0));
        vec![origin.to_string(), format!("{least} to {most}"), worst, means.collect::<Vec<_>>().join(" ")]
    };
    println!("Delays in minutes:\n");
    let lines: Vec<_> = flights::ORIGINS.iter().map(line).collect();
    table(&["airport", "median of a week", "worst mean of 200", "mean so far, each 25,000"], &lines);

    let mut routes: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for (route, duel) in flights::read::<Duel>(engine.log(), "duels")? {
        routes.entry(route).or_default()[(duel + 1) as usize] += 1;
    }
    println!("\nTwo of one quarter of an hour: who left with the smaller delay?\n");
    let line = |(route, counts): (&String, &[u64; 3])| {
        [vec![route.clone()], counts.map(|count| count.to_string()).to_vec()].concat()
    };
    table(&["route", "United", "neither", "American"], &routes.iter().map(line).collect::<Vec<_>>());
    Ok(())
}
