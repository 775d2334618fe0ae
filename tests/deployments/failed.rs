//! A live version that fails for good, and the one before it takes its place again.

use crate::support::*;
use rivermark::{Engine, State, Status};
use std::time::Instant;

fn wait_for_failure(version: &rivermark::Deployment) {
    let until = Instant::now() + DEADLINE;
    while !matches!(version.status(), Some(Status::Failed { .. })) {
        assert!(Instant::now() < until, "{:?}", version.status());
        std::thread::yield_now();
    }
}

/// What is answered for a key, and by which version.
fn answer(engine: &Engine) -> (u64, Option<u64>) {
    let view = engine.queries("sums").view().unwrap();
    (view.version(), view.query(TOTAL).get(&0_u64).unwrap())
}

#[test]
fn a_live_version_that_fails_is_deployed_paused_and_rolled_back_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 3000));
    let first = engine.deploy(flow(1), replay()).unwrap();
    wait_for_rows(&engine, 3000);
    let second = engine.deploy(flow(FAILING), replay()).unwrap();
    promote(&second);
    append(engine.log(), numbers(3000, 4000));
    wait_for_rows(&engine, 4000);
    append(engine.log(), numbers(4000, 6000));
    wait_for_failure(&second);
    // It is live all the same, and what it has stored is answered.
    assert_eq!((first.state(), second.state()), (State::Kept, State::Live));
    let (version, total) = answer(&engine);
    assert!(version == FAILING && total > Some(0));
    let error = second.roll_back("it fails").unwrap_err().to_string();
    assert!(error.contains("Replay::paused"), "{error}");
    // Paused it reads nothing, and so comes to rest before the record on which it fails.
    let second = engine.deploy(flow(FAILING), replay().paused()).unwrap();
    second.roll_back("it fails").unwrap();
    assert_eq!((first.state(), second.state()), (State::Live, State::RolledBack));
    let (version, after) = answer(&engine);
    assert!(version == 1 && after > Some(0));
    append(engine.log(), numbers(6000, 7000));
    assert_eq!(check_rows(&engine, 7000), [1, FAILING, 1]);
}
