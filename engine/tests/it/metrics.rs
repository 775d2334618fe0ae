//! What the metrics of a job tell of its operators and checkpoints.

use crate::support::{Rows, Values};
use rivermark_engine::{Engine, Job, Metrics, OperatorKind, Options, Restart, StateBackend};
use rivermark_operators::process::{Context, ProcessFunction};
use rivermark_operators::{BoxError, Flow, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longer than anything takes that is not broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits at each record until a gate is open.
#[derive(Clone)]
struct Gated(Arc<AtomicBool>, OnWorkers);

#[derive(Clone, Copy, PartialEq)]
enum OnWorkers {
    All,
    Second,
}

impl ProcessFunction<u64, u64> for Gated {
    type Out = u64;

    fn on_record(&mut self, _: &u64, n: u64, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        let waits = self.1 == OnWorkers::All || std::thread::current().name() == Some("rivermark-worker-1");
        while !self.0.load(Ordering::Acquire) && waits {
            std::thread::yield_now();
        }
        cx.emit(n);
        Ok(())
    }
}

fn options() -> Options {
    Options::new().state_backend(StateBackend::Memory).checkpoint_every(None).restart(Restart::Never)
}

fn numbers(count: u64) -> Values<u64> {
    Values { partitions: Arc::new(vec![(0..count).collect()]), live: true, per_poll: 1024 }
}

fn wait(job: &Job, mut done: impl FnMut(&Metrics) -> bool) -> Metrics {
    let until = Instant::now() + DEADLINE;
    let is_done = job.wait_until(|job| done(&job.metrics()) || Instant::now() > until);
    assert!(is_done && Instant::now() <= until, "{:?}: {:?}", job.status(), job.metrics());
    job.metrics()
}

#[test]
fn operators_say_what_they_are_and_where_their_records_come_from() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(directory.path(), options().workers(1)).unwrap();
    let flow = Flow::new("joined");
    let left = flow.source(numbers(10)).named("left");
    let right = flow.source(numbers(10)).named("right").map(|n| n + 1).named("one more");
    let both = left.clone().union(right).named("both");
    both.union(left)
        .named("all")
        .key_by(|n| *n)
        .process(Gated(Arc::new(AtomicBool::new(true)), OnWorkers::All))
        .named("gate")
        .sink(Rows::<u64>::default());
    let job = engine.start(flow).unwrap();
    let metrics = wait(&job, |metrics| metrics.operators.last().is_some_and(|sink| sink.records_in == 30));
    let sink = &*metrics.operators.last().unwrap().name;
    let inputs = |name: &str| -> Vec<&str> {
        let inputs = &metrics.operator(name).unwrap().inputs;
        inputs.iter().map(|input| &*metrics.operators[*input].name).collect()
    };
    assert_eq!(inputs("left"), Vec::<&str>::new());
    assert_eq!(inputs("one more"), ["right"]);
    assert_eq!(inputs("both"), ["left", "one more"]);
    assert_eq!(inputs("all"), ["left", "both"]);
    assert_eq!(inputs(sink), ["gate"]);
    let [exchange] = inputs("gate")[..] else { panic!("{metrics:?}") };
    assert_eq!((inputs(exchange), inputs("key_by-1")), (vec!["key_by-1"], vec!["all"]));
    let kind = |name: &str| metrics.operator(name).unwrap().kind;
    assert_eq!([kind("left"), kind("one more")], [OperatorKind::Source, OperatorKind::Transform]);
    assert_eq!(
        [kind(exchange), kind("gate"), kind(sink)],
        [OperatorKind::Exchange, OperatorKind::Stateful, OperatorKind::Sink]
    );
    assert_eq!(metrics.workers, 1);
}

#[test]
fn an_exchange_before_a_slow_operator_tells_for_how_long_it_was_full() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(directory.path(), options().workers(2)).unwrap();
    let (flow, gate) = (Flow::new("slow"), Arc::new(AtomicBool::new(false)));
    let slow = flow.source(numbers(1_000_000)).named("numbers").key_by(|n| *n % 100);
    slow.process(Gated(Arc::clone(&gate), OnWorkers::Second)).named("gate").sink(Rows::<u64>::default());
    let job = engine.start(flow).unwrap();
    // The first worker reads until the second, which waits at the first of its own keys, takes nothing any more.
    let read = wait(&job, |metrics| metrics.records_read > 0).running;
    wait(&job, |metrics| metrics.running > read + Duration::from_millis(30));
    gate.store(true, Ordering::Release);
    let metrics = wait(&job, |metrics| metrics.records_read == 1_000_000);
    let at_most = metrics.running * 2;
    let exchanges = metrics.operators.iter().filter(|operator| operator.kind == OperatorKind::Exchange);
    let full: Duration = exchanges.map(|exchange| exchange.backpressured).sum();
    assert!(full > Duration::ZERO && full <= at_most, "{full:?} of {at_most:?}");
    let others = metrics.operators.iter().filter(|operator| operator.kind != OperatorKind::Exchange);
    assert!(others.into_iter().all(|operator| operator.backpressured.is_zero()));
}

#[test]
fn a_checkpoint_that_fails_is_counted_and_says_why_and_when() {
    let directory = tempfile::tempdir().unwrap();
    let options = options().workers(1).checkpoint_timeout(Duration::from_millis(20));
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let (flow, gate) = (Flow::new("late"), Arc::new(AtomicBool::new(false)));
    let late = flow.source(numbers(10)).key_by(|n| *n).process(Gated(Arc::clone(&gate), OnWorkers::All));
    late.sink(Rows::<u64>::default());
    let now =
        || Timestamp::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64);
    let before = now();
    let job = engine.start(flow).unwrap();
    wait(&job, |metrics| metrics.records_read > 0);
    let error = job.checkpoint().unwrap_err().to_string();
    assert!(error.contains("timed out"), "{error}");
    let metrics = job.metrics();
    assert_eq!((metrics.checkpoints_failed, metrics.checkpoints_completed), (1, 0));
    let [failed] = &metrics.failed_checkpoints[..] else { panic!("{metrics:?}") };
    assert!(failed.reason.contains("timed out") && error.contains(&failed.reason), "{failed:?}");
    assert!(failed.duration >= Duration::from_millis(20), "{failed:?}");
    assert!(before <= failed.failed_at && failed.failed_at <= now(), "{failed:?}");

    gate.store(true, Ordering::Release);
    let epoch = job.checkpoint().unwrap();
    let metrics = job.metrics();
    assert_eq!((metrics.checkpoints_failed, metrics.checkpoints_completed), (1, 1));
    let [completed] = &metrics.checkpoints[..] else { panic!("{metrics:?}") };
    assert!(completed.epoch == epoch && completed.epoch > failed.epoch);
    assert!(failed.failed_at <= completed.stored_at && completed.stored_at <= now(), "{completed:?}");
}

#[test]
fn a_checkpoint_that_a_failure_of_the_job_ends_has_failed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(directory.path(), options().workers(1)).unwrap();
    let (flow, fails) = (Flow::new("failing"), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&fails);
    flow.source(Values { per_poll: 1, ..numbers(1_000_000) })
        .try_map(move |n| if flag.load(Ordering::Acquire) { Err("it fails".into()) } else { Ok(n) })
        .key_by(|n| *n)
        .process(Gated(Arc::new(AtomicBool::new(true)), OnWorkers::All))
        .sink(Rows::<u64>::default());
    let job = engine.start(flow).unwrap();
    wait(&job, |metrics| metrics.records_read > 0);
    fails.store(true, Ordering::Release);
    // Asked for while the job fails: it is taken before, or fails with it, or is refused.
    let taken = job.checkpoint();
    let metrics = wait(&job, |metrics| metrics.running > Duration::ZERO && job.status().is_over());
    assert_eq!(metrics.checkpoints_completed, u64::from(taken.is_ok()));
    let reasons: Vec<&str> = metrics.failed_checkpoints.iter().map(|failed| &*failed.reason).collect();
    assert!(reasons.iter().all(|reason| reason.contains("it fails")), "{reasons:?}");
    assert_eq!(metrics.checkpoints_failed, reasons.len() as u64);
}
