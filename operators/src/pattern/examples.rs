//! Patterns over short words, one letter an event, with all their matches: those of the documentation of Flink's CEP among them.

use super::automaton::Told;
use super::runs::Runs;
use super::{AfterMatch, Pattern};
use crate::time::{Timestamp, millis};

/// The letters of an event; digits only tell events apart.
fn is(letter: char) -> impl Fn(&String) -> bool + Send + Sync + 'static {
    move |event| event.starts_with(letter)
}

/// What is told of a word, each event a millisecond after the one before, and then of the end of time.
fn told(pattern: &Pattern<String>, word: &str) -> Vec<(Told, String)> {
    let automaton = pattern.clone().compile().unwrap();
    let mut runs = Runs::default();
    let mut told = Vec::new();
    let mut tell = |what: Told, found: &super::Match<'_, String>| {
        let events: Vec<&str> = found.all().iter().map(|(_, _, event)| event.as_str()).collect();
        told.push((what, events.join(" ")));
    };
    for (time, event) in word.split_whitespace().enumerate() {
        automaton.step(&mut runs, Timestamp::from_millis(time as i64), event.to_string(), &mut tell);
    }
    automaton.expire(&mut runs, Timestamp::MAX, &mut tell);
    told
}

fn matches(pattern: &Pattern<String>, word: &str) -> Vec<String> {
    let matches = told(pattern, word).into_iter().filter(|(what, _)| *what == Told::Match);
    matches.map(|(_, found)| found).collect()
}

fn begin(letter: char) -> Pattern<String> {
    Pattern::begin(letter).where_(is(letter)).within(millis(100))
}

fn times_out(pattern: &Pattern<String>, word: &str) -> Vec<String> {
    let partial = told(pattern, word).into_iter().filter(|(what, _)| *what == Told::TimedOut);
    partial.map(|(_, found)| found).collect()
}

#[test]
fn contiguity_says_what_may_lie_between_two_events() {
    let word = "a c b1 b2";
    assert_eq!(matches(&begin('a').next('b').where_(is('b')), word), [""; 0]);
    assert_eq!(matches(&begin('a').followed_by('b').where_(is('b')), word), ["a b1"]);
    assert_eq!(matches(&begin('a').followed_by_any('b').where_(is('b')), word), ["a b1", "a b2"]);
    assert_eq!(matches(&begin('a').next('c').next('b').where_(is('b')), word), ["a c b1"]);
}

#[test]
fn contiguity_of_a_repeated_step_is_that_of_its_events() {
    let word = "a b1 d1 b2 d2 b3 c";
    let all = |how: fn(Pattern<String>) -> Pattern<String>| {
        let several = how(begin('a').followed_by_any('b').where_(is('b')).one_or_more());
        let mut found = matches(&several.followed_by('c').where_(is('c')), word);
        found.sort();
        found
    };
    assert_eq!(all(Pattern::consecutive), ["a b1 c", "a b2 c", "a b3 c"]);
    assert_eq!(
        all(|pattern| pattern),
        ["a b1 b2 b3 c", "a b1 b2 c", "a b1 c", "a b2 b3 c", "a b2 c", "a b3 c"]
    );
    let combinations = all(Pattern::allow_combinations);
    assert_eq!(
        combinations,
        ["a b1 b2 b3 c", "a b1 b2 c", "a b1 b3 c", "a b1 c", "a b2 b3 c", "a b2 c", "a b3 c"]
    );
}

#[test]
fn a_step_repeats_as_often_as_it_says() {
    let word = "a b1 b2 b3 c";
    let b = || begin('a').followed_by('b').where_(is('b'));
    let c = |pattern: Pattern<String>| pattern.followed_by('c').where_(is('c'));
    assert_eq!(matches(&b().times(2), word), ["a b1 b2"]);
    assert_eq!(matches(&b().times_between(2, 3), word), ["a b1 b2", "a b1 b2 b3"]);
    assert_eq!(matches(&c(b().times(4)), word), [""; 0]);
    assert_eq!(matches(&c(b().times(4).optional()), word), ["a c"]);
    assert_eq!(matches(&c(b().times_or_more(3)), word), ["a b1 b2 b3 c"]);
    assert_eq!(matches(&c(b().optional()), word), ["a b1 c", "a c"]);
    // The first event is the first step's, left out, or the second's.
    let maybe = Pattern::begin('a').where_(is('a')).optional().next('b').where_(is('b'));
    assert_eq!(matches(&maybe, "b1 a b2"), ["b1", "a b2", "b2"]);
}

#[test]
fn a_greedy_step_takes_what_it_can() {
    let c = |pattern: Pattern<String>| pattern.followed_by('c').where_(is('c'));
    let some = || begin('a').followed_by('b').where_(is('b')).one_or_more();
    assert_eq!(matches(&c(some().greedy()), "a b1 d b2 c"), ["a b1 b2 c"]);
    assert_eq!(matches(&c(some().optional().greedy()), "a b1 b2 c"), ["a b1 b2 c"]);
    assert_eq!(matches(&c(some().optional().greedy()), "a d c"), ["a c"]);
    // What stands in the way of a consecutive step ends it.
    assert_eq!(matches(&c(some().consecutive().greedy()), "a b1 d b2 c"), ["a b1 c"]);
    // An event that fits both steps is the greedy one's.
    let any = begin('a').next("any").one_or_more().consecutive().greedy().next('c').where_(is('c'));
    assert_eq!(matches(&any, "a b c"), [""; 0]);
    let lazy = begin('a').next("any").one_or_more().consecutive().next('c').where_(is('c'));
    assert_eq!(matches(&lazy, "a b c"), ["a b c"]);
}

#[test]
fn until_ends_a_repetition() {
    let some = begin('a').one_or_more().until(is('b'));
    assert_eq!(matches(&some, "a1 c a2 b a3"), ["a1", "a1 a2", "a2", "a3"]);
}

#[test]
fn what_must_not_come_ends_a_partial_match() {
    let no_b = |not: fn(Pattern<String>, char) -> Pattern<String>| {
        not(begin('a'), 'b').where_(is('b')).followed_by('c').where_(is('c'))
    };
    let not_next = no_b(|pattern, name| pattern.not_next(name));
    assert_eq!(matches(&not_next, "a b c"), [""; 0]);
    assert_eq!(matches(&not_next, "a d b c"), ["a c"]);
    let not_between = no_b(|pattern, name| pattern.not_followed_by(name));
    assert_eq!(matches(&not_between, "a d b c"), [""; 0]);
    assert_eq!(matches(&not_between, "a d c b"), ["a c"]);
}

#[test]
fn what_must_not_come_at_the_end_has_until_the_time_is_up() {
    let ends = |pattern: Pattern<String>| pattern.where_(is('b')).within(millis(3));
    let never = ends(begin('a').not_followed_by('b'));
    assert_eq!(matches(&never, "a1 b a2 d"), ["a2"]);
    assert_eq!(matches(&never, "a d d b"), ["a"]);
    let not_next = ends(begin('a').not_next('b'));
    assert_eq!(told(&not_next, "a1 b a2 a3"), ["a2", "a3"].map(|a| (Told::Match, a.to_string())));
}

#[test]
fn partial_matches_time_out_when_their_time_is_up_and_matches_do_not() {
    let pattern = begin('a').followed_by('b').where_(is('b')).one_or_more().followed_by('c').where_(is('c'));
    let pattern = pattern.within(millis(4));
    assert_eq!(matches(&pattern, "a b d c"), ["a b c"]);
    assert_eq!(matches(&pattern, "a b d d c"), [""; 0]);
    assert_eq!(times_out(&pattern, "a b1 b2 d c"), ["a b1 b2", "a b1"]);
    // It was told, and could have gone on.
    let open = begin('a').followed_by('b').where_(is('b')).one_or_more();
    assert_eq!(times_out(&open, "a1 b a2"), ["a2"]);
}

#[test]
fn conditions_see_what_was_matched_before() {
    let number = |event: &String| event[1..].parse::<u32>().unwrap();
    let rising = begin('a')
        .followed_by("more")
        .where_iterative(move |event, so_far| {
            let before = so_far.last("more").or(so_far.first("a")).unwrap();
            number(event) > number(before)
        })
        .times(2);
    assert_eq!(matches(&rising, "a3 b1 b4 b4 b9"), ["a3 b4 b9"]);
}

/// The table in Flink's documentation of skip strategies.
#[test]
fn a_match_skips_what_its_strategy_says() {
    let b = || begin('b').one_or_more();
    let skips = |pattern: Pattern<String>, skip, word| matches(&pattern.after_match(skip), word);
    let some = || b().next('c').where_(is('c'));
    let (all, word) = (["b1 b2 b3 c", "b2 b3 c", "b3 c"], "b1 b2 b3 c");
    assert_eq!(skips(some(), AfterMatch::NoSkip, word), all);
    assert_eq!(skips(some(), AfterMatch::SkipToNext, word), all);
    assert_eq!(skips(some(), AfterMatch::SkipPastLastEvent, word), ["b1 b2 b3 c"]);
    assert_eq!(skips(some(), AfterMatch::SkipToLast("b".into()), word), ["b1 b2 b3 c", "b3 c"]);

    let either = || {
        let first =
            Pattern::begin("first").where_(|event: &String| event.starts_with(['a', 'c'])).within(millis(9));
        let then = first.next("second").where_(|event| event.starts_with(['b', 'c']));
        then.next("third").where_(is('c')).one_or_more().consecutive().greedy().next('d').where_(is('d'))
    };
    let (no_skip, to_first) = (["a b c1 c2 c3 d", "c1 c2 c3 d"], AfterMatch::SkipToFirst("third".into()));
    assert_eq!(skips(either(), AfterMatch::NoSkip, "a b c1 c2 c3 d"), no_skip);
    assert_eq!(skips(either(), to_first, "a b c1 c2 c3 d"), no_skip);
    assert_eq!(skips(either(), AfterMatch::SkipPastLastEvent, "a b c1 c2 c3 d"), no_skip[..1]);
}

#[test]
fn the_match_that_began_first_goes_first_and_a_later_one_waits_for_it() {
    let pattern = Pattern::begin("first").where_(|event: &String| event.starts_with(['a', 'b']));
    let either = pattern.followed_by("last").where_iterative(|event, so_far| {
        let ends = if so_far.first("first").unwrap() == "a" { 'y' } else { 'x' };
        event.starts_with(ends)
    });
    let either = either.within(millis(9)).after_match(AfterMatch::SkipPastLastEvent);
    assert_eq!(matches(&either, "a b x y"), ["a y"]);
    assert_eq!(told(&either, "a b x"), [(Told::TimedOut, "a".to_string()), (Told::Match, "b x".to_string())]);
}

#[test]
fn what_no_partial_match_is_made_of_is_forgotten() {
    let pattern = begin('a').followed_by('b').where_(is('b')).one_or_more().followed_by('c').where_(is('c'));
    let automaton = pattern.within(millis(10)).compile().unwrap();
    let mut runs = Runs::default();
    let mut most = 0;
    for time in 0..10_000 {
        let event = ["a", "b", "d", "b"][time % 4];
        automaton.step(&mut runs, Timestamp::from_millis(time as i64), event.into(), &mut |_, _| ());
        assert!(runs.buffer.events.len() <= runs.buffer.nodes.len());
        most = most.max(runs.buffer.nodes.len());
    }
    // Three first events are open at any time, with five events each at most.
    assert!((15..60).contains(&most), "{most} nodes");
    automaton.expire(&mut runs, Timestamp::MAX, &mut |_, _| ());
    assert_eq!((runs.is_idle(), runs.buffer.events.len(), runs.buffer.nodes.len()), (true, 0, 0));
}

/// What is wrong with a pattern.
fn problem(pattern: Pattern<String>) -> String {
    pattern.compile().err().unwrap_or_else(|| "nothing".into())
}

#[test]
fn a_pattern_that_makes_no_sense_is_refused_with_what_to_do_about_it() {
    let repeated = |pattern: Pattern<String>| pattern.where_(is('b')).one_or_more();
    let greedy = || repeated(begin('a').next('b')).greedy();
    let cases: [(Pattern<String>, &str); 24] = [
        (begin('a').next('b').next('a'), "two steps are named `a`"),
        (begin('a').optional(), "make one of them mandatory"),
        (begin('a').not_next('b').next('c'), "`b` would forbid every event"),
        (begin('a').next('b').greedy(), "`greedy` is for steps that repeat"),
        (begin('a').consecutive(), "`consecutive` is for steps that repeat"),
        (begin('a').until(is('b')), "`until` is for steps that repeat"),
        (repeated(begin('a').next('b')).allow_combinations().greedy().next('c'), "drop one of the two"),
        (greedy().followed_by_any('c'), "say `followed_by` or drop `greedy`"),
        (greedy().next('c').optional().followed_by_any('d'), "say `followed_by` or drop `greedy`"),
        (greedy(), "Add a step that ends it"),
        (greedy().not_next('d').where_(is('d')).next('c').optional(), "Add a step that ends it"),
        (begin('a').times(3).until(is('b')), "`until` is for `one_or_more`"),
        (begin('a').times(0), "say at least one, and `optional`"),
        (begin('a').times_between(3, 2), "put the smaller number first"),
        (begin('a').times(3).one_or_more(), "is said twice"),
        (begin('a').not_next('b').optional(), "`optional` is for steps"),
        (Pattern::begin("a").or(is('b')), "say `where_` first"),
        (begin('a').within(millis(0)), "more time"),
        (
            Pattern::begin("a").not_followed_by('b').where_(is('b')),
            "say `within` what time, or let a step follow",
        ),
        (Pattern::begin("a").followed_by('b'), "`b` may come any time later"),
        (Pattern::begin("a").one_or_more().consecutive().next('b'), "`a` may repeat without end"),
        (
            begin('a').after_match(AfterMatch::SkipToLast("b".into())),
            "there is no step `b` to skip to: it has `a`",
        ),
        (begin('a').after_match(AfterMatch::SkipToFirst("a".into())), "skips nothing"),
        ((0..64).fold(begin('a'), |pattern, n| pattern.next(format!("{n}"))), "65 steps are too many"),
    ];
    for (pattern, expected) in cases {
        let described = pattern.to_string();
        let found = problem(pattern);
        assert!(found.contains(expected), "{described}: {found}");
    }
    assert_eq!(problem(greedy().not_followed_by('d').where_(is('d'))), "nothing");
    assert_eq!(
        problem(Pattern::begin("a").next('b').times(3).consecutive().not_next('c').where_(is('c'))),
        "nothing"
    );
}

#[test]
fn a_pattern_describes_itself() {
    let pattern = begin('a').next('b').times_between(2, 3).consecutive().greedy();
    let pattern =
        pattern.not_followed_by('n').where_(is('n')).followed_by_any('c').optional().followed_by('d');
    let expected = "a, next b{2,3 consecutive greedy}, not_followed_by n, followed_by_any c?, followed_by d within 100 ms skip to next";
    assert_eq!(pattern.after_match(AfterMatch::SkipToNext).to_string(), expected);
}

#[test]
#[should_panic(expected = "the pattern has no step `b` that takes events, but `a`")]
fn to_ask_for_a_step_that_there_is_not_is_a_mistake() {
    let pattern = begin('a').where_iterative(|_, so_far| so_far.first("b").is_none());
    told(&pattern, "a");
}
