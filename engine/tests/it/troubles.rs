//! What the owner of a job sees when something is wrong: with its name, its connectors, its settings, or its checkpoints.

use crate::jobs::{backends, counting, events, expected_counts, options};
use crate::support::{Rows, RowsWriter, Values};
use rivermark_checkpoint::Epoch;
use rivermark_engine::{Engine, Job, Options, Restart, RestoreFrom, Status};
use rivermark_operators::process::{Context, ProcessFunction};
use rivermark_operators::sink::{Committer, Sink, SinkContext, SinkWriter};
use rivermark_operators::{Batch, BoxError, Flow, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything takes that is not broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until the condition holds; a job that is over or a minute that has passed is a failure.
fn wait(job: &Job, mut done: impl FnMut(&Job) -> bool) {
    let late = Instant::now() + DEADLINE;
    let held = job.wait_until(|job| done(job) || Instant::now() > late);
    assert!(held && Instant::now() <= late, "{:?}", job.status());
}

fn wait_until_over(job: Job) -> rivermark_operators::Result<rivermark_engine::Metrics> {
    wait(&job, |job| job.status().is_over());
    job.wait()
}

/// Numbers from 0 on, in so many partitions.
fn numbers(partitions: u64, count: u64, live: bool) -> Values<u64> {
    let partition = |p| (0..count).map(|n| n * partitions + p).collect();
    Values { partitions: Arc::new((0..partitions).map(partition).collect()), live, per_poll: 16 }
}

#[test]
fn a_flow_whose_name_is_a_path_is_refused_before_anything_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    let precious = directory.path().join("log/topics/0");
    std::fs::create_dir_all(&precious).unwrap();
    for name in ["../log/topics", "a/b", "", "..", "höhe"] {
        let flow = Flow::new(name).version(0);
        flow.source(numbers(1, 1, false)).sink(Rows::default());
        let error = engine.start(flow).err().expect("it is refused").to_string();
        assert!(error.contains("cannot name a flow: use ASCII letters"), "{error}");
        assert!(precious.exists(), "{name}");
    }
}

#[test]
fn versions_of_a_flow_run_beside_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    let (old, new) = (Rows::default(), Rows::default());
    let flow = |version, rows: &Rows<u64>| {
        let flow = Flow::new("numbers").version(version);
        flow.source(numbers(2, 100, true)).map(move |n| n * version).sink(rows.clone());
        flow
    };
    let jobs = [engine.start(flow(1, &old)).unwrap(), engine.start(flow(2, &new)).unwrap()];
    let error = engine.start(flow(2, &new)).err().expect("it runs").to_string();
    assert!(error.contains("version 2 is running in this engine already"), "{error}");
    for job in &jobs {
        wait(job, |job| job.metrics().records_read == 200);
        job.stop();
    }
    jobs.into_iter().for_each(|job| drop(wait_until_over(job).unwrap()));
    assert_eq!(old.sorted(), (0..200).collect::<Vec<_>>());
    assert_eq!(new.sorted(), (0..200).map(|n| n * 2).collect::<Vec<_>>());
}

/// Where a [`Faulty`] sink panics or fails.
#[derive(Copy, Clone, PartialEq, Debug)]
enum Place {
    Committer,
    Writer,
    Prepare,
}

/// Rows whose sink has a fault, as often as `times` says.
#[derive(Clone)]
struct Faulty {
    rows: Rows<u64>,
    place: Place,
    panics: bool,
    times: Arc<AtomicU32>,
}

impl Faulty {
    fn new(place: Place, panics: bool, times: u32) -> Faulty {
        Faulty { rows: Rows::default(), place, panics, times: Arc::new(AtomicU32::new(times)) }
    }

    fn at(&self, place: Place) -> Result<(), BoxError> {
        let due = self.place == place
            && self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        match due {
            true if self.panics => panic!("a bug in the {place:?}"),
            true => Err(format!("a fault in the {place:?}").into()),
            false => Ok(()),
        }
    }
}

struct FaultyWriter(Faulty, RowsWriter<u64>);

impl Sink<u64> for Faulty {
    type Writer = FaultyWriter;

    fn writer(&self, cx: &SinkContext<'_>) -> Result<FaultyWriter, BoxError> {
        self.at(Place::Writer)?;
        Ok(FaultyWriter(self.clone(), self.rows.writer(cx)?))
    }

    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        self.at(Place::Committer)?;
        self.rows.committer(cx)
    }
}

impl SinkWriter<u64> for FaultyWriter {
    fn write(&mut self, batch: &mut Batch<u64>) -> Result<(), BoxError> {
        self.1.write(batch)
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        self.0.at(Place::Prepare)?;
        self.1.prepare(epoch)
    }
}

#[test]
fn a_connector_that_panics_fails_the_job_and_leaves_its_name_free() {
    let directory = tempfile::tempdir().unwrap();
    let engine =
        Engine::open_with(directory.path(), Options::new().workers(2).restart(Restart::Never)).unwrap();
    for place in [Place::Committer, Place::Writer, Place::Prepare] {
        for panics in [true, false] {
            let sink = Faulty::new(place, panics, 1);
            let flow = || {
                let flow = Flow::new(format!("{place:?}-{panics}"));
                flow.source(numbers(2, 100, false)).sink(sink.clone());
                flow
            };
            let job = engine.start(flow()).unwrap();
            let error = wait_until_over(job).unwrap_err().to_string();
            let fault = if panics { "a bug in the" } else { "a fault in the" };
            assert!(error.contains(fault), "{error}");
            wait_until_over(engine.start(flow()).unwrap()).unwrap();
            assert_eq!(sink.rows.sorted(), (0..200).collect::<Vec<_>>(), "{place:?}");
        }
    }
}

#[test]
fn a_job_that_is_asked_to_stop_is_not_started_again_when_it_fails() {
    let directory = tempfile::tempdir().unwrap();
    let restart = Restart::FixedDelay { delay: Duration::ZERO, attempts: 5 };
    let options = Options::new().workers(1).checkpoint_every(None).restart(restart);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let sink = Faulty::new(Place::Prepare, false, 1);
    let flow = || {
        let flow = Flow::new("stopping");
        flow.source(numbers(1, 100, true)).sink(sink.clone());
        flow
    };
    let job = engine.start(flow()).unwrap();
    wait(&job, |job| job.metrics().records_read == 100);
    job.stop();
    let error = wait_until_over(job).unwrap_err().to_string();
    assert!(error.contains("a fault in the Prepare"), "{error}");

    let job = engine.start(flow()).unwrap();
    wait(&job, |job| job.metrics().records_read == 100);
    job.stop();
    wait_until_over(job).unwrap();
    assert_eq!(sink.rows.sorted(), (0..100).collect::<Vec<_>>());
}

#[test]
fn who_waits_for_a_checkpoint_is_told_why_the_job_failed() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(1).checkpoint_every(None).restart(Restart::Never);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let flow = Flow::new("failing");
    flow.source(numbers(1, 100, true)).sink(Faulty::new(Place::Prepare, false, 1));
    let job = engine.start(flow).unwrap();
    wait(&job, |job| job.metrics().records_read == 100);
    let error = job.checkpoint().unwrap_err().to_string();
    assert!(error.contains("a fault in the Prepare"), "{error}");
}

#[test]
fn durations_without_end_are_waited_for_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let restart = Restart::FixedDelay { delay: Duration::MAX, attempts: 1 };
    let options = Options::new()
        .workers(2)
        .checkpoint_every(Duration::MAX)
        .checkpoint_timeout(Duration::MAX)
        .restart(restart);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let rows = Rows::default();
    engine.run(counting(events(), &rows)).unwrap();
    assert_eq!(rows.sorted(), expected_counts(&events(), 1000));

    let flow = Flow::new("failing");
    flow.source(numbers(1, 10, false)).sink(Faulty::new(Place::Prepare, false, 1));
    let job = engine.start(flow).unwrap();
    wait(&job, |job| matches!(job.status(), Status::Restarting { .. }));
    job.stop();
    assert!(wait_until_over(job).is_err());
}

const COUNT: Value<u64> = Value::new("count");

/// Numbers the records of each key.
#[derive(Clone)]
struct Counting;

impl ProcessFunction<u64, u64> for Counting {
    type Out = (u64, u64);

    fn on_record(&mut self, key: &u64, _: u64, cx: &mut Context<'_, u64, Self::Out>) -> Result<(), BoxError> {
        let count = cx.state(COUNT).update(
            || 0,
            |count| {
                *count += 1;
                *count
            },
        )?;
        cx.emit((*key, count));
        Ok(())
    }
}

/// What [`Counting`] makes of so many numbers over 97 keys.
fn counted(numbers: u64) -> Vec<(u64, u64)> {
    let mut counts = BTreeMap::new();
    let mut rows: Vec<_> = (0..numbers)
        .map(|n| {
            let count = counts.entry(n % 97).or_insert(0);
            *count += 1;
            (n % 97, *count)
        })
        .collect();
    rows.sort_unstable();
    rows
}

#[test]
fn state_is_found_by_its_key_groups_when_another_worker_owns_them() {
    // With these, some worker keeps its key groups and changes its number at every step.
    for (groups, lives) in [(8, [3, 4, 3, 4]), (128, [15, 16, 15, 2])] {
        for backend in backends() {
            let directory = tempfile::tempdir().unwrap();
            let rows = Rows::default();
            for (life, workers) in lives.into_iter().enumerate() {
                let options = options(workers, backend).key_groups(groups).checkpoint_every(None);
                let engine = Engine::open_with(directory.path(), options.restart(Restart::Never)).unwrap();
                let upto = (life as u64 + 1) * 4000;
                let is_last = life == 3;
                let source = Values { per_poll: 500, ..numbers(1, upto, !is_last) };
                let flow = Flow::new("rescaled");
                flow.source(source).key_by(|n| n % 97).process(Counting).sink(rows.clone());
                let job = engine.start(flow).unwrap();
                for checkpoints in 1..=3 {
                    let read = checkpoints * 1000;
                    wait(&job, |job| job.metrics().records_read >= read || job.status().is_over());
                    if !is_last {
                        job.checkpoint().unwrap();
                    }
                }
                if !is_last {
                    wait(&job, |job| job.metrics().records_read == 4000);
                    job.stop();
                }
                wait_until_over(job).unwrap();
                let fetched = directory.path().join("state/rescaled/0/restore");
                let left = std::fs::read_dir(&fetched).map_or(0, Iterator::count);
                assert_eq!(left, 0, "fetched files are removed once they are restored from");
            }
            assert_eq!(rows.sorted(), counted(16_000), "{groups} groups, {backend:?}");
        }
    }
}

#[test]
fn a_flow_can_go_back_to_an_older_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        options(2, backends()[0]).checkpoint_every(None).checkpoints_kept(10).restart(Restart::Never);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let flow = |upto, live, rows: &Rows<(u64, u64)>| {
        let flow = Flow::new("rewound");
        flow.source(numbers(1, upto, live)).key_by(|n| n % 97).process(Counting).sink(rows.clone());
        flow
    };
    let rows = Rows::default();
    let mut epochs = Vec::new();
    for upto in [1000, 2000, 3000] {
        let job = engine.start(flow(upto, true, &rows)).unwrap();
        wait(&job, |job| job.metrics().records_read == 1000);
        epochs.push(job.checkpoint().unwrap());
        job.stop();
        wait_until_over(job).unwrap();
    }
    assert_eq!(rows.sorted(), counted(3000));

    let job = engine.start_from(flow(2000, false, &rows), RestoreFrom::Epoch(epochs[0])).unwrap();
    wait_until_over(job).unwrap();
    let mut twice = counted(3000);
    twice.extend(counted(2000).into_iter().filter(|row| !counted(1000).contains(row)));
    twice.sort_unstable();
    assert_eq!(rows.sorted(), twice, "the second thousand was counted again, behind the first");

    let metrics = engine.run(flow(2500, false, &rows)).unwrap();
    assert_eq!(metrics.records_read, 500, "it goes on from where the return led");

    let nowhere = engine.start_from(flow(2500, false, &rows), RestoreFrom::Epoch(Epoch(99))).unwrap();
    let error = wait_until_over(nowhere).unwrap_err().to_string();
    assert!(error.contains("no intact checkpoint of epoch 99"), "{error}");
}
