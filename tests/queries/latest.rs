//! What workers have now: newer than any epoch.

use crate::support::*;
use rivermark::{Engine, Reducing};
use rivermark::{List, Options, StateBackend, Value};
use std::collections::BTreeMap;
use std::time::Duration;

fn says(error: &rivermark::Error, words: &[&str]) {
    let error = error.to_string();
    words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
}

#[test]
fn the_latest_is_there_before_any_epoch_is() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(3).checkpoint_every(None).state_backend(StateBackend::Memory);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    append(engine.log(), 0, 10_000);
    let job = engine.start(bank(&Book::default())).unwrap();
    let taken = |job: &rivermark::Job| -> u64 {
        let of = |account: u64| job.latest(TAKEN).get(&account).map(Option::unwrap_or_default);
        // Before the workers have opened their state there is nothing to ask.
        (0..ACCOUNTS).map(|account| of(account).unwrap_or(0)).sum()
    };
    wait(&job, |job| taken(job) == 10_000);
    says(&job.query(TAKEN).get(&1_u64).unwrap_err(), &["no epoch"]);
    append(engine.log(), 10_000, 10_100);
    wait(&job, |job| taken(job) == 10_100);
    job.stop();
    wait_until_over(&job);
    says(&job.latest(TAKEN).get(&1_u64).unwrap_err(), &["taken", "bank", "over"]);
}

fn wait_until_over(job: &rivermark::Job) {
    assert!(!job.wait_until(|_| false));
}

#[test]
fn the_latest_is_what_the_next_epoch_has_when_nothing_comes_between() {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(directory.path(), StateBackend::RocksDb, 2);
    let book = Book::default();
    append(engine.log(), 0, 20_000);
    let job = engine.start(bank(&book)).unwrap();
    wait(&job, |job| job.view().is_ok_and(|view| read(&view) == 20_000));
    // After a failure the workers are others.
    book.fails.store(true, std::sync::atomic::Ordering::Relaxed);
    append(engine.log(), 20_000, 21_000);
    wait(&job, |job| job.metrics().restarts > 0 && job.view().is_ok_and(|view| read(&view) == 21_000));
    let view = job.view().unwrap();
    let stored: BTreeMap<u64, i64> = view.query(BALANCE).entries().unwrap().map(Result::unwrap).collect();
    for (account, balance) in stored {
        assert_eq!(job.latest(BALANCE).of("book").get(&account).unwrap(), Some(balance));
    }
    assert_eq!(job.latest(BALANCE).get(&ACCOUNTS).unwrap(), None);
}

#[test]
fn the_latest_of_what_is_not_there_is_an_error_that_names_what_is() {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(directory.path(), StateBackend::Memory, 2);
    append(engine.log(), 0, 1_000);
    let job = engine.start(bank(&Book::default())).unwrap();
    wait(&job, |job| job.view().is_ok_and(|view| read(&view) == 1_000));
    const NONE: Value<i64> = Value::new("blance");
    says(&job.latest(NONE).get(&1_u64).unwrap_err(), &["blance", "balance", "taken"]);
    const UNSIGNED: Value<u64> = Value::new("balance");
    says(&job.latest(UNSIGNED).get(&1_u64).unwrap_err(), &["u64 -> i64", "u64 -> u64"]);
    const LIST: List<i64> = List::new("balance");
    says(&job.latest(LIST).get(&1_u64).unwrap_err(), &["List", "Value"]);
    const LATER: Reducing<u64> = Reducing::new("taken").version(2);
    says(&job.latest(LATER).get(&1_u64).unwrap_err(), &["version"]);
    says(&job.latest(BALANCE).of("bok").get(&1_u64).unwrap_err(), &["`book`", "`begun`"]);
    says(&job.latest(BALANCE).get(&1_u32).unwrap_err(), &["u32 -> i64"]);
    let hasty = job.latest(BALANCE).within(Duration::ZERO).get(&1_u64);
    assert!(hasty.is_ok() || hasty.unwrap_err().to_string().contains("within"));
}
