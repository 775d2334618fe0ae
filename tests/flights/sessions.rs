//! P5: storms of delays, as session windows.

use crate::delays::assert_rows;
use crate::flights::{Delays, Departure, expected};
use crate::setup::{BY_ORIGIN, ONE_PARTITION, for_each_engine, with_departures};
use rivermark::connectors::{Collect, LogSource};
use rivermark::{Flow, Watermarks, Windowed, Windows, days, secs};
use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Storm {
    origin: String,
    session_start: i64,
    session_end: i64,
    n: u64,
    sum_delay_min: i64,
    max_delay_min: i64,
}

impl From<Windowed<String, Delays>> for Storm {
    fn from(row: Windowed<String, Delays>) -> Self {
        Storm {
            origin: row.key,
            session_start: row.window.start.secs(),
            session_end: row.window.end.secs(),
            n: row.value.n,
            sum_delay_min: row.value.sum_delay_min,
            max_delay_min: row.value.max_delay_min,
        }
    }
}

#[test]
fn sessions_join_what_out_of_order_records_bring_together() {
    let directory = with_departures();
    let expected: Vec<Storm> = expected("p5_delay_sessions.csv").unwrap();
    for_each_engine(directory.path(), |engine, name| {
        for topic in [ONE_PARTITION, BY_ORIGIN] {
            let storms = Collect::new();
            let flow = Flow::new(format!("storms-{name}-{topic}"));
            flow.source(LogSource::<Departure>::topic(topic).until_end())
                .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
                .filter(|departure| departure.dep_delay_min >= 60)
                .key_by(|departure| departure.origin.clone())
                .window(Windows::session(secs(1800)))
                .fold(Delays::default(), Delays::add, Delays::merge)
                .map(Storm::from)
                .sink(storms.clone());
            let metrics = engine.run(flow).unwrap();
            let mut storms = storms.rows();
            storms.sort();
            assert_rows(&storms, &expected, &format!("{name}, {topic}"));
            assert_eq!(metrics.late_records, 0);
        }
    });
}
