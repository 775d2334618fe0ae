//! What windows mean, as loops over the partitions: the definition of `rivermark::Windows`, without slices, state, workers or firing.

use crate::support::Event;
use std::collections::{BTreeMap, BTreeSet};

/// Values of one key in one window, sorted: those that were on time, and with them those that were allowed late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub on_time: Vec<i64>,
    pub all: Vec<i64>,
}

/// By key, start and end.
pub type Rows = BTreeMap<(u8, i64, i64), Held>;

/// Each record with the watermark of its partition just before it.
fn stamped(partitions: &[Vec<Event>], bound: i64) -> Vec<(i64, &Event)> {
    let mut stamped = Vec::new();
    for partition in partitions {
        let mut watermark = i64::MIN;
        for event in partition {
            stamped.push((watermark, event));
            watermark = watermark.max(event.time.saturating_sub(bound));
        }
    }
    stamped
}

/// Windows of `size` every `slide`: their rows, and the late records.
pub fn sliding(
    partitions: &[Vec<Event>],
    bound: i64,
    (size, slide): (i64, i64),
    lateness: i64,
) -> (Rows, Vec<Event>) {
    let (mut rows, mut late) = (Rows::new(), Vec::new());
    for (watermark, event) in stamped(partitions, bound) {
        let mut missed = false;
        let mut start = event.time.div_euclid(slide) * slide;
        while start + size > event.time {
            let end = start + size;
            if watermark < end + lateness {
                let held = rows.entry((event.key, start, end)).or_default();
                held.all.push(event.value);
                if watermark < end {
                    held.on_time.push(event.value);
                }
            } else {
                missed = true;
            }
            start -= slide;
        }
        if missed {
            late.push(event.clone());
        }
    }
    for held in rows.values_mut() {
        held.on_time.sort_unstable();
        held.all.sort_unstable();
    }
    late.sort();
    (rows, late)
}

/// Sessions by `gap`: a record is late if its own session was over; the others are sorted and cut where more than a gap lies between.
pub fn sessions(partitions: &[Vec<Event>], bound: i64, gap: i64) -> (Rows, Vec<Event>) {
    let (on_time, late): (Vec<_>, Vec<_>) =
        stamped(partitions, bound).into_iter().partition(|(watermark, event)| event.time + gap > *watermark);
    let keys: BTreeSet<u8> = on_time.iter().map(|(_, event)| event.key).collect();
    let mut rows = Rows::new();
    for key in keys {
        let mut events: Vec<&Event> = on_time.iter().map(|(_, e)| *e).filter(|e| e.key == key).collect();
        events.sort_by_key(|event| event.time);
        for session in events.chunk_by(|a, b| b.time - a.time <= gap) {
            let mut values: Vec<i64> = session.iter().map(|event| event.value).collect();
            values.sort_unstable();
            let window = (key, session[0].time, session[session.len() - 1].time + gap);
            rows.insert(window, Held { on_time: values.clone(), all: values });
        }
    }
    let mut late: Vec<Event> = late.into_iter().map(|(_, event)| event.clone()).collect();
    late.sort();
    (rows, late)
}
