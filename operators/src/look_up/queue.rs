//! The queue of a look-up: which record is asked about next, when it is asked again, and what may leave. It decides and does nothing.

use super::reply::Ticket;
use crate::batch::Stamp;
use crate::edge::Signal;
use crate::error::BoxError;
use crate::time::Timestamp;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// What a look-up was told.
#[derive(Copy, Clone, Debug)]
pub(super) struct Rules {
    /// Requests out at once.
    pub(super) capacity: usize,
    /// For each attempt.
    pub(super) time_out: Duration,
    pub(super) retries: u32,
    /// Between attempts.
    pub(super) pause: Duration,
    pub(super) ordered: bool,
}

/// How a record stands.
pub(super) enum Phase<V, A> {
    /// To be asked about.
    New(V),
    /// This attempt is out.
    Asked(V, u32),
    /// This attempt has failed, and another will be made.
    Pausing(V, u32),
    /// Answered.
    Answered(V, A),
    /// Passed on before its turn; the answer, encoded for the journal.
    Gone(Vec<u8>),
    /// All attempts have failed: somebody has to decide.
    GivenUp(V),
}

/// A record in the queue.
pub(super) struct Waiting<V, A> {
    pub(super) stamp: Stamp,
    /// Tells requests about one offset apart in the journal.
    pub(super) request: u32,
    pub(super) phase: Phase<V, A>,
}

/// What the queue holds.
pub(super) enum Entry<V, A> {
    Record(Waiting<V, A>),
    Signal(Signal),
}

/// See the module's page.
pub(super) struct Queue<V, A> {
    rules: Rules,
    entries: VecDeque<Entry<V, A>>,
    /// The place of the first entry. Places are never given twice.
    first: u64,
    /// Before this place nothing is new.
    next_new: u64,
    /// Records that are asked about, pauses included.
    out: usize,
    /// New records.
    new: usize,
    /// When attempts time out and pauses end.
    due: BinaryHeap<Reverse<(Timestamp, Ticket)>>,
    /// Places of signals.
    signals: VecDeque<u64>,
    /// Places of answered records before the first signal that may leave early.
    early: Vec<u64>,
}

impl<V, A> Queue<V, A> {
    pub(super) fn new(rules: Rules) -> Self {
        Queue {
            rules,
            entries: VecDeque::new(),
            first: 0,
            next_new: 0,
            out: 0,
            new: 0,
            due: BinaryHeap::new(),
            signals: VecDeque::new(),
            early: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it takes no more for now: there are records to be asked about already, or too much waits behind one answer.
    pub(super) fn is_full(&self) -> bool {
        self.new > 0 || self.entries.len() >= 16 * self.rules.capacity.max(64)
    }

    /// All entries, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry<V, A>> {
        self.entries.iter()
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Adds a signal at the end. One watermark behind another takes its place, but for the end of time: how far it had come before is where
    /// a next run goes on.
    pub(super) fn push_signal(&mut self, signal: Signal) {
        let is_end = matches!(signal, Signal::Watermark(Timestamp::MAX));
        if !is_end
            && let (Signal::Watermark(_), Some(Entry::Signal(last @ Signal::Watermark(_)))) =
                (signal, self.entries.back_mut())
        {
            *last = signal;
            return;
        }
        self.signals.push_back(self.end());
        self.entries.push_back(Entry::Signal(signal));
    }

    /// Adds a record at the end.
    pub(super) fn push(&mut self, record: Waiting<V, A>) {
        let place = self.end();
        match &record.phase {
            Phase::New(_) => self.new += 1,
            Phase::Answered(..) => self.note_answered(place),
            _ => {}
        }
        self.entries.push_back(Entry::Record(record));
    }

    /// Notes that the record at `place` may leave before its turn, if it may.
    fn note_answered(&mut self, place: u64) {
        if !self.rules.ordered && self.signals.front().is_none_or(|signal| place < *signal) {
            self.early.push(place);
        }
    }

    fn at(&mut self, place: u64) -> Option<&mut Waiting<V, A>> {
        let index = place.checked_sub(self.first)?;
        match self.entries.get_mut(usize::try_from(index).ok()?)? {
            Entry::Record(record) => Some(record),
            Entry::Signal(_) => None,
        }
    }

    /// The next record to be asked about, if another request may be out; from `now` on it is.
    pub(super) fn next_to_ask(&mut self, now: Timestamp) -> Option<(Ticket, &Stamp, &V)> {
        if self.new == 0 || self.out >= self.rules.capacity {
            return None;
        }
        self.next_new = self.next_new.max(self.first);
        let is_new =
            |entry: &Entry<V, A>| matches!(entry, Entry::Record(Waiting { phase: Phase::New(_), .. }));
        let skipped = self.entries.range((self.next_new - self.first) as usize..).position(is_new)?;
        let place = self.next_new + skipped as u64;
        self.next_new = place + 1;
        self.new -= 1;
        self.out += 1;
        self.ask(Ticket { place, attempt: 1 }, now)
    }

    /// Marks that the attempt is out from `now` on.
    fn ask(&mut self, ticket: Ticket, now: Timestamp) -> Option<(Ticket, &Stamp, &V)> {
        self.due.push(Reverse((now + self.rules.time_out, ticket)));
        let record = self.at(ticket.place)?;
        record.phase = match std::mem::replace(&mut record.phase, Phase::Gone(Vec::new())) {
            Phase::New(value) | Phase::Pausing(value, _) => Phase::Asked(value, ticket.attempt),
            other => other,
        };
        match &record.phase {
            Phase::Asked(value, _) => Some((ticket, &record.stamp, value)),
            _ => None,
        }
    }

    /// Takes a reply. What is not to the attempt that is out came too late. Where it was the last attempt and failed, the answer is why: the record
    /// is given up, and waits for [`Queue::answer_instead`].
    pub(super) fn hear(
        &mut self,
        ticket: Ticket,
        reply: Result<A, BoxError>,
        now: Timestamp,
    ) -> Option<BoxError> {
        let Rules { retries, pause, .. } = self.rules;
        let record = self.at(ticket.place)?;
        if !matches!(record.phase, Phase::Asked(_, attempt) if attempt == ticket.attempt) {
            return None;
        }
        let Phase::Asked(value, _) = std::mem::replace(&mut record.phase, Phase::Gone(Vec::new())) else {
            return None;
        };
        match reply {
            Ok(answer) => {
                record.phase = Phase::Answered(value, answer);
                self.out -= 1;
                self.note_answered(ticket.place);
                None
            }
            Err(_) if ticket.attempt <= retries => {
                record.phase = Phase::Pausing(value, ticket.attempt);
                self.due.push(Reverse((now + pause, ticket)));
                None
            }
            Err(reason) => {
                record.phase = Phase::GivenUp(value);
                self.out -= 1;
                Some(reason)
            }
        }
    }

    /// Answers a record that was given up.
    pub(super) fn answer_instead(&mut self, place: u64, answer: A) {
        let Some(record) = self.at(place) else { return };
        record.phase = match std::mem::replace(&mut record.phase, Phase::Gone(Vec::new())) {
            Phase::GivenUp(value) => Phase::Answered(value, answer),
            other => other,
        };
        self.note_answered(place);
    }

    /// The record that was given up at this place.
    pub(super) fn given_up(&mut self, place: u64) -> Option<(&Stamp, &V)> {
        match self.at(place)? {
            Waiting { stamp, phase: Phase::GivenUp(value), .. } => Some((stamp, value)),
            _ => None,
        }
    }

    /// The next attempt whose time is over by `now`, or whose pause: that is asked again with [`Queue::ask_again`].
    pub(super) fn next_due(&mut self, now: Timestamp) -> Option<Due> {
        while let Some(Reverse((at, ticket))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let due = match self.at(ticket.place).map(|record| &record.phase) {
                Some(Phase::Asked(_, attempt)) if *attempt == ticket.attempt => Some(Due::TimedOut(ticket)),
                Some(Phase::Pausing(_, attempt)) if *attempt == ticket.attempt => Some(Due::Again(ticket)),
                _ => None,
            };
            if due.is_some() {
                return due;
            }
        }
        None
    }

    /// Makes the attempt after that of `ticket`.
    pub(super) fn ask_again(&mut self, ticket: Ticket, now: Timestamp) -> Option<(Ticket, &Stamp, &V)> {
        self.ask(Ticket { attempt: ticket.attempt + 1, ..ticket }, now)
    }

    /// Takes what may leave for good: a signal with nothing before it, or the first record once it is answered.
    pub(super) fn pop(&mut self) -> Option<Entry<V, A>> {
        let leaves = match self.entries.front()? {
            Entry::Signal(_) => true,
            Entry::Record(record) => matches!(record.phase, Phase::Answered(..) | Phase::Gone(_)),
        };
        let entry = if leaves { self.entries.pop_front()? } else { return None };
        self.first += 1;
        if let Entry::Signal(_) = entry {
            self.signals.pop_front();
            self.open_segment();
        }
        Some(entry)
    }

    /// Looks for records that have been answered while a signal was before them.
    fn open_segment(&mut self) {
        if self.rules.ordered {
            return;
        }
        let until = self.signals.front().copied().unwrap_or(self.end());
        let answered = self.entries.iter().take((until - self.first) as usize).enumerate();
        let answered = answered
            .filter(|(_, entry)| matches!(entry, Entry::Record(Waiting { phase: Phase::Answered(..), .. })));
        let first = self.first;
        self.early.extend(answered.map(|(index, _)| first + index as u64));
    }

    /// Takes an answered record before its turn, leaving `gone` of it in its place.
    pub(super) fn take_early<E>(
        &mut self,
        gone: impl Fn(&A) -> Result<Vec<u8>, E>,
    ) -> Option<Result<(Stamp, V, A), E>> {
        while let Some(place) = self.early.pop() {
            let Some(record) = self.at(place) else { continue };
            let Phase::Answered(_, answer) = &record.phase else { continue };
            let bytes = match gone(answer) {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error)),
            };
            let stamp = record.stamp;
            if let Phase::Answered(value, answer) = std::mem::replace(&mut record.phase, Phase::Gone(bytes)) {
                return Some(Ok((stamp, value, answer)));
            }
        }
        None
    }
}

/// What the clock brings about.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The attempt was not answered in time.
    TimedOut(Ticket),
    /// The pause after the attempt is over.
    Again(Ticket),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::millis;

    type Numbers = Queue<u64, u64>;

    fn rules(ordered: bool) -> Rules {
        Rules { capacity: 3, time_out: millis(10), retries: 1, pause: millis(5), ordered }
    }

    fn at(now: i64) -> Timestamp {
        Timestamp::from_millis(now)
    }

    fn push(queue: &mut Numbers, value: u64) {
        queue.push(Waiting { stamp: Stamp::derived(at(0)), request: 0, phase: Phase::New(value) });
    }

    fn ask_all(queue: &mut Numbers, now: i64) -> Vec<(Ticket, u64)> {
        std::iter::from_fn(|| queue.next_to_ask(at(now)).map(|(ticket, _, value)| (ticket, *value))).collect()
    }

    /// What leaves now: records as their value, signals as 1000 and more.
    fn leaving(queue: &mut Numbers) -> Vec<u64> {
        let mut left = Vec::new();
        loop {
            if let Some(taken) = queue.take_early(|_| Ok::<_, ()>(vec![1])) {
                left.push(taken.unwrap().1);
                continue;
            }
            match queue.pop() {
                Some(Entry::Signal(Signal::Watermark(time))) => left.push(1000 + time.millis() as u64),
                Some(Entry::Signal(_)) => left.push(999),
                Some(Entry::Record(Waiting { phase: Phase::Answered(value, _), .. })) => left.push(value),
                Some(Entry::Record(_)) => {}
                None => return left,
            }
        }
    }

    #[test]
    fn no_more_requests_are_out_than_the_capacity_and_the_queue_says_that_it_is_full() {
        let mut queue = Numbers::new(rules(true));
        (0..5).for_each(|n| push(&mut queue, n));
        let asked = ask_all(&mut queue, 0);
        assert_eq!(asked.iter().map(|asked| asked.1).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(queue.is_full());
        let _ = queue.hear(asked[1].0, Ok(1), at(1));
        assert_eq!(ask_all(&mut queue, 1).len(), 1);
        assert!(queue.is_full());
        let _ = queue.hear(asked[0].0, Ok(1), at(1));
        assert_eq!(ask_all(&mut queue, 1).len(), 1);
        assert!(!queue.is_full());
    }

    #[test]
    fn in_order_an_answer_waits_for_those_before_it_and_unordered_only_for_signals() {
        for (ordered, first, second) in
            [(true, vec![], vec![0, 1, 1007, 2]), (false, vec![1], vec![0, 1007, 2])]
        {
            let mut queue = Numbers::new(rules(ordered));
            push(&mut queue, 0);
            push(&mut queue, 1);
            queue.push_signal(Signal::Watermark(at(6)));
            queue.push_signal(Signal::Watermark(at(7)));
            push(&mut queue, 2);
            let asked = ask_all(&mut queue, 0);
            let _ = queue.hear(asked[2].0, Ok(0), at(1));
            let _ = queue.hear(asked[1].0, Ok(0), at(1));
            assert_eq!(leaving(&mut queue), first, "ordered: {ordered}");
            let _ = queue.hear(asked[0].0, Ok(0), at(1));
            assert_eq!(leaving(&mut queue), second, "ordered: {ordered}");
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn an_attempt_that_times_out_is_made_again_after_the_pause_and_the_reply_to_the_first_counts_no_more() {
        let mut queue = Numbers::new(rules(true));
        push(&mut queue, 7);
        let (first, _) = ask_all(&mut queue, 0)[0];
        assert_eq!(queue.next_due(at(9)), None);
        assert_eq!(queue.next_due(at(10)), Some(Due::TimedOut(first)));
        assert!(queue.hear(first, Err("late".into()), at(10)).is_none());
        assert!(queue.hear(first, Ok(1), at(11)).is_none());
        assert!(leaving(&mut queue).is_empty(), "it was given up");
        assert_eq!(queue.next_due(at(14)), None);
        assert_eq!(queue.next_due(at(15)), Some(Due::Again(first)));
        let (second, ..) = queue.ask_again(first, at(15)).unwrap();
        assert_eq!((second.place, second.attempt), (0, 2));
        let why = queue.hear(second, Err("down".into()), at(16)).unwrap();
        assert_eq!(why.to_string(), "down");
        assert_eq!(queue.next_due(at(100)), None, "what was given up is not due");
        queue.answer_instead(0, 9);
        assert_eq!(leaving(&mut queue), [7]);
    }

    /// Every order of replies to four records with a signal in the middle: what leaves is complete, and nothing passes the signal.
    #[test]
    fn in_every_order_of_replies_everything_leaves_once_and_nothing_passes_a_signal() {
        for ordered in [true, false] {
            for code in 0..24_usize {
                let mut queue = Numbers::new(Rules { capacity: 4, ..rules(ordered) });
                push(&mut queue, 0);
                push(&mut queue, 1);
                queue.push_signal(Signal::Watermark(at(0)));
                push(&mut queue, 2);
                push(&mut queue, 3);
                let mut asked = ask_all(&mut queue, 0);
                let (mut left, mut code) = (Vec::new(), code);
                for base in (1..=4).rev() {
                    let (ticket, _) = asked.remove(code % base);
                    code /= base;
                    let _ = queue.hear(ticket, Ok(0), at(1));
                    left.extend(leaving(&mut queue));
                }
                assert!(queue.is_empty() && queue.out == 0);
                let signal = left.iter().position(|n| *n == 1000).unwrap();
                assert_eq!((left.len(), signal), (5, 2), "{left:?}");
                assert!(left[..2].iter().all(|n| *n < 2), "{left:?}");
                assert!(!ordered || left == [0, 1, 1000, 2, 3], "{left:?}");
            }
        }
    }
}
