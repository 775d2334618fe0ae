//! What windows mean, as loops over the partitions: the definition of `rivermark::Windows`, without slices, state, workers or firing. It counts in
//! `i128`, so that the ends of the range of times are no special case but the last step: what lies beyond is cut off there.

use crate::support::Event;
use rivermark::{Windows, millis};
use std::collections::{BTreeMap, BTreeSet};

/// How time is divided.
#[derive(Copy, Clone, Debug)]
pub enum Shape {
    Sliding { size: i64, slide: i64, offset: i64 },
    Session { gap: i64 },
}

impl Shape {
    /// The same, told to the engine.
    pub fn windows(self) -> Windows {
        let span = |n: i64| millis(n as u64);
        match self {
            Shape::Sliding { size, slide, offset } => {
                Windows::sliding(span(size), span(slide)).starting_at(span(offset))
            }
            Shape::Session { gap } => Windows::session(span(gap)),
        }
    }
}

/// Values of one key in one window, sorted: those that were on time, and with them those that were allowed late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub on_time: Vec<i64>,
    pub all: Vec<i64>,
}

/// By key, start and end.
pub type Rows = BTreeMap<(u8, i64, i64), Held>;

/// What must come of records: the rows, and the late records with the number of windows that each has missed.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub rows: Rows,
    pub late: Vec<(Event, u64)>,
}

/// A record with the watermark of its partition just before it.
pub type Stamped<'a> = (i128, &'a Event);

/// Stamps the records of each partition; `after` tells the watermark after each of the times seen so far.
pub fn stamped(partitions: &[Vec<Event>], after: impl Fn(&[i64]) -> i64) -> Vec<Stamped<'_>> {
    let mut stamped = Vec::new();
    for partition in partitions {
        let (mut watermark, mut times) = (i64::MIN, Vec::new());
        for event in partition {
            stamped.push((i128::from(watermark), event));
            times.push(event.time);
            // The end of time is the end of the stream, which no record can tell.
            watermark = watermark.max(after(&times)).min(i64::MAX - 1);
        }
    }
    stamped
}

/// The watermark of records that are out of order by at most `bound`.
pub fn bounded(bound: i64) -> impl Fn(&[i64]) -> i64 {
    move |times| times.last().expect("after a record").saturating_sub(bound)
}

/// What must come of these records.
pub fn expected(stamped: &[Stamped<'_>], shape: Shape, lateness: i64) -> Expected {
    let mut expected = match shape {
        Shape::Sliding { size, slide, offset } => {
            sliding(stamped, size.into(), slide.into(), offset.into(), lateness.into())
        }
        Shape::Session { gap } => sessions(stamped, gap.into(), lateness.into()),
    };
    for held in expected.rows.values_mut() {
        held.on_time.sort_unstable();
        held.all.sort_unstable();
    }
    expected.late.sort();
    expected
}

const MAX: i128 = i64::MAX as i128;

/// A time of the range, for one that may lie beyond.
fn cut(time: i128) -> i64 {
    time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// Windows of `size` every `slide`, by trying them. Those that end at the end of time or beyond it are one window.
fn sliding(stamped: &[Stamped<'_>], size: i128, slide: i128, offset: i128, lateness: i128) -> Expected {
    let mut expected = Expected::default();
    let last_start = |time: i128| (time - offset).div_euclid(slide) * slide + offset;
    let of_the_last = last_start(MAX - size - 1) + slide;
    for (watermark, event) in stamped {
        let (mut missed, mut seen) = (0, BTreeSet::new());
        let mut start = last_start(event.time.into());
        while start + size > event.time.into() {
            let end = start + size;
            let window = if end >= MAX { (of_the_last, MAX) } else { (start, end) };
            start -= slide;
            if !seen.insert(window) {
                continue;
            }
            if *watermark >= end + lateness {
                missed += 1;
                continue;
            }
            let held = expected.rows.entry((event.key, cut(window.0), cut(end))).or_default();
            held.all.push(event.value);
            if *watermark < end {
                held.on_time.push(event.value);
            }
        }
        if missed > 0 {
            expected.late.push(((*event).clone(), missed));
        }
    }
    expected
}

/// Sessions by `gap`: a record is late if its own session was over; the others are sorted and cut where more than a gap lies between.
fn sessions(stamped: &[Stamped<'_>], gap: i128, lateness: i128) -> Expected {
    let mut expected = Expected::default();
    let mut by_key: BTreeMap<u8, Vec<&Event>> = BTreeMap::new();
    for (watermark, event) in stamped {
        if i128::from(event.time) + gap + lateness <= *watermark {
            expected.late.push(((*event).clone(), 1));
        } else {
            by_key.entry(event.key).or_default().push(event);
        }
    }
    for (key, mut events) in by_key {
        events.sort_by_key(|event| event.time);
        for session in events.chunk_by(|a, b| i128::from(b.time) - i128::from(a.time) <= gap) {
            let values: Vec<i64> = session.iter().map(|event| event.value).collect();
            let end = cut(i128::from(session[session.len() - 1].time) + gap);
            expected.rows.insert((key, session[0].time, end), Held { on_time: values.clone(), all: values });
        }
    }
    expected
}
