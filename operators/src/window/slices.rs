//! Tumbling and sliding windows, kept by slice.
//!
//! 1. A record is added to the accumulator of its key in its slice. A record that comes behind the end of some of its windows is kept apart
//!    from the others of the slice, under the first window end that it is still on time for, so that a window that has not
//!    fired yet does not take it in.
//! 2. When the watermark passes a window's end, the accumulators of its slices are merged a key and finished. A slice that no
//!    later window needs is drained as a whole; there is no timer and no look-up a key. Where that gives more than some batches, it is
//!    done in parts, with the worker's other work in between.
//! 3. With allowed lateness, slices stay that much longer. What comes after a window's end, but within it, is kept a window and merged
//!    on top when the corrected row is made.

use super::assign::{LastSlice, Slices, Window};
use super::combine::Combined;
use super::late::LateRecords;
use super::{Aggregate, Windowed};
use crate::batch::{Batch, Stamp};
use crate::context::{BlameCell, OperatorMetrics, TaskContext, Watch};
use crate::edge::{Operator, Output, Signal};
use crate::error::{Error, Result};
use crate::exchange::{Ahead, Keyed};
use crate::plan::TaskBuilder;
use crate::reached::Reached;
use crate::time::Timestamp;
use crate::trace::Marks;
use hashbrown::HashTable;
use rivermark_state::{Key, KeyGroupRange, KeyedStore, StateError, TableId, WindowTable, hash_key};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// A slice's start, and the first window end that its records are on time for.
type Slice = (i64, i64);

pub(super) struct SliceWindows<K: Key, V, A: Aggregate<V>> {
    name: Arc<str>,
    blame: BlameCell,
    metrics: Arc<OperatorMetrics>,
    slices: Slices,
    last: LastSlice,
    lateness: i64,
    aggregate: A,
    store: KeyedStore,
    ahead: Ahead,
    on_time: TableId<WindowTable<Slice, K, A::Acc>>,
    /// By window end: what came after it and within the allowed lateness.
    allowed_late: TableId<WindowTable<i64, K, A::Acc>>,
    /// Ends of windows that hold something and have not fired.
    pending: BTreeSet<Timestamp>,
    /// The slice that `pending` knows of already.
    noted: Option<Slice>,
    reached: Reached,
    /// What the last watermark brings about, as long as it has not all fired.
    firing: Option<Firing>,
    marks: Marks,
    out: Output<Windowed<K, A::Out>>,
    late: LateRecords<K, V>,
}

/// How far the firing of windows has come.
struct Firing {
    /// Windows fire up to it.
    watermark: Timestamp,
    /// The last window that fired.
    last: Option<Timestamp>,
    /// The end of the window that is firing.
    end: Timestamp,
    /// Its rows have been emitted for key groups below this one.
    groups_done: u16,
    /// They all have.
    is_over: bool,
}

impl Firing {
    fn up_to(watermark: Timestamp) -> Firing {
        Firing { watermark, last: None, end: Timestamp::MIN, groups_done: 0, is_over: true }
    }

    /// The next window's turn has come, or that of the rest of the last one.
    fn begin(&mut self, end: Timestamp) {
        if self.is_over {
            (self.end, self.groups_done, self.is_over) = (end, 0, false);
        }
    }
}

impl<K: Key, V: Send + 'static, A: Aggregate<V>> SliceWindows<K, V, A> {
    pub(super) fn open(
        builder: &TaskBuilder<'_>,
        mut store: KeyedStore,
        slices: Slices,
        lateness: i64,
        aggregate: A,
        out: Output<Windowed<K, A::Out>>,
        late: LateRecords<K, V>,
    ) -> Result<Self> {
        let name = builder.name();
        let opening = |e: StateError| Error::state(&name, "opening the state of windows", e);
        let on_time = store.window_table("slices").map_err(opening)?;
        let allowed_late = store.window_table("late").map_err(opening)?;
        let mut windows = SliceWindows {
            blame: builder.blame(),
            metrics: builder.metrics(),
            slices,
            last: LastSlice::none(),
            lateness,
            aggregate,
            on_time,
            allowed_late,
            pending: BTreeSet::new(),
            noted: None,
            reached: Reached::restored(builder.restored_watermark()),
            firing: None,
            marks: Marks::of(builder),
            out,
            late,
            store,
            ahead: Ahead::default(),
            name,
        };
        let restored: Vec<Slice> = windows.store.table(windows.on_time).namespaces().collect();
        restored.into_iter().for_each(|slice| windows.note(slice));
        let restored: Vec<i64> = windows.store.table(windows.allowed_late).namespaces().collect();
        restored.into_iter().for_each(|end| windows.note_end(Timestamp::from_millis(end)));
        Ok(windows)
    }

    /// Makes the windows of a slice fire in their time.
    fn note(&mut self, slice: Slice) {
        if self.noted == Some(slice) {
            return;
        }
        self.noted = Some(slice);
        let last = self.slices.last_end(Timestamp::from_millis(slice.0));
        let mut end = Timestamp::from_millis(slice.1);
        loop {
            self.note_end(end);
            if end >= last {
                return;
            }
            end = self.slices.next_end(end);
        }
    }

    fn note_end(&mut self, end: Timestamp) {
        if end > self.reached.watermark {
            self.pending.insert(end);
        }
    }

    /// Takes what the other end of the exchange combined: records that are on time for all of their windows.
    fn on_combined(&mut self, batch: &mut Batch<Keyed<K, Combined<A::Acc>>>) -> Result<()> {
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        // The edge has counted each as one.
        let together = batch.values().iter().map(|combined| combined.value.records - 1).sum();
        self.metrics.add_in(together);
        batch.try_drain(|stamp, Keyed { hash, key, value }| {
            watch.at(stamp);
            let Combined { slice, first_end, acc, .. } = value;
            assert!(
                self.reached.watermark < first_end,
                "records were combined that are late here: {stamp:?}"
            );
            let slice = (slice.millis(), first_end.millis());
            self.note(slice);
            let aggregate = &self.aggregate;
            let total = self.store.table(self.on_time).upsert(slice, hash, key, || aggregate.create());
            let total = total.map_err(|e| Error::state(&self.name, "adding records to their window", e))?;
            aggregate.merge(total, &acc);
            Ok(())
        })?;
        drop(watch);
        self.store.maintain().map_err(|e| Error::state(&self.name, "keeping to the memory budget", e))
    }

    /// Names the operator in an error. For what runs once a batch or less: it takes a reference to the name, and workers who do that for each record
    /// fight for its counter.
    fn failed(&self, attempt: &'static str) -> impl Fn(StateError) -> Error + use<K, V, A> {
        let name = Arc::clone(&self.name);
        move |e| Error::state(&name, attempt, e)
    }

    /// Takes a record that is on time for all of its windows, as nearly all are.
    #[inline]
    fn add(&mut self, slice: Slice, record: &Keyed<K, V>) -> Result<()> {
        self.note(slice);
        let aggregate = &self.aggregate;
        let table = self.store.table(self.on_time);
        let acc = table.upsert(slice, record.hash, &record.key, || aggregate.create());
        let acc = acc.map_err(|e| Error::state(&self.name, "adding a record to its window", e))?;
        aggregate.add(acc, &record.value);
        Ok(())
    }

    /// Takes a record that comes after the end of its first window.
    #[cold]
    fn add_behind(&mut self, stamp: Stamp, watermark: Timestamp, record: Keyed<K, V>) -> Result<()> {
        let slice = self.slices.slice_of(stamp.time);
        let last = self.slices.last_end(slice);
        let mut missed = 0;
        let mut end = self.slices.first_end(slice);
        while end <= last && end <= watermark {
            if end.plus_millis(self.lateness) > watermark {
                self.add_allowed_late(end, stamp, &record)?;
            } else {
                missed += 1;
            }
            if end == Timestamp::MAX {
                break;
            }
            end = self.slices.next_end(end);
        }
        if end <= last && end > watermark {
            self.add((slice.millis(), end.millis()), &record)?;
        }
        if missed > 0 {
            self.late.take(stamp, record.key, record.value, missed);
        }
        Ok(())
    }

    fn add_allowed_late(&mut self, end: Timestamp, stamp: Stamp, record: &Keyed<K, V>) -> Result<()> {
        let name = &self.name;
        let failed = |e| Error::state(name, "adding a record within the allowed lateness", e);
        let aggregate = &self.aggregate;
        let table = self.store.table(self.allowed_late);
        let acc =
            table.upsert(end.millis(), record.hash, &record.key, || aggregate.create()).map_err(failed)?;
        aggregate.add(acc, &record.value);
        if end <= self.reached.watermark {
            let stamp = Stamp { time: end.minus_millis(1), ..stamp };
            self.correct(end, stamp, record.hash, &record.key)
        } else {
            self.note_end(end);
            Ok(())
        }
    }

    /// Emits the row of a window that has fired, with what came since.
    fn correct(&mut self, end: Timestamp, stamp: Stamp, hash: u64, key: &K) -> Result<()> {
        let window = self.slices.window(end);
        let mut total = self.aggregate.create();
        let slices = self.slices_of(window);
        let name = &self.name;
        let failed = |e| Error::state(name, "correcting the result of a window", e);
        for slice in slices {
            if let Some(acc) = self.store.table(self.on_time).get(slice, hash, key).map_err(&failed)? {
                self.aggregate.merge(&mut total, acc);
            }
        }
        if let Some(acc) =
            self.store.table(self.allowed_late).get(end.millis(), hash, key).map_err(&failed)?
        {
            self.aggregate.merge(&mut total, acc);
        }
        let value = self.aggregate.finish(&total);
        self.out.push(self.marks.on(stamp, || hash), Windowed { key: key.clone(), window, value });
        Ok(())
    }

    /// The slices whose records are on time for a window. Costs what lies within the window, however many others are kept.
    fn slices_of(&mut self, window: Window) -> Vec<Slice> {
        let (start, end) = (window.start.millis(), window.end.millis());
        // The last window of all time holds its last moment too.
        let last = if end == i64::MAX { end } else { end - 1 };
        let within = self.store.table(self.on_time).namespaces_in((start, i64::MIN)..=(last, i64::MAX));
        within.filter(|slice| slice.1 <= end).collect()
    }

    /// Fires a part of the window that ends at `end`, from where the last one stopped.
    fn fire(&mut self, firing: &mut Firing, watch: &mut Watch<'_>, cx: &mut TaskContext<'_>) -> Result<()> {
        let end = firing.end;
        let stamp = Stamp::derived(end.minus_millis(1));
        watch.at(&stamp);
        let slices = self.slices_of(self.slices.window(end));
        if let [slice] = slices[..]
            && self.is_last_of(slice, end)
        {
            firing.is_over = self.fire_and_drop(slice, end, stamp, cx)?;
            return Ok(());
        }
        let all = self.store.table(self.on_time).groups();
        let from = firing.groups_done.max(all.start);
        let to = all.end.min(from.saturating_add(self.groups_in_one_go(&slices)));
        self.fire_groups(&slices, KeyGroupRange::new(from, to), end, stamp, cx)?;
        firing.groups_done = to;
        firing.is_over = to == all.end;
        Ok(())
    }

    /// Whether nobody needs a slice after the window that ends at `end` has fired.
    fn is_last_of(&self, slice: Slice, end: Timestamp) -> bool {
        self.lateness == 0 && self.slices.last_end(Timestamp::from_millis(slice.0)) <= end
    }

    /// Emits rows of a window of one slice that nobody needs afterwards, and takes them out. Answers whether that were all.
    fn fire_and_drop(
        &mut self,
        slice: Slice,
        end: Timestamp,
        stamp: Stamp,
        cx: &mut TaskContext<'_>,
    ) -> Result<bool> {
        let failed = self.failed("reading the state of a window that fires");
        let window = self.slices.window(end);
        let (aggregate, out, marks) = (&self.aggregate, &mut self.out, &self.marks);
        let most = out.in_one_go();
        let mut sent = Ok(());
        let over = self.store.table(self.on_time).drain_some(slice, most, |key, acc| {
            let stamp = marks.on(stamp, || hash_key(&key));
            out.push(stamp, Windowed { key, window, value: aggregate.finish(&acc) });
            if out.is_full() && sent.is_ok() {
                sent = out.send(cx);
            }
        });
        sent.and(over.map_err(failed))
    }

    /// Of how many key groups the rows of a window can be made together, so that what must be kept in memory for it is a few batches, or
    /// a sixteenth of what is in memory already. Each time costs a look at all that is in memory.
    fn groups_in_one_go(&mut self, slices: &[Slice]) -> u16 {
        let most = self.out.in_one_go();
        let table = self.store.table(self.on_time);
        let (mut pairs, mut spilled) = (0, false);
        for slice in slices {
            let (held, cold) = table.held_in(*slice);
            pairs += held;
            spilled |= cold;
        }
        let parts = if spilled { u16::MAX } else { pairs.div_ceil(most).clamp(1, 16) as u16 };
        let groups = table.groups();
        (groups.end - groups.start).div_ceil(parts).max(1)
    }

    /// Emits the rows of a window whose keys are of some groups.
    fn fire_groups(
        &mut self,
        slices: &[Slice],
        groups: KeyGroupRange,
        end: Timestamp,
        stamp: Stamp,
        cx: &mut TaskContext<'_>,
    ) -> Result<()> {
        let failed = self.failed("reading the state of a window that fires");
        let window = self.slices.window(end);
        let (aggregate, out, marks) = (&self.aggregate, &mut self.out, &self.marks);
        let table = self.store.table(self.on_time);
        if let [slice] = slices[..] {
            let mut sent = Ok(());
            let emit = |key: &K, acc: &A::Acc| {
                let stamp = marks.on(stamp, || hash_key(key));
                out.push(stamp, Windowed { key: key.clone(), window, value: aggregate.finish(acc) });
                if out.is_full() && sent.is_ok() {
                    sent = out.send(cx);
                }
            };
            table.for_each_in(slice, groups, emit).map_err(&failed)?;
            sent?;
        } else if !slices.is_empty() {
            let mut totals: HashTable<(u64, K, A::Acc)> = HashTable::new();
            for slice in slices {
                let merge = |key: &K, acc: &A::Acc| {
                    let hash = hash_key(key);
                    match totals.find_mut(hash, |total| total.1 == *key) {
                        Some(total) => aggregate.merge(&mut total.2, acc),
                        None => {
                            totals.insert_unique(hash, (hash, key.clone(), acc.clone()), |total| total.0);
                        }
                    }
                };
                table.for_each_in(*slice, groups, merge).map_err(&failed)?;
            }
            for (hash, key, acc) in totals {
                let stamp = marks.on(stamp, || hash);
                out.push(stamp, Windowed { key, window, value: aggregate.finish(&acc) });
                if out.is_full() {
                    out.send(cx)?;
                }
            }
        }
        // What was late for this window by its own partition's watermark, yet came before it fired.
        let mut corrected = Vec::new();
        self.store
            .table(self.allowed_late)
            .for_each_in(end.millis(), groups, |key, _| corrected.push((hash_key(key), key.clone())))
            .map_err(&failed)?;
        for (hash, key) in corrected {
            self.correct(end, stamp, hash, &key)?;
        }
        Ok(())
    }

    /// Fires what the watermark of `firing` has passed, up to a few batches. Answers whether all of it has fired.
    fn advance(&mut self, firing: &mut Firing, cx: &mut TaskContext<'_>) -> Result<bool> {
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        let before = self.out.sent();
        let most = self.out.in_one_go() as u64;
        while let Some(&end) = self.pending.first()
            && end <= firing.watermark
        {
            if self.out.sent() - before >= most {
                return Ok(false);
            }
            firing.begin(end);
            self.fire(firing, &mut watch, cx)?;
            if firing.is_over {
                self.pending.pop_first();
                firing.last = Some(end).filter(|end| *end < Timestamp::MAX).or(firing.last);
            }
        }
        self.reached.advance(firing.watermark, firing.last);
        self.noted = None;
        self.forget()?;
        Ok(true)
    }

    /// Drops the slices and corrections that nobody can need any more.
    fn forget(&mut self) -> Result<()> {
        let failed = self.failed("dropping a window that is over");
        let Reached { watermark, time } = self.reached;
        // Behind the end of time there is nothing that windows could be kept for.
        let over = |end: Timestamp| match end {
            Timestamp::MAX => watermark == end,
            end => end.plus_millis(self.lateness) <= time,
        };
        let slices = self.slices;
        let table = self.store.table(self.on_time);
        // Later slices are over later, so the first that is not is where to stop.
        let done: Vec<Slice> = table
            .namespaces()
            .take_while(|slice| over(slices.last_end(Timestamp::from_millis(slice.0))))
            .collect();
        for slice in done {
            table.drop_namespace(slice).map_err(&failed)?;
        }
        let table = self.store.table(self.allowed_late);
        let done: Vec<i64> =
            table.namespaces().take_while(|end| over(Timestamp::from_millis(*end))).collect();
        for end in done {
            table.drop_namespace(end).map_err(&failed)?;
        }
        Ok(())
    }
}

impl<K: Key, V: Send + 'static, A: Aggregate<V>> Operator<Keyed<K, V>> for SliceWindows<K, V, A> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.ahead.begin(batch, &self.store);
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        batch.try_drain(|stamp, record| {
            watch.at(stamp);
            self.ahead.step(&self.store);
            // The end of an earlier run may have fired windows that are open by the record's own watermark: then it is late for them.
            let watermark = stamp.watermark.max(self.reached.watermark);
            let (slice, first_end) = self.last.of(&self.slices, stamp.time);
            if watermark < first_end {
                self.add((slice.millis(), first_end.millis()), &record)
            } else {
                self.add_behind(*stamp, watermark, record)
            }
        })?;
        drop(watch);
        self.store.maintain().map_err(|e| Error::state(&self.name, "keeping to the memory budget", e))?;
        self.late.send(cx)?;
        self.out.send(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            // After a restart the first watermarks may be older than the restored one.
            Signal::Watermark(watermark) if watermark <= self.reached.watermark => return Ok(()),
            // It goes on its way when all that it brings about has fired.
            Signal::Watermark(watermark) => {
                self.firing = Some(Firing::up_to(watermark));
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
        // Where no records come, other stores may still exceed the budget.
        self.store.maintain().map_err(|e| Error::state(&self.name, "keeping to the memory budget", e))?;
        self.late.flush(cx)?;
        self.out.flush(cx)
    }
}

/// Windows behind an exchange that carries records and what they were combined to: the input of the records, with all signals.
pub(super) struct OfRecords<K: Key, V, A: Aggregate<V>>(Rc<RefCell<SliceWindows<K, V, A>>>);

/// The input of what was combined.
pub(super) struct OfCombined<K: Key, V, A: Aggregate<V>>(Rc<RefCell<SliceWindows<K, V, A>>>);

impl<K: Key, V: Send + 'static, A: Aggregate<V>> SliceWindows<K, V, A> {
    /// Two inputs of one operator.
    pub(super) fn into_inputs(self) -> (OfRecords<K, V, A>, OfCombined<K, V, A>) {
        let windows = Rc::new(RefCell::new(self));
        (OfRecords(Rc::clone(&windows)), OfCombined(windows))
    }
}

impl<K: Key, V: Send + 'static, A: Aggregate<V>> Operator<Keyed<K, V>> for OfRecords<K, V, A> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.0.borrow_mut().on_batch(batch, cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.0.borrow_mut().on_signal(signal, cx)
    }

    fn go_on(&mut self, cx: &mut TaskContext<'_>) -> Result<bool> {
        self.0.borrow_mut().go_on(cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.0.borrow_mut().flush(cx)
    }
}

impl<K: Key, V: Send + 'static, A: Aggregate<V>> Operator<Keyed<K, Combined<A::Acc>>>
    for OfCombined<K, V, A>
{
    fn on_batch(
        &mut self,
        batch: &mut Batch<Keyed<K, Combined<A::Acc>>>,
        _: &mut TaskContext<'_>,
    ) -> Result<()> {
        self.0.borrow_mut().on_combined(batch)
    }

    /// Signals come with the records.
    fn on_signal(&mut self, _: Signal, _: &mut TaskContext<'_>) -> Result<()> {
        Ok(())
    }

    fn flush(&mut self, _: &mut TaskContext<'_>) -> Result<()> {
        Ok(())
    }
}
