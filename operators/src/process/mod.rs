//! `process`: a function of the user's with state and event-time timers for each key.
//!
//! 1. A record is given to [`ProcessFunction::on_record`] with its key; the function reads and writes state under typed constants, sets
//!    timers and emits records, all through its [`Context`].
//! 2. When the watermark passes a timer's time, [`ProcessFunction::on_timer`] is called for its key: timers in order of time, then of
//!    key. Setting one twice fires it once. One that is set at or below the watermark fires when the watermark next moves; one that
//!    `on_timer` sets there fires in the same move, so a timer that sets itself again needs an end: at the end of a bounded stream the
//!    watermark moves to the end of time.
//! 3. At a barrier the state and timers that changed go into the checkpoint.
//! 4. State can have a time to live ([`Value::expiring`](crate::Value::expiring) and its like): what is older is not there.
//!
//! Records of one source partition come in order; between partitions the order depends on the moment, so a function whose result depends
//! on it is as deterministic as its input is partitioned by its key. [`KeyedStream::in_event_time_order`](crate::KeyedStream::in_event_time_order) makes the order a property of
//! the log.

mod expiring;
mod order;
mod running;
mod settling;
mod side;
mod state;
mod states;

pub use expiring::{ExpiringListState, ExpiringMapState, ExpiringReducingState, ExpiringValueState};
pub(crate) use order::{EventTimeOrder, UseLate};
pub use side::Side;
pub(crate) use side::{SidePort, Sides};
pub use state::{ListState, MapState, ReducingState, StateHandle, ValueState};
pub use states::States;

use crate::batch::{Origin, Stamp};
use crate::edge::Output;
use crate::error::BoxError;
use crate::time::Timestamp;
use crate::trace::Marks;
use crate::window::LateCount;
use rivermark_state::{Key, KeyedStore, TableId, Timers};
use settling::Settling;

/// A function over the records and timers of each key. Every worker has its own clone; what must survive belongs in state.
pub trait ProcessFunction<K: Key, V>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Send + 'static;

    /// Says which states the function has, and how older versions of them become the present ones.
    ///
    /// It is asked once on every worker, before any record is processed, and what does not fit the checkpoint is an error then: a state of
    /// another type, a version to which no migration leads, a state that the checkpoint has and the function has not (unless the flow drops
    /// it, [`Flow::drop_state`](crate::Flow::drop_state)). A function that names one state names all it uses.
    ///
    /// Default: it does not say ([`States::on_first_use`]).
    fn states(&self, states: &mut States<'_, K>) {
        states.on_first_use();
    }

    /// Takes a record. An error stops the job and names the record; or, where the stream of results has [dead letters](crate::dead_letters), what the
    /// call did to state, timers and outputs is taken back, and the record becomes one.
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
    settling: &'a mut Settling<K>,
    has_event_time: bool,
    key_groups: u16,
    out: &'a mut Output<Out>,
    sides: &'a mut Sides,
    late: &'a LateCount,
    marks: &'a Marks,
}

impl<K: Key, Out> Context<'_, K, Out> {
    /// The event time of the record, or of the timer.
    pub fn time(&self) -> Timestamp {
        self.stamp.time
    }

    /// The watermark of the operator. It depends on the moment: what is computed from it is not the same in a replay. In event-time order
    /// it is the time of the record or timer in hand, and the same in every replay.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Emits a record with the event time of the record or timer in hand.
    pub fn emit(&mut self, record: Out) {
        self.out.push(self.marks.on(self.stamp, || self.hash), record);
    }

    /// Emits a record with an event time of its own, which is never late: for results of several records.
    pub(crate) fn emit_at(&mut self, time: Timestamp, record: Out) {
        self.out.push(self.marks.on(Stamp::derived(time), || self.hash), record);
    }

    /// Asks for [`ProcessFunction::on_timer`] when all records of the time in hand have run, which is for functions in event-time order. It is
    /// as if a timer of the next moment had been set, but for its price: all of a time's records run in one go, so nobody but this worker
    /// needs to know. There, [`Self::settled_time`] is the time in hand now.
    pub(crate) fn settle_later(&mut self) {
        self.settling.add(self.hash, self.key);
    }

    /// The time whose records have all run, after [`Self::settle_later`].
    pub(crate) fn settled_time(&self) -> Timestamp {
        self.stamp.time.minus_millis(1)
    }

    /// Emits what has come of the records of [`Self::settled_time`].
    pub(crate) fn emit_settled(&mut self, record: Out) {
        self.emit_at(self.settled_time(), record);
    }

    /// Whether the record in hand is below the watermark of its own source partition: late, as a property of the log.
    pub fn is_late(&self) -> bool {
        self.stamp.time < self.stamp.watermark
    }

    /// The hash of the key in hand.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The flow's number of key groups.
    pub(crate) fn key_groups(&self) -> u16 {
        self.key_groups
    }

    /// The state of another key than the one in hand, which must be in the same key group.
    pub(crate) fn state_of<'s, H: StateHandle<K>>(
        &'s mut self,
        handle: H,
        hash: u64,
        key: &'s K,
    ) -> H::State<'s> {
        handle.of(self.store, hash, key)
    }

    /// The watermark of the record's own source partition just before it.
    pub(crate) fn partition_watermark(&self) -> Timestamp {
        self.stamp.watermark
    }

    /// Where the record came from.
    pub(crate) fn origin(&self) -> Origin {
        self.stamp.origin
    }

    /// Counts the record in hand as late.
    pub(crate) fn count_late(&mut self) {
        self.late.add_one();
    }

    /// Emits a record to a side output, with the event time of the record or timer in hand. Where nobody reads that side output,
    /// the record is dropped.
    ///
    /// # Panics
    /// If the side output is read as another type than this one.
    pub fn emit_to<S: 'static>(&mut self, side: Side<S>, record: S) {
        self.sides.push(side, self.marks.on(self.stamp, || self.hash), record);
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
