//! State without a job: a savepoint is read, corrected, and started from.
//!
//! `cargo run --release --example 15_savepoint_state`
//!
//! A meter that was read twice has counted too much. The savepoint tells which, a new one is made without the mistake, the flow's next version is
//! checked against it, and goes on from there.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::connectors::{Collect, LogSource};
use rivermark::log::{RecordBatch, TopicOptions};
use rivermark::{BoxError, Context, Engine, Flow, ProcessFunction, States, Value};

/// Meter and what it has counted since the last time.
type Reading = (u32, u64);

const TOTAL: Value<u64> = Value::new("total");

type Totalling<'a> = Context<'a, u32, Reading>;

/// Adds up what each meter has counted.
#[derive(Clone)]
struct Totals;

impl ProcessFunction<u32, Reading> for Totals {
    type Out = Reading;

    fn states(&self, states: &mut States<'_, u32>) {
        states.has(TOTAL);
    }

    fn on_record(&mut self, meter: &u32, reading: Reading, cx: &mut Totalling<'_>) -> Result<(), BoxError> {
        let total = cx.state(TOTAL).get()?.unwrap_or(0) + reading.1;
        cx.emit((*meter, total));
        cx.state(TOTAL).set(total)
    }
}

fn totals(version: u64, rows: &Collect<Reading>) -> Flow {
    let flow = Flow::new("meters").version(version);
    let readings = flow.source(LogSource::<Reading>::topic("readings"));
    readings.key_by(|reading| reading.0).process(Totals).named("totals").sink(rows.clone());
    flow
}

fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let engine = Engine::open(directory.path())?;
    let rows = Collect::new();
    let topic = engine.log().create_topic("readings", TopicOptions::new(1))?;
    let read = |reading: Reading| -> Result<(), BoxError> {
        let mut batch = RecordBatch::new();
        batch.push(None, Some(&serde_json::to_vec(&reading)?), 0);
        topic.append(0, &mut batch)?;
        Ok(())
    };
    // The second reading of meter 2 is its first once more.
    [(1, 10), (2, 400), (2, 400), (1, 5)].into_iter().try_for_each(read)?;
    let job = engine.start(totals(1, &rows))?;
    job.wait_until(|job| job.metrics().records_read == 4);
    let savepoint = job.stop_with_savepoint("monday")?;

    println!("In savepoint {:?}:", savepoint.name());
    for entry in savepoint.operator("totals")?.entries::<u32, _>(TOTAL)? {
        let (meter, total) = entry?;
        println!("  meter {meter} has counted {total}");
    }

    let mut editor = savepoint.edit();
    let once = |meter: &u32, total| Some(if *meter == 2 { total - 400 } else { total });
    editor.operator("totals")?.update(TOTAL, once)?;
    let corrected = editor.named("corrected").write_to(directory.path().join("corrected"))?;

    println!("\n{}", corrected.check(totals(2, &rows))?);
    read((2, 7))?;
    let job = engine.start_from(totals(2, &rows), corrected)?;
    job.wait_until(|job| job.metrics().records_read == 1);
    job.drain();
    job.wait()?;
    let (meter, total) = rows.rows().pop().ok_or("no row")?;
    println!("Version 2 goes on with meter {meter} at {total}.");
    assert_eq!((meter, total), (2, 407));
    Ok(())
}
