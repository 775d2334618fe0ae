//! The open windows of a key, and what a trigger makes of them: functions of their state and of the turn in hand.
//!
//! 1. A record opens its windows or joins them; sessions that it touches become one. It counts as new until the next pane.
//! 2. New records are enough for a pane at once, or one is due at the trigger's next time, or when the clock says so; all three are noted in the
//!    window, and what is noted ends with any pane.
//! 3. The window's end gives the pane on time, and the end of the allowed lateness whatever is new then; with that the window is let go.

use crate::table::Change;
use crate::time::Timestamp;
use crate::window::assign::Shape;
use crate::window::session;
use crate::window::trigger::{Pane, Timing, Trigger};
use crate::window::{Aggregate, Window};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::ops::Range;

/// One window of a key, from its first record until it is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Open<A> {
    pub(super) window: Window,
    acc: A,
    /// What panes have told and none has taken back, where they retract: the accumulators under their windows' bounds.
    told: Vec<(Window, A)>,
    /// How many panes there were.
    panes: u64,
    /// Records since the last one.
    new: u64,
    /// The pane on time has been.
    is_late: bool,
    /// When the trigger gives the next pane.
    due: Option<Timestamp>,
    /// When the clock does.
    clock: Option<Timestamp>,
}

/// The windows of a key, by their bounds.
pub(super) type Windows<A> = Vec<Open<A>>;

/// What is asked of windows.
pub(super) struct Rules<V, A> {
    pub(super) aggregate: A,
    pub(super) shape: Shape,
    pub(super) lateness: i64,
    pub(super) trigger: Trigger,
    pub(super) discards: bool,
    pub(super) retracts: bool,
    pub(super) records: PhantomData<fn(V)>,
}

/// What a key's windows bring about: panes, and times to look at them again.
pub(super) trait Told<R> {
    fn pane(&mut self, window: Window, pane: Pane, change: Change<R>);
    fn wake_at(&mut self, time: Timestamp);
    fn wake_by_clock(&mut self, at: Timestamp);
}

impl<V, A: Aggregate<V>> Rules<V, A> {
    fn is_global(&self) -> bool {
        matches!(self.shape, Shape::Global)
    }

    /// When the pane on time comes.
    pub(super) fn on_time_at(&self, window: Window) -> Timestamp {
        match self.shape {
            Shape::Sliding(_) | Shape::Global => window.end,
            // Until then a record may come that joins it.
            Shape::Session { gap } => window.end.plus_millis(gap),
        }
    }

    /// When the window can be let go.
    fn over_at(&self, window: Window) -> Timestamp {
        self.on_time_at(window).plus_millis(self.lateness)
    }

    /// Whether a record that comes behind `watermark` is too late for the window that ends at `end` (of sessions: for its own).
    pub(super) fn has_missed(&self, end: Timestamp, watermark: Timestamp) -> bool {
        end.plus_millis(self.lateness) <= watermark
    }

    /// Where the windows are that a record at `time`, behind `watermark`, belongs to: they are made where there are none, or joined.
    pub(super) fn place(
        &self,
        windows: &mut Windows<A::Acc>,
        (time, watermark, turn): (Timestamp, Timestamp, Timestamp),
        told: &mut impl Told<A::Out>,
    ) -> Range<usize> {
        let window = match self.shape {
            Shape::Sliding(slices) => {
                let mut at = 0..0;
                // Ends rise, and so do the windows of the list.
                for (n, end) in slices.ends(time).filter(|end| !self.has_missed(*end, watermark)).enumerate()
                {
                    let found = self.find_or_open(windows, slices.window(end), turn, told);
                    at = if n == 0 { found..found + 1 } else { at.start..found + 1 };
                }
                return at;
            }
            Shape::Global => Window { start: Timestamp::MIN, end: Timestamp::MAX },
            Shape::Session { gap } => self.join(windows, time, gap),
        };
        let at = self.find_or_open(windows, window, turn, told);
        at..at + 1
    }

    fn find_or_open(
        &self,
        windows: &mut Windows<A::Acc>,
        window: Window,
        turn: Timestamp,
        told: &mut impl Told<A::Out>,
    ) -> usize {
        let at = windows.partition_point(|open| open.window < window);
        if windows.get(at).is_none_or(|open| open.window != window) {
            // What opens behind its end has nothing that was on time.
            let is_late = self.on_time_at(window) <= turn;
            told.wake_at(if is_late { self.over_at(window) } else { self.on_time_at(window) });
            let acc = self.aggregate.create();
            let (due, clock) = (None, None);
            windows.insert(at, Open { window, acc, told: vec![], panes: 0, new: 0, is_late, due, clock });
        }
        at
    }

    /// The session of a record, after those that it touches have become one under these bounds.
    fn join(&self, windows: &mut Windows<A::Acc>, time: Timestamp, gap: i64) -> Window {
        let own = Window { start: time, end: time.plus_millis(gap) };
        let bounds = |open: &Open<A::Acc>| (open.window.start, open.window.end);
        let touched = session::touched(windows, bounds, own.start, own.end);
        let Some((head, rest)) = windows[touched.clone()].split_first_mut() else { return own };
        for open in rest {
            self.aggregate.merge(&mut head.acc, &open.acc);
            head.told.append(&mut open.told);
            head.window.end = open.window.end;
            head.panes = head.panes.max(open.panes);
            head.new += open.new;
            head.is_late |= open.is_late;
            head.due = earlier(head.due, open.due);
            head.clock = earlier(head.clock, open.clock);
        }
        head.window = Window { start: head.window.start.min(own.start), end: head.window.end.max(own.end) };
        let joined = head.window;
        windows.drain(touched.start + 1..touched.end);
        joined
    }

    /// Adds a record whose turn is `turn` to a window, when the clock says `now`.
    pub(super) fn add(
        &self,
        open: &mut Open<A::Acc>,
        value: &V,
        (turn, now): (Timestamp, Timestamp),
        told: &mut impl Told<A::Out>,
    ) {
        self.aggregate.add(&mut open.acc, value);
        open.new += 1;
        if self.is_global() && open.new == 1 && self.trigger.is_on_watermark() {
            // Its end may have been that of an earlier run.
            told.wake_at(Timestamp::MAX);
        }
        if self.trigger.is_enough(open.is_late, open.new) {
            self.tell(open, told);
            return;
        }
        let start = if self.is_global() { Timestamp::from_millis(0) } else { open.window.start };
        let ends = if open.is_late { self.over_at(open.window) } else { self.on_time_at(open.window) };
        if open.due.is_none()
            && let Some(due) = self.trigger.next_after(open.is_late, start, turn)
            && due < ends
        {
            open.due = Some(due);
            told.wake_at(due);
        }
        if open.clock.is_none()
            && !open.is_late
            && let Some(span) = self.trigger.by_clock()
        {
            let at = now.plus_millis(span);
            open.clock = Some(at);
            told.wake_by_clock(at);
        }
    }

    /// The time `time` has come for a key. Lets go of what is over by then and at `forget`. Answers the last window end that it was, and
    /// whether something that is over was kept.
    pub(super) fn pass(
        &self,
        windows: &mut Windows<A::Acc>,
        (time, forget): (Timestamp, Timestamp),
        told: &mut impl Told<A::Out>,
    ) -> (Option<Timestamp>, bool) {
        let (mut last, mut is_kept) = (None, false);
        windows.retain_mut(|open| {
            let (on_time, over) = (self.on_time_at(open.window), self.over_at(open.window));
            let is_end = on_time <= time && !open.is_late;
            if is_end && self.trigger.is_on_watermark() {
                self.tell_on_time(open, told);
                last = last.max(Some(on_time).filter(|end| *end < Timestamp::MAX));
            } else if open.due.is_some_and(|due| due <= time) || open.is_late && over <= time {
                self.tell_if_new(open, told);
            }
            if self.is_global() {
                return true;
            }
            open.is_late |= is_end;
            let next = if open.is_late { over } else { on_time };
            if next > time && (is_end || matches!(self.shape, Shape::Session { .. })) {
                told.wake_at(next);
            }
            is_kept |= over <= time && over > forget;
            over > time || over > forget
        });
        (last, is_kept)
    }

    /// The processing time `now` has come.
    pub(super) fn by_clock(
        &self,
        windows: &mut Windows<A::Acc>,
        now: Timestamp,
        told: &mut impl Told<A::Out>,
    ) {
        for open in windows.iter_mut().filter(|open| open.clock.is_some_and(|at| at <= now)) {
            open.clock = None;
            if !open.is_late {
                self.tell_if_new(open, told);
            }
        }
    }

    /// The stream has ended, and time has come to `time`.
    pub(super) fn after_end(
        &self,
        windows: &mut Windows<A::Acc>,
        time: Timestamp,
        told: &mut impl Told<A::Out>,
    ) {
        // Behind the end of time there is nothing that windows could be kept for.
        let is_over = |over: Timestamp| over <= time || over == Timestamp::MAX;
        windows.retain(|open| self.is_global() || !is_over(self.over_at(open.window)));
        windows.iter().filter(|_| !self.is_global()).for_each(|open| told.wake_at(self.over_at(open.window)));
    }

    fn tell_on_time(&self, open: &mut Open<A::Acc>, told: &mut impl Told<A::Out>) {
        if open.new > 0 || !self.discards {
            self.tell_as(open, Timing::OnTime, told);
        }
    }

    fn tell_if_new(&self, open: &mut Open<A::Acc>, told: &mut impl Told<A::Out>) {
        open.due = None;
        if open.new > 0 {
            self.tell(open, told);
        }
    }

    fn tell(&self, open: &mut Open<A::Acc>, told: &mut impl Told<A::Out>) {
        let timing = if open.is_late { Timing::Late } else { Timing::Early };
        self.tell_as(open, timing, told);
    }

    fn tell_as(&self, open: &mut Open<A::Acc>, timing: Timing, told: &mut impl Told<A::Out>) {
        let (window, pane) = (open.window, Pane { timing, index: open.panes });
        open.panes += 1;
        (open.new, open.due, open.clock) = (0, None, None);
        let after = self.aggregate.finish(&open.acc);
        let mut before = None;
        for (bounds, acc) in open.told.drain(..) {
            let row = self.aggregate.finish(&acc);
            if bounds == window {
                before = Some(row);
            } else {
                // A session has grown: its row under other bounds is no more.
                told.pane(bounds, pane, Change::Delete(row));
            }
        }
        let change = match before {
            None => Change::Insert(after),
            Some(before) => Change::Update { before, after },
        };
        told.pane(window, pane, change);
        if self.retracts {
            open.told.push((window, open.acc.clone()));
        }
        if self.discards {
            open.acc = self.aggregate.create();
        }
    }
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
