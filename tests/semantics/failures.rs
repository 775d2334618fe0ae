//! Functions that fail on some records: those become dead letters, the rest goes on, exactly once and in the same order whatever happens.

use crate::sips::Sips;
use crate::support::{Lab, values};
use rivermark::connectors::{Collect, LogSink, LogSource};
use rivermark::dead_letters::RawRecord;
use rivermark::log::{Log, RecordBatch, TopicOptions};
use rivermark::simulation::Simulation;
use rivermark::{
    BoxError, Context, DeadLetter, Flow, OnError, Options, ProcessFunction, RateLimit, StateBackend,
    Timestamp, Value, Watermarks, millis,
};
use std::collections::BTreeMap;

const SEEDS: u64 = 60;
const PARTITIONS: u32 = 3;
const RECORDS: i64 = 120;

/// Key, time and value of record `n` of a partition, as it lies in the topic.
fn record(partition: u32, n: i64) -> (u8, i64, i64) {
    ((n * 5 + i64::from(partition)) as u8 % 7, 10 * n - n * 37 % 40, n * 31 % 23)
}

/// Records as JSON; one in eleven is no number, and every record has a key of its own.
fn raw(partition: u32, n: i64) -> RawRecord {
    let value = if n % 11 == 7 {
        format!("no. {n}")
    } else {
        format!("{:?}", record(partition, n)).replace(['(', ')'], "\"")
    };
    let value = value.replace('"', "");
    RawRecord { key: Some(vec![partition as u8, n as u8]), value: Some(format!("\"{value}\"").into_bytes()) }
}

fn fill(log: &Log) {
    let topic = log.create_topic("orders", TopicOptions::new(PARTITIONS)).unwrap();
    for partition in 0..PARTITIONS {
        let mut batch = RecordBatch::new();
        for n in 0..RECORDS {
            let raw = raw(partition, n);
            batch.push(raw.key.as_deref(), raw.value.as_deref(), 0);
            if n % 10 == 9 {
                topic.append(partition, &mut batch).unwrap();
            }
        }
    }
}

fn parse(line: String) -> Result<(u8, i64, i64), BoxError> {
    let numbers = line.split(", ").map(str::parse::<i64>).collect::<Result<Vec<_>, _>>()?;
    let [key, time, value] = numbers[..] else { return Err("there are not three numbers".into()) };
    Ok((key as u8, time, value))
}

/// Adds up. Fails where the sum would become divisible by four, after it has written it.
#[derive(Clone)]
struct Sum;

impl ProcessFunction<u8, (u8, i64, i64)> for Sum {
    type Out = String;

    fn on_record(
        &mut self,
        key: &u8,
        record: (u8, i64, i64),
        cx: &mut Context<'_, u8, String>,
    ) -> Result<(), BoxError> {
        const SUM: Value<i64> = Value::new("sum");
        let sum = cx.state(SUM).update(
            || 0,
            |sum| {
                *sum += record.2;
                *sum
            },
        )?;
        cx.emit(format!("{key} at {}: {sum}", record.1));
        if sum % 4 == 0 { Err(format!("{sum} is divisible by 4").into()) } else { Ok(()) }
    }
}

fn flow(limit: Option<RateLimit>) -> Flow {
    let flow = Flow::new("orders");
    let source = LogSource::<String>::topic("orders").until_end();
    let lines = flow.source(Sips { source, most: 3 }).named("orders");
    let lines = match limit {
        Some(limit) => lines.rate_limit(limit),
        None => lines,
    };
    let parsed = lines.try_map(parse).named("parse");
    parsed.dead_letters().sink_as("unparsed", LogSink::topic("unparsed"));
    let sums = parsed
        .event_time(|record| Timestamp::from_millis(record.1), Watermarks::bounded(millis(40)))
        .key_by(|record| record.0)
        .in_event_time_order()
        .process(Sum)
        .named("sum");
    sums.dead_letters().sink_as("unsummed", LogSink::topic("unsummed"));
    // Behind an exchange, as records come: what fails depends on the record alone.
    let short = sums
        .try_map(|line: String| if line.ends_with('7') { Err("it ends with 7".into()) } else { Ok(line) });
    short.named("short").on_error(OnError::DeadLetter).sink_as("sums", LogSink::topic("sums").text());
    flow.dead_letters_to(LogSink::topic("others"));
    flow
}

type Letters = BTreeMap<String, Vec<DeadLetter>>;

/// The letters of a topic by the partition of their records, in their order.
fn letters(log: &Log, topic: &str) -> Letters {
    let mut letters = Letters::new();
    for value in values(log, topic) {
        let letter: DeadLetter = serde_json::from_slice(&value).unwrap();
        letters.entry(letter.partition().unwrap().to_owned()).or_default().push(letter);
    }
    letters
}

fn results(log: &Log) -> (Vec<Vec<u8>>, [Letters; 3]) {
    let mut sums = values(log, "sums");
    sums.sort();
    (sums, ["unparsed", "unsummed", "others"].map(|topic| letters(log, topic)))
}

fn simulate(simulation: Simulation, limit: Option<RateLimit>) -> (Vec<Vec<u8>>, [Letters; 3]) {
    let options = Options::new().checkpoint_every(millis(5));
    let report = simulation.options(options).run(
        |log| {
            fill(log);
            Ok(())
        },
        || flow(limit),
    );
    results(&report.unwrap().log)
}

#[test]
fn letters_are_the_same_in_the_same_order_through_every_crash_with_any_number_of_workers() {
    let expected = simulate(Simulation::seed(0).crashes(0).faulty_store(false).workers(&[1]), None);
    let (sums, [unparsed, unsummed, others]) = &expected;
    assert!(sums.len() > 50, "{}", sums.len());
    // Held to the log: each that cannot be parsed, by offset, with its bytes.
    for partition in 0..PARTITIONS {
        let name = format!("orders[{partition}]");
        let found: Vec<_> = unparsed[&name].iter().map(|letter| letter.offset().unwrap() as i64).collect();
        assert_eq!(found, (0..RECORDS).filter(|n| n % 11 == 7).collect::<Vec<_>>());
        for letter in [unparsed, unsummed, others].iter().flat_map(|letters| &letters[&name]) {
            let record = letter.record.as_ref().unwrap();
            assert_eq!(record.raw.as_ref(), Some(&raw(partition, record.offset as i64)));
            assert_eq!(
                (&*record.source, record.partition, &*letter.flow, letter.version),
                ("orders", partition, "orders", 1)
            );
        }
        for letters in [unsummed, others] {
            let places: Vec<_> = letters[&name].iter().map(|letter| (letter.time, letter.offset())).collect();
            assert!(places.len() > 3 && places.is_sorted(), "{places:?}");
        }
    }
    for seed in 0..SEEDS {
        let found = simulate(Simulation::seed(seed).crashes(6), None);
        assert!(found == expected, "seed {seed}: {found:?} instead of {expected:?}");
    }
}

#[test]
fn a_rate_limit_changes_no_result() {
    let expected = simulate(Simulation::seed(0).crashes(0).faulty_store(false).workers(&[1]), None);
    let limits = [RateLimit::records_per_second(2000), RateLimit::bytes_per_second(20_000)];
    for (seed, limit) in (0..12).zip(limits.into_iter().cycle()) {
        let found = simulate(Simulation::seed(seed).crashes(3), Some(limit.burst(millis(10))));
        assert!(found == expected, "seed {seed}");
    }
}

#[test]
fn what_fails_is_counted_by_operator_and_the_rest_is_not_held_up() {
    let lab = Lab::new(2, StateBackend::Memory);
    fill(lab.engine().log());
    let metrics = lab.engine().run(flow(None)).unwrap();
    let (sums, [unparsed, unsummed, others]) = results(lab.engine().log());
    let count = |letters: &Letters| letters.values().map(Vec::len).sum::<usize>() as u64;
    for (operator, letters) in [("parse", &unparsed), ("sum", &unsummed), ("short", &others)] {
        assert_eq!(metrics.operator(operator).unwrap().dead_letters, count(letters), "{operator}");
    }
    assert_eq!(metrics.dead_letters, count(&unparsed) + count(&unsummed) + count(&others));
    let all = u64::from(PARTITIONS) * RECORDS as u64;
    assert_eq!(sums.len() as u64 + metrics.dead_letters + metrics.late_records, all);
}

#[test]
fn one_sink_has_the_letters_of_all_operators_sorted_by_record() {
    for workers in [1, 3] {
        let lab = Lab::new(workers, StateBackend::Memory);
        let topic = lab.engine().log().create_topic("numbers", TopicOptions::new(2)).unwrap();
        for partition in 0..2 {
            let mut batch = RecordBatch::new();
            for n in 0..300_u64 {
                let value = if n % 50 == 10 { "ten".to_owned() } else { n.to_string() };
                batch.push(None, Some(value.as_bytes()), 0);
            }
            topic.append(partition, &mut batch).unwrap();
        }
        let (flow, letters) = (lab.flow(), Collect::new());
        let fail =
            |by: u64| move |n: u64| if n.is_multiple_of(by) { Err(format!("by {by}").into()) } else { Ok(n) };
        flow.dead_letters_to(letters.clone());
        let source = LogSource::<u64>::topic("numbers").until_end();
        let numbers = flow.source(source).on_error(OnError::DeadLetter);
        let first = numbers.try_map(fail(7)).on_error(OnError::DeadLetter);
        let moved = first.key_by(|n| n % 5).process(Same);
        moved.try_map(fail(3)).on_error(OnError::DeadLetter).sink(Collect::new());
        lab.engine().run(flow).unwrap();
        for partition in ["numbers[0]", "numbers[1]"] {
            let of_partition = |letter: &DeadLetter| letter.partition() == Some(partition);
            let found: Vec<_> =
                letters.rows().into_iter().filter(of_partition).map(|l| l.offset().unwrap()).collect();
            let expected = (0..300).filter(|n| n % 50 == 10 || n % 7 == 0 || n % 3 == 0);
            assert_eq!(found, expected.collect::<Vec<u64>>(), "{workers} workers");
        }
    }
}

/// Nothing but the exchange.
#[derive(Clone)]
struct Same;

impl ProcessFunction<u64, u64> for Same {
    type Out = u64;

    fn on_record(&mut self, _key: &u64, n: u64, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        cx.emit(n);
        Ok(())
    }
}

#[test]
fn a_job_reads_at_its_rate_and_not_at_all_while_it_is_paused() {
    let lab = Lab::new(2, StateBackend::Memory);
    fill(lab.engine().log());
    let (flow, rows) = (lab.flow(), Collect::new());
    let source = LogSource::<String>::topic("orders").until_end();
    // So slow that the job would take longer than any test may.
    flow.source(source).named("orders").rate_limit(RateLimit::records_per_second(1)).sink(rows.clone());
    let job = lab.engine().start(flow).unwrap();
    assert!(job.wait_until(|job| job.metrics().records_read > 0));
    job.pause();
    job.set_rate_limit("orders", None).unwrap();
    let read = job.metrics().records_read;
    assert!(read < 100, "{read}");
    // It takes part in a checkpoint while it is paused.
    job.checkpoint().unwrap();
    assert!(job.metrics().records_read < 100);
    let error = job.set_rate_limit("clicks", None).unwrap_err().to_string();
    assert!(error.contains("source `clicks`") && error.contains("`orders`"), "{error}");
    job.resume();
    let metrics = job.wait().unwrap();
    assert_eq!(metrics.records_read, u64::from(PARTITIONS) * RECORDS as u64);
    assert_eq!(rows.rows().len() as u64, metrics.records_read);
}
