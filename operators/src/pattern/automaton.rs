//! The automaton: what an event does to the partial matches of its key. It is a function of both and of nothing else.
//!
//! A partial match waits for some steps at once, as bits: for its last step again, if that repeats, and for those that can come next. With
//! each event, for each partial match in turn:
//!
//! 1. What the event ends is no longer waited for: a repetition by its `until`, a step by a negation that stands before it.
//! 2. Each step that is waited for and takes the event gives a new partial match. It is waited for no longer, unless it follows by any. If
//!    it is greedy, later steps are not waited for any more either, and do not get the event.
//! 3. A step that must follow directly and does not take the event is no longer waited for.
//! 4. A partial match that waits for nothing is dropped.
//!
//! Then the event begins new partial matches. The new stand where the old one stood, before what is left of it, and those that begin come
//! last; so partial matches are always in the order of their events, and matches come out in it.

use super::condition::Condition;
use super::describe::Contiguity;
use super::runs::{Complete, Match, Run, Runs, Start};
use crate::time::Timestamp;
use std::cell::Cell;
use std::sync::Arc;

/// A pattern that has been checked.
pub(crate) struct Automaton<V> {
    pub(super) steps: Vec<Step<V>>,
    /// What must not come before each step, and before the end.
    pub(super) negations: Vec<Vec<Negation<V>>>,
    /// The steps that a match can begin with, as bits.
    pub(super) first: u64,
    /// In milliseconds.
    pub(super) within: Option<i64>,
    pub(super) skip: Skip,
}

pub(super) struct Step<V> {
    pub(super) name: Arc<str>,
    /// Its place in the pattern, by which an event's answers to conditions are found.
    pub(super) slot: usize,
    /// To the step before.
    pub(super) contiguity: Contiguity,
    pub(super) condition: Condition<V>,
    pub(super) is_optional: bool,
    pub(super) min: u32,
    pub(super) max: Option<u32>,
    /// Between its own events.
    pub(super) between: Contiguity,
    pub(super) is_greedy: bool,
    pub(super) until: Option<Condition<V>>,
    /// What can come when it has taken enough events, as bits: steps, and the end if there is something to wait for.
    pub(super) after: u64,
    /// Whether a match is complete when it has taken enough events.
    pub(super) completes: bool,
}

pub(super) struct Negation<V> {
    pub(super) slot: usize,
    /// Whether it forbids the next event only.
    pub(super) is_next: bool,
    pub(super) condition: Condition<V>,
}

/// What is skipped when a match has been told. Steps by index.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Skip {
    Nothing,
    ToNext,
    PastLastEvent,
    ToFirst(usize),
    ToLast(usize),
}

/// What the automaton tells.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Match,
    /// A partial match whose time is up.
    TimedOut,
}

/// The event in hand.
struct Hand {
    /// Where it is in the buffer.
    event: u32,
    position: u64,
    conditions: Answers,
    untils: Answers,
}

/// What an event answered to conditions that ask for nothing else, as bits.
#[derive(Default)]
struct Answers {
    asked: Cell<u64>,
    yes: Cell<u64>,
}

impl Answers {
    fn ask<V: 'static>(
        &self,
        slot: usize,
        condition: &Condition<V>,
        event: &V,
        so_far: &Match<'_, V>,
    ) -> bool {
        if condition.sees_earlier() {
            return condition.holds(event, so_far);
        }
        let bit = 1 << slot;
        if self.asked.get() & bit == 0 {
            self.asked.set(self.asked.get() | bit);
            if condition.holds(event, so_far) {
                self.yes.set(self.yes.get() | bit);
            }
        }
        self.yes.get() & bit != 0
    }
}

/// The places of the bits that are set, the lowest first.
fn places(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(place)
    })
}

impl<V: 'static> Automaton<V> {
    /// The bit of the end.
    fn end(&self) -> usize {
        self.steps.len()
    }

    /// When the time of what began at `start` is up.
    pub(super) fn deadline(&self, start: Timestamp) -> Option<Timestamp> {
        self.within.map(|within| start.plus_millis(within))
    }

    /// Whether a match can begin with this event.
    pub(super) fn begins_with(&self, event: &V) -> bool {
        let nothing = Runs::default();
        let so_far = Match { automaton: self, buffer: &nothing.buffer, last: None };
        places(self.first).any(|step| self.steps[step].condition.holds(event, &so_far))
    }

    /// Takes the next event of a key; events come in order of time.
    pub(super) fn step(
        &self,
        runs: &mut Runs<V>,
        time: Timestamp,
        event: V,
        tell: &mut dyn FnMut(Told, &Match<'_, V>),
    ) {
        self.expire(runs, time, tell);
        let position = runs.next;
        runs.next += 1;
        let event = runs.buffer.push_event(position, time, event);
        let hand = Hand { event, position, conditions: Answers::default(), untils: Answers::default() };
        let mut open = Vec::new();
        for run in std::mem::take(&mut runs.open) {
            self.advance(run, &hand, runs, &mut open);
        }
        self.begin(time, &hand, runs, &mut open);
        runs.open = open;
        self.tell(runs, tell);
        runs.tidy(event);
    }

    /// Tells what is over at `now`, in event time: partial matches time out, and matches are complete whose end was waited for.
    pub(super) fn expire(
        &self,
        runs: &mut Runs<V>,
        now: Timestamp,
        tell: &mut dyn FnMut(Told, &Match<'_, V>),
    ) {
        let is_over = |run: &Run| self.deadline(run.start.time).is_some_and(|deadline| deadline <= now);
        while let Some(first) = runs.open.first().filter(|run| is_over(run)).map(|run| run.start.position) {
            let end = 1 << self.end();
            let complete = &mut runs.complete;
            runs.open.retain(|run| {
                let completes = run.start.position == first && run.pending & end != 0;
                if completes {
                    complete.push(Complete { start: run.start, last: run.last });
                }
                !completes
            });
            // These may skip the others.
            self.tell(runs, tell);
            let begun = runs.open.partition_point(|run| run.start.position <= first);
            for run in runs.open.drain(..begun) {
                let partial = Match { automaton: self, buffer: &runs.buffer, last: Some(run.last) };
                if !self.is_match(&partial, run.count) {
                    tell(Told::TimedOut, &partial);
                }
            }
            // And the others may have waited for those.
            self.tell(runs, tell);
        }
        if runs.is_idle() {
            runs.tidy(0);
        }
    }

    /// Whether a partial match is a match too, which can go on.
    fn is_match(&self, partial: &Match<'_, V>, count: u32) -> bool {
        let step = partial.backwards().next().map(|(step, _)| &self.steps[step]);
        step.is_some_and(|step| step.completes && count >= step.min)
    }

    /// What becomes of a partial match with the event in hand.
    fn advance(&self, mut run: Run, hand: &Hand, runs: &mut Runs<V>, open: &mut Vec<Run>) {
        let node = runs.buffer.nodes[run.last as usize];
        let from = usize::from(node.step);
        let is_next = runs.buffer.event(&node).position + 1 == hand.position;
        for to in places(run.pending) {
            let so_far = Match { automaton: self, buffer: &runs.buffer, last: Some(run.last) };
            let bit = 1 << to;
            if self.is_ended(from, to, is_next, hand, &so_far) {
                run.pending &= !bit;
                continue;
            }
            if to == self.end() {
                // Nothing is left to come if only the next event was forbidden, and it was another.
                if self.negations[to].iter().all(|negation| negation.is_next) {
                    run.pending &= !bit;
                    runs.complete.push(Complete { start: run.start, last: run.last });
                }
                continue;
            }
            let step = &self.steps[to];
            let contiguity = if to == from { step.between } else { step.contiguity };
            let takes = self.takes(to, hand, &so_far);
            if contiguity == Contiguity::Strict || takes && contiguity == Contiguity::Relaxed {
                run.pending &= !bit;
            }
            if takes {
                let count = if to == from { run.count.saturating_add(1) } else { 1 };
                self.take(to, count, run.start, Some(run.last), hand, runs, open);
                if step.is_greedy {
                    run.pending &= bit | (bit - 1);
                    break;
                }
            }
        }
        if run.pending != 0 {
            open.push(run);
        }
    }

    /// Whether the event in hand ends the wait of a partial match at step `from` for step `to`.
    fn is_ended(&self, from: usize, to: usize, is_next: bool, hand: &Hand, so_far: &Match<'_, V>) -> bool {
        let event = &so_far.buffer.events[hand.event as usize].value;
        if to == from {
            let step = &self.steps[to];
            return step.until.as_ref().is_some_and(|until| hand.untils.ask(step.slot, until, event, so_far));
        }
        let mut between =
            self.negations[from + 1..=to].iter().flatten().filter(|not| is_next || !not.is_next);
        between.any(|not| hand.conditions.ask(not.slot, &not.condition, event, so_far))
    }

    fn takes(&self, step: usize, hand: &Hand, so_far: &Match<'_, V>) -> bool {
        let step = &self.steps[step];
        let event = &so_far.buffer.events[hand.event as usize].value;
        hand.conditions.ask(step.slot, &step.condition, event, so_far)
    }

    /// Begins partial matches with the event in hand.
    fn begin(&self, time: Timestamp, hand: &Hand, runs: &mut Runs<V>, open: &mut Vec<Run>) {
        let start = Start { position: hand.position, time };
        for to in places(self.first) {
            let so_far = Match { automaton: self, buffer: &runs.buffer, last: None };
            if self.takes(to, hand, &so_far) {
                self.take(to, 1, start, None, hand, runs, open);
                if self.steps[to].is_greedy {
                    break;
                }
            }
        }
    }

    /// Makes the partial match in which step `to` takes the event in hand.
    #[expect(clippy::too_many_arguments, reason = "what a partial match is made of, and where it goes")]
    fn take(
        &self,
        to: usize,
        count: u32,
        start: Start,
        before: Option<u32>,
        hand: &Hand,
        runs: &mut Runs<V>,
        open: &mut Vec<Run>,
    ) {
        let step = &self.steps[to];
        let last = runs.buffer.push_node(hand.event, to, before);
        let mut pending = 0;
        if step.max.is_none_or(|max| count < max) {
            pending |= 1 << to;
        }
        if count >= step.min {
            pending |= step.after;
            if step.completes {
                runs.complete.push(Complete { start, last });
            }
        }
        if pending != 0 {
            open.push(Run { start, last, count, pending });
        }
    }

    /// Tells the complete matches that need not wait for others, and skips what they skip.
    fn tell(&self, runs: &mut Runs<V>, tell: &mut dyn FnMut(Told, &Match<'_, V>)) {
        if self.skip == Skip::Nothing {
            for complete in runs.complete.drain(..) {
                tell(
                    Told::Match,
                    &Match { automaton: self, buffer: &runs.buffer, last: Some(complete.last) },
                );
            }
            return;
        }
        loop {
            // Of those that began first, the one that was complete first.
            let first = runs.complete.iter().enumerate().min_by_key(|(_, complete)| complete.start.position);
            let Some((at, &Complete { start, last })) = first else { return };
            if runs.open.first().is_some_and(|run| run.start.position < start.position) {
                return;
            }
            runs.complete.remove(at);
            let found = Match { automaton: self, buffer: &runs.buffer, last: Some(last) };
            tell(Told::Match, &found);
            let until = self.skips_to(start, &found);
            runs.open.retain(|run| run.start.position >= until);
            runs.complete.retain(|complete| complete.start.position >= until);
        }
    }

    /// The first position that a match can begin at when this one has been told.
    fn skips_to(&self, start: Start, found: &Match<'_, V>) -> u64 {
        let of = |wanted: usize| {
            found.backwards().filter(move |(step, _)| *step == wanted).map(|(_, event)| event.position)
        };
        let to = match self.skip {
            Skip::Nothing => None,
            Skip::ToNext => Some(start.position + 1),
            Skip::PastLastEvent => found.backwards().next().map(|(_, event)| event.position + 1),
            Skip::ToFirst(step) => of(step).last(),
            Skip::ToLast(step) => of(step).next(),
        };
        to.unwrap_or(start.position)
    }
}
