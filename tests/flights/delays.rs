//! P1: delays by origin and scheduled hour.

use crate::flights::{Delays, Departure, HourlyDelays, expected};
use crate::setup::{BY_ORIGIN, ONE_PARTITION, for_each_engine, with_departures};
use rivermark::connectors::{Collect, LogSource};
use rivermark::{Engine, Flow, Metrics, Stream, Watermarks, Windows, hours, secs};
use serde::Deserialize;

/// A bound that no departure is late for.
pub const DAY_S: u64 = 86_400;

/// The flow of this test and of all that disturb it.
pub fn by_hour(departures: Stream<Departure>, bound_s: u64) -> Stream<HourlyDelays> {
    departures
        .event_time(Departure::scheduled, Watermarks::bounded(secs(bound_s)))
        .key_by(|departure| departure.origin.clone())
        .window(Windows::tumbling(hours(1)))
        .fold(Delays::default(), Delays::add, Delays::merge)
        .named(&format!("bound-{bound_s}"))
        .map(HourlyDelays::from)
}

fn run(engine: &Engine, name: &str, topic: &str, bound_s: u64) -> (Vec<HourlyDelays>, Metrics) {
    let rows = Collect::new();
    let flow = Flow::new(format!("delays-{name}-{topic}-{bound_s}"));
    let departures = flow.source(LogSource::<Departure>::topic(topic).until_end());
    by_hour(departures, bound_s).sink(rows.clone());
    let metrics = engine.run(flow).unwrap();
    let mut rows = rows.rows();
    rows.sort();
    (rows, metrics)
}

/// Compares rows, and shows the first that differs rather than twenty thousand.
pub fn assert_rows<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T], what: &str) {
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    if let Some(at) = differs {
        panic!("{what}: row {at} is {:?} and should be {:?}", found[at], expected[at]);
    }
    assert_eq!(found.len(), expected.len(), "{what}: number of rows");
}

#[test]
fn every_departure_is_in_its_hour_with_a_bound_of_a_day() {
    let directory = with_departures();
    let expected: Vec<HourlyDelays> = expected("p1_delay_by_origin_hour.csv").unwrap();
    for_each_engine(directory.path(), |engine, name| {
        for topic in [ONE_PARTITION, BY_ORIGIN] {
            let (rows, metrics) = run(engine, name, topic, DAY_S);
            assert_rows(&rows, &expected, &format!("{name}, {topic}"));
            assert_eq!((metrics.records_read, metrics.late_records), (328_521, 0));
        }
    });
}

#[test]
fn the_same_records_are_late_with_any_number_of_workers() {
    let directory = with_departures();
    let answers = [
        (ONE_PARTITION, "p1_delay_by_origin_hour_bound3600.csv"),
        (BY_ORIGIN, "p1_delay_by_origin_hour_bound3600_by_origin.csv"),
    ];
    let answers = answers.map(|(topic, file)| (topic, expected::<HourlyDelays>(file).unwrap()));
    for_each_engine(directory.path(), |engine, name| {
        for (topic, expected) in &answers {
            let (rows, _) = run(engine, name, topic, 3600);
            assert_rows(&rows, expected, &format!("{name}, {topic}"));
        }
    });
}

#[derive(Deserialize)]
struct LateSummary {
    bound_s: u64,
    dropped: u64,
    records: u64,
}

#[test]
fn late_records_are_counted_exactly_for_every_bound() {
    let directory = with_departures();
    let answers = [(ONE_PARTITION, "p1_late_summary.csv"), (BY_ORIGIN, "p1_late_summary_by_origin.csv")];
    let answers = answers.map(|(topic, file)| (topic, expected::<LateSummary>(file).unwrap()));
    for_each_engine(directory.path(), |engine, name| {
        for (topic, summary) in &answers {
            // One reading of the topic feeds a pipeline for each bound.
            let flow = Flow::new(format!("late-{name}-{topic}"));
            let departures = flow.source(LogSource::<Departure>::topic(*topic).until_end());
            let counted = Collect::new();
            for bound in summary {
                by_hour(departures.clone(), bound.bound_s).map(|row| row.n).sink(counted.clone());
            }
            let metrics = engine.run(flow).unwrap();
            for bound in summary {
                let window = metrics.operator(&format!("bound-{}", bound.bound_s)).unwrap();
                assert_eq!(window.late, bound.dropped, "{name}, {topic}, bound {} s", bound.bound_s);
            }
            // What is not in a window is late, and nothing is lost between the two.
            let all: u64 = summary.iter().map(|bound| bound.records - bound.dropped).sum();
            assert_eq!(counted.rows().into_iter().sum::<u64>(), all, "{name}, {topic}");
        }
    });
}
