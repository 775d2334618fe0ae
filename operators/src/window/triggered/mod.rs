//! Windows with triggers: early panes before a window's end, late ones after it.
//!
//! `keyed.window(..).trigger(Trigger::on_watermark().early_every(secs(10)))` tells what windows hold also before they end. Windows that do not ask for it
//! are kept by slice and pre-combined; these keep each window of a key by itself.
//!
//! 1. Each record waits for its *turn*: its time, or the watermark of its own partition where it comes behind that. A key's records
//!    run in turn, and the times at which something ends or is due in between. So what a window holds is what it holds without a trigger, and
//!    what each early and late pane holds is as much a function of the log: at any speed, with any number of workers, through any crash.
//! 2. The open windows of a key are one value in state, of which each has an accumulator, what panes have told of it, and what is due
//!    next. A key has timers for ends and what is due, in event time and by the clock.
//! 3. A pane becomes a row, by what panes have to do with each other ([`Panes`]).
//!
//! A pane's row has as its time the moment at which it came to be: the turn of the record that was enough, or the last moment before the time that was
//! due (the window's last moment, for the pane on time). So rows come in order of time, no row is late for what follows, and tables see
//! retractions in their order.
//!
//! The price is waiting for the watermark, state for what waits, a look at all open windows of a key where one of them has a time, and no combining
//! before the exchange. Where a window ends with the stream and more is appended later, what [`super`] says of bounded streams holds; a global window is
//! then told again, on time, at the next end.

mod aggregates;
mod mode;
mod open;
mod running;

pub use mode::{Accumulating, Counted, Discarding, Panes, Retracting};

use super::count::{ByCount, CountWindows};
use super::in_turn::InTurn;
use super::trigger::{Pane, Paned, Timing, Trigger};
use super::{Aggregate, Late, LateRecords, UseLate, Window, Windowed, WindowedStream, Windows, open_store};
use crate::error::BoxError;
use crate::exchange::Keyed;
use crate::plan::{NodeKind, NodeSpec};
use crate::stream::{KeyedStream, Stream};
use crate::table::{Change, Table};
use crate::time::span_millis;
use open::Rules;
use rivermark_state::{Key, KeyedStore, StateValue, Value, hash_key};
use running::{RowOf, Triggered};
use std::marker::PhantomData;

/// A keyed stream in windows with a trigger, or by count, waiting to be told what to compute.
pub struct TriggeredWindows<K, V, M> {
    keyed: KeyedStream<K, V>,
    how: How,
    late: Option<UseLate<K, V>>,
    panes: PhantomData<fn(M)>,
}

/// How records are divided into windows, and when those tell what they hold.
#[derive(Clone)]
enum How {
    ByTime { windows: Windows, lateness: i64, trigger: Trigger },
    ByCount(ByCount),
}

impl<K: Key, V: StateValue> WindowedStream<K, V> {
    /// Says when windows tell what they hold: besides the pane on time, early and late ones. They accumulate unless
    /// [`TriggeredWindows::discarding`] or [`TriggeredWindows::retracting`] says otherwise.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Timing, Trigger, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (sips, stream) = it.input::<u32>();
    ///     let windows = stream.key_by(|_| "tea".to_string()).window(Windows::tumbling(millis(100)));
    ///     let sums = windows.trigger(Trigger::on_watermark().early_every(millis(20))).sum(|sip| *sip);
    ///     let rows = it.output(sums.map(|row| (row.pane.timing, row.value)));
    ///     [(1, 5), (19, 2), (20, 1), (70, 4)].into_iter().for_each(|(time, sip)| it.push(&sips, at(time), sip));
    ///     it.watermark(&sips, at(50));
    ///     it.expect(&rows, [(Timing::Early, 7), (Timing::Early, 8)]);
    ///     it.watermark(&sips, at(100));
    ///     it.expect(&rows, [(Timing::Early, 12), (Timing::OnTime, 12)]);
    /// });
    /// ```
    pub fn trigger(self, trigger: Trigger) -> TriggeredWindows<K, V, Accumulating> {
        self.triggered(trigger)
    }

    /// Calls a function on all records of each window, in order of their turns (that of event time, but for records that come behind the
    /// watermark of their partition). It is given the row that the window would tell: the key, the window's bounds and the records;
    /// what it answers with are the rows, any number of them. An error stops the job and names the window. It is called again for each
    /// record within the allowed lateness.
    ///
    /// Where the records can be aggregated, that is less state and work: the rows of [`WindowedStream::aggregate`] have key and window too, for the
    /// `map` or `flat_map` that follows. Here each key's open windows, with their records, are one value in state.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     // The median of each window, told from its start.
    ///     let (waits, stream) = it.input::<i64>();
    ///     let medians = stream.key_by(|_| 'a').window(Windows::tumbling(millis(10))).process(|row| {
    ///         let mut waits = row.value;
    ///         waits.sort();
    ///         let median = waits.get(waits.len() / 2).copied();
    ///         Ok(median.map(|median| (row.window.start, row.key, median)))
    ///     });
    ///     let rows = it.output(medians);
    ///     [(1, 7), (2, 1), (5, 4), (12, 9)].into_iter().for_each(|(time, wait)| it.push(&waits, at(time), wait));
    ///     it.end(&waits);
    ///     it.expect(&rows, [(at(0), 'a', 4), (at(10), 'a', 9)]);
    /// });
    /// ```
    pub fn process<R: Send + 'static, I: IntoIterator<Item = R>>(
        self,
        function: impl Fn(Windowed<K, Vec<V>>) -> Result<I, BoxError> + Clone + Send + Sync + 'static,
    ) -> Stream<R> {
        let whole: TriggeredWindows<K, V, Counted> = self.triggered(Trigger::on_watermark());
        whole.process(function)
    }

    fn triggered<M>(self, trigger: Trigger) -> TriggeredWindows<K, V, M> {
        let how =
            How::ByTime { windows: self.windows, lateness: span_millis(self.allowed_lateness), trigger };
        TriggeredWindows { keyed: self.keyed, how, late: self.late, panes: PhantomData }
    }
}

impl<K: Key, V: StateValue> KeyedStream<K, V> {
    /// Groups each key's records by count, `size` at a time, in order of their turns: that of event time, with records that come behind the watermark
    /// of their own partition at that watermark. So none is late, and a replay counts the same. See [`KeyedStream::sliding_count_windows`].
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (goals, stream) = it.input::<u32>();
    ///     let sums = stream.key_by(|_| 'a').count_windows(3).sum(|goals| *goals);
    ///     let rows = it.output(sums.map(|row| (row.window.start, row.window.end, row.value)));
    ///     [(1, 2), (3, 1), (2, 4), (9, 5)].into_iter().for_each(|(time, n)| it.push(&goals, at(time), n));
    ///     it.end(&goals);
    ///     // The fourth waits for two more.
    ///     it.expect(&rows, [(at(1), at(4), 7)]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If the size is zero.
    pub fn count_windows(self, size: u64) -> TriggeredWindows<K, V, Counted> {
        self.sliding_count_windows(size, size)
    }

    /// For every `slide` records of a key, its last `size`; the first windows have fewer (Flink's `countWindow(size, slide)`).
    ///
    /// A row's window is from the first record's time to just after the last one's, and its time the turn of the record that was the last. Records that
    /// are not enough for a window give no row, also when the stream ends: they wait for more, in a next run of the flow too, as in
    /// Flink. A key keeps `size / slide` accumulators, rounded up (in parts of the greatest common divisor where one does not divide the other), for good.
    ///
    /// # Panics
    /// If the size or slide is zero, or the slide is above the size.
    pub fn sliding_count_windows(self, size: u64, slide: u64) -> TriggeredWindows<K, V, Counted> {
        let how = How::ByCount(ByCount::new(size, slide));
        TriggeredWindows { keyed: self, how, late: None, panes: PhantomData }
    }
}

impl<K: Key, V: StateValue> TriggeredWindows<K, V, Accumulating> {
    /// Each pane has all that its window holds so far, which is so unless something else is said.
    pub fn accumulating(self) -> Self {
        self
    }

    /// Each pane has what has come since the one before.
    pub fn discarding(self) -> TriggeredWindows<K, V, Discarding> {
        self.with()
    }

    /// Each pane has a [`Change`]: what was told before and is taken back, and what is told now. A session that has grown takes back the row that
    /// it had under other bounds. [`Stream::to_window_table`] makes a table of the rows, whose aggregations and joins take back too.
    ///
    /// ```
    /// use rivermark_operators::{Change, Timestamp, Trigger, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (visits, stream) = it.input::<&str>();
    ///     let windows = stream.map(str::to_string).key_by(String::clone).window(Windows::tumbling(millis(10)));
    ///     let counts = windows.trigger(Trigger::on_watermark().early_on_count(2)).retracting().count();
    ///     // How many pages have as many visits, as of now.
    ///     let pages = counts.to_window_table().group_by(|_, visits| *visits).count();
    ///     let rows = it.output(pages.changes());
    ///     ["/", "/", "/b", "/"].into_iter().zip(1..).for_each(|(page, time)| it.push(&visits, at(time), page));
    ///     it.watermark(&visits, at(20));
    ///     let mut told = it.take_at(&rows);
    ///     told.sort();
    ///     let expected = [
    ///         (at(2), (2, Change::Insert(1))),
    ///         (at(9), (1, Change::Insert(1))),
    ///         (at(9), (2, Change::Delete(1))),
    ///         (at(9), (3, Change::Insert(1))),
    ///     ];
    ///     assert_eq!(told, expected);
    /// });
    /// ```
    pub fn retracting(self) -> TriggeredWindows<K, V, Retracting> {
        self.with()
    }

    fn with<M>(self) -> TriggeredWindows<K, V, M> {
        TriggeredWindows { keyed: self.keyed, how: self.how, late: self.late, panes: PhantomData }
    }
}

impl<K: Key, V: StateValue, M: Panes> TriggeredWindows<K, V, M> {
    /// Computes an aggregate of the user's over each window; see [`WindowedStream::aggregate`].
    pub fn aggregate<A: Aggregate<V>>(self, aggregate: A) -> Stream<M::Row<K, A::Out>> {
        self.rows(aggregate, |row, out| {
            out(row);
            Ok(())
        })
    }

    /// Calls a function on the records of each pane, as [`WindowedStream::process`] does: on all so far, those since the last pane, or a change from
    /// those that were told to those that are, as panes accumulate, discard or retract.
    pub fn process<R: Send + 'static, I: IntoIterator<Item = R>>(
        self,
        function: impl Fn(M::Row<K, Vec<V>>) -> Result<I, BoxError> + Clone + Send + Sync + 'static,
    ) -> Stream<R> {
        self.rows(Records, move |row, out| {
            function(row)?.into_iter().for_each(out);
            Ok(())
        })
    }

    fn rows<A: Aggregate<V>, O: Send + 'static>(
        self,
        aggregate: A,
        tell: impl Fn(RowOf<M, K, A::Out>, &mut dyn FnMut(O)) -> Result<(), BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    ) -> Stream<O> {
        let mut spec = NodeSpec::new("window", NodeKind::Stateful, vec![], 2);
        spec.needs_event_time = true;
        spec.problem = self.how.problem();
        let (how, has_late) = (self.how, self.late.is_some());
        let rows = self.keyed.exchanged().then(spec, move |builder, port| {
            let store = open_store(builder, &how.layout::<M>())?;
            let (out, late) = (builder.output::<O>(port), builder.output::<Late<K, V>>(port + 1));
            let late = LateRecords::new(has_late.then_some(late), builder.metrics());
            let (aggregate, tell) = (aggregate.clone(), tell.clone());
            match how.clone() {
                How::ByTime { windows, lateness, trigger } => {
                    let shape = windows.shape;
                    let (discards, retracts, records) = (M::DISCARDS, M::RETRACTS, PhantomData);
                    let rules = Rules { aggregate, shape, lateness, trigger, discards, retracts, records };
                    let by_key = |store: &mut KeyedStore| {
                        let open = store.value_table(Value::new("windows"))?;
                        Ok(Triggered::<K, V, A, M, _, O> { rules, open, tell, panes: PhantomData })
                    };
                    let operator = InTurn::open(builder, store, lateness > 0, by_key, out, late)?;
                    builder.attach::<Keyed<K, V>>(0, operator);
                }
                How::ByCount(by_count) => {
                    let tell = move |key: &K, window, value, emit: &mut dyn FnMut(O)| {
                        let pane = Pane { timing: Timing::OnTime, index: 0 };
                        M::row(key.clone(), window, pane, Change::Insert(value))
                            .map_or(Ok(()), |row| tell(row, emit))
                    };
                    let by_key =
                        |store: &mut KeyedStore| CountWindows::open(store, by_count, aggregate, tell);
                    let operator = InTurn::open(builder, store, false, by_key, out, late)?;
                    builder.attach::<Keyed<K, V>>(0, operator);
                }
            }
            Ok(())
        });
        if let Some(late) = self.late {
            late(rows.at_port(rows.port() + 1));
        }
        rows
    }
}

impl How {
    /// Why it cannot be, and what to do.
    fn problem(&self) -> Option<String> {
        match self {
            How::ByTime { windows, trigger, .. } => trigger.problem(windows),
            How::ByCount(_) => None,
        }
    }

    /// What a checkpoint knows the windows by. Not the trigger: with another one, windows that are open go on.
    fn layout<M: Panes>(&self) -> String {
        match self {
            How::ByTime { windows, lateness, .. } => {
                format!("{windows} with an allowed lateness of {lateness} ms and {}", M::NAME)
            }
            How::ByCount(by_count) => by_count.to_string(),
        }
    }
}

/// The records themselves, in the order in which they are added.
#[derive(Copy, Clone)]
struct Records;

impl<V: StateValue> Aggregate<V> for Records {
    type Acc = Vec<V>;
    type Out = Vec<V>;

    fn create(&self) -> Vec<V> {
        Vec::new()
    }

    fn add(&self, acc: &mut Vec<V>, value: &V) {
        acc.push(value.clone());
    }

    fn merge(&self, acc: &mut Vec<V>, other: &Vec<V>) {
        acc.extend_from_slice(other);
    }

    fn finish(&self, acc: &Vec<V>) -> Vec<V> {
        acc.clone()
    }
}

impl<K: Key, R: StateValue> Stream<Paned<K, Change<R>>> {
    /// The table of the rows of windows with [retracting](TriggeredWindows::retracting) panes: of each key and window what was told last. The rows carry
    /// what they take back, so it keeps no state. Rows stay when their window is over.
    pub fn to_window_table(self) -> Table<(K, Window), R> {
        Table::of(self.map(|row| {
            let key = (row.key, row.window);
            Keyed { hash: hash_key(&key), key, value: row.value }
        }))
    }
}
