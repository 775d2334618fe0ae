//! Which of the records that an operator was given for a key a row is made of: pure.

use super::Made;
use rivermark_operators::Timestamp;
use rivermark_operators::batch::{Origin, Stamp};
use rivermark_operators::trace::{Event, Makes, WindowShape};

/// A record, and how far event time had come for the operator when it was given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) stamp: Stamp,
    pub(super) watermark: Timestamp,
}

impl Given {
    /// What it is late by: its partition's watermark, or behind the end of an earlier run, how far time had come then.
    fn judged_by(&self) -> Timestamp {
        self.stamp.watermark.max(self.watermark)
    }
}

/// Why a row is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reasons {
    pub(super) made: Made,
    /// How far event time had come for the operator.
    pub(super) watermark: Timestamp,
    pub(super) contributing: Vec<Given>,
    pub(super) left_out: Vec<Given>,
}

/// The reasons for the row that is event `at`.
pub(super) fn reasons(makes: Makes, events: &[Event], at: usize) -> Option<Reasons> {
    let Some(Event::Emitted { stamp: row }) = events.get(at).copied() else { return None };
    let given = |event: &Event| match *event {
        Event::Record { stamp, watermark } => Some(Given { stamp, watermark }),
        Event::Watermark(_) | Event::Emitted { .. } => None,
    };
    let before: Vec<Given> = events[..at].iter().filter_map(given).collect();
    let all: Vec<Given> = events.iter().filter_map(given).collect();
    let watermark = events[..at].iter().rev().find_map(|event| match *event {
        Event::Watermark(watermark) => Some(watermark),
        Event::Record { watermark, .. } => Some(watermark),
        Event::Emitted { .. } => None,
    });
    let (made, contributing, left_out) = match makes {
        Makes::Windows(shape) => of_window(&shape, row, &before, &all),
        Makes::Sessions { gap, lateness } => of_session(gap, lateness, row, &before, &all)?,
        Makes::History { in_order } => of_history(in_order, row, &before),
    };
    let watermark = watermark.unwrap_or(Timestamp::MIN);
    Some(Reasons { made, watermark, contributing, left_out })
}

type Found = (Made, Vec<Given>, Vec<Given>);

/// A row of a window has the window's last moment as its time.
fn of_window(shape: &WindowShape, row: Stamp, before: &[Given], all: &[Given]) -> Found {
    let window = shape.window(row.time.plus_millis(1));
    let is_within = |given: &&Given| window.start <= given.stamp.time && given.stamp.time < window.end;
    let is_late = |given: &Given| window.end.plus_millis(shape.lateness) <= given.judged_by();
    let contributing = before.iter().filter(is_within).filter(|given| !is_late(given)).copied().collect();
    let late = all.iter().filter(is_within).filter(|given| is_late(given)).copied().collect();
    (Made::Window { start: window.start, end: window.end }, contributing, late)
}

/// A session ends a gap after its last record, and begins with the first one that is not more than a gap before the next.
fn of_session(gap: i64, lateness: i64, row: Stamp, before: &[Given], all: &[Given]) -> Option<Found> {
    let end = row.time.plus_millis(1);
    let last = end.minus_millis(gap);
    let is_late =
        |given: &Given| given.stamp.time.plus_millis(gap).plus_millis(lateness) <= given.judged_by();
    let mut times: Vec<Timestamp> =
        before.iter().filter(|given| !is_late(given)).map(|given| given.stamp.time).collect();
    times.sort_unstable();
    let at = times.iter().rposition(|time| *time == last)?;
    let mut start = last;
    for time in times[..at].iter().rev() {
        if time.plus_millis(gap) < start {
            break;
        }
        start = *time;
    }
    let is_within = |given: &&Given| (start..=last).contains(&given.stamp.time);
    let contributing = before.iter().filter(is_within).filter(|given| !is_late(given)).copied().collect();
    // They would have been part of it, or joined it.
    let touches = |given: &&Given| given.stamp.time <= end && given.stamp.time.plus_millis(gap) >= start;
    let late = all.iter().filter(touches).filter(|given| is_late(given)).copied().collect();
    Some((Made::Session { start, end }, contributing, late))
}

/// A function may remember all that it was given of the key.
fn of_history(in_order: bool, row: Stamp, before: &[Given]) -> Found {
    if !in_order {
        return (Made::Function { in_order }, before.to_vec(), Vec::new());
    }
    let is_late = |given: &&Given| {
        let is_of_source = given.stamp.origin.partition().is_some();
        given.stamp.time < given.stamp.watermark || is_of_source && given.stamp.time < given.watermark
    };
    let until = match row.origin.partition() {
        Some(_) => (row.time, row.origin),
        None => (row.time, Origin::NONE),
    };
    let is_run = |given: &&Given| !is_late(given) && (given.stamp.time, given.stamp.origin) <= until;
    let mut run: Vec<Given> = before.iter().filter(is_run).copied().collect();
    run.sort_by_key(|given| (given.stamp.time, given.stamp.origin));
    let late = before.iter().filter(is_late).copied().collect();
    (Made::Function { in_order }, run, late)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: i64 = i64::MIN;

    /// A record at an offset, at a time, behind a watermark of its partition.
    fn record(offset: u64, time: i64, watermark: i64) -> Event {
        let at = Timestamp::from_millis;
        let stamp = Stamp { time: at(time), watermark: at(watermark), origin: Origin::new(0, offset) };
        Event::Record { stamp, watermark: at(NEVER) }
    }

    fn emitted(time: i64) -> Event {
        Event::Emitted { stamp: Stamp::derived(Timestamp::from_millis(time)) }
    }

    fn offsets(given: &[Given]) -> Vec<u64> {
        given.iter().filter_map(|given| given.stamp.origin.offset()).collect()
    }

    #[test]
    fn a_session_holds_what_follows_within_the_gap_and_not_what_is_late() {
        let makes = Makes::Sessions { gap: 10, lateness: 0 };
        let events = [
            record(0, 0, NEVER),
            record(1, 30, 0),
            record(2, 40, 20),
            record(3, 22, 30),
            record(4, 25, 35),
            Event::Watermark(Timestamp::from_millis(60)),
            emitted(49),
            record(5, 70, 60),
        ];
        let reasons = reasons(makes, &events, 6).unwrap();
        assert_eq!(offsets(&reasons.contributing), [1, 2, 3]);
        assert_eq!(offsets(&reasons.left_out), [4], "its own session was over by its partition's watermark");
        let at = Timestamp::from_millis;
        assert_eq!(reasons.made, Made::Session { start: at(22), end: at(50) });
        assert_eq!(reasons.watermark, at(60));
    }

    #[test]
    fn a_function_in_order_has_been_given_what_is_not_later_than_its_row() {
        let events = [
            record(0, 5, NEVER),
            record(1, 3, NEVER),
            record(2, 9, NEVER),
            record(3, 1, 4),
            Event::Watermark(Timestamp::from_millis(20)),
            Event::Emitted { stamp: Stamp { time: Timestamp::from_millis(5), ..record_stamp(0) } },
        ];
        let in_order = reasons(Makes::History { in_order: true }, &events, 5).unwrap();
        assert_eq!((offsets(&in_order.contributing), offsets(&in_order.left_out)), (vec![1, 0], vec![3]));
        let as_it_comes = reasons(Makes::History { in_order: false }, &events, 5).unwrap();
        assert_eq!(offsets(&as_it_comes.contributing), [0, 1, 2, 3]);
    }

    fn record_stamp(offset: u64) -> Stamp {
        let Event::Record { stamp, .. } = record(offset, 0, NEVER) else { unreachable!() };
        stamp
    }
}
