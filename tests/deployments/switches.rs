//! Promoted, rolled back, retired, in one process.

use crate::support::*;
use rivermark::connectors::{AliasSource, LogSink};
use rivermark::{Flow, RateLimit, State, Status, millis, secs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

#[test]
fn readers_see_each_row_once_across_promote_and_roll_back() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 3000));
    let first = engine.deploy(flow(1), replay()).unwrap();
    assert_eq!(first.state(), State::Live);
    wait_for_rows(&engine, 3000);
    let second = engine.deploy(flow(2), replay()).unwrap();
    wait_for(&second, State::CaughtUp);
    assert_eq!(check_rows(&engine, 3000), [1], "nobody sees the second version yet");
    second.promote().unwrap();
    assert_eq!((first.state(), second.state()), (State::Kept, State::Live));
    append(engine.log(), numbers(3000, 6000));
    assert_eq!(check_rows(&engine, 6000), [1, 2]);
    // The first goes on behind the second, so that it can take its place again.
    second.roll_back("it was wrong after all").unwrap();
    assert_eq!((first.state(), second.state()), (State::Live, State::RolledBack));
    assert_eq!(second.status(), None);
    append(engine.log(), numbers(6000, 9000));
    assert_eq!(check_rows(&engine, 9000), [1, 2, 1]);
    let third = engine.deploy(flow(3), replay().promote_when_caught_up()).unwrap();
    wait_for(&third, State::Live);
    append(engine.log(), numbers(9000, 10_000));
    assert_eq!(check_rows(&engine, 10_000), [1, 2, 1, 3]);
    // What was promoted again does nothing, and what is over cannot come back.
    assert_eq!(third.promote().unwrap().outputs.len(), 0);
    let error = engine.deploy(flow(2), replay()).err().unwrap().to_string();
    assert!(error.contains("version 2 was rolled back"), "{error}");
}

#[test]
fn versions_change_again_and_again_while_records_come_and_another_flow_reads_along() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 100));
    let (appended, is_over) = (AtomicU64::new(100), AtomicBool::new(false));
    let mut live = engine.deploy(flow(1), replay()).unwrap();
    wait_for_rows(&engine, 100);
    let copy = Flow::new("copy");
    copy.source(AliasSource::<TotalRow>::of(TOTALS)).sink(LogSink::topic("copied"));
    let copy = engine.start(copy).unwrap();
    std::thread::scope(|scope| {
        // Also if an assertion fails.
        let _end = AtEnd(&is_over);
        scope.spawn(|| append_until(&is_over, &appended, engine.log(), millis(1)));
        let mut versions = vec![live.clone()];
        for version in 2..6 {
            let next = engine.deploy(flow(version), replay()).unwrap();
            promote(&next);
            if version == 3 {
                next.roll_back("to be seen").unwrap();
            } else {
                live = next.clone();
            }
            versions.push(next);
        }
    });
    let count = appended.load(Ordering::SeqCst);
    assert_eq!(live.state(), State::Live);
    let order = check_rows(&engine, count);
    assert!(order.ends_with(&[5]), "{order:?}");
    let until = Instant::now() + DEADLINE;
    let copied = || {
        let topic = engine.log().topic("copied").unwrap();
        topic.info(0).unwrap().stable
    };
    while copied() < count {
        assert!(Instant::now() < until && copy.status() == Status::Running, "{:?}", copy.status());
        std::thread::yield_now();
    }
    let mut rows: Vec<TotalRow> = rows_of(&engine, "copied");
    let mut seen: Vec<TotalRow> = read(&engine, TOTALS, 2);
    rows.sort_unstable();
    seen.sort_unstable();
    let first = rows.iter().zip(&seen).find(|(copied, seen)| copied != seen);
    assert!(rows == seen, "{} rows were copied and {} seen; {first:?}", rows.len(), seen.len());
}

fn rows_of(engine: &rivermark::Engine, topic: &str) -> Vec<TotalRow> {
    use rivermark::log::{Isolation, Position};
    let topic = engine.log().topic(topic).unwrap();
    let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        rows.extend(batch.map(|row| serde_json::from_slice::<TotalRow>(row.value.unwrap()).unwrap()));
    }
    rows
}

#[test]
fn a_replay_is_slowed_paused_and_resumed_and_tells_how_far_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 5000));
    let first = engine.deploy(flow(1), replay()).unwrap();
    wait_for_rows(&engine, 5000);
    let slow = replay().workers(1).rate_limit(RateLimit::records_per_second(500).burst(millis(10))).paused();
    let second = engine.deploy(flow(2), slow).unwrap();
    let progress = second.progress().unwrap();
    assert_eq!((progress.records_behind, progress.arrives_in), (5000, None), "{progress}");
    assert_eq!(second.state(), State::Replaying);
    let error = second.promote().unwrap_err().to_string();
    assert!(error.contains("promoting version 2 of flow `sums`") && error.contains("caught up"), "{error}");
    second.resume();
    let until = Instant::now() + DEADLINE;
    let progress = loop {
        let progress = second.progress().unwrap();
        let has_rate = progress.arrives_in.is_some_and(|arrives_in| arrives_in > secs(0));
        if has_rate && progress.bytes_behind.is_some() {
            break progress;
        }
        assert!(Instant::now() < until, "{progress}");
        std::thread::yield_now();
    };
    assert!(progress.records_behind < 5000 && progress.records_per_second < 2000.0, "{progress}");
    assert_eq!(progress.partitions.len(), 3);
    let json = serde_json::to_value(&progress).unwrap();
    assert_eq!(json["state"], "replaying");
    second.set_rate_limit("source-1", None).unwrap();
    wait_for(&second, State::CaughtUp);
    assert_eq!(second.progress().unwrap().records_behind, 0);
    second.promote().unwrap();
    append(engine.log(), numbers(5000, 6000));
    assert_eq!(check_rows(&engine, 6000), [1, 2]);
    assert_eq!(first.state(), State::Kept);
}

#[test]
fn a_version_that_is_retired_leaves_nothing_and_the_live_one_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 2000));
    let first = engine.deploy(flow(1), replay()).unwrap();
    wait_for_rows(&engine, 2000);
    let error = first.retire().unwrap_err().to_string();
    assert!(error.contains("version 1 is live"), "{error}");
    // Kept for no longer than it takes to look.
    let second = engine.deploy(flow(2), replay().keep_old_for(millis(0))).unwrap();
    promote(&second);
    wait_for(&first, State::Retired);
    let error = second.roll_back("too late").unwrap_err().to_string();
    assert!(error.contains("kept"), "{error}");
    for gone in ["checkpoints/sums/1", "state/sums/1", "log/topics/totals.v1", "log/topics/windows.v1"] {
        let path = directory.path().join(gone);
        let files = std::fs::read_dir(&path)
            .map_or(0, |entries| entries.filter(|entry| entry.as_ref().unwrap().path().is_file()).count());
        assert_eq!(files, 0, "{gone}");
    }
    append(engine.log(), numbers(2000, 3000));
    let until = Instant::now() + DEADLINE;
    let new = expected(2, 3000).1.len() - expected(2, 2000).1.len();
    while read::<TotalRow>(&engine, TOTALS, 2).len() < new {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    assert!(read::<TotalRow>(&engine, TOTALS, 2).iter().all(|row| row.0 == 2));
    drop((first, second));
    drop(engine);
    // And again after a start.
    let engine = open(directory.path());
    let second = engine.deploy(flow(2), replay()).unwrap();
    assert_eq!(second.state(), State::Live);
    append(engine.log(), numbers(3000, 3100));
    while read::<TotalRow>(&engine, TOTALS, 2).len() < new + 100 {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
}
