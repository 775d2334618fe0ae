//! Which windows a time belongs to: pure arithmetic over slices.
//!
//! Windows of one size and slide are cut into *slices*, the greatest common step of the two: state is kept once a slice, and a window
//! is the slices it covers (Li et al., "No Pane, No Gain", SIGMOD Record 2005; Traub et al., "Scotty", ICDE 2018).

use crate::time::{Timestamp, span_millis};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A window of event time: `start` is in it, `end` is not.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first time in it.
    pub start: Timestamp,
    /// The first time after it.
    pub end: Timestamp,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Sliding(Slices),
    Session { gap: i64 },
    Global,
}

/// How event time is divided for a windowed aggregation.
#[derive(Copy, Clone, Debug)]
pub struct Windows {
    pub(crate) shape: Shape,
}

impl Windows {
    /// Windows of `size`, one after the other, aligned to the epoch.
    ///
    /// # Panics
    /// If the size is below a millisecond.
    pub fn tumbling(size: Duration) -> Windows {
        Self::sliding(size, size)
    }

    /// Windows of `size` that start every `slide`, aligned to the epoch; a record is in `size / slide` of them, rounded up.
    ///
    /// # Panics
    /// If the size or slide is below a millisecond, or the slide is above the size (records between windows would be lost).
    pub fn sliding(size: Duration, slide: Duration) -> Windows {
        let (size, slide) = (span_millis(size), span_millis(slide));
        assert!(
            size > 0 && slide > 0,
            "windows of {size} ms every {slide} ms: both must be at least a millisecond"
        );
        assert!(slide <= size, "windows of {size} ms every {slide} ms: records in between would be in none");
        Windows { shape: Shape::Sliding(Slices { size, slide, step: gcd(size, slide), offset: 0 }) }
    }

    /// Shifts tumbling or sliding windows: they start at `offset` after the epoch. No effect on others.
    pub fn starting_at(mut self, offset: Duration) -> Windows {
        if let Shape::Sliding(slices) = &mut self.shape {
            slices.offset = span_millis(offset).rem_euclid(slices.slide);
        }
        self
    }

    /// Windows of activity: records of a key belong together while the next follows within `gap`. A record exactly `gap` after
    /// the one before is in the same session. The window's end is the last record's time plus `gap`.
    ///
    /// # Panics
    /// If the gap is below a millisecond.
    pub fn session(gap: Duration) -> Windows {
        let gap = span_millis(gap);
        assert!(gap > 0, "a session gap must be at least a millisecond");
        Windows { shape: Shape::Session { gap } }
    }

    /// One window a key, of all time. It never ends, so it needs a [`Trigger`](super::Trigger) to say when it tells what it holds; its state is
    /// kept for good.
    pub fn global() -> Windows {
        Windows { shape: Shape::Global }
    }
}

/// `tumbling windows of 60000 ms`: what errors call them, and what a checkpoint knows them by.
impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shape {
            Shape::Sliding(Slices { size, slide, offset, .. }) => {
                if slide == size {
                    write!(f, "tumbling windows of {size} ms")?;
                } else {
                    write!(f, "sliding windows of {size} ms every {slide} ms")?;
                }
                if offset > 0 { write!(f, " starting at {offset} ms") } else { Ok(()) }
            }
            Shape::Session { gap } => write!(f, "sessions with a gap of {gap} ms"),
            Shape::Global => f.write_str("global windows"),
        }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The slices of tumbling or sliding windows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slices {
    size: i64,
    slide: i64,
    step: i64,
    offset: i64,
}

impl fmt::Display for Slices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Slices { size, slide, offset, .. } = self;
        write!(f, "windows of {size} ms every {slide} ms from {offset} ms on")
    }
}

impl Slices {
    /// The start of the slice that holds `time`.
    #[inline]
    pub(crate) fn slice_of(&self, time: Timestamp) -> Timestamp {
        time.floor(self.step, self.offset)
    }

    /// The end of the first window that covers the slice starting at `slice`: the earliest end after the slice's start. Ends beyond
    /// the range of time are its last moment.
    pub(crate) fn first_end(&self, slice: Timestamp) -> Timestamp {
        // Ends are at offset + size + n * slide.
        // Neither is negative, so their sum fits u64 though perhaps not i64.
        let ends = ((self.offset as u64 + self.size as u64) % self.slide as u64) as i64;
        slice.plus_millis(self.slide - slice.into_slice(self.slide, ends))
    }

    /// The end of the last window that covers the slice starting at `slice`.
    #[inline]
    pub(crate) fn last_end(&self, slice: Timestamp) -> Timestamp {
        // Counted from the slice, since the window's start may be before all time, where its end is not.
        slice.plus_millis(self.size - slice.into_slice(self.slide, self.offset))
    }

    /// The window that ends at `end`.
    pub(crate) fn window(&self, end: Timestamp) -> Window {
        // The last windows of all end at the end of the range or beyond it, and are one: it begins where the first of them does.
        let start = if end == Timestamp::MAX {
            let before_the_first = end.minus_millis(self.size).minus_millis(1);
            before_the_first.floor(self.slide, self.offset).plus_millis(self.slide)
        } else {
            end.minus_millis(self.size)
        };
        Window { start, end }
    }

    /// The end after `end`.
    pub(crate) fn next_end(&self, end: Timestamp) -> Timestamp {
        end.plus_millis(self.slide)
    }

    /// The ends of all windows that hold `time`, rising.
    pub(crate) fn ends(self, time: Timestamp) -> impl Iterator<Item = Timestamp> {
        let slice = self.slice_of(time);
        let last = self.last_end(slice);
        let next = move |end: &Timestamp| (*end < Timestamp::MAX).then(|| self.next_end(*end));
        std::iter::successors(Some(self.first_end(slice)), next).take_while(move |end| *end <= last)
    }
}

/// The slice of the record before. Most records follow it into the same slice, where a comparison takes the place of divisions.
#[derive(Copy, Clone, Debug)]
pub(crate) struct LastSlice {
    slice: Timestamp,
    /// Times from `slice` up to here are known to be in it.
    until: Timestamp,
    first_end: Timestamp,
}

impl LastSlice {
    /// No record has been seen.
    pub(crate) fn none() -> LastSlice {
        LastSlice { slice: Timestamp::MIN, until: Timestamp::MIN, first_end: Timestamp::MIN }
    }

    /// The slice that holds `time`, and the end of the first window that covers it.
    #[inline]
    pub(crate) fn of(&mut self, slices: &Slices, time: Timestamp) -> (Timestamp, Timestamp) {
        if time < self.slice || time >= self.until {
            *self = LastSlice::found(slices, time);
        }
        (self.slice, self.first_end)
    }

    #[cold]
    fn found(slices: &Slices, time: Timestamp) -> LastSlice {
        let slice = slices.slice_of(time);
        // A slice that is cut off where time begins ends earlier than its length says.
        let until = if slice == Timestamp::MIN { slice } else { slice.plus_millis(slices.step) };
        LastSlice { slice, until, first_end: slices.first_end(slice) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::millis;

    fn slices(size: u64, slide: u64, offset: u64) -> Slices {
        match Windows::sliding(millis(size), millis(slide)).starting_at(millis(offset)).shape {
            Shape::Sliding(slices) => slices,
            Shape::Session { .. } | Shape::Global => unreachable!(),
        }
    }

    /// For small numbers, every time's windows by slices are those found by trying all windows.
    #[test]
    fn slices_agree_with_the_definition_of_windows() {
        for size in 1..=6_u64 {
            for slide in 1..=size {
                for offset in 0..slide {
                    let slices = slices(size, slide, offset);
                    for time in -20..20_i64 {
                        let expected: Vec<i64> = (-50..50)
                            .map(|n| n * slide as i64 + offset as i64)
                            .filter(|start| (*start..start + size as i64).contains(&time))
                            .map(|start| start + size as i64)
                            .collect();
                        let slice = slices.slice_of(Timestamp::from_millis(time));
                        let (mut end, last) = (slices.first_end(slice), slices.last_end(slice));
                        let mut ends = vec![];
                        while end <= last {
                            ends.push(end.millis());
                            assert_eq!(slices.window(end).start.millis(), end.millis() - size as i64);
                            end = slices.next_end(end);
                        }
                        let all = slices.ends(Timestamp::from_millis(time)).map(Timestamp::millis);
                        assert_eq!(all.collect::<Vec<_>>(), expected);
                        assert_eq!(ends, expected, "size {size} slide {slide} offset {offset} time {time}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_remembered_of_the_record_before_changes_no_slice() {
        let edges = [
            i64::MIN,
            i64::MIN + 1,
            i64::MIN + 7,
            -8,
            -1,
            0,
            1,
            5,
            6,
            7,
            i64::MAX - 6,
            i64::MAX - 1,
            i64::MAX,
        ];
        for slices in [slices(6, 4, 1), slices(5, 5, 0), slices(7, 3, 2)] {
            let mut last = LastSlice::none();
            for before in edges {
                for time in edges.into_iter().chain(-20..20) {
                    for time in [before, time].map(Timestamp::from_millis) {
                        let slice = slices.slice_of(time);
                        assert_eq!(
                            last.of(&slices, time),
                            (slice, slices.first_end(slice)),
                            "{slices} {time}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_ends_of_time_have_windows_too() {
        let hourly = slices(3_600_000, 3_600_000, 0);
        let last = hourly.slice_of(Timestamp::MAX);
        assert_eq!(hourly.last_end(last), Timestamp::MAX);
        assert_eq!(hourly.window(Timestamp::MAX).start, last);
        let sliding = slices(3_600_000, 600_000, 0);
        let merged = sliding.window(Timestamp::MAX).start;
        assert_eq!(merged.plus_millis(3_600_000), Timestamp::MAX);
        assert!(merged.minus_millis(600_000).plus_millis(3_600_000) < Timestamp::MAX);
        let first = hourly.slice_of(Timestamp::MIN);
        assert_eq!(first, Timestamp::MIN);
        // The first window begins before all time; it ends where the others of its kind do all the same.
        let end = hourly.first_end(first);
        assert_eq!((end, end.millis() % 3_600_000), (hourly.last_end(first), 0));
        assert_eq!(hourly.slice_of(end), end);
    }
}
