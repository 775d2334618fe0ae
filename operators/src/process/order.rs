//! Event-time order: records wait for the watermark and run sorted by time, partition and offset.
//!
//! 1. A record waits in keyed state under its time. One whose time is below its own partition's watermark is late: a property of
//!    the log, whatever the moment.
//! 2. When the watermark moves to w, the records below w run, in order of time, then of partition and offset: every record of those times
//!    has come, for the watermark is the least over the partitions.
//! 3. Timers run in between, each before the records of its own time: a timer at t fires when all records below t have run.
//!
//! So what a function sees is a function of the log, with any number of workers and at any speed. The price is waiting for the
//! watermark, and state for what waits.

use crate::batch::{Origin, Stamp};
use crate::exchange::Keyed;
use crate::stream::{KeyedStream, Stream};
use crate::time::Timestamp;
use crate::window::Late;
use rivermark_state::{Key, KeyedStore, StateError, StateValue, TableId, Waiter, WaitingTable};
use std::sync::Arc;

/// Records whose time has come.
pub(super) type Due<K, V> = Vec<(Stamp, Keyed<K, V>)>;

/// What was made of a stream's late records.
pub(crate) type UseLate<K, V> = Box<dyn FnOnce(Stream<Late<K, V>>)>;

/// That a keyed stream's records run in event-time order.
pub(crate) struct EventTimeOrder<K, V> {
    /// Opens the state that records wait in; made where their type is known to be storable.
    pub(super) open: Arc<OpenWaiting<K, V>>,
    pub(super) late: Option<UseLate<K, V>>,
}

pub(super) type OpenWaiting<K, V> =
    dyn Fn(&mut KeyedStore) -> Result<Box<dyn Waiting<K, V>>, StateError> + Send + Sync;

/// Records that wait for their time.
pub(super) trait Waiting<K, V> {
    fn push(&self, store: &mut KeyedStore, stamp: &Stamp, record: Keyed<K, V>) -> Result<(), StateError>;
    /// The time of the earliest, if it is not after `until`.
    fn next_time(&self, store: &mut KeyedStore, until: Timestamp) -> Result<Option<Timestamp>, StateError>;
    /// Takes all records of one time, in order, and adds them to `due`.
    fn take(&self, store: &mut KeyedStore, time: Timestamp, due: &mut Due<K, V>);
}

/// The waiting records by time, in a table of the operator's own state.
struct ByTime<K: Key, V: StateValue> {
    table: TableId<WaitingTable<K, V>>,
}

impl<K: Key, V: StateValue> Waiting<K, V> for ByTime<K, V> {
    fn push(&self, store: &mut KeyedStore, stamp: &Stamp, record: Keyed<K, V>) -> Result<(), StateError> {
        let Keyed { hash, key, value } = record;
        let (time, mark, rank) = (stamp.time.millis(), stamp.watermark.millis(), stamp.origin.to_bits());
        store.table(self.table).push(Waiter { time, mark, rank, hash, key, value })
    }

    fn next_time(&self, store: &mut KeyedStore, until: Timestamp) -> Result<Option<Timestamp>, StateError> {
        let next = store.table(self.table).next_time(until.millis())?;
        Ok(next.map(Timestamp::from_millis))
    }

    fn take(&self, store: &mut KeyedStore, time: Timestamp, due: &mut Due<K, V>) {
        store.table(self.table).take(time.millis(), |Waiter { mark, rank, hash, key, value, .. }| {
            let (watermark, origin) = (Timestamp::from_millis(mark), Origin::from_bits(rank));
            due.push((Stamp { time, watermark, origin }, Keyed { hash, key, value }));
        });
    }
}

impl<K: Key, V: StateValue> KeyedStream<K, V> {
    /// Runs what follows in event-time order: for each key, records sorted by time, then by source partition and offset, with timers in
    /// their place between. Its results are then the same in every replay, whatever the speed and the number of workers.
    ///
    /// Records wait for the watermark, in state. Late ones, whose time is below the watermark of their own partition, are counted and
    /// dropped; [`KeyedStream::in_event_time_order_with_late_output`] gives them a stream of their own. Windows need no order and
    /// ignore this.
    ///
    /// ```
    /// use rivermark_operators::process::{Context, ProcessFunction};
    /// use rivermark_operators::{BoxError, Reducing, Timestamp, testing};
    ///
    /// const READ: Reducing<String> = Reducing::new("read");
    ///
    /// /// All letters of a key so far.
    /// #[derive(Clone)]
    /// struct Spell;
    ///
    /// impl ProcessFunction<u8, char> for Spell {
    ///     type Out = String;
    ///
    ///     fn on_record(&mut self, _: &u8, letter: char, cx: &mut Context<'_, u8, String>) -> Result<(), BoxError> {
    ///         cx.state(READ).add(letter.to_string(), |all, next| all.push_str(&next))?;
    ///         cx.state(READ).get()?.into_iter().for_each(|all| cx.emit(all));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (letters, stream) = it.input::<char>();
    ///     let words = it.output(stream.key_by(|_| 0_u8).in_event_time_order().process(Spell));
    ///     [(3, 't'), (1, 'c'), (2, 'a')].into_iter().for_each(|(time, letter)| it.push(&letters, at(time), letter));
    ///     it.end(&letters);
    ///     it.expect(&words, ["c", "ca", "cat"].map(str::to_string));
    /// });
    /// ```
    pub fn in_event_time_order(self) -> Self {
        self.in_event_time_order_with_first(None, |_| false)
    }

    /// As [`KeyedStream::in_event_time_order`], with the late records as a side output: `|late| late.sink(..)`.
    pub fn in_event_time_order_with_late_output(
        self,
        late: impl FnOnce(Stream<Late<K, V>>) + 'static,
    ) -> Self {
        self.in_event_time_order_with_first(Some(Box::new(late)), |_| false)
    }

    /// In event-time order, as the user asked for it, or with late records left out.
    pub(crate) fn surely_in_event_time_order(self) -> Self {
        if self.order.is_some() { self } else { self.in_event_time_order() }
    }

    /// As [`KeyedStream::in_event_time_order`], with the late records for `late`, where some records run before all others of their time.
    pub(crate) fn in_event_time_order_with_first(
        self,
        late: Option<UseLate<K, V>>,
        is_first: fn(&V) -> bool,
    ) -> Self {
        let open = move |store: &mut KeyedStore| -> Result<Box<dyn Waiting<K, V>>, StateError> {
            Ok(Box::new(ByTime::<K, V> { table: store.waiting_table("in event-time order", is_first)? }))
        };
        KeyedStream { order: Some(EventTimeOrder { open: Arc::new(open), late }), ..self }
    }
}
