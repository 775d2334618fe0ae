//! Branches of a flow that cross exchanges side by side, with more in them than fits into channels: one full channel must not keep back what
//! another waits for, and windows that fire by the ten thousand do so as there is room.

use crate::sips::Sips;
use crate::support::values;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Log, RecordBatch, TopicOptions};
use rivermark::simulation::{Report, Simulation};
use rivermark::{
    BoxError, Context, Flow, Options, ProcessFunction, Stream, Timestamp, Watermarks, Windows, millis,
};

const SEEDS: u64 = 200;
const RECORDS: u64 = 150;
/// What each record becomes in one of the branches.
const COPIES: u64 = 700;
/// Partitions, and the most workers.
const PARTITIONS: u32 = 3;

/// Gives so many rows a record, of numbers of their own.
#[derive(Clone)]
struct Copying(u64);

impl ProcessFunction<u64, u64> for Copying {
    type Out = u64;

    fn on_record(&mut self, _: &u64, record: u64, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        (0..self.0).for_each(|copy| cx.emit(record * self.0 + copy));
        Ok(())
    }
}

fn fill(log: &Log) {
    let topic = log.create_topic("numbers", TopicOptions::new(PARTITIONS)).unwrap();
    for partition in 0..PARTITIONS {
        let mut batch = RecordBatch::new();
        for n in (0..RECORDS).filter(|n| n % u64::from(PARTITIONS) == u64::from(partition)) {
            batch.push(None, Some(&serde_json::to_vec(&n).unwrap()), 0);
        }
        topic.append(partition, &mut batch).unwrap();
    }
}

/// Numbers at the time of their record: all copies of a few records fall into one window.
fn flow() -> Flow {
    let flow = Flow::new("branches");
    let numbers: Stream<u64> = flow
        .source(Sips { source: LogSource::<u64>::topic("numbers").until_end(), most: 5 })
        .event_time(|n| Timestamp::from_millis(*n as i64), Watermarks::monotonous());
    // Few of the keys have many copies, so some channels are full while others are nearly empty.
    let copies = numbers.clone().key_by(|n| n % 4).process(Copying(COPIES));
    let single = numbers.key_by(|n| n % 3).process(Copying(1));
    let counts = |numbers: Stream<u64>, name: &'static str| {
        let windows = numbers.key_by(|n| *n).window(Windows::tumbling(millis(120))).count();
        let again = windows.key_by(|row| row.key % 10).window(Windows::tumbling(millis(120)));
        again
            .sum(|row| row.value)
            .map(|row| format!("{} {} {}", row.key, row.window.start.millis(), row.value))
            .sink_as(name, LogSink::topic(name).text());
    };
    counts(copies, "copies");
    counts(single, "single");
    flow
}

fn run(simulation: Simulation, name: &str) -> (Report, [Vec<String>; 2]) {
    let report = simulation.options(Options::new().checkpoint_every(millis(5))).run(
        |log| {
            fill(log);
            Ok(())
        },
        flow,
    );
    let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
    let lines = ["copies", "single"].map(|topic| {
        let lines = values(&report.log, topic).into_iter().map(|value| String::from_utf8(value).unwrap());
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    });
    (report, lines)
}

#[test]
fn branches_with_full_channels_and_windows_that_fire_in_parts_get_through_every_checkpoint_and_crash() {
    let expected = [COPIES, 1].map(|copies| {
        let mut counts = std::collections::BTreeMap::new();
        for n in 0..RECORDS {
            for copy in n * copies..(n + 1) * copies {
                *counts.entry((copy % 10, n / 120 * 120)).or_insert(0) += 1;
            }
        }
        let lines = counts.into_iter().map(|((key, start), count)| format!("{key} {start} {count}"));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    });
    let (mut crashes, mut checkpoints) = (0, 0);
    for seed in 0..SEEDS {
        let (report, found) = run(Simulation::seed(seed), &format!("seed {seed}"));
        assert_eq!(found, expected, "seed {seed}");
        crashes += u64::from(report.crashes);
        checkpoints += report.checkpoints;
    }
    assert!(crashes > SEEDS / 2 && checkpoints > SEEDS, "{crashes} crashes, {checkpoints} checkpoints");
}
