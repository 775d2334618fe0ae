//! A bank in the log: every transfer takes from one account what it gives to another.

use rivermark::connectors::LogSource;
use rivermark::log::{Log, RecordBatch, TopicOptions};
use rivermark::{
    BoxError, Context, Engine, Flow, Job, Options, ProcessFunction, Reducing, Restart, StateBackend, Value,
    View,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const BALANCE: Value<i64> = Value::new("balance");
pub const TAKEN: Reducing<u64> = Reducing::new("taken");

/// More than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const ACCOUNTS: u64 = 300;
pub const PARTITIONS: u32 = 3;

/// From, to, amount.
pub type Transfer = (u64, u64, i64);
/// Account and what it gets.
pub type Posting = (u64, i64);

/// The transfers `from..to`, as every run has them.
pub fn append(log: &Log, from: u64, to: u64) {
    let create = || log.create_topic("transfers", TopicOptions::new(PARTITIONS));
    let topic = log.topic("transfers").or_else(|_| create()).unwrap();
    let mut batches: Vec<_> = (0..PARTITIONS).map(|_| RecordBatch::new()).collect();
    for n in from..to {
        let hashed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let transfer: Transfer = (hashed % ACCOUNTS, (hashed / 7) % ACCOUNTS, (hashed % 1000) as i64);
        let value = serde_json::to_vec(&transfer).unwrap();
        batches[n as usize % PARTITIONS as usize].push(None, Some(&value), 0);
    }
    for (partition, batch) in batches.iter_mut().enumerate() {
        topic.append(partition as u32, batch).unwrap();
    }
}

/// Adds postings up, and fails once when told to.
#[derive(Clone, Default)]
pub struct Book {
    pub fails: Arc<AtomicBool>,
}

impl ProcessFunction<u64, Posting> for Book {
    type Out = Posting;

    fn on_record(
        &mut self,
        account: &u64,
        (_, amount): Posting,
        cx: &mut Context<'_, u64, Posting>,
    ) -> Result<(), BoxError> {
        if self.fails.swap(false, Ordering::Relaxed) {
            return Err("told to fail".into());
        }
        let balance = cx.state(BALANCE).get()?.unwrap_or(0) + amount;
        cx.state(BALANCE).set(balance)?;
        cx.emit((*account, balance));
        Ok(())
    }
}

/// Counts the transfers that each account has begun.
#[derive(Clone)]
pub struct Begun;

impl ProcessFunction<u64, Transfer> for Begun {
    type Out = ();

    fn on_record(&mut self, _: &u64, _: Transfer, cx: &mut Context<'_, u64, ()>) -> Result<(), BoxError> {
        cx.state(TAKEN).add(1, |all, one| *all += one)
    }
}

pub fn bank(book: &Book) -> Flow {
    let flow = Flow::new("bank");
    let transfers = flow.source(LogSource::<Transfer>::topic("transfers"));
    transfers
        .clone()
        .flat_map(|(from, to, amount): Transfer| [(from, -amount), (to, amount)])
        .key_by(|posting| posting.0)
        .process(book.clone())
        .named("book")
        .sink(rivermark::connectors::Collect::new());
    transfers
        .key_by(|transfer| transfer.0)
        .process(Begun)
        .named("begun")
        .sink(rivermark::connectors::Collect::new());
    flow
}

pub fn engine(directory: &Path, backend: StateBackend, workers: usize) -> Engine {
    let options = Options::new()
        .workers(workers)
        .checkpoint_every(Duration::from_millis(10))
        .state_backend(backend)
        .state_budget(1 << 20)
        .restart(Restart::FixedDelay { delay: Duration::ZERO, attempts: u32::MAX });
    Engine::open_with(directory, options).unwrap()
}

/// Waits for a condition of the job.
pub fn wait(job: &Job, mut done: impl FnMut(&Job) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let came = job.wait_until(|job| {
        assert!(Instant::now() < deadline, "{:?}", job.status());
        done(job)
    });
    assert!(came, "the job is over: {:?}", job.status());
}

/// How many records the view has seen of the source.
pub fn read(view: &View) -> u64 {
    view.offsets().iter().map(|partition| partition.offset.unwrap_or(0)).sum()
}
