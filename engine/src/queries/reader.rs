//! The reader: the thread that makes views of a job's epochs, and what starts it.

use super::board::{Board, NoView, Stored, Turn};
use super::view::{Inner as ViewInner, View};
use crate::directory::ScratchFolder;
use crate::environment::Environment;
use crate::job::JobShared;
use crate::options::StateBackend;
use crate::parts;
use parking_lot::Mutex;
use rivermark_checkpoint::{Epoch, TaskState};
use rivermark_operators::{Error, Result, panic_message};
use rivermark_state::snapshot::RestoreSource;
use rivermark_state::{Backends, MemoryBackends, PartFiles, StateError, StateView, ViewFile};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What asks for the state of one job. It outlives the job.
pub(crate) struct JobQueries {
    pub(super) flow: String,
    pub(super) version: u64,
    pub(super) shared: Arc<JobShared>,
    /// Where views open files.
    folder: Option<PathBuf>,
    needs_database: bool,
    pause: Duration,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for JobQueries {
    fn drop(&mut self) {
        self.board().close();
        if let Some(thread) = self.thread.get_mut().take() {
            // It catches its panics.
            let _ = thread.join();
        }
    }
}

impl JobQueries {
    pub(crate) fn new(environment: &Environment, shared: &Arc<JobShared>) -> JobQueries {
        JobQueries {
            flow: environment.flow().to_owned(),
            version: environment.plan.version(),
            shared: Arc::clone(shared),
            folder: environment.queries.clone(),
            needs_database: environment.options.backend != StateBackend::Memory,
            pause: environment.options.queries_rest_after,
            thread: Mutex::default(),
        }
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.shared.board
    }

    /// The newest view, if it is there, and of `from` or a later epoch.
    pub(super) fn visible(&self, from: Epoch) -> Option<View> {
        self.board().visible().filter(|view| view.epoch() >= from)
    }

    /// The newest view, of `from`, which has been stored, or a later epoch. Waits for it.
    pub(super) fn view(&self, from: Epoch) -> Result<View> {
        if let Some(view) = self.visible(from) {
            return Ok(view);
        }
        self.start()?;
        self.board().first(from).map_err(|why| self.no_view(why, "querying"))
    }

    /// The newest view, of `epoch` or a later one. Waits for it until then.
    pub(crate) fn view_until(&self, epoch: Epoch, until: Instant) -> Result<View> {
        if let Some(view) = self.visible(epoch) {
            return Ok(view);
        }
        self.start()?;
        let attempt = format!("waiting for the state at epoch {epoch}");
        self.board().from(epoch, until).map_err(|why| self.no_view(why, &attempt))
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
        Error::engine(format!("{attempt}, flow `{}`, version {}", self.flow, self.version), problem)
    }

    /// Starts the reader, if nobody has.
    fn start(&self) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_some() {
            return Ok(());
        }
        let reader = Reader {
            flow: self.flow.clone(),
            board: Arc::clone(self.board()),
            scratch: Arc::new(Scratch::new(self.folder.as_deref(), self.needs_database)?),
            pause: self.pause,
            before: BTreeMap::new(),
        };
        let spawned = std::thread::Builder::new()
            .name(format!("rivermark-queries-{}", self.flow))
            .spawn(move || reader.run());
        let attempt = || format!("starting the thread that reads the state of flow `{}`", self.flow);
        *thread = Some(spawned.map_err(|e| Error::engine(attempt(), e))?);
        Ok(())
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
