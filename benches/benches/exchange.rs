//! Records that move to the worker of their key, beside two threads that hand each other vectors.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::{Receiver, Sender, bounded};
use rivermark::{BoxError, Context, Flow, ProcessFunction, StateBackend};
use rivermark_benches::measure::{options, time_to};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of};
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 2_000_000;
const KEYS: u64 = 1000;
const BATCH: usize = 1024;

#[derive(Clone)]
struct Nothing;

impl ProcessFunction<u64, u64> for Nothing {
    type Out = ();

    fn on_record(&mut self, _key: &u64, record: u64, _cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        black_box(record);
        Ok(())
    }
}

/// Time, key and value.
type Record = (u64, u64, u64);

/// Sends every second number to where its key belongs, and takes in what is sent here.
fn by_hand(me: u64, to: [Sender<Vec<Record>>; 2], from: Receiver<Vec<Record>>) {
    let mut out = [Vec::with_capacity(BATCH), Vec::with_capacity(BATCH)];
    let take = |batch: Vec<Record>| {
        batch.into_iter().for_each(|record| {
            black_box(record);
        });
    };
    for n in (me..RECORDS).step_by(2) {
        let key = key_of(n, KEYS);
        let at = (key % 2) as usize;
        out[at].push((n, key, n));
        if out[at].len() == BATCH {
            to[at].send(std::mem::replace(&mut out[at], Vec::with_capacity(BATCH))).unwrap();
            from.try_iter().for_each(take);
        }
    }
    for (to, rest) in to.into_iter().zip(out) {
        to.send(rest).unwrap();
    }
    from.into_iter().for_each(take);
}

fn exchange(c: &mut Criterion) {
    let mut group = c.benchmark_group("exchange");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(RECORDS));
    group.bench_function("speed_of_light", |b| {
        b.iter(|| {
            let (left, right) = (bounded(1 << 20), bounded(1 << 20));
            std::thread::scope(|scope| {
                let to = || [left.0.clone(), right.0.clone()];
                let (first, second) = (to(), to());
                scope.spawn(|| by_hand(0, first, left.1.clone()));
                scope.spawn(|| by_hand(1, second, right.1.clone()));
                drop((left.0, right.0));
            });
        });
    });
    for workers in [1, 2] {
        group.bench_function(format!("engine/{workers} workers"), |b| {
            b.iter_custom(|times| {
                let once = || {
                    let flow = Flow::new("exchange");
                    flow.source(Numbers { events: RECORDS, partitions: workers as u32 })
                        .key_by(|n| key_of(*n, KEYS))
                        .process(Nothing)
                        .sink(Nowhere);
                    time_to(options(workers, StateBackend::Memory), flow, "process-1", RECORDS)
                };
                (0..times).map(|_| once()).sum()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, exchange);
criterion_main!(benches);
