//! Real processes that are killed by SIGKILL while they work.

use crate::delays::{DAY_S, assert_rows, by_hour};
use crate::flights::kill::{run_and_kill, run_slowly, run_to_end};
use crate::flights::throttle::{Allowance, Throttled};
use crate::flights::{self, Departure, HourlyDelays, expected};
use crate::setup::{BY_ORIGIN, backends, options, with_departures};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{Engine, Flow};
use std::path::{Path, PathBuf};
use std::process::Command;

pub const DIRECTORY: &str = "RIVERMARK_TEST_DIRECTORY";
pub const BACKEND: &str = "RIVERMARK_TEST_BACKEND";
pub const AT_MOST: &str = "RIVERMARK_TEST_AT_MOST";

/// How many processes are killed, and after how many records each. Together they could not have read everything.
const KILLS: u64 = 4;
const KILL_AFTER: u64 = 40_000;
const ALLOWED: u64 = 70_000;

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the test that starts this one"))
}

/// This test binary again, to run one of the tests that are processes rather than tests.
pub fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture"]).env(DIRECTORY, directory);
    command
}

#[test]
#[ignore = "the process that the test below kills"]
fn counts_delays_slowly() {
    let backend = backends()[variable(BACKEND).parse::<usize>().unwrap()];
    let engine = Engine::open_with(PathBuf::from(variable(DIRECTORY)), options(2, backend)).unwrap();
    let allowance = Allowance::default();
    let flow = Flow::new("killed");
    let source = Throttled::new(LogSource::<Departure>::topic(BY_ORIGIN).until_end(), &allowance);
    by_hour(flow.source(source), DAY_S).sink(LogSink::topic("delays"));
    run_slowly(engine.start(flow).unwrap(), &allowance, variable(AT_MOST).parse().unwrap()).unwrap();
}

#[test]
fn a_process_killed_again_and_again_writes_every_row_once() {
    let expected: Vec<HourlyDelays> = expected("p1_delay_by_origin_hour.csv").unwrap();
    for backend in 0..backends().len() {
        let directory = with_departures();
        let life = |at_most: u64| {
            let mut command = child("kill::counts_delays_slowly", directory.path());
            command.env(BACKEND, backend.to_string()).env(AT_MOST, at_most.to_string());
            command
        };
        let mut read = 0;
        for _ in 0..KILLS {
            read += run_and_kill(&mut life(ALLOWED), KILL_AFTER).unwrap().records;
        }
        let last = run_to_end(&mut life(flights::DEPARTURES)).unwrap();
        assert!(
            last.records < flights::DEPARTURES,
            "the last process began where the killed ones had come to"
        );
        assert!(read + last.records >= flights::DEPARTURES);
        let engine = Engine::open(directory.path()).unwrap();
        let mut rows: Vec<HourlyDelays> = flights::read(engine.log(), "delays").unwrap();
        rows.sort();
        assert_rows(&rows, &expected, &format!("{:?}", backends()[backend]));
    }
}

#[test]
#[ignore = "the process that the test below starts"]
fn opens_a_directory_that_is_held() {
    let error = Engine::open(variable(DIRECTORY)).err().expect("the parent holds the directory").to_string();
    let holder = format!("process {}", std::os::unix::process::parent_id());
    assert!(error.contains(&holder), "no {holder} in: {error}");
    assert!(error.contains(&variable(DIRECTORY)), "no directory in: {error}");
}

#[test]
fn a_second_engine_on_a_directory_is_told_who_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    let mut second = child("kill::opens_a_directory_that_is_held", directory.path());
    assert!(second.status().unwrap().success(), "see what it printed");
    drop(engine);
    Engine::open(directory.path()).unwrap();
}
