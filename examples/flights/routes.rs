//! P3: the ten busiest routes of each week. An interval join of departures with arrivals, and two windows on top of it.

use super::Departure;
use super::picture::{Anchor, GREY, PALETTE, Picture, Section, months};
use rivermark::connectors::LogSink;
use rivermark::log::Log;
use rivermark::source::Source;
use rivermark::{BoxError, Flow, Interval, Timestamp, Watermarks, Windowed, Windows, days};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The topic that the arrivals are in, in one partition.
pub const ARRIVALS: &str = "arrivals";

/// A flight that has reached its gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// When it arrived, in seconds since 1970: the order of the file, and the event time.
    pub arr_ts: i64,
    pub flight_id: u32,
    pub origin: String,
    pub dest: String,
    pub arr_delay_min: i64,
}

impl Arrival {
    pub fn arrived(&self) -> Timestamp {
        Timestamp::from_secs(self.arr_ts)
    }
}

/// A route in a week.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    pub window_start: i64,
    pub rank: u32,
    pub origin: String,
    pub dest: String,
    /// How many flights arrived.
    pub n: u64,
    /// Minutes that were made up in the air.
    pub sum_recovered_min: i64,
    pub sum_gate_to_gate_s: i64,
}

impl Route {
    /// The row of one flight.
    fn of(departure: &Departure, arrival: &Arrival) -> Route {
        Route {
            origin: arrival.origin.clone(),
            dest: arrival.dest.clone(),
            n: 1,
            sum_recovered_min: departure.dep_delay_min - arrival.arr_delay_min,
            sum_gate_to_gate_s: arrival.arr_ts - departure.dep_ts,
            ..Route::default()
        }
    }

    /// Adds other flights of the same route and week.
    pub fn add(&mut self, other: &Route) {
        if self.n == 0 {
            *self = other.clone();
            return;
        }
        self.n += other.n;
        self.sum_recovered_min += other.sum_recovered_min;
        self.sum_gate_to_gate_s += other.sum_gate_to_gate_s;
    }
}

/// The ten routes of a week with the most flights, ranked.
fn top_ten(mut week: Windowed<(), Vec<Route>>) -> Vec<Route> {
    week.value.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| (&a.origin, &a.dest).cmp(&(&b.origin, &b.dest))));
    week.value.truncate(10);
    (1..).zip(week.value).map(|(rank, route)| Route { rank, ..route }).collect()
}

/// The flow: each departure with the arrival of the same flight within a day, counted by route and week, and of each week the first ten.
/// A second window of the same length gets a week's rows all at once, at the end of the week.
pub fn flow(
    name: &str,
    departures: impl Source<Item = Departure>,
    arrivals: impl Source<Item = Arrival>,
) -> Flow {
    let flow = Flow::new(name);
    let arrivals = flow
        .source(arrivals)
        .event_time(Arrival::arrived, Watermarks::monotonous())
        .key_by(|arrival| arrival.flight_id);
    flow.source(departures)
        .event_time(Departure::departed, Watermarks::monotonous())
        .key_by(|departure| departure.flight_id)
        .interval_join(arrivals, Interval::after(days(1)))
        .inner(|_, departure, arrival| Route::of(departure, arrival))
        .key_by(|route| (route.origin.clone(), route.dest.clone()))
        .window(Windows::tumbling(days(7)))
        .fold(Route::default(), Route::add, Route::add)
        .map(|row| Route { window_start: row.window.start.secs(), ..row.value })
        .key_by(|_| ())
        .window(Windows::tumbling(days(7)))
        .fold(
            Vec::new(),
            |week, route| week.push(route.clone()),
            |week, other| week.extend(other.iter().cloned()),
        )
        .flat_map(top_ten)
        .sink(LogSink::topic(name));
    flow
}

/// Appends the arrivals to their topic, unless they are there.
pub fn append(log: &Log) -> Result<(), BoxError> {
    let arrivals: Vec<Arrival> = super::rows_of("arrivals.csv.zst")?;
    super::append(log, ARRIVALS, 1, &arrivals, |_| 0, |_| ())
}

/// Each route's weeks among the first ten, the routes with the most flights in those weeks first.
pub fn by_route(rows: &[Route]) -> Vec<Vec<&Route>> {
    let mut routes: BTreeMap<(&str, &str), Vec<&Route>> = BTreeMap::new();
    for row in rows {
        routes.entry((&row.origin, &row.dest)).or_default().push(row);
    }
    let mut routes: Vec<_> = routes.into_values().collect();
    routes.sort_by_key(|weeks| std::cmp::Reverse(weeks.iter().map(|week| week.n).sum::<u64>()));
    routes
}

/// The picture, and what it shows.
pub fn section(rows: &[Route]) -> Section {
    Section {
        title: "The ten busiest routes of each week",
        text: "A column for each week, the busiest route on top; the ten routes that were there with the most flights have a colour.",
        picture: draw(rows),
    }
}

/// Draws the ranks of each week as dots, joined where a route stays among the ten.
fn draw(rows: &[Route]) -> String {
    const WEEK_S: i64 = 604_800;
    const WEEK: f64 = 15.0;
    let first = rows.iter().map(|row| row.window_start).min().unwrap_or_default();
    let place = |row: &Route| {
        let week = (row.window_start - first) / WEEK_S;
        (40.0 + week as f64 * WEEK, 24.0 + f64::from(row.rank - 1) * 26.0)
    };
    let mut picture = Picture::new(910.0, 300.0);
    for rank in 1..=10 {
        picture.text((22.0, 28.0 + f64::from(rank - 1) * 26.0), Anchor::End, &rank.to_string());
    }
    for (month, day) in months() {
        let week = (day * 86_400 - first) as f64 / WEEK_S as f64;
        picture.text((40.0 + week * WEEK, 284.0), Anchor::Start, month);
    }
    for (at, weeks) in by_route(rows).iter().enumerate().rev() {
        let colour = PALETTE.get(at).copied().unwrap_or(GREY);
        for pair in weeks.windows(2).filter(|pair| pair[1].window_start - pair[0].window_start == WEEK_S) {
            picture.stroke(place(pair[0]), place(pair[1]), colour);
        }
        for week in weeks {
            let Route { origin, dest, n, rank, .. } = week;
            let day = Timestamp::from_secs(week.window_start);
            picture.dot(place(week), colour, &format!("{origin} to {dest}, {day}: {n} flights, rank {rank}"));
        }
        if let Some(last) = weeks.last() {
            let (x, y) = place(last);
            if last.window_start == first + 52 * WEEK_S {
                picture.text((x + 12.0, y + 4.0), Anchor::Start, &format!("{} {}", last.origin, last.dest));
            }
        }
    }
    picture.finish()
}
