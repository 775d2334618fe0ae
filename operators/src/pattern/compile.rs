//! From a pattern to its automaton, and what is wrong with it.

use super::automaton::{Automaton, Negation, Skip, Step};
use super::condition::Condition;
use super::describe::{AfterMatch, Contiguity, Part, Pattern};
use crate::time::span_millis;

/// How many parts a pattern can have: what a partial match waits for is a bit each in a word, and the end is one of them.
const MOST_PARTS: usize = 63;

/// Checks the pattern and makes it an automaton.
pub(super) fn compile<V: 'static>(pattern: Pattern<V>) -> Result<Automaton<V>, String> {
    match problem_of(&pattern) {
        Some(problem) => Err(problem),
        None => Ok(build(pattern)),
    }
}

fn problem_of<V: 'static>(pattern: &Pattern<V>) -> Option<String> {
    let parts = &pattern.parts;
    if let Some(problem) = &pattern.problem {
        return Some(problem.clone());
    }
    if parts.len() > MOST_PARTS {
        return Some(format!(
            "{} steps are too many: {MOST_PARTS} are the most, so cut it in two patterns, the second over the matches of the first",
            parts.len()
        ));
    }
    let twice =
        parts.iter().enumerate().find(|(at, part)| parts[..*at].iter().any(|other| other.name == part.name));
    if let Some((_, part)) = twice {
        return Some(format!(
            "two steps are named `{}`: events are found by the step's name, so give each its own",
            part.name
        ));
    }
    if parts.iter().all(|part| part.is_optional || part.is_negation) {
        return Some(
            "every step is optional, and nothing at all would match: make one of them mandatory".into(),
        );
    }
    if let Some(part) = parts.iter().find(|part| part.is_negation && part.condition.is_any()) {
        return Some(format!("`{}` would forbid every event: say which with `where_`", part.name));
    }
    (0..parts.len())
        .find_map(|at| problem_with_greed(parts, at).or_else(|| problem_with_until(&parts[at])))
        .or_else(|| problem_with_time(pattern))
        .or_else(|| problem_with_skip(pattern))
}

fn problem_with_greed<V>(parts: &[Part<V>], at: usize) -> Option<String> {
    let Part { name, repeats, .. } = &parts[at];
    let repeats = repeats.as_ref().filter(|repeats| repeats.is_greedy)?;
    if repeats.contiguity == Contiguity::Any {
        return Some(format!(
            "`{name}` cannot be greedy and allow combinations: greedy leaves no event out, so drop one of the two"
        ));
    }
    let rest = &parts[at + 1..];
    if let Some(any) = rest
        .iter()
        .take_while(|part| part.is_optional || part.is_negation || part.contiguity == Contiguity::Any)
        .find(|part| part.contiguity == Contiguity::Any)
    {
        return Some(format!(
            "`{name}` is greedy, and `{}` follows it by any: greedy leaves one way to go on and followed_by_any all of them, so say \
             `followed_by` or drop `greedy`",
            any.name
        ));
    }
    let goes_on = rest.iter().any(|part| !part.is_negation && !part.is_optional)
        || rest.last().is_some_and(|part| part.is_negation);
    (!goes_on).then(|| {
        format!(
            "`{name}` is greedy, and nothing has to follow it: a match is told as soon as it is complete, so nothing is left to prefer. \
             Add a step that ends it, or drop `greedy`"
        )
    })
}

fn problem_with_until<V>(part: &Part<V>) -> Option<String> {
    let repeats = part.repeats.as_ref()?;
    let bounded = repeats.until.is_some() && repeats.max.is_some();
    bounded.then(|| {
        format!("`{}` ends by its number of events: `until` is for `one_or_more` and `times_or_more`, so drop one of the two", part.name)
    })
}

/// Whatever can be waited for longer than an event or two needs a time.
fn problem_with_time<V>(pattern: &Pattern<V>) -> Option<String> {
    if pattern.within.is_some() {
        return None;
    }
    let without = |name: &str, why: &str| {
        Some(format!(
            "`{name}` {why}, and partial matches would be kept for ever: say `within` what time a match is complete"
        ))
    };
    for (at, part) in pattern.parts.iter().enumerate() {
        let is_last = at + 1 == pattern.parts.len();
        if part.is_negation {
            if is_last && part.contiguity == Contiguity::Relaxed {
                return Some(format!(
                    "`{}` must not follow, and nothing says until when: say `within` what time, or let a step follow",
                    part.name
                ));
            }
            continue;
        }
        if at > 0 && part.contiguity != Contiguity::Strict {
            return without(&part.name, "may come any time later");
        }
        let Some(repeats) = &part.repeats else { continue };
        if repeats.contiguity != Contiguity::Strict {
            return without(&part.name, "may repeat any time later");
        }
        if repeats.max.is_none() {
            return without(&part.name, "may repeat without end");
        }
    }
    None
}

fn problem_with_skip<V>(pattern: &Pattern<V>) -> Option<String> {
    let (AfterMatch::SkipToFirst(step) | AfterMatch::SkipToLast(step)) = &pattern.after_match else {
        return None;
    };
    let Some(part) = pattern.parts.iter().find(|part| *part.name == **step) else {
        return Some(format!("there is no step `{step}` to skip to: it has {}", names(&pattern.parts)));
    };
    if part.is_negation {
        return Some(format!(
            "`{step}` is what must not come, so there is nothing to skip to: name one of {}",
            names(&pattern.parts)
        ));
    }
    let first = pattern.parts[0].name == part.name;
    let never =
        first && (part.repeats.is_none() || matches!(pattern.after_match, AfterMatch::SkipToFirst(_)));
    never.then(|| {
        format!("a match begins with `{step}`, so skipping to it skips nothing: say `AfterMatch::SkipToNext` or `AfterMatch::NoSkip`")
    })
}

/// The steps that have events.
fn names<V>(parts: &[Part<V>]) -> String {
    let names: Vec<_> =
        parts.iter().filter(|part| !part.is_negation).map(|part| format!("`{}`", part.name)).collect();
    names.join(", ")
}

fn build<V: 'static>(pattern: Pattern<V>) -> Automaton<V> {
    let mut steps: Vec<Step<V>> = Vec::new();
    let mut negations: Vec<Vec<Negation<V>>> = vec![Vec::new()];
    for (slot, part) in pattern.parts.into_iter().enumerate() {
        let Part { name, is_negation, contiguity, condition, is_optional, repeats } = part;
        if is_negation {
            let is_next = contiguity == Contiguity::Strict;
            let before = negations.last_mut().expect("there is one more than there are steps");
            before.push(Negation { slot, is_next, condition });
            continue;
        }
        negations.push(Vec::new());
        let (mut min, mut max, mut between, mut is_greedy, mut until) =
            (1, Some(1), Contiguity::Strict, false, None::<Condition<V>>);
        if let Some(repeats) = repeats {
            (min, max, between) = (repeats.min, repeats.max, repeats.contiguity);
            (is_greedy, until) = (repeats.is_greedy, repeats.until);
        }
        steps.push(Step {
            name,
            slot,
            contiguity,
            condition,
            is_optional,
            min,
            max,
            between,
            is_greedy,
            until,
            after: 0,
            completes: false,
        });
    }
    let end = steps.len();
    let ends_at_once = negations[end].is_empty();
    for at in 0..end {
        let (after, reaches_end) = from(&steps, at + 1);
        let waits_for_end = reaches_end && !ends_at_once;
        steps[at].after = after | if waits_for_end { 1 << end } else { 0 };
        steps[at].completes = reaches_end && ends_at_once;
    }
    let step_named = |name: &str| steps.iter().position(|step| *step.name == *name).unwrap_or(0);
    let skip = match &pattern.after_match {
        AfterMatch::NoSkip => Skip::Nothing,
        AfterMatch::SkipToNext => Skip::ToNext,
        AfterMatch::SkipPastLastEvent => Skip::PastLastEvent,
        AfterMatch::SkipToFirst(name) => Skip::ToFirst(step_named(name)),
        AfterMatch::SkipToLast(name) => Skip::ToLast(step_named(name)),
    };
    let (first, _) = from(&steps, 0);
    Automaton { steps, negations, first, within: pattern.within.map(span_millis), skip }
}

/// The steps that can come next where those before `at` are over, as bits, and whether it can be none of them.
fn from<V>(steps: &[Step<V>], at: usize) -> (u64, bool) {
    let mut bits = 0;
    for (at, step) in steps.iter().enumerate().skip(at) {
        bits |= 1 << at;
        if !step.is_optional {
            return (bits, false);
        }
    }
    (bits, true)
}
