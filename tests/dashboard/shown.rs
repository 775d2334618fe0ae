//! What the page is shown: a flow in two versions, a job with state, and numbers that come all the time.

use rivermark::connectors::{Collect, LogSink, LogSource};
use rivermark::log::{Log, RecordBatch, TopicOptions};
use rivermark::server::{RunningServer, Server};
use rivermark::{
    BoxError, CaughtUp, Context, Deployment, Engine, Flow, Job, Options, ProcessFunction, Replay, Restart,
    StateBackend, Timestamp, Value, Watermarks, Windows, millis, minutes, secs,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const DEADLINE: Duration = Duration::from_secs(60);

const COUNT: Value<u64> = Value::new("count");

#[derive(Clone)]
struct Counting;

impl ProcessFunction<u64, u64> for Counting {
    type Out = u64;

    fn on_record(&mut self, _: &u64, _: u64, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?.unwrap_or(0) + 1;
        cx.state(COUNT).set(count)
    }
}

/// Numbers by their remainder, counted.
fn remainders() -> Flow {
    let flow = Flow::new("remainders");
    let numbers = flow.source(LogSource::<u64>::topic("numbers")).named("numbers");
    numbers.key_by(|number| number % 7).process(Counting).named("by remainder").sink(Collect::new());
    flow
}

/// Numbers doubled, but for each tenth, which the second version makes three times as large.
fn doubled(version: u64) -> Flow {
    let flow = Flow::new("doubled").version(version);
    let numbers = flow.source(LogSource::<u64>::topic("numbers")).named("numbers");
    let numbers = numbers.event_time(|number| Timestamp::from_secs(*number as i64), Watermarks::monotonous());
    let sums = numbers.clone().map(|number| number % 7).named("by remainder").key_by(|remainder| *remainder);
    sums.window(Windows::tumbling(secs(60))).count().named("sums").sink(Collect::new());
    numbers
        .map(move |number| (number, if version > 1 && number % 10 == 0 { 3 * number } else { 2 * number }))
        .sink(LogSink::output("doubled").key(|row: &(u64, u64)| row.0.to_string().into_bytes()));
    flow
}

/// Fields are dropped in this order.
pub struct Shown {
    server: Option<RunningServer>,
    address: SocketAddr,
    stops: Arc<AtomicBool>,
    counting: Option<JoinHandle<()>>,
    pub job: Job,
    pub blue: Deployment,
    pub green: Deployment,
    engine: Engine,
    _directory: TempDir,
}

fn append(log: &Log, numbers: std::ops::Range<u64>) {
    let topic = log.ensure_topic("numbers", TopicOptions::new(1)).unwrap();
    let mut batch = RecordBatch::new();
    numbers.for_each(|number| batch.push(None, Some(number.to_string().as_bytes()), number as i64 * 1000));
    topic.append(0, &mut batch).unwrap();
}

/// Shows it all, by a server that `serve` has changed.
pub fn show(serve: impl FnOnce(Server) -> Server) -> Shown {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(2).state_backend(StateBackend::Memory).restart(Restart::Never);
    let engine = Engine::open_with(directory.path(), options.checkpoint_every(millis(50))).unwrap();
    append(engine.log(), 0..1000);
    let caught_up =
        CaughtUp::new().within_event_time(minutes(60)).within_records(100_000).for_at_least(millis(20));
    let replay = Replay::from_earliest().caught_up(caught_up);
    let blue = engine.deploy(doubled(1), replay.clone()).unwrap();
    let green = engine.deploy(doubled(2), replay).unwrap();
    let job = engine.start(remainders()).unwrap();
    assert!(job.wait_until(|job| job.metrics().records_read == 1000));
    let epoch = job.checkpoint().unwrap();
    job.queries().view_from(epoch, DEADLINE).unwrap();

    let server = serve(parts(&engine, &blue, &job)).start().unwrap();
    let address = server.address();
    let stops = Arc::new(AtomicBool::new(false));
    let (stop, log) = (Arc::clone(&stops), engine.log().clone());
    // In bursts that are never the same, so that rates are not either.
    let counting = std::thread::spawn(move || {
        let mut next = 1000;
        while !stop.load(Ordering::Acquire) {
            let some = 1 + next % 23;
            append(&log, next..next + some);
            next += some;
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    let (server, counting) = (Some(server), Some(counting));
    Shown { server, address, stops, counting, job, blue, green, engine, _directory: directory }
}

fn parts(engine: &Engine, blue: &Deployment, job: &Job) -> Server {
    Server::new().deployments(blue).serve::<u64, _>(job, COUNT).log(engine.log())
}

impl Shown {
    pub fn base(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn stop_serving(&mut self) {
        self.server = None;
    }

    /// At the same address, as soon as it is free.
    pub fn serve_again(&mut self) {
        let until = Instant::now() + DEADLINE;
        while self.server.is_none() {
            let server =
                parts(&self.engine, &self.blue, &self.job).dashboard().listen_on(self.address).start();
            assert!(server.is_ok() || Instant::now() < until, "{server:?}");
            self.server = server.ok();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Release);
        if let Some(counting) = self.counting.take() {
            counting.thread().unpark();
            let _ = counting.join();
        }
    }
}
