//! Data directories of every released format are kept in `tests/golden`, a folder each, and are read by every later program: the log with its
//! segments, indexes, producers and transactions, and a savepoint with windows, timers and all kinds of state.
//!
//! A change of a format adds a folder (`cargo test --release --test savepoints -- --ignored writes_golden_files`, with [`FORMAT`] counted on)
//! and changes none: what is there was written by the programs of its time. `tests/golden/expiring` has savepoints of states with a time to live in
//! the same formats.

use crate::support::{append, backends, copy, flow, numbers, open, outputs, rows, undisturbed, wait_for};
use rivermark::{Savepoint, StateBackend};
use std::path::{Path, PathBuf};

/// The newest format.
pub const FORMAT: u32 = 1;
const HALF: u64 = 1_000;
const ALL: u64 = 1_600;

fn folder(format: u32, backend: StateBackend) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    golden.join(format.to_string()).join(format!("{backend:?}").to_lowercase())
}

#[test]
#[ignore = "writes the golden files of a new format"]
fn writes_golden_files() {
    for backend in backends() {
        let golden = folder(FORMAT, backend);
        assert!(!golden.exists(), "{} is there: golden files are never changed", golden.display());
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path(), 2, backend);
        append(engine.log(), numbers(0, HALF));
        let job = engine.start(flow("numbers", 1, true)).unwrap();
        wait_for(&job, HALF);
        let savepoint = job.stop_with_savepoint("golden").unwrap();
        drop(engine);
        copy(&directory.path().join("log"), &golden.join("log"));
        std::fs::remove_file(golden.join("log/LOCK")).unwrap();
        copy(&savepoint.folder().unwrap(), &golden.join("savepoint"));
    }
}

#[test]
fn a_program_goes_on_with_the_log_and_the_savepoint_of_every_format() {
    let expected = undisturbed(ALL);
    for format in 1..=FORMAT {
        for backend in backends() {
            for workers in [2, 3] {
                let directory = tempfile::tempdir().unwrap();
                copy(&folder(format, backend).join("log"), &directory.path().join("log"));
                copy(&folder(format, backend).join("savepoint"), &directory.path().join("golden"));
                let savepoint = Savepoint::open(directory.path().join("golden")).unwrap();
                savepoint.verify().unwrap();
                crate::at_rest::holds(&savepoint, HALF);
                assert_eq!(
                    (savepoint.flow(), savepoint.operators()),
                    ("numbers", vec!["by-second", "count"])
                );
                let engine = open(directory.path(), workers, backend);
                let mut read = rows::<(u64, i64)>(engine.log(), "numbers");
                let mut written: Vec<_> = numbers(0, HALF).collect();
                read.sort();
                written.sort();
                assert_eq!(read, written);
                append(engine.log(), numbers(HALF, ALL));
                let job = engine.start_from(flow("numbers", 1, false), savepoint).unwrap();
                assert_eq!(job.wait().unwrap().records_read, ALL - HALF);
                assert_eq!(outputs(engine.log(), "numbers"), expected, "{backend:?}, {workers} workers");
            }
        }
    }
}
