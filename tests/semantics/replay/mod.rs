//! Replay equals live, operator by operator: each has a flow (`cases`), whose rows, sorted, must be the same however it runs.
//!
//! 1. In an engine, with 1, 2, 3 and 8 workers on threads.
//! 2. Under simulation, at a tenth of the speed: nine of ten polls give nothing, the tenth gives one record.
//! 3. With a partition that is silent until rows have come out, so that it has to be declared idle.
//! 4. Through crashes at points that seeds draw, at either speed, each life with another number of workers.
//!
//! An operator without a case fails a test.

mod cases;
mod feed;

use crate::support::Lab;
use crate::vocabulary;
use cases::{CASES, Case, EXEMPT};
use feed::{Feed, Pace, Record, records};
use rivermark::connectors::Collect;
use rivermark::simulation::Simulation;
use rivermark::{Flow, Options, StateBackend, Stream, Timestamp, millis};
use std::collections::BTreeSet;
use std::fmt::Debug;

/// Crashes are drawn from so many seeds, for each operator.
const SEEDS: u64 = 12;

/// What a case makes its flow of.
pub struct Inputs<'a> {
    flow: &'a Flow,
    pace: Pace,
    rows: Collect<String>,
}

impl Inputs<'_> {
    /// The records of a seed, without event time.
    fn timeless(&self, seed: i64) -> Stream<Record> {
        self.flow.source(self.feed(seed))
    }

    /// The records of a seed, some of them late.
    fn timed(&self, seed: i64) -> Stream<Record> {
        let time = |record: &Record| Timestamp::from_millis(record.1);
        self.timeless(seed).event_time(time, self.pace.watermarks())
    }

    fn feed(&self, seed: i64) -> Feed {
        Feed::new(records(seed), &self.pace)
    }

    /// Adds a stream's rows to what is compared.
    fn show<T: Debug + Send + 'static>(&self, rows: Stream<T>) {
        rows.map(|row| format!("{row:?}")).sink(self.rows.clone());
    }
}

impl Case {
    fn describe(&self, flow: &Flow, pace: &Pace, rows: &Collect<String>) {
        (self.describe)(&Inputs { flow, pace: pace.clone(), rows: rows.clone() });
    }

    /// What it gives in an engine.
    fn run(&self, lab: &Lab) -> Vec<String> {
        let (flow, rows) = (lab.flow(), Collect::new());
        self.describe(&flow, &Pace::Full, &rows);
        lab.engine().run(flow).unwrap_or_else(|error| panic!("{}, {}: {error}", self.name, lab.name));
        sorted(&rows)
    }

    /// What it gives under simulation, and how often that crashed.
    fn simulate(&self, pace: &Pace, rows: &Collect<String>, simulation: Simulation) -> (Vec<String>, u32) {
        let options = Options::new().checkpoint_every(millis(5));
        let report = simulation.workers(&[1, 2, 3, 8]).options(options).run(
            |_| Ok(()),
            || {
                let flow = Flow::new("case");
                self.describe(&flow, pace, rows);
                flow
            },
        );
        let report = report.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        (sorted(rows), report.crashes)
    }

    fn without_crashes(&self, seed: u64, pace: &Pace, rows: &Collect<String>) -> Vec<String> {
        self.simulate(pace, rows, Simulation::seed(seed).crashes(0).faulty_store(false)).0
    }

    /// Compares two digests, and shows the first row that makes the difference.
    fn compare(&self, found: &[String], expected: &[String], how: &str) {
        if digest(found) == digest(expected) {
            return;
        }
        let differs = found.iter().zip(expected).find(|(found, expected)| found != expected);
        let (found, expected) = (found.len(), expected.len());
        panic!("{}, {how}: {found} rows instead of {expected}; where they part: {differs:?}", self.name);
    }
}

fn sorted(rows: &Collect<String>) -> Vec<String> {
    let mut rows = rows.rows();
    rows.sort();
    rows
}

/// FNV-1a of the rows.
fn digest(rows: &[String]) -> u64 {
    let bytes = rows.iter().flat_map(|row| row.bytes().chain([b'\n']));
    bytes
        .fold(0xcbf2_9ce4_8422_2325, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One worker at full speed: what all else is compared with.
fn expected(lab: &Lab) -> Vec<(&'static Case, Vec<String>)> {
    let answers: Vec<_> = CASES.iter().map(|case| (case, case.run(lab))).collect();
    for (case, rows) in &answers {
        assert!(rows.len() > 10, "{}: {} rows are too few to get wrong", case.name, rows.len());
    }
    answers
}

#[test]
fn every_operator_gives_the_same_with_any_number_of_workers() {
    let answers = expected(&Lab::new(1, StateBackend::Memory));
    let labs = [
        Lab::new(2, StateBackend::Memory),
        Lab::new(3, StateBackend::Memory),
        Lab::new(8, StateBackend::Memory),
        #[cfg(feature = "rocksdb")]
        Lab::new(2, StateBackend::RocksDb),
    ];
    for lab in labs {
        answers.iter().for_each(|(case, rows)| case.compare(&case.run(&lab), rows, &lab.name));
    }
}

#[test]
fn every_operator_gives_the_same_at_a_tenth_of_the_speed_and_with_a_silent_partition() {
    for (case, expected) in expected(&Lab::new(1, StateBackend::Memory)) {
        for seed in 0..4 {
            let rows = case.without_crashes(seed, &Pace::Tenth, &Collect::new());
            case.compare(&rows, &expected, &format!("at a tenth of the speed, seed {seed}"));
            let rows = Collect::new();
            let found = case.without_crashes(seed, &Pace::Idle(rows.clone()), &rows);
            case.compare(&found, &expected, &format!("with a silent partition, seed {seed}"));
        }
    }
}

#[test]
fn every_operator_gives_the_same_whatever_crashes_when() {
    for (case, expected) in expected(&Lab::new(1, StateBackend::Memory)) {
        let mut crashes = 0;
        for seed in 0..SEEDS {
            let pace = if seed % 2 == 0 { Pace::Full } else { Pace::Tenth };
            let simulation = Simulation::seed(seed).crashes(6);
            let (rows, crashed) = case.simulate(&pace, &Collect::new(), simulation);
            case.compare(&rows, &expected, &format!("through {crashed} crashes, seed {seed}"));
            crashes += crashed;
        }
        assert!(u64::from(crashes) > SEEDS / 2, "{}: {crashes} crashes are too few to survive", case.name);
    }
}

#[test]
fn no_operator_is_forgotten() {
    let declared = vocabulary::operators();
    let covered: BTreeSet<String> =
        CASES.iter().flat_map(|case| case.covers).chain(EXEMPT).map(|name| name.to_string()).collect();
    let forgotten: Vec<_> = declared.difference(&covered).collect();
    assert!(forgotten.is_empty(), "add a case for each to tests/semantics/replay/cases.rs: {forgotten:?}");
    let gone: Vec<_> = covered.difference(&declared).collect();
    assert!(gone.is_empty(), "tests/semantics/replay/cases.rs speaks of operators that are gone: {gone:?}");
}

/// A flow whose result depends on how records arrive, to see that the comparison would notice.
#[test]
fn a_flow_that_depends_on_the_order_of_arrival_is_found_out() {
    let case = cases::NOT_DETERMINISTIC;
    let expected = case.run(&Lab::new(1, StateBackend::Memory));
    let differs = (0..4).any(|seed| case.without_crashes(seed, &Pace::Tenth, &Collect::new()) != expected);
    assert!(differs);
}
