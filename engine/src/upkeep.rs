//! The log's upkeep: what time asks for is done on a thread, for the log has none of its own.

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use rivermark_log::Log;
use rivermark_operators::{Error, Result};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest pause between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest: a log that is to be synced more often than that had better sync always.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// A thread that calls [`Log::maintain`]. Dropping it ends the thread, behind the round that it is at.
pub(crate) struct Upkeep {
    /// Dropped to end the thread.
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Begins a round twice in every `sync_interval`, and at least every second.
    pub(crate) fn start(log: Log, sync_interval: Option<Duration>) -> Result<Upkeep> {
        let pause = sync_interval.map_or(PAUSE, |interval| (interval / 2).clamp(LEAST_PAUSE, PAUSE));
        let (alive, lives) = bounded::<()>(0);
        let thread = std::thread::Builder::new()
            .name("rivermark-log".into())
            .spawn(move || {
                while lives.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    round(&log);
                }
            })
            .map_err(|e| Error::engine("starting the thread that maintains the log", e))?;
        Ok(Upkeep { alive: Some(alive), thread: Some(thread) })
    }
}

fn round(log: &Log) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Err(error) = log.maintain(now.as_millis() as i64) {
        // A partition that cannot be synced refuses appends with the same error: nobody mistakes it for durable.
        tracing::error!(%error, "the log could not be maintained; tried again in the next round");
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            // It panics only if the log does.
            let _ = thread.join();
        }
    }
}
