//! Lists and maps that a function visits: in an order that is always the same, as far as it likes, errors passed on.

use crate::at;
use rivermark_operators::process::{Context, ProcessFunction};
use rivermark_operators::testing;
use rivermark_operators::{BoxError, Expiring, List, Map, Ttl, Value, millis};

const WORDS: List<String> = List::new("words");
const LENGTHS: Map<String, u64> = Map::new("lengths");
const NUMBERS: Map<u32, ()> = Map::new("numbers");

/// Answers for each word `x`: the first word that begins with `x`, and the first in the map that is as long; then keeps the word.
#[derive(Clone)]
struct Finding;

impl ProcessFunction<u8, String> for Finding {
    type Out = (usize, Option<String>, Option<String>);

    fn on_record(
        &mut self,
        _: &u8,
        word: String,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        let mut looked_at = 0;
        let begins = cx.state(WORDS).find_map(|known| {
            looked_at += 1;
            known.starts_with(&word).then(|| known.clone())
        })?;
        let length = word.len() as u64;
        let as_long = cx.state(LENGTHS).find_map(|known, of| (*of == length).then(|| known.clone()))?;
        cx.emit((looked_at, begins, as_long));
        cx.state(LENGTHS).put(word.clone(), length)?;
        cx.state(WORDS).push(word)
    }
}

#[test]
fn a_visit_ends_at_what_it_looks_for() {
    testing::check(|it| {
        let (input, stream) = it.input::<String>();
        let rows = it.output(stream.key_by(|_| 1_u8).process(Finding));
        for (time, word) in ["tea", "team", "ox", "te", "eat", "zzz"].into_iter().enumerate() {
            it.push(&input, at(time as i64), word.into());
        }
        let row = |looked_at, begins: Option<&str>, as_long: Option<&str>| {
            (looked_at, begins.map(String::from), as_long.map(String::from))
        };
        it.expect(
            &rows,
            [
                row(0, None, None),
                row(1, None, None),
                row(2, None, None),
                row(1, Some("tea"), Some("ox")),
                row(4, None, Some("tea")),
                // Of two that are as long, the first by its bytes, not the one that came first.
                row(5, None, Some("eat")),
            ],
        );
    });
}

/// Keeps numbers and tells all it has, in the order in which they are visited.
#[derive(Clone)]
struct Telling;

impl ProcessFunction<u8, u32> for Telling {
    type Out = Vec<u32>;

    fn on_record(
        &mut self,
        _: &u8,
        number: u32,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        cx.state(NUMBERS).put(number, ())?;
        let mut visited = Vec::new();
        cx.state(NUMBERS).for_each(|number, ()| {
            visited.push(*number);
            Ok(())
        })?;
        let entries = cx.state(NUMBERS).entries()?;
        assert!(entries.iter().map(|entry| entry.0).eq(visited.iter().copied()), "{entries:?}");
        cx.emit(visited);
        Ok(())
    }
}

#[test]
fn entries_come_in_the_same_order_whatever_happened_to_the_map() {
    testing::check(|it| {
        let (input, stream) = it.input::<u32>();
        let rows = it.output(stream.key_by(|_| 1_u8).process(Telling));
        let mut expected: Vec<Vec<u32>> = Vec::new();
        for n in 0..40_u32 {
            let number = n.wrapping_mul(0x9e37_79b1) >> 12;
            it.push(&input, at(i64::from(n)), number);
            let mut all = expected.last().cloned().unwrap_or_default();
            all.push(number);
            all.sort_by_key(|number| number.to_le_bytes());
            expected.push(all);
        }
        it.expect(&rows, expected);
    });
}

/// Fails in a visit.
#[derive(Clone)]
struct Failing;

impl ProcessFunction<u8, u32> for Failing {
    type Out = ();

    fn on_record(&mut self, _: &u8, number: u32, cx: &mut Context<'_, u8, ()>) -> Result<(), BoxError> {
        cx.state(WORDS).push(number.to_string())?;
        cx.state(NUMBERS).put(number, ())?;
        cx.state(NUMBERS).for_each(|number, ()| if *number < 9 { Ok(()) } else { Err("too many".into()) })
    }
}

#[test]
fn an_error_of_a_visit_is_the_functions() {
    let mut it = testing::Harness::new();
    let (input, stream) = it.input::<u32>();
    let _rows = it.output(stream.key_by(|_| 1_u8).process(Failing));
    it.push(&input, at(1), 3);
    let error = it.try_push(&input, at(2), 9).unwrap_err().to_string();
    assert!(error.contains("too many"), "{error}");
}

const RECENT: Expiring<List<i64>> = List::new("recent").expiring(Ttl::after_access(millis(10)));
const CACHED: Expiring<Map<i64, i64>> = Map::new("cached").expiring(Ttl::after_access(millis(10)));
const SEEN: Value<bool> = Value::new("seen");

/// Fills a list and a map with 1, 2 and 3 once; looks for 2, or tells all.
#[derive(Clone)]
struct Looking;

impl ProcessFunction<u8, bool> for Looking {
    type Out = (Vec<i64>, Vec<i64>);

    fn on_record(
        &mut self,
        _: &u8,
        tells_all: bool,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        if cx.state(SEEN).get()?.is_none() {
            cx.state(SEEN).set(true)?;
            for n in 1..=3 {
                cx.state(RECENT).push(n)?;
                cx.state(CACHED).put(n, n * n)?;
            }
        }
        let (mut listed, mut mapped) = (Vec::new(), Vec::new());
        if !tells_all {
            listed.extend(cx.state(RECENT).find_map(|n| (*n == 2).then_some(*n))?);
            mapped.extend(cx.state(CACHED).find_map(|n, square| (*n == 2).then_some(*square))?);
        } else {
            cx.state(RECENT).for_each(|n| {
                listed.push(*n);
                Ok(())
            })?;
            cx.state(CACHED).for_each(|_, square| {
                mapped.push(*square);
                Ok(())
            })?;
        }
        cx.emit((listed, mapped));
        Ok(())
    }
}

#[test]
fn what_a_visit_has_seen_lives_on_where_reading_renews_and_no_more() {
    testing::check(|it| {
        let (input, stream) = it.input::<bool>();
        let rows = it.output(stream.key_by(|_| 1_u8).in_event_time_order().process(Looking));
        for (time, tells_all) in [(0, false), (9, false), (18, true), (27, true), (37, true)] {
            it.push(&input, at(time), tells_all);
            it.watermark(&input, at(time));
        }
        it.end(&input);
        it.expect(
            &rows,
            [
                (vec![2], vec![4]),
                (vec![2], vec![4]),
                (vec![1, 2], vec![1, 4]),
                (vec![1, 2], vec![1, 4]),
                (vec![], vec![]),
            ],
        );
    });
}

/// Keeps words until an empty one comes, which takes them all.
#[derive(Clone)]
struct Taking;

impl ProcessFunction<u8, String> for Taking {
    type Out = Vec<String>;

    fn on_record(
        &mut self,
        _: &u8,
        word: String,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        if word.is_empty() {
            let words = cx.state(WORDS).take()?;
            cx.emit(words);
            return Ok(());
        }
        cx.state(WORDS).push(word)
    }
}

#[test]
fn a_list_that_is_taken_is_empty_also_after_a_restart() {
    testing::check(|it| {
        let (input, stream) = it.input::<String>();
        let rows = it.output(stream.key_by(|word| (word.len() / 8) as u8).process(Taking));
        for (time, word) in ["", "b", "a", "elephants", "", "", "c", ""].into_iter().enumerate() {
            it.push(&input, at(time as i64), word.into());
        }
        it.expect(&rows, [vec![], vec!["b".to_owned(), "a".to_owned()], vec![], vec!["c".to_owned()]]);
    });
}
