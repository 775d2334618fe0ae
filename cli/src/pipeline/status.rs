//! What the versions of a pipeline are doing: a line for people, JSON for programs.

use crate::when::shown;
use rivermark_engine::{Metrics, Progress, State, Status};
use rivermark_operators::Timestamp;
use serde_json::{Value, json};

/// One version at one moment.
#[derive(Clone, Debug)]
pub(super) struct Glimpse {
    pub(super) version: u64,
    /// `None` of a pipeline without versions.
    pub(super) state: Option<State>,
    /// `None` where no job runs any more.
    pub(super) status: Option<Status>,
    pub(super) metrics: Option<Metrics>,
    pub(super) progress: Option<Progress>,
    /// Records a second, lately.
    pub(super) rate: f64,
}

impl Glimpse {
    /// Whether it will not change any more.
    pub(super) fn is_over(&self) -> bool {
        self.status.as_ref().is_none_or(Status::is_over)
    }

    /// Whether it has read all that the live version has.
    pub(super) fn has_caught_up(&self) -> bool {
        self.status == Some(Status::Running)
            && self.progress.as_ref().is_some_and(|progress| progress.records_behind == 0)
    }

    /// What it failed with for good, if it did and readers see its output.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.status {
            Some(Status::Failed { failure }) if matches!(self.state, None | Some(State::Live)) => {
                Some(failure)
            }
            _ => None,
        }
    }

    fn status_name(&self) -> &'static str {
        match &self.status {
            None => "over",
            Some(Status::Recovering) => "recovering",
            Some(Status::Running) => "running",
            Some(Status::Restarting { .. }) => "restarting",
            Some(Status::Finished) => "finished",
            Some(Status::Stopped) => "stopped",
            Some(Status::Cancelled) => "cancelled",
            Some(Status::Failed { .. }) => "failed",
        }
    }

    fn behind(&self) -> Option<u64> {
        let of_job = self.metrics.as_ref().and_then(|metrics| metrics.backlog);
        self.progress.as_ref().map(|progress| progress.records_behind).or(of_job)
    }

    /// Event time, if it has begun.
    fn event_time(&self) -> Option<Timestamp> {
        let watermark = self.metrics.as_ref().map(|metrics| metrics.watermark);
        watermark.filter(|time| *time > Timestamp::MIN && *time < Timestamp::MAX)
    }

    /// One line of a terminal.
    pub(super) fn line(&self) -> String {
        let state = self.state.map(|state| format!(" {state},")).unwrap_or_default();
        let mut line = format!("version {}{state} {}", self.version, self.status_name());
        if let Some(metrics) = &self.metrics {
            line += &format!(": {} records, {:.0}/s", metrics.records_read, self.rate);
            if let Some(behind) = self.behind() {
                line += &format!(", {behind} behind");
            }
            if let Some(time) = self.event_time() {
                line += &format!(", event time {}", shown(time.millis()));
            }
            if metrics.late_records > 0 {
                line += &format!(", {} late", metrics.late_records);
            }
            if let Some(checkpoint) = metrics.checkpoints.last() {
                line += &format!(", checkpoint {}", checkpoint.epoch);
            }
        }
        match &self.status {
            Some(Status::Restarting { failure, .. } | Status::Failed { failure }) => {
                format!("{line}: {failure}")
            }
            _ => line,
        }
    }

    /// The same for programs.
    pub(super) fn document(&self) -> Value {
        let metrics = self.metrics.as_ref();
        let failure = match &self.status {
            Some(Status::Restarting { failure, .. } | Status::Failed { failure }) => Some(failure),
            _ => None,
        };
        json!({
            "version": self.version,
            "state": self.state,
            "status": self.status_name(),
            "failure": failure,
            "records_read": metrics.map(|metrics| metrics.records_read),
            "records_per_second": self.rate,
            "records_behind": self.behind(),
            "event_time_ms": self.event_time().map(Timestamp::millis),
            "late_records": metrics.map(|metrics| metrics.late_records),
            "dead_letters": metrics.map(|metrics| metrics.dead_letters),
            "restarts": metrics.map(|metrics| metrics.restarts),
            "checkpoints_completed": metrics.map(|metrics| metrics.checkpoints_completed),
            "newest_epoch": metrics.and_then(|metrics| metrics.checkpoints.last()).map(|newest| newest.epoch.0),
        })
    }
}
