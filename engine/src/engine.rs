//! The engine: a data directory, a log, and the jobs that run on them, on threads.

use crate::attempt::{Attempt, Monotonic, Over};
use crate::deployment::{Fleet, Folders, RecordFile, publish};
use crate::directory::Directory;
use crate::environment::{Environment, WorkerSeed};
use crate::job::{Job, JobShared, LastSavepoint, Status, Wish};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::queries::{JobQueries, LiveVersion, Queries};
use crate::savepoint::{Savepoint, Savepoints, StartFrom};
use crate::upkeep::Upkeep;
use crate::worker::{Report, Step};
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use parking_lot::Mutex;
use rivermark_checkpoint::store::MemoryStore;
use rivermark_checkpoint::{FlowId, Outcome, RestoreFrom};
use rivermark_log::{Aliases, Log};
use rivermark_operators::line::Line;
use rivermark_operators::plan::{Plan, Resources};
use rivermark_operators::{Error, Flow, Result, Timestamp, panic_message};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a worker that has nothing to do sleeps if nobody wakes it: it looks for idle partitions then.
const IDLE_PARK: Duration = Duration::from_millis(10);
/// What a job answers between two attempts.
const WAITING: &str = "the job has failed and waits to be started again";
/// How long it sleeps while its sources wait for slower ones.
const HELD_PARK: Duration = Duration::from_micros(200);

/// An engine on a data directory. Cheap to clone; the directory is let go of with the last clone and job.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// Fields are dropped in this order: the directory is unlocked when nothing works on it any more.
struct Inner {
    _upkeep: Upkeep,
    log: Log,
    options: Options,
    savepoints: Savepoints,
    /// Flows that run now: two jobs of one version would fence each other.
    running: Mutex<HashSet<FlowId>>,
    /// What readers of outputs see.
    aliases: Aliases,
    /// The deployments of flows that are held by somebody.
    fleets: Mutex<HashMap<String, Weak<Fleet>>>,
    /// What follows the live versions of flows.
    live: Mutex<HashMap<String, Arc<LiveVersion>>>,
    directory: Directory,
}

impl Engine {
    /// Opens (or creates) a data directory with the default options.
    ///
    /// # Errors
    /// If another process holds it (the error names it), or the log cannot be recovered.
    pub fn open(directory: impl AsRef<Path>) -> Result<Engine> {
        Self::open_with(directory, Options::new())
    }

    /// As [`Engine::open`], with options.
    pub fn open_with(directory: impl AsRef<Path>, options: Options) -> Result<Engine> {
        let directory = Directory::lock(directory.as_ref())?;
        directory.clear_left_overs()?;
        let log = Log::open(directory.log(), options.log.clone())
            .map_err(|e| Error::engine(format!("opening the log in {}", directory.log().display()), e))?;
        let upkeep = Upkeep::start(log.clone(), options.log.sync_interval())?;
        let savepoints = Savepoints::new(directory.savepoints());
        let aliases = published(&directory)?;
        let (running, fleets, live) = (Mutex::default(), Mutex::default(), Mutex::default());
        let inner =
            Inner { _upkeep: upkeep, log, options, savepoints, running, aliases, fleets, live, directory };
        Ok(Engine { inner: Arc::new(inner) })
    }

    /// The embedded log.
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// What the outputs of deployed flows are: which version's rows readers see.
    pub fn outputs(&self) -> &Aliases {
        &self.inner.aliases
    }

    /// What a plan can be asked questions with: it touches nothing on the disk but the log, for reading.
    pub(crate) fn environment_to_plan_with(&self, plan: Arc<Plan>) -> Environment {
        let options = &self.inner.options;
        Environment::simulated(
            plan,
            options,
            self.resources(),
            Arc::new(MemoryStore::default()),
            options.workers,
        )
    }

    /// The deployments of a flow.
    pub(crate) fn fleet(&self, flow: &str) -> Result<Arc<Fleet>> {
        FlowId { name: flow.to_owned(), version: 1 }
            .check()
            .map_err(|e| Error::Flow { flow: flow.to_owned(), problem: e.to_string() })?;
        let mut fleets = self.inner.fleets.lock();
        if let Some(fleet) = fleets.get(flow).and_then(Weak::upgrade) {
            return Ok(fleet);
        }
        let directory = &self.inner.directory;
        let folders = Folders {
            deployments: directory.deployments(),
            checkpoints: directory.checkpoints(),
            state: directory.states(flow),
        };
        let (log, aliases) = (self.inner.log.clone(), self.inner.aliases.clone());
        let fleet = Fleet::open(flow, folders, log, aliases, self.live(flow))?;
        fleets.insert(flow.to_owned(), Arc::downgrade(&fleet));
        Ok(fleet)
    }

    fn live(&self, flow: &str) -> Arc<LiveVersion> {
        let mut live = self.inner.live.lock();
        let live = live.entry(flow.to_owned()).or_insert_with(|| Arc::new(LiveVersion::of(flow)));
        Arc::clone(live)
    }

    /// What asks for the state of a flow that is [deployed](Engine::deploy), of the version that is live: it follows from version to version.
    /// [`Queries`] has the promises. It can be had before anything is deployed, and keeps nothing running.
    pub fn queries(&self, flow: &str) -> Queries {
        Queries::of_live(&self.live(flow))
    }

    /// Runs a flow until it is over: until its sources have ended, if they do.
    ///
    /// # Errors
    /// The failure that ended it, after the restarts that [`Options::restart`] allows.
    pub fn run(&self, flow: Flow) -> Result<Metrics> {
        self.start(flow)?.wait()
    }

    /// Starts a flow on threads of its own: from its last checkpoint if it has one, else from its sources' configured start.
    /// Versions of a flow may run beside each other; each has checkpoints and state of its own.
    ///
    /// # Errors
    /// If the flow is not valid or its version runs already. Failures after that are the job's.
    pub fn start(&self, flow: Flow) -> Result<Job> {
        self.start_from(flow, RestoreFrom::Latest)
    }

    /// As [`Engine::start`], from a checkpoint or savepoint of one's choice: from an older checkpoint when the newest is damaged, to go back
    /// behind a mistake, or to let a new version of a flow, or another directory, begin with the state of an old one. [`StartFrom`] says
    /// what each choice means.
    ///
    /// # Errors
    /// As there; and if a savepoint is damaged, or the flow cannot continue from it: it has no operator of a name that has state there, or
    /// another number of key groups. That there is no such checkpoint is the job's failure.
    pub fn start_from(&self, flow: Flow, from: impl Into<StartFrom>) -> Result<Job> {
        self.start_plan(Arc::new(flow.into_plan()?), from.into(), Setup::default())
    }

    /// As [`Engine::start_from`], with what a deployment says of it.
    pub(crate) fn start_plan(&self, plan: Arc<Plan>, from: StartFrom, setup: Setup) -> Result<Job> {
        let name = plan.flow().to_string();
        if let Some(lines) = setup.lines {
            // Before anything is read.
            for (source, throttle) in plan.throttles() {
                throttle.set_lines(Some(lines.get(&**source).cloned().unwrap_or_default()));
            }
        }
        let running = Running::claim(self, FlowId { name: name.clone(), version: plan.version() })?;
        let mut options = self.inner.options.clone();
        options.workers = setup.workers.unwrap_or(options.workers);
        let (options, savepoints) = (&options, self.inner.savepoints.clone());
        let environment =
            Environment::local(plan, options, self.resources(), &self.inner.directory, savepoints.clone())?;
        let job = launch(environment, from, Some(running))?;
        job.shared.offer_cores(setup.offers_cores);
        Ok(job)
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// The settings.
    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    /// What sources look up.
    pub(crate) fn resources(&self) -> Resources {
        let mut resources = Resources::default();
        resources.insert(self.inner.log.clone());
        resources.insert(self.inner.aliases.clone());
        resources
    }
}

/// Starts the job of an environment, which is nobody else's. `running` is held until it is over.
pub(crate) fn launch(environment: Environment, from: StartFrom, running: Option<Running>) -> Result<Job> {
    let name = environment.flow().to_owned();
    let savepoints = environment.savepoints.clone();
    let clock = Clock::start();
    let from = match from {
        StartFrom::Checkpoint(from) => from,
        StartFrom::SavepointAtFirst(_) if environment.has_checkpoint()? => RestoreFrom::Latest,
        StartFrom::Savepoint(savepoint) | StartFrom::SavepointAtFirst(savepoint) => {
            environment.install(&savepoint, clock.origin_ms)?;
            RestoreFrom::Latest
        }
    };
    let shared = Arc::new(JobShared::new(&environment.plan, environment.workers()));
    let (wishes, wished) = unbounded();
    let (tell, outcome) = bounded(1);
    let environment = Arc::new(environment);
    let queries = Arc::new(JobQueries::new(&environment, &shared));
    let supervisor = Supervisor {
        environment,
        shared: Arc::clone(&shared),
        wished,
        clock,
        from: Cell::new(from),
        is_stopping: Cell::new(false),
    };
    let thread = std::thread::Builder::new()
        .name(format!("rivermark-{name}"))
        .spawn(move || {
            let outcome = supervisor.run_caught();
            drop(running);
            // The job may have been dropped: then it waits for this thread, and not for the outcome.
            let _ = tell.send(outcome);
        })
        .map_err(|e| Error::engine(format!("starting the thread of flow `{name}`"), e))?;
    Ok(Job { flow: name, shared, queries, savepoints, wishes, thread: Some(thread), outcome })
}

/// What a deployment says of a job's start.
#[derive(Default)]
pub(crate) struct Setup {
    /// Its workers, if not those of the options.
    pub(crate) workers: Option<usize>,
    /// Whether its workers offer their cores to others.
    pub(crate) offers_cores: bool,
    /// How far each partition may be read, by source and number.
    pub(crate) lines: Option<HashMap<String, HashMap<u32, Line>>>,
}

/// What the outputs of all flows are that are deployed in a directory.
fn published(directory: &Directory) -> Result<Aliases> {
    let aliases = Aliases::default();
    for flow in RecordFile::flows(&directory.deployments())? {
        match RecordFile::of(&directory.deployments(), &flow).read() {
            Ok(record) => {
                record.outputs.iter().for_each(|(alias, segments)| publish(&aliases, alias, segments));
            }
            // Other flows are none the worse for it. Whoever deploys this one gets the error.
            Err(error) => tracing::error!(flow, %error, "what its readers see is unknown"),
        }
    }
    Ok(aliases)
}

impl Engine {
    /// The savepoints of a flow, of all its versions, by name.
    ///
    /// # Errors
    /// The folder cannot be read, or the record of one is damaged.
    pub fn savepoints(&self, flow: &str) -> Result<Vec<Savepoint>> {
        self.inner.savepoints.list(flow)
    }

    /// A savepoint of a flow.
    ///
    /// # Errors
    /// There is none of that name (the error names those that there are), or its record is damaged.
    pub fn savepoint(&self, flow: &str, name: &str) -> Result<Savepoint> {
        self.inner.savepoints.get(flow, name)
    }

    /// Deletes a savepoint. Whatever was started from it has copies of its own; what is still to be read through a [`Savepoint`] is not
    /// there any more.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be deleted.
    pub fn delete_savepoint(&self, flow: &str, name: &str) -> Result<()> {
        self.inner.savepoints.delete(flow, name)
    }
}

impl Engine {
    /// Retires a version of a flow that is deployed but does not run in this process: lets it be over, and frees its state, checkpoints and
    /// output. See [`Deployment::retire`](crate::Deployment::retire), which does so where it runs.
    ///
    /// # Errors
    /// There is no such version, it is live, or something cannot be removed; that is tried again at the next start.
    pub fn retire(&self, flow: &str, version: u64) -> Result<()> {
        self.fleet(flow)?.retire(version)
    }
}

/// That a version of a flow runs in an engine, until dropped.
pub(crate) struct Running {
    engine: Engine,
    flow: FlowId,
}

impl Running {
    fn claim(engine: &Engine, flow: FlowId) -> Result<Running> {
        if engine.inner.running.lock().insert(flow.clone()) {
            return Ok(Running { engine: engine.clone(), flow });
        }
        let problem = format!(
            "version {} is running in this engine already; stop that job first, or give the flow another version or name",
            flow.version
        );
        Err(Error::Flow { flow: flow.name, problem })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.inner.running.lock().remove(&self.flow);
    }
}

/// Processing time, and the monotonic time of the checkpoint protocol, from one reading of the system's clock.
#[derive(Copy, Clone)]
struct Clock {
    started: Instant,
    origin_ms: i64,
}

impl Clock {
    fn start() -> Clock {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { started: Instant::now(), origin_ms: since_epoch.as_millis() as i64 }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.origin_ms + self.monotonic().as_millis() as i64)
    }

    /// How long it is until then; nothing if that is past.
    fn until(&self, then: Timestamp) -> Duration {
        let millis = then.millis().saturating_sub(self.origin_ms);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0)).saturating_sub(self.monotonic())
    }
}

/// Runs a job's attempts one after the other, as the restart strategy says.
struct Supervisor {
    environment: Arc<Environment>,
    shared: Arc<JobShared>,
    wished: Receiver<Wish>,
    clock: Clock,
    /// Where the next attempt begins.
    from: Cell<RestoreFrom>,
    /// Whether the owner has asked the job to stop.
    is_stopping: Cell<bool>,
}

impl Supervisor {
    /// As [`Supervisor::run`]; a panic of a connector on this thread is the job's failure.
    fn run_caught(&self) -> Result<()> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
        outcome.unwrap_or_else(|panic| {
            let failure = format!("panicked: {}", panic_message(&*panic).unwrap_or_default());
            let error = self.environment.error("running", failure);
            self.shared.set_status(Status::Failed { failure: error.to_string() });
            Err(error)
        })
    }

    fn run(&self) -> Result<()> {
        let (flow, version) = (self.environment.flow(), self.environment.plan.version());
        let _job = tracing::info_span!("job", flow, version).entered();
        let (mut failures, mut completed, mut attempts) = (0, 0, 0_u64);
        loop {
            self.shared.set_status(Status::Recovering);
            attempts += 1;
            let attempt = tracing::info_span!("attempt", number = attempts);
            let (error, is_final) = match attempt.in_scope(|| self.attempt()) {
                Over::Well(Outcome::Finished) => return self.over(Status::Finished),
                Over::Well(Outcome::Stopped) => return self.over(Status::Stopped),
                Over::Cancelled => return self.over(Status::Cancelled),
                Over::Again if self.is_stopping.get() => return self.over(Status::Stopped),
                Over::Again => continue,
                Over::Badly { error, is_final } => (error, is_final),
            };
            let progress = self.shared.checkpoints_completed();
            failures = if progress > completed { 1 } else { failures + 1 };
            completed = progress;
            let may_restart = !is_final && !self.is_stopping.get();
            let delay = self.environment.options.restart.delay(failures).filter(|_| may_restart);
            let failure = error.to_string();
            let Some(delay) = delay else {
                tracing::error!(error = failure, "job failed");
                self.shared.set_status(Status::Failed { failure });
                return Err(error);
            };
            tracing::warn!(error = failure, failures, ?delay, "job failed; restarting");
            self.shared.set_status(Status::Restarting { failure, failures });
            if self.stopped_during(delay) {
                self.shared.set_status(Status::Failed { failure: error.to_string() });
                return Err(error);
            }
        }
    }

    fn over(&self, status: Status) -> Result<()> {
        tracing::info!(?status, "job over");
        self.shared.set_status(status);
        Ok(())
    }

    /// Waits, unless the owner wants the job to stop: then answers true.
    fn stopped_during(&self, delay: Duration) -> bool {
        let since = Instant::now();
        loop {
            match self.wished.recv_timeout(delay.saturating_sub(since.elapsed())) {
                Ok(Wish::Stop(_) | Wish::Drain(_) | Wish::Cancel) => return true,
                Ok(Wish::Checkpoint(answer)) => drop(answer.send(Err(WAITING.into()))),
                Ok(Wish::Savepoint { answer, .. }) => drop(answer.send(Err(WAITING.into()))),
                Err(e) => return e.is_disconnected(),
            }
        }
    }

    /// One attempt: its workers on threads, its protocol on this one.
    fn attempt(&self) -> Over {
        let clock = self.clock;
        let monotonic: Monotonic = Arc::new(move || clock.monotonic());
        let (environment, shared) = (Arc::clone(&self.environment), Arc::clone(&self.shared));
        let attempt = Attempt::new(environment, shared, clock.origin_ms, monotonic, self.from.get());
        let mut attempt = match attempt {
            Ok(attempt) => attempt,
            Err(error) => return Over::Badly { error, is_final: false },
        };
        let threads = Threads::default();
        if let Some(over) = attempt.start() {
            return over;
        }
        // The return to an older checkpoint is on record by now: what is stored from here on follows on it.
        self.from.set(RestoreFrom::Latest);
        for seed in attempt.take_seeds() {
            if let Err(error) = threads.spawn(seed, self.clock) {
                return Over::Badly { error, is_final: false };
            }
        }
        let reports = attempt.reports();
        loop {
            let wait = attempt.wake_at().saturating_sub(self.clock.monotonic());
            let over = select! {
                recv(reports) -> report => match report {
                    Ok(report) => attempt.on_report(report),
                    Err(_) => None,
                },
                recv(self.wished) -> wish => match wish {
                    Ok(Wish::Checkpoint(answer)) => attempt.request_checkpoint(answer),
                    Ok(Wish::Savepoint { name, answer }) => {
                        attempt.request_savepoint(LastSavepoint { name, answer })
                    }
                    Ok(Wish::Stop(savepoint)) => {
                        self.is_stopping.set(true);
                        attempt.request_stop(savepoint)
                    }
                    Ok(Wish::Drain(savepoint)) => {
                        self.is_stopping.set(true);
                        attempt.request_drain(savepoint);
                        None
                    }
                    Ok(Wish::Cancel) => Some(Over::Cancelled),
                    Err(_) => None,
                },
                default(wait) => attempt.tick(),
            };
            if let Some(over) = over {
                return over;
            }
        }
    }
}

/// The threads of an attempt's workers. Dropping it stops and joins them: no attempt begins while a worker of the last one lives.
#[derive(Default)]
struct Threads {
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    fn spawn(&self, seed: WorkerSeed, clock: Clock) -> Result<()> {
        let (stop, id) = (Arc::clone(&self.stop), seed.id);
        let span = tracing::info_span!("worker", worker = %id);
        let thread = std::thread::Builder::new()
            .name(format!("rivermark-worker-{id}"))
            .spawn(move || span.in_scope(|| work(seed, clock, &stop)))
            .map_err(|e| Error::engine(format!("starting the thread of worker {id}"), e))?;
        self.threads.lock().push(thread);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.get_mut().drain(..) {
            thread.thread().unpark();
            // A worker catches its panics and reports them.
            let _ = thread.join();
        }
    }
}

/// The life of a worker's thread.
fn work(seed: WorkerSeed, clock: Clock, stop: &AtomicBool) {
    seed.wake.register();
    let (id, reports): (_, Sender<Report>) = (seed.id, seed.reports.clone());
    let shared = Arc::clone(&seed.shared);
    // Connectors are opened there.
    let built = catch_unwind(AssertUnwindSafe(|| seed.build())).unwrap_or_else(|panic| {
        Err(Error::engine(
            format!("building worker {id}"),
            format!("panicked: {}", panic_message(&*panic).unwrap_or_default()),
        ))
    });
    let mut worker = match built {
        Ok(worker) => worker,
        Err(error) => {
            // The attempt hears of the failure unless it is over already.
            let _ = reports.send(Report::Failed { worker: id, error });
            return;
        }
    };
    while !stop.load(Ordering::Relaxed) {
        match worker.step(clock.now()) {
            // Whoever waits for a core waits for a step, and not for as long as the system lets a thread run.
            Step::Busy if shared.offers_cores() => std::thread::yield_now(),
            Step::Busy => {}
            Step::Held => std::thread::park_timeout(HELD_PARK),
            Step::Until(until) => std::thread::park_timeout(clock.until(until).min(IDLE_PARK)),
            Step::Idle => std::thread::park_timeout(IDLE_PARK),
            Step::Done => return,
        }
    }
}
