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
    Batch, BoxError, Flow, KeyedStream, Stamp, Timestamp, Value, Watermarks, Windows, hash_key, hours, secs,
};
use rivermark_state::{KeyedStore, MemoryBackends, MemoryBudget, StoreSpec};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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

/// Gives an operator a record of each key, lets other stores exceed the budget, and then only flushes the operator.
fn silent_operator_gives_way(describe: impl FnOnce(KeyedStream<u64, u64>)) {
    let flow = Flow::new("budget");
    let timed =
        flow.source(Unread).event_time(|n| Timestamp::from_millis(*n as i64), Watermarks::monotonous());
    describe(timed.key_by(|n| *n));
    let plan = flow.into_plan().unwrap();
    let budget = MemoryBudget::new(4 << 20);
    let open = |operator: &str| {
        let spec = StoreSpec { budget: budget.clone(), ..StoreSpec::new(operator) };
        KeyedStore::open(spec, &MemoryBackends, Vec::new()).unwrap()
    };
    let none = BTreeMap::new();
    let tasks = plan.build(TaskEnvironment {
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
        open_store: &mut |name| Ok(open(name)),
    });
    let mut inlet: Box<dyn Inlet> = tasks.unwrap().inlets.remove(0).inlet;
    let (mut transport, mut parts) = (Nowhere, CheckpointParts::default());
    let mut cx = TaskContext { transport: &mut transport, now: Timestamp::MIN, parts: &mut parts };
    let records: Batch<Keyed<u64, u64>> = (0..KEYS)
        .map(|n| {
            let stamp = Stamp::derived(Timestamp::from_millis(n as i64));
            (stamp, Keyed { hash: hash_key(&n), key: n, value: n })
        })
        .collect();
    inlet.on_batch(Box::new(records), &mut cx).unwrap();
    let held = budget.used();
    assert!(held > KEYS as usize * 16 && !budget.is_exceeded(), "{budget:?}");

    // Stores that cannot give way themselves: each holds one entry.
    let mut others = Vec::new();
    while budget.used() < budget.limit() + held / 2 {
        let mut other = open("other");
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
