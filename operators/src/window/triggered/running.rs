//! The operator of windows with triggers: [`super::open`] in state, and rows of what it tells.

use super::mode::Panes;
use super::open::{Rules, Told, Windows};
use crate::batch::Stamp;
use crate::error::BoxError;
use crate::table::Change;
use crate::time::Timestamp;
use crate::window::assign::Shape;
use crate::window::in_turn::{At, ByKey, Effects, Judged, Passed};
use crate::window::trigger::Pane;
use crate::window::{Aggregate, Window};
use rivermark_state::{Key, TableId, ValueTable};
use std::marker::PhantomData;

/// What a pane's row becomes: rows, through the function at the end.
pub(super) type RowOf<M, K, R> = <M as Panes>::Row<K, R>;

/// Windows with triggers, by key. `tell` makes of a pane's row what is given.
pub(super) struct Triggered<K: Key, V, A: Aggregate<V>, M, T, O> {
    pub(super) rules: Rules<V, A>,
    pub(super) open: TableId<ValueTable<K, Windows<A::Acc>>>,
    pub(super) tell: T,
    pub(super) panes: PhantomData<fn(M) -> O>,
}

/// Panes of one key on their way.
struct Telling<'a, 'e, K, M, T, O> {
    key: &'a K,
    effects: &'a mut Effects<'e, O>,
    tell: &'a T,
    /// The first error of the function; nothing is told after it.
    failed: Option<BoxError>,
    panes: PhantomData<fn(M)>,
}

impl<K, M, T, O, R> Told<R> for Telling<'_, '_, K, M, T, O>
where
    K: Key,
    M: Panes,
    R: Send + 'static,
    T: Fn(RowOf<M, K, R>, &mut dyn FnMut(O)) -> Result<(), BoxError>,
{
    fn pane(&mut self, window: Window, pane: Pane, change: Change<R>) {
        if self.failed.is_some() {
            return;
        }
        let Some(row) = M::row(self.key.clone(), window, pane, change) else { return };
        let effects = &mut self.effects;
        self.failed = (self.tell)(row, &mut |row| effects.emit(row)).err();
    }

    fn wake_at(&mut self, time: Timestamp) {
        self.effects.wake_at(time);
    }

    fn wake_by_clock(&mut self, at: Timestamp) {
        self.effects.wake_by_clock(at);
    }
}

impl<K, V, A, M, T, O> Triggered<K, V, A, M, T, O>
where
    K: Key,
    V: 'static,
    A: Aggregate<V>,
    M: Panes,
    T: Fn(RowOf<M, K, A::Out>, &mut dyn FnMut(O)) -> Result<(), BoxError>,
{
    /// Calls `change` on the windows of a key, if it has any; forgets the key if none are left.
    fn change<R: Default>(
        &mut self,
        At { store, hash, key }: At<'_, K>,
        effects: &mut Effects<'_, O>,
        change: impl FnOnce(&Rules<V, A>, &mut Windows<A::Acc>, &mut Telling<'_, '_, K, M, T, O>) -> R,
    ) -> Result<R, BoxError> {
        let table = store.table(self.open);
        let Some(windows) = table.get_mut(hash, key)? else { return Ok(R::default()) };
        let mut told = Telling { key, effects, tell: &self.tell, failed: None, panes: PhantomData };
        let result = change(&self.rules, windows, &mut told);
        told.failed.map_or(Ok(()), Err)?;
        if windows.is_empty() {
            table.remove(hash, key)?;
        }
        Ok(result)
    }
}

impl<K, V, A, M, T, O> ByKey<K, V> for Triggered<K, V, A, M, T, O>
where
    K: Key,
    V: 'static,
    A: Aggregate<V>,
    M: Panes,
    O: Send + 'static,
    T: Fn(RowOf<M, K, A::Out>, &mut dyn FnMut(O)) -> Result<(), BoxError> + 'static,
{
    type Out = O;

    fn judge(&self, time: Timestamp, watermark: Timestamp) -> Judged {
        let rules = &self.rules;
        match rules.shape {
            Shape::Global => Judged { is_wanted: true, missed: 0 },
            Shape::Session { gap } => {
                let missed = rules.has_missed(time.plus_millis(gap), watermark);
                Judged { is_wanted: !missed, missed: missed.into() }
            }
            Shape::Sliding(slices) => {
                let mut judged = Judged { is_wanted: false, missed: 0 };
                for end in slices.ends(time) {
                    // Ends rise: those behind the first that wants it do too.
                    if !rules.has_missed(end, watermark) {
                        judged.is_wanted = true;
                        break;
                    }
                    judged.missed += 1;
                }
                judged
            }
        }
    }

    fn on_record(
        &mut self,
        stamp: &Stamp,
        value: V,
        At { store, hash, key }: At<'_, K>,
        effects: &mut Effects<'_, O>,
    ) -> Result<(), BoxError> {
        let windows = store.table(self.open).upsert(hash, key, Vec::new)?;
        let (turn, now) = (effects.time, effects.now);
        let mut told =
            Telling::<K, M, T, O> { key, effects, tell: &self.tell, failed: None, panes: PhantomData };
        let at = self.rules.place(windows, (stamp.time, stamp.watermark, turn), &mut told);
        for open in &mut windows[at] {
            self.rules.add(open, &value, (turn, now), &mut told);
        }
        told.failed.map_or(Ok(()), Err)
    }

    fn on_time(
        &mut self,
        time: Timestamp,
        forget: Timestamp,
        at: At<'_, K>,
        effects: &mut Effects<'_, O>,
    ) -> Result<Passed, BoxError> {
        let passed =
            self.change(at, effects, |rules, windows, told| rules.pass(windows, (time, forget), told));
        let (last, is_kept) = passed?;
        Ok(Passed { last, is_kept })
    }

    fn on_clock(&mut self, at: At<'_, K>, effects: &mut Effects<'_, O>) -> Result<(), BoxError> {
        let now = effects.now;
        self.change(at, effects, |rules, windows, told| rules.by_clock(windows, now, told))
    }

    fn after_end(
        &mut self,
        time: Timestamp,
        at: At<'_, K>,
        effects: &mut Effects<'_, O>,
    ) -> Result<(), BoxError> {
        self.change(at, effects, |rules, windows, told| rules.after_end(windows, time, told))
    }
}
