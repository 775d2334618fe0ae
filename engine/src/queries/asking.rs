//! What a program holds to ask for state: of one job, or of whichever version of a flow is live.

use super::live::LiveVersion;
use super::reader::JobQueries;
use super::{LatestQuery, Query, View, WindowQuery};
use crate::job::{Job, Status};
use crate::metrics::Metrics;
use rivermark_checkpoint::Epoch;
use rivermark_operators::Result;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Asks for state, from wherever in the process: for that of one job ([`Job::queries`], [`Deployment::queries`](crate::Deployment::queries)), or for
/// that of the version of a flow that is live ([`Engine::queries`](crate::Engine::queries)). Cheap to clone; it outlives the job, and then answers
/// from the last epoch that was stored.
///
/// The first question starts a thread that reads the newest checkpoint and from then on what each epoch has changed, until nobody has asked for
/// [some time](crate::Options::queries_rest_after); then it lets go of it, and the next question is as the first. It ends with the last clone. While
/// nobody asks, queries cost a job nothing.
///
/// What follows the live version keeps these promises when another one is promoted or one is rolled back:
///
/// - Each answer is of one version; [`View::version`] says which.
/// - Once the switch has returned, no answer is of the old version. A [`View`], [`Query`] or [`LatestQuery`] that was begun before stays with it.
/// - No answer reflects less of the input than one before it: both versions change at the same offsets, and the new one is asked once its state
///   there can be read.
/// - No question fails because of the switch, unless it asks for a state that the new version does not have.
#[derive(Clone)]
pub struct Queries {
    of: Of,
}

#[derive(Clone)]
enum Of {
    Job(Arc<JobQueries>),
    Live(Arc<LiveVersion>),
}

impl Queries {
    pub(crate) fn of_job(job: &Arc<JobQueries>) -> Queries {
        Queries { of: Of::Job(Arc::clone(job)) }
    }

    pub(crate) fn of_live(live: &Arc<LiveVersion>) -> Queries {
        Queries { of: Of::Live(Arc::clone(live)) }
    }

    /// The job that is asked now; `None` while the live version has not been started in this process.
    fn job(&self) -> Option<Arc<JobQueries>> {
        match &self.of {
            Of::Job(job) => Some(Arc::clone(job)),
            Of::Live(live) => live.job(),
        }
    }

    /// The flow.
    pub fn flow(&self) -> &str {
        match &self.of {
            Of::Job(job) => &job.flow,
            Of::Live(live) => live.flow(),
        }
    }

    /// The version that is asked now; `None` while the live one has not been started in this process.
    pub fn version(&self) -> Option<u64> {
        self.job().map(|job| job.version)
    }

    /// What the job is doing now; [`Status::Recovering`] while the live version has not been started in this process.
    pub fn status(&self) -> Status {
        self.job().map_or(Status::Recovering, |job| job.shared.status())
    }

    /// What the job has done so far; see [`Job::metrics`]. Those of the live version begin anew when another one is.
    pub fn metrics(&self) -> Metrics {
        self.job().map_or_else(Metrics::of_nothing, |job| job.shared.metrics())
    }

    /// The state at the newest epoch that is visible: stored, and read by the thread that makes views, some milliseconds later as
    /// a rule. The first call waits for that, the others for nothing.
    ///
    /// # Errors
    /// No epoch has been stored yet, its state cannot be read, or the live version has not been started in this process.
    pub fn view(&self) -> Result<View> {
        match &self.of {
            Of::Job(job) => job.view(Epoch(0)),
            Of::Live(live) => live.view(),
        }
    }

    /// As [`Queries::view`], at `epoch` or a later one: waits for it so long. After [`Job::checkpoint`], the state that it has stored. Each
    /// version counts its own epochs: what follows the live version takes `epoch` for one of the version that is live then.
    ///
    /// # Errors
    /// It has not come within that time, its state cannot be read, or the live version has not been started in this process.
    pub fn view_from(&self, epoch: Epoch, within: Duration) -> Result<View> {
        let until = Instant::now() + within;
        match &self.of {
            Of::Job(job) => job.view_until(epoch, until),
            Of::Live(live) => live.view_until(epoch, until),
        }
    }

    /// Asks for a state by its handle, at the newest epoch: [`View::query`] of [`Queries::view`]. What fails there is told by the first question.
    pub fn query<H: Copy>(&self, handle: H) -> Query<H> {
        Query::new(self.view(), handle)
    }

    /// Asks the workers for a state as it is now, which is not stored yet.
    pub fn latest<H: Copy>(&self, handle: H) -> LatestQuery<H> {
        match self.job() {
            Some(job) => LatestQuery::new(&job.flow, Some(job.version), &job.board().mailboxes, handle),
            None => LatestQuery::new(self.flow(), None, &Arc::default(), handle),
        }
    }

    /// Asks for the windows of an operator, at the newest epoch: [`View::windows`] of [`Queries::view`].
    pub fn windows(&self, operator: &str) -> WindowQuery {
        WindowQuery::new(self.view(), operator)
    }
}

/// Those of a job; see [`Job::queries`].
impl From<&Job> for Queries {
    fn from(job: &Job) -> Queries {
        job.queries()
    }
}

impl From<&Queries> for Queries {
    fn from(queries: &Queries) -> Queries {
        queries.clone()
    }
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let follows = matches!(self.of, Of::Live(_));
        f.debug_struct("Queries")
            .field("flow", &self.flow())
            .field("version", &self.version())
            .field("follows_live", &follows)
            .finish_non_exhaustive()
    }
}
