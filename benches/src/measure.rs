//! Running a flow in a fresh directory and taking the time that stretches of its stream need.

use rivermark::{Engine, Flow, Job, Options, Restart, StateBackend};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Engine options for a measurement: no checkpoint but the last one, no second attempt.
pub fn options(workers: usize, backend: StateBackend) -> Options {
    Options::new().workers(workers).state_backend(backend).restart(Restart::Never).checkpoint_every(None)
}

/// A job over an endless stream. Neither its start nor its end is in the times it gives; dropping it ends it.
pub struct Running {
    // Dropped first: the job ends before its directory goes.
    job: Job,
    operator: &'static str,
    _directory: TempDir,
}

impl Running {
    /// Starts `flow` and lets `operator` take in `warm` records.
    ///
    /// # Panics
    /// If the job cannot be started, or ends.
    pub fn start(options: Options, flow: Flow, operator: &'static str, warm: u64) -> Running {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let engine = Engine::open_with(directory.path(), options).expect("an engine");
        let job = engine.start(flow).expect("a job");
        wait_for(&job, operator, warm);
        Running { job, operator, _directory: directory }
    }

    /// The time that `operator` needs to take in `records` more. A job is asked every few milliseconds how far it is, so what has passed
    /// by then is counted and the time is scaled.
    ///
    /// # Panics
    /// If the job ends.
    pub fn time_of(&self, records: u64) -> Duration {
        let (started, before) = (Instant::now(), records_in(&self.job, self.operator));
        wait_for(&self.job, self.operator, before + records);
        let (took, passed) = (started.elapsed(), records_in(&self.job, self.operator) - before);
        took.mul_f64(records as f64 / passed as f64)
    }
}

/// What `operator` has taken in since the job's start.
pub fn records_in(job: &Job, operator: &str) -> u64 {
    job.metrics().operator(operator).map_or(0, |operator| operator.records_in)
}

/// Waits until `operator` has taken in `records`.
///
/// # Panics
/// If the job ends before.
pub fn wait_for(job: &Job, operator: &str, records: u64) {
    assert!(job.wait_until(|job| records_in(job, operator) >= records), "{:?}", job.status());
}

/// The most memory that this process ever had, in bytes.
///
/// # Panics
/// Elsewhere than on Linux.
pub fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux's /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kibibytes << 10
}
