//! What workers are built from, the same for every attempt of a job.

use crate::channels::{CHANNEL_BATCHES, Channels, Wake};
use crate::compatible;
use crate::directory::Directory;
use crate::job::JobShared;
use crate::options::{Options, StateBackend};
use crate::parts;
use crate::savepoint::{Savepoint, Savepoints};
use crate::worker::{Command, Report, Worker, WorkerSetup};
use crossbeam_channel::{Receiver, Sender};
use rivermark_checkpoint::store::LocalStore;
use rivermark_checkpoint::{
    Checkpoints, Coordinator, Fetch, FlowId, Generation, Job as CoordinatorJob, KeyGroups, Manifest,
    Options as CoordinatorOptions, Store, TaskId, TaskState,
};
use rivermark_operators::batch::{Batch, Origin};
use rivermark_operators::partitions::{PartitionEntry, Partitions};
use rivermark_operators::plan::{Plan, Resources, TaskEnvironment};
use rivermark_operators::sink::{ErasedCommitter, WrittenTopic};
use rivermark_operators::source::{ConnectorContext, Waker};
use rivermark_operators::{BoxError, Error, Result};
use rivermark_state::snapshot::RestoreSource;
use rivermark_state::{
    Backends, KeyGroupRange, KeyedStore, Limits, MemoryBackends, MemoryBudget, RestoreFile, RestorePart,
    StoreSpec, range_of,
};
use std::collections::{BTreeMap, HashMap};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A job's plan, settings and surroundings.
pub(crate) struct Environment {
    pub(crate) plan: Arc<Plan>,
    pub(crate) options: Options,
    pub(crate) resources: Arc<Resources>,
    /// Names this process in the checkpoint store.
    pub(crate) owner: String,
    store: Arc<dyn Store>,
    pub(crate) savepoints: Savepoints,
    backends: Arc<dyn Backends>,
    budget: MemoryBudget,
    limits: Limits,
    /// Where state files are fetched to; `None` fetches into memory.
    scratch: Option<PathBuf>,
    /// Where queries open state files; `None` reads them into memory.
    pub(crate) queries: Option<PathBuf>,
    /// Numbers the folders of attempts.
    builds: AtomicU64,
    /// Batches that a channel between two workers holds: fewer in some simulations.
    pub(crate) channel_batches: usize,
    /// The workers of the next attempt, if not those of the options: a simulation changes them.
    workers: usize,
    /// What the job repeats, if it is a run that was published already.
    pub(crate) repeats: Option<Repeated>,
}

/// The run that an audit repeats. Everything that it decided is in the checkpoints of the version before this one.
pub(crate) struct Repeated {
    /// The partitions that it had found, by source and number, and where each begins, if that is known: others are not there for whoever
    /// repeats it.
    pub(crate) partitions: HashMap<(String, u32), Option<Vec<u8>>>,
}

impl Environment {
    /// An environment on a data directory.
    ///
    /// # Errors
    /// The flow's name could not be part of a path, or something on the disk cannot be used.
    pub(crate) fn local(
        plan: Arc<Plan>,
        options: &Options,
        resources: Resources,
        directory: &Directory,
        savepoints: Savepoints,
    ) -> Result<Environment> {
        // First of all: what follows removes a folder of that name.
        let flow = FlowId { name: plan.flow().to_string(), version: plan.version() };
        flow.check().map_err(|e| Error::Flow { flow: flow.name.clone(), problem: e.to_string() })?;
        let checkpoints = directory.checkpoints();
        let store = LocalStore::open(&checkpoints).map_err(|e| {
            Error::engine(format!("opening the checkpoint store {}", checkpoints.display()), e)
        })?;
        let state = directory.state(plan.flow(), plan.version());
        // Local state is a cache of the checkpoint: what an earlier process left is of no use.
        match std::fs::remove_dir_all(&state) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::engine(format!("clearing the local state {}", state.display()), e));
            }
            _ => {}
        }
        let scratch = state.join("restore");
        let budget = MemoryBudget::new(options.state_budget);
        let backends: Arc<dyn Backends> = match options.backend {
            StateBackend::Memory => Arc::new(MemoryBackends),
            #[cfg(feature = "rocksdb")]
            StateBackend::RocksDb => {
                let rocks = rivermark_state::RocksOptions::for_budget(&budget);
                let backends = rivermark_state::RocksBackends::new(state.join("rocksdb"), &budget, rocks);
                Arc::new(
                    backends
                        .map_err(|e| Error::engine(format!("opening RocksDB in {}", state.display()), e))?,
                )
            }
        };
        Ok(Environment {
            plan,
            options: options.clone(),
            resources: Arc::new(resources),
            owner: format!("process {}", std::process::id()),
            store: Arc::new(store),
            savepoints,
            backends,
            budget,
            limits: Limits::default(),
            scratch: Some(scratch),
            queries: Some(directory.queries()),
            builds: AtomicU64::new(0),
            channel_batches: CHANNEL_BATCHES,
            workers: options.workers,
            repeats: None,
        })
    }

    /// An environment that lives in memory, for a simulation.
    pub(crate) fn simulated(
        plan: Arc<Plan>,
        options: &Options,
        resources: Resources,
        store: Arc<dyn Store>,
        workers: usize,
    ) -> Environment {
        Environment {
            plan,
            options: options.clone(),
            resources: Arc::new(resources),
            owner: "simulation".into(),
            store,
            savepoints: Savepoints::in_memory(),
            backends: Arc::new(MemoryBackends),
            budget: MemoryBudget::new(options.state_budget),
            limits: Limits::default(),
            scratch: None,
            queries: None,
            builds: AtomicU64::new(0),
            channel_batches: CHANNEL_BATCHES,
            workers,
            repeats: None,
        }
    }

    pub(crate) fn flow(&self) -> &str {
        self.plan.flow()
    }

    pub(crate) fn flow_id(&self) -> FlowId {
        FlowId { name: self.flow().to_string(), version: self.plan.version() }
    }

    /// The number of workers: no more than there are key groups to share.
    pub(crate) fn workers(&self) -> usize {
        self.workers.min(usize::from(self.options.key_groups))
    }

    /// Where checkpoints are kept.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn open_checkpoints(&self) -> Result<Checkpoints> {
        Checkpoints::new(Arc::clone(&self.store), self.flow_id())
            .map_err(|e| self.error("opening its checkpoints", e))
    }

    pub(crate) fn coordinator(&self, origin_ms: i64) -> Coordinator {
        let job = CoordinatorJob {
            flow: self.flow().to_string(),
            version: self.plan.version(),
            workers: NonZeroU32::new(self.workers() as u32).unwrap_or(NonZeroU32::MIN),
            key_groups: self.options.key_groups,
            origin_ms,
        };
        let defaults = CoordinatorOptions::default();
        let interval = self.options.checkpoint_interval;
        let min_pause = interval.map_or(defaults.min_pause, |interval| defaults.min_pause.min(interval / 2));
        let timeout = self.options.checkpoint_timeout;
        Coordinator::new(job, CoordinatorOptions { interval, min_pause, timeout, ..defaults })
    }

    /// An engine error of this flow.
    pub(crate) fn error(&self, attempt: &str, source: impl Into<BoxError>) -> Error {
        Error::engine(format!("{attempt}, flow `{}`", self.flow()), source)
    }

    /// What the source or sink `name` is told of where it is.
    pub(crate) fn connector<'a>(&'a self, name: &'a str) -> ConnectorContext<'a> {
        ConnectorContext { flow: self.flow(), version: self.plan.version(), name, resources: &self.resources }
    }

    /// What a sink is told of where it is. `None` if it is not to be opened.
    pub(crate) fn sink<'a>(&'a self, name: &'a str) -> Option<ConnectorContext<'a>> {
        let resources = self.resources.of_sink(name)?;
        Some(ConnectorContext { flow: self.flow(), version: self.plan.version(), name, resources })
    }

    /// The topics of the log that the flow's sinks write, by sink.
    pub(crate) fn written_topics(&self) -> BTreeMap<String, WrittenTopic> {
        written_topics(&self.plan, &self.resources)
    }

    /// Whether a partition is one to be read.
    pub(crate) fn reads(&self, source: &str, number: u32) -> bool {
        let repeats = |repeated: &Repeated| repeated.partitions.contains_key(&(source.to_owned(), number));
        self.repeats.as_ref().is_none_or(repeats)
    }

    /// Where a partition begins that no checkpoint has a position for, if not at its source's configured start.
    pub(crate) fn begins(&self, source: &str, number: u32) -> Option<Vec<u8>> {
        self.repeats.as_ref()?.partitions.get(&(source.to_owned(), number))?.clone()
    }

    /// Whether the flow can continue from this checkpoint.
    pub(crate) fn check_compatible(&self, checkpoint: Option<&Manifest>) -> Result<()> {
        let Some(manifest) = checkpoint else { return Ok(()) };
        self.check_continues(manifest, &format!("its checkpoint {}", manifest.epoch))
    }

    /// Makes a savepoint the newest checkpoint of the flow.
    pub(crate) fn install(&self, savepoint: &Savepoint, now_ms: i64) -> Result<()> {
        self.check_continues(savepoint.manifest(), &format!("savepoint {savepoint}"))?;
        let attempt = format!("starting from savepoint {savepoint}");
        let kept = NonZeroUsize::new(self.options.checkpoints_kept).unwrap_or(NonZeroUsize::MIN);
        let writer =
            self.open_checkpoints()?.fence(&self.owner, now_ms, kept).map_err(|e| self.error(&attempt, e))?;
        let epoch = savepoint.install(&writer, now_ms).map_err(|e| self.error(&attempt, e))?;
        tracing::info!(flow = self.flow(), %savepoint, %epoch, "installed a savepoint");
        Ok(())
    }

    /// Whether the flow has a checkpoint of its own, be it a damaged one.
    pub(crate) fn has_checkpoint(&self) -> Result<bool> {
        let empty = self.open_checkpoints()?.is_empty();
        empty.map(|empty| !empty).map_err(|e| self.error("listing its checkpoints", e))
    }

    /// Whether the flow can continue from what `found` names.
    fn check_continues(&self, manifest: &Manifest, found: &str) -> Result<()> {
        compatible::problems(&self.plan, self.options.key_groups, manifest, found)
            .into_iter()
            .next()
            .map_or(Ok(()), |problem| Err(Error::Flow { flow: self.flow().to_string(), problem }))
    }

    /// Whether a partition is still what it was when it was first read: its offsets mean nothing anywhere else.
    pub(crate) fn check_same(&self, entry: &PartitionEntry, name: &str) -> Result<()> {
        if entry.name == name {
            return Ok(());
        }
        let problem = format!(
            "partition {} of source `{}` was `{}` when it was read first, and is `{name}` now; leave the order of partitions as it was, \
             or give the source another name with `.named(..)`, or raise the flow's version to begin anew",
            entry.number, entry.source, entry.name
        );
        Err(Error::Flow { flow: self.flow().to_string(), problem })
    }

    pub(crate) fn check_partitions(&self, partitions: usize) -> Result<()> {
        if partitions <= Origin::MAX_PARTITIONS {
            return Ok(());
        }
        let problem = format!(
            "its sources have {partitions} partitions; a job reads at most {}",
            Origin::MAX_PARTITIONS
        );
        Err(Error::Flow { flow: self.flow().to_string(), problem })
    }

    /// Opens an operator's state on one worker, from what the checkpoint has of its key groups.
    fn open_store(
        &self,
        operator: &Arc<str>,
        range: KeyGroupRange,
        worker: TaskId,
        checkpoints: &Checkpoints,
        checkpoint: Option<&Manifest>,
        rewound: bool,
    ) -> Result<KeyedStore> {
        let build = self.builds.fetch_add(1, Ordering::Relaxed);
        let tasks = checkpoint.and_then(|manifest| manifest.operators.get(&**operator));
        let overlaps = |task: &&TaskState| {
            let KeyGroups { start, end } = task.groups;
            start < range.end && range.start < end
        };
        let parts: Result<Vec<(RestorePart, Option<PathBuf>)>> = tasks
            .into_iter()
            .flatten()
            .filter(overlaps)
            .map(|task| self.fetch(operator, build, checkpoints, task))
            .collect();
        let spec = StoreSpec {
            operator: operator.to_string(),
            groups: self.options.key_groups,
            range,
            budget: self.budget.clone(),
            limits: self.limits,
        };
        let parts = parts?;
        let folders: Vec<PathBuf> = parts.iter().filter_map(|(_, folder)| folder.clone()).collect();
        let store =
            KeyedStore::open(spec, &*self.backends, parts.into_iter().map(|(part, _)| part).collect());
        // The backend has links of its own by now, and the deltas have been read.
        for folder in folders {
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "fetched state files could not be removed");
            }
        }
        let mut store =
            store.map_err(|e| Error::state(operator, format!("opening its state on worker {worker}"), e))?;
        if rewound {
            // The files of a checkpoint to which a flow has returned may be on their way out: nothing may build on them.
            store.force_rebase();
        }
        Ok(store)
    }

    /// Makes durable what the sources have given, before a checkpoint with their positions is stored.
    pub(crate) fn sync_sources(&self) -> Result<()> {
        self.plan.sources().try_for_each(|(name, source)| {
            let synced = source.sync(&self.connector(name));
            synced.map_err(|e| Error::source(name, "making durable what the checkpoint has read of it", e))
        })
    }

    /// Fetches the state files of one task of a checkpoint, and says into which folder if not into memory.
    fn fetch(
        &self,
        operator: &str,
        build: u64,
        checkpoints: &Checkpoints,
        task: &TaskState,
    ) -> Result<(RestorePart, Option<PathBuf>)> {
        let failed = |e: BoxError| Error::state(operator, "fetching its state from the checkpoint store", e);
        let folder = self.scratch.as_ref().map(|scratch| scratch.join(format!("{build}-{}", task.task)));
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).map_err(|e| failed(e.into()))?;
        }
        let mut files = Vec::with_capacity(task.files.len());
        for (at, file) in task.files.iter().enumerate() {
            let source = match &folder {
                Some(folder) => {
                    let to = folder.join(at.to_string());
                    checkpoints.fetch(file, &to, Fetch::Link).map_err(|e| failed(e.into()))?;
                    RestoreSource::Path(to)
                }
                None => {
                    RestoreSource::Bytes(checkpoints.fetch_bytes(file).map_err(|e| failed(e.into()))?.into())
                }
            };
            files.push(RestoreFile {
                name: file.name.clone(),
                role: parts::restored_role(file.role),
                source,
            });
        }
        Ok((RestorePart { meta: task.meta.0.clone(), files }, folder))
    }
}

/// The topics of the log that a plan's sinks write, by sink.
pub(crate) fn written_topics(plan: &Plan, resources: &Resources) -> BTreeMap<String, WrittenTopic> {
    let written = |(name, sink): (&Arc<str>, &Arc<dyn ErasedCommitter>)| {
        let context = ConnectorContext { flow: plan.flow(), version: plan.version(), name, resources };
        Some((name.to_string(), sink.written_topic(&context)?))
    };
    plan.committers().filter_map(written).collect()
}

/// Everything a worker is built from, on whichever thread will run it.
pub(crate) struct WorkerSeed {
    pub(crate) id: TaskId,
    pub(crate) generation: Generation,
    pub(crate) environment: Arc<Environment>,
    pub(crate) shared: Arc<JobShared>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) checkpoint: Option<Arc<Manifest>>,
    /// Whether the flow has returned to that checkpoint from a newer one.
    pub(crate) rewound: bool,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) stored: Arc<AtomicU64>,
    pub(crate) channels: Channels,
    pub(crate) commands: Receiver<Command>,
    pub(crate) reports: Sender<Report>,
    pub(crate) wake: Wake,
}

impl WorkerSeed {
    /// Builds the worker: restores its state and opens its sinks.
    pub(crate) fn build(self) -> Result<Worker> {
        let environment = &self.environment;
        let workers = environment.workers();
        let groups = environment.options.key_groups;
        let range = range_of(self.id.0 as u16, groups, workers as u16);
        let checkpoint = self.checkpoint.as_deref();
        let mut open_store = |operator: &Arc<str>| {
            let (id, checkpoints) = (self.id, &self.checkpoints);
            let mut store =
                environment.open_store(operator, range, id, checkpoints, checkpoint, self.rewound)?;
            self.shared.board.mailboxes.add(operator, &mut store);
            Ok(store)
        };
        let none = std::collections::BTreeMap::new();
        let wake = self.wake.clone();
        let waker = Waker::new(move || wake.wake());
        let tasks = environment.plan.build(TaskEnvironment {
            worker: self.id.0 as usize,
            workers,
            key_groups: groups,
            generation: self.generation.0,
            partitions: Arc::clone(&self.partitions),
            metrics: &self.shared.operators,
            watermarks: checkpoint.map_or(&none, |manifest| &manifest.watermarks),
            ends: checkpoint.map_or(&none, |manifest| &manifest.ends),
            resources: Arc::clone(&environment.resources),
            batch_capacity: Batch::<()>::CAPACITY,
            held_batches: environment.channel_batches,
            waker: waker.clone(),
            open_store: &mut open_store,
        })?;
        Ok(Worker::new(
            WorkerSetup {
                id: self.id,
                workers,
                channels: self.channels,
                commands: self.commands,
                reports: self.reports,
                waker,
                partitions: self.partitions,
                shared: self.shared,
                stored: self.stored,
            },
            tasks,
        ))
    }
}
