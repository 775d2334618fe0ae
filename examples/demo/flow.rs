//! The flow: delays by airport and hour of the schedule, in two versions.

use crate::flights::{Delays, Departure, HourlyDelays};
use rivermark::connectors::{CsvSink, LogSink};
use rivermark::source::Source;
use rivermark::{Flow, Watermarks, Windows, days, hours};
use std::path::{Path, PathBuf};

/// The topic that the departures are in, a partition for each airport.
pub const DEPARTURES: &str = "departures";

/// Where a run's results go.
#[derive(Clone, Debug)]
pub struct Output {
    pub topic: String,
    pub files: PathBuf,
}

impl Output {
    /// The topic `name`, and CSV files in a folder of that name.
    pub fn new(directory: &Path, name: &str) -> Output {
        Output { topic: name.to_string(), files: directory.join("csv").join(name) }
    }
}

/// Which version of the flow.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// Has a bug.
    One,
    /// Has not.
    Two,
}

impl Version {
    /// Whether a flight counts as late. It does from a quarter of an hour on (US Bureau of Transportation Statistics); version 1 forgets those
    /// that are late by exactly that.
    pub fn is_late(self, delay_min: i64) -> bool {
        match self {
            Version::One => delay_min > 15,
            Version::Two => delay_min >= 15,
        }
    }

    fn number(self) -> u64 {
        match self {
            Version::One => 1,
            Version::Two => 2,
        }
    }
}

/// Describes the flow.
pub fn delays(
    name: &str,
    version: Version,
    departures: impl Source<Item = Departure>,
    output: &Output,
) -> Flow {
    let flow = Flow::new(name).version(version.number());
    let add = move |hour: &mut Delays, departure: &Departure| {
        hour.merge(&Delays::of(departure, version.is_late(departure.dep_delay_min)));
    };
    let rows = flow
        .source(departures)
        .named("departures")
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
        .key_by(|departure| departure.origin.clone())
        .window(Windows::tumbling(hours(1)))
        .fold(Delays::default(), add, Delays::merge)
        .named("delays-by-hour")
        .map(HourlyDelays::from);
    rows.clone().sink_as("files", CsvSink::directory(&output.files));
    rows.sink_as(
        "topic",
        LogSink::topic(&output.topic).key(|row: &HourlyDelays| row.origin.clone().into_bytes()),
    );
    flow
}
