//! A flow with windows and a function of its own over records out of order, in two versions, and a plain program that computes the same.

use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Log, Position, RecordBatch, TopicOptions};
use rivermark::{
    BoxError, CaughtUp, Context, Deployment, Engine, Flow, Options, ProcessFunction, Replay, Restart, State,
    StateBackend, Timestamp, Value, Watermarks, Windowed, Windows, millis, secs,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub const KEYS: u64 = 7;
pub const PARTITIONS: u32 = 3;
const BOUND_MS: i64 = 500;
const WINDOW_MS: i64 = 1000;
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const WINDOWS: &str = "windows";
pub const TOTALS: &str = "totals";

pub const TOTAL: Value<u64> = Value::new("total");

/// A number of a key: number, key, time in milliseconds.
pub type Number = (u64, u64, i64);
/// A row of a window: version, window, key, value.
pub type WindowRow = (u64, i64, u64, u64);
/// A row of a number: version, number, key, the key's total so far.
pub type TotalRow = (u64, u64, u64, u64);

/// The numbers `from..to`, out of order by less than the bound. A key is in one partition.
pub fn numbers(from: u64, to: u64) -> impl Iterator<Item = Number> {
    (from..to).map(|n| {
        let disorder = (n * 7919 % 400) as i64;
        (n, n % KEYS, n as i64 * 10 - disorder)
    })
}

pub fn append(log: &Log, numbers: impl Iterator<Item = Number>) {
    let topic = match log.topic("numbers") {
        Ok(topic) => topic,
        Err(_) => log.create_topic("numbers", TopicOptions::new(PARTITIONS)).unwrap(),
    };
    let mut batches: Vec<_> = (0..PARTITIONS).map(|_| RecordBatch::new()).collect();
    for number in numbers {
        let value = serde_json::to_vec(&number).unwrap();
        batches[partition(number) as usize].push(None, Some(&value), number.2);
    }
    for (partition, batch) in batches.iter_mut().enumerate().filter(|(_, batch)| !batch.is_empty()) {
        topic.append(partition as u32, batch).unwrap();
    }
}

pub fn partition((_, key, _): Number) -> u32 {
    (key % u64::from(PARTITIONS)) as u32
}

/// What a version makes of a number: the first version forgets that every fifth counts double.
pub fn weight(version: u64, (number, ..): Number) -> u64 {
    if version > 1 && number % 5 == 0 { 2 } else { 1 }
}

/// A version that fails on a number.
pub const FAILING: u64 = 66;
pub const FAILS_ON: u64 = 5000;

#[derive(Clone)]
struct Total(u64);

impl ProcessFunction<u64, Number> for Total {
    type Out = TotalRow;

    fn on_record(
        &mut self,
        key: &u64,
        number: Number,
        cx: &mut Context<'_, u64, TotalRow>,
    ) -> Result<(), BoxError> {
        if self.0 == FAILING && number.0 == FAILS_ON {
            return Err("told to fail".into());
        }
        let total = cx.state(TOTAL).get()?.unwrap_or(0) + weight(self.0, number);
        cx.state(TOTAL).set(total)?;
        cx.emit((self.0, number.0, *key, total));
        Ok(())
    }
}

/// Sums numbers by second, and one by one.
pub fn flow(version: u64) -> Flow {
    let flow = Flow::new("sums").version(version);
    let numbers = flow
        .source(LogSource::<Number>::topic("numbers"))
        .event_time(|number| Timestamp::from_millis(number.2), Watermarks::bounded(millis(BOUND_MS as u64)));
    numbers
        .clone()
        .key_by(|number| number.1)
        .process(Total(version))
        .named("total")
        .sink(LogSink::output(TOTALS).key(|row: &TotalRow| row.1.to_be_bytes().to_vec()).partitions(2));
    numbers
        .map(move |number| (number.1, weight(version, number)))
        .key_by(|number| number.0)
        .window(Windows::tumbling(millis(WINDOW_MS as u64)))
        .sum(|number: &(u64, u64)| number.1)
        .map(move |row: Windowed<u64, u64>| (version, row.window.start.millis(), row.key, row.value))
        .sink(LogSink::output(WINDOWS).key(|row: &WindowRow| format!("{}-{}", row.1, row.2).into_bytes()));
    flow
}

pub fn options() -> Options {
    Options::new()
        .workers(2)
        .state_backend(StateBackend::Memory)
        .checkpoint_every(millis(20))
        .restart(Restart::Never)
}

pub fn open(directory: &Path) -> Engine {
    Engine::open_with(directory, options()).unwrap()
}

/// Caught up quickly.
pub fn replay() -> Replay {
    let caught_up = CaughtUp::new().within_records(1000).within_event_time(secs(10)).for_at_least(millis(30));
    Replay::from_earliest().caught_up(caught_up)
}

/// All rows of an output as its readers see them now, partition by partition.
pub fn read<R: serde::de::DeserializeOwned>(engine: &Engine, alias: &str, partitions: u32) -> Vec<R> {
    let mut rows = Vec::new();
    for partition in 0..partitions {
        let mut reader = engine.outputs().reader(engine.log(), alias, partition, Position::Earliest).unwrap();
        let mut expected = reader.position();
        while let Some(batch) = reader.next_batch().unwrap() {
            for row in batch {
                assert_eq!(row.offset, expected, "offsets of an alias have no gap");
                expected += 1;
                rows.push(serde_json::from_slice(row.value.unwrap()).unwrap());
            }
        }
        assert_eq!(reader.position(), expected);
    }
    rows
}

/// The sum of each window and key; the key and total of each number.
pub type Expected = (BTreeMap<(i64, u64), u64>, BTreeMap<u64, (u64, u64)>);

/// What a version writes about the first so many numbers: the windows that are over, and the totals.
pub fn expected(version: u64, count: u64) -> Expected {
    let mut highest = [i64::MIN; PARTITIONS as usize];
    let (mut windows, mut totals, mut sums) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for number in numbers(0, count) {
        let highest = &mut highest[partition(number) as usize];
        *highest = number.2.max(*highest);
        let window = number.2.div_euclid(WINDOW_MS) * WINDOW_MS;
        *windows.entry((window, number.1)).or_insert(0) += weight(version, number);
        let sum = sums.entry(number.1).or_insert(0);
        *sum += weight(version, number);
        totals.insert(number.0, (number.1, *sum));
    }
    let watermark = highest.iter().min().unwrap() - BOUND_MS;
    windows.retain(|(window, _), _| window + WINDOW_MS <= watermark);
    (windows, totals)
}

/// Waits until the readers of both outputs see as many rows as there are for the first so many numbers.
pub fn wait_for_rows(engine: &Engine, count: u64) {
    let until = Instant::now() + DEADLINE;
    let (windows, totals) = expected(1, count);
    loop {
        let seen = (read::<WindowRow>(engine, WINDOWS, 1).len(), read::<TotalRow>(engine, TOTALS, 2).len());
        if seen.0 >= windows.len() && seen.1 >= totals.len() {
            return;
        }
        assert!(Instant::now() < until, "{seen:?} of {} and {}", windows.len(), totals.len());
        std::thread::yield_now();
    }
}

/// Sees that readers of the outputs have each row of the first so many numbers once, as the version that wrote it computes it, and answers the
/// versions in the order in which they wrote.
pub fn check_rows(engine: &Engine, count: u64) -> Vec<u64> {
    wait_for_rows(engine, count);
    let mut order: Vec<u64> = Vec::new();
    let mut by_version = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (version, window, key, value) in read::<WindowRow>(engine, WINDOWS, 1) {
        let (windows, _) = by_version.entry(version).or_insert_with(|| expected(version, count));
        assert_eq!(
            windows.get(&(window, key)),
            Some(&value),
            "version {version}, window {window}, key {key}"
        );
        assert_eq!(seen.insert((window, key), version), None, "window {window}, key {key} twice");
        if order.last() != Some(&version) {
            order.push(version);
        }
    }
    let (windows, totals) = expected(1, count);
    assert_eq!(seen.len(), windows.len(), "a gap in the windows");
    let mut seen = BTreeMap::new();
    for (version, number, key, total) in read::<TotalRow>(engine, TOTALS, 2) {
        let (_, totals) = by_version.entry(version).or_insert_with(|| expected(version, count));
        assert_eq!(totals.get(&number), Some(&(key, total)), "version {version}, number {number}");
        assert_eq!(seen.insert(number, version), None, "number {number} twice");
    }
    assert_eq!(seen.len(), totals.len(), "a gap in the totals");
    order
}

pub fn wait_for(deployment: &Deployment, state: State) {
    assert!(
        deployment.wait_for(state, DEADLINE),
        "version {} is not {state}: {:?} {:?}",
        deployment.version(),
        deployment.deployments(),
        deployment.progress()
    );
}

/// Promotes a version once it is caught up; it may fall behind again in between.
pub fn promote(next: &Deployment) {
    loop {
        wait_for(next, State::CaughtUp);
        match next.promote() {
            Ok(_) => return,
            Err(error) => assert_eq!(next.state(), State::Replaying, "{error}"),
        }
    }
}

/// Appends twenty numbers after each `pause` until it is over.
pub fn append_until(is_over: &AtomicBool, appended: &AtomicU64, log: &Log, pause: Duration) {
    while !is_over.load(Ordering::SeqCst) {
        let from = appended.fetch_add(20, Ordering::SeqCst);
        append(log, numbers(from, from + 20));
        std::thread::park_timeout(pause);
    }
}

/// Says that it is over when it goes out of scope, so also if an assertion fails.
pub struct AtEnd<'a>(pub &'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
