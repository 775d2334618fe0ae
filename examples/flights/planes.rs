//! Planes and what they must have to leave: the flights of each, and what was issued to it, counted by hand.

use super::table::{grouped, table};
use rivermark::{BoxError, Timestamp, days};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A planned flight of a plane that is known.
#[derive(Serialize, Deserialize)]
pub struct Flight {
    /// When it should leave, in seconds since 1970: the order of the file, and the event time.
    pub sched_dep: i64,
    /// The plane's registration.
    pub tailnum: String,
}

impl Flight {
    pub fn due(&self) -> Timestamp {
        Timestamp::from_secs(self.sched_dep)
    }
}

/// All flights of planes that are known.
pub fn planned() -> Result<Vec<Flight>, BoxError> {
    let mut flights: Vec<Flight> = super::rows_of("schedule.csv.zst")?;
    flights.retain(|flight| !flight.tailnum.is_empty());
    Ok(flights)
}

/// A plane's flights, and the permits and cards that it was issued.
pub type Issued = [u64; 3];

/// Adds up what each plane was issued.
pub fn total(rows: impl IntoIterator<Item = (String, Issued)>) -> BTreeMap<String, Issued> {
    let mut planes: BTreeMap<String, Issued> = BTreeMap::new();
    for (plane, issued) in rows {
        planes.entry(plane).or_default().iter_mut().zip(issued).for_each(|(total, n)| *total += n);
    }
    planes
}

/// The same by hand, from a map that says until when a plane's permit and card are good.
pub fn by_hand(flights: &[Flight]) -> BTreeMap<String, Issued> {
    let week = days(7).as_secs() as i64;
    let mut good_until: BTreeMap<&str, [i64; 2]> = BTreeMap::new();
    total(flights.iter().map(|Flight { sched_dep: now, tailnum }| {
        let until = good_until.entry(tailnum).or_default();
        let needs = until.map(|until| *now >= until);
        *until = [if needs[0] { now + week } else { until[0] }, now + week];
        (tailnum.clone(), [1, needs[0].into(), needs[1].into()])
    }))
}

/// Prints a plane of each tenth of them, the busiest first.
pub fn show(planes: &BTreeMap<String, Issued>) {
    let mut busiest: Vec<_> = planes.iter().collect();
    busiest.sort_by_key(|(_, issued)| std::cmp::Reverse(issued[0]));
    let line = |(plane, issued): &(&String, &Issued)| {
        std::iter::once((*plane).clone()).chain(issued.iter().map(u64::to_string)).collect()
    };
    let lines: Vec<Vec<String>> = busiest.iter().step_by(planes.len() / 10).map(line).collect();
    table(&["plane", "flights", "permits", "cards"], &lines);
}

/// What all of them have together.
pub fn summary(planes: &BTreeMap<String, Issued>) -> String {
    let sum = |of: usize| grouped(planes.values().map(|issued| issued[of]).sum());
    format!("{} planes: {} flights, {} permits, {} cards", planes.len(), sum(0), sum(1), sum(2))
}
