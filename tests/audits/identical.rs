//! What the engine publishes is what its log implies.

use crate::support::{
    DEADLINE, FLOW, TOPICS, append, audit, flow, numbers, open, read, rows_of, salted, tamper,
};
use rivermark::{Audit, Stage, Status, millis, secs};
use std::time::Instant;

#[test]
fn what_runs_crashes_and_other_workers_have_published_is_identical() {
    let directory = tempfile::tempdir().unwrap();
    for (round, workers) in [(0, 2), (1, 1), (2, 3)] {
        let engine = open(directory.path(), workers);
        append(engine.log(), numbers(round * 1000, round * 1000 + 1000));
        let job = engine.start(flow(None, false)).unwrap();
        read(&job, 700);
        // As a crash: what no checkpoint has is computed again.
        job.cancel();
        assert!(job.wait().is_ok());
    }
    let engine = open(directory.path(), 2);
    let job = engine.start(flow(None, false)).unwrap();
    read(&job, 0);
    job.stop();
    job.wait().unwrap();
    for workers in [1, 3] {
        let report = audit(&engine, flow(None, false), workers);
        assert!(report.is_identical(), "{report}");
        for topic in TOPICS {
            assert!(rows_of(&report, topic) > 100 || topic == "pairs", "{topic}: {report}");
        }
        assert_eq!(rows_of(&report, "totals"), report.records);
    }
    assert!(std::fs::read_dir(directory.path().join("audits")).unwrap().next().is_none(), "nothing is left");
}

#[test]
fn the_ends_of_bounded_runs_are_repeated() {
    let directory = tempfile::tempdir().unwrap();
    for (round, workers) in [(0, 2), (1, 1), (2, 2)] {
        let engine = open(directory.path(), workers);
        // The windows that an end has closed are late for what comes then.
        append(engine.log(), numbers(round * 300, round * 300 + 300));
        engine.run(flow(None, true)).unwrap();
    }
    let engine = open(directory.path(), 2);
    let report = audit(&engine, flow(None, true), 2);
    assert!(report.is_identical(), "{report}");
    assert_eq!((report.records, rows_of(&report, "totals")), (900, 900));
}

#[test]
fn what_silences_have_made_late_is_late_again() {
    let directory = tempfile::tempdir().unwrap();
    let silence = Some(millis(20));
    let engine = open(directory.path(), 2);
    let of_key = |keys: &'static [u64]| move |number: &crate::support::Number| keys.contains(&number.1);
    append(engine.log(), numbers(0, 500).filter(of_key(&[0, 3, 6])));
    let job = engine.start(flow(silence, false)).unwrap();
    // Two partitions have nothing, and the windows of the third fire without them.
    let until = Instant::now() + DEADLINE;
    let windows = |engine: &rivermark::Engine| {
        engine.log().topic("windows").map_or(0, |topic| topic.info(0).unwrap().stable)
    };
    assert!(job.wait_until(|_| windows(&engine) > 6 || Instant::now() > until));
    append(engine.log(), numbers(0, 800).filter(of_key(&[1, 2, 4, 5])));
    read(&job, 600);
    let late = job.metrics().late_records;
    assert!(late > 200, "{late} are late");
    // With and without the job, and while a partition is silent at the cut.
    let beside = audit(&engine, flow(silence, false), 1);
    assert!(beside.is_identical(), "{beside}");
    job.stop();
    job.wait().unwrap();
    let report = audit(&engine, flow(silence, false), 2);
    assert!(report.is_identical(), "{report}");
}

#[test]
fn a_job_goes_on_while_it_is_audited_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 500));
    let job = engine.start(flow(None, false)).unwrap();
    read(&job, 500);
    for round in 1..4 {
        let (log, report) = (engine.log(), engine.audit(flow(None, false), Audit::from_earliest()).unwrap());
        append(log, numbers(round * 500, round * 500 + 500));
        let report = report.wait().unwrap();
        assert!(report.is_identical(), "{report}");
        assert_eq!(job.status(), Status::Running);
        read(&job, round * 500 + 500);
    }
    job.stop();
    job.wait().unwrap();
}

#[test]
fn a_range_between_savepoints_is_audited_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 600));
    let job = engine.start(flow(None, false)).unwrap();
    read(&job, 600);
    let first = job.savepoint("first").unwrap();
    append(engine.log(), numbers(600, 1500));
    read(&job, 1500);
    let second = job.savepoint("second").unwrap();
    append(engine.log(), numbers(1500, 2000));
    read(&job, 2000);
    job.stop();
    job.wait().unwrap();
    // A run that ended, with windows closed early, behind both.
    engine.run(flow(None, true)).unwrap();
    append(engine.log(), numbers(2000, 2300));
    engine.run(flow(None, true)).unwrap();
    let ranges = [
        (Audit::from_earliest().up_to(first.clone()), 600),
        (Audit::from_savepoint(first.clone()).up_to(second.clone()), 900),
        (Audit::from_savepoint(second), 800),
        (Audit::from_savepoint(first), 1700),
    ];
    for (range, records) in ranges {
        let report = engine.audit(flow(None, true), range).unwrap().wait().unwrap();
        assert!(report.is_identical(), "{report}");
        assert_eq!((report.records, rows_of(&report, "totals")), (records, records), "{report}");
    }
    // What was tampered with before the range is none of it.
    tamper(engine.log(), "totals", |_, rows| rows[0].2 += 1);
    let later = engine.savepoint(FLOW, "first").unwrap();
    let report = engine.audit(flow(None, true), Audit::from_savepoint(later)).unwrap().wait().unwrap();
    assert!(report.is_identical(), "{report}");
    assert!(!audit(&engine, flow(None, true), 2).is_identical());
}

#[test]
fn a_flow_that_asks_a_clock_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 1);
    append(engine.log(), numbers(0, 100));
    let clock: fn() -> u64 = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 / 1_000_000_000
    };
    // By the clock of another second.
    let earlier: fn() -> u64 = || 1;
    engine.run(salted(None, true, earlier)).unwrap();
    let report = audit(&engine, salted(None, true, clock), 1);
    let first = report.difference.as_ref().unwrap();
    assert_eq!((&*first.topic, first.kind), ("totals", rivermark::DifferenceKind::Changed), "{report}");
}

#[test]
fn an_audit_tells_how_far_it_is_and_can_be_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 2000));
    engine.run(flow(None, true)).unwrap();
    let run = engine.audit(flow(None, true), Audit::from_earliest()).unwrap();
    let until = Instant::now() + DEADLINE;
    while !run.is_over() {
        assert!(Instant::now() < until, "{:?}", run.progress());
        std::thread::yield_now();
    }
    let progress = run.progress();
    assert_eq!((progress.stage, progress.records, progress.of_records), (Stage::Over, 2000, 2000));
    assert!(run.wait().unwrap().is_identical());

    let run = engine.audit(flow(None, true), Audit::from_earliest()).unwrap();
    run.cancel();
    let error = run.wait().unwrap_err().to_string();
    assert!(error.contains("cancelled") && error.contains(FLOW), "{error}");
    drop(engine.audit(flow(Some(secs(1)), true), Audit::from_earliest()).unwrap());
}
