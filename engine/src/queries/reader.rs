//! The reader: the thread that makes views of epochs, and the handle that starts it.

use super::board::{Board, NoView, Stored, Turn};
use super::view::{Inner as ViewInner, View};
use super::{LatestQuery, Query, WindowQuery};
use crate::directory::ScratchFolder;
use crate::environment::Environment;
use crate::job::{JobShared, Metrics, Status};
use crate::options::StateBackend;
use crate::parts;
use parking_lot::Mutex;
use rivermark_checkpoint::{Epoch, TaskState};
use rivermark_operators::{Error, Result, panic_message};
use rivermark_state::snapshot::RestoreSource;
use rivermark_state::{Backends, MemoryBackends, PartFiles, StateError, StateView, ViewFile};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Asks for the state of a job, from wherever in the process: by [`Job::queries`](crate::Job::queries). Cheap to clone; it outlives the job, and
/// then answers from the last epoch that was stored.
///
/// The first question starts a thread that reads the newest checkpoint and from then on what each epoch has changed, until nobody has asked for
/// [some time](crate::Options::queries_rest_after); then it lets go of it, and the next question is as the first. It ends with the last clone. While
/// nobody asks, queries cost a job nothing.
#[derive(Clone)]
pub struct Queries {
    inner: Arc<Inner>,
}

struct Inner {
    flow: String,
    shared: Arc<JobShared>,
    board: Arc<Board>,
    /// Where views open files.
    folder: Option<PathBuf>,
    needs_database: bool,
    pause: Duration,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.board.close();
        if let Some(thread) = self.thread.get_mut().take() {
            // It catches its panics.
            let _ = thread.join();
        }
    }
}

impl Queries {
    pub(crate) fn new(environment: &Environment, shared: &Arc<JobShared>) -> Queries {
        let inner = Inner {
            flow: environment.flow().to_owned(),
            shared: Arc::clone(shared),
            board: Arc::clone(&shared.board),
            folder: environment.queries.clone(),
            needs_database: environment.options.backend != StateBackend::Memory,
            pause: environment.options.queries_rest_after,
            thread: Mutex::default(),
        };
        Queries { inner: Arc::new(inner) }
    }

    /// The flow.
    pub fn flow(&self) -> &str {
        &self.inner.flow
    }

    /// What the job is doing now.
    pub fn status(&self) -> Status {
        self.inner.shared.status()
    }

    /// What the job has done so far; see [`Job::metrics`](crate::Job::metrics).
    pub fn metrics(&self) -> Metrics {
        self.inner.shared.metrics()
    }

    /// The job's state at the newest epoch that is visible: stored, and read by the thread that makes views, some milliseconds later as
    /// a rule. The first call waits for that, the others for nothing.
    ///
    /// # Errors
    /// No epoch has been stored yet, or its state cannot be read.
    pub fn view(&self) -> Result<View> {
        if let Some(view) = self.inner.board.visible() {
            return Ok(view);
        }
        self.start()?;
        self.inner.board.first().map_err(|why| self.no_view(why, "querying"))
    }

    /// As [`Queries::view`], at `epoch` or a later one: waits for it so long. After [`Job::checkpoint`](crate::Job::checkpoint), the state
    /// that it has stored.
    ///
    /// # Errors
    /// It has not come within that time, or its state cannot be read.
    pub fn view_from(&self, epoch: Epoch, within: Duration) -> Result<View> {
        if let Some(view) = self.inner.board.visible().filter(|view| view.epoch() >= epoch) {
            return Ok(view);
        }
        self.start()?;
        let attempt = format!("waiting for the state at epoch {epoch}");
        self.inner.board.from(epoch, Instant::now() + within).map_err(|why| self.no_view(why, &attempt))
    }

    /// Asks for a state by its handle, at the newest epoch: [`View::query`] of [`Queries::view`]. What fails there is told by the first question.
    pub fn query<H: Copy>(&self, handle: H) -> Query<H> {
        Query::new(self.view(), handle)
    }

    /// Asks the workers for a state as it is now, which is not stored yet.
    pub fn latest<H: Copy>(&self, handle: H) -> LatestQuery<H> {
        LatestQuery::new(&self.inner.flow, &self.inner.board.mailboxes, handle)
    }

    /// Asks for the windows of an operator, at the newest epoch: [`View::windows`] of [`Queries::view`].
    pub fn windows(&self, operator: &str) -> WindowQuery {
        WindowQuery::new(self.view(), operator)
    }

    fn no_view(&self, why: NoView, attempt: &str) -> Error {
        let problem = match why {
            NoView::NothingStored => {
                "no epoch has been stored yet; ask again after the first checkpoint".to_owned()
            }
            NoView::Failed(failure) => failure,
            NoView::TimedOut(None) => "it has not come in time, and none is visible yet".to_owned(),
            NoView::TimedOut(Some(at)) => format!("it has not come in time; the newest is {at}"),
        };
        Error::engine(format!("{attempt}, flow `{}`", self.inner.flow), problem)
    }

    /// Starts the reader, if nobody has.
    fn start(&self) -> Result<()> {
        let mut thread = self.inner.thread.lock();
        if thread.is_some() {
            return Ok(());
        }
        let reader = Reader {
            flow: self.inner.flow.clone(),
            board: Arc::clone(&self.inner.board),
            scratch: Arc::new(Scratch::new(self.inner.folder.as_deref(), self.inner.needs_database)?),
            pause: self.inner.pause,
            before: BTreeMap::new(),
        };
        let spawned = std::thread::Builder::new()
            .name(format!("rivermark-queries-{}", self.inner.flow))
            .spawn(move || reader.run());
        let attempt = || format!("starting the thread that reads the state of flow `{}`", self.inner.flow);
        *thread = Some(spawned.map_err(|e| Error::engine(attempt(), e))?);
        Ok(())
    }
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queries").field("flow", &self.inner.flow).finish_non_exhaustive()
    }
}

/// Where views open state files. It goes with the last view.
pub(super) struct Scratch {
    backends: Arc<dyn Backends>,
    _folder: Option<ScratchFolder>,
}

/// What all views of a job together may keep of files in memory, in bytes, beside what the deltas take.
#[cfg(feature = "rocksdb")]
const CACHE: usize = 32 << 20;

impl Scratch {
    #[cfg(feature = "rocksdb")]
    fn new(folder: Option<&std::path::Path>, needs_database: bool) -> Result<Scratch> {
        use rivermark_state::{MemoryBudget, RocksBackends, RocksOptions};
        if !needs_database {
            return Ok(Scratch { backends: Arc::new(MemoryBackends), _folder: None });
        }
        let folder = ScratchFolder::create(folder)?;
        let options = RocksOptions { cache: CACHE, write_buffers: 1 << 20, background_jobs: 1 };
        let backends = RocksBackends::new(folder.path(), &MemoryBudget::unlimited(), options);
        let backends = backends.map_err(|e| {
            Error::engine(format!("opening state for queries in {}", folder.path().display()), e)
        })?;
        Ok(Scratch { backends: Arc::new(backends), _folder: Some(folder) })
    }

    #[cfg(not(feature = "rocksdb"))]
    fn new(_: Option<&std::path::Path>, _: bool) -> Result<Scratch> {
        Ok(Scratch { backends: Arc::new(MemoryBackends), _folder: None })
    }
}

/// The life of the thread.
struct Reader {
    flow: String,
    board: Arc<Board>,
    scratch: Arc<Scratch>,
    /// For how long nobody has to ask until it rests.
    pause: Duration,
    /// The states of the last view, by operator.
    before: BTreeMap<String, Arc<StateView>>,
}

impl Reader {
    fn run(mut self) {
        loop {
            let stored = match self.board.next(self.pause) {
                Turn::Read(stored) => stored,
                Turn::Rest => {
                    self.before.clear();
                    continue;
                }
                Turn::End => return,
            };
            let made = catch_unwind(AssertUnwindSafe(|| self.view(&stored)));
            let made = made.unwrap_or_else(|panic| {
                let message = panic_message(&*panic).unwrap_or_default();
                Err(Error::engine(format!("reading the state of flow `{}`", self.flow), message))
            });
            if let Err(error) = &made {
                tracing::warn!(flow = self.flow, %error, "an epoch cannot be queried; the one before it stays visible");
            }
            self.board.show(made.map_err(|error| error.to_string()));
        }
    }

    /// Makes the view of a checkpoint.
    fn view(&mut self, stored: &Stored) -> Result<View> {
        let manifest = &stored.manifest;
        let mut states = BTreeMap::new();
        for (operator, tasks) in &manifest.operators {
            let parts: Vec<_> = tasks.iter().map(|task| part(stored, task)).collect();
            let before = self.before.get(operator).map(Arc::as_ref);
            let backends = &*self.scratch.backends;
            let view = StateView::of(operator, manifest.key_groups, backends, &parts, before);
            let view = view.map_err(|e| {
                Error::state(operator, format!("reading its state at epoch {}", manifest.epoch), e)
            })?;
            states.insert(operator.clone(), Arc::new(view));
        }
        self.before.clone_from(&states);
        let (manifest, scratch) = (Arc::clone(manifest), Arc::clone(&self.scratch));
        Ok(View::new(ViewInner { states, manifest, _scratch: scratch }))
    }
}

/// The files of one task.
fn part<'a>(stored: &'a Stored, task: &'a TaskState) -> PartFiles<'a> {
    let files = task.files.iter().map(|file| ViewFile {
        name: file.name.clone(),
        role: parts::restored_role(file.role),
        content: file.content.digest.0,
    });
    let source = |at: usize| {
        let file = &task.files[at];
        // A base is linked; its blocks have checksums of their own.
        let is_native = rivermark_state::is_native(&file.name, parts::restored_role(file.role));
        if let Some(path) = stored.checkpoints.local_path(file).filter(|_| is_native) {
            return Ok(RestoreSource::Path(path));
        }
        let bytes = stored.checkpoints.fetch_bytes(file);
        bytes.map(|bytes| RestoreSource::Bytes(bytes.into())).map_err(|error| StateError::Backend {
            attempted: "fetch a state file",
            place: file.name.clone(),
            reason: error.to_string(),
        })
    };
    PartFiles { meta: &task.meta.0, files: files.collect(), source: Box::new(source) }
}
