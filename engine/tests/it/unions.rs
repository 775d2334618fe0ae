//! Unions of streams that a barrier reaches by different ways.

use crate::jobs::{events_of, expected_counts, options};
use crate::support::{Rows, Values};
use rivermark_engine::simulation::Simulation;
use rivermark_engine::{Engine, Options, StateBackend};
use rivermark_operators::process::{Context, ProcessFunction};
use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark_operators::{BoxError, Flow, Stream, Timestamp, Watermarks, Windows, millis};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

type Event = (u64, i64);

/// Passes on what it gets. On the second worker, once the gate is open.
#[derive(Clone)]
struct Passing(Arc<AtomicBool>);

impl ProcessFunction<u64, Event> for Passing {
    type Out = Event;

    fn on_record(&mut self, _: &u64, event: Event, cx: &mut Context<'_, u64, Event>) -> Result<(), BoxError> {
        let waits = || std::thread::current().name() == Some("rivermark-worker-1");
        while !self.0.load(Ordering::Acquire) && waits() {
            std::thread::yield_now();
        }
        cx.emit(event);
        Ok(())
    }
}

fn passed(events: &Stream<Event>, by: u64) -> Stream<Event> {
    events.clone().key_by(move |event| event.0 % by).process(Passing(Arc::new(AtomicBool::new(true))))
}

/// Each record three times: as it is read, and having come through one exchange and through two.
fn three_ways(source: Values<Event>, rows: &Rows<(i64, u64, u64)>) -> Flow {
    let flow = Flow::new("three-ways");
    let direct = flow
        .source(source)
        .event_time(|event| Timestamp::from_millis(event.1), Watermarks::bounded(millis(100)));
    let once = passed(&direct, 3);
    let twice = passed(&once, 5);
    let all = direct.union(once).union(twice);
    all.key_by(|event| event.0)
        .window(Windows::tumbling(millis(1000)))
        .count()
        .map(|row| (row.window.start.millis(), row.key, row.value))
        .sink(rows.clone());
    flow
}

#[test]
fn a_union_never_stands_still_and_loses_nothing_however_narrow_the_channels() {
    let events = Values { per_poll: 3, ..events_of(200) };
    let mut expected = expected_counts(&events, 1000);
    expected.iter_mut().for_each(|row| row.2 *= 3);
    let (mut attempts, mut checkpoints) = (0, 0);
    for seed in 0..200 {
        let rows = Rows::default();
        // Now and then a checkpoint takes longer than it may, and is given up while unions hold something for it.
        let time_out = if seed % 2 == 0 { 60 } else { 15 };
        let options = Options::new().checkpoint_every(millis(20)).checkpoint_timeout(millis(time_out));
        let report = Simulation::seed(seed)
            .channel_batches(1)
            .options(options)
            .run(|_| Ok(()), || three_ways(events.clone(), &rows))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(rows.sorted(), expected, "seed {seed}");
        attempts += report.attempts;
        checkpoints += report.checkpoints;
    }
    assert!(checkpoints > 400, "{checkpoints} checkpoints in {attempts} attempts");
}

/// Numbers without end, from nowhere.
#[derive(Clone)]
struct Endless;

struct EndlessReader(u64);

impl Source for Endless {
    type Item = Event;
    type Reader = EndlessReader;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Ok(vec![SourcePartition { number: 0, name: "endless".into() }])
    }

    fn reader(
        &self,
        _partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<EndlessReader, BoxError> {
        Ok(EndlessReader(position.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?))
    }
}

impl SourceReader<Event> for EndlessReader {
    fn poll(&mut self, max: usize, records: &mut Records<'_, Event>) -> Result<Polled, BoxError> {
        for _ in 0..max {
            records.push(self.0, Timestamp::MIN, (0, self.0 as i64));
            self.0 += 1;
        }
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }
}

#[test]
fn a_stream_that_waits_for_the_barrier_of_a_slow_one_is_held_up_to_a_bound() {
    const MANY: u64 = 3_000_000;
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(directory.path(), options(2, StateBackend::Memory)).unwrap();
    let (flow, gate) = (Flow::new("held"), Arc::new(AtomicBool::new(false)));
    let fast = flow.source(Endless);
    // It is read on the second worker, which waits at the first of its own keys.
    let slow = flow.source(Values {
        partitions: Arc::new(vec![(0..100).map(|n| (n, 0)).collect()]),
        live: true,
        per_poll: 1,
    });
    let slow = slow.key_by(|event| event.0).process(Passing(Arc::clone(&gate)));
    fast.union(slow).filter(|event| event.1 < 0).sink(Rows::<Event>::default());
    let job = engine.start(flow).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let is_over = |job: &rivermark_engine::Job| {
        job.metrics().records_read > MANY || job.metrics().backpressured_steps > 20 || Instant::now() > until
    };
    job.wait_until(is_over);
    let read = job.metrics().records_read;
    gate.store(true, Ordering::Release);
    assert!(read < MANY, "{read} records were read while a barrier was waited for");
    // And it goes on, checkpoint after checkpoint.
    let then = job.metrics().checkpoints_completed;
    let goes_on = |job: &rivermark_engine::Job| {
        let metrics = job.metrics();
        metrics.checkpoints_completed > then + 2 && metrics.records_read > 2 * read || Instant::now() > until
    };
    job.wait_until(goes_on);
    assert!(Instant::now() < until, "it hangs: {:?}", job.status());
    job.cancel();
}
