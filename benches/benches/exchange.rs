//! Records that move to the worker of their key, beside two threads that hand each other vectors.
//!
//! Half of the records stay where they are, in the engine as by hand.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::{Receiver, Sender, bounded};
use rivermark::{BoxError, Context, Flow, ProcessFunction, StateBackend};
use rivermark_benches::measure::{Running, options};
use rivermark_benches::synthetic::{Nowhere, Numbers, key_of};
use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 4_000_000;
const KEYS: u64 = 1000;
/// As the engine has them.
const BATCH: usize = 1024;
const CHANNEL_BATCHES: usize = 32;

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

/// Takes in a batch, and gives its memory back for another.
fn take_in(mut batch: Vec<Record>, spare: &mut Vec<Vec<Record>>) {
    batch.drain(..).for_each(|record| {
        black_box(record);
    });
    spare.push(batch);
}

/// Sends each of every second number to where its key belongs, and takes in what belongs here. A full channel means to make room in one's
/// own first, so two that wait for each other do not wait for ever.
fn by_hand(me: usize, to: Sender<Vec<Record>>, from: Receiver<Vec<Record>>) {
    let mut out = [Vec::with_capacity(BATCH), Vec::with_capacity(BATCH)];
    let mut spare = Vec::new();
    for n in (me as u64..RECORDS).step_by(2) {
        let key = key_of(n, KEYS);
        let at = (key % 2) as usize;
        out[at].push((n, key, n));
        if out[at].len() < BATCH {
            continue;
        }
        let fresh = spare.pop().unwrap_or_else(|| Vec::with_capacity(BATCH));
        let mut full = std::mem::replace(&mut out[at], fresh);
        if at == me {
            take_in(full, &mut spare);
        } else {
            while let Err(refused) = to.try_send(full) {
                full = refused.into_inner();
                from.try_iter().for_each(|batch| take_in(batch, &mut spare));
                // On a machine with fewer free cores than threads, the other one needs this one's to make room.
                std::thread::yield_now();
            }
        }
        from.try_iter().for_each(|batch| take_in(batch, &mut spare));
    }
    // What is left is less than two batches. The other one waits for it only behind its own sending, and never fills the channel again.
    drop(to);
    from.into_iter().for_each(|batch| take_in(batch, &mut spare));
}

fn exchange(c: &mut Criterion) {
    let mut group = c.benchmark_group("exchange");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    group.bench_function("speed_of_light", |b| {
        b.iter(|| {
            let (left, right) = (bounded(CHANNEL_BATCHES), bounded(CHANNEL_BATCHES));
            std::thread::scope(|scope| {
                scope.spawn(|| by_hand(0, right.0, left.1));
                scope.spawn(|| by_hand(1, left.0, right.1));
            });
        });
    });
    for workers in [1, 2] {
        let job = LazyCell::new(|| {
            let flow = Flow::new("exchange");
            flow.source(Numbers { events: u64::MAX, partitions: workers as u32 })
                .key_by(|n| key_of(*n, KEYS))
                .process(Nothing)
                .sink(Nowhere);
            Running::start(options(workers, StateBackend::Memory), flow, "process-1", RECORDS)
        });
        group.bench_function(format!("engine/{workers}_workers"), |b| {
            let job = &*job;
            b.iter_custom(|times| job.time_of(times * RECORDS));
        });
    }
    group.finish();
}

criterion_group!(benches, exchange);
criterion_main!(benches);
