//! Invariants that hold in every epoch and at no other moment, looked at while flows run, fail and are started again.

use crate::support::*;
use rivermark::{StateBackend, View};
use std::path::Path;
use std::sync::atomic::Ordering;

/// What must be true of any epoch.
fn check(view: &View) {
    let balances = view.query(BALANCE);
    let all: Vec<(u64, i64)> = balances.entries::<u64>().unwrap().map(Result::unwrap).collect();
    assert_eq!(all.iter().map(|entry| entry.1).sum::<i64>(), 0, "money came or went at {view}");
    let begun = view.query(TAKEN).of("begun");
    let counted: u64 = begun.entries::<u64>().unwrap().map(|entry| entry.unwrap().1).sum();
    assert_eq!(counted, read(view), "another operator has seen other records at {view}");
    // One by one it is the same.
    for (account, balance) in all.iter().take(20) {
        assert_eq!(balances.get(account).unwrap(), Some(*balance));
    }
}

fn every_epoch_is_whole(backend: StateBackend) {
    let directory = tempfile::tempdir().unwrap();
    let book = Book::default();
    let mut appended = 0;
    let mut last = None;
    let mut opened = false;
    for workers in [1, 3, 2] {
        let engine = engine(directory.path(), backend, workers);
        append(engine.log(), appended, appended + 20_000);
        appended += 20_000;
        let job = engine.start(bank(&book)).unwrap();
        let mut epochs = 0;
        wait(&job, |job| {
            let Ok(view) = job.view() else { return false };
            check(&view);
            assert!(last.is_none_or(|last| last <= view.epoch()), "{view} came after {last:?}");
            if last.replace(view.epoch()) != Some(view.epoch()) {
                epochs += 1;
                // The failure takes back what no epoch has.
                book.fails.store(epochs % 4 == 0, Ordering::Relaxed);
                if epochs < 12 {
                    append(engine.log(), appended, appended + 1_000);
                    appended += 1_000;
                }
            }
            epochs >= 12 && read(&view) == appended
        });
        assert!(job.metrics().restarts > 0, "nothing has failed");
        book.fails.store(false, Ordering::Relaxed);
        let queries = job.queries();
        job.stop();
        job.wait().unwrap();
        check(&queries.view().unwrap());
        opened |= has_databases(directory.path());
    }
    assert_eq!(opened, backend == StateBackend::RocksDb, "whether state was spilled");
}

/// Whether views read the files of databases.
fn has_databases(directory: &Path) -> bool {
    let scratch = std::fs::read_dir(directory.join("queries")).into_iter().flatten();
    let live =
        scratch.filter_map(|scratch| std::fs::read_dir(scratch.unwrap().path().join("live-state")).ok());
    live.flatten().next().is_some()
}

#[test]
fn every_epoch_is_whole_with_state_in_memory() {
    every_epoch_is_whole(StateBackend::Memory);
}

#[test]
fn every_epoch_is_whole_with_state_that_is_spilled() {
    every_epoch_is_whole(StateBackend::RocksDb);
}
