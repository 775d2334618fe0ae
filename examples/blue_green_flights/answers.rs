//! What is right, computed by a plain program: what any version must answer at any offsets, and the rows that it must have written.

use crate::flights::{self, Delays, Departure, HourlyDelays, ORIGINS};
use crate::flow::{self, Punctuality, is_late};
use rivermark::BoxError;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

const HOUR_S: i64 = 3_600;
const BOUND_S: i64 = 86_400;

/// How many records of each partition have been read.
pub type Offsets = [u64; 3];
/// Hour and airport.
pub type Place = (i64, String);
/// A row, and the version that readers have it from.
pub type RowOf = (u64, HourlyDelays);

/// What the first version makes of some records, and what the later ones do: behind the record with this offset.
type Since<T> = Vec<(u64, [T; 2])>;

/// The departures, and what follows from them.
pub struct Answers {
    pub departures: Vec<Departure>,
    /// By carrier and partition.
    carriers: BTreeMap<String, [Since<Punctuality>; 3]>,
    /// By partition and hour.
    hours: [BTreeMap<i64, Since<Delays>>; 3],
    /// The latest schedule of the first records, by partition.
    latest: [Vec<i64>; 3],
}

/// What was told for an answer: by which version, at which offsets.
#[derive(Debug)]
pub struct Told {
    pub version: u64,
    pub offsets: Offsets,
}

/// A version, as a place in a pair.
fn kind(version: u64) -> usize {
    usize::from(version > 1)
}

/// Adds what each version makes of the record at an offset.
fn add<T: Clone + Default>(since: &mut Since<T>, offset: u64, add: impl Fn(u64, &mut T)) {
    let mut both = since.last().map(|(_, both)| both.clone()).unwrap_or_default();
    [1, 2].into_iter().for_each(|version| add(version, &mut both[kind(version)]));
    since.push((offset, both));
}

/// What the first `offset` records come to.
fn at<T: Clone>(since: &Since<T>, version: u64, offset: u64) -> Option<T> {
    let behind = since.partition_point(|(at, _)| *at < offset);
    Some(since.get(behind.checked_sub(1)?)?.1[kind(version)].clone())
}

impl Answers {
    /// Reads the departures, and computes from them.
    pub fn compute() -> Result<Answers, BoxError> {
        let departures = flights::departures()?;
        let mut carriers: BTreeMap<String, [Since<Punctuality>; 3]> = BTreeMap::new();
        let mut hours: [BTreeMap<i64, Since<Delays>>; 3] = Default::default();
        let mut latest: [Vec<i64>; 3] = Default::default();
        for departure in &departures {
            let partition = departure.partition() as usize;
            let (offset, delay) = (latest[partition].len() as u64, departure.dep_delay_min);
            let before = latest[partition].last().copied().unwrap_or(i64::MIN);
            latest[partition].push(before.max(departure.sched_dep));
            let of_carrier = &mut carriers.entry(departure.carrier.clone()).or_default()[partition];
            add(of_carrier, offset, |version, carrier| carrier.add(version, delay));
            let of_hour = hours[partition].entry(departure.sched_dep.div_euclid(HOUR_S) * HOUR_S);
            add(of_hour.or_default(), offset, |version, hour| {
                hour.merge(&Delays::of(departure, is_late(version, delay)));
            });
        }
        let answers = Answers { departures, carriers, hours, latest };
        answers.check_against_the_expected_file()?;
        Ok(answers)
    }

    /// Where another program has computed the same, it has to be the same.
    fn check_against_the_expected_file(&self) -> Result<(), BoxError> {
        let mut found: Vec<HourlyDelays> = self.rows(2, self.ends(), |_| true).into_values().collect();
        found.sort();
        let mut expected: Vec<HourlyDelays> = flights::expected("p1_delay_by_origin_hour.csv")?;
        expected.sort();
        match found == expected {
            true => Ok(()),
            false => {
                Err("the plain program's rows are not those of expected/p1_delay_by_origin_hour.csv".into())
            }
        }
    }

    /// The offsets behind all departures.
    pub fn ends(&self) -> Offsets {
        [0, 1, 2].map(|partition: usize| self.latest[partition].len() as u64)
    }

    pub fn carriers(&self) -> impl Iterator<Item = &str> {
        self.carriers.keys().map(String::as_str)
    }

    /// How far event time has come, in seconds; `None` while a partition is empty.
    pub fn watermark(&self, offsets: Offsets) -> Option<i64> {
        let latest = |(partition, offset): (usize, &u64)| {
            self.latest[partition].get((*offset as usize).checked_sub(1)?).copied()
        };
        offsets.iter().enumerate().map(latest).min().flatten().map(|latest| latest - BOUND_S)
    }

    fn rows(
        &self,
        version: u64,
        offsets: Offsets,
        is_there: impl Fn(i64) -> bool,
    ) -> BTreeMap<Place, HourlyDelays> {
        let mut rows = BTreeMap::new();
        for (partition, origin) in ORIGINS.iter().enumerate() {
            for (hour, since) in self.hours[partition].iter().filter(|(hour, _)| is_there(**hour)) {
                let Some(delays) = at(since, version, offsets[partition]) else { continue };
                let Delays { n, sum_delay_min, min_delay_min, max_delay_min, n_late15 } = delays;
                let (window_start, origin) = (*hour, (*origin).to_owned());
                let place = (window_start, origin.clone());
                let row = HourlyDelays {
                    window_start,
                    origin,
                    n,
                    sum_delay_min,
                    min_delay_min,
                    max_delay_min,
                    n_late15,
                };
                rows.insert(place, row);
            }
        }
        rows
    }

    /// The rows that a version writes for so many records: the hours that are over.
    pub fn rows_over(&self, version: u64, offsets: Offsets) -> BTreeMap<Place, HourlyDelays> {
        let watermark = self.watermark(offsets).unwrap_or(i64::MIN);
        self.rows(version, offsets, |hour| hour + HOUR_S <= watermark)
    }

    fn carrier(&self, carrier: &str, told: &Told) -> Option<Punctuality> {
        let of_partitions = self.carriers.get(carrier)?;
        let mut sum: Option<Punctuality> = None;
        for (since, offset) in of_partitions.iter().zip(told.offsets) {
            if let Some(part) = at(since, told.version, offset) {
                let sum = sum.get_or_insert_default();
                sum.flights += part.flights;
                sum.late += part.late;
                sum.delay_min += part.delay_min;
            }
        }
        sum
    }

    /// Whether an answer for a carrier is right, in an answer that tells this.
    ///
    /// # Errors
    /// What it should be.
    pub fn check_carrier(&self, told: &Told, carrier: &str, value: &Json) -> Result<(), String> {
        let right = self.carrier(carrier, told);
        let found: Option<Punctuality> =
            serde_json::from_value(value.clone()).map_err(|e| format!("{value}: {e}"))?;
        match found == right {
            true => Ok(()),
            false => Err(format!("carrier {carrier} has {found:?} and should have {right:?}, at {told:?}")),
        }
    }

    /// Whether the open hours of an airport are right: those that are there, and that none is missing.
    ///
    /// # Errors
    /// What they should be.
    pub fn check_hours(&self, told: &Told, origin: &str, windows: &Json) -> Result<(), String> {
        let partition = flights::origin_partition(origin) as usize;
        let offset = told.offsets[partition];
        let mut found = BTreeMap::new();
        for window in windows.as_array().ok_or("no windows")? {
            let start = window["start_ms"].as_i64().ok_or("a window without a start")? / 1000;
            let value: Delays = serde_json::from_value(window["value"].clone()).map_err(|e| e.to_string())?;
            found.insert(start, value);
        }
        let watermark = self.watermark(told.offsets).unwrap_or(i64::MIN);
        let open = self.hours[partition].range(watermark.saturating_sub(HOUR_S) + 1..);
        let right: BTreeMap<i64, Delays> =
            open.filter_map(|(hour, since)| Some((*hour, at(since, told.version, offset)?))).collect();
        match found == right {
            true => Ok(()),
            false => Err(format!("{origin} has the hours {found:?} and should have {right:?}, at {told:?}")),
        }
    }

    /// Whether readers have seen all rows that there are for so many records, each once, from the version that was live for it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_rows(&self, rows: &[RowOf], offsets: Offsets) -> Result<(), String> {
        let by_kind = [1, 2].map(|version| self.rows_over(version, offsets));
        let mut seen = BTreeSet::new();
        // Hours are over in order: at a cut those that are over lie before it, and no other.
        let (mut current, mut newest, mut newest_before) = (0, i64::MIN, i64::MIN);
        for (version, row) in rows {
            let place = (row.window_start, row.origin.clone());
            let right = by_kind[kind(*version)].get(&place);
            if right != Some(row) {
                return Err(format!("version {version} has written {row:?}, and should have {right:?}"));
            }
            if !seen.insert(place) {
                return Err(format!("a row is there twice: {row:?}"));
            }
            if *version != current {
                (current, newest_before) = (*version, newest);
            }
            if row.window_start <= newest_before {
                return Err(format!(
                    "{row:?} of version {version} is of an hour that was over before the cut"
                ));
            }
            newest = newest.max(row.window_start);
        }
        match by_kind[0].keys().find(|place| !seen.contains(*place)) {
            Some(missing) => Err(format!("the row of {missing:?} is missing")),
            None => Ok(()),
        }
    }
}

impl Told {
    /// What an answer says of itself.
    ///
    /// # Errors
    /// It does not.
    pub fn of(answer: &Json) -> Result<Told, String> {
        let missing = |what: &str| format!("an answer without {what}: {answer}");
        let at = &answer["at"];
        if at["flow"] != flow::FLOW || !at["epoch"].is_u64() {
            return Err(missing("flow and epoch"));
        }
        let mut offsets = Offsets::default();
        let of_partitions = at["offsets"]["departures"].as_object().ok_or_else(|| missing("offsets"))?;
        for (partition, offset) in of_partitions {
            // `departures[0]`
            let number = partition.strip_suffix(']').and_then(|name| name.rsplit('[').next());
            let number = number.and_then(|number| number.parse::<usize>().ok());
            let place = number.and_then(|number| offsets.get_mut(number));
            *place.ok_or_else(|| missing("partitions by number"))? = offset.as_u64().unwrap_or(0);
        }
        Ok(Told { version: at["version"].as_u64().ok_or_else(|| missing("a version"))?, offsets })
    }
}

/// How many rows each version has written, in the order in which readers have them.
pub fn by_version(rows: &[RowOf]) -> Vec<(u64, usize)> {
    let mut parts: Vec<(u64, usize)> = Vec::new();
    for (version, _) in rows {
        match parts.last_mut() {
            Some((last, count)) if last == version => *count += 1,
            _ => parts.push((*version, 1)),
        }
    }
    parts
}

/// Whether two lists have the same rows, each as often.
pub fn have_the_same(one: &[HourlyDelays], other: &[HourlyDelays]) -> bool {
    let sorted = |rows: &[HourlyDelays]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    sorted(one) == sorted(other)
}
