//! Triggers: when a window tells what it holds, and what each telling, a *pane*, holds.
//!
//! A [`Trigger`] is a value that describes; it decides nothing by itself. Panes are early, on time or late, as in the Dataflow model (Akidau et al.,
//! "The Dataflow Model", VLDB 2015) and in Apache Beam, and accumulate, discard or retract. [`super::triggered`] has the algorithm.

use super::Window;
use super::assign::{Shape, Windows};
use crate::time::{Timestamp, span_millis};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When a window gives panes: on time, and what is asked for besides, any of which gives one.
///
/// ```
/// use rivermark_operators::Trigger;
/// use rivermark_operators::secs;
///
/// // While the window is open, each ten seconds of event time and each thousand records of a key; when it ends; and after that for every hundred
/// // records within the allowed lateness.
/// let trigger = Trigger::on_watermark().early_every(secs(10)).early_on_count(1000).late_on_count(100);
/// # assert_eq!(trigger, trigger.clone());
/// ```
///
/// A pane that would say nothing new is not given, but for the one on time of panes that accumulate or retract, which says that the window is
/// complete. All panes but those of [`Trigger::early_every_by_clock`] are a function of the log alone. Spans are whole milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trigger {
    on_watermark: bool,
    early_every: Option<i64>,
    early_count: Option<u64>,
    early_clock: Option<i64>,
    late_every: Option<i64>,
    late_count: Option<u64>,
}

impl Trigger {
    /// A pane when the watermark passes the window's end (for sessions, when nothing can join them any more), and one for each record
    /// within the allowed lateness. A global window ends with its stream: it gives a pane then, and goes on if the stream does.
    pub const fn on_watermark() -> Trigger {
        Trigger {
            on_watermark: true,
            early_every: None,
            early_count: None,
            early_clock: None,
            late_every: None,
            late_count: None,
        }
    }

    /// No pane but the early ones that are asked for, whatever becomes of the rest: for global windows of a stream whose end means nothing.
    /// Windows that end refuse it, for their last records would be lost.
    pub const fn never() -> Trigger {
        Trigger { on_watermark: false, ..Self::on_watermark() }
    }

    /// An early pane each `span` of event time from the window's start on (in global windows, from the epoch on), where there is something
    /// new. The pane at t holds the records of the window that are known at t: all before t, and none after.
    pub fn early_every(mut self, span: Duration) -> Trigger {
        self.early_every = Some(span_millis(span));
        self
    }

    /// An early pane as soon as `records` of a key and window have come since the last pane.
    pub const fn early_on_count(mut self, records: u64) -> Trigger {
        self.early_count = Some(records);
        self
    }

    /// An early pane a `span` of processing time after the first record since the last pane.
    ///
    /// A clock is no property of the log: which early panes there are and what they hold differs in a replay, and with them the numbers of later
    /// panes, and how panes that discard or retract are divided. What all of a window's panes come to does not. Panes by the clock that a
    /// replay repeats are those of [`Trigger::early_every`] on a stream of [`processing_time`](crate::Stream::processing_time). The pane's
    /// row has the operator's watermark as its time.
    pub fn early_every_by_clock(mut self, span: Duration) -> Trigger {
        self.early_clock = Some(span_millis(span));
        self
    }

    /// Late panes each `span` of event time, counted from the window's start, and when the allowed lateness is over, instead of one for each record.
    pub fn late_every(mut self, span: Duration) -> Trigger {
        self.late_every = Some(span_millis(span));
        self
    }

    /// A late pane for so many `records`, and when the allowed lateness is over for the rest, instead of one for each record.
    pub const fn late_on_count(mut self, records: u64) -> Trigger {
        self.late_count = Some(records);
        self
    }

    /// Why it cannot be used with these windows, and what to do.
    pub(super) fn problem(&self, windows: &Windows) -> Option<String> {
        let spans = [self.early_every, self.early_clock, self.late_every];
        if spans.into_iter().flatten().any(|span| span < 1) {
            return Some("a trigger every 0 ms: give a millisecond or more".into());
        }
        if [self.early_count, self.late_count].contains(&Some(0)) {
            return Some("a trigger on every 0 records: give one or more".into());
        }
        if self.on_watermark {
            return None;
        }
        if !matches!(windows.shape, Shape::Global) {
            return Some(format!(
                "`Trigger::never()` with {windows}, which end: what came since the last early pane would be lost; begin with `Trigger::on_watermark()`"
            ));
        }
        let gives_any =
            self.early_every.is_some() || self.early_count.is_some() || self.early_clock.is_some();
        let none =
            "a trigger that never gives a pane: ask for early ones, or begin with `Trigger::on_watermark()`";
        (!gives_any).then(|| none.into())
    }

    /// Whether the window's end gives a pane.
    pub(super) fn is_on_watermark(&self) -> bool {
        self.on_watermark
    }

    /// Whether so many new records are enough for a pane at once; `is_late` after the pane on time.
    pub(super) fn is_enough(&self, is_late: bool, new: u64) -> bool {
        match (is_late, self.late_count) {
            (false, _) => self.early_count.is_some_and(|count| new >= count),
            (true, Some(count)) => new >= count,
            (true, None) => self.late_every.is_none(),
        }
    }

    /// The next time after `time` that gives a pane of a window that starts at `start`.
    pub(super) fn next_after(&self, is_late: bool, start: Timestamp, time: Timestamp) -> Option<Timestamp> {
        let every = if is_late { self.late_every } else { self.early_every }?;
        Some(time.floor(every, start.millis()).plus_millis(every))
    }

    /// After how long the clock gives an early pane, in milliseconds.
    pub(super) fn by_clock(&self) -> Option<i64> {
        self.early_clock
    }
}

/// Where a pane stands to the end of its window.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Timing {
    /// Before the watermark has passed it: more may come.
    Early,
    /// When it does: exactly the records that were on time.
    OnTime,
    /// After it, within the allowed lateness.
    Late,
}

/// Which of the tellings of a key's window this is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pane {
    /// Where it stands to the end of the window.
    pub timing: Timing,
    /// Its number, from zero.
    pub index: u64,
}

/// One pane of a key's window.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Paned<K, R> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
    /// Which of its panes.
    pub pane: Pane,
    /// What the aggregation gave; a [`Change`](crate::Change) of it where panes retract.
    pub value: R,
}
