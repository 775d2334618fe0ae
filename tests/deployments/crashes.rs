//! Processes that die under SIGKILL anywhere in a deployment, and go on with the same calls.

use crate::support::*;
use rivermark::{Deployment, Engine, State};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DIRECTORY: &str = "RIVERMARK_TEST_DIRECTORY";
const ALL: u64 = 4000;
const LAST: u64 = 6;

/// Deploys what was deployed, and promotes one version after the other; every third is rolled back. The same calls after every death.
fn go_on(engine: &Engine, until: u64) -> Vec<Deployment> {
    let known = engine.deployments("sums").unwrap();
    let runs = |version: &u64| {
        matches!(
            known.state(*version),
            Some(State::Live | State::Kept | State::Replaying | State::CaughtUp | State::Failed)
        )
    };
    let mut held: Vec<Deployment> = Vec::new();
    // The live one first: the others follow it.
    let live = known.live().unwrap_or(1);
    held.push(engine.deploy(flow(live), replay()).unwrap());
    for version in known.versions.keys().filter(|version| **version != live && runs(version)) {
        held.push(engine.deploy(flow(*version), replay()).unwrap());
    }
    for version in 2..=until {
        let is_over = |state| matches!(state, State::Live | State::Kept | State::RolledBack | State::Retired);
        if engine.deployments("sums").unwrap().state(version).is_some_and(is_over) {
            continue;
        }
        let next = match held.iter().find(|deployment| deployment.version() == version) {
            Some(next) => next.clone(),
            None => engine.deploy(flow(version), replay()).unwrap(),
        };
        promote(&next);
        held.push(next.clone());
        if version % 3 == 0 {
            next.roll_back("every third").unwrap();
        }
    }
    held
}

#[test]
#[ignore = "the process that dies in the test below"]
fn deploys_until_it_dies() {
    let engine = open(&PathBuf::from(std::env::var_os(DIRECTORY).unwrap()));
    let _held = go_on(&engine, u64::MAX);
}

fn record(directory: &Path) -> Vec<u8> {
    std::fs::read(directory.join("deployments/sums")).unwrap_or_default()
}

#[test]
fn a_process_that_is_killed_anywhere_in_a_deployment_leaves_one_version_live_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, ALL));
    let first = engine.deploy(flow(1), replay()).unwrap();
    wait_for_rows(&engine, ALL);
    drop(first);
    drop(engine);
    let mut switches = 0;
    for death in 0..12_u64 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crashes::deploys_until_it_dies"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // So many writes of the record, and then some more moments: it dies between any two steps of a switch.
        let (mut seen, mut before) = (0, record(directory.path()));
        let until = Instant::now() + Duration::from_secs(60);
        while seen <= death % 5 {
            let now = record(directory.path());
            seen += u64::from(now != before);
            before = now;
            assert!(process.try_wait().unwrap().is_none(), "the process has ended by itself");
            assert!(Instant::now() < until, "nothing is written any more");
            std::thread::yield_now();
        }
        let moment = Instant::now() + Duration::from_micros(death * 7919 % 40_000);
        while Instant::now() < moment {
            std::thread::yield_now();
        }
        process.kill().unwrap();
        process.wait().unwrap();
        let engine = open(directory.path());
        let record = engine.deployments("sums").unwrap();
        let live = record.versions.values().filter(|version| version.state == State::Live).count();
        assert_eq!(live, 1, "{record:?}");
        assert!(record.switches >= switches);
        switches = record.switches;
    }
    assert!(switches > 3, "the processes came to {switches} switches only");
    let engine = open(directory.path());
    let last = engine.deployments("sums").unwrap().versions.keys().max().copied().unwrap();
    let held = go_on(&engine, last + LAST);
    append(engine.log(), numbers(ALL, ALL + 2000));
    let order = check_rows(&engine, ALL + 2000);
    assert_eq!(order.last(), engine.deployments("sums").unwrap().live().as_ref());
    assert!(!held.is_empty());
}
