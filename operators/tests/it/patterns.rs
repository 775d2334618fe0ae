//! Patterns under the harness: what is told when, what is too slow, what is late.

use crate::at;
use rivermark_operators::testing;
use rivermark_operators::{Late, Match, Pattern, Stream, millis};

type Event = (u8, char);

/// The letters of a match.
fn letters(found: &Match<'_, Event>) -> String {
    found.all().into_iter().map(|(_, _, (_, letter))| *letter).collect()
}

fn is(letter: char) -> impl Fn(&Event) -> bool + Send + Sync + 'static {
    move |event| event.1 == letter
}

#[test]
fn a_match_is_told_at_its_last_event_and_a_partial_one_when_its_time_is_up() {
    testing::check(|it| {
        let (events, stream) = it.input::<Event>();
        let ordered = Pattern::begin("a").where_(is('a')).followed_by("b").where_(is('b')).within(millis(10));
        let (sender, receiver) = std::sync::mpsc::channel();
        let patterns = stream.key_by(|event| event.0).pattern(ordered).timed_out(
            |key, partial| (*key, letters(partial)),
            move |slow: Stream<(u8, String)>| sender.send(slow).unwrap(),
        );
        let rows = it.output(patterns.select(|key, found| (*key, letters(found))));
        let slow = it.output(receiver.recv().unwrap());
        // Out of order, and of two keys that know nothing of each other.
        for (time, key, letter) in [(5, 1, 'b'), (1, 1, 'a'), (2, 2, 'a'), (3, 2, 'x'), (12, 2, 'b')] {
            it.push(&events, at(time), (key, letter));
        }
        it.watermark(&events, at(6));
        it.expect_at(&rows, [(at(5), (1, "ab".to_string()))]);
        it.expect_at(&slow, []);
        it.end(&events);
        it.expect_at(&rows, []);
        it.expect_at(&slow, [(at(12), (2, "a".to_string()))]);
    });
}

#[test]
fn what_must_not_follow_is_known_when_the_time_is_up() {
    testing::check(|it| {
        let (events, stream) = it.input::<Event>();
        let unpaid = Pattern::begin("order")
            .where_(is('o'))
            .not_followed_by("paid")
            .where_(is('p'))
            .within(millis(10));
        let rows = stream.key_by(|event| event.0).pattern(unpaid).select(|key, found| (*key, letters(found)));
        let rows = it.output(rows);
        for (time, key, letter) in [(1, 1, 'o'), (2, 2, 'o'), (11, 2, 'p'), (12, 1, 'p')] {
            it.push(&events, at(time), (key, letter));
        }
        it.end(&events);
        it.expect_at(&rows, [(at(11), (1, "o".to_string()))]);
    });
}

#[test]
fn events_that_are_late_match_nothing_and_have_an_output_of_their_own() {
    testing::check(|it| {
        let (events, stream) = it.input::<Event>();
        let (sender, receiver) = std::sync::mpsc::channel();
        let late = move |late: Stream<Late<u8, Event>>| sender.send(late).unwrap();
        let pair = Pattern::begin("a").where_(is('a')).next("b").where_(is('b'));
        let patterns = stream.key_by(|event| event.0).pattern(pair).late_output(late);
        let rows = it.output(patterns.select(|_, found| letters(found)));
        let late = it.output(receiver.recv().unwrap());
        it.push(&events, at(3), (1, 'a'));
        it.watermark(&events, at(20));
        it.push(&events, at(19), (1, 'x'));
        it.push(&events, at(21), (1, 'b'));
        it.end(&events);
        it.expect_at(&rows, [(at(21), "ab".to_string())]);
        it.expect(&late, [Late { key: 1, value: (1, 'x'), windows_missed: 1 }]);
    });
}
