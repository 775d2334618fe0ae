use super::*;
use crate::batch::{Batch, Stamp};
use crate::error::{BoxError, Error};
use crate::process::{Context, ProcessFunction, Side};
use crate::testing::{self, Harness};
use crate::{Map, Value, secs};
use rivermark_state::StateError;

const SEEN: Side<u64> = Side::new("seen");
const SUM: Value<u64> = Value::new("sum");
const TIMES: Map<u64, u32> = Map::new("times");

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

/// Changes all that it can, then fails on odd numbers and on timers of the tenth second.
#[derive(Clone)]
struct Even;

impl ProcessFunction<u8, u64> for Even {
    type Out = u64;

    fn on_record(&mut self, _key: &u8, n: u64, cx: &mut Context<'_, u8, u64>) -> Result<(), BoxError> {
        let times = cx.state(TIMES).get(&n)?.unwrap_or(0);
        cx.state(TIMES).put(n, times + 1)?;
        let sum = cx.state(SUM).update(
            || 0,
            |sum| {
                *sum += n;
                *sum
            },
        )?;
        cx.emit(sum);
        cx.emit_to(SEEN, n);
        cx.timer(cx.time() + secs(5))?;
        if n.is_multiple_of(2) { Ok(()) } else { Err(format!("{n} is odd").into()) }
    }

    fn on_timer(
        &mut self,
        _key: &u8,
        time: Timestamp,
        cx: &mut Context<'_, u8, u64>,
    ) -> Result<(), BoxError> {
        cx.state(SUM).update(|| 0, |sum| *sum *= 2)?;
        cx.emit(1000);
        if time == at(10) { Err("it is ten".into()) } else { Ok(()) }
    }
}

fn place(letter: &DeadLetter) -> (Option<u64>, Option<Timestamp>, &str) {
    (letter.offset(), letter.time, &letter.error)
}

#[test]
fn what_a_failed_call_did_to_state_timers_and_outputs_is_taken_back() {
    testing::check(|it| {
        let (numbers, stream) = it.input();
        let sums = stream.key_by(|_| 0_u8).process(Even).named("sums");
        let (letters, seen) = (it.output(sums.dead_letters()), it.output(sums.side_output(SEEN)));
        let sums = it.output(sums);
        [(1, 2), (2, 5), (3, 4), (5, 7), (6, 2)]
            .into_iter()
            .for_each(|(time, n)| it.push(&numbers, at(time), n));
        it.expect(&sums, [2, 6, 8]);
        it.expect(&seen, [2, 4, 2]);
        let failed = it.take(&letters);
        assert_eq!(
            failed.iter().map(place).collect::<Vec<_>>(),
            [(Some(1), Some(at(2)), "5 is odd"), (Some(3), Some(at(5)), "7 is odd")]
        );
        assert!(failed.iter().all(|letter| letter.operator == "sums" && letter.flow == "test"), "{failed:?}");
        // Of the timers, those of failed records are gone: 7 and 10 seconds. 6 and 8 and 11 are there.
        it.watermark(&numbers, at(20));
        it.expect(&sums, [1000, 1000, 1000]);
        it.expect(&letters, []);
        it.push(&numbers, at(21), 0);
        it.expect(&sums, [64]);
    });
}

#[test]
fn a_timer_that_fails_has_fired_and_its_changes_are_taken_back() {
    testing::check(|it| {
        let (numbers, stream) = it.input();
        let sums = stream.key_by(|_| 0_u8).process(Even);
        let (letters, sums) = (it.output(sums.dead_letters()), it.output(sums));
        it.push(&numbers, at(5), 4);
        it.watermark(&numbers, at(30));
        it.push(&numbers, at(31), 2);
        it.expect(&sums, [4, 6]);
        let failed = it.take(&letters);
        assert_eq!(failed.iter().map(place).collect::<Vec<_>>(), [(None, Some(at(10)), "it is ten")]);
    });
}

#[test]
fn without_a_choice_the_job_stops_and_names_the_record() {
    let mut it = Harness::new();
    let (numbers, stream) = it.input();
    let sums = stream.key_by(|_| 0_u8).process(Even);
    it.output(sums);
    it.push(&numbers, at(1), 2);
    let error = it.try_push(&numbers, at(2), 3).unwrap_err();
    assert!(error.to_string().contains("operator `process-1`"), "{error}");
    assert!(error.to_string().contains("3 is odd"), "{error}");
}

/// An error with another behind it, which its own text does not repeat.
#[derive(Debug, thiserror::Error)]
#[error("the order cannot be priced")]
struct Unpriced(#[source] BoxError);

#[test]
fn a_letter_has_the_whole_chain_of_errors_each_once() {
    testing::check(|it| {
        let (words, stream) = it.input();
        let numbers = stream.try_map(|word: &str| word.parse::<u64>().map_err(|e| Unpriced(e.into()).into()));
        let (letters, numbers) = (it.output(numbers.dead_letters()), it.output(numbers));
        it.push(&words, at(1), "x");
        it.expect(&numbers, []);
        let letters = it.take(&letters);
        assert_eq!(letters[0].error, "the order cannot be priced: invalid digit found in string");
    });
}

#[test]
fn an_error_of_the_state_is_not_the_record_s_fault_and_stops_the_job() {
    let broken = || StateError::Mismatch { operator: "sums".into(), reason: "the disk is ill".into() };
    for wrapped in [false, true] {
        let mut it = Harness::new();
        let (numbers, stream) = it.input();
        let sums = stream.try_map(move |n: u64| match n {
            0 => Err(if wrapped { Unpriced(broken().into()).into() } else { broken().into() }),
            n => Ok(n),
        });
        it.output(sums.dead_letters());
        it.output(sums);
        it.push(&numbers, at(1), 1);
        let error = it.try_push(&numbers, at(2), 0).unwrap_err();
        assert!(matches!(error, Error::Function { .. }), "{error}");
    }
}

fn refused(describe: impl Fn(&mut Harness, Stream<u64>)) -> String {
    let mut it = Harness::new();
    let (numbers, stream) = it.input();
    describe(&mut it, stream);
    it.try_push(&numbers, at(1), 1).unwrap_err().to_string()
}

#[test]
fn a_choice_that_loses_letters_or_cannot_be_had_is_an_error_of_the_flow() {
    let nowhere = refused(|it, stream| {
        it.output(stream.try_map(Ok).named("parse").on_error(OnError::DeadLetter));
    });
    assert!(nowhere.contains("the dead letters of `parse` go nowhere"), "{nowhere}");
    let infallible = refused(|it, stream| {
        let doubled = stream.map(|n| n * 2);
        it.output(doubled.dead_letters());
        it.output(doubled);
    });
    assert!(infallible.contains("`map-1` has no dead letters"), "{infallible}");
    let twice = refused(|it, stream| {
        let parsed = stream.try_map(Ok);
        it.output(parsed.dead_letters());
        it.output(parsed.dead_letters());
        it.output(parsed);
    });
    assert!(twice.contains("asked for twice"), "{twice}");
}

#[test]
fn a_letter_is_readable_as_json_and_exact_in_every_format() {
    let raw = RawRecord { key: Some(vec![0, 255]), value: Some("größer".into()) };
    let record =
        SourceRecord { source: "s".into(), partition: 3, name: "s[3]".into(), offset: 7, raw: Some(raw) };
    let letter = DeadLetter {
        flow: "f".into(),
        version: 2,
        operator: "parse".into(),
        error: "no".into(),
        time: Some(at(1)),
        record: Some(record),
    };
    let json = serde_json::to_string(&letter).unwrap();
    assert!(json.contains(r#""raw":{"key":{"hex":"00ff"},"value":"größer"}"#), "{json}");
    assert_eq!(serde_json::from_str::<DeadLetter>(&json).unwrap(), letter);
    let mut bytes = Vec::new();
    crate::encode_into(&letter, &mut bytes).unwrap();
    assert_eq!(crate::decode::<DeadLetter>(&bytes).unwrap(), letter);
    let mut tombstone = letter;
    tombstone.record.as_mut().unwrap().raw = Some(RawRecord::default());
    let json = serde_json::to_string(&tombstone).unwrap();
    assert_eq!(serde_json::from_str::<DeadLetter>(&json).unwrap(), tombstone);
}

#[test]
fn a_batch_is_cut_to_what_it_held() {
    let mut batch: Batch<u64> = (0..5).map(|n| (Stamp::derived(at(n)), n as u64)).collect();
    batch.truncate(2);
    assert_eq!((batch.values(), batch.stamps().len()), (&[0, 1][..], 2));
}

#[test]
fn a_record_whose_look_up_fails_is_a_letter_in_its_turn() {
    testing::check(|it| {
        let (numbers, stream) = it.input();
        let service = crate::LookUp::new(|n: u64, reply: crate::Reply<u64>| {
            reply.send(if n.is_multiple_of(2) { Ok(n * 10) } else { Err("there is none".into()) });
        });
        let found = stream.look_up(service, |n: &u64| *n, |_, answer| answer);
        let (letters, found) = (it.output(found.dead_letters()), it.output(found));
        (1..6).for_each(|n| it.push(&numbers, at(n), n as u64));
        it.expect(&found, [20, 40]);
        let letters = it.take(&letters);
        let places: Vec<_> = letters.iter().map(|letter| letter.offset().unwrap()).collect();
        assert_eq!(places, [0, 2, 4]);
        assert!(letters[0].error.contains("there is none"), "{}", letters[0].error);
    });
}
