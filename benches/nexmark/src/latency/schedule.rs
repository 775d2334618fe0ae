//! When an event is due, and which event a result waits for: pure functions of numbers.

use crate::queries::Query;
use rivermark::Timestamp;

/// What a result's latency is counted from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The moment at which the event that the row is made of was due.
    Event,
    /// The moment at which the event was due that moves event time past the end of the row's window: without it the row could not be.
    Window,
}

impl Start {
    /// From when on a query's rows are late, or `None` for a query whose rows wait for something else: an auction's end, a session's gap.
    pub fn of(query: Query) -> Option<Start> {
        match query {
            Query::Q0 | Query::Q1 | Query::Q2 | Query::Q18 | Query::Q19 => Some(Start::Event),
            Query::Q5 | Query::Q7 | Query::Q8 | Query::Q12 => Some(Start::Window),
            _ => None,
        }
    }
}

/// An open loop: event `n` is due at a moment that nothing which happens can put off.
#[derive(Copy, Clone, Debug)]
pub struct Schedule {
    nanos_per_event: f64,
}

impl Schedule {
    /// `rate` events a second.
    pub fn of(rate: f64) -> Schedule {
        Schedule { nanos_per_event: 1e9 / rate }
    }

    /// When event `n` is due, in nanoseconds after the beginning.
    #[inline]
    pub fn due(&self, n: u64) -> u64 {
        (n as f64 * self.nanos_per_event) as u64
    }

    /// How many events are due `nanos` after the beginning.
    pub fn due_by(&self, nanos: u64) -> u64 {
        (nanos as f64 / self.nanos_per_event) as u64 + 1
    }
}

/// Windows end at whole seconds of event time.
const MILLIS: i64 = 1000;

/// Which event moves event time past each whole second.
///
/// Event time is that of the partition that is furthest behind; a partition's is the greatest time in it, less the disorder.
#[derive(Clone, Debug)]
pub struct Firings {
    disorder_ms: i64,
    /// The greatest time in each partition.
    greatest: Vec<i64>,
    /// The second that the first of `events` is for.
    first: i64,
    events: Vec<u64>,
}

impl Firings {
    /// Before any event; none is earlier than `beginning`.
    pub fn new(partitions: usize, disorder_ms: u64, beginning: Timestamp) -> Firings {
        let disorder_ms = disorder_ms as i64;
        let first = (beginning.millis() - disorder_ms) / MILLIS;
        Firings { disorder_ms, greatest: vec![i64::MIN / 2; partitions], first, events: Vec::new() }
    }

    /// Takes note of event `n`, which follows those before it in its partition.
    #[inline]
    pub fn note(&mut self, partition: usize, time: Timestamp, n: u64) {
        if time.millis() <= self.greatest[partition] {
            return;
        }
        self.greatest[partition] = time.millis();
        let slowest = self.greatest.iter().copied().fold(i64::MAX, i64::min) - self.disorder_ms;
        while (self.first + self.events.len() as i64) * MILLIS <= slowest {
            self.events.push(n);
        }
    }

    /// The event that lets a window fire whose last millisecond is `last`; `None` if it has not been, so that only the stream's end can.
    pub fn of(&self, last: Timestamp) -> Option<u64> {
        let end = last.millis() + 1;
        let second = end.div_euclid(MILLIS) + i64::from(end.rem_euclid(MILLIS) > 0);
        self.events.get(usize::try_from(second - self.first).ok()?).copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_due_by_its_own_moment_and_not_before() {
        for rate in [1.0, 3.0, 10_000.0, 1_234_567.0] {
            let schedule = Schedule::of(rate);
            for n in [0, 1, 2, 1000, 1_000_000] {
                let due = schedule.due(n);
                // A nanosecond is what rounding may cost.
                assert!(
                    schedule.due_by(due + 1) > n && (due < 2 || schedule.due_by(due - 2) <= n),
                    "{n} at {rate}"
                );
            }
        }
    }

    #[test]
    fn a_window_fires_with_the_event_that_lets_the_slowest_partition_pass_its_end() {
        let at = Timestamp::from_millis;
        let mut firings = Firings::new(2, 500, at(10_000));
        firings.note(0, at(12_600), 0);
        assert_eq!(firings.of(at(10_999)), None, "the other partition may still bring something");
        firings.note(1, at(11_499), 1);
        assert_eq!(firings.of(at(10_999)), None);
        firings.note(1, at(11_500), 2);
        firings.note(1, at(11_200), 3);
        firings.note(1, at(12_500), 4);
        assert_eq!((firings.of(at(10_999)), firings.of(at(11_999))), (Some(2), Some(4)));
        assert_eq!((firings.of(at(9_999)), firings.of(at(12_999))), (Some(1), None));
    }
}
