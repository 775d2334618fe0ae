//! Broadcast state: a small table that every record of a keyed stream can see all of, whatever its key.
//!
//! 1. Each change of the table is sent to all workers: one copy for each key group, through the exchange that all keyed records take. A worker
//!    keeps the table once a key group, as keyed state. So it is in the checkpoint, moves with its groups, and is there whatever the
//!    number of workers is after a restart.
//! 2. Records and changes run in event-time order; at the same time, changes first. A record of time t sees the table as of t, all changes
//!    of t included. Timers at t run before both and see the table as it was before t.
//! 3. What a function does is therefore a property of the log, as far as the table's changes are and the function's own doing is.
//!
//! The broadcast state of Flink, where the order of both inputs depends on the moment, and the GlobalKTable of Kafka Streams, which ignores
//! time. The price is the copies: a change costs as many records and as much state as there are key groups (128 unless set otherwise), so
//! this is for rules and rates, not for large tables; those are joined by key ([`Table::join_on`](crate::Table::join_on)).

use super::Either;
use crate::batch::Batch;
use crate::context::TaskContext;
use crate::edge::{Operator, Output, Signal};
use crate::error::{BoxError, Result};
use crate::exchange::Keyed;
use crate::plan::{NodeKind, NodeSpec};
use crate::process::{Context, ProcessFunction, Side, StateHandle};
use crate::stream::{KeyedStream, Stream};
use crate::table::{Change, Table};
use crate::time::Timestamp;
use rivermark_state::{Key, Map, StateValue, hash_key, key_group};
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// A function over the records and timers of each key that also reads a broadcast table. Every worker has its own clone; what must survive
/// belongs in state.
pub trait BroadcastFunction<K: Key, V, M: Key, B: StateValue>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Send + 'static;

    /// Takes a record. An error stops the job and names the record.
    fn on_record(
        &mut self,
        key: &K,
        record: V,
        cx: &mut BroadcastContext<'_, '_, K, M, B, Self::Out>,
    ) -> Result<(), BoxError>;

    /// Takes a timer that is due. Default: nothing.
    fn on_timer(
        &mut self,
        key: &K,
        time: Timestamp,
        cx: &mut BroadcastContext<'_, '_, K, M, B, Self::Out>,
    ) -> Result<(), BoxError> {
        let _ = (key, time, cx);
        Ok(())
    }
}

/// A key of the stream, or the place of a key group's copy of the broadcast table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placed<K> {
    /// A key of the stream.
    Key(K),
    /// A number whose hash is in the group.
    Group(u64),
}

/// As what is in it, so that a key stays in its group.
impl<K: Hash> Hash for Placed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Placed::Key(key) => key.hash(state),
            Placed::Group(number) => number.hash(state),
        }
    }
}

/// For each key group a number whose hash is in it.
fn places(groups: u16) -> Vec<u64> {
    let mut places = vec![None; usize::from(groups)];
    let mut missing = places.len();
    // The hash is a good one: after some eleven tries a group, at most a few are missing.
    for number in 0_u64.. {
        if missing == 0 {
            break;
        }
        let place = &mut places[usize::from(key_group(hash_key(&number), groups).0)];
        if place.is_none() {
            *place = Some(number);
            missing -= 1;
        }
    }
    places.into_iter().flatten().collect()
}

/// What a [`BroadcastFunction`] may do while it is called.
pub struct BroadcastContext<'c, 'a, K: Key, M, B, Out> {
    cx: &'c mut Context<'a, Placed<K>, Out>,
    place: u64,
    table: Map<M, B>,
}

impl<K: Key, M: Key, B: StateValue, Out> BroadcastContext<'_, '_, K, M, B, Out> {
    /// The broadcast table's row under `at`.
    pub fn broadcast(&mut self, at: &M) -> Result<Option<B>, BoxError> {
        let place = Placed::Group(self.place);
        self.cx.state_of(self.table, hash_key(&place), &place).get(at)
    }

    /// All rows of the broadcast table, in an order that is the same for the same keys, in a replay too.
    pub fn broadcast_rows(&mut self) -> Result<Vec<(M, B)>, BoxError> {
        let place = Placed::Group(self.place);
        self.cx.state_of(self.table, hash_key(&place), &place).entries()
    }

    /// As [`Context::time`].
    pub fn time(&self) -> Timestamp {
        self.cx.time()
    }

    /// As [`Context::emit`].
    pub fn emit(&mut self, record: Out) {
        self.cx.emit(record);
    }

    /// As [`Context::emit_to`].
    ///
    /// # Panics
    /// As there.
    pub fn emit_to<S: 'static>(&mut self, side: Side<S>, record: S) {
        self.cx.emit_to(side, record);
    }

    /// As [`Context::state`].
    pub fn state<H: StateHandle<Placed<K>>>(&mut self, handle: H) -> H::State<'_> {
        self.cx.state(handle)
    }

    /// As [`Context::timer`].
    ///
    /// # Errors
    /// As there.
    pub fn timer(&mut self, time: Timestamp) -> Result<(), BoxError> {
        self.cx.timer(time)
    }

    /// As [`Context::delete_timer`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_timer(&mut self, time: Timestamp) -> Result<(), BoxError> {
        self.cx.delete_timer(time)
    }
}

/// The broadcast table's row that a change leaves under a key.
type Row<M, B> = (M, Option<B>);

impl<K: Key, V: StateValue> KeyedStream<K, V> {
    /// Runs a function over each key's records and timers, in event-time order, that sees all of `broadcast` as of each record's time.
    /// State under the name `broadcast table` is taken.
    ///
    /// ```
    /// use rivermark_operators::join::{BroadcastContext, BroadcastFunction};
    /// use rivermark_operators::{BoxError, Timestamp, testing};
    ///
    /// /// Tells which records are above the limit.
    /// #[derive(Clone)]
    /// struct Above;
    ///
    /// impl BroadcastFunction<u8, i64, String, i64> for Above {
    ///     type Out = i64;
    ///
    ///     fn on_record(
    ///         &mut self,
    ///         _key: &u8,
    ///         value: i64,
    ///         cx: &mut BroadcastContext<'_, '_, u8, String, i64, i64>,
    ///     ) -> Result<(), BoxError> {
    ///         if cx.broadcast(&"limit".to_string())?.is_some_and(|limit| value > limit) {
    ///             cx.emit(value);
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let ((values, stream), (limits, rules)) = (it.input::<i64>(), it.input::<i64>());
    ///     let rules = rules.key_by(|_| "limit".to_string()).to_table();
    ///     let above = it.output(stream.key_by(|n| (n % 4) as u8).process_with_broadcast(rules, Above));
    ///     [(1, 9), (2, 11), (5, 12), (6, 30)].into_iter().for_each(|(time, n)| it.push(&values, at(time), n));
    ///     it.push(&limits, at(2), 10);
    ///     it.push(&limits, at(4), 20);
    ///     it.end(&values);
    ///     it.end(&limits);
    ///     it.expect(&above, [11, 30]);
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`KeyedStream::connect`].
    pub fn process_with_broadcast<M: Key, B: StateValue, F: BroadcastFunction<K, V, M, B>>(
        self,
        broadcast: Table<M, B>,
        function: F,
    ) -> Stream<F::Out> {
        let spec = NodeSpec::new("broadcast", NodeKind::Transform, vec![], 1);
        let copies = broadcast.keyed().keyed.then(spec, |builder, port| {
            let out = builder.output::<Keyed<Placed<K>, Row<M, B>>>(port);
            let places = places(builder.environment().key_groups);
            builder.attach::<Keyed<M, Change<B>>>(0, Copying { places, out });
            Ok(())
        });
        let copies = KeyedStream { keyed: copies, order: None };
        let place = |Keyed { hash, key, value }| Keyed { hash, key: Placed::Key(key), value };
        assert!(self.order.is_none(), "a function with a broadcast table runs in event-time order by itself");
        let records = KeyedStream { keyed: self.keyed.map(place), order: None };
        let first = |either: &Either<V, Row<M, B>>| matches!(either, Either::Right(_));
        let ordered = records.connect(copies).in_event_time_order_with_first(None, first);
        let function = Broadcasting { function, places: Vec::new(), records: PhantomData };
        ordered.process_failing("process_with_broadcast", true, function)
    }
}

/// Makes a copy of each change for each key group.
struct Copying<K, M, B> {
    places: Vec<u64>,
    out: Output<Keyed<Placed<K>, Row<M, B>>>,
}

impl<K: Key, M: Key, B: StateValue> Operator<Keyed<M, Change<B>>> for Copying<K, M, B> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<M, Change<B>>>, cx: &mut TaskContext<'_>) -> Result<()> {
        batch.try_drain(|stamp, Keyed { key, value, .. }| {
            let row = value.into_after();
            for place in &self.places {
                let place = Placed::Group(*place);
                let value = (key.clone(), row.clone());
                self.out.push(*stamp, Keyed { hash: hash_key(&place), key: place, value });
            }
            self.out.send(cx)
        })
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }
}

struct Broadcasting<F, K, V, M, B> {
    function: F,
    /// By key group, once they are needed.
    places: Vec<u64>,
    records: PhantomData<fn(K, V, M, B)>,
}

impl<F: Clone, K, V, M, B> Clone for Broadcasting<F, K, V, M, B> {
    fn clone(&self) -> Self {
        Broadcasting { function: self.function.clone(), places: self.places.clone(), records: PhantomData }
    }
}

impl<F, K: Key, V, M: Key, B: StateValue> Broadcasting<F, K, V, M, B> {
    const TABLE: Map<M, B> = Map::new("broadcast table");

    /// Where the copy of the table lies that a key sees.
    fn place_of<Out>(&mut self, cx: &Context<'_, Placed<K>, Out>) -> u64 {
        let groups = cx.key_groups();
        if self.places.is_empty() {
            self.places = places(groups);
        }
        self.places[usize::from(key_group(cx.hash(), groups).0)]
    }
}

impl<F, K, V, M, B> ProcessFunction<Placed<K>, Either<V, Row<M, B>>> for Broadcasting<F, K, V, M, B>
where
    K: Key,
    V: StateValue,
    M: Key,
    B: StateValue,
    F: BroadcastFunction<K, V, M, B>,
{
    type Out = F::Out;

    fn on_record(
        &mut self,
        key: &Placed<K>,
        record: Either<V, Row<M, B>>,
        cx: &mut Context<'_, Placed<K>, F::Out>,
    ) -> Result<(), BoxError> {
        match (key, record) {
            (Placed::Key(key), Either::Left(record)) => {
                let place = self.place_of(cx);
                self.function.on_record(key, record, &mut BroadcastContext { cx, place, table: Self::TABLE })
            }
            (_, Either::Right((at, Some(row)))) => cx.state(Self::TABLE).put(at, row),
            (_, Either::Right((at, None))) => cx.state(Self::TABLE).remove(&at),
            (Placed::Group(_), Either::Left(_)) => unreachable!("records have keys of the stream"),
        }
    }

    fn on_timer(
        &mut self,
        key: &Placed<K>,
        time: Timestamp,
        cx: &mut Context<'_, Placed<K>, F::Out>,
    ) -> Result<(), BoxError> {
        let Placed::Key(key) = key else { return Ok(()) };
        let place = self.place_of(cx);
        self.function.on_timer(key, time, &mut BroadcastContext { cx, place, table: Self::TABLE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_a_place_in_it_and_keys_stay_where_they_are() {
        for groups in [1, 7, 128, 1024] {
            for (group, place) in places(groups).into_iter().enumerate() {
                let hash = hash_key(&Placed::<String>::Group(place));
                assert_eq!(usize::from(key_group(hash, groups).0), group);
            }
        }
        let key = "a key".to_string();
        assert_eq!(hash_key(&Placed::Key(key.clone())), hash_key(&key));
    }
}
