//! The exchange: moves each record to the worker that owns its key.
//!
//! 1. The `Router` of the sending worker sorts records into one buffer a receiver, by the key group of a hash that was computed once and
//!    travels with the record. Records are moved, never cloned; where they are given their keys just before, they come one by one and lie in
//!    no batch in between.
//! 2. A full buffer goes out at once; the others when the task is flushed. A watermark waits with them, so that time passes
//!    once a flush instead of once a batch, and never before the records it covers.
//! 3. The transport (the engine's channels, or a local queue where sender and receiver are the same worker) carries boxed batches
//!    by pointer.
//! 4. The `Receiving` inlet unpacks them and gives the emptied box back to its own worker's router, so that in a steady state no batch is
//!    allocated.
//!
//! An exchange can carry batches of a second type beside the records: what they were combined to before they were sent. It goes through the
//! same channels, so barriers and watermarks keep both in order.

use crate::batch::{Batch, Stamp};
use crate::context::{ExchangeId, Payload, TaskContext};
use crate::edge::{Operator, Output, Signal};
use crate::error::Result;
use crate::plan::{Inlet, TaskBuilder};
use crate::time::Timestamp;
use rivermark_state::{KeyGroup, KeyedStore, WARM_CHUNK, key_group, worker_of};
use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

/// A record with its key and the key's hash.
#[derive(Clone, Debug)]
pub struct Keyed<K, V> {
    /// The stable hash of the key, computed once.
    pub hash: u64,
    /// The key.
    pub key: K,
    /// The record.
    pub value: V,
}

/// The hashes of a batch in hand, for warming the state's tables some records ahead of their turn.
#[derive(Default)]
pub(crate) struct Ahead {
    hashes: Vec<u64>,
    next: usize,
}

impl Ahead {
    /// Begins a batch.
    pub(crate) fn begin<K, V>(&mut self, batch: &Batch<Keyed<K, V>>, store: &KeyedStore) {
        self.hashes.clear();
        self.hashes.extend(batch.values().iter().map(|record| record.hash));
        self.next = 0;
        self.warm(0, store);
    }

    /// The next record's turn has come.
    #[inline]
    pub(crate) fn step(&mut self, store: &KeyedStore) {
        if self.next.is_multiple_of(WARM_CHUNK) {
            self.warm(self.next + WARM_CHUNK, store);
        }
        self.next += 1;
    }

    /// One chunk is on its way from memory while the one before it is worked on.
    fn warm(&self, from: usize, store: &KeyedStore) {
        let chunk = from..self.hashes.len().min(from + WARM_CHUNK);
        if let Some(hashes) = self.hashes.get(chunk) {
            store.warm(hashes);
        }
    }
}

/// How many emptied batches a worker keeps for each exchange.
const POOL: usize = 64;

type Pool<T> = Rc<RefCell<Vec<Box<Batch<T>>>>>;

/// Builds both ends of an exchange on one worker: the router is attached to the node's input, the inlet feeds `port`.
pub(crate) fn build<T: Send + 'static>(
    builder: &mut TaskBuilder<'_>,
    exchange: ExchangeId,
    port: usize,
    hash: fn(&T) -> u64,
) {
    let pool: Pool<T> = Rc::default();
    let out = builder.output::<T>(port);
    builder.add_inlet(exchange, Receiving { out, pool: Rc::clone(&pool) });
    let (workers, groups) = (builder.environment().workers, builder.environment().key_groups);
    builder.attach(0, Router::new(exchange, workers, groups, hash, pool));
}

/// Builds both ends of an exchange that carries records and what they were combined to: `port` gives the records and all signals, the port
/// after it the combined. `sending` makes the sending end of the two routers; where there is one worker, records go as they are.
pub(crate) fn build_pair<K, V, C, S>(
    builder: &mut TaskBuilder<'_>,
    exchange: ExchangeId,
    port: usize,
    sending: impl FnOnce(Router<Keyed<K, V>>, Router<Keyed<K, C>>) -> S,
) where
    K: Send + 'static,
    V: Send + 'static,
    C: Send + 'static,
    S: Operator<Keyed<K, V>> + 'static,
{
    let (pool, combined_pool) = (Pool::default(), Pool::default());
    let records = Receiving { out: builder.output(port), pool: Rc::clone(&pool) };
    let combined = Receiving { out: builder.output(port + 1), pool: Rc::clone(&combined_pool) };
    builder.add_inlet(exchange, ReceivingPair { records, combined });
    let (workers, groups) = (builder.environment().workers, builder.environment().key_groups);
    let records = Router::new(exchange, workers, groups, |keyed: &Keyed<K, V>| keyed.hash, pool);
    if workers == 1 {
        builder.attach(0, records);
    } else {
        let combined =
            Router::new(exchange, workers, groups, |keyed: &Keyed<K, C>| keyed.hash, combined_pool);
        builder.attach(0, sending(records, combined));
    }
}

/// The sending end of an exchange.
///
/// Public in name only: the trait [`Operator`] speaks of it, and what it can do is the crate's.
pub struct Router<T> {
    exchange: ExchangeId,
    hash: fn(&T) -> u64,
    groups: u16,
    /// The worker of each key group.
    owners: Vec<u16>,
    #[expect(
        clippy::vec_box,
        reason = "a full buffer goes into the channel as the box it is, and another comes back from the pool"
    )]
    buffers: Vec<Box<Batch<T>>>,
    pool: Pool<T>,
    watermark: Option<Timestamp>,
}

/// The worker that owns a key, by its hash.
#[inline]
fn owner_of(hash: u64, groups: u16, owners: &[u16]) -> usize {
    usize::from(owners[usize::from(key_group(hash, groups).0)])
}

impl<T: Send + 'static> Router<T> {
    fn new(exchange: ExchangeId, workers: usize, groups: u16, hash: fn(&T) -> u64, pool: Pool<T>) -> Self {
        let owners = (0..groups).map(|group| worker_of(KeyGroup(group), groups, workers as u16)).collect();
        let buffers = (0..workers).map(|_| Box::new(Batch::new())).collect();
        Router { exchange, hash, groups, owners, buffers, pool, watermark: None }
    }

    /// Takes one record, with its hash; it goes out when its buffer is full, or with [`Operator::flush`].
    #[inline(always)]
    pub(crate) fn push(&mut self, hash: u64, stamp: Stamp, record: T, cx: &mut TaskContext<'_>) {
        let to = owner_of(hash, self.groups, &self.owners);
        let buffer = &mut self.buffers[to];
        buffer.push(stamp, record);
        if buffer.len() >= Batch::<T>::CAPACITY {
            self.send(to, cx);
        }
    }

    #[inline(never)]
    fn send(&mut self, to: usize, cx: &mut TaskContext<'_>) {
        if self.buffers[to].is_empty() {
            return;
        }
        let fresh = self.pool.borrow_mut().pop();
        let fresh = fresh.unwrap_or_else(|| Box::new(Batch::with_capacity(Batch::<T>::CAPACITY)));
        let full = std::mem::replace(&mut self.buffers[to], fresh);
        cx.transport.send(self.exchange, to, Payload::Batch(full));
    }

    fn broadcast(&mut self, signal: Signal, cx: &mut TaskContext<'_>) {
        for to in 0..self.buffers.len() {
            cx.transport.send(self.exchange, to, Payload::Signal(signal));
        }
    }

    fn send_all(&mut self, cx: &mut TaskContext<'_>) {
        for to in 0..self.buffers.len() {
            self.send(to, cx);
        }
        if let Some(watermark) = self.watermark.take() {
            self.broadcast(Signal::Watermark(watermark), cx);
        }
    }
}

impl<T: Send + 'static> Operator<T> for Router<T> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        if self.buffers.len() == 1 && self.buffers[0].is_empty() {
            self.buffers[0].swap(batch);
            if self.buffers[0].len() >= Batch::<T>::CAPACITY {
                self.send(0, cx);
            }
            return Ok(());
        }
        let (owners, buffers, hash) = (&self.owners, &mut self.buffers, self.hash);
        let groups = self.groups;
        batch.try_drain(|stamp, record| {
            let to = owner_of(hash(&record), groups, owners);
            buffers[to].push(*stamp, record);
            Ok(())
        })?;
        for to in 0..self.buffers.len() {
            if self.buffers[to].len() >= Batch::<T>::CAPACITY {
                self.send(to, cx);
            }
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            Signal::Watermark(to) => {
                // How far time had come when it ended is where a next run goes on.
                if to == Timestamp::MAX && self.watermark.is_some() {
                    self.send_all(cx);
                }
                self.watermark = Some(to);
            }
            // Partitions are the business of the task that reads them.
            Signal::Partition(_) => {}
            Signal::Idle | Signal::Active | Signal::Barrier(_) | Signal::End => {
                self.send_all(cx);
                self.broadcast(signal, cx);
            }
        }
        Ok(())
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.send_all(cx);
        Ok(())
    }

    fn as_router(&mut self) -> Option<&mut Router<T>> {
        Some(self)
    }
}

struct Receiving<T> {
    out: Output<T>,
    pool: Pool<T>,
}

impl<T: Send + 'static> Receiving<T> {
    fn take(&mut self, mut batch: Box<Batch<T>>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.forward(&mut batch, cx)?;
        batch.clear();
        let mut pool = self.pool.borrow_mut();
        if pool.len() < POOL {
            pool.push(batch);
        }
        Ok(())
    }
}

/// Why a batch has one of the types that its receiver knows.
const ONE_NODE: &str = "both ends of an exchange are built by one node";

impl<T: Send + 'static> Inlet for Receiving<T> {
    fn on_batch(&mut self, batch: Box<dyn Any + Send>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.take(batch.downcast().expect(ONE_NODE), cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(signal, cx)
    }

    fn go_on(&mut self, cx: &mut TaskContext<'_>) -> Result<bool> {
        self.out.go_on(cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }
}

struct ReceivingPair<T, P> {
    records: Receiving<T>,
    combined: Receiving<P>,
}

impl<T: Send + 'static, P: Send + 'static> Inlet for ReceivingPair<T, P> {
    fn on_batch(&mut self, batch: Box<dyn Any + Send>, cx: &mut TaskContext<'_>) -> Result<()> {
        match batch.downcast() {
            Ok(records) => self.records.take(records, cx),
            Err(combined) => self.combined.take(combined.downcast().expect(ONE_NODE), cx),
        }
    }

    /// What is combined has no signals of its own.
    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.records.on_signal(signal, cx)
    }

    fn go_on(&mut self, cx: &mut TaskContext<'_>) -> Result<bool> {
        self.records.go_on(cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.records.flush(cx)
    }
}
