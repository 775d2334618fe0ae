//! State with a time to live: what a function sees of it follows from the times of records and timers alone.

use crate::at;
use rivermark_operators::process::{Context, ProcessFunction, States};
use rivermark_operators::testing;
use rivermark_operators::{BoxError, Expiring, List, Map, Reducing, Timestamp, Ttl, Value, millis};

const COUNT: Expiring<Reducing<u32>> = Reducing::new("count").expiring(Ttl::after_write(millis(10)));
const LAST: Expiring<Value<i64>> = Value::new("last").expiring(Ttl::after_access(millis(10)));
const TIMES: Expiring<List<i64>> = List::new("times").expiring(Ttl::after_write(millis(10)));
const PAGES: Expiring<Map<String, u32>> = Map::new("pages").expiring(Ttl::after_write(millis(10)));

/// Counts what is not forgotten; a record `page+d` looks again d milliseconds later.
#[derive(Clone)]
struct Visits;

impl Visits {
    fn tell(cx: &mut Context<'_, u8, String>) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?;
        let times = cx.state(TIMES).get()?;
        let mut pages = cx.state(PAGES).entries()?;
        pages.sort();
        let row = format!("{}: {count:?} {times:?} {pages:?}", cx.time().millis());
        cx.emit(row);
        Ok(())
    }
}

impl ProcessFunction<u8, String> for Visits {
    type Out = String;

    fn states(&self, states: &mut States<'_, u8>) {
        states.has(COUNT);
        states.has(TIMES);
        states.has(PAGES);
    }

    fn on_record(
        &mut self,
        _: &u8,
        record: String,
        cx: &mut Context<'_, u8, String>,
    ) -> Result<(), BoxError> {
        let (page, again) = record.split_once('+').unwrap_or((&record, ""));
        let now = cx.time().millis();
        cx.state(COUNT).add(1, |count, one| *count += one)?;
        cx.state(TIMES).push(now)?;
        let visits = cx.state(PAGES).get(&page.to_string())?.unwrap_or(0);
        cx.state(PAGES).put(page.to_string(), visits + 1)?;
        if !again.is_empty() {
            cx.timer(cx.time().plus_millis(again.parse()?))?;
        }
        Visits::tell(cx)
    }

    fn on_timer(&mut self, _: &u8, _: Timestamp, cx: &mut Context<'_, u8, String>) -> Result<(), BoxError> {
        Visits::tell(cx)
    }
}

#[test]
fn an_entry_is_there_until_its_time_is_over_whenever_the_watermark_comes() {
    for watermarks in [vec![], vec![1, 9, 10, 11, 14, 20, 21], vec![14]] {
        testing::check(|it| {
            let (input, stream) = it.input::<String>();
            let rows = it.output(stream.key_by(|_| 1_u8).in_event_time_order().process(Visits));
            for (time, page) in [(1, "a+9"), (5, "b+10"), (14, "a")] {
                it.push(&input, at(time), page.into());
                for &watermark in watermarks.iter().filter(|&&watermark| watermark <= time) {
                    it.watermark(&input, at(watermark));
                }
            }
            it.push(&input, at(30), "c".into());
            it.end(&input);
            it.expect(
                &rows,
                [
                    "1: Some(1) [1] [(\"a\", 1)]",
                    "5: Some(2) [1, 5] [(\"a\", 1), (\"b\", 1)]",
                    // Of the first, the tenth millisecond has not passed; the count was renewed.
                    "10: Some(2) [1, 5] [(\"a\", 1), (\"b\", 1)]",
                    "14: Some(3) [5, 14] [(\"a\", 1), (\"b\", 1)]",
                    "15: Some(3) [14] [(\"a\", 1)]",
                    "30: Some(1) [30] [(\"c\", 1)]",
                ]
                .map(String::from),
            );
        });
    }
}

/// Tells what the last record left, which reading keeps alive.
#[derive(Clone)]
struct Before;

impl ProcessFunction<u8, i64> for Before {
    type Out = Option<i64>;

    fn on_record(
        &mut self,
        _: &u8,
        record: i64,
        cx: &mut Context<'_, u8, Option<i64>>,
    ) -> Result<(), BoxError> {
        let last = cx.state(LAST).get()?;
        if last.is_none() {
            cx.state(LAST).set(record)?;
        }
        cx.emit(last);
        Ok(())
    }
}

#[test]
fn reading_keeps_an_entry_alive_if_it_is_to() {
    testing::check(|it| {
        let (input, stream) = it.input::<i64>();
        let rows = it.output(stream.key_by(|_| 1_u8).in_event_time_order().process(Before));
        for time in [0, 9, 18, 28, 37] {
            it.push(&input, at(time), time);
            it.watermark(&input, at(time));
        }
        it.end(&input);
        it.expect(&rows, [None, Some(0), Some(0), None, Some(28)]);
    });
}

#[test]
fn a_late_record_sees_what_lives_at_the_watermark_of_its_partition() {
    testing::check(|it| {
        let (input, stream) = it.input::<i64>();
        let rows = it.output(stream.key_by(|_| 1_u8).process(Before));
        it.push(&input, at(0), 7);
        it.watermark(&input, at(9));
        it.push(&input, at(3), 8);
        it.watermark(&input, at(19));
        it.push(&input, at(3), 9);
        it.expect(&rows, [None, Some(7), None]);
    });
}

#[test]
fn the_end_of_a_stream_forgets_nothing_that_was_not_forgotten() {
    testing::check(|it| {
        let (input, stream) = it.input::<String>();
        let rows = it.output(stream.key_by(|_| 1_u8).process(Visits));
        it.push(&input, at(1), "a+3".into());
        it.end(&input);
        it.expect(&rows, ["1: Some(1) [1] [(\"a\", 1)]", "4: Some(1) [1] [(\"a\", 1)]"].map(String::from));
    });
}

const BEFORE: Expiring<Value<i64>> = Value::new("before").expiring(Ttl::after_access(millis(10)));
const RECALLED: Expiring<List<i64>> = List::new("recalled").expiring(Ttl::after_access(millis(10)));
const CACHED: Expiring<Map<i64, i64>> = Map::new("cached").expiring(Ttl::after_access(millis(10)));

/// Reads, which renews, and writes all kinds of states, and then fails on odd numbers.
#[derive(Clone)]
struct Even;

impl ProcessFunction<u8, i64> for Even {
    type Out = String;

    fn on_record(&mut self, _: &u8, n: i64, cx: &mut Context<'_, u8, String>) -> Result<(), BoxError> {
        let before = cx.state(BEFORE).get()?;
        if before.is_none() {
            cx.state(BEFORE).set(n)?;
        }
        cx.state(COUNT).add(1, |count, one| *count += one)?;
        cx.state(RECALLED).push(n)?;
        cx.state(CACHED).put(n % 4, n)?;
        let count = cx.state(COUNT).get()?;
        let (recalled, cached) = (cx.state(RECALLED).get()?, cx.state(CACHED).entries()?);
        cx.emit(format!("{n}: {before:?} {count:?} {recalled:?} {cached:?}"));
        if n % 2 == 0 { Ok(()) } else { Err(format!("{n} is odd").into()) }
    }
}

#[test]
fn a_failed_call_has_renewed_written_and_kept_alive_nothing() {
    testing::check(|it| {
        let (input, stream) = it.input::<i64>();
        let rows = stream.key_by(|_| 1_u8).in_event_time_order().process(Even);
        let (letters, rows) = (it.output(rows.dead_letters()), it.output(rows));
        for (time, n) in [(0, 2), (4, 4), (9, 5), (11, 6), (21, 7), (22, 8), (24, 9), (33, 10)] {
            it.push(&input, at(time), n);
            it.watermark(&input, at(time));
        }
        it.end(&input);
        let told = [
            "2: None Some(1) [2] [(2, 2)]",
            "4: Some(2) Some(2) [2, 4] [(0, 4), (2, 2)]",
            // Of the failed call at 9 there is nothing; what was used at 4 lives until 14.
            "6: Some(2) Some(3) [2, 4, 6] [(0, 4), (2, 6)]",
            // The failed call at 21 found nothing, and left nothing.
            "8: None Some(1) [8] [(0, 8)]",
            // The failed call at 24 has not kept alive what was to live until 32.
            "10: None Some(1) [10] [(2, 10)]",
        ];
        it.expect(&rows, told.map(String::from));
        let failed = it.take(&letters).into_iter().map(|letter| letter.error).collect::<Vec<_>>();
        assert_eq!(failed, ["5 is odd", "7 is odd", "9 is odd"]);
    });
}
