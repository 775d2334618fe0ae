//! Taking, stopping, draining, cancelling, and starting again elsewhere.

use crate::support::{append, backends, copy, flow, numbers, open, options, outputs, undisturbed, wait_for};
use rivermark::{Engine, Savepoint, StartFrom, StateBackend, Status};

const ALL: u64 = 6000;
const HALF: u64 = 3000;

#[test]
fn a_flow_goes_on_from_the_savepoint_that_it_was_stopped_with_as_if_nobody_had_disturbed_it() {
    let expected = undisturbed(ALL);
    for backend in backends() {
        for workers in [1, 2, 3] {
            let directory = tempfile::tempdir().unwrap();
            let engine = open(directory.path(), 2, backend);
            append(engine.log(), numbers(0, HALF));
            let job = engine.start(flow("numbers", 1, true)).unwrap();
            wait_for(&job, HALF);
            let savepoint = job.stop_with_savepoint("half").unwrap();
            assert_eq!(outputs(engine.log(), "numbers").0.len() as u64, HALF, "all of it is visible");
            savepoint.verify().unwrap();
            drop(engine);

            let engine = open(directory.path(), workers, backend);
            append(engine.log(), numbers(HALF, ALL));
            let savepoint = engine.savepoint("numbers", "half").unwrap();
            let job = engine.start_from(flow("numbers", 1, false), &savepoint).unwrap();
            let metrics = job.wait().unwrap();
            assert_eq!(metrics.records_read, ALL - HALF, "{workers} workers, {backend:?}");
            assert_eq!(outputs(engine.log(), "numbers"), expected, "{workers} workers, {backend:?}");
        }
    }
}

#[test]
fn a_savepoint_outlives_the_checkpoints_that_share_its_files() {
    for backend in backends() {
        let directory = tempfile::tempdir().unwrap();
        // So small a budget that RocksDB has files of its own, which later checkpoints refer to.
        let engine = Engine::open_with(directory.path(), options(2, backend).state_budget(1)).unwrap();
        append(engine.log(), numbers(0, HALF));
        let job = engine.start(flow("numbers", 1, true)).unwrap();
        wait_for(&job, HALF);
        let savepoint = job.savepoint("kept").unwrap();
        assert!(savepoint.state_bytes() > 0);
        let before = job.metrics().checkpoints_completed;
        for n in 0..20 {
            append(engine.log(), numbers(HALF + n * 100, HALF + n * 100 + 100));
            wait_for(&job, HALF + n * 100 + 100);
            job.checkpoint().unwrap();
        }
        assert!(job.metrics().checkpoints_completed >= before + 20);
        let newer = job.stop_with_savepoint("newer").unwrap();
        savepoint.verify().unwrap();
        newer.verify().unwrap();

        // And it is still what it was.
        let job = engine.start_from(flow("numbers", 2, false), &savepoint).unwrap();
        assert_eq!(job.wait().unwrap().records_read, 2000, "{backend:?}");
        let names: Vec<_> =
            engine.savepoints("numbers").unwrap().iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(names, ["kept", "newer"]);
        engine.delete_savepoint("numbers", "kept").unwrap();
        assert!(savepoint.verify().is_err());
        newer.verify().unwrap();
        assert!(engine.delete_savepoint("numbers", "kept").is_err());
    }
}

#[test]
fn a_new_version_begins_with_the_state_of_the_old_one_which_runs_on_undisturbed() {
    let expected = undisturbed(ALL);
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2, StateBackend::Memory);
    append(engine.log(), numbers(0, HALF));
    let old = engine.start(flow("numbers", 1, true)).unwrap();
    wait_for(&old, HALF);
    let savepoint = old.savepoint("for-version-2").unwrap();
    append(engine.log(), numbers(HALF, ALL));
    wait_for(&old, ALL);
    assert_eq!((savepoint.flow(), savepoint.version()), ("numbers", 1));

    // A flow of another name: its rows are in topics of their own.
    let job = engine.start_from(flow("renamed", 7, false), &savepoint).unwrap();
    assert_eq!(job.wait().unwrap().records_read, ALL - HALF);
    let (running, counts) = outputs(engine.log(), "renamed");
    let totals: Vec<_> = expected.0.iter().filter(|row| row.1 > HALF / 40).copied().collect();
    assert_eq!(running, totals, "it counts on from where the old one was");
    let open = expected.1.iter().filter(|row| counts.contains(row)).count();
    assert_eq!(open, counts.len(), "windows that were open have all their records");
    old.drain();
    old.wait().unwrap();
    assert_eq!(outputs(engine.log(), "numbers"), expected);
}

#[test]
fn a_savepoint_at_first_is_where_a_flow_starts_once() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2, StateBackend::Memory);
    append(engine.log(), numbers(0, HALF));
    let job = engine.start(flow("numbers", 1, true)).unwrap();
    wait_for(&job, HALF);
    let savepoint = job.stop_with_savepoint("half").unwrap();
    append(engine.log(), numbers(HALF, ALL));
    for read in [ALL - HALF, 0] {
        let from = StartFrom::SavepointAtFirst(savepoint.clone());
        let job = engine.start_from(flow("numbers", 2, false), from).unwrap();
        assert_eq!(job.wait().unwrap().records_read, read);
    }
    let job = engine.start_from(flow("numbers", 2, false), &savepoint).unwrap();
    assert_eq!(job.wait().unwrap().records_read, ALL - HALF, "asked for outright, it goes back");
}

#[test]
fn a_copied_savepoint_works_elsewhere_after_the_original_is_gone() {
    let expected = undisturbed(ALL);
    for backend in backends() {
        let (old, new, carried) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let engine = open(old.path(), 3, backend);
        append(engine.log(), numbers(0, HALF));
        let job = engine.start(flow("numbers", 1, true)).unwrap();
        wait_for(&job, HALF);
        let savepoint = job.stop_with_savepoint("moving").unwrap();
        copy(&savepoint.folder().unwrap(), &carried.path().join("copied"));
        savepoint.export(carried.path().join("exported")).unwrap();
        let error = savepoint.export(carried.path().join("copied")).unwrap_err().to_string();
        assert!(error.contains("there is a savepoint in"), "{error}");
        let before = outputs(engine.log(), "numbers");
        drop(engine);
        old.close().unwrap();

        let engine = open(new.path(), 2, backend);
        append(engine.log(), numbers(0, ALL));
        for (folder, version) in [("copied", 1), ("exported", 2)] {
            let savepoint = Savepoint::open(carried.path().join(folder)).unwrap();
            savepoint.verify().unwrap();
            let name = format!("numbers-{folder}");
            let job = engine.start_from(flow(&name, version, false), savepoint).unwrap();
            job.wait().unwrap();
            let mut both = outputs(engine.log(), &name);
            both.0.extend(before.0.clone());
            both.1.extend(before.1.clone());
            both.0.sort();
            both.1.sort();
            assert_eq!(both, expected, "{folder}, {backend:?}");
        }
    }
}

#[test]
fn nothing_is_output_after_a_stop_and_everything_before_a_drain() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2, StateBackend::Memory);
    append(engine.log(), numbers(0, HALF));
    let expected = undisturbed(HALF);
    let job = engine.start(flow("stopped", 1, true)).unwrap();
    wait_for(&job, HALF);
    job.stop_with_savepoint("stopped").unwrap();
    let stopped = outputs(engine.log(), "stopped");
    assert_eq!(stopped.0, expected.0);
    assert!(stopped.1.len() < expected.1.len(), "open windows are not output");

    let job = engine.start(flow("drained", 1, true)).unwrap();
    wait_for(&job, HALF);
    let savepoint = job.drain_with_savepoint("drained").unwrap();
    assert_eq!(outputs(engine.log(), "drained"), expected);
    // What has come for the closed windows since is late; the totals go on.
    append(engine.log(), numbers(HALF - 10, HALF));
    let metrics = engine.start_from(flow("drained", 1, false), savepoint).unwrap().wait().unwrap();
    assert_eq!((metrics.records_read, outputs(engine.log(), "drained").1.len()), (10, expected.1.len()));

    let job = engine.start(flow("plain", 1, true)).unwrap();
    // Perhaps before it runs.
    job.drain();
    let status = loop {
        if job.wait_until(|job| job.status().is_over()) {
            break job.status();
        }
    };
    assert_eq!(status, Status::Finished);
}

#[test]
fn a_cancelled_job_leaves_what_was_committed_and_goes_on_from_its_last_checkpoint() {
    let expected = undisturbed(ALL);
    let directory = tempfile::tempdir().unwrap();
    let engine =
        Engine::open_with(directory.path(), options(2, StateBackend::Memory).checkpoint_every(None)).unwrap();
    append(engine.log(), numbers(0, HALF));
    let job = engine.start(flow("numbers", 1, true)).unwrap();
    wait_for(&job, HALF);
    job.checkpoint().unwrap();
    append(engine.log(), numbers(HALF, ALL));
    wait_for(&job, ALL);
    job.cancel();
    assert!(job.wait_until(|job| job.status() == Status::Cancelled));
    job.wait().unwrap();
    assert_eq!(outputs(engine.log(), "numbers").0.len() as u64, HALF, "as after a crash");
    let metrics = engine.run(flow("numbers", 1, false)).unwrap();
    assert_eq!(metrics.records_read, ALL - HALF);
    assert_eq!(outputs(engine.log(), "numbers"), expected);
}

#[test]
fn errors_name_what_where_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2, StateBackend::Memory);
    append(engine.log(), numbers(0, HALF));
    let job = engine.start(flow("numbers", 1, true)).unwrap();
    wait_for(&job, HALF);
    let savepoint = job.savepoint("first").unwrap();
    let says = |error: rivermark::Error, parts: &[&str]| {
        let error = error.to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not in: {error}"));
    };
    says(job.savepoint("first").unwrap_err(), &["`first`", "numbers/first already", "choose another name"]);
    says(job.savepoint("a/b").unwrap_err(), &["`a/b` cannot name a savepoint", "letters"]);
    says(
        engine.savepoint("numbers", "second").unwrap_err(),
        &["no savepoint in", "numbers/second", "there are `first`"],
    );
    says(Savepoint::open(directory.path().join("nowhere")).unwrap_err(), &["no savepoint in", "nowhere"]);
    says(job.stop_with_savepoint("first").unwrap_err(), &["already"]);

    let other = rivermark::Flow::new("numbers").version(2);
    other
        .source(rivermark::connectors::LogSource::<(u64, i64)>::topic("numbers").until_end())
        .sink(rivermark::connectors::LogSink::topic("nothing"));
    let error = engine.start_from(other, &savepoint).err().unwrap();
    says(
        error,
        &["savepoint `first`", "holds state of `by-second`", "it has `source-1`", ".named(\"by-second\")"],
    );
    drop(engine);
    let engine =
        Engine::open_with(directory.path(), options(1, StateBackend::Memory).key_groups(64)).unwrap();
    let error = engine.start_from(flow("numbers", 2, false), &savepoint).err().unwrap();
    says(error, &["savepoint `first`", "128 key groups", "the options say 64", "Options::key_groups(128)"]);

    // Damage: of a state file, which is copied so that only the savepoint has it, and of the record.
    let moved = tempfile::tempdir().unwrap();
    let folder = savepoint.folder().unwrap();
    copy(&folder, moved.path());
    let damage = |path: &std::path::Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let files = walk(&moved.path().join("files"));
    damage(&files[0]);
    let damaged = Savepoint::open(moved.path()).unwrap();
    says(damaged.verify().unwrap_err(), &["is damaged", "expected SHA-256", "files/"]);
    drop(engine);
    let engine = open(directory.path(), 1, StateBackend::Memory);
    let error = engine.start_from(flow("numbers", 3, false), &damaged).err().unwrap();
    says(error, &["starting from savepoint `first`", "is damaged", "expected SHA-256"]);
    damage(&moved.path().join("savepoint"));
    says(Savepoint::open(moved.path()).unwrap_err(), &["is damaged", "its checksum is", "copy"]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
