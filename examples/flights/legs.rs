//! What planes do: the departures of each from New York, one after the other. Departures know their flight, the schedule knows the plane.

use super::{Departure, origin_partition};
use rivermark::log::Log;
use rivermark::{BoxError, Match, Timestamp};
use serde::{Deserialize, Serialize};

/// The topic of planned flights with their planes, a partition for each airport.
pub const PLANNED: &str = "planned";

/// A flight as it was planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub flight_id: u32,
    /// When it should leave, in seconds since 1970: the order of the file, and the event time.
    pub sched_dep: i64,
    pub origin: String,
    /// The plane; empty where nobody knows.
    pub tailnum: String,
}

impl Planned {
    pub fn due(&self) -> Timestamp {
        Timestamp::from_secs(self.sched_dep)
    }
}

/// A plane leaves New York.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    pub tailnum: String,
    /// When it left, in seconds since 1970, or should have, if it was early: what happened before both is known by then.
    pub at: i64,
    pub delay_min: i64,
}

impl Leg {
    pub fn of(departure: &Departure, planned: &Planned) -> Leg {
        let at = departure.dep_ts.max(planned.sched_dep);
        Leg { tailnum: planned.tailnum.clone(), at, delay_min: departure.dep_delay_min }
    }
}

/// A plane that was late several times, and then on time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Recovery {
    pub late_since: i64,
    pub tailnum: String,
    /// How many legs were late, and the latest of them.
    pub legs: usize,
    pub max_delay_min: i64,
    pub on_time_at: i64,
}

impl Recovery {
    /// The row of a match with the steps `late` and `on time`.
    pub fn of(plane: &str, found: &Match<'_, Leg>) -> Recovery {
        let late = found.events("late");
        Recovery {
            late_since: late.first().map_or(0, |leg| leg.at),
            tailnum: plane.into(),
            legs: late.len(),
            max_delay_min: late.iter().map(|leg| leg.delay_min).max().unwrap_or(0),
            on_time_at: found.last("on time").map_or(0, |leg| leg.at),
        }
    }
}

/// Appends planned flights to their topic, unless they are there.
pub fn append(log: &Log) -> Result<(), BoxError> {
    let planned: Vec<Planned> = super::rows_of("schedule.csv.zst")?;
    super::append(log, PLANNED, 3, &planned, |flight| origin_partition(&flight.origin), |_| ())
}
