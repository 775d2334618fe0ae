//! What the towers of airports send: departures, and now and then the word that a day is done.

use super::Departure;
use rivermark::log::{Compression, Log, RecordBatch, TopicOptions};
use rivermark::{BoxError, Punctuation, Timestamp, Windowed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A line of a tower, in the order in which it was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// A plane has left.
    Left(Departure),
    /// Whatever was due before this time, in seconds since 1970, has left or never will.
    Done(i64),
}

impl Line {
    pub fn due(&self) -> Timestamp {
        match self {
            Line::Left(flight) => flight.scheduled(),
            Line::Done(before) => Timestamp::from_secs(*before),
        }
    }

    /// What it promises about the lines behind it.
    pub fn says(&self) -> Punctuation {
        match self {
            Line::Left(_) => Punctuation::None,
            Line::Done(_) => Punctuation::Heartbeat(self.due()),
        }
    }

    pub fn flight(self) -> Option<Departure> {
        match self {
            Line::Left(flight) => Some(flight),
            Line::Done(_) => None,
        }
    }
}

/// Appends an airport's departures that were due from one time to another to the topic `tower-AIRPORT`, unless it is there, with a word at the
/// end of each day. Answers how many lines those are.
pub fn append(
    log: &Log,
    airport: &str,
    departures: &[Departure],
    due: [Timestamp; 2],
) -> Result<u64, BoxError> {
    let topic =
        log.ensure_topic(&format!("tower-{airport}"), TopicOptions::new(1).compression(Compression::Lz4))?;
    if topic.info(0)?.end == 0 {
        let is_sent =
            |flight: &&Departure| flight.origin == airport && (due[0]..due[1]).contains(&flight.scheduled());
        let mut batch = RecordBatch::new();
        for line in with_days_done(departures.iter().filter(is_sent)) {
            batch.push(None, Some(&serde_json::to_vec(&line)?), 0);
        }
        topic.append(0, &mut batch)?;
    }
    Ok(topic.info(0)?.end)
}

/// Departures, with the earliest that is still to leave said each day.
fn with_days_done<'a>(departures: impl DoubleEndedIterator<Item = &'a Departure>) -> Vec<Line> {
    let day = |flight: &Departure| flight.dep_ts / 86_400;
    let mut lines = Vec::new();
    // From the end, where it is known what has not left yet.
    let (mut earliest, mut later) = (i64::MAX, None);
    for flight in departures.rev() {
        if later.is_some_and(|later| later != day(flight)) {
            lines.push(Line::Done(earliest));
        }
        (earliest, later) = (earliest.min(flight.sched_dep), Some(day(flight)));
        lines.push(Line::Left(flight.clone()));
    }
    lines.reverse();
    lines
}

/// Flights by month and airport, of a topic's counts by day. All months are there.
pub fn months(log: &Log, topic: &str) -> Result<BTreeMap<String, BTreeMap<String, u64>>, BoxError> {
    let mut months: BTreeMap<_, BTreeMap<_, u64>> =
        (1..=12).map(|month| (format!("2013-{month:02}"), BTreeMap::new())).collect();
    for Windowed { key, window, value, .. } in super::read::<Windowed<String, u64>>(log, topic)? {
        *months.entry(window.start.to_string()[..7].into()).or_default().entry(key).or_default() += value;
    }
    Ok(months)
}
