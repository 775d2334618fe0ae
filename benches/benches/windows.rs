//! Windows and timers on one worker, beside loops over hash maps and a heap.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;
use rivermark::{
    BoxError, Context, Flow, KeyedStream, ProcessFunction, StateBackend, Timestamp, Watermarks, Windows,
    millis,
};
use rivermark_benches::measure::{options, time_to};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 1_000_000;
const KEYS: u64 = 1000;

/// Ten records a millisecond.
fn time_of(n: u64) -> i64 {
    n as i64 / 10
}

fn keyed(flow: &Flow) -> KeyedStream<u64, u64> {
    flow.source(Numbers { events: RECORDS, partitions: 1 })
        .event_time(|n| Timestamp::from_millis(time_of(*n)), Watermarks::monotonous())
        .key_by(|n| key_of(*n, KEYS))
}

/// Windows by hand: a map a window, given out when time has passed its end.
fn windows_by_hand(size: i64, slide: i64) {
    let mut open: HashMap<i64, HashMap<u64, u64>> = HashMap::new();
    let mut next = slide;
    for n in 0..RECORDS {
        let time = time_of(n);
        while time >= next {
            if let Some(rows) = open.remove(&next) {
                rows.into_iter().for_each(|row| {
                    black_box(row);
                });
            }
            next += slide;
        }
        let key = key_of(n, KEYS);
        let mut start = time - time % slide;
        while start + size > time {
            *open.entry(start + size).or_default().entry(key).or_insert(0) += 1;
            start -= slide;
        }
    }
}

fn sessions_by_hand(gap: i64) {
    let mut open: HashMap<u64, (i64, i64, u64)> = HashMap::new();
    for n in 0..RECORDS {
        let time = time_of(n);
        let session = open.entry(key_of(n, KEYS)).or_insert((time, time, 0));
        if time - session.1 > gap {
            black_box(*session);
            *session = (time, time, 0);
        }
        *session = (session.0, time, session.2 + 1);
    }
}

fn windows(c: &mut Criterion) {
    let mut group = c.benchmark_group("windows");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(RECORDS));
    for (name, size, slide) in [("tumbling", 1000, 1000), ("sliding", 6000, 1000)] {
        group.bench_function(format!("{name}/speed_of_light"), |b| b.iter(|| windows_by_hand(size, slide)));
        group.bench_function(format!("{name}/engine"), |b| {
            b.iter_custom(|times| {
                let once = || {
                    let flow = Flow::new("windows");
                    let windows = Windows::sliding(millis(size as u64), millis(slide as u64));
                    keyed(&flow).window(windows).count().sink(Nowhere);
                    time_to(options(1, StateBackend::Memory), flow, "window-1", RECORDS)
                };
                (0..times).map(|_| once()).sum()
            });
        });
    }
    group.bench_function("sessions/speed_of_light", |b| b.iter(|| sessions_by_hand(100)));
    group.bench_function("sessions/engine", |b| {
        b.iter_custom(|times| {
            let once = || {
                let flow = Flow::new("sessions");
                keyed(&flow).window(Windows::session(millis(100))).count().sink(Nowhere);
                time_to(options(1, StateBackend::Memory), flow, "window-1", RECORDS)
            };
            (0..times).map(|_| once()).sum()
        });
    });
    group.finish();
}

/// Sets a timer a record, a second ahead.
#[derive(Clone)]
struct Remind;

impl ProcessFunction<u64, u64> for Remind {
    type Out = ();

    fn on_record(&mut self, _key: &u64, record: u64, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        cx.timer(Timestamp::from_millis(time_of(record) + 1000))
    }

    fn on_timer(
        &mut self,
        key: &u64,
        _at: Timestamp,
        _cx: &mut Context<'_, u64, ()>,
    ) -> Result<(), BoxError> {
        black_box(key);
        Ok(())
    }
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(RECORDS));
    group.bench_function("speed_of_light", |b| {
        b.iter(|| {
            let mut heap: BinaryHeap<Reverse<(i64, u64)>> = BinaryHeap::new();
            for n in 0..RECORDS {
                let now = time_of(n);
                while heap.peek().is_some_and(|Reverse((at, _))| *at <= now) {
                    black_box(heap.pop());
                }
                heap.push(Reverse((now + 1000, key_of(n, KEYS))));
            }
        });
    });
    group.bench_function("engine", |b| {
        b.iter_custom(|times| {
            let once = || {
                let flow = Flow::new("timers");
                keyed(&flow).process(Remind).sink(Nowhere);
                time_to(options(1, StateBackend::Memory), flow, "process-1", RECORDS)
            };
            (0..times).map(|_| once()).sum()
        });
    });
    group.finish();
}

criterion_group!(benches, windows, timers);
criterion_main!(benches);
