use crate::support::{Rows, Values};
use rivermark_engine::{Engine, Options, Restart, StateBackend, Status};
use rivermark_operators::process::{Context, ProcessFunction};
use rivermark_operators::{BoxError, Flow, Timestamp, Value, Watermarks, Windowed, Windows, millis};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Times that go up and down by up to 50, over three partitions.
pub fn events() -> Values<(u64, i64)> {
    events_of(5000)
}

pub fn events_of(records: i64) -> Values<(u64, i64)> {
    let event = |partition: i64, n: i64| ((n % 7) as u64, n * 10 + (n * 37 + partition * 11) % 50);
    let partition = |partition| (0..records).map(|n| event(partition, n)).collect();
    Values { partitions: Arc::new((0..3).map(partition).collect()), live: false, per_poll: usize::MAX }
}

pub fn expected_counts(events: &Values<(u64, i64)>, size: i64) -> Vec<(i64, u64, u64)> {
    let mut counts = BTreeMap::new();
    for &(key, time) in events.partitions.iter().flatten() {
        *counts.entry((time.div_euclid(size) * size, key)).or_insert(0) += 1;
    }
    counts.into_iter().map(|((start, key), count)| (start, key, count)).collect()
}

pub fn counting(source: Values<(u64, i64)>, rows: &Rows<(i64, u64, u64)>) -> Flow {
    let flow = Flow::new("counting");
    flow.source(source)
        .event_time(|event| Timestamp::from_millis(event.1), Watermarks::bounded(millis(100)))
        .key_by(|event| event.0)
        .window(Windows::tumbling(millis(1000)))
        .count()
        .map(|row: Windowed<u64, u64>| (row.window.start.millis(), row.key, row.value))
        .sink(rows.clone());
    flow
}

pub fn options(workers: usize, backend: StateBackend) -> Options {
    let restart = Restart::FixedDelay { delay: Duration::ZERO, attempts: 3 };
    Options::new().workers(workers).state_backend(backend).checkpoint_every(millis(5)).restart(restart)
}

pub fn backends() -> Vec<StateBackend> {
    vec![
        StateBackend::Memory,
        #[cfg(feature = "rocksdb")]
        StateBackend::RocksDb,
    ]
}

#[test]
fn windows_count_every_record_once_with_any_number_of_workers() {
    for backend in backends() {
        for workers in [1, 2, 3, 8] {
            let directory = tempfile::tempdir().unwrap();
            let engine = Engine::open_with(directory.path(), options(workers, backend)).unwrap();
            let rows = Rows::default();
            let metrics = engine.run(counting(events(), &rows)).unwrap();
            assert_eq!(rows.sorted(), expected_counts(&events(), 1000), "{workers} workers");
            assert_eq!(metrics.records_read, 15_000);
            assert_eq!(metrics.late_records, 0);
            let counted: Vec<_> =
                metrics.operators.iter().map(|o| (&*o.name, o.records_in, o.records_out)).collect();
            let (all, counts) = (15_000, rows.len() as u64);
            // Between workers, counts are sent instead of records.
            let sent = metrics.operator("exchange-1").unwrap().records_out;
            assert!(sent == all || (workers > 1 && sent < all / 4), "{workers} workers: {sent} sent");
            let expected = [
                ("source-1", 0, all),
                ("event_time-1", all, all),
                ("key_by-1", all, all),
                ("exchange-1", all, sent),
                ("window-1", all, counts),
                ("map-1", counts, counts),
                ("sink-1", counts, 0),
            ];
            assert_eq!(counted, expected);
        }
    }
}

#[test]
fn a_failed_job_restarts_and_emits_every_row_once() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(directory.path(), options(2, backends()[0])).unwrap();
    let rows = Rows::default();
    let failures = Arc::new(AtomicU32::new(0));
    let fails = Arc::clone(&failures);
    let flow = Flow::new("failing");
    flow.source(events())
        .try_map(move |event| {
            if event.1 > 20_000 && fails.fetch_add(1, Ordering::Relaxed) == 0 {
                return Err("the first attempt fails here".into());
            }
            Ok(event)
        })
        .event_time(|event| Timestamp::from_millis(event.1), Watermarks::bounded(millis(100)))
        .key_by(|event| event.0)
        .window(Windows::tumbling(millis(1000)))
        .count()
        .map(|row: Windowed<u64, u64>| (row.window.start.millis(), row.key, row.value))
        .sink(rows.clone());
    let metrics = engine.run(flow).unwrap();
    assert_eq!(rows.sorted(), expected_counts(&events(), 1000));
    assert_eq!(metrics.restarts, 1);
}

#[test]
fn an_error_and_a_panic_name_operator_partition_and_offset() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(2, backends()[0]).restart(Restart::Never);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let source =
        Values { partitions: Arc::new(vec![vec![1], vec![1, 2, 3]]), live: false, per_poll: usize::MAX };
    for panics in [false, true] {
        let flow = Flow::new("faulty");
        let rows = Rows::default();
        flow.source(source.clone())
            .try_map(move |n: i32| match n {
                3 if panics => panic!("three is one too many"),
                3 => Err("three is one too many".into()),
                n => Ok(n),
            })
            .named("counter")
            .sink(rows.clone());
        let error = engine.run(flow).unwrap_err().to_string();
        assert!(error.contains("operator `counter`, record values[1] offset 2"), "{error}");
        assert!(error.contains("three is one too many"), "{error}");
        assert_eq!(rows.len(), 0, "nothing was committed");
    }
}

const SEEN: Value<u64> = Value::new("seen");

/// Counts a key's records; says so when a second has passed without any.
#[derive(Clone)]
struct Silence;

impl ProcessFunction<u64, (u64, i64)> for Silence {
    type Out = (i64, u64, u64);

    fn on_record(
        &mut self,
        _key: &u64,
        record: (u64, i64),
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        cx.state(SEEN).update(|| 0, |seen| *seen += 1)?;
        cx.timer(Timestamp::from_millis(record.1 / 1000 * 1000 + 1000))
    }

    fn on_timer(
        &mut self,
        key: &u64,
        time: Timestamp,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        let seen = cx.state(SEEN).get()?.unwrap_or(0);
        cx.emit((time.millis(), *key, seen));
        Ok(())
    }
}

#[test]
fn state_and_timers_move_with_their_keys_to_another_number_of_workers() {
    for backend in backends() {
        let directory = tempfile::tempdir().unwrap();
        let rows = Rows::default();
        // In order, so that what a timer sees does not depend on which partition was read first.
        let events: Vec<_> = (0..6000_i64).map(|n| ((n % 13) as u64, n * 10)).collect();
        for (attempt, workers) in [2, 3, 1, 4].into_iter().enumerate() {
            let read = events[..(attempt + 1) * 1500].to_vec();
            let source = Values { partitions: Arc::new(vec![read]), live: attempt < 3, per_poll: usize::MAX };
            let engine = Engine::open_with(directory.path(), options(workers, backend)).unwrap();
            let flow = Flow::new("silence");
            flow.source(source)
                .event_time(|event| Timestamp::from_millis(event.1), Watermarks::monotonous())
                .key_by(|event| event.0)
                .process(Silence)
                .sink(rows.clone());
            let job = engine.start(flow).unwrap();
            if attempt < 3 {
                let deadline = std::time::Instant::now() + Duration::from_secs(60);
                let read_all = job.wait_until(|job| {
                    job.metrics().operator("process-1").unwrap().records_in >= 1500
                        || std::time::Instant::now() > deadline
                });
                assert!(
                    read_all && std::time::Instant::now() < deadline,
                    "{:?} {:?}",
                    job.status(),
                    job.metrics()
                );
                job.stop();
            }
            job.wait().unwrap();
        }
        let mut expected = Vec::new();
        for second in 1..=60_i64 {
            for key in 0..13_u64 {
                let seen = |before: i64| events.iter().filter(|e| e.0 == key && e.1 < before).count() as u64;
                if seen(second * 1000) > seen(second * 1000 - 1000) {
                    expected.push((second * 1000, key, seen(second * 1000)));
                }
            }
        }
        expected.sort();
        // A timer fires with the first record at or after its time, whose key may be its own.
        let rows: Vec<_> = rows.sorted().into_iter().map(|(time, key, _)| (time, key)).collect();
        assert_eq!(rows, expected.iter().map(|&(time, key, _)| (time, key)).collect::<Vec<_>>());
    }
}

#[test]
fn a_stopped_job_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let rows = Rows::default();
    let expected = expected_counts(&events(), 1000);
    for live in [true, false] {
        let engine = Engine::open_with(directory.path(), options(2, backends()[0])).unwrap();
        let job = engine.start(counting(Values { live, ..events() }, &rows)).unwrap();
        if live {
            assert!(job.wait_until(|job| job.metrics().records_read == 15_000));
            job.stop();
        }
        let status = job.wait_until(|job| job.status().is_over());
        assert!(status);
        assert_eq!(job.status(), if live { Status::Stopped } else { Status::Finished });
        assert_eq!(rows.sorted() == expected, !live, "open windows wait for the end of the stream");
    }
}

#[test]
fn a_flow_that_runs_already_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    let rows = Rows::default();
    let job = engine.start(counting(Values { live: true, ..events() }, &rows)).unwrap();
    let error = engine.start(counting(events(), &rows)).err().unwrap().to_string();
    assert!(error.contains("running in this engine already"), "{error}");
    drop(job);
    engine.run(counting(events(), &rows)).unwrap();
}
