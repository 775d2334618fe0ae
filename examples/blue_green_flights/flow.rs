//! The flow, in its versions, and another one that reads its output along.

use crate::flights::{Delays, Departure, HourlyDelays};
use rivermark::connectors::{AliasSource, Collect, LogSink, LogSource};
use rivermark::{BoxError, Context, Flow, ProcessFunction, Value, Watermarks, Windows, days, hours};
use serde::{Deserialize, Serialize};

/// The flow's name.
pub const FLOW: &str = "delays";
/// The topic that the departures are in, a partition for each airport.
pub const DEPARTURES: &str = "departures";
/// What readers of the rows follow from version to version.
pub const OUTPUT: &str = "delays-by-hour";
/// The operator whose open windows can be asked for.
pub const HOURS: &str = "hours";
/// The topic that the other flow copies the rows to.
pub const COPIED: &str = "copied";
/// What is kept of each carrier, and can be asked for.
pub const PUNCTUALITY: Value<Punctuality> = Value::new("punctuality");

/// Whether a flight counts as late. It does from a quarter of an hour on; version 1 forgets those that are late by exactly that.
pub fn is_late(version: u64, delay_min: i64) -> bool {
    if version == 1 { delay_min > 15 } else { delay_min >= 15 }
}

/// The flights of a carrier.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Punctuality {
    pub flights: u64,
    pub late: u64,
    pub delay_min: i64,
}

impl Punctuality {
    /// Adds a flight, as a version sees it.
    pub fn add(&mut self, version: u64, delay_min: i64) {
        self.flights += 1;
        self.late += u64::from(is_late(version, delay_min));
        self.delay_min += delay_min;
    }
}

/// Keeps the punctuality of each carrier, of the version that is given.
#[derive(Clone)]
struct Carriers(u64);

impl ProcessFunction<String, Departure> for Carriers {
    type Out = ();

    fn on_record(
        &mut self,
        _: &String,
        departure: Departure,
        cx: &mut Context<'_, String, ()>,
    ) -> Result<(), BoxError> {
        let mut carrier = cx.state(PUNCTUALITY).get()?.unwrap_or_default();
        carrier.add(self.0, departure.dep_delay_min);
        cx.state(PUNCTUALITY).set(carrier)
    }
}

/// A version of the flow: a row for each airport and hour of the schedule, and the punctuality of carriers, for those who ask.
pub fn delays(version: u64) -> Flow {
    let flow = Flow::new(FLOW).version(version);
    let departures = flow
        .source(LogSource::<Departure>::topic(DEPARTURES))
        .named("departures")
        .event_time(Departure::scheduled, Watermarks::bounded(days(1)));
    let add = move |hour: &mut Delays, departure: &Departure| {
        hour.merge(&Delays::of(departure, is_late(version, departure.dep_delay_min)));
    };
    departures
        .clone()
        .key_by(|departure| departure.origin.clone())
        .window(Windows::tumbling(hours(1)))
        .fold(Delays::default(), add, Delays::merge)
        .named(HOURS)
        .map(HourlyDelays::from)
        .sink(
            LogSink::output(OUTPUT)
                .key(|row: &HourlyDelays| format!("{} {}", row.origin, row.window_start).into_bytes()),
        );
    departures
        .key_by(|departure| departure.carrier.clone())
        .process(Carriers(version))
        .named("carriers")
        .sink(Collect::new());
    flow
}

/// Reads the rows as anybody would, and writes them down.
pub fn copy() -> Flow {
    let flow = Flow::new("copy");
    flow.source(AliasSource::<HourlyDelays>::of(OUTPUT)).sink(LogSink::topic(COPIED));
    flow
}
