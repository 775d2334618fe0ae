//! P2, P3 and P4: the year's flights joined with the weather, with their arrivals, and with the schedule.

use crate::delays::assert_rows;
use crate::flights::{Arrival, Departure, Scheduled, Weather, expected, rows_of};
use crate::setup::{BY_ORIGIN, ONE_PARTITION, for_each_engine, with_departures};
use rivermark::connectors::{Collect, FromVec, LogSource};
use rivermark::{Flow, Interval, Timestamp, Watermarks, Windowed, Windows, days, hours, millis};
use serde::{Deserialize, Serialize};

/// One window for all of it: from 1970 to 2024.
fn all_time() -> Windows {
    Windows::tumbling(days(20_000))
}

fn secs(seconds: i64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

/// How late the flights were by how far one could see.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct ByVisibility {
    origin: String,
    visibility: String,
    n: u64,
    sum_delay_min: i64,
    n_late15: u64,
    sum_obs_age_s: Option<i64>,
}

impl ByVisibility {
    fn of(departure: Departure, weather: Option<&Weather>) -> ByVisibility {
        let visibility = match weather.map(|weather| weather.visib_mi) {
            None => "none",
            Some(..1.0) => "0-1",
            Some(..3.0) => "1-3",
            Some(..10.0) => "3-10",
            Some(_) => "10",
        };
        ByVisibility {
            visibility: visibility.into(),
            n: 1,
            sum_delay_min: departure.dep_delay_min,
            n_late15: u64::from(departure.dep_delay_min >= 15),
            sum_obs_age_s: weather.map(|weather| departure.sched_dep - weather.obs_ts),
            origin: departure.origin,
        }
    }

    fn add(&mut self, other: &ByVisibility) {
        if self.n == 0 {
            *self = other.clone();
            return;
        }
        self.n += other.n;
        self.sum_delay_min += other.sum_delay_min;
        self.n_late15 += other.n_late15;
        self.sum_obs_age_s = self
            .sum_obs_age_s
            .or(other.sum_obs_age_s)
            .map(|_| self.sum_obs_age_s.unwrap_or_default() + other.sum_obs_age_s.unwrap_or_default());
    }
}

#[test]
fn each_departure_is_joined_with_the_weather_of_its_time() {
    let directory = with_departures();
    let weather: Vec<Weather> = rows_of("weather.csv.zst").unwrap();
    let expected: Vec<ByVisibility> = expected("p2_delay_by_visibility.csv").unwrap();
    for_each_engine(directory.path(), |engine, name| {
        for topic in [ONE_PARTITION, BY_ORIGIN] {
            let rows = Collect::new();
            let flow = Flow::new(format!("weather-{name}-{topic}"));
            let weather = flow
                .source(FromVec::new(weather.clone()))
                .event_time(|weather| secs(weather.obs_ts), Watermarks::monotonous())
                .key_by(|weather| weather.origin.clone());
            flow.source(LogSource::<Departure>::topic(topic).until_end())
                .event_time(Departure::scheduled, Watermarks::bounded(days(1)))
                .key_by(|departure| departure.origin.clone())
                .as_of_join(weather, hours(2))
                .left(|_, departure, weather| ByVisibility::of(departure, weather))
                .key_by(|row| (row.origin.clone(), row.visibility.clone()))
                .window(all_time())
                .fold(ByVisibility::default(), ByVisibility::add, ByVisibility::add)
                .map(|row| row.value)
                .sink(rows.clone());
            let metrics = engine.run(flow).unwrap();
            let mut rows = rows.rows();
            rows.sort();
            assert_rows(&rows, &expected, &format!("{name}, {topic}"));
            assert_eq!(metrics.late_records, 0);
        }
    });
}

/// A route in a week.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Route {
    window_start: i64,
    rank: u32,
    origin: String,
    dest: String,
    n: u64,
    sum_recovered_min: i64,
    sum_gate_to_gate_s: i64,
}

impl Route {
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

    fn add(&mut self, other: &Route) {
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

#[test]
fn flights_meet_their_arrivals_and_the_weeks_have_their_busiest_routes() {
    let directory = with_departures();
    let arrivals: Vec<Arrival> = rows_of("arrivals.csv.zst").unwrap();
    let expected: Vec<Route> = expected("p3_top10_routes_weekly.csv").unwrap();
    for_each_engine(directory.path(), |engine, name| {
        let rows = Collect::new();
        let flow = Flow::new(format!("routes-{name}"));
        let arrivals = flow
            .source(FromVec::new(arrivals.clone()))
            .event_time(|arrival| secs(arrival.arr_ts), Watermarks::monotonous())
            .key_by(|arrival| arrival.flight_id);
        flow.source(LogSource::<Departure>::topic(ONE_PARTITION).until_end())
            .event_time(|departure| secs(departure.dep_ts), Watermarks::monotonous())
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
                |week, other| week.extend(other.clone()),
            )
            .flat_map(top_ten)
            .sink(rows.clone());
        engine.run(flow).unwrap();
        let mut rows = rows.rows();
        rows.sort();
        assert_rows(&rows, &expected, name);
    });
}

/// How many of a day's flights left.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Day {
    window_start: i64,
    origin: String,
    scheduled: u64,
    departed: u64,
    not_departed: u64,
}

impl Day {
    fn of(flight: &Scheduled, has_left: bool) -> Day {
        Day {
            window_start: flight.sched_dep - flight.sched_dep % 86_400,
            origin: flight.origin.clone(),
            scheduled: 1,
            departed: u64::from(has_left),
            not_departed: u64::from(!has_left),
        }
    }

    fn add(&mut self, other: &Day) {
        if self.scheduled == 0 {
            *self = other.clone();
            return;
        }
        self.scheduled += other.scheduled;
        self.departed += other.departed;
        self.not_departed += other.not_departed;
    }
}

#[test]
fn flights_that_have_not_left_within_a_day_are_timed_out() {
    let directory = with_departures();
    let schedule: Vec<Scheduled> = rows_of("schedule.csv.zst").unwrap();
    let expected: Vec<Day> = expected("p4_cancellations_daily.csv").unwrap();
    for_each_engine(directory.path(), |engine, name| {
        for topic in [ONE_PARTITION, BY_ORIGIN] {
            let rows = Collect::new();
            let flow = Flow::new(format!("cancelled-{name}-{topic}"));
            let departures = flow
                .source(LogSource::<Departure>::topic(topic).until_end())
                .event_time(|departure| secs(departure.dep_ts), Watermarks::monotonous())
                .key_by(|departure| departure.flight_id);
            // Some leave up to 43 minutes early.
            let within = Interval::around(hours(1), days(1) - millis(1));
            flow.source(FromVec::new(schedule.clone()))
                .event_time(|flight| secs(flight.sched_dep), Watermarks::monotonous())
                .key_by(|flight| flight.flight_id)
                .interval_join(departures, within)
                .left(|_, flight, departure| Day::of(flight, departure.is_some()))
                .key_by(|day| (day.window_start, day.origin.clone()))
                .window(all_time())
                .fold(Day::default(), Day::add, Day::add)
                .map(|row| row.value)
                .sink(rows.clone());
            engine.run(flow).unwrap();
            let mut rows = rows.rows();
            rows.sort();
            assert_rows(&rows, &expected, &format!("{name}, {topic}"));
        }
    });
}
