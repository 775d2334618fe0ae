//! Windows by count: the last so many records of a key, each time that so many more have come.
//!
//! 1. A key's records are counted in turn ([`super::in_turn`]), so that a replay counts the same.
//! 2. They are added to *slices* of as many records as divide both size and slide. When there are enough full slices for the next window, those that it
//!    covers are merged in order and told, and those that no later window covers are let go.

use super::in_turn::{At, ByKey, Effects, Judged, Passed};
use super::{Aggregate, Window};
use crate::batch::Stamp;
use crate::error::BoxError;
use crate::time::Timestamp;
use rivermark_state::{Key, KeyedStore, StateError, TableId, Value, ValueTable};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;

/// How records are divided by count.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct ByCount {
    size: u64,
    slide: u64,
    /// Records of a slice.
    step: u64,
}

impl ByCount {
    pub(super) fn new(size: u64, slide: u64) -> ByCount {
        assert!(size > 0 && slide > 0, "windows of {size} records every {slide}: both must be at least one");
        assert!(slide <= size, "windows of {size} records every {slide}: those in between would be in none");
        ByCount { size, slide, step: gcd(size, slide) }
    }
}

/// `windows of 5 records every 2`: what a checkpoint knows them by.
impl fmt::Display for ByCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "windows of {} records every {}", self.size, self.slide)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Records one after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Slice<A> {
    acc: A,
    first: Timestamp,
    last: Timestamp,
}

impl<A> Slice<A> {
    fn holds(&mut self, first: Timestamp, last: Timestamp) {
        (self.first, self.last) = (self.first.min(first), self.last.max(last));
    }
}

/// What a key has counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Counted<A> {
    /// Oldest first; all are full but the last, perhaps.
    slices: VecDeque<Slice<A>>,
    /// Records since the last window.
    new: u64,
}

/// Windows by count, by key. `tell` makes rows of a window.
pub(super) struct CountWindows<K: Key, V, A: Aggregate<V>, T, O> {
    by_count: ByCount,
    aggregate: A,
    counted: TableId<ValueTable<K, Counted<A::Acc>>>,
    tell: T,
    rows: PhantomData<fn(V) -> O>,
}

impl<K: Key, V, A: Aggregate<V>, T, O> CountWindows<K, V, A, T, O> {
    pub(super) fn open(
        store: &mut KeyedStore,
        by_count: ByCount,
        aggregate: A,
        tell: T,
    ) -> Result<Self, StateError> {
        let counted = store.value_table(Value::new("counted"))?;
        Ok(CountWindows { by_count, aggregate, counted, tell, rows: PhantomData })
    }
}

/// Adds a record. Answers the window that it makes complete.
fn count<V, A: Aggregate<V>>(
    counted: &mut Counted<A::Acc>,
    ByCount { size, slide, step }: ByCount,
    aggregate: &A,
    (time, value): (Timestamp, &V),
) -> Option<(Window, A::Acc)> {
    if counted.new.is_multiple_of(step) {
        counted.slices.push_back(Slice { acc: aggregate.create(), first: time, last: time });
    }
    let slice = counted.slices.back_mut().expect("a slice begins where another is full");
    aggregate.add(&mut slice.acc, value);
    slice.holds(time, time);
    counted.new += 1;
    if counted.new < slide {
        return None;
    }
    counted.new = 0;
    let mut slices = counted.slices.iter();
    let mut whole = slices.next().expect("one was added to").clone();
    for slice in slices {
        aggregate.merge(&mut whole.acc, &slice.acc);
        whole.holds(slice.first, slice.last);
    }
    // What the next window covers besides the records that are to come.
    let kept = ((size - slide) / step) as usize;
    let over = counted.slices.len().saturating_sub(kept);
    counted.slices.drain(..over);
    Some((Window { start: whole.first, end: whole.last.plus_millis(1) }, whole.acc))
}

impl<K, V, A, T, O> ByKey<K, V> for CountWindows<K, V, A, T, O>
where
    K: Key,
    V: 'static,
    A: Aggregate<V>,
    O: Send + 'static,
    T: Fn(&K, Window, A::Out, &mut dyn FnMut(O)) -> Result<(), BoxError> + 'static,
{
    type Out = O;

    fn judge(&self, _time: Timestamp, _watermark: Timestamp) -> Judged {
        Judged { is_wanted: true, missed: 0 }
    }

    fn on_record(
        &mut self,
        stamp: &Stamp,
        value: V,
        At { store, hash, key }: At<'_, K>,
        effects: &mut Effects<'_, O>,
    ) -> Result<(), BoxError> {
        let none = || Counted { slices: VecDeque::new(), new: 0 };
        let counted = store.table(self.counted).upsert(hash, key, none)?;
        let complete = count(counted, self.by_count, &self.aggregate, (stamp.time, &value));
        let Some((window, acc)) = complete else { return Ok(()) };
        (self.tell)(key, window, self.aggregate.finish(&acc), &mut |row| effects.emit(row))
    }

    // Nothing ends but by records.

    fn on_time(
        &mut self,
        _time: Timestamp,
        _forget: Timestamp,
        _at: At<'_, K>,
        _effects: &mut Effects<'_, O>,
    ) -> Result<Passed, BoxError> {
        Ok(Passed::default())
    }

    fn on_clock(&mut self, _at: At<'_, K>, _effects: &mut Effects<'_, O>) -> Result<(), BoxError> {
        Ok(())
    }

    fn after_end(
        &mut self,
        _time: Timestamp,
        _at: At<'_, K>,
        _effects: &mut Effects<'_, O>,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::reduce::Reduce;

    /// For small numbers, windows are the last `size` of every `slide` records.
    #[test]
    fn windows_by_count_hold_the_last_records_of_their_definition() {
        for size in 1..=7_u64 {
            for slide in 1..=size {
                let mut counted = Counted { slices: VecDeque::new(), new: 0 };
                let concatenated = Reduce(|all: &mut Vec<u64>, next: &Vec<u64>| all.extend(next));
                for n in 0..40_u64 {
                    let time = Timestamp::from_millis(n as i64);
                    let complete =
                        count(&mut counted, ByCount::new(size, slide), &concatenated, (time, &vec![n]));
                    let expected = (n + 1).is_multiple_of(slide).then(|| {
                        let held: Vec<u64> = ((n + 1).saturating_sub(size)..=n).collect();
                        let start = Timestamp::from_millis(held[0] as i64);
                        (Window { start, end: time.plus_millis(1) }, Some(held))
                    });
                    assert_eq!(complete, expected, "size {size} slide {slide} record {n}");
                    assert!(counted.slices.len() as u64 <= size / gcd(size, slide));
                }
            }
        }
    }
}
