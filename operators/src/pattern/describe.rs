//! How a pattern is described, step by step.

use super::condition::Condition;
use super::{Automaton, Match};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Which events may lie between two that are matched.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Contiguity {
    /// None.
    Strict,
    /// Those that could not have been taken themselves.
    Relaxed,
    /// Any.
    Any,
}

/// What happens to the other matches when one has been told. (Flink's `AfterMatchSkipStrategy`.)
///
/// With any of these but [`AfterMatch::NoSkip`] the match with the earlier first event goes first: a match waits to be told until nothing
/// that began before it can become a match any more. Of matches that begin with the same event the one that is complete first goes first,
/// and of those that are complete at once the one that takes the earlier event where they differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AfterMatch {
    /// Nothing: every match is told.
    #[default]
    NoSkip,
    /// Matches that begin with the same event are skipped.
    SkipToNext,
    /// Matches that begin before its last event, or with it, are skipped.
    SkipPastLastEvent,
    /// Matches that begin before its first event of that step are skipped; none where it has no event of that step.
    SkipToFirst(String),
    /// Matches that begin before its last event of that step are skipped; none where it has no event of that step.
    SkipToLast(String),
}

/// A step, or an event that must not come.
pub(super) struct Part<V> {
    pub(super) name: Arc<str>,
    pub(super) is_negation: bool,
    /// To what was taken before.
    pub(super) contiguity: Contiguity,
    pub(super) condition: Condition<V>,
    pub(super) is_optional: bool,
    pub(super) repeats: Option<Repeats<V>>,
}

/// That a step takes several events.
pub(super) struct Repeats<V> {
    pub(super) min: u32,
    pub(super) max: Option<u32>,
    /// Between its own events.
    pub(super) contiguity: Contiguity,
    pub(super) is_greedy: bool,
    pub(super) until: Option<Condition<V>>,
}

impl<V> Clone for Repeats<V> {
    fn clone(&self) -> Self {
        Repeats { until: self.until.clone(), ..*self }
    }
}

impl<V> Clone for Part<V> {
    fn clone(&self) -> Self {
        Part {
            name: Arc::clone(&self.name),
            condition: self.condition.clone(),
            repeats: self.repeats.clone(),
            ..*self
        }
    }
}

/// A pattern: which sequences of events are looked for. See the [module's page](super) for what matches.
///
/// What is said about a step is said right after it: `Pattern::begin("a").where_(..).next("b").where_(..).times(2)`. A pattern that makes
/// no sense is an error when its flow is started, which says what to do.
pub struct Pattern<V> {
    pub(super) parts: Vec<Part<V>>,
    pub(super) within: Option<Duration>,
    pub(super) after_match: AfterMatch,
    /// The first thing that was said and makes no sense.
    pub(super) problem: Option<String>,
}

impl<V> Clone for Pattern<V> {
    fn clone(&self) -> Self {
        Pattern {
            parts: self.parts.clone(),
            within: self.within,
            after_match: self.after_match.clone(),
            problem: self.problem.clone(),
        }
    }
}

impl<V: 'static> Pattern<V> {
    /// Begins with a step of this name: any event can be the first of a match.
    pub fn begin(step: impl Into<String>) -> Pattern<V> {
        let pattern =
            Pattern { parts: Vec::new(), within: None, after_match: AfterMatch::NoSkip, problem: None };
        pattern.part(step.into(), Contiguity::Relaxed, false)
    }

    /// A step whose event comes directly after the one before (strict contiguity).
    pub fn next(self, step: impl Into<String>) -> Self {
        self.part(step.into(), Contiguity::Strict, false)
    }

    /// A step that takes the first event after the one before that it can take (relaxed contiguity). What it cannot take is passed over.
    pub fn followed_by(self, step: impl Into<String>) -> Self {
        self.part(step.into(), Contiguity::Relaxed, false)
    }

    /// A step that takes any event after the one before that it can take, so that each gives a match of its own (non-deterministic relaxed
    /// contiguity). Their number can grow with every event: mind the time within which they are looked for.
    pub fn followed_by_any(self, step: impl Into<String>) -> Self {
        self.part(step.into(), Contiguity::Any, false)
    }

    /// An event that must not come directly after the one before. At the end of a pattern, a match is told with the next event that is
    /// another, or when the time of [`Self::within`] is up.
    pub fn not_next(self, event: impl Into<String>) -> Self {
        self.part(event.into(), Contiguity::Strict, true)
    }

    /// An event that must not come between the one before and the one after. At the end of a pattern it must not come until the time of
    /// [`Self::within`] is up, and a match is told then.
    pub fn not_followed_by(self, event: impl Into<String>) -> Self {
        self.part(event.into(), Contiguity::Relaxed, true)
    }

    /// What an event must be like to be taken by the step in hand. Said twice, it must be both.
    pub fn where_(self, holds: impl Fn(&V) -> bool + Send + Sync + 'static) -> Self {
        self.and(Condition::simple(holds))
    }

    /// As [`Self::where_`], for conditions that also look at what has been matched so far (iterative conditions). They are asked once a
    /// partial match, the others once an event.
    pub fn where_iterative(self, holds: impl Fn(&V, &Match<'_, V>) -> bool + Send + Sync + 'static) -> Self {
        self.and(Condition::iterative(holds))
    }

    /// Another way to be taken by the step in hand, beside everything that was said with [`Self::where_`] before.
    pub fn or(self, holds: impl Fn(&V) -> bool + Send + Sync + 'static) -> Self {
        let mut problem = None;
        let pattern = self.change(|part| {
            if part.condition.is_any() {
                problem =
                    Some(format!("`{}` has nothing that `or` could add to: say `where_` first", part.name));
            }
            part.condition = part.condition.clone().or(Condition::simple(holds));
        });
        pattern.note(problem)
    }

    /// The step in hand may be left out.
    pub fn optional(self) -> Self {
        self.step("optional", |part| {
            part.is_optional = true;
            None
        })
    }

    /// The step in hand takes exactly so many events.
    pub fn times(self, times: u32) -> Self {
        self.repeats("times", times, Some(times))
    }

    /// The step in hand takes from `min` to `max` events.
    pub fn times_between(self, min: u32, max: u32) -> Self {
        self.repeats("times_between", min, Some(max))
    }

    /// The step in hand takes so many events or more.
    pub fn times_or_more(self, min: u32) -> Self {
        self.repeats("times_or_more", min, None)
    }

    /// The step in hand takes one event or more. With [`Self::optional`], none or more.
    pub fn one_or_more(self) -> Self {
        self.repeats("one_or_more", 1, None)
    }

    /// The events of the step in hand follow each other directly. Otherwise others may lie between, as with [`Self::followed_by`].
    pub fn consecutive(self) -> Self {
        self.repeated("consecutive", |repeats| repeats.contiguity = Contiguity::Strict)
    }

    /// Any of the events that the step in hand can take make a match, as with [`Self::followed_by_any`].
    pub fn allow_combinations(self) -> Self {
        self.repeated("allow_combinations", |repeats| repeats.contiguity = Contiguity::Any)
    }

    /// The step in hand takes as many events as it can: one that it can take is not passed over, nor taken by a later step.
    pub fn greedy(self) -> Self {
        self.repeated("greedy", |repeats| repeats.is_greedy = true)
    }

    /// The step in hand takes no further event once one has come for which this holds.
    pub fn until(self, holds: impl Fn(&V) -> bool + Send + Sync + 'static) -> Self {
        self.repeated("until", |repeats| repeats.until = Some(Condition::simple(holds)))
    }

    /// All events of a match lie within this time: the last is less than `time` later than the first. It bounds the state.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        let zero = time.as_millis() == 0;
        self.note(
            zero.then(|| "nothing can match within less than a millisecond: give `within` more time".into()),
        )
    }

    /// What happens to other matches when one has been told. Default: [`AfterMatch::NoSkip`].
    pub fn after_match(mut self, skip: AfterMatch) -> Self {
        self.after_match = skip;
        self
    }

    /// Checks the pattern and makes it an automaton.
    pub(super) fn compile(self) -> Result<Automaton<V>, String> {
        super::compile::compile(self)
    }

    fn part(mut self, name: String, contiguity: Contiguity, is_negation: bool) -> Self {
        self.parts.push(Part {
            name: name.into(),
            is_negation,
            contiguity,
            condition: Condition::any(),
            is_optional: false,
            repeats: None,
        });
        self
    }

    fn note(mut self, problem: Option<String>) -> Self {
        self.problem = self.problem.or(problem);
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Part<V>)) -> Self {
        change(self.parts.last_mut().expect("a pattern begins with a step"));
        self
    }

    fn and(self, condition: Condition<V>) -> Self {
        self.change(|part| part.condition = part.condition.clone().and(condition))
    }

    /// Changes a step; on a negation it is a problem.
    fn step(self, method: &str, change: impl FnOnce(&mut Part<V>) -> Option<String>) -> Self {
        let mut problem = None;
        let pattern = self.change(|part| {
            problem = if part.is_negation {
                Some(format!(
                    "`{}` is what must not come, and `{method}` is for steps: leave it out",
                    part.name
                ))
            } else {
                change(part)
            };
        });
        pattern.note(problem)
    }

    fn repeats(self, method: &str, min: u32, max: Option<u32>) -> Self {
        self.step(method, |part| {
            let name = &part.name;
            let problem = if part.repeats.is_some() {
                Some(format!("how often `{name}` repeats is said twice: say one of the two"))
            } else if min == 0 {
                Some(format!("`{name}` would take no event: say at least one, and `optional` if it may be left out"))
            } else if max.is_some_and(|max| max < min) {
                Some(format!("`{name}` cannot take {min} events or more and fewer than that: put the smaller number first"))
            } else {
                None
            };
            part.repeats =
                Some(Repeats { min, max, contiguity: Contiguity::Relaxed, is_greedy: false, until: None });
            problem
        })
    }

    fn repeated(self, method: &str, change: impl FnOnce(&mut Repeats<V>)) -> Self {
        self.step(method, |part| match &mut part.repeats {
            Some(repeats) => {
                change(repeats);
                None
            }
            None => Some(format!(
                "`{}` takes one event, and `{method}` is for steps that repeat: say `times`, `one_or_more` or their like before it",
                part.name
            )),
        })
    }
}

/// The pattern but for its conditions, as in `a, next b{2,3}, not_followed_by n, followed_by c? within 60000 ms`.
impl<V> fmt::Display for Pattern<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            let how = match (part.contiguity, part.is_negation) {
                (Contiguity::Strict, false) => ", next ",
                (Contiguity::Relaxed, false) => ", followed_by ",
                (Contiguity::Any, _) => ", followed_by_any ",
                (Contiguity::Strict, true) => ", not_next ",
                (Contiguity::Relaxed, true) => ", not_followed_by ",
            };
            write!(f, "{}{}", if at == 0 { "" } else { how }, part.name)?;
            if let Some(repeats) = &part.repeats {
                let max = repeats.max.map(|max| max.to_string()).unwrap_or_default();
                let between = match repeats.contiguity {
                    Contiguity::Strict => " consecutive",
                    Contiguity::Relaxed => "",
                    Contiguity::Any => " combinations",
                };
                let greedy = if repeats.is_greedy { " greedy" } else { "" };
                let until = if repeats.until.is_some() { " until" } else { "" };
                write!(f, "{{{},{max}{between}{greedy}{until}}}", repeats.min)?;
            }
            f.write_str(if part.is_optional { "?" } else { "" })?;
        }
        if let Some(within) = self.within {
            write!(f, " within {} ms", within.as_millis())?;
        }
        match &self.after_match {
            AfterMatch::NoSkip => Ok(()),
            AfterMatch::SkipToNext => f.write_str(" skip to next"),
            AfterMatch::SkipPastLastEvent => f.write_str(" skip past last event"),
            AfterMatch::SkipToFirst(step) => write!(f, " skip to first {step}"),
            AfterMatch::SkipToLast(step) => write!(f, " skip to last {step}"),
        }
    }
}
