//! Processes that die under SIGKILL while they take savepoints.

use crate::support::{append, flow, numbers, open, outputs, undisturbed, wait_for};
use rivermark::StateBackend;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DIRECTORY: &str = "RIVERMARK_TEST_DIRECTORY";
const ALL: u64 = 3000;

#[test]
#[ignore = "the process that dies in the test below"]
fn takes_savepoints_until_it_dies() {
    let engine = open(&PathBuf::from(std::env::var_os(DIRECTORY).unwrap()), 2, StateBackend::Memory);
    let job = engine.start(flow("numbers", 1, true)).unwrap();
    for n in 0_u64.. {
        let name = format!("{}-{n}", std::process::id());
        job.savepoint(&name).unwrap();
        engine.delete_savepoint("numbers", &name).unwrap();
        job.savepoint(&format!("{name}-kept")).unwrap();
    }
}

#[test]
fn a_process_that_is_killed_while_it_takes_savepoints_leaves_whole_ones_alone() {
    let expected = undisturbed(ALL);
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2, StateBackend::Memory);
    append(engine.log(), numbers(0, ALL / 2));
    let job = engine.start(flow("numbers", 1, true)).unwrap();
    wait_for(&job, ALL / 2);
    drop(job);
    drop(engine);
    for death in 1..=8 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crashes::takes_savepoints_until_it_dies"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let enough = || count(&directory.path().join("savepoints/numbers")) >= death * 5;
        let until = Instant::now() + Duration::from_secs(60);
        while !enough() && Instant::now() < until {
            std::thread::yield_now();
        }
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(enough(), "no savepoints before the deadline");
        let engine = open(directory.path(), 1, StateBackend::Memory);
        for savepoint in engine.savepoints("numbers").unwrap() {
            savepoint.verify().unwrap();
        }
    }
    let engine = open(directory.path(), 3, StateBackend::Memory);
    append(engine.log(), numbers(ALL / 2, ALL));
    let kept = engine.savepoints("numbers").unwrap();
    let last = kept.iter().find(|savepoint| savepoint.name().ends_with("-kept")).unwrap();
    engine.start_from(flow("numbers", 1, false), last).unwrap().wait().unwrap();
    assert_eq!(outputs(engine.log(), "numbers"), expected);
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
