//! The latency benchmark counts what it says. How long anything takes is not asserted.

use crate::specification::floor_answer;
use nexmark::event::Lean;
use nexmark::generator::Generator;
use nexmark::latency::{LatencyReport, LatencySetup, Percentiles, Rate};
use nexmark::queries::Query;
use nexmark::run::{Form, Resources};
use rivermark::{StateBackend, millis};
use std::time::Duration;

const EVENTS: u64 = 100_000;

/// All events are due within a second.
fn report(query: Query, warm_up: Duration) -> LatencyReport {
    let resources = Resources {
        workers: 2,
        state: StateBackend::RocksDb,
        state_budget: None,
        checkpoint: Some(millis(100)),
    };
    let (rate, time) = (Rate::PerSecond(EVENTS as f64), Duration::from_secs(1));
    let (generator, form) = (Generator::default(), Form::Lean);
    LatencySetup { query, generator, form, resources, rate, time, warm_up, directory: None }
        .measure()
        .unwrap()
}

#[test]
fn every_event_is_read_and_every_row_is_timed_once() {
    for query in [Query::Q0, Query::Q1, Query::Q5, Query::Q7, Query::Q8, Query::Q12] {
        let report = report(query, Duration::ZERO);
        assert_eq!((report.events, report.rows), (EVENTS, floor_answer::<Lean>(query, EVENTS).0), "{query}");
        assert_eq!(report.timed_rows + report.end_rows, report.rows, "{query}: {report:?}");
        assert!(report.timed_rows > 0, "{query}: {report:?}");
        let is_of_windows = !matches!(query, Query::Q0 | Query::Q1);
        assert_eq!(
            report.end_rows > 0,
            is_of_windows,
            "{query}: the last windows end with the stream: {report:?}"
        );
        for Percentiles { p50_ms, p99_ms, p999_ms, p9999_ms, max_ms } in [report.arrived, report.committed] {
            let rising = [p50_ms, p99_ms, p999_ms, p9999_ms, max_ms];
            assert!(rising.is_sorted() && p50_ms > 0.0, "{query}: {rising:?}");
        }
        assert!(report.arrived <= report.committed, "{query}: what can be read has come before: {report:?}");
    }
}

#[test]
fn rows_of_the_warm_up_are_told_apart() {
    let report = report(Query::Q1, Duration::from_millis(500));
    assert_eq!(report.warm_up_rows + report.timed_rows, report.rows);
    // Of 50 events, 46 are bids.
    assert_eq!(report.warm_up_rows, EVENTS / 2 / 50 * 46, "{report:?}");
}

#[test]
fn a_query_whose_rows_wait_for_no_single_event_is_refused() {
    let resources =
        Resources { workers: 1, state: StateBackend::Memory, state_budget: None, checkpoint: None };
    let setup = LatencySetup {
        query: Query::Q9,
        generator: Generator::default(),
        form: Form::Lean,
        resources,
        rate: Rate::PerSecond(1000.0),
        time: Duration::from_secs(1),
        warm_up: Duration::ZERO,
        directory: None,
    };
    let error = setup.measure().unwrap_err().to_string();
    assert!(error.contains("q9 waits for no single event"), "{error}");
}

#[test]
fn rates_are_numbers_or_shares() {
    assert_eq!("200000".parse(), Ok(Rate::PerSecond(200_000.0)));
    assert_eq!("50%".parse(), Ok(Rate::Share(0.5)));
    for wrong in ["", "%", "-3", "0", "inf", "fast"] {
        assert!(wrong.parse::<Rate>().unwrap_err().contains(wrong), "{wrong}");
    }
}
