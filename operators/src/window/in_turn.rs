//! Records of a key in turn: an order that is a property of the log, and loses none of them.
//!
//! 1. A record's *turn* is its time or, if it comes behind that, the watermark of its own source partition just before it: the moment of event time
//!    at which it is known. So it comes before its turn has passed, by the watermark over all partitions.
//! 2. A record waits in keyed state under its turn. When the watermark moves to w, the records of turns below w run, in order of turn, then
//!    of time, source partition and offset.
//! 3. Timers run in between, each before the records of its own turn: at t, the records that run are exactly those which are known before t.
//!
//! A process function in event-time order ([`crate::process`]) leaves out what comes behind its partition's watermark; windows must not, for it may be on
//! time for them. That is all the difference: a record is on time for a window if its turn is before the window's end.

use super::late::LateRecords;
use crate::batch::{Batch, Origin, Stamp};
use crate::context::{BlameCell, OperatorMetrics, TaskContext, Watch};
use crate::edge::{Operator, Output, Signal};
use crate::error::{BoxError, Error, Result};
use crate::exchange::Keyed;
use crate::plan::TaskBuilder;
use crate::reached::Reached;
use crate::time::Timestamp;
use rivermark_state::{Key, KeyedStore, StateError, StateValue, TableId, Timers, WindowTable, hash_key};
use std::sync::Arc;

/// What is done with each key's records, in turn.
pub(super) trait ByKey<K: Key, V>: 'static {
    /// What comes of it.
    type Out: Send + 'static;

    /// Which of the windows of a record at `time` want it that comes behind `watermark`.
    fn judge(&self, time: Timestamp, watermark: Timestamp) -> Judged;

    /// Takes a record, whose stamp has the watermark that it was judged by.
    fn on_record(
        &mut self,
        stamp: &Stamp,
        value: V,
        at: At<'_, K>,
        effects: &mut Effects<'_, Self::Out>,
    ) -> Result<(), BoxError>;

    /// The time `time` has come. What is over by then is let go, but for what is not over at `forget`.
    fn on_time(
        &mut self,
        time: Timestamp,
        forget: Timestamp,
        at: At<'_, K>,
        effects: &mut Effects<'_, Self::Out>,
    ) -> Result<Passed, BoxError>;

    /// The processing time for which it asked has come.
    fn on_clock(&mut self, at: At<'_, K>, effects: &mut Effects<'_, Self::Out>) -> Result<(), BoxError>;

    /// The stream has ended, and time has come to `time` for whoever goes on: lets go of what is over by then.
    fn after_end(
        &mut self,
        time: Timestamp,
        at: At<'_, K>,
        effects: &mut Effects<'_, Self::Out>,
    ) -> Result<(), BoxError>;
}

/// Whether a record is wanted.
pub(super) struct Judged {
    /// By one window at least.
    pub(super) is_wanted: bool,
    /// How many windows it is too late for.
    pub(super) missed: u64,
}

/// What the passing of a time has done to a key.
#[derive(Default)]
pub(super) struct Passed {
    /// The last window end that it was.
    pub(super) last: Option<Timestamp>,
    /// Whether something that is over had to be kept.
    pub(super) is_kept: bool,
}

/// The state of the key in hand.
pub(super) struct At<'a, K> {
    pub(super) store: &'a mut KeyedStore,
    pub(super) hash: u64,
    pub(super) key: &'a K,
}

/// What a function brings about, and the times it is called at.
pub(super) struct Effects<'a, O> {
    /// The turn in hand, which rows have as their time; just before it, where it is a timer's.
    pub(super) time: Timestamp,
    /// Processing time.
    pub(super) now: Timestamp,
    out: &'a mut Output<O>,
    wakes: &'a mut Wakes,
}

/// Timers that are asked for.
#[derive(Default)]
struct Wakes {
    times: Vec<Timestamp>,
    clock: Vec<Timestamp>,
}

impl<O> Effects<'_, O> {
    /// Gives a row.
    pub(super) fn emit(&mut self, row: O) {
        self.out.push(Stamp::derived(self.time), row);
    }

    /// Asks for [`ByKey::on_time`].
    pub(super) fn wake_at(&mut self, time: Timestamp) {
        self.wakes.times.push(time);
    }

    /// Asks for [`ByKey::on_clock`].
    pub(super) fn wake_by_clock(&mut self, at: Timestamp) {
        self.wakes.clock.push(at);
    }
}

/// What waits of a key for one turn: times, watermarks, origins and records.
type Waiters<V> = Vec<(i64, i64, u64, V)>;

/// How far the last watermark has been followed.
struct Firing<K> {
    watermark: Timestamp,
    /// The last window end that has come.
    last: Option<Timestamp>,
    /// Keys with something that is kept beyond the end of the stream.
    kept: Vec<(u64, K)>,
}

/// The operator.
pub(super) struct InTurn<K: Key, V: StateValue, F: ByKey<K, V>> {
    name: Arc<str>,
    blame: BlameCell,
    metrics: Arc<OperatorMetrics>,
    function: F,
    keeps_late: bool,
    store: KeyedStore,
    waiting: TableId<WindowTable<i64, K, Waiters<V>>>,
    timers: TableId<Timers<K>>,
    clock: TableId<Timers<K>>,
    wakes: Wakes,
    reached: Reached,
    firing: Option<Firing<K>>,
    out: Output<F::Out>,
    late: LateRecords<K, V>,
}

impl<K: Key, V: StateValue, F: ByKey<K, V>> InTurn<K, V, F> {
    /// Opens it for the node being built. `keeps_late` says that something is kept for late records.
    pub(super) fn open(
        builder: &TaskBuilder<'_>,
        mut store: KeyedStore,
        keeps_late: bool,
        function: impl FnOnce(&mut KeyedStore) -> Result<F, StateError>,
        out: Output<F::Out>,
        late: LateRecords<K, V>,
    ) -> Result<Self> {
        let name = builder.name();
        let opening = |e: StateError| Error::state(&name, "opening the state of windows", e);
        Ok(InTurn {
            blame: builder.blame(),
            metrics: builder.metrics(),
            function: function(&mut store).map_err(opening)?,
            keeps_late,
            waiting: store.window_table("in turn").map_err(opening)?,
            timers: store.timers("timers").map_err(opening)?,
            clock: store.timers("clock").map_err(opening)?,
            wakes: Wakes::default(),
            reached: Reached::restored(builder.restored_watermark()),
            firing: None,
            out,
            late,
            store,
            name,
        })
    }

    /// Calls the function on a key, and sets the timers that it asks for. Rows have the time `time`.
    fn call<R>(
        &mut self,
        (hash, key): (u64, &K),
        time: Timestamp,
        watch: &Watch<'_>,
        cx: &mut TaskContext<'_>,
        call: impl FnOnce(&mut F, At<'_, K>, &mut Effects<'_, F::Out>) -> Result<R, BoxError>,
    ) -> Result<R> {
        let mut effects = Effects { time, now: cx.now, out: &mut self.out, wakes: &mut self.wakes };
        let at = At { store: &mut self.store, hash, key };
        let result = call(&mut self.function, at, &mut effects).map_err(|e| watch.fail(e))?;
        let failed = |e| Error::state(&self.name, "setting the timer of a window", e);
        for time in self.wakes.times.drain(..) {
            self.store.table(self.timers).register(time.millis(), hash, key).map_err(failed)?;
        }
        for time in self.wakes.clock.drain(..) {
            self.store.table(self.clock).register(time.millis(), hash, key).map_err(failed)?;
        }
        if self.out.is_full() {
            self.out.send(cx)?;
        }
        Ok(result)
    }

    fn take_in(&mut self, stamp: Stamp, record: Keyed<K, V>) -> Result<()> {
        // The end of an earlier run may have been the end of windows that are open by the record's own watermark.
        let watermark = stamp.watermark.max(self.reached.watermark);
        let Keyed { hash, key, value } = record;
        let judged = self.function.judge(stamp.time, watermark);
        if judged.is_wanted {
            // The last moment has its turn before time ends.
            let turn = stamp.time.max(watermark).min(Timestamp::MAX.minus_millis(1));
            let name = &self.name;
            let failed = |e| Error::state(name, "letting a record wait for its turn", e);
            let waiters = self.store.table(self.waiting).upsert(turn.millis(), hash, &key, Vec::new);
            let record = (stamp.time.millis(), watermark.millis(), stamp.origin.to_bits(), value.clone());
            waiters.map_err(failed)?.push(record);
        }
        if judged.missed > 0 {
            self.late.take(stamp, key, value, judged.missed);
        }
        Ok(())
    }

    /// Runs what is due at the watermark of `firing`, up to a few batches. Answers whether all of it has run.
    fn advance(&mut self, firing: &mut Firing<K>, cx: &mut TaskContext<'_>) -> Result<bool> {
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        let mut left = self.out.in_one_go();
        while left > 0 {
            let ran = self.run_next(firing, &mut watch, cx)?;
            if ran == 0 {
                self.reached.advance(firing.watermark, firing.last);
                let time = self.reached.time;
                for (hash, key) in std::mem::take(&mut firing.kept) {
                    self.call((hash, &key), time, &watch, cx, |function, at, effects| {
                        function.after_end(time, at, effects)
                    })?;
                }
                return Ok(true);
            }
            left = left.saturating_sub(ran);
        }
        Ok(false)
    }

    /// Runs the timer or the records that are next. Answers how many there were.
    fn run_next(
        &mut self,
        firing: &mut Firing<K>,
        watch: &mut Watch<'_>,
        cx: &mut TaskContext<'_>,
    ) -> Result<usize> {
        let watermark = firing.watermark;
        let ends = watermark == Timestamp::MAX;
        let next = self.store.table(self.waiting).namespaces().next().map(Timestamp::from_millis);
        // At the end of time nothing more can come: its own records run too.
        let next = next.filter(|turn| *turn < watermark || ends);
        let due = self.store.table(self.timers).pop(next.unwrap_or(watermark).millis());
        if let Some((time, hash, key)) =
            due.map_err(|e| Error::state(&self.name, "taking the timers that are due", e))?
        {
            let time = Timestamp::from_millis(time);
            // How far time has come is known at the end only when all have fired.
            let forget = if ends && self.keeps_late { self.reached.time } else { watermark };
            let before = time.minus_millis(1);
            watch.at(&Stamp::derived(before));
            let passed = self.call((hash, &key), before, watch, cx, |function, at, effects| {
                function.on_time(time, forget, at, effects)
            })?;
            firing.last = passed.last.max(firing.last);
            if passed.is_kept {
                firing.kept.push((hash, key));
            }
            return Ok(1);
        }
        match next {
            Some(turn) => self.run_records(turn, watch, cx),
            None => Ok(0),
        }
    }

    fn run_records(
        &mut self,
        turn: Timestamp,
        watch: &mut Watch<'_>,
        cx: &mut TaskContext<'_>,
    ) -> Result<usize> {
        let mut due: Vec<(Stamp, Keyed<K, V>)> = Vec::new();
        let drained = self.store.table(self.waiting).drain(turn.millis(), |key, waiters| {
            let hash = hash_key(&key);
            due.extend(waiters.into_iter().map(|(time, watermark, origin, value)| {
                let (time, watermark) = (Timestamp::from_millis(time), Timestamp::from_millis(watermark));
                let stamp = Stamp { time, watermark, origin: Origin::from_bits(origin) };
                (stamp, Keyed { hash, key: key.clone(), value })
            }));
        });
        drained.map_err(|e| Error::state(&self.name, "taking the records whose turn it is", e))?;
        // Stable: derived records, which have no origin, keep the order in which their key got them.
        due.sort_by_key(|(stamp, _)| (stamp.time, stamp.origin));
        let count = due.len();
        for (stamp, Keyed { hash, key, value }) in due {
            watch.at(&stamp);
            self.call((hash, &key), turn, watch, cx, |function, at, effects| {
                function.on_record(&stamp, value, at, effects)
            })?;
        }
        Ok(count)
    }

    /// Runs what the clock makes due, up to a few batches: between watermarks, so that rows never step back behind others of their key.
    fn run_by_clock(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        let watermark = self.reached.watermark;
        if self.firing.is_some() || watermark == Timestamp::MAX {
            return Ok(());
        }
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        for _ in 0..self.out.in_one_go() {
            let due = self.store.table(self.clock).pop(cx.now.millis());
            let due =
                due.map_err(|e| Error::state(&self.name, "taking the timers that the clock makes due", e))?;
            let Some((_, hash, key)) = due else { break };
            watch.at(&Stamp::derived(watermark));
            self.call((hash, &key), watermark, &watch, cx, |function, at, effects| {
                function.on_clock(at, effects)
            })?;
        }
        Ok(())
    }
}

impl<K: Key, V: StateValue, F: ByKey<K, V>> Operator<Keyed<K, V>> for InTurn<K, V, F> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        batch.try_drain(|stamp, record| self.take_in(*stamp, record))?;
        self.store.maintain().map_err(|e| Error::state(&self.name, "keeping to the memory budget", e))?;
        self.late.send(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            // After a restart the first watermarks may be older than the restored one.
            Signal::Watermark(watermark) if watermark <= self.reached.watermark => return Ok(()),
            // It goes on its way when all that is due has run.
            Signal::Watermark(watermark) => {
                self.firing = Some(Firing { watermark, last: None, kept: Vec::new() });
                return Ok(());
            }
            Signal::Barrier(epoch) => {
                cx.parts.add_state(&self.name, &mut self.store, epoch, self.reached.watermark)?;
                self.reached.save(&self.name, cx.parts);
                self.late.save(cx.parts);
            }
            Signal::Idle | Signal::Active | Signal::Partition(_) | Signal::End => {}
        }
        self.late.signal(signal, cx)?;
        self.out.signal(signal, cx)
    }

    fn go_on(&mut self, cx: &mut TaskContext<'_>) -> Result<bool> {
        let Some(mut firing) = self.firing.take() else { return Ok(true) };
        if !self.advance(&mut firing, cx)? {
            self.firing = Some(firing);
            return Ok(false);
        }
        let signal = Signal::Watermark(firing.watermark);
        self.metrics.set_watermark(firing.watermark);
        self.late.signal(signal, cx)?;
        self.out.signal(signal, cx)?;
        Ok(true)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.run_by_clock(cx)?;
        // Where no records come, timers and other stores may still exceed the budget.
        self.store.maintain().map_err(|e| Error::state(&self.name, "keeping to the memory budget", e))?;
        self.late.flush(cx)?;
        self.out.flush(cx)
    }
}
