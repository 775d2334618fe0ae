//! A weather service as one meets them: slow, sometimes busy, with a station that is down, and with reports that are revised later.

use super::Departure;
use super::weather::Weather;
use rivermark::{BoxError, Timestamp, hours, millis};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What it is asked.
#[derive(Clone, Debug, Hash)]
pub struct Question {
    pub flight: u32,
    pub origin: String,
    pub time: Timestamp,
}

impl Question {
    pub fn about(flight: &Departure) -> Question {
        Question { flight: flight.flight_id, origin: flight.origin.clone(), time: flight.departed() }
    }
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Answer {
    /// How far one could see; none where nobody knows.
    pub miles: Option<f64>,
    /// Of which revision the report is; 0 if the service did not answer.
    pub revision: u64,
}

/// The service; clones are the same one.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

struct Shared {
    /// Miles by airport and time.
    reports: HashMap<String, BTreeMap<Timestamp, f64>>,
    revision: AtomicU64,
    asked: AtomicU64,
    failed: AtomicU64,
    /// Flights that it was too busy for, once.
    put_off: Mutex<HashSet<u32>>,
}

/// The blizzard of February 2013, from the day before it, in seconds since 1970.
pub const BLIZZARD: std::ops::Range<i64> = 1_360_195_200..1_360_540_800;

/// Since when the station of LaGuardia was down, for six hours.
const DOWN_SINCE: Timestamp = Timestamp::from_secs(1_360_324_800);

impl Service {
    /// Knows the weather of the year.
    pub fn new() -> Result<Service, BoxError> {
        let mut reports: HashMap<String, BTreeMap<_, _>> = HashMap::new();
        for Weather { obs_ts, origin, visib_mi } in super::rows_of("weather.csv.zst")? {
            reports.entry(origin).or_default().insert(Timestamp::from_secs(obs_ts), visib_mi);
        }
        let (asked, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let put_off = Mutex::default();
        Ok(Service(Arc::new(Shared { reports, revision: AtomicU64::new(1), asked, failed, put_off })))
    }

    /// How far could one see from an airport? Takes its time, and fails for every tenth flight when it is asked for the first time, and
    /// where the station is down.
    pub fn ask(&self, Question { flight, origin, time }: Question) -> Result<Answer, BoxError> {
        std::thread::sleep(millis(5));
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let is_down = origin == "LGA" && time >= DOWN_SINCE && time < DOWN_SINCE + hours(6);
        let mut put_off = self.0.put_off.lock().unwrap_or_else(PoisonError::into_inner);
        if is_down || flight.is_multiple_of(10) && put_off.insert(flight) {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
            return Err(if is_down { "no contact with the station" } else { "busy: try again" }.into());
        }
        drop(put_off);
        let newest = self.0.reports.get(&origin).and_then(|reports| reports.range(..=time).next_back());
        let revision = self.0.revision.load(Ordering::Relaxed);
        // The revised reports see less far.
        Ok(Answer { miles: newest.map(|(_, miles)| miles / revision as f64), revision })
    }

    /// Gives other answers from now on.
    pub fn revise(&self) {
        self.0.revision.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was asked, and how often it failed, since this was called last.
    pub fn take_counts(&self) -> (u64, u64) {
        (self.0.asked.swap(0, Ordering::Relaxed), self.0.failed.swap(0, Ordering::Relaxed))
    }
}

/// How many flights left, and how late on average, by how far one could see: lines of a table.
pub fn by_visibility<'a>(delays: impl Iterator<Item = (i64, &'a Answer)> + Clone) -> Vec<Vec<String>> {
    let line = |(name, miles): (&str, std::ops::Range<f64>)| {
        let seen = |answer: &Answer| answer.miles.is_some_and(|seen| miles.contains(&seen));
        let delays: Vec<i64> =
            delays.clone().filter(|(_, answer)| seen(answer)).map(|(delay, _)| delay).collect();
        let mean = match delays.len() {
            0 => "-".into(),
            flights => format!("{:.0}", delays.iter().sum::<i64>() as f64 / flights as f64),
        };
        vec![name.into(), delays.len().to_string(), mean]
    };
    [("less than 1", 0.0..1.0), ("1 to 3", 1.0..3.0), ("3 to 10", 3.0..10.0), ("10", 10.0..11.0)]
        .map(line)
        .to_vec()
}
