//! Running a job in a process of its own and killing that by SIGKILL at a chosen point of its progress.
//!
//! 1. The child runs a job whose source is [`Throttled`](super::throttle::Throttled), raises the allowance a little every few
//!    milliseconds ([`run_slowly`]), and prints how far it is.
//! 2. The parent reads along and kills it once it has read enough records and completed enough checkpoints ([`run_and_kill`]). No
//!    chance is involved: a child that is to be killed is never allowed to read all there is.

use super::throttle::Allowance;
use rivermark::{BoxError, Job, Metrics};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than any job takes that is not broken.
const DEADLINE: Duration = Duration::from_secs(120);

/// How far the allowance is raised at a time: records each 5 milliseconds or so.
const RAISE: u64 = 2000;

/// How far a process came.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records that it read, those included that another had read before it.
    pub records: u64,
    /// Checkpoints that it completed.
    pub checkpoints: u64,
    /// The epoch of the first of them, one above that of the checkpoint it began from; 0 before.
    pub first_epoch: u64,
}

impl Progress {
    fn of(job: &Job) -> Progress {
        let metrics = job.metrics();
        Progress {
            records: metrics.records_read,
            checkpoints: metrics.checkpoints_completed,
            first_epoch: metrics.checkpoints.first().map_or(0, |checkpoint| checkpoint.epoch.0),
        }
    }

    fn print(&self) -> Result<(), BoxError> {
        writeln!(std::io::stdout(), "progress {} {} {}", self.records, self.checkpoints, self.first_epoch)?;
        Ok(())
    }

    /// Reads what `print` wrote; `None` for any other line.
    fn parse(line: &str) -> Option<Progress> {
        let mut numbers = line.split_once("progress ")?.1.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Progress { records: next()?, checkpoints: next()?, first_epoch: next()? })
    }
}

/// In the child: lets a job read up to `at_most` records, a few at a time, and prints its progress, until it is over.
pub fn run_slowly(job: Job, allowance: &Allowance, at_most: u64) -> Result<Metrics, BoxError> {
    let mut allowed = 0;
    let mut printed = Ok(());
    job.wait_until(|job| {
        let raise = RAISE.min(at_most - allowed);
        allowed += raise;
        allowance.add(raise);
        printed = Progress::of(job).print();
        // Nobody listens any more.
        printed.is_err()
    });
    printed?;
    Ok(job.wait()?)
}

/// In the parent: runs `command` until it has read `records` and completed two checkpoints, then kills it. Answers how far it had
/// come when it was last heard of.
///
/// # Errors
/// If it ends before that.
pub fn run_and_kill(command: &mut Command, records: u64) -> Result<Progress, BoxError> {
    let (progress, status) =
        run(command, |progress| progress.records >= records && progress.checkpoints >= 2)?;
    match status {
        None => Ok(progress),
        Some(status) => Err(format!("it ended by itself ({status}) after {progress:?}").into()),
    }
}

/// In the parent: runs `command` to its end.
///
/// # Errors
/// If it fails.
pub fn run_to_end(command: &mut Command) -> Result<Progress, BoxError> {
    match run(command, |_| false)? {
        (progress, Some(status)) if status.success() => Ok(progress),
        (progress, status) => Err(format!("it failed ({status:?}) after {progress:?}").into()),
    }
}

/// Runs `command` and kills it when `enough` says so, or when it has gone on for too long. Answers its last progress, and how it ended if it was not killed.
fn run(
    command: &mut Command,
    enough: impl Fn(&Progress) -> bool,
) -> Result<(Progress, Option<ExitStatus>), BoxError> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("the child has no output")?).lines();
    let started = Instant::now();
    let mut last = Progress::default();
    for line in lines {
        let Some(progress) = Progress::parse(&line?) else { continue };
        last = progress;
        let is_late = started.elapsed() > DEADLINE;
        if enough(&progress) || is_late {
            // SIGKILL: no handler, no destructor, no flush.
            child.kill()?;
            child.wait()?;
            return if is_late { Err(format!("it hangs at {last:?}").into()) } else { Ok((last, None)) };
        }
    }
    Ok((last, Some(child.wait()?)))
}
