//! `process`: a function of the user's with state and event-time timers for each key.
//!
//! 1. A record is given to [`ProcessFunction::on_record`] with its key; the function reads and writes state under typed constants, sets
//!    timers and emits records, all through its [`Context`].
//! 2. When the watermark passes a timer's time, [`ProcessFunction::on_timer`] is called for its key: timers in order of time, then of
//!    key. Setting one twice fires it once. One that is set at or below the watermark fires when the watermark next moves; one that
//!    `on_timer` sets there fires in the same move, so a timer that sets itself again needs an end: at the end of a bounded stream the
//!    watermark moves to the end of time.
//! 3. At a barrier the state and timers that changed go into the checkpoint.
//!
//! Records of one source partition come in order; between partitions the order depends on the moment, so a function whose result depends
//! on it is as deterministic as its input is partitioned by its key.

use crate::batch::{Batch, Stamp};
use crate::context::{BlameCell, OperatorMetrics, TaskContext};
use crate::edge::{Operator, Output, Signal};
use crate::error::{BoxError, Error, Result};
use crate::exchange::{Ahead, Keyed};
use crate::plan::{NodeKind, NodeSpec};
use crate::stream::{KeyedStream, Stream};
use crate::time::Timestamp;
use rivermark_state::{
    Key, KeyedStore, List, ListTable, Map, MapTable, Reducing, StateError, StateValue, TableId, Timers,
    Value, ValueTable,
};
use std::sync::Arc;

/// A function over the records and timers of each key. Every worker has its own clone; what must survive belongs in state.
pub trait ProcessFunction<K: Key, V>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Send + 'static;

    /// Takes a record. An error stops the job and names the record.
    fn on_record(&mut self, key: &K, record: V, cx: &mut Context<'_, K, Self::Out>) -> Result<(), BoxError>;

    /// Takes a timer that is due. Default: nothing.
    fn on_timer(
        &mut self,
        key: &K,
        time: Timestamp,
        cx: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), BoxError> {
        let _ = (key, time, cx);
        Ok(())
    }
}

/// What a [`ProcessFunction`] may do while it is called.
pub struct Context<'a, K: Key, Out> {
    stamp: Stamp,
    watermark: Timestamp,
    hash: u64,
    key: &'a K,
    store: &'a mut KeyedStore,
    timers: TableId<Timers<K>>,
    has_event_time: bool,
    out: &'a mut Output<Out>,
}

impl<K: Key, Out> Context<'_, K, Out> {
    /// The event time of the record, or of the timer.
    pub fn time(&self) -> Timestamp {
        self.stamp.time
    }

    /// The watermark of the operator. It depends on the moment: what is computed from it is not the same in a replay.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Emits a record with the event time of the record or timer in hand.
    pub fn emit(&mut self, record: Out) {
        self.out.push(self.stamp, record);
    }

    /// The state of the key in hand under a typed constant.
    pub fn state<H: StateHandle<K>>(&mut self, handle: H) -> H::State<'_> {
        handle.of(self.store, self.hash, self.key)
    }

    /// Sets a timer for the key in hand. Setting the same time again changes nothing.
    ///
    /// # Errors
    /// If the stream has no event time: nothing would ever make the timer due.
    pub fn timer(&mut self, time: Timestamp) -> Result<(), BoxError> {
        if !self.has_event_time {
            return Err(
                "a timer needs event time: call `.event_time(..)` on the stream before `.key_by(..)`".into(),
            );
        }
        self.store.table(self.timers).register(time.millis(), self.hash, self.key)?;
        Ok(())
    }

    /// Takes a timer back; one that was never set is no error.
    pub fn delete_timer(&mut self, time: Timestamp) -> Result<(), BoxError> {
        self.store.table(self.timers).delete(time.millis(), self.hash, self.key)?;
        Ok(())
    }
}

/// A typed constant that names keyed state: [`Value`], [`List`], [`Map`] or [`Reducing`].
pub trait StateHandle<K: Key> {
    /// Access to the state of one key.
    type State<'a>;

    /// The state of `key`.
    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> Self::State<'a>;
}

/// One value of one key.
pub struct ValueState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ValueTable<K, T>, StateError>,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ValueState<'a, K, T> {
    /// The value, if there is one.
    pub fn get(self) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get(self.hash, self.key)?.cloned())
    }

    /// Sets the value.
    pub fn set(self, value: T) -> Result<(), BoxError> {
        Ok(self.table?.set(self.hash, self.key, value)?)
    }

    /// Changes the value in place, beginning with `initial` where there is none: one look-up for reading and writing.
    pub fn update<R>(
        self,
        initial: impl FnOnce() -> T,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, BoxError> {
        Ok(change(self.table?.upsert(self.hash, self.key, initial)?))
    }

    /// Removes the value.
    pub fn clear(self) -> Result<(), BoxError> {
        self.table?.remove(self.hash, self.key)?;
        Ok(())
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for Value<T> {
    type State<'a> = ValueState<'a, K, T>;

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> ValueState<'a, K, T> {
        ValueState { table: store.value(self), hash, key }
    }
}

/// One value of one key, that new values are merged into.
pub struct ReducingState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ValueTable<K, T>, StateError>,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ReducingState<'a, K, T> {
    /// The value, if there is one.
    pub fn get(self) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get(self.hash, self.key)?.cloned())
    }

    /// Merges `value` in by `reduce`; it becomes the value where there is none.
    pub fn add(self, value: T, reduce: impl FnOnce(&mut T, T)) -> Result<(), BoxError> {
        self.table?.reduce(self.hash, self.key, value, reduce)?;
        Ok(())
    }

    /// Removes the value.
    pub fn clear(self) -> Result<(), BoxError> {
        self.table?.remove(self.hash, self.key)?;
        Ok(())
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for Reducing<T> {
    type State<'a> = ReducingState<'a, K, T>;

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> ReducingState<'a, K, T> {
        ReducingState { table: store.reducing(self), hash, key }
    }
}

/// A list of one key.
pub struct ListState<'a, K: Key, T: StateValue> {
    table: Result<&'a mut ListTable<K, T>, StateError>,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, T: StateValue> ListState<'a, K, T> {
    /// All elements, in the order in which they were added.
    pub fn get(self) -> Result<Vec<T>, BoxError> {
        Ok(self.table?.get(self.hash, self.key)?.to_vec())
    }

    /// Adds an element at the end, without reading what is there.
    pub fn push(self, element: T) -> Result<(), BoxError> {
        Ok(self.table?.append(self.hash, self.key, element)?)
    }

    /// Removes all elements.
    pub fn clear(self) -> Result<(), BoxError> {
        self.table?.clear(self.hash, self.key)?;
        Ok(())
    }
}

impl<K: Key, T: StateValue> StateHandle<K> for List<T> {
    type State<'a> = ListState<'a, K, T>;

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> ListState<'a, K, T> {
        ListState { table: store.list(self), hash, key }
    }
}

/// A map of one key. Each entry is read and written alone.
pub struct MapState<'a, K: Key, M: Key, T: StateValue> {
    table: Result<&'a mut MapTable<K, M, T>, StateError>,
    hash: u64,
    key: &'a K,
}

impl<'a, K: Key, M: Key, T: StateValue> MapState<'a, K, M, T> {
    /// The entry under `at`, if there is one.
    pub fn get(self, at: &M) -> Result<Option<T>, BoxError> {
        Ok(self.table?.get(self.hash, self.key, at)?.cloned())
    }

    /// Sets the entry under `at`.
    pub fn put(self, at: M, value: T) -> Result<(), BoxError> {
        Ok(self.table?.put(self.hash, self.key, at, value)?)
    }

    /// Removes the entry under `at`.
    pub fn remove(self, at: &M) -> Result<(), BoxError> {
        self.table?.remove(self.hash, self.key, at)?;
        Ok(())
    }

    /// All entries, in no particular order.
    pub fn entries(self) -> Result<Vec<(M, T)>, BoxError> {
        let mut entries = Vec::new();
        self.table?.for_each(self.hash, self.key, |at, value| entries.push((at.clone(), value.clone())))?;
        Ok(entries)
    }

    /// Removes all entries.
    pub fn clear(self) -> Result<(), BoxError> {
        self.table?.clear(self.hash, self.key)?;
        Ok(())
    }
}

impl<K: Key, M: Key, T: StateValue> StateHandle<K> for Map<M, T> {
    type State<'a> = MapState<'a, K, M, T>;

    fn of<'a>(self, store: &'a mut KeyedStore, hash: u64, key: &'a K) -> MapState<'a, K, M, T> {
        MapState { table: store.map(self), hash, key }
    }
}

impl<K: Key, V: Send + 'static> KeyedStream<K, V> {
    /// Runs a function over each key's records and timers, with state of its own.
    pub fn process<P: ProcessFunction<K, V>>(self, function: P) -> Stream<P::Out> {
        let spec = NodeSpec::new("process", NodeKind::Stateful, vec![], 1);
        self.exchanged().then(spec, move |builder, port| {
            let name = builder.name();
            let mut store = builder.open_store()?;
            let timers = store.timers("timers").map_err(|e| Error::state(&name, "opening the timers", e))?;
            let out = builder.output::<P::Out>(port);
            builder.attach::<Keyed<K, V>>(
                0,
                Processing {
                    name,
                    blame: builder.blame(),
                    metrics: builder.metrics(),
                    function: function.clone(),
                    watermark: builder.restored_watermark(),
                    store,
                    ahead: Ahead::default(),
                    timers,
                    has_event_time: builder.has_event_time(),
                    out,
                },
            );
            Ok(())
        })
    }
}

struct Processing<K: Key, P, Out> {
    name: Arc<str>,
    blame: BlameCell,
    metrics: Arc<OperatorMetrics>,
    function: P,
    store: KeyedStore,
    ahead: Ahead,
    timers: TableId<Timers<K>>,
    has_event_time: bool,
    watermark: Timestamp,
    out: Output<Out>,
}

impl<K: Key, P, Out> Processing<K, P, Out> {
    fn failed(&self, attempt: &'static str) -> impl Fn(StateError) -> Error + use<K, P, Out> {
        let name = Arc::clone(&self.name);
        move |e| Error::state(&name, attempt, e)
    }

    fn fire_timers<V>(&mut self, watermark: Timestamp, cx: &mut TaskContext<'_>) -> Result<()>
    where
        P: ProcessFunction<K, V, Out = Out>,
    {
        let failed = self.failed("taking the timers that are due");
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        while let Some((time, hash, key)) =
            self.store.table(self.timers).pop(watermark.millis()).map_err(&failed)?
        {
            let stamp = Stamp::derived(Timestamp::from_millis(time));
            watch.at(&stamp);
            let mut context = Context {
                stamp,
                watermark,
                hash,
                key: &key,
                store: &mut self.store,
                timers: self.timers,
                has_event_time: self.has_event_time,
                out: &mut self.out,
            };
            self.function.on_timer(&key, stamp.time, &mut context).map_err(|e| watch.fail(e))?;
            if self.out.is_full() {
                self.out.send(cx)?;
            }
        }
        self.watermark = watermark;
        Ok(())
    }
}

impl<K: Key, V, P: ProcessFunction<K, V>> Operator<Keyed<K, V>> for Processing<K, P, P::Out> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.metrics.add_in(batch.len());
        self.ahead.begin(batch, &self.store);
        let mut watch = self.blame.watch(&self.name);
        batch.try_drain(|stamp, Keyed { hash, key, value }| {
            watch.at(stamp);
            self.ahead.step(&self.store);
            let mut context = Context {
                stamp: *stamp,
                watermark: self.watermark,
                hash,
                key: &key,
                store: &mut self.store,
                timers: self.timers,
                has_event_time: self.has_event_time,
                out: &mut self.out,
            };
            self.function.on_record(&key, value, &mut context).map_err(|e| watch.fail(e))?;
            if self.out.is_full() { self.out.send(cx) } else { Ok(()) }
        })?;
        drop(watch);
        self.store.maintain().map_err(self.failed("keeping to the memory budget"))?;
        self.out.send(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            // After a restart the first watermarks may be older than the restored one.
            Signal::Watermark(watermark) if watermark <= self.watermark => return Ok(()),
            Signal::Watermark(watermark) => {
                self.fire_timers::<V>(watermark, cx)?;
                self.metrics.set_watermark(watermark);
            }
            Signal::Barrier(epoch) => {
                cx.parts.add_state(&self.name, &mut self.store, epoch, self.watermark)?;
            }
            Signal::Idle | Signal::Vacant | Signal::Active | Signal::Partition(_) | Signal::End => {}
        }
        self.out.signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        // Where no records come, timers and other stores may still exceed the budget.
        self.store.maintain().map_err(self.failed("keeping to the memory budget"))?;
        self.out.flush(cx)
    }
}
