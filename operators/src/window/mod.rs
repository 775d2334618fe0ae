//! Windows: aggregations of a key's records by event time.
//!
//! `keyed.window(Windows::tumbling(minutes(1))).count()` gives a row for every key and window that has records, when the watermark
//! passes the window's end.
//!
//! # Which records a window holds
//! That is a property of the log alone, the same at any speed, with any number of workers, across any crash:
//! - a record is *on time* for a window while the watermark of the record's own source partition, just before the record, is below
//!   the window's end;
//! - it is *allowed late* while that watermark is below the window's end plus the allowed lateness;
//! - otherwise it is *late*: counted, and sent to the late output if there is one.
//!
//! The combined watermark that fires windows is the minimum over partitions, so every on-time record is there before its window fires
//! (only a partition that was declared idle can be overtaken; its own watermark is then raised to where the others are, and a replay
//! raises it at the same record).
//!
//! # What a window emits
//! The first row holds exactly the on-time records. Each allowed-late record then gives a corrected row of everything so far, so the last row
//! of a key and window holds all records that are not late. First and last row are deterministic; how many corrections lie between, and in
//! which order records of different partitions enter them, is not.
//!
//! # The end of a bounded stream
//! It is the end of time for what was read: every window that is open fires. More may be appended afterwards, and read by a next run of the
//! flow. For that run time has come to the end of the last window that fired (for sessions, to where the last of them was final), of
//! any key. So what has fired is final: a record for it is late, or corrects it where lateness is allowed, and no window without
//! allowed lateness ever has two rows. To go on in the middle of windows, let the stream not end, and stop the job.
//!
//! A session has no bounds of its own to keep records apart by, so what is allowed late and comes before it fires is in its first row. What comes
//! afterwards may move its bounds or join it with another: the row under the widest bounds is the last one, those within are replaced.
//!
//! # More rows, and other windows
//! A [`Trigger`] gives rows before a window ends, too, and says what late ones hold ([`triggered`]); windows by count and global windows are of
//! the same make. Those without a trigger are not touched by it: they stay slices ([`WindowedStream::aggregate`]).

mod aggregate;
mod assign;
mod combine;
mod count;
mod in_turn;
mod late;
mod reduce;
mod session;
mod slices;
mod top_n;
mod trigger;
pub mod triggered;

pub use aggregate::{Aggregate, Count, Summand};
pub(crate) use assign::{Shape, Slices};
pub use assign::{Window, Windows};
pub(crate) use late::{LateCount, LateRecords};
pub(crate) use top_n::Ranking;
pub use trigger::{Pane, Paned, Timing, Trigger};
pub use triggered::TriggeredWindows;

use crate::error::{Error, Result};
use crate::exchange::{self, Keyed};
use crate::plan::{NodeKind, NodeSpec, TaskBuilder};
use crate::stream::{KeyedStream, Stream};
use crate::time::span_millis;
use crate::trace::{self, Makes, WindowShape};
use aggregate::{Average, Fold, Max, Min, Reading, Sum};
use combine::{Combined, Combining};
use rivermark_state::{Key, KeyedStore, StateValue};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One row of a windowed aggregation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Windowed<K, R> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
    /// What the aggregation gave.
    pub value: R,
}

/// A record that came too late for a window it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late<K, V> {
    /// Its key.
    pub key: K,
    /// The record.
    pub value: V,
    /// How many of its windows missed it.
    pub windows_missed: u64,
}

impl<K: Key, V: Send + 'static> KeyedStream<K, V> {
    /// Groups each key's records into windows of event time.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (clicks, stream) = it.input::<&str>();
    ///     let clicks_now = stream.map(str::to_string);
    ///     let sessions = clicks_now.clone().key_by(String::clone).window(Windows::session(millis(10))).count();
    ///     let sliding = clicks_now.key_by(String::clone).window(Windows::sliding(millis(20), millis(10))).count();
    ///     let row = |row: rivermark_operators::Windowed<String, u64>| (row.window.start, row.window.end, row.value);
    ///     let (sessions, sliding) = (it.output(sessions.map(row)), it.output(sliding.map(row)));
    ///     [2, 8, 25].into_iter().for_each(|time| it.push(&clicks, at(time), "ann"));
    ///     it.end(&clicks);
    ///     // The gap ends a session; each click is in two sliding windows.
    ///     it.expect(&sessions, [(at(2), at(18), 2), (at(25), at(35), 1)]);
    ///     it.expect(&sliding, [(at(-10), at(10), 2), (at(0), at(20), 2), (at(10), at(30), 1), (at(20), at(40), 1)]);
    /// });
    /// ```
    pub fn window(self, windows: Windows) -> WindowedStream<K, V> {
        WindowedStream { keyed: self, windows, allowed_lateness: Duration::ZERO, late: None }
    }
}

impl<K: Key, V: Send + 'static> KeyedStream<K, V> {
    /// The exchange in front of windows whose aggregate is exact: its first output are the records, the second what records were combined to.
    fn exchanged_combining<A: Aggregate<V>>(self, slices: Slices, aggregate: A) -> Stream<Keyed<K, V>> {
        let id = self.keyed.graph().borrow_mut().next_exchange();
        let spec = NodeSpec::new("exchange", NodeKind::Exchange(id), vec![], 2);
        self.keyed.then(spec, move |builder, port| {
            let about_windows = (builder.name(), builder.blame());
            let time = builder.restored_watermark_behind(port);
            let what = (slices, aggregate.clone());
            exchange::build_pair(builder, id, port, |records, combined| {
                Combining::<K, V, A>::new(about_windows, what, time, records, combined)
            });
            Ok(())
        })
    }
}

type UseLate<K, V> = Box<dyn FnOnce(Stream<Late<K, V>>)>;

/// A keyed stream in windows, waiting to be told what to compute.
pub struct WindowedStream<K, V> {
    keyed: KeyedStream<K, V>,
    windows: Windows,
    allowed_lateness: Duration,
    late: Option<UseLate<K, V>>,
}

impl<K: Key, V: Send + 'static> WindowedStream<K, V> {
    /// Keeps windows for `lateness` after they have fired; a record that comes within it gives a corrected row. Default: none.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (clicks, stream) = it.input::<char>();
    ///     let windows = stream.key_by(|page| *page).window(Windows::tumbling(millis(10)));
    ///     let rows = it.output(windows.allowed_lateness(millis(5)).count().map(|row| row.value));
    ///     it.push(&clicks, at(3), 'a');
    ///     it.watermark(&clicks, at(12));
    ///     it.expect(&rows, [1]);
    ///     it.push(&clicks, at(4), 'a');
    ///     it.expect(&rows, [2]);
    /// });
    /// ```
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.allowed_lateness = lateness;
        self
    }

    /// Gives the late records as a stream of their own, a side output: `.late_output(|late| late.sink(..))`.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (clicks, stream) = it.input::<char>();
    ///     let (sender, late) = std::sync::mpsc::channel();
    ///     let windows = stream.key_by(|page| *page).window(Windows::tumbling(millis(10)));
    ///     // In a flow: `|late| late.sink(..)`.
    ///     windows.late_output(move |stream| sender.send(stream).expect("taken below")).count();
    ///     let late = it.output(late.recv().expect("it was sent at once").map(|late| late.value));
    ///     it.push(&clicks, at(3), 'a');
    ///     it.watermark(&clicks, at(12));
    ///     it.push(&clicks, at(4), 'b');
    ///     it.expect(&late, ['b']);
    /// });
    /// ```
    pub fn late_output(mut self, late: impl FnOnce(Stream<Late<K, V>>) + 'static) -> Self {
        self.late = Some(Box::new(late));
        self
    }

    /// Counts the records of each window.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<i64>();
    ///     let windows = stream.key_by(|_| 'a').window(Windows::tumbling(millis(10)));
    ///     let rows = it.output(windows.count().map(|row| (row.window.start, row.value)));
    ///     [(1, 7), (4, 1), (12, 5)].into_iter().for_each(|(time, n)| it.push(&numbers, at(time), n));
    ///     it.end(&numbers);
    ///     it.expect(&rows, [(at(0), 2), (at(10), 1)]);
    /// });
    /// ```
    pub fn count(self) -> Stream<Windowed<K, u64>> {
        self.aggregate(Count)
    }

    /// Adds up what `read` gives for each record. A sum that overflows stops the job, with an error that names the operator and the
    /// record (or the window, where it is the sums of slices that overflow).
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<i64>();
    ///     let windows = stream.key_by(|_| 'a').window(Windows::tumbling(millis(10)));
    ///     let rows = it.output(windows.sum(|n| *n).map(|row| row.value));
    ///     [(1, 7), (4, 1), (12, 5)].into_iter().for_each(|(time, n)| it.push(&numbers, at(time), n));
    ///     it.end(&numbers);
    ///     it.expect(&rows, [8, 5]);
    /// });
    /// ```
    pub fn sum<N: StateValue + Sync + Summand>(
        self,
        read: impl Fn(&V) -> N + Clone + Send + Sync + 'static,
    ) -> Stream<Windowed<K, N>> {
        self.aggregate(Reading::<_, Sum>::new(read))
    }

    /// The least of what `read` gives.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<i64>();
    ///     let windows = stream.key_by(|_| 'a').window(Windows::tumbling(millis(10)));
    ///     let rows = it.output(windows.min(|n| *n).map(|row| row.value));
    ///     [(1, 7), (4, 1), (12, 5)].into_iter().for_each(|(time, n)| it.push(&numbers, at(time), n));
    ///     it.end(&numbers);
    ///     it.expect(&rows, [1, 5]);
    /// });
    /// ```
    pub fn min<N: StateValue + Sync + PartialOrd>(
        self,
        read: impl Fn(&V) -> N + Clone + Send + Sync + 'static,
    ) -> Stream<Windowed<K, N>> {
        self.aggregate(Reading::<_, Min>::new(read))
    }

    /// The greatest of what `read` gives.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<i64>();
    ///     let windows = stream.key_by(|_| 'a').window(Windows::tumbling(millis(10)));
    ///     let rows = it.output(windows.max(|n| *n).map(|row| row.value));
    ///     [(1, 7), (4, 1), (12, 5)].into_iter().for_each(|(time, n)| it.push(&numbers, at(time), n));
    ///     it.end(&numbers);
    ///     it.expect(&rows, [7, 5]);
    /// });
    /// ```
    pub fn max<N: StateValue + Sync + PartialOrd>(
        self,
        read: impl Fn(&V) -> N + Clone + Send + Sync + 'static,
    ) -> Stream<Windowed<K, N>> {
        self.aggregate(Reading::<_, Max>::new(read))
    }

    /// The mean of what `read` gives. Floating-point sums depend on the order of records in their last bits; for exact means keep sum
    /// and count as integers.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<i64>();
    ///     let windows = stream.key_by(|_| 'a').window(Windows::tumbling(millis(10)));
    ///     let rows = it.output(windows.average(|n| *n as f64).map(|row| row.value));
    ///     [(1, 7), (4, 1), (12, 5)].into_iter().for_each(|(time, n)| it.push(&numbers, at(time), n));
    ///     it.end(&numbers);
    ///     it.expect(&rows, [4.0, 5.0]);
    /// });
    /// ```
    pub fn average(
        self,
        read: impl Fn(&V) -> f64 + Clone + Send + Sync + 'static,
    ) -> Stream<Windowed<K, f64>> {
        self.aggregate(Average(read))
    }

    /// Folds the records into an accumulator, in any order; `merge` adds one accumulator to another and must agree with `add`.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<i64>();
    ///     let windows = stream.key_by(|_| 'a').window(Windows::tumbling(millis(10)));
    ///     // How many, and the sum of their squares.
    ///     let moments = windows.fold((0, 0), |acc, n| *acc = (acc.0 + 1, acc.1 + n * n), |acc, other| *acc = (acc.0 + other.0, acc.1 + other.1));
    ///     let rows = it.output(moments.map(|row| row.value));
    ///     [(1, 7), (4, 1), (12, 5)].into_iter().for_each(|(time, n)| it.push(&numbers, at(time), n));
    ///     it.end(&numbers);
    ///     it.expect(&rows, [(2, 50), (1, 25)]);
    /// });
    /// ```
    pub fn fold<A: StateValue + Sync>(
        self,
        initial: A,
        add: impl Fn(&mut A, &V) + Clone + Send + Sync + 'static,
        merge: impl Fn(&mut A, &A) + Clone + Send + Sync + 'static,
    ) -> Stream<Windowed<K, A>> {
        self.aggregate(Fold { initial, add, merge })
    }

    /// Computes an aggregate of the user's over each window.
    ///
    /// ```
    /// use rivermark_operators::{Aggregate, Timestamp, Windows, millis, testing};
    ///
    /// /// The span from the least to the greatest.
    /// #[derive(Clone)]
    /// struct Span;
    ///
    /// impl Aggregate<i64> for Span {
    ///     type Acc = Option<(i64, i64)>;
    ///     type Out = i64;
    ///
    ///     fn create(&self) -> Self::Acc {
    ///         None
    ///     }
    ///
    ///     fn add(&self, acc: &mut Self::Acc, n: &i64) {
    ///         let (least, greatest) = acc.unwrap_or((*n, *n));
    ///         *acc = Some((least.min(*n), greatest.max(*n)));
    ///     }
    ///
    ///     fn merge(&self, acc: &mut Self::Acc, other: &Self::Acc) {
    ///         if let Some((least, greatest)) = other {
    ///             self.add(acc, least);
    ///             self.add(acc, greatest);
    ///         }
    ///     }
    ///
    ///     fn finish(&self, acc: &Self::Acc) -> i64 {
    ///         acc.map_or(0, |(least, greatest)| greatest - least)
    ///     }
    /// }
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<i64>();
    ///     let spans = stream.key_by(|_| 'a').window(Windows::tumbling(millis(10))).aggregate(Span);
    ///     let rows = it.output(spans.map(|row| row.value));
    ///     [(1, 7), (4, 1), (12, 5)].into_iter().for_each(|(time, n)| it.push(&numbers, at(time), n));
    ///     it.end(&numbers);
    ///     it.expect(&rows, [6, 0]);
    /// });
    /// ```
    pub fn aggregate<A: Aggregate<V>>(self, aggregate: A) -> Stream<Windowed<K, A::Out>> {
        let lateness = span_millis(self.allowed_lateness);
        let windows = self.windows;
        let layout = match lateness {
            0 => windows.to_string(),
            _ => format!("{windows} with an allowed lateness of {lateness} ms"),
        };
        let has_late = self.late.is_some();
        let mut spec = NodeSpec::new("window", NodeKind::Stateful, vec![], 2);
        spec.needs_event_time = true;
        if matches!(windows.shape, Shape::Global) {
            spec.problem = Some(NEVER_ENDS.into());
        }
        let combined = match windows.shape {
            Shape::Sliding(slices) if aggregate.is_exact() => Some(slices),
            Shape::Sliding(_) | Shape::Session { .. } | Shape::Global => None,
        };
        let exchanged = match combined {
            Some(slices) => {
                let exchanged = self.keyed.exchanged_combining(slices, aggregate.clone());
                spec.inputs.push(exchanged.port() + 1);
                exchanged
            }
            None => self.keyed.exchanged(),
        };
        let rows = exchanged.then(spec, move |builder, port| {
            let store = open_store(builder, &layout)?;
            let out = builder.output::<Windowed<K, A::Out>>(port);
            let late = builder.output::<Late<K, V>>(port + 1);
            let late = late::LateRecords::new(has_late.then_some(late), builder.metrics());
            let aggregate = aggregate.clone();
            match windows.shape {
                Shape::Sliding(slices) => {
                    let makes = Makes::Windows(WindowShape { slices, lateness });
                    let operator =
                        slices::SliceWindows::open(builder, store, slices, lateness, aggregate, out, late)?;
                    if combined.is_some() {
                        let (records, combined) = operator.into_inputs();
                        trace::attach(builder, makes, records);
                        builder.attach::<Keyed<K, Combined<A::Acc>>>(1, combined);
                    } else {
                        trace::attach(builder, makes, operator);
                    }
                }
                Shape::Session { gap } => {
                    let operator =
                        session::SessionWindows::open(builder, store, gap, lateness, aggregate, out, late)?;
                    trace::attach(builder, Makes::Sessions { gap, lateness }, operator);
                }
                Shape::Global => {
                    return Err(Error::engine(format!("building `{}`", builder.name()), NEVER_ENDS));
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

/// Why a global window has no result.
const NEVER_ENDS: &str =
    "a global window never ends, so nothing would be told of it: say when with `.trigger(..)`";

/// Opens the state of windows, which is of use only to the same windows: with others, slices would be counted to the wrong ones, or to none.
fn open_store(builder: &mut TaskBuilder<'_>, layout: &str) -> Result<KeyedStore> {
    let mut store = builder.open_store()?;
    store.declare_layout(layout).map_err(|e| Error::state(&builder.name(), "restoring its windows", e))?;
    Ok(store)
}
