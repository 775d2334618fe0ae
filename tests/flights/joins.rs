//! P2, P3 and P4: the year's flights joined with the weather, with their arrivals, and with the schedule. The flows are those of the examples.

use crate::flights::cancellations::{self, Day, SCHEDULE};
use crate::flights::kill::{run_and_kill, run_slowly, run_to_end};
use crate::flights::routes::{self, ARRIVALS, Route};
use crate::flights::throttle::{Allowance, Throttled};
use crate::flights::weather::{self, ByVisibility, WEATHER};
use crate::flights::{Departure, as_expected};
use crate::kill::{AT_MOST, BACKEND, DIRECTORY, child, variable};
use crate::setup::{BY_ORIGIN, ONE_PARTITION, backends, for_each_engine, options, with_departures};
use rivermark::connectors::LogSource;
use rivermark::log::Log;
use rivermark::{Engine, Flow};
use serde::de::DeserializeOwned;

const JOIN: &str = "RIVERMARK_TEST_JOIN";
const WORKERS: &str = "RIVERMARK_TEST_WORKERS";

/// Records of both sources that a process which is to be killed reads at the least, and may read at the most. Three of them come to less
/// than there is, so that none ends before it is killed.
const KILL_AFTER: u64 = 60_000;
const ALLOWED: u64 = 100_000;

/// More than both sources have, so that they come to their ends.
const ALL: u64 = 1_000_000;

/// One of the pipelines.
struct Join {
    name: &'static str,
    /// Fills the topic that is joined with the departures.
    append: fn(&Log) -> Result<(), rivermark::BoxError>,
    /// The flow of a name over the topic of departures, both sources within one allowance.
    flow: fn(&str, &str, &Allowance) -> Flow,
    /// Compares the topic of a name with the expected answer.
    check: fn(&Log, &str),
    /// How many records the other topic has.
    others: u64,
}

fn all<T: DeserializeOwned + Send + 'static>(topic: &str, allowance: &Allowance) -> Throttled<LogSource<T>> {
    Throttled::new(LogSource::topic(topic).until_end(), allowance)
}

fn check<T: DeserializeOwned + Ord + std::fmt::Debug>(log: &Log, topic: &str, file: &str) {
    as_expected::<T>(log, topic, file).unwrap();
}

const JOINS: [Join; 3] = [
    Join {
        name: "weather",
        append: weather::append,
        flow: |name, topic, allowance| {
            weather::flow(name, all::<Departure>(topic, allowance), all(WEATHER, allowance))
        },
        check: |log, topic| check::<ByVisibility>(log, topic, "p2_delay_by_visibility.csv"),
        others: 26_115,
    },
    Join {
        name: "routes",
        append: routes::append,
        flow: |name, topic, allowance| {
            routes::flow(name, all::<Departure>(topic, allowance), all(ARRIVALS, allowance))
        },
        check: |log, topic| check::<Route>(log, topic, "p3_top10_routes_weekly.csv"),
        others: 327_346,
    },
    Join {
        name: "cancellations",
        append: cancellations::append,
        flow: |name, topic, allowance| {
            cancellations::flow(name, all(SCHEDULE, allowance), all::<Departure>(topic, allowance))
        },
        check: |log, topic| check::<Day>(log, topic, "p4_cancellations_daily.csv"),
        others: 336_776,
    },
];

/// Runs a join over both topics of departures on every engine.
fn on_every_engine(join: &Join) {
    let directory = with_departures();
    (join.append)(Engine::open(directory.path()).unwrap().log()).unwrap();
    for_each_engine(directory.path(), |engine, name| {
        for topic in [ONE_PARTITION, BY_ORIGIN] {
            let allowance = Allowance::default();
            allowance.add(ALL);
            let output = format!("{}-{name}-{topic}", join.name);
            let metrics = engine.run((join.flow)(&output, topic, &allowance)).unwrap();
            (join.check)(engine.log(), &output);
            assert_eq!(metrics.records_read, crate::flights::DEPARTURES + join.others);
            assert_eq!(metrics.late_records, 0);
        }
    });
}

#[test]
fn each_departure_is_joined_with_the_weather_of_its_time() {
    on_every_engine(&JOINS[0]);
}

#[test]
fn flights_meet_their_arrivals_and_the_weeks_have_their_busiest_routes() {
    on_every_engine(&JOINS[1]);
}

#[test]
fn flights_that_have_not_left_within_a_day_are_timed_out() {
    on_every_engine(&JOINS[2]);
}

#[test]
#[ignore = "the process that the tests below kill"]
fn joins_slowly() {
    let number = |name: &str| variable(name).parse::<u64>().unwrap();
    let join = &JOINS[number(JOIN) as usize];
    let backend = backends()[number(BACKEND) as usize];
    let engine = Engine::open_with(variable(DIRECTORY), options(number(WORKERS) as usize, backend)).unwrap();
    let allowance = Allowance::default();
    let flow = (join.flow)(&format!("killed-{backend:?}"), BY_ORIGIN, &allowance);
    run_slowly(engine.start(flow).unwrap(), &allowance, number(AT_MOST)).unwrap();
}

/// Kills three processes, of 1, 2 and 3 workers, and lets a fourth come to the end.
fn through_three_kills(at: usize) {
    let join = &JOINS[at];
    let directory = with_departures();
    (join.append)(Engine::open(directory.path()).unwrap().log()).unwrap();
    for backend in 0..backends().len() {
        let life = |workers: u64, at_most: u64| {
            let mut command = child("joins::joins_slowly", directory.path());
            let settings =
                [(JOIN, at as u64), (BACKEND, backend as u64), (WORKERS, workers), (AT_MOST, at_most)];
            command.envs(settings.map(|(name, value)| (name, value.to_string())));
            command
        };
        let killed = |workers| run_and_kill(&mut life(workers, ALLOWED), KILL_AFTER).unwrap().records;
        let read: u64 = [1, 2, 3].into_iter().map(killed).sum();
        let last = run_to_end(&mut life(2, ALL)).unwrap().records;
        let there_are = crate::flights::DEPARTURES + join.others;
        assert!(last < there_are, "the last process began where the killed ones had come to");
        assert!(read + last >= there_are);
        let engine = Engine::open(directory.path()).unwrap();
        (join.check)(engine.log(), &format!("killed-{:?}", backends()[backend]));
    }
}

#[test]
fn processes_that_join_the_weather_and_are_killed_write_every_row_once() {
    through_three_kills(0);
}

#[test]
fn processes_that_rank_routes_and_are_killed_write_every_row_once() {
    through_three_kills(1);
}

#[test]
fn processes_that_time_flights_out_and_are_killed_write_every_row_once() {
    through_three_kills(2);
}
