//! Audits: whether what a version has published is what its log implies.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `prepare` | what was published, where both sides are cut, and a data directory of the audit's own |
//! | `replay` | the version once more, up to the cut |
//! | `rows`, `difference` | both sides compared in bounded memory; the first difference |
//! | `report` | the answer |
//!
//! 1. The cut is a checkpoint of the version: a savepoint, or the newest that is stored. What is visible of its topics *before* that checkpoint is
//!    looked up belongs to the cut for sure; what comes later may. So a job that runs is not disturbed. A savepoint knows where its output
//!    ended, so between two of them nothing is left open.
//! 2. The same version runs in a data directory of its own, below `audits/`: its state, its checkpoints, and a log to which its sinks are led. Sinks
//!    that do not write the log are not opened. Its sources read the engine's log, each partition up to the cut and no further.
//! 3. What was decided at the moment is repeated: which records silences made late, which partitions had been found, the ends of bounded runs. It
//!    is in the checkpoint at the cut, which is installed as that of a version *before* this one; a version that begins anew repeats what that
//!    decided ([`crate::earlier`], [`crate::stops`]). No silence counts in the replay but those that are repeated.
//! 4. When all is read and the workers rest, everything that the cut implies has come out: that is sure. Where a silence may have let more out of
//!    the audited run, every partition falls silent now, and what comes out then may have been published.
//! 5. Each side's sure rows must be the first rows of the other ([`rows`]).

mod difference;
pub(crate) mod prepare;
pub(crate) mod replay;
mod report;
pub(crate) mod rows;

pub use difference::{Difference, DifferenceKind, RowText};
pub use report::{AuditReport, AuditedInput, AuditedOutput, AuditedPartition};

use crate::engine::Engine;
use crate::job::JobShared;
use crate::savepoint::Savepoint;
use parking_lot::Mutex;
use prepare::Prepared;
use rivermark_log::Log;
use rivermark_operators::{Flow, Result};
use rows::{Compared, Part, Rows};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many rows are read between two looks whether the audit goes on.
const LOOK_EVERY: u64 = 1024;

/// What is audited, and how.
#[derive(Clone, Debug)]
pub struct Audit {
    pub(crate) from: Option<Savepoint>,
    pub(crate) until: Option<Savepoint>,
    workers: Option<usize>,
    any_order: bool,
    memory: usize,
}

impl Audit {
    /// Everything that the version has published, from where its sources begin. For a version that began from a savepoint, see
    /// [`Audit::from_savepoint`].
    pub fn from_earliest() -> Audit {
        Audit { from: None, until: None, workers: None, any_order: false, memory: 256 << 20 }
    }

    /// What was published since a savepoint: of the version itself, or the one of another version that this one began from.
    pub fn from_savepoint(savepoint: Savepoint) -> Audit {
        Audit { from: Some(savepoint), ..Audit::from_earliest() }
    }

    /// Up to a savepoint of the version. Default: up to its newest checkpoint; of a job that runs, rows that it publishes while that is looked up
    /// may then be there or not.
    pub fn up_to(self, savepoint: Savepoint) -> Audit {
        Audit { until: Some(savepoint), ..self }
    }

    /// How many workers replay. Default: those of the engine. What is proven does not depend on it.
    pub fn workers(self, workers: usize) -> Audit {
        Audit { workers: Some(workers.max(1)), ..self }
    }

    /// Compares the rows of a key without their order: for topics whose key is not the one that the flow computes by, so that rows of one key come
    /// from several workers.
    pub fn any_order(self) -> Audit {
        Audit { any_order: true, ..self }
    }

    /// How much memory the comparison may take. Where there are more keys than fit, 128 bytes each, both sides are read again, as often as it
    /// takes. Default: 256 MiB. The replay has the state budget of the engine's options beside that.
    pub fn memory(self, bytes: usize) -> Audit {
        Audit { memory: bytes, ..self }
    }
}

/// What an audit is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the log again.
    Replaying,
    /// Comparing what came of it with what was published.
    Comparing,
    /// It is over.
    Over,
}

/// How far an audit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditProgress {
    /// What it is doing.
    pub stage: Stage,
    /// Records that were read again.
    pub records: u64,
    /// About how many there are, as far as sources can tell.
    pub of_records: u64,
    /// Rows that were read to be compared; each more than once.
    pub rows: u64,
}

/// What an audit and its owner share.
pub(crate) struct Shared {
    flow: String,
    version: u64,
    is_cancelled: AtomicBool,
    stage: Mutex<Stage>,
    of_records: u64,
    rows: AtomicU64,
    pub(crate) job: Mutex<Option<Arc<JobShared>>>,
}

impl Shared {
    pub(crate) fn of(flow: &str, version: u64, of_records: u64) -> Shared {
        Shared {
            flow: flow.to_owned(),
            version,
            is_cancelled: AtomicBool::new(false),
            stage: Mutex::new(Stage::Replaying),
            of_records,
            rows: AtomicU64::new(0),
            job: Mutex::new(None),
        }
    }

    fn set(&self, stage: Stage) {
        *self.stage.lock() = stage;
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

/// An audit that runs, on threads of its own. Dropped, it is cancelled.
pub struct AuditRun {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<AuditReport>>>,
}

impl Engine {
    /// Audits what a version of a flow has published: runs the same version from the log once more, beside the job if that runs, and compares row
    /// by row. Nothing that is published is touched. `flow` must be the program whose output is audited, with its version.
    ///
    /// The replay reads as fast as it can, has state of its own, and writes what it computes to the data directory, below `audits/`, until it is
    /// over. Sinks that do not write the log are not opened.
    ///
    /// A flow whose result depends on more than the log is found out: one that asks a clock, or random numbers. So may be, without being wrong, what
    /// depends on processing time: windows of processing time that were open at the cut, early panes by the clock, look-ups whose answers
    /// are not in their journal.
    ///
    /// # Errors
    /// There is nothing to compare: no sink that writes the log, no checkpoint, or output that is not committed. Or something is not there
    /// any more that would have to be read: the error names the topic, partition and offsets.
    pub fn audit(&self, flow: Flow, audit: Audit) -> Result<AuditRun> {
        let plan = flow.into_plan()?;
        let (flow, version) = (plan.flow().to_owned(), plan.version());
        let prepared = prepare::prepare(self, Arc::new(plan), &audit, None)?;
        let ahead = prepared
            .inputs
            .iter()
            .map(|input| input.until.unwrap_or(0).saturating_sub(input.from.unwrap_or(0)));
        let shared = Arc::new(Shared::of(&flow, version, ahead.sum()));
        let (run, log) = (Arc::clone(&shared), self.log().clone());
        // The directory must stay locked, and is the engine's.
        let engine = self.clone();
        let thread = std::thread::Builder::new()
            .name(format!("rivermark-audit-{}", shared.flow))
            .spawn(move || {
                let report = perform(prepared, &audit, &run, &log);
                run.set(Stage::Over);
                drop(engine);
                report
            })
            .map_err(|e| shared.error(e))?;
        Ok(AuditRun { shared, thread: Some(thread) })
    }
}

impl AuditRun {
    /// How far it is.
    pub fn progress(&self) -> AuditProgress {
        let job = self.shared.job.lock().clone();
        AuditProgress {
            stage: *self.shared.stage.lock(),
            records: job.map_or(0, |job| job.metrics().records_read),
            of_records: self.shared.of_records,
            rows: self.shared.rows.load(Ordering::Relaxed),
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets it end without an answer, soon: [`AuditRun::wait`] then gives an error that says so.
    pub fn cancel(&self) {
        self.shared.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Waits for the answer. That rows differ is no error.
    ///
    /// # Errors
    /// The replay failed, or what it was to be compared with could not be read; or it was cancelled.
    pub fn wait(mut self) -> Result<AuditReport> {
        let Some(thread) = self.thread.take() else { return Err(self.shared.cancelled()) };
        thread.join().unwrap_or_else(|_| Err(self.shared.error("its thread panicked")))
    }
}

impl Drop for AuditRun {
    fn drop(&mut self) {
        self.cancel();
        if let Some(thread) = self.thread.take() {
            // Nobody waits for the answer.
            let _ = thread.join();
        }
    }
}

/// Replays and compares.
fn perform(prepared: Prepared, audit: &Audit, shared: &Shared, log: &Log) -> Result<AuditReport> {
    let since = Instant::now();
    let begins = match &audit.from {
        Some(savepoint) => format!("savepoint `{}`", savepoint.name()),
        None => "where its sources begin".to_owned(),
    };
    let mut report = AuditReport {
        flow: shared.flow.clone(),
        version: shared.version,
        begins,
        epoch: prepared.cut.manifest.epoch.0,
        inputs: prepared.inputs.clone(),
        outputs: Vec::new(),
        not_audited: prepared.not_audited.clone(),
        warnings: prepared.warnings.clone(),
        difference: None,
        records: 0,
        took: Duration::ZERO,
    };
    let (replayed, scratch, outputs) = replay::replay(prepared, shared)?;
    shared.set(Stage::Comparing);
    report.records = replayed.records;
    for mut output in outputs {
        output.look_again(log).map_err(|e| shared.error(e))?;
        let (sure, all) = (&replayed.sure[&output.topic], &replayed.all[&output.topic]);
        let part = |(sure, until): (&u64, &u64)| Part { from: 0, sure: *sure, until: *until };
        let computed =
            Rows { log: &scratch.log, topic: &output.topic, parts: sure.iter().zip(all).map(part).collect() };
        let published = Rows { log, topic: &output.topic, parts: output.parts };
        let compared = compare(&published, &computed, audit, shared, &mut report.difference)?;
        report.outputs.push(audited(&published, &compared));
    }
    report.took = since.elapsed();
    tracing::info!(
        flow = report.flow,
        version = report.version,
        identical = report.is_identical(),
        "audited"
    );
    Ok(report)
}

fn compare(
    published: &Rows<'_>,
    computed: &Rows<'_>,
    audit: &Audit,
    shared: &Shared,
    difference: &mut Option<Difference>,
) -> Result<Compared> {
    let mut read = 0;
    let mut go_on = || {
        read += 1;
        if read % LOOK_EVERY == 0 {
            shared.rows.fetch_add(LOOK_EVERY, Ordering::Relaxed);
            if shared.is_cancelled() {
                return Err("it was cancelled".to_owned());
            }
        }
        Ok(())
    };
    let (any_order, memory) = (audit.any_order, audit.memory);
    let compared =
        rows::compare(published, computed, any_order, memory, &mut go_on).map_err(|e| shared.error(e))?;
    if compared.different > 0 && difference.is_none() {
        *difference = difference::first(published, computed, &compared.some, any_order, memory, &mut go_on)
            .map_err(|e| shared.error(e))?;
    }
    Ok(compared)
}

fn audited(published: &Rows<'_>, compared: &Compared) -> AuditedOutput {
    let partition = |(at, part): (usize, &Part)| {
        let (rows, digest) = (compared.published[at], compared.digests[at]);
        AuditedOutput::partition(at, part.from, part.sure, rows, digest)
    };
    AuditedOutput {
        topic: published.topic.to_owned(),
        partitions: published.parts.iter().enumerate().map(partition).collect(),
        published: compared.published.iter().sum(),
        computed: compared.computed,
        same_keys: compared.same,
        different_keys: compared.different,
    }
}
