//! Which version of a flow is asked: the one that is live.
//!
//! 1. A switch brings both versions to the same offsets `V`, where they stand still, and takes a checkpoint of each. Before it begins, the state of
//!    the version that is to be live has been read, if anybody asks ([`LiveVersion::prepare`]); then only what has changed since is left.
//! 2. While both stand still the view at its checkpoint of `V` is waited for.
//! 3. The record of the deployments is written. Then the new version is shown ([`LiveVersion::show`]), and only after that do both go on.
//!
//! **No answer reflects less than one before it:** a view of the old version is taken while the lock is held, so before 3, when it was at `V` at the
//! most. The new one is asked from its epoch of `V` on, also where 2 was given up. And no answer after 3 is of the old version, by the same lock.

use super::reader::JobQueries;
use super::view::View;
use parking_lot::RwLock;
use rivermark_checkpoint::Epoch;
use rivermark_operators::{Error, Result};
use std::sync::Arc;
use std::time::Instant;

/// What follows the live version of a flow; one for all who ask.
pub(crate) struct LiveVersion {
    flow: String,
    shown: RwLock<Option<Shown>>,
}

/// The job that is asked.
#[derive(Clone)]
struct Shown {
    job: Arc<JobQueries>,
    /// The first epoch that may be shown of it; it is stored.
    from: Epoch,
}

impl LiveVersion {
    pub(crate) fn of(flow: &str) -> LiveVersion {
        LiveVersion { flow: flow.to_owned(), shown: RwLock::default() }
    }

    pub(super) fn flow(&self) -> &str {
        &self.flow
    }

    pub(super) fn job(&self) -> Option<Arc<JobQueries>> {
        self.shown.read().as_ref().map(|shown| Arc::clone(&shown.job))
    }

    /// From now on this job is asked, from an epoch on that is stored.
    pub(crate) fn show(&self, job: &Arc<JobQueries>, from: Epoch) {
        let before = self.shown.write().replace(Shown { job: Arc::clone(job), from });
        // It may have been the last to hold its thread.
        drop(before);
    }

    /// The live version was started, for the first time in this process or again: nobody is told less than before.
    pub(crate) fn started(&self, job: &Arc<JobQueries>) {
        let seen =
            self.shown.read().as_ref().filter(|shown| shown.job.version == job.version).and_then(|shown| {
                let visible = shown.job.board().peek().map(|view| view.epoch());
                visible.max(Some(shown.from))
            });
        self.show(job, seen.unwrap_or(Epoch(0)));
    }

    /// Whether somebody has asked not long ago.
    pub(crate) fn is_asked(&self) -> bool {
        self.job().is_some_and(|job| job.board().peek().is_some())
    }

    /// Lets the state of a job be read that may be shown soon, and waits for its newest epoch.
    ///
    /// # Errors
    /// It has no epoch, it cannot be read, or not in time.
    pub(crate) fn prepare(job: &JobQueries, from: Epoch, until: Instant) -> Result<()> {
        job.view_until(from, until).map(drop)
    }

    pub(super) fn view(&self) -> Result<View> {
        self.taken(Epoch(0), |shown| shown.job.view(shown.from))
    }

    pub(super) fn view_until(&self, epoch: Epoch, until: Instant) -> Result<View> {
        self.taken(epoch, |shown| shown.job.view_until(epoch.max(shown.from), until))
    }

    /// The newest view of `epoch` or a later one of the job that is shown, if need be by waiting.
    fn taken(&self, epoch: Epoch, wait: impl Fn(&Shown) -> Result<View>) -> Result<View> {
        loop {
            let shown = {
                let now = self.shown.read();
                let shown = now.as_ref().ok_or_else(|| self.not_started())?;
                // With the lock held: see the module's page.
                if let Some(view) = shown.job.visible(epoch.max(shown.from)) {
                    return Ok(view);
                }
                shown.clone()
            };
            let waited = wait(&shown);
            let now = self.shown.read();
            if now.as_ref().is_some_and(|now| Arc::ptr_eq(&now.job, &shown.job) && now.from == shown.from) {
                return waited;
            }
        }
    }

    fn not_started(&self) -> Error {
        let problem = "its live version has not been started in this process; deploy it";
        Error::engine(format!("querying flow `{}`", self.flow), problem)
    }
}
