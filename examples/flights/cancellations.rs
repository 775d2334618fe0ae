//! P4: flights that never left. A left join of the schedule with departures, whose time-out rows are the cancellations.

use super::picture::{Anchor, Picture, SHADES, Section, months};
use super::{Departure, ORIGINS, origin_partition};
use rivermark::connectors::LogSink;
use rivermark::log::Log;
use rivermark::source::Source;
use rivermark::{BoxError, Flow, Interval, Timestamp, Watermarks, days, hours, millis};
use serde::{Deserialize, Serialize};

/// The topic that the schedule is in, a partition for each airport.
pub const SCHEDULE: &str = "schedule";

const DAY_S: i64 = 86_400;

/// A flight as it was planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scheduled {
    pub flight_id: u32,
    /// When it should leave, in seconds since 1970: the order of the file, and the event time.
    pub sched_dep: i64,
    pub origin: String,
}

impl Scheduled {
    pub fn due(&self) -> Timestamp {
        Timestamp::from_secs(self.sched_dep)
    }
}

/// How many of a day's flights left an airport.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Day {
    pub window_start: i64,
    pub origin: String,
    pub scheduled: u64,
    pub departed: u64,
    pub not_departed: u64,
}

impl Day {
    /// The row of one flight.
    fn of(flight: &Scheduled, has_left: bool) -> Day {
        Day {
            window_start: flight.sched_dep - flight.sched_dep % DAY_S,
            origin: flight.origin.clone(),
            scheduled: 1,
            departed: u64::from(has_left),
            not_departed: u64::from(!has_left),
        }
    }

    /// Adds other flights of the same day and airport.
    fn add(&mut self, other: &Day) {
        if self.scheduled == 0 {
            *self = other.clone();
            return;
        }
        self.scheduled += other.scheduled;
        self.departed += other.departed;
        self.not_departed += other.not_departed;
    }

    /// How many of a hundred flights did not leave.
    pub fn percent_not_departed(&self) -> f64 {
        100.0 * self.not_departed as f64 / self.scheduled as f64
    }
}

/// The flow: each flight of the schedule with its departure, or alone when a day has passed without one. Some leave up to 43 minutes early.
pub fn flow(
    name: &str,
    schedule: impl Source<Item = Scheduled>,
    departures: impl Source<Item = Departure>,
) -> Flow {
    let flow = Flow::new(name);
    let departures = flow
        .source(departures)
        .event_time(Departure::departed, Watermarks::monotonous())
        .key_by(|departure| departure.flight_id);
    flow.source(schedule)
        .event_time(Scheduled::due, Watermarks::monotonous())
        .key_by(|flight| flight.flight_id)
        .interval_join(departures, Interval::around(hours(1), days(1) - millis(1)))
        .left(|_, flight, departure| Day::of(flight, departure.is_some()))
        .key_by(|day| (day.window_start, day.origin.clone()))
        .window(super::whole_year())
        .fold(Day::default(), Day::add, Day::add)
        .map(|row| row.value)
        .sink(LogSink::topic(name));
    flow
}

/// Appends the schedule to its topic, unless it is there.
pub fn append(log: &Log) -> Result<(), BoxError> {
    let schedule: Vec<Scheduled> = super::rows_of("schedule.csv.zst")?;
    super::append(log, SCHEDULE, 3, &schedule, |flight| origin_partition(&flight.origin), |_| ())
}

/// The share of flights, in percent, from which on a day has the next shade.
const STEPS: [f64; 5] = [0.1, 2.0, 5.0, 15.0, 50.0];

/// The picture, and what it shows.
pub fn section(rows: &[Day]) -> Section {
    Section {
        title: "Flights that did not leave",
        text: "A column for each week from Monday on, a square for each day (UTC): the share of scheduled flights that never left.",
        picture: draw(rows),
    }
}

/// Draws a calendar for each airport: a column for each week, a square for each day, the darker the fewer planes left.
fn draw(rows: &[Day]) -> String {
    const CELL: f64 = 15.0;
    const CALENDAR: f64 = 130.0;
    let first = rows.iter().map(|row| row.window_start).min().unwrap_or_default() / DAY_S;
    // 1970 began on a Thursday; weeks begin on Monday.
    let monday = first - (first + 3) % 7;
    let shade = |percent: f64| SHADES[STEPS.iter().filter(|step| percent >= **step).count()];
    let mut picture = Picture::new(870.0, 440.0);
    for (month, day) in months() {
        picture.text((50.0 + ((day - monday + 6) / 7) as f64 * CELL, 14.0), Anchor::Start, month);
    }
    for (at, origin) in ORIGINS.iter().enumerate() {
        let top = 24.0 + at as f64 * CALENDAR;
        picture.text((8.0, top + 60.0), Anchor::Start, origin);
        for row in rows.iter().filter(|row| row.origin == *origin) {
            let day = row.window_start / DAY_S - monday;
            let corner = (50.0 + (day / 7) as f64 * CELL, top + (day % 7) as f64 * CELL);
            let date = Timestamp::from_secs(row.window_start).to_string();
            let hint =
                format!("{origin}, {}: {} of {} did not leave", &date[..10], row.not_departed, row.scheduled);
            picture.rect(corner, (CELL - 2.0, CELL - 2.0), shade(row.percent_not_departed()), &hint);
        }
    }
    for (at, label) in ["none", "up to 2 %", "to 5 %", "to 15 %", "to 50 %", "more"].iter().enumerate() {
        let x = 50.0 + at as f64 * 100.0;
        picture.rect((x, 418.0), (CELL - 2.0, CELL - 2.0), SHADES[at], label);
        picture.text((x + 20.0, 429.0), Anchor::Start, label);
    }
    picture.finish()
}
