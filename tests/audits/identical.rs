//! What the engine publishes is what its log implies.

use crate::support::Number;
use crate::support::{
    DEADLINE, FLOW, TOPICS, append, audit, flow, numbers, open, read, rows_of, salted, tamper,
};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{
    Audit, CaughtUp, Flow, LookUp, RateLimit, Replay, Reply, Stage, State, Status, Timestamp, Upsert,
    Watermarks, Windows, millis, secs,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// The sum of each key so far, as rows and as a table; each version calls it something else.
fn sums(version: u64) -> Flow {
    let flow = Flow::new("sums").version(version);
    let sums = flow
        .source(LogSource::<Number>::topic("numbers"))
        .event_time(|n| Timestamp::from_millis(n.2), Watermarks::bounded(millis(500)))
        .map(|n| (n.1, n.0))
        .key_by(|n| n.0)
        .reduce(|sum, n| sum.1 += n.1)
        .named("sum");
    sums.clone()
        .map(move |(key, sum)| (version, key, sum))
        .sink_as("rows", LogSink::output("sums").key(|row: &(u64, u64, u64)| vec![row.1 as u8]));
    sums.map(|(key, sum)| Upsert { key, value: Some(sum), time: Timestamp::from_millis(0) })
        .sink_as("table", LogSink::table(format!("table.v{version}")));
    flow
}

#[test]
fn a_version_that_began_from_a_savepoint_of_another_one_is_audited_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 500));
    let job = engine.start(sums(1)).unwrap();
    read(&job, 500);
    let savepoint = job.stop_with_savepoint("handed-over").unwrap();
    append(engine.log(), numbers(500, 900));
    let job = engine.start_from(sums(2), &savepoint).unwrap();
    read(&job, 400);
    job.stop();
    job.wait().unwrap();
    assert!(audit(&engine, sums(1), 2).is_identical());
    let run = engine.audit(sums(2), Audit::from_savepoint(savepoint)).unwrap();
    let report = run.wait().unwrap();
    assert!(report.is_identical(), "{report}");
    assert_eq!((report.records, report.outputs.len()), (400, 2), "{report}");
    assert!(!audit(&engine, sums(2), 2).is_identical(), "from the earliest it is another flow");
}

const DIRECTORY: &str = "RIVERMARK_TEST_DIRECTORY";

#[test]
#[ignore = "the process that dies in the test below"]
fn publishes_until_it_dies() {
    let engine = open(std::path::Path::new(&std::env::var_os(DIRECTORY).unwrap()), 2);
    engine.start(flow(None, false)).unwrap().wait().unwrap();
}

#[test]
fn what_processes_have_published_until_they_were_killed_is_identical() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let published = |log: &rivermark::log::Log| {
        let ends = log.topic("totals").map(|topic| [0, 1].map(|at| topic.info(at).unwrap().stable));
        ends.map_or(0, |ends| ends.into_iter().sum::<u64>())
    };
    for death in 0..5_u64 {
        append(open(directory.path(), 1).log(), numbers(death * 4000, death * 4000 + 4000));
        let mut process = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "identical::publishes_until_it_dies"])
            .env(DIRECTORY, directory.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let log = rivermark::log::Log::open_read_only(&log, rivermark::log::LogOptions::new()).unwrap();
        let (before, until) = (published(&log), Instant::now() + DEADLINE);
        // As soon as something is visible, and later and later behind that.
        while published(&log) <= before + death * 700 {
            assert!(Instant::now() < until && process.try_wait().unwrap().is_none());
            std::thread::yield_now();
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let engine = open(directory.path(), 2);
    // What the last checkpoint has stored and nobody has committed yet, the next start does.
    let job = engine.start(flow(None, false)).unwrap();
    read(&job, 0);
    job.cancel();
    job.wait().unwrap();
    let report = audit(&engine, flow(None, false), 2);
    assert!(report.is_identical() && rows_of(&report, "totals") > 4000, "{report}");
}

/// Counts the numbers of each key and second, under an output that follows versions.
fn versioned(version: u64) -> Flow {
    let flow = Flow::new("versioned").version(version);
    flow.source(LogSource::<Number>::topic("numbers"))
        .event_time(|n| Timestamp::from_millis(n.2), Watermarks::bounded(millis(500)))
        .key_by(|n| n.1)
        .window(Windows::tumbling(secs(version)))
        .count()
        .map(|row| (row.key, row.window.start.millis(), row.value))
        .sink(LogSink::output("counts").partitions(2).key(|row: &(u64, i64, u64)| vec![row.0 as u8]));
    flow
}

#[test]
fn versions_that_are_deployed_are_audited_each_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 3000));
    let caught_up = CaughtUp::new().within_event_time(secs(10)).for_at_least(millis(20));
    let replay = Replay::from_earliest().caught_up(caught_up);
    let first = engine.deploy(versioned(1), replay.clone()).unwrap();
    let second = engine.deploy(versioned(2), replay).unwrap();
    assert!(second.wait_for(State::CaughtUp, DEADLINE), "{:?}", second.progress());
    second.promote().unwrap();
    append(engine.log(), numbers(3000, 4000));
    let until = Instant::now() + DEADLINE;
    for version in [&first, &second] {
        while version.progress().is_none_or(|progress| progress.records_behind > 0) {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
    }
    for version in [1, 2] {
        let report = audit(&engine, versioned(version), 1);
        assert!(report.is_identical(), "{report}");
        assert_eq!(report.outputs[0].topic, format!("counts.v{version}"));
        assert!(report.outputs[0].published > 50, "{report}");
    }
}

#[test]
fn a_partition_that_was_silent_does_not_hold_back_those_that_are_aligned_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    let aligned = || {
        let flow = Flow::new("aligned");
        let watermarks = Watermarks::bounded(millis(500)).idle_after(millis(20)).align_within(secs(1));
        flow.source(LogSource::<Number>::topic("numbers"))
            .event_time(|n| Timestamp::from_millis(n.2), watermarks)
            .key_by(|n| n.1)
            .window(Windows::tumbling(secs(1)))
            .count()
            .map(|row| (row.key, row.window.start.millis(), row.value))
            .sink(LogSink::topic("counts"));
        flow
    };
    // The first partition says nothing more while the others go on for most of a minute.
    append(engine.log(), numbers(0, 100));
    append(engine.log(), numbers(100, 4000).filter(|n| !n.1.is_multiple_of(3)));
    let job = engine.start(aligned()).unwrap();
    let until = Instant::now() + DEADLINE;
    let rows = || engine.log().topic("counts").map_or(0, |topic| topic.info(0).unwrap().stable);
    assert!(job.wait_until(|_| rows() > 140 || Instant::now() > until));
    job.stop();
    job.wait().unwrap();
    for workers in [1, 2] {
        let report = audit(&engine, aligned(), workers);
        assert!(report.is_identical(), "{report}");
        assert!(report.outputs[0].published > 140 && report.outputs[0].computed < 140, "{report}");
    }
}

#[test]
fn what_look_ups_have_answered_is_asked_for_no_second_time() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 300));
    let asked = Arc::new(AtomicU64::new(0));
    let looking_up = || {
        let flow = Flow::new("looking-up");
        let asked = Arc::clone(&asked);
        // Another answer each time.
        let answer = move |_: u64, reply: Reply<u64>| reply.send(Ok(asked.fetch_add(1, Ordering::Relaxed)));
        flow.source(LogSource::<Number>::topic("numbers"))
            .look_up(LookUp::new(answer), |n| n.0, |n, answer: u64| (n.0, answer))
            .sink(LogSink::topic("answers").key(|row: &(u64, u64)| row.0.to_be_bytes().to_vec()));
        flow
    };
    let job = engine.start(looking_up()).unwrap();
    read(&job, 300);
    job.stop();
    job.wait().unwrap();
    let report = audit(&engine, looking_up(), 1);
    assert!(report.is_identical(), "{report}");
    assert_eq!((report.outputs[0].published, asked.load(Ordering::Relaxed)), (300, 300));
}

#[test]
fn windows_of_processing_time_that_have_fired_are_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 20_000));
    let paced = || {
        let flow = Flow::new("paced");
        flow.source(LogSource::<Number>::topic("numbers").until_end())
            .rate_limit(RateLimit::records_per_second(100_000))
            .processing_time(millis(5))
            .key_by(|n| n.1)
            .window(Windows::tumbling(millis(20)))
            .count()
            .map(|row| (row.key, row.window.start.millis(), row.value))
            .sink(LogSink::topic("pace"));
        flow
    };
    engine.run(paced()).unwrap();
    let report = audit(&engine, paced(), 1);
    assert!(report.is_identical(), "{report}");
    assert!(report.outputs[0].published > 14, "{report}");
}
