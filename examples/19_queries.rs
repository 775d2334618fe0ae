//! Queries: a job's state is asked for while it runs, and all answers are of one moment.
//!
//! `cargo run --release --example 19_queries`
//!
//! Accounts pay each other. At any moment some money is on its way between two workers, yet every epoch has all of it: what has been taken has
//! been given. The program looks at many epochs while the payments flow, and at one of them at leisure.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::connectors::{Collect, LogSource};
use rivermark::log::{RecordBatch, Topic, TopicOptions};
use rivermark::{BoxError, Context, Engine, Flow, Options, ProcessFunction, Value};
use std::time::Duration;

/// From, to, and how much.
type Payment = (String, String, i64);

const BALANCE: Value<i64> = Value::new("balance");

/// Adds up what each account gets, less what it gives.
#[derive(Clone)]
struct Account;

impl ProcessFunction<String, (String, i64)> for Account {
    type Out = i64;

    fn on_record(
        &mut self,
        _: &String,
        (_, amount): (String, i64),
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), BoxError> {
        let balance = cx.state(BALANCE).get()?.unwrap_or(0) + amount;
        cx.emit(balance);
        cx.state(BALANCE).set(balance)
    }
}

/// Appends a thousand payments.
fn pay(topic: &Topic, round: i64) -> Result<(), BoxError> {
    let mut batch = RecordBatch::new();
    for n in 0..1000 {
        let account = |n: i64| format!("{}-{}", ["north", "south"][n as usize % 2], n % 50);
        let payment: Payment = (account(n + round), account(n * n + 1), n % 100);
        batch.push(None, Some(&serde_json::to_vec(&payment)?), 0);
    }
    topic.append(0, &mut batch)?;
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let options = Options::new().workers(2).checkpoint_every(Duration::from_millis(20));
    let engine = Engine::open_with(directory.path(), options)?;
    let topic = engine.log().create_topic("payments", TopicOptions::new(1))?;

    let flow = Flow::new("bank");
    flow.source(LogSource::<Payment>::topic("payments"))
        .flat_map(|(from, to, amount)| [(from, -amount), (to, amount)])
        .key_by(|(account, _)| account.clone())
        .process(Account)
        .sink(Collect::new());
    let job = engine.start(flow)?;
    pay(&topic, 0)?;
    let first = job.checkpoint()?;

    let mut view = job.queries().view_from(first, Duration::from_secs(10))?;
    for round in 1..=10 {
        pay(&topic, round)?;
        let next = rivermark::Epoch(view.epoch().0 + 1);
        view = job.queries().view_from(next, Duration::from_secs(10))?;
        let balances = view.query(BALANCE).range::<String>(..)?;
        assert_eq!(balances.iter().map(|(_, balance)| balance).sum::<i64>(), 0);
        println!("epoch {}: {} accounts, which are even", view.epoch(), balances.len());
    }

    // The job goes on; the view stays what it is.
    let paid = view.offsets()[0].offset;
    println!("\nAt epoch {}, after {} payments:", view.epoch(), paid.unwrap_or(0));
    for (account, balance) in view.query(BALANCE).prefix::<String>("north-4")? {
        println!("  {account} has {balance}");
        assert_eq!(view.query(BALANCE).get(&account)?, Some(balance));
    }
    if let Err(error) = view.query(Value::<u64>::new("balance")).get(&0u32) {
        println!("\nWhoever asks for what is not there is told: {error}");
    }
    Ok(())
}
