//! Running a flow in a fresh directory and taking the time until an operator has seen all records.

use rivermark::{Engine, Flow, Job, Options, Restart, StateBackend};
use std::time::{Duration, Instant};

/// Engine options for a measurement: no checkpoint but the last one, no second attempt.
pub fn options(workers: usize, backend: StateBackend) -> Options {
    Options::new().workers(workers).state_backend(backend).restart(Restart::Never).checkpoint_every(None)
}

/// The time from the start of a flow until `operator` has taken in `records`. What comes after, the last checkpoint among it, is waited for
/// and not counted.
///
/// # Panics
/// If the job fails or ends before.
pub fn time_to(options: Options, flow: Flow, operator: &str, records: u64) -> Duration {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = Engine::open_with(directory.path(), options).expect("an engine");
    let started = Instant::now();
    let job = engine.start(flow).expect("a job");
    wait_for(&job, operator, records);
    let took = started.elapsed();
    job.wait().expect("the job's end");
    took
}

/// Waits until `operator` has taken in `records`.
///
/// # Panics
/// If the job ends before.
pub fn wait_for(job: &Job, operator: &str, records: u64) {
    let seen = |job: &Job| job.metrics().operator(operator).map_or(0, |operator| operator.records_in);
    assert!(job.wait_until(|job| seen(job) >= records) || seen(job) >= records, "{:?}", job.status());
}
