//! Session windows: records of a key that follow each other within a gap.
//!
//! 1. A record opens the session `[time, time + gap]` (both ends in: a record exactly a gap later joins). It is merged with all sessions
//!    of its key that it touches, which may join two that were apart.
//! 2. A session is final once the watermark has passed its end by another gap. Until then a record may still come that is on
//!    time for its own session and touches this one; so, unlike in other engines, what a session holds does not depend on whether the
//!    watermark or the record came first.
//! 3. One timer stands for a session. A session that has grown since its timer was set is looked at then, and the timer set again, so
//!    that a record costs no timer.
//! 4. With allowed lateness a session stays that much longer after it fired, and a late record that is merged into it gives a corrected row; if
//!    that joins two sessions, the row of the joined one replaces those of both.

use super::Aggregate;
use super::Windowed;
use super::assign::Window;
use super::late::LateRecords;
use crate::batch::{Batch, Stamp};
use crate::context::{BlameCell, OperatorMetrics, TaskContext, Watch};
use crate::edge::{Operator, Output, Signal};
use crate::error::{Error, Result};
use crate::exchange::{Ahead, Keyed};
use crate::plan::TaskBuilder;
use crate::reached::Reached;
use crate::time::Timestamp;
use crate::trace::Marks;
use rivermark_state::{Key, KeyedStore, StateError, TableId, Timers, Value, ValueTable};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session<A> {
    start: Timestamp,
    /// The last record's time plus the gap.
    end: Timestamp,
    fired: bool,
    acc: A,
}

/// The sessions of one key, by start.
type Sessions<A> = Vec<Session<A>>;

pub(super) struct SessionWindows<K: Key, V, A: Aggregate<V>> {
    name: Arc<str>,
    blame: BlameCell,
    metrics: Arc<OperatorMetrics>,
    gap: i64,
    lateness: i64,
    aggregate: A,
    store: KeyedStore,
    ahead: Ahead,
    sessions: TableId<ValueTable<K, Sessions<A::Acc>>>,
    timers: TableId<Timers<K>>,
    /// When to look again at the sessions that were looked at.
    again: Vec<Timestamp>,
    reached: Reached,
    /// What the last watermark brings about, as long as it has not all fired.
    firing: Option<Firing<K>>,
    marks: Marks,
    out: Output<Windowed<K, A::Out>>,
    late: LateRecords<K, V>,
}

/// How far the firing of sessions has come.
struct Firing<K> {
    /// Sessions that are final at it fire.
    watermark: Timestamp,
    /// When the last one that fired became final.
    last: Option<Timestamp>,
    /// Keys to look at again when all have fired.
    kept: Vec<(u64, K)>,
}

/// Which of the sessions of a key, in order, one from `start` to `end` touches; where it belongs if none.
pub(super) fn touched<S>(
    sessions: &[S],
    bounds: impl Fn(&S) -> (Timestamp, Timestamp),
    start: Timestamp,
    end: Timestamp,
) -> Range<usize> {
    // Sessions do not touch each other, so both bounds rise along the list.
    let first = sessions.partition_point(|session| bounds(session).1 < start);
    let count = sessions[first..].iter().take_while(|session| bounds(session).0 <= end).count();
    first..first + count
}

/// Merges a record's session into those of its key. Answers where the merged session is, and whether a new one had to be made.
fn merge<A>(
    sessions: &mut Sessions<A>,
    start: Timestamp,
    end: Timestamp,
    create: impl FnOnce() -> A,
    mut join: impl FnMut(&mut A, &A),
) -> (usize, bool) {
    let Range { start: first, end: after } =
        touched(sessions, |session| (session.start, session.end), start, end);
    let touched = after - first;
    if touched == 0 {
        sessions.insert(first, Session { start, end, fired: false, acc: create() });
        return (first, true);
    }
    let (head, rest) = sessions[first..first + touched].split_first_mut().expect("at least one is touched");
    for session in rest.iter() {
        join(&mut head.acc, &session.acc);
        head.end = session.end;
        head.fired |= session.fired;
    }
    head.start = head.start.min(start);
    head.end = head.end.max(end);
    sessions.drain(first + 1..first + touched);
    (first, false)
}

impl<K: Key, V: Send + 'static, A: Aggregate<V>> SessionWindows<K, V, A> {
    pub(super) fn open(
        builder: &TaskBuilder<'_>,
        mut store: KeyedStore,
        gap: i64,
        lateness: i64,
        aggregate: A,
        out: Output<Windowed<K, A::Out>>,
        late: LateRecords<K, V>,
    ) -> Result<Self> {
        let name = builder.name();
        let opening = |e: StateError| Error::state(&name, "opening the state of sessions", e);
        let sessions = store.value_table(Value::new("sessions")).map_err(opening)?;
        let timers = store.timers("ends").map_err(opening)?;
        Ok(SessionWindows {
            blame: builder.blame(),
            metrics: builder.metrics(),
            gap,
            lateness,
            aggregate,
            store,
            ahead: Ahead::default(),
            sessions,
            timers,
            again: Vec::new(),
            reached: Reached::restored(builder.restored_watermark()),
            firing: None,
            marks: Marks::of(builder),
            out,
            late,
            name,
        })
    }

    /// Names the operator in an error. For what runs once a batch or less: it takes a reference to the name, and workers who do that for each record
    /// fight for its counter.
    fn failed(&self, attempt: &'static str) -> impl Fn(StateError) -> Error + use<K, V, A> {
        let name = Arc::clone(&self.name);
        move |e| Error::state(&name, attempt, e)
    }

    /// When a session that ends at `end` is final.
    fn final_at(&self, end: Timestamp) -> Timestamp {
        end.plus_millis(self.gap)
    }

    fn add(&mut self, stamp: Stamp, record: Keyed<K, V>) -> Result<()> {
        let (start, end) = (stamp.time, stamp.time.plus_millis(self.gap));
        // The end of an earlier run may have fired sessions that its record would have joined: then it is late for them.
        let watermark = stamp.watermark.max(self.reached.watermark);
        if end.plus_millis(self.lateness) <= watermark {
            self.late.take(stamp, record.key, record.value, 1);
            return Ok(());
        }
        let name = &self.name;
        let failed = |e| Error::state(name, "adding a record to its session", e);
        let aggregate = &self.aggregate;
        let table = self.store.table(self.sessions);
        let sessions = table.upsert(record.hash, &record.key, Vec::new).map_err(&failed)?;
        let (at, new) =
            merge(sessions, start, end, || aggregate.create(), |acc, other| aggregate.merge(acc, other));
        let session = &mut sessions[at];
        aggregate.add(&mut session.acc, &record.value);
        if session.fired {
            let window = Window { start: session.start, end: session.end };
            let value = aggregate.finish(&session.acc);
            let stamp = Stamp { time: window.end.minus_millis(1), ..stamp };
            self.out.push(
                self.marks.on(stamp, || record.hash),
                Windowed { key: record.key.clone(), window, value },
            );
        }
        if new {
            let at = self.final_at(end).millis();
            self.store.table(self.timers).register(at, record.hash, &record.key).map_err(&failed)?;
        }
        Ok(())
    }

    /// Looks at the sessions of a key whose timer is due: fires those that are final at `watermark`, drops those that are over at `time`,
    /// and answers when to look at the others again, in `self.again`. Answers the last time at which one of those that fired became final.
    fn look_at(
        &mut self,
        hash: u64,
        key: &K,
        Reached { watermark, time }: Reached,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Timestamp>> {
        let name = &self.name;
        let failed = |e| Error::state(name, "firing a session", e);
        let (gap, lateness) = (self.gap, self.lateness);
        let mut last = None;
        let table = self.store.table(self.sessions);
        let Some(sessions) = table.get_mut(hash, key).map_err(&failed)? else { return Ok(None) };
        let (aggregate, out, again) = (&self.aggregate, &mut self.out, &mut self.again);
        let marks = &self.marks;
        sessions.retain_mut(|session| {
            let fires = session.end.plus_millis(gap);
            let over = fires.plus_millis(lateness);
            if fires <= watermark && !session.fired {
                session.fired = true;
                let window = Window { start: session.start, end: session.end };
                let stamp = Stamp::derived(window.end.minus_millis(1));
                watch.at(&stamp);
                let stamp = marks.on(stamp, || hash);
                out.push(stamp, Windowed { key: key.clone(), window, value: aggregate.finish(&session.acc) });
                last = Some(fires).filter(|fires| *fires < Timestamp::MAX).max(last);
            }
            if over > time {
                again.push(if session.fired { over } else { fires });
            }
            over > time
        });
        if sessions.is_empty() {
            table.remove(hash, key).map_err(&failed)?;
        }
        Ok(last)
    }

    /// Sets the timers that [`Self::look_at`] asked for.
    fn set_again(&mut self, hash: u64, key: &K) -> Result<()> {
        let name = &self.name;
        let failed = |e| Error::state(name, "setting the timer of a session", e);
        let timers = self.store.table(self.timers);
        self.again
            .drain(..)
            .try_for_each(|at| timers.register(at.millis(), hash, key).map(drop))
            .map_err(failed)
    }

    /// Fires what the watermark of `firing` has passed, up to a few batches. Answers whether all of it has fired.
    fn advance(&mut self, firing: &mut Firing<K>, cx: &mut TaskContext<'_>) -> Result<bool> {
        let failed = self.failed("taking the timers that are due");
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        let watermark = firing.watermark;
        let ends = watermark == Timestamp::MAX;
        // How far time has come is known at the end only when all have fired: what may stay until then is looked at again.
        let time = if ends && self.lateness > 0 { self.reached.time } else { watermark };
        for _ in 0..self.out.in_one_go() {
            let due = self.store.table(self.timers).pop(watermark.millis()).map_err(&failed)?;
            let Some((_, hash, key)) = due else {
                self.reached.advance(watermark, firing.last);
                for (hash, key) in firing.kept.drain(..) {
                    self.look_at(hash, &key, self.reached, &mut watch)?;
                    self.set_again(hash, &key)?;
                }
                return Ok(true);
            };
            firing.last = self.look_at(hash, &key, Reached { watermark, time }, &mut watch)?.max(firing.last);
            if !ends {
                self.set_again(hash, &key)?;
            } else if !self.again.is_empty() {
                self.again.clear();
                firing.kept.push((hash, key));
            }
            if self.out.is_full() {
                self.out.send(cx)?;
            }
        }
        Ok(false)
    }
}

impl<K: Key, V: Send + 'static, A: Aggregate<V>> Operator<Keyed<K, V>> for SessionWindows<K, V, A> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.ahead.begin(batch, &self.store);
        let (blame, name) = (self.blame.clone(), Arc::clone(&self.name));
        let mut watch = blame.watch(&name);
        batch.try_drain(|stamp, record| {
            watch.at(stamp);
            self.ahead.step(&self.store);
            self.add(*stamp, record)
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
        // Where no records come, other stores may still exceed the budget.
        self.store.maintain().map_err(|e| Error::state(&self.name, "keeping to the memory budget", e))?;
        self.late.flush(cx)?;
        self.out.flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions_of(times: &[i64], gap: i64) -> Vec<(i64, i64, u64)> {
        let mut sessions: Sessions<u64> = Vec::new();
        for &time in times {
            let (start, end) = (Timestamp::from_millis(time), Timestamp::from_millis(time + gap));
            let (at, _) = merge(&mut sessions, start, end, || 0, |acc, other| *acc += other);
            sessions[at].acc += 1;
        }
        sessions.iter().map(|s| (s.start.millis(), s.end.millis(), s.acc)).collect()
    }

    #[test]
    fn a_record_exactly_a_gap_later_joins() {
        assert_eq!(sessions_of(&[0, 10, 21], 10), [(0, 20, 2), (21, 31, 1)]);
    }

    #[test]
    fn a_record_between_two_sessions_joins_them() {
        assert_eq!(sessions_of(&[0, 20, 10], 10), [(0, 30, 3)]);
    }

    /// Every order of every five times below 12: the sessions are the same as those of the sorted times.
    #[test]
    fn sessions_do_not_depend_on_the_order_of_records() {
        for code in 0..12_i64.pow(4) {
            let times: Vec<i64> = (0..4).map(|n| code / 12_i64.pow(n) % 12).collect();
            let mut sorted = times.clone();
            sorted.sort_unstable();
            assert_eq!(sessions_of(&times, 2), sessions_of(&sorted, 2), "{times:?}");
        }
    }
}
