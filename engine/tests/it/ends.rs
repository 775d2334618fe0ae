//! Runs that end, and go on when there is more to read; and versions that repeat that.

use crate::support::{Rows, Values};
use rivermark_engine::{Engine, Job, Options, Restart, StateBackend};
use rivermark_operators::process::{Context, ProcessFunction};
use rivermark_operators::{BoxError, Flow, Stream, Timestamp, Value, Watermarks, Windows, millis, secs};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Key, time and value.
type Event = (u8, i64, i64);

fn values(partitions: Vec<Vec<Event>>, live: bool) -> Values<Event> {
    Values { partitions: Arc::new(partitions), live, per_poll: 7 }
}

fn engine(directory: &TempDir, workers: usize) -> Engine {
    let options = Options::new().workers(workers).state_backend(StateBackend::Memory).restart(Restart::Never);
    Engine::open_with(directory.path(), options.checkpoint_every(millis(5))).unwrap()
}

fn timed(flow: &Flow, source: Values<Event>, watermarks: Watermarks) -> Stream<Event> {
    flow.source(source).event_time(|event| Timestamp::from_millis(event.1), watermarks)
}

/// Emits each record's value and the watermark that it saw, and sets a timer a day ahead.
#[derive(Clone)]
struct Seeing;

impl ProcessFunction<u8, Event> for Seeing {
    type Out = (i64, i64);

    fn on_record(
        &mut self,
        _: &u8,
        (_, time, value): Event,
        cx: &mut Context<'_, u8, (i64, i64)>,
    ) -> Result<(), BoxError> {
        cx.timer(Timestamp::from_millis(time).plus_millis(86_400_000))?;
        cx.emit((value, cx.watermark().millis()));
        Ok(())
    }
}

#[test]
fn a_function_goes_on_at_the_watermark_that_a_run_had_come_to() {
    for workers in [(1, 2), (2, 1), (3, 3)] {
        let directory = tempfile::tempdir().unwrap();
        let rows = Rows::default();
        // The second partition is far behind the first when the run ends; its own next record is late.
        let all = [vec![(0, 100, 1), (0, 200, 2)], vec![(1, 50, 3), (1, 160, 4)]];
        for (until, workers) in [(1, workers.0), (2, workers.1)] {
            let flow = Flow::new("ends");
            let partitions = all.iter().map(|events| events[..until].to_vec()).collect();
            timed(&flow, values(partitions, false), Watermarks::bounded(millis(10)))
                .key_by(|event| event.0)
                .process(Seeing)
                .filter(|(value, _)| value % 2 == 0)
                .sink(rows.clone());
            engine(&directory, workers).run(flow).unwrap();
        }
        // The greatest watermark that the first run's partitions had, whichever of them ended first.
        assert_eq!(rows.sorted(), [(2, 90), (4, 90)], "{workers:?}");
    }
}

/// The times of a key's records, in the order in which it saw them.
#[derive(Clone)]
struct Order;

const SEEN: Value<Vec<i64>> = Value::new("seen");

impl ProcessFunction<u8, Event> for Order {
    type Out = Vec<i64>;

    fn on_record(
        &mut self,
        _: &u8,
        (_, time, _): Event,
        cx: &mut Context<'_, u8, Vec<i64>>,
    ) -> Result<(), BoxError> {
        cx.state(SEEN).update(Vec::new, |seen| seen.push(time))?;
        let seen = cx.state(SEEN).get()?.unwrap_or_default();
        cx.emit(seen);
        Ok(())
    }
}

#[test]
fn no_record_runs_behind_those_that_an_end_has_let_run() {
    let directory = tempfile::tempdir().unwrap();
    let (rows, late) = (Rows::default(), Rows::default());
    // The watermark is at 10 when 60 runs, because the run ends.
    let events = [(0, 20, 0), (0, 60, 0), (0, 45, 0), (0, 60, 1), (0, 70, 0)];
    for (until, workers) in [(2, 2), (5, 1)] {
        let flow = Flow::new("ends");
        let late = late.clone();
        timed(&flow, values(vec![events[..until].to_vec()], false), Watermarks::bounded(millis(50)))
            .key_by(|event| event.0)
            .in_event_time_order_with_late_output(|stream| stream.map(|late| late.value.1).sink(late))
            .process(Order)
            .sink(rows.clone());
        engine(&directory, workers).run(flow).unwrap();
    }
    assert_eq!(rows.sorted().last().unwrap()[..], [20, 60, 60, 70]);
    assert_eq!(late.sorted(), [45]);
}

#[test]
fn a_window_join_that_the_end_has_closed_has_no_second_row() {
    let directory = tempfile::tempdir().unwrap();
    let (rows, late) = (Rows::default(), Rows::default());
    let left = [(0, 12, 1), (0, 14, 2), (0, 21, 3)];
    let right = [(0, 13, 10), (0, 15, 20), (0, 22, 30)];
    for (until, workers) in [(1, 1), (3, 2)] {
        let flow = Flow::new("ends");
        let side = |events: &[Event]| {
            let events = values(vec![events[..until].to_vec()], false);
            timed(&flow, events, Watermarks::bounded(millis(5))).key_by(|event| event.0)
        };
        let late = late.clone();
        let joined = side(&left).window_join(side(&right), Windows::tumbling(millis(10)));
        let joined = joined.late_output(|stream| stream.map(|_| 1).sink(late));
        joined.inner(|_, _, left, right| (left.2, right.2)).sink(rows.clone());
        engine(&directory, workers).run(flow).unwrap();
    }
    assert_eq!(rows.sorted(), [(1, 10), (3, 30)]);
    assert_eq!(late.sorted(), [1, 1]);
}

fn wait(job: &Job, what: &str, done: impl Fn(&Job) -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    assert!(job.wait_until(|job| done(job) || Instant::now() > until));
    assert!(Instant::now() < until, "it hangs, {what}: {:?}", job.status());
}

#[test]
fn a_partition_that_was_silent_before_a_restart_holds_nothing_back_when_all_others_have_ended() {
    let events = |until| vec![(0..until).map(|time| (0, time, time)).collect()];
    for workers in [1, 2, 3] {
        let directory = tempfile::tempdir().unwrap();
        let rows = Rows::default();
        let start = |engine: &Engine, busy: Values<Event>| {
            let (flow, idle) = (Flow::new("silent"), || Watermarks::monotonous().idle_after(millis(200)));
            let silent = timed(&flow, values(vec![vec![]], true), idle());
            timed(&flow, busy, idle())
                .union(silent)
                .key_by(|event| event.0)
                .window(Windows::tumbling(millis(10)))
                .count()
                .map(|row| (row.window.start.millis(), row.value))
                .sink(rows.clone());
            engine.start(flow).unwrap()
        };
        let engine = engine(&directory, workers);
        let job = start(&engine, values(events(100), true));
        wait(&job, "before the restart", |_| rows.len() >= 9);
        job.stop();
        job.wait().unwrap();
        // What is left is read, and ends, before anybody can know that the other is silent still.
        let job = start(&engine, values(events(200), false));
        wait(&job, "after it", |_| rows.len() >= 19);
        job.cancel();
        let expected: Vec<_> = (0..19).map(|n| (n * 10, 10)).collect();
        assert_eq!(rows.sorted(), expected, "{workers} workers");
    }
}

/// Up and down by up to 40 in three partitions, which differ by up to 100 in how far they are.
fn events(partition: i64, records: i64) -> Vec<Event> {
    (0..records).map(|n| ((n % 5) as u8, n * 10 + n * 37 % 40 + partition * 50, n)).collect()
}

/// A version of a flow with windows, a join and a function in order, and all that it has published.
#[derive(Default, Clone)]
struct Version {
    counts: Rows<(i64, u8, u64)>,
    late: Rows<Event>,
    joined: Rows<(u8, i64, i64)>,
    orders: Rows<Vec<i64>>,
    late_for_order: Rows<Event>,
}

type Published = (Vec<(i64, u8, u64)>, Vec<Event>, Vec<(u8, i64, i64)>, Vec<Vec<i64>>, Vec<Event>);

impl Version {
    fn start(&self, engine: &Engine, version: u64, partitions: &[Vec<Event>], live: bool) -> Job {
        let flow = Flow::new("deployed").version(version);
        let partitions = partitions.to_vec();
        let events = timed(&flow, values(partitions, live), Watermarks::bounded(millis(20)));
        let (late, late_for_order) = (self.late.clone(), self.late_for_order.clone());
        events
            .clone()
            .key_by(|event| event.0)
            .window(Windows::tumbling(millis(100)))
            .late_output(|stream| stream.map(|late| late.value).sink(late))
            .count()
            .map(|row| (row.window.start.millis(), row.key, row.value))
            .sink(self.counts.clone());
        let (even, odd) = (events.clone().filter(|e| e.2 % 2 == 0), events.clone().filter(|e| e.2 % 2 == 1));
        even.key_by(|event| event.0)
            .window_join(odd.key_by(|event| event.0), Windows::tumbling(millis(200)))
            .inner(|key, _, left, right| (*key, left.1, right.1))
            .sink(self.joined.clone());
        events
            .key_by(|event| event.0)
            .in_event_time_order_with_late_output(|stream| {
                stream.map(|late| late.value).sink(late_for_order);
            })
            .process(Order)
            .sink(self.orders.clone());
        engine.start(flow).unwrap()
    }

    fn published(&self) -> Published {
        (
            self.counts.sorted(),
            self.late.sorted(),
            self.joined.sorted(),
            self.orders.sorted(),
            self.late_for_order.sorted(),
        )
    }
}

/// The first of each partition's records.
fn first(partitions: &[Vec<Event>], counts: &[usize]) -> Vec<Vec<Event>> {
    partitions.iter().zip(counts).map(|(events, count)| events[..*count].to_vec()).collect()
}

#[test]
fn a_later_version_ends_where_the_runs_of_the_earlier_one_have_ended_and_so_does_a_third() {
    let all: Vec<Vec<Event>> = (0..3).map(|partition| events(partition, 150)).collect();
    // The third partition is found in the second run; in the third run nothing is new but one record.
    let runs: [&[usize]; 4] = [&[40, 61], &[77, 90, 30], &[77, 91, 30], &[150, 150, 150]];
    for (live, replayed) in [(1, 2), (2, 1), (3, 3)] {
        let directory = tempfile::tempdir().unwrap();
        let engine = engine(&directory, live);
        let once = Version::default();
        for run in runs {
            once.start(&engine, 1, &first(&all, run), false).wait().unwrap();
        }
        drop(engine);
        let published = once.published();
        assert!(!published.1.is_empty() && !published.4.is_empty(), "nothing was late");
        let engine = self::engine(&directory, replayed);
        for version in [2, 3] {
            let again = Version::default();
            again.start(&engine, version, &all, false).wait().unwrap();
            assert_eq!(again.published(), published, "version {version}, {live} and {replayed} workers");
        }
        // What another flow makes of it in one go is something else.
        let other = tempfile::tempdir().unwrap();
        let whole = Version::default();
        whole.start(&self::engine(&other, replayed), 1, &all, false).wait().unwrap();
        assert_ne!(whole.published(), published);
    }
}

#[test]
fn a_drained_job_has_ended_too_and_a_replay_that_is_cancelled_on_the_way_goes_on_to_the_ends_that_are_left() {
    let all: Vec<Vec<Event>> = (0..2).map(|partition| events(partition, 3000)).collect();
    for cancels in [0, 1, 4] {
        let directory = tempfile::tempdir().unwrap();
        let engine = engine(&directory, 2);
        let once = Version::default();
        for counts in [[1000, 700], [1800, 2000], [3000, 3000]] {
            let read = |job: &Job| job.metrics().records_read;
            let job = once.start(&engine, 1, &first(&all, &counts), true);
            // Wherever that is.
            wait(&job, "live", |job| read(job) >= 600);
            job.drain();
            job.wait().unwrap();
        }
        once.start(&engine, 1, &all, false).wait().unwrap();
        let published = once.published();

        let again = Version::default();
        for n in 0..cancels {
            let job = again.start(&engine, 2, &all, false);
            wait(&job, "replay", |job| job.metrics().checkpoints_completed > n % 3 || job.status().is_over());
            job.cancel();
            let _ = job.wait();
        }
        again.start(&engine, 2, &all, false).wait().unwrap();
        assert_eq!(again.published(), published, "{cancels} cancels");
    }
}

#[test]
fn a_version_that_reads_another_source_repeats_no_ends() {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(&directory, 2);
    let counts = |version, with_other: bool, until: usize| {
        let (flow, rows) = (Flow::new("counts").version(version), Rows::default());
        let of = |events: Vec<Event>| timed(&flow, values(vec![events], false), Watermarks::bounded(secs(1)));
        let mut events = of(events(0, 100)[..until].to_vec());
        if with_other {
            events = events.union(of(self::events(0, 100)));
        }
        let keyed = events.key_by(|_| 0_u8).window(Windows::tumbling(secs(10)));
        keyed.count().map(|row| row.value).sink(rows.clone());
        engine.run(flow).unwrap();
        rows.sorted()
    };
    assert_eq!(counts(1, false, 40), [40]);
    assert_eq!(counts(2, false, 100), [40], "what follows the end is late");
    assert_eq!(counts(3, true, 100), [200]);
}
