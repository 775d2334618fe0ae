//! Random patterns over random events against an oracle, which knows no automaton: it tries every sequence of events and steps, and asks of
//! each whether the seven sentences of the module's page hold.

use super::automaton::Told;
use super::condition::Condition;
use super::describe::{AfterMatch, Contiguity, Part, Pattern, Repeats};
use super::runs::Runs;
use crate::time::{Timestamp, millis};
use proptest::prelude::*;
use std::cell::Cell;

/// Events are letters.
type Letter = u8;
const LETTERS: u8 = 3;

/// What a step takes: some letters, as bits; and, if it looks back, only if an even number of the events before are of the same letter.
#[derive(Copy, Clone, Debug)]
struct Wants {
    letters: u8,
    looks_back: bool,
}

impl Wants {
    fn wants(self, event: Letter, before: impl Iterator<Item = Letter>) -> bool {
        let even = || before.filter(|letter| *letter == event).count() % 2 == 0;
        self.letters >> event & 1 == 1 && (!self.looks_back || even())
    }

    fn condition(self) -> Condition<Letter> {
        match self.looks_back {
            false => Condition::simple(move |event| self.wants(*event, std::iter::empty())),
            true => Condition::iterative(move |event, so_far| {
                self.wants(*event, so_far.all().into_iter().map(|(_, _, letter)| *letter))
            }),
        }
    }
}

#[derive(Clone, Debug)]
struct Repeating {
    min: u32,
    max: Option<u32>,
    contiguity: Contiguity,
    is_greedy: bool,
    until: Option<u8>,
}

/// A step as the oracle reads it.
#[derive(Clone, Debug)]
struct Stated {
    is_negation: bool,
    contiguity: Contiguity,
    wants: Wants,
    is_optional: bool,
    repeats: Option<Repeating>,
}

#[derive(Clone, Debug)]
struct Case {
    parts: Vec<Stated>,
    within: i64,
    skip: Skipping,
    /// Time and letter.
    events: Vec<(i64, Letter)>,
}

#[derive(Copy, Clone, Debug)]
enum Skipping {
    No,
    ToNext,
    PastLast,
    ToFirst(usize),
    ToLast(usize),
}

impl Case {
    fn pattern(&self) -> Pattern<Letter> {
        let name = |at: usize| at.to_string();
        let part = |(at, stated): (usize, &Stated)| Part {
            name: name(at).into(),
            is_negation: stated.is_negation,
            contiguity: stated.contiguity,
            condition: stated.wants.condition(),
            is_optional: stated.is_optional,
            repeats: stated.repeats.clone().map(|repeats| Repeats {
                min: repeats.min,
                max: repeats.max,
                contiguity: repeats.contiguity,
                is_greedy: repeats.is_greedy,
                until: repeats.until.map(|letter| Condition::simple(move |event| *event == letter)),
            }),
        };
        let after_match = match self.skip {
            Skipping::No => AfterMatch::NoSkip,
            Skipping::ToNext => AfterMatch::SkipToNext,
            Skipping::PastLast => AfterMatch::SkipPastLastEvent,
            Skipping::ToFirst(at) => AfterMatch::SkipToFirst(name(at)),
            Skipping::ToLast(at) => AfterMatch::SkipToLast(name(at)),
        };
        let parts = self.parts.iter().enumerate().map(part).collect();
        Pattern { parts, within: Some(millis(self.within as u64)), after_match, problem: None }
    }
}

/// Which events, by position, go to which parts.
type Sequence = Vec<(usize, usize)>;

/// When a match is complete: with an event, or before it, when time is up.
type Moment = (usize, bool);

struct Oracle<'a> {
    case: &'a Case,
    /// Matches, with the moment at which they are complete.
    matches: Vec<(Moment, Sequence)>,
    /// Partial matches whose time is up.
    timed_out: Vec<Sequence>,
}

impl Oracle<'_> {
    fn letter(&self, at: usize) -> Letter {
        self.case.events[at].1
    }

    fn end(&self) -> usize {
        self.case.parts.len()
    }

    /// The first position at which the time of what began with `start` is up.
    fn deadline(&self, start: usize) -> usize {
        let (events, over) = (&self.case.events, self.case.events[start].0 + self.case.within);
        (start..events.len()).find(|at| events[*at].0 >= over).unwrap_or(events.len())
    }

    fn count(&self, so_far: &Sequence) -> u32 {
        let last = so_far.last().map(|(_, part)| *part);
        so_far.iter().filter(|(_, part)| Some(*part) == last).count() as u32
    }

    fn has_enough(&self, so_far: &Sequence) -> bool {
        let Some((_, last)) = so_far.last() else { return true };
        self.case.parts[*last].repeats.as_ref().is_none_or(|repeats| self.count(so_far) >= repeats.min)
    }

    /// The parts that the next event can go to, by number and optionality alone; the end among them.
    fn targets(&self, so_far: &Sequence) -> Vec<usize> {
        let parts = &self.case.parts;
        let mut targets = Vec::new();
        let last = so_far.last().map(|(_, part)| *part);
        if let Some((last, repeats)) = last.and_then(|last| Some((last, parts[last].repeats.as_ref()?)))
            && repeats.max.is_none_or(|max| self.count(so_far) < max)
        {
            targets.push(last);
        }
        if self.has_enough(so_far) {
            for (at, part) in parts.iter().enumerate().skip(last.map_or(0, |last| last + 1)) {
                if part.is_negation {
                    continue;
                }
                targets.push(at);
                if !part.is_optional {
                    return targets;
                }
            }
            targets.push(self.end());
        }
        targets
    }

    fn wants(&self, part: usize, at: usize, so_far: &Sequence) -> bool {
        let before = so_far.iter().map(|(at, _)| self.letter(*at));
        self.case.parts[part].wants.wants(self.letter(at), before)
    }

    fn is_repeat(so_far: &Sequence, target: usize) -> bool {
        so_far.last().is_some_and(|(_, part)| *part == target)
    }

    /// Whether nothing among the events after the last one, below `until`, ends the wait for a target.
    fn is_waited_for(&self, so_far: &Sequence, target: usize, until: usize) -> bool {
        let Some(&(last, from)) = so_far.last() else { return true };
        let parts = &self.case.parts;
        let between = last + 1..until;
        // Until, and negation.
        let undisturbed = if target == from {
            let ends = parts[from].repeats.as_ref().and_then(|repeats| repeats.until);
            between.clone().all(|at| ends != Some(self.letter(at)))
        } else {
            (from + 1..target).filter(|part| parts[*part].is_negation).all(|not| {
                let is_next = parts[not].contiguity == Contiguity::Strict;
                between.clone().all(|at| (is_next && at > last + 1) || !self.wants(not, at, so_far))
            })
        };
        // Greed.
        let targets = self.targets(so_far);
        let is_greedy =
            |part: usize| part < self.end() && parts[part].repeats.as_ref().is_some_and(|r| r.is_greedy);
        let greedier = targets.into_iter().filter(|other| *other < target && is_greedy(*other));
        let untaken =
            greedier.clone().all(|greedy| between.clone().all(|at| !self.can_take(so_far, greedy, at)));
        undisturbed && untaken
    }

    /// Whether what lies between the last event and this one may do so.
    fn is_contiguous(&self, so_far: &Sequence, target: usize, at: usize) -> bool {
        let Some(&(last, _)) = so_far.last() else { return true };
        if target == self.end() {
            return true;
        }
        let part = &self.case.parts[target];
        let contiguity = match &part.repeats {
            Some(repeats) if Self::is_repeat(so_far, target) => repeats.contiguity,
            _ => part.contiguity,
        };
        match contiguity {
            Contiguity::Strict => at == last + 1,
            Contiguity::Relaxed => (last + 1..at).all(|between| !self.wants(target, between, so_far)),
            Contiguity::Any => true,
        }
    }

    fn can_take(&self, so_far: &Sequence, target: usize, at: usize) -> bool {
        self.wants(target, at, so_far)
            && self.is_contiguous(so_far, target, at)
            && match so_far.is_empty() {
                // A match begins with its first step, unless it leaves that out, which greed forbids where it could be taken.
                true => !self.targets(so_far).into_iter().filter(|other| *other < target).any(|other| {
                    self.case.parts[other].repeats.as_ref().is_some_and(|r| r.is_greedy)
                        && self.wants(other, at, so_far)
                }),
                false => self.is_waited_for(so_far, target, at + 1),
            }
    }

    /// Finds all matches that go on from here.
    fn explore(&mut self, so_far: &Sequence) {
        let start = so_far.first().map(|(at, _)| *at);
        let until = start.map_or(self.case.events.len(), |start| self.deadline(start));
        let first = so_far.last().map_or(0, |(at, _)| at + 1);
        let targets = self.targets(so_far);
        let trailing: Vec<_> = self.case.parts.iter().rev().take_while(|part| part.is_negation).collect();
        let mut is_match = so_far.is_empty();
        if !so_far.is_empty() && targets.contains(&self.end()) {
            if trailing.is_empty() {
                self.matches.push(((first - 1, true), so_far.clone()));
                is_match = true;
            } else if trailing.iter().all(|not| not.contiguity == Contiguity::Strict) && first < until {
                // The next event has the answer.
                if self.is_waited_for(so_far, self.end(), first + 1) {
                    self.matches.push(((first, true), so_far.clone()));
                }
            } else if self.is_waited_for(so_far, self.end(), until) {
                self.matches.push(((until, false), so_far.clone()));
                is_match = true;
            }
        }
        let (end, answered) = (self.end(), until > first);
        let still_open = targets.iter().filter(|target| **target != end).any(|target| {
            let contiguous = match self.contiguity(so_far, *target) {
                Contiguity::Strict => !answered,
                _ => self.is_contiguous(so_far, *target, until),
            };
            contiguous && self.is_waited_for(so_far, *target, until)
        });
        if !is_match && still_open {
            self.timed_out.push(so_far.clone());
        }
        for target in targets.into_iter().filter(|target| *target != end) {
            for at in first..until {
                if self.can_take(so_far, target, at) {
                    let mut longer = so_far.clone();
                    longer.push((at, target));
                    self.explore(&longer);
                }
            }
        }
    }

    fn contiguity(&self, so_far: &Sequence, target: usize) -> Contiguity {
        let part = &self.case.parts[target];
        match &part.repeats {
            Some(repeats) if Self::is_repeat(so_far, target) => repeats.contiguity,
            _ => part.contiguity,
        }
    }

    /// What is skipped is gone: in the order in which matches are to be told, each skips others.
    fn skip(&mut self) {
        let end = self.end();
        // Where one ends and the other goes on, the one that goes on takes an event before the other is at its end.
        let order = |(moment, sequence): &(Moment, Sequence)| {
            let mut events = sequence.clone();
            events.push((moment.0, end));
            (*moment, events)
        };
        if let Skipping::No = self.case.skip {
            let of_deadline = |moment: &Moment, sequence: &Sequence| (!moment.1).then(|| sequence[0].0);
            self.matches.sort_by_key(|found| {
                let (moment, events) = order(found);
                (moment.0, moment.1, of_deadline(&found.0, &found.1), events)
            });
            return;
        }
        self.matches.sort_by_key(|found| (found.1[0].0, order(found)));
        let mut from = 0;
        let mut skipped = Vec::new();
        let skip = self.case.skip;
        self.matches.retain(|(_, sequence)| {
            let start = sequence[0].0;
            if start < from {
                return false;
            }
            let of =
                |wanted: usize| sequence.iter().filter(move |(_, part)| *part == wanted).map(|(at, _)| *at);
            let to = match skip {
                Skipping::No => None,
                Skipping::ToNext => Some(start + 1),
                Skipping::PastLast => sequence.last().map(|(at, _)| at + 1),
                Skipping::ToFirst(part) => of(part).next(),
                Skipping::ToLast(part) => of(part).next_back(),
            };
            from = to.unwrap_or(start);
            skipped.push(start..from);
            true
        });
        self.timed_out.retain(|sequence| !skipped.iter().any(|range| range.contains(&sequence[0].0)));
    }
}

/// What the automaton tells, as positions and parts. It is encoded and decoded before each event.
fn run(case: &Case) -> Option<(Vec<Sequence>, Vec<Sequence>)> {
    let automaton = case.pattern().compile().ok()?;
    let (mut matches, mut timed_out) = (Vec::new(), Vec::new());
    let mut runs = Runs::default();
    let position_of = Cell::new(0);
    let mut tell = |told: Told, found: &super::Match<'_, Letter>| {
        // The buffer's positions begin anew where there was no partial match.
        let sequence: Sequence = found
            .backwards()
            .map(|(step, event)| {
                let name = &automaton.steps[step].name;
                (event.position as usize + position_of.get(), name.parse().unwrap())
            })
            .collect();
        let sequence = sequence.into_iter().rev().collect();
        if told == Told::Match { matches.push(sequence) } else { timed_out.push(sequence) }
    };
    for (at, (time, letter)) in case.events.iter().enumerate() {
        let mut bytes = Vec::new();
        rivermark_state::encode_into(&runs, &mut bytes).unwrap();
        runs = rivermark_state::decode(&bytes).unwrap();
        let time = Timestamp::from_millis(*time);
        // As a timer would.
        automaton.expire(&mut runs, time, &mut tell);
        if runs.next == 0 {
            position_of.set(at);
        }
        automaton.step(&mut runs, time, *letter, &mut tell);
    }
    automaton.expire(&mut runs, Timestamp::MAX, &mut tell);
    assert!(runs.is_idle() && runs.buffer.nodes.is_empty() && runs.buffer.events.is_empty());
    Some((matches, timed_out))
}

fn contiguity() -> impl Strategy<Value = Contiguity> {
    prop_oneof![Just(Contiguity::Strict), Just(Contiguity::Relaxed), Just(Contiguity::Any)]
}

fn wants() -> impl Strategy<Value = Wants> {
    (1..1_u8 << LETTERS, prop::bool::weighted(0.3))
        .prop_map(|(letters, looks_back)| Wants { letters, looks_back })
}

fn repeating() -> impl Strategy<Value = Repeating> {
    let times = prop_oneof![
        (1..4_u32).prop_map(|n| (n, Some(n))),
        (1..3_u32, 1..3_u32).prop_map(|(min, more)| (min, Some(min + more))),
        (1..3_u32).prop_map(|min| (min, None)),
    ];
    (times, contiguity(), any::<bool>(), prop::option::of(0..LETTERS)).prop_map(
        |((min, max), contiguity, greedy, until)| {
            let is_greedy = greedy && contiguity != Contiguity::Any;
            Repeating { min, max, contiguity, is_greedy, until: until.filter(|_| max.is_none()) }
        },
    )
}

fn stated() -> impl Strategy<Value = Stated> {
    let step = (contiguity(), wants(), prop::bool::weighted(0.25), prop::option::weighted(0.4, repeating()));
    let step = step.prop_map(|(contiguity, wants, is_optional, repeats)| Stated {
        is_negation: false,
        contiguity,
        wants,
        is_optional,
        repeats,
    });
    let negation = (any::<bool>(), wants()).prop_map(|(next, wants)| {
        let contiguity = if next { Contiguity::Strict } else { Contiguity::Relaxed };
        Stated { is_negation: true, contiguity, wants, is_optional: false, repeats: None }
    });
    prop_oneof![3 => step, 1 => negation]
}

fn case() -> impl Strategy<Value = Case> {
    let events = prop::collection::vec((0..3_i64, 0..LETTERS), 0..11).prop_map(|steps| {
        let mut time = 0;
        let rising = steps.into_iter().map(|(step, letter)| {
            time += step;
            (time, letter)
        });
        rising.collect()
    });
    let skip = prop_oneof![
        2 => Just(Skipping::No),
        1 => Just(Skipping::ToNext),
        1 => Just(Skipping::PastLast),
        1 => (0..4_usize).prop_map(Skipping::ToFirst),
        1 => (0..4_usize).prop_map(Skipping::ToLast),
    ];
    let parts = prop::collection::vec(stated(), 1..5).prop_map(|mut parts: Vec<Stated>| {
        // A pattern begins with a step.
        parts[0].is_negation = false;
        parts
    });
    (parts, 1..12_i64, skip, events).prop_map(|(parts, within, skip, events)| Case {
        parts,
        within,
        skip,
        events,
    })
}

#[test]
fn the_automaton_tells_what_trying_every_sequence_finds() {
    let (compared, found, timed_out) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(case in case())| {
        let Some((matches, partial)) = run(&case) else { return Ok(()) };
        let mut oracle = Oracle { case: &case, matches: Vec::new(), timed_out: Vec::new() };
        oracle.explore(&Vec::new());
        oracle.skip();
        let expected: Vec<_> = oracle.matches.iter().map(|(_, sequence)| sequence.clone()).collect();
        prop_assert_eq!(&matches, &expected, "matches of {}", case.pattern());
        let (mut partial, mut expected) = (partial, oracle.timed_out);
        partial.sort();
        expected.sort();
        prop_assert_eq!(&partial, &expected, "timed out of {}", case.pattern());
        compared.set(compared.get() + 1);
        found.set(found.get() + matches.len());
        timed_out.set(timed_out.get() + partial.len());
    });
    let seen = (compared.get(), found.get(), timed_out.get());
    assert!(seen.0 > 5000 && seen.1 > 5000 && seen.2 > 5000, "{seen:?} is too little to get wrong");
}
