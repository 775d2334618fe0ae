//! Operators that keep state, beside others that need the memory.

use rivermark_checkpoint::Epoch;
use rivermark_operators::context::{CheckpointParts, ExchangeId, Payload, TaskContext, Transport};
use rivermark_operators::exchange::Keyed;
use rivermark_operators::partitions::Partitions;
use rivermark_operators::plan::{Inlet, Resources, TaskEnvironment};
use rivermark_operators::process::{Context, ProcessFunction};
use rivermark_operators::sink::{Batch as Rows, CommitError, Committer, Sink, SinkContext, SinkWriter};
use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark_operators::{
    Batch, BoxError, Flow, KeyedStream, List, Map, Stamp, Timestamp, Value, Watermarks, Windows, hash_key,
    hours, secs,
};
use rivermark_state::{KeyedStore, MemoryBackends, MemoryBudget, StoreSpec};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const KEYS: u64 = 20_000;
const COUNTS: Value<u64> = Value::new("counts");
const TEXTS: Value<String> = Value::new("texts");

/// A source that nobody reads.
struct Unread;

impl Source for Unread {
    type Item = u64;
    type Reader = Unread;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Ok(Vec::new())
    }

    fn reader(
        &self,
        _partition: u32,
        _position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<Unread, BoxError> {
        Ok(Unread)
    }
}

impl SourceReader<u64> for Unread {
    fn poll(&mut self, _max: usize, _records: &mut Records<'_, u64>) -> Result<Polled, BoxError> {
        Ok(Polled::Ended)
    }

    fn position(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// A sink that nobody looks at.
struct Unseen;

impl<T: Send + 'static> Sink<T> for Unseen {
    type Writer = Unseen;

    fn writer(&self, _cx: &SinkContext<'_>) -> Result<Unseen, BoxError> {
        Ok(Unseen)
    }

    fn committer(&self, _cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        Ok(Box::new(Unseen))
    }
}

impl<T> SinkWriter<T> for Unseen {
    fn write(&mut self, batch: &mut Rows<T>) -> Result<(), BoxError> {
        batch.clear();
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(None)
    }
}

impl Committer for Unseen {
    fn recover(&mut self, _tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch, _tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        Ok(())
    }
}

struct Nowhere;

impl Transport for Nowhere {
    fn send(&mut self, _exchange: ExchangeId, _to: usize, _payload: Payload) {}
}

#[derive(Clone)]
struct Counting;

impl ProcessFunction<u64, u64> for Counting {
    type Out = ();

    fn on_record(&mut self, _key: &u64, _record: u64, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        cx.state(COUNTS).update(|| 0, |count| *count += 1)
    }
}

/// What a part of a flow is made of, on one worker whose state is kept to `budget`: its inlet behind the exchange.
fn inlet_of(describe: impl FnOnce(KeyedStream<u64, u64>), budget: &MemoryBudget) -> Box<dyn Inlet> {
    let flow = Flow::new("budget");
    let timed =
        flow.source(Unread).event_time(|n| Timestamp::from_millis(*n as i64), Watermarks::monotonous());
    describe(timed.key_by(|n| *n));
    let none = BTreeMap::new();
    let tasks = flow.into_plan().unwrap().build(TaskEnvironment {
        held_batches: usize::MAX,
        worker: 0,
        workers: 1,
        key_groups: 128,
        generation: 1,
        partitions: Arc::new(Partitions::default()),
        metrics: &HashMap::new(),
        watermarks: &none,
        ends: &none,
        resources: Arc::new(Resources::default()),
        batch_capacity: Batch::<()>::CAPACITY,
        waker: rivermark_operators::source::Waker::none(),
        open_store: &mut |name| Ok(open(name, budget)),
    });
    tasks.unwrap().inlets.remove(0).inlet
}

fn open(operator: &str, budget: &MemoryBudget) -> KeyedStore {
    let spec = StoreSpec { budget: budget.clone(), ..StoreSpec::new(operator) };
    KeyedStore::open(spec, &MemoryBackends, Vec::new()).unwrap()
}

fn record(time: u64, key: u64, value: u64) -> (Stamp, Keyed<u64, u64>) {
    let stamp = Stamp::derived(Timestamp::from_millis(time as i64));
    (stamp, Keyed { hash: hash_key(&key), key, value })
}

/// Gives an operator a record of each key, lets other stores exceed the budget, and then only flushes the operator.
fn silent_operator_gives_way(describe: impl FnOnce(KeyedStream<u64, u64>)) {
    let budget = MemoryBudget::new(4 << 20);
    let mut inlet = inlet_of(describe, &budget);
    let (mut transport, mut parts) = (Nowhere, CheckpointParts::default());
    let mut cx = TaskContext { transport: &mut transport, now: Timestamp::MIN, parts: &mut parts };
    let records: Batch<Keyed<u64, u64>> = (0..KEYS).map(|n| record(n, n, n)).collect();
    inlet.on_batch(Box::new(records), &mut cx).unwrap();
    let held = budget.used();
    assert!(held > KEYS as usize * 16 && !budget.is_exceeded(), "{budget:?}");

    // Stores that cannot give way themselves: each holds one entry.
    let mut others = Vec::new();
    while budget.used() < budget.limit() + held / 2 {
        let mut other = open("other", &budget);
        other.value(TEXTS).unwrap().set(hash_key(&0_u64), 0_u64, "text".repeat(8192)).unwrap();
        others.push(other);
    }
    for _ in 0..10 {
        inlet.flush(&mut cx).unwrap();
    }
    assert!(!budget.is_exceeded(), "{budget:?}");
}

#[test]
fn a_process_function_without_records_keeps_to_the_budget() {
    silent_operator_gives_way(|keyed| keyed.process(Counting).sink(Unseen));
}

#[test]
fn windows_without_records_keep_to_the_budget() {
    silent_operator_gives_way(|keyed| keyed.window(Windows::tumbling(hours(1))).count().sink(Unseen));
    silent_operator_gives_way(|keyed| keyed.window(Windows::session(secs(1))).count().sink(Unseen));
}

const ITEMS: List<String> = List::new("items");
const ENTRIES: Map<u64, String> = Map::new("entries");

/// Keeps records, and reads all of them at the last one.
#[derive(Clone)]
struct Keeping {
    budget: MemoryBudget,
    read: Arc<AtomicU64>,
}

impl Keeping {
    const LAST: u64 = 60_000;

    fn text(n: u64) -> String {
        format!("record {n:>40}")
    }

    fn check(&self, at: u64) {
        assert!(self.budget.used() <= self.budget.limit() + (256 << 10), "{:?} at {at}", self.budget);
    }
}

impl ProcessFunction<u64, u64> for Keeping {
    type Out = ();

    fn on_record(&mut self, _key: &u64, n: u64, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        cx.state(ITEMS).push(Self::text(n))?;
        cx.state(ENTRIES).put(n, Self::text(n))?;
        self.check(n);
        if n < Self::LAST {
            return Ok(());
        }
        let (mut items, mut entries) = (0, 0);
        cx.state(ITEMS).for_each(|item| {
            assert_eq!(*item, Self::text(items));
            items += 1;
            self.check(items);
            Ok(())
        })?;
        cx.state(ENTRIES).for_each(|n, entry| {
            assert_eq!(*entry, Self::text(*n));
            entries += n;
            self.check(entries);
            Ok(())
        })?;
        assert_eq!((items, entries), (n + 1, n * (n + 1) / 2));
        // Nothing that was read is in memory for it.
        let mut looked_at = 0;
        let last = cx.state(ITEMS).find_map(|item| {
            looked_at += 1;
            (*item == Self::text(9)).then_some(looked_at)
        })?;
        assert_eq!(last, Some(10));
        self.read.store(items, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_function_reads_a_list_and_a_map_of_ten_times_the_budget() {
    let budget = MemoryBudget::new(1 << 20);
    let read = Arc::new(AtomicU64::new(0));
    let function = Keeping { budget: budget.clone(), read: Arc::clone(&read) };
    let mut inlet = inlet_of(|keyed| keyed.process(function).sink(Unseen), &budget);
    let (mut transport, mut parts) = (Nowhere, CheckpointParts::default());
    let mut cx = TaskContext { transport: &mut transport, now: Timestamp::MIN, parts: &mut parts };
    let records: Batch<Keyed<u64, u64>> = (0..=Keeping::LAST).map(|n| record(n, 7, n)).collect();
    inlet.on_batch(Box::new(records), &mut cx).unwrap();
    assert_eq!(read.load(Ordering::Relaxed), Keeping::LAST + 1);
}
