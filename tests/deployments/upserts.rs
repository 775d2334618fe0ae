//! Outputs that are tables: readers are led from one version's rows to the other's.

use crate::support::{DEADLINE, append, numbers, open, promote, replay};
use crate::support::{Number, weight};
use rivermark::connectors::{AliasSource, LogSink, LogSource};
use rivermark::log::Position;
use rivermark::{
    BoxError, Context, Engine, Flow, ProcessFunction, State, Timestamp, Upsert, Value, Watermarks, millis,
};
use std::collections::BTreeMap;
use std::time::Instant;

const ALIAS: &str = "sums-by-key";

const SUM: Value<(u64, i64)> = Value::new("sum");

#[derive(Clone)]
struct Sum(u64);

impl ProcessFunction<u64, Number> for Sum {
    type Out = Upsert<u64, u64>;

    fn on_record(
        &mut self,
        key: &u64,
        number: Number,
        cx: &mut Context<'_, u64, Upsert<u64, u64>>,
    ) -> Result<(), BoxError> {
        let (sum, at) = cx.state(SUM).get()?.unwrap_or((0, 0));
        let (sum, at) = (sum + weight(self.0, number), at.max(number.2));
        cx.state(SUM).set((sum, at))?;
        cx.emit(Upsert { key: *key, value: Some(sum), time: Timestamp::from_millis(at) });
        Ok(())
    }
}

/// The sum of each key. The second version leaves out key 3, and the first key 5.
fn flow(version: u64) -> Flow {
    let flow = Flow::new("tables").version(version);
    flow.source(LogSource::<Number>::topic("numbers"))
        .event_time(|number| Timestamp::from_millis(number.2), Watermarks::bounded(millis(500)))
        .filter(move |number| keeps(version, number.1))
        .key_by(|number| number.1)
        .process(Sum(version))
        .named("sum")
        .sink(LogSink::output_table(ALIAS));
    flow
}

fn keeps(version: u64, key: u64) -> bool {
    key != if version == 2 { 3 } else { 5 }
}

fn expected(version: u64, count: u64) -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    for number in numbers(0, count).filter(|number| keeps(version, number.1)) {
        *sums.entry(number.1).or_insert(0) += weight(version, number);
    }
    sums
}

/// The table that a reader has who has read the alias from its beginning.
fn table(engine: &Engine) -> BTreeMap<u64, u64> {
    let mut rows = BTreeMap::new();
    let mut reader = engine.outputs().reader(engine.log(), ALIAS, 0, Position::Earliest).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        for row in batch {
            let key: u64 = serde_json::from_slice(row.key.unwrap()).unwrap();
            match row.value {
                Some(value) => rows.insert(key, serde_json::from_slice(value).unwrap()),
                None => rows.remove(&key),
            };
        }
    }
    rows
}

fn wait_for_table(
    engine: &Engine,
    table: impl Fn(&Engine) -> BTreeMap<u64, u64>,
    wanted: &BTreeMap<u64, u64>,
) {
    let until = Instant::now() + DEADLINE;
    while table(engine) != *wanted {
        assert!(Instant::now() < until, "{:?} {wanted:?}", table(engine));
        std::thread::yield_now();
    }
}

#[test]
fn readers_of_a_table_have_the_live_versions_rows_and_no_others_after_each_switch() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 1000));
    let first = engine.deploy(flow(1), replay()).unwrap();
    wait_for_table(&engine, table, &expected(1, 1000));
    // Another flow keeps the table as it reads it.
    let copy = Flow::new("copy");
    copy.source(AliasSource::<Upsert<u64, u64>>::table(ALIAS)).sink(LogSink::table("copied"));
    let _copy = engine.start(copy).unwrap();
    let copied = |engine: &Engine| {
        let mut rows = BTreeMap::new();
        let Ok(topic) = engine.log().topic("copied") else { return rows };
        let mut reader = topic.reader(0, Position::Earliest, Default::default()).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            for row in batch {
                let key: u64 = serde_json::from_slice(row.key.unwrap()).unwrap();
                match row.value {
                    Some(value) => rows.insert(key, serde_json::from_slice(value).unwrap()),
                    None => rows.remove(&key),
                };
            }
        }
        rows
    };
    wait_for_table(&engine, copied, &expected(1, 1000));
    let second = engine.deploy(flow(2), replay()).unwrap();
    promote(&second);
    // At once, before another record comes: key 3 is gone, key 5 is there.
    assert_eq!(table(&engine), expected(2, 1000));
    append(engine.log(), numbers(1000, 2000));
    wait_for_table(&engine, table, &expected(2, 2000));
    wait_for_table(&engine, copied, &expected(2, 2000));
    second.roll_back("key 3 is wanted").unwrap();
    assert_eq!(table(&engine), expected(1, 2000));
    append(engine.log(), numbers(2000, 2500));
    wait_for_table(&engine, table, &expected(1, 2500));
    wait_for_table(&engine, copied, &expected(1, 2500));
    assert_eq!(first.state(), State::Live);
}
