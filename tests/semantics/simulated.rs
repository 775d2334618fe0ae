//! A flow with everything in it, under simulation: two sources that are united, sliding windows and sessions with late outputs, a second
//! exchange, a function with state and timers, three sinks. Crashes, a faulty store and changing numbers of workers change nothing.

use crate::sips::Sips;
use crate::support::{Event, event, values};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Log, RecordBatch, TopicOptions};
use rivermark::simulation::{Report, Simulation};
use rivermark::{
    BoxError, Context, Flow, Options, ProcessFunction, Stream, Timestamp, Value, Watermarks, Windowed,
    Windows, millis,
};

const SEEDS: u64 = 300;

const SUM: Value<i64> = Value::new("sum");

/// Adds up the rows of a second, and says how much that was when the second is over.
#[derive(Clone)]
struct PerSecond;

impl ProcessFunction<i64, Windowed<u8, i64>> for PerSecond {
    type Out = String;

    fn on_record(
        &mut self,
        _second: &i64,
        row: Windowed<u8, i64>,
        cx: &mut Context<'_, i64, String>,
    ) -> Result<(), BoxError> {
        cx.state(SUM).update(|| 0, |sum| *sum += row.value)?;
        cx.timer(row.window.end + millis(1000))
    }

    fn on_timer(
        &mut self,
        second: &i64,
        _at: Timestamp,
        cx: &mut Context<'_, i64, String>,
    ) -> Result<(), BoxError> {
        if let Some(sum) = cx.state(SUM).get()? {
            cx.emit(format!("second {second}: {sum}"));
            cx.state(SUM).clear()?;
        }
        Ok(())
    }
}

/// Two topics of two partitions, out of order, the second some seconds behind the first.
fn fill(log: &Log) {
    for (name, behind) in [("left", 0), ("right", 3000)] {
        let topic = log.create_topic(name, TopicOptions::new(2)).unwrap();
        for partition in 0..2 {
            let mut batch = RecordBatch::new();
            for n in 0..200_i64 {
                let time = 10_000 + n * 50 - (n * 7919 + behind) % 700 - behind;
                let event = (n % 5, time, n * 31 % 17);
                batch.push(None, Some(&serde_json::to_vec(&event).unwrap()), 0);
            }
            topic.append(partition, &mut batch).unwrap();
        }
    }
}

fn flow() -> Flow {
    let flow = Flow::new("everything");
    let read = |topic: &str| -> Stream<Event> {
        flow.source(Sips { source: LogSource::<(i64, i64, i64)>::topic(topic).until_end(), most: 2 })
            .map(|(key, time, value)| event(key as u8, time, value))
            .event_time(|e| Timestamp::from_millis(e.time), Watermarks::bounded(millis(300)))
    };
    let both = read("left").union(read("right")).filter(|e| e.value != 3);
    both.clone()
        .key_by(|e| e.key)
        .window(Windows::session(millis(60)))
        .late_output(|late| late.map(|late| late.value.time).sink_as("late", LogSink::topic("late")))
        .sum(|e| e.value)
        .map(|row| format!("{} {:?} {}", row.key, row.window, row.value))
        .sink_as("sessions", LogSink::topic("sessions").text());
    both.key_by(|e| e.key)
        .window(Windows::sliding(millis(500), millis(250)))
        .sum(|e| e.value)
        .key_by(|row| row.window.end.millis() / 1000)
        .process(PerSecond)
        .sink_as("seconds", LogSink::topic("seconds").text());
    flow
}

fn lines(log: &Log, topic: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        values(log, topic).into_iter().map(|value| String::from_utf8(value).unwrap()).collect();
    lines.sort();
    lines
}

fn run(simulation: Simulation, name: &str) -> (Report, [Vec<String>; 3]) {
    let report = simulation.options(Options::new().checkpoint_every(millis(5))).run(
        |log| {
            fill(log);
            Ok(())
        },
        flow,
    );
    let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
    let results = ["late", "sessions", "seconds"].map(|topic| lines(&report.log, topic));
    (report, results)
}

#[test]
fn a_flow_with_unions_and_several_exchanges_gives_the_same_through_every_crash() {
    let quiet = Simulation::seed(0).crashes(0).faulty_store(false).workers(&[1]);
    let (_, expected) = run(quiet, "undisturbed");
    assert!(expected.iter().all(|lines| lines.len() > 10), "too little to get wrong: {expected:?}");
    let (mut crashes, mut checkpoints) = (0, 0);
    for seed in 0..SEEDS {
        let (report, found) = run(Simulation::seed(seed).crashes(6), &format!("seed {seed}"));
        for (found, expected) in found.iter().zip(&expected) {
            let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
            let surplus: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
            assert!(
                found == expected,
                "seed {seed}: {missing:?} missing, {surplus:?} surplus, {} lines",
                found.len()
            );
        }
        crashes += u64::from(report.crashes);
        checkpoints += report.checkpoints;
    }
    assert!(crashes > SEEDS && checkpoints > 5 * SEEDS, "{crashes} crashes, {checkpoints} checkpoints");
}
