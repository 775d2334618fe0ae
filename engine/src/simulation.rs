//! Deterministic simulation: a job on one thread, under a seed, with crashes and a faulty checkpoint store.
//!
//! Nothing is mocked: the workers, the exchange, the attempt with its coordinator, the log and the checkpoint store are those that run in
//! production. Only threads, clocks and the disk are the simulation's:
//! 1. A step of the simulation is a step of one worker, the delivery of one report, or the passing of some time; a generator
//!    seeded with [`Simulation::seed`] draws which.
//! 2. A crash is drawn too: between two steps, or in the middle of one, by letting the disk fail from some operation on. What the
//!    process had in memory is gone; of what was not synced, a seeded part survives. The job then starts again, on another number
//!    of workers.
//! 3. The checkpoint store loses requests and replies, performs puts late (also after a crash), and refuses some, as drawn.
//! 4. Every step is added to a trace. The same seed gives the same trace: a failure is repeated by its seed.
//!
//! The idea is FoundationDB's (Zhou et al., SIGMOD 2021, section 4).

use crate::attempt::{Attempt, Monotonic, Over};
use crate::channels::CHANNEL_BATCHES;
use crate::environment::Environment;
use crate::job::JobShared;
use crate::options::Options;
use crate::worker::{Report as WorkerReport, Step, Worker};
use crossbeam_channel::Receiver;
use rivermark_checkpoint::store::{FaultyStore, MemoryStore, Odds};
use rivermark_checkpoint::{Outcome, RestoreFrom, Store};
use rivermark_log::{Clock, Crash, Log, LogOptions, MemoryDisk};
use rivermark_operators::plan::Resources;
use rivermark_operators::{Error, Flow, Result, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Processing time when a simulation begins: 2024-01-01.
const BEGINNING_MS: i64 = 1_704_067_200_000;
/// Steps after which a simulation that has not ended is given up: some are stuck rather than slow.
const STEP_LIMIT: u64 = 5_000_000;

/// A simulation to run; see the module's page.
#[derive(Clone, Debug)]
pub struct Simulation {
    seed: u64,
    crashes: u32,
    workers: Vec<usize>,
    options: Options,
    faults: bool,
    channel_batches: usize,
}

/// What a simulation came to.
#[derive(Debug)]
pub struct Report {
    /// A digest of every step, in order. Equal for equal seeds.
    pub trace: u64,
    /// How many steps there were.
    pub steps: u64,
    /// How often the process crashed.
    pub crashes: u32,
    /// How often the job was started.
    pub attempts: u32,
    /// How many checkpoints were completed.
    pub checkpoints: u64,
    /// The log as it is at the end, to look at the results.
    pub log: Log,
}

impl Simulation {
    /// The simulation of this seed: up to three crashes, one to three workers, a faulty store, a checkpoint every 20 ms of simulated time.
    pub fn seed(seed: u64) -> Simulation {
        let options = Options::new().checkpoint_every(Duration::from_millis(20));
        Simulation {
            seed,
            crashes: 3,
            workers: vec![1, 2, 3],
            options,
            faults: true,
            channel_batches: CHANNEL_BATCHES,
        }
    }

    /// The most crashes. Default: 3.
    pub fn crashes(mut self, most: u32) -> Self {
        self.crashes = most;
        self
    }

    /// The numbers of workers to draw from at every start. Default: 1 to 3.
    ///
    /// # Panics
    /// Without any.
    pub fn workers(mut self, workers: &[usize]) -> Self {
        assert!(!workers.is_empty(), "a job has at least one worker");
        self.workers = workers.to_vec();
        self
    }

    /// The engine's options, apart from the number of workers and the state backend.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Whether the checkpoint store misbehaves. Default: it does.
    pub fn faulty_store(mut self, faults: bool) -> Self {
        self.faults = faults;
        self
    }

    /// How many batches a channel between two workers holds, and an input of a union that waits for a barrier. Default: as many as in production,
    /// which the few records of a simulation seldom fill; with one, backpressure is everywhere.
    ///
    /// # Panics
    /// With none.
    pub fn channel_batches(mut self, batches: usize) -> Self {
        assert!(batches > 0, "a channel holds a batch at least");
        self.channel_batches = batches;
        self
    }

    /// Runs a flow to its end. `prepare` fills the log first, without crashes; `flow` is asked for the flow at every start.
    ///
    /// # Errors
    /// If the job fails for another reason than the simulation's faults, or does not end.
    pub fn run(&self, prepare: impl FnOnce(&Log) -> Result<()>, flow: impl Fn() -> Flow) -> Result<Report> {
        let mut world = World::new(self);
        let log = world.open_log()?;
        prepare(&log)?;
        log.sync().map_err(|e| Error::engine("syncing the simulated log", e))?;
        drop(log);
        loop {
            if let Some(report) = world.live(self, &flow)? {
                return Ok(report);
            }
            world.survive();
        }
    }
}

/// Small, fast and good enough: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Debug)]
struct SimulatedClock(Arc<AtomicI64>);

impl Clock for SimulatedClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When the process of a simulation dies.
#[derive(Copy, Clone, Debug)]
enum Doom {
    /// Not.
    Never,
    /// Before its step of this number.
    BeforeStep(u64),
    /// Within a step: before this operation of the disk, from which on all fail.
    AtOperation(u64),
}

/// What outlives the process: the disk, the checkpoint store, time, and the generator.
struct World {
    random: Random,
    disk: MemoryDisk,
    store: Arc<dyn Store>,
    clock: SimulatedClock,
    crashes_left: u32,
    trace: u64,
    steps: u64,
    attempts: u32,
    crashes: u32,
    checkpoints: u64,
}

impl World {
    fn new(simulation: &Simulation) -> World {
        let mut random = Random(simulation.seed ^ 0x5eed);
        let odds = match simulation.faults {
            true => Odds { refuse: 10, lose_request: 10, lose_reply: 20, delay: 10, slow: 0 },
            false => Odds::default(),
        };
        let crashes_left = random.below(u64::from(simulation.crashes) + 1) as u32;
        World {
            store: Arc::new(FaultyStore::new(MemoryStore::default(), odds, random.next())),
            disk: MemoryDisk::new(),
            clock: SimulatedClock(Arc::new(AtomicI64::new(BEGINNING_MS))),
            crashes_left,
            random,
            trace: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            attempts: 0,
            crashes: 0,
            checkpoints: 0,
        }
    }

    fn open_log(&self) -> Result<Log> {
        let options = LogOptions::new().disk(self.disk.clone()).clock(self.clock.clone());
        Log::open(Path::new("/log"), options).map_err(|e| Error::engine("opening the simulated log", e))
    }

    fn monotonic(&self) -> Monotonic {
        let clock = self.clock.clone();
        Arc::new(move || Duration::from_millis((clock.now_ms() - BEGINNING_MS) as u64))
    }

    fn pass(&mut self, millis: u64) {
        self.clock.0.fetch_add(millis as i64, Ordering::Relaxed);
    }

    /// Adds a step to the trace (FNV-1a).
    fn note(&mut self, what: &[u64]) {
        for byte in what.iter().flat_map(|word| word.to_le_bytes()) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.steps += 1;
    }

    /// The disk as the next process finds it.
    fn survive(&mut self) {
        self.crashes += 1;
        self.crashes_left -= 1;
        let crash = if self.random.below(2) == 0 { Crash::Process } else { Crash::Power(self.random.next()) };
        self.disk = self.disk.after(crash);
        self.pass(1000);
    }

    fn draw_doom(&mut self) -> Doom {
        if self.crashes_left == 0 {
            return Doom::Never;
        }
        // Soon or late alike: the range is drawn too, so that recovery is hit as well as the middle of a long run.
        let range = 1 << (3 + self.random.below(9));
        if self.random.below(2) == 0 {
            return Doom::BeforeStep(self.steps + 1 + self.random.below(range));
        }
        let operation = self.disk.operations() + 1 + self.random.below(range / 4);
        self.disk.cut_power_before(operation);
        Doom::AtOperation(operation)
    }

    /// The life of one process: `None` if it crashed.
    fn live(&mut self, simulation: &Simulation, flow: &impl Fn() -> Flow) -> Result<Option<Report>> {
        let doom = self.draw_doom();
        // Recovery itself may be what the crash hits.
        let log = match self.open_log() {
            Ok(log) => log,
            Err(_) if self.dead(doom) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut failures = 0;
        loop {
            self.attempts += 1;
            let workers = simulation.workers[self.random.below(simulation.workers.len() as u64) as usize];
            let mut resources = Resources::default();
            resources.insert(log.clone());
            let plan = Arc::new(flow().into_plan()?);
            let shared = Arc::new(JobShared::new(&plan, workers));
            let store = Arc::clone(&self.store);
            let mut environment =
                Environment::simulated(plan, &simulation.options, resources, store, workers);
            environment.channel_batches = simulation.channel_batches;
            let over = self.attempt(Arc::new(environment), Arc::clone(&shared), doom)?;
            self.checkpoints += shared.checkpoints_completed();
            if shared.checkpoints_completed() > 0 {
                failures = 0;
            }
            match over {
                None => return Ok(None),
                Some(Over::Well(Outcome::Finished | Outcome::Stopped) | Over::Cancelled) => break,
                Some(Over::Badly { .. }) if self.dead(doom) => return Ok(None),
                Some(Over::Again) => {}
                // The store's faults may fail a job; that it gets on between them is what is tested.
                Some(Over::Badly { .. }) if failures < 50 => failures += 1,
                Some(Over::Badly { error, .. }) => return Err(error),
            }
            self.pass(100);
        }
        Ok(Some(Report {
            trace: self.trace,
            steps: self.steps,
            crashes: self.crashes,
            attempts: self.attempts,
            checkpoints: self.checkpoints,
            log,
        }))
    }

    /// Whether the process is dead by now.
    fn dead(&self, doom: Doom) -> bool {
        match doom {
            Doom::Never => false,
            Doom::BeforeStep(step) => self.steps >= step,
            Doom::AtOperation(operation) => self.disk.operations() >= operation,
        }
    }

    /// One attempt: `None` if the process died in it.
    fn attempt(
        &mut self,
        environment: Arc<Environment>,
        shared: Arc<JobShared>,
        doom: Doom,
    ) -> Result<Option<Over>> {
        let mut attempt =
            match Attempt::new(environment, shared, BEGINNING_MS, self.monotonic(), RestoreFrom::Latest) {
                Ok(attempt) => attempt,
                Err(error) => return Ok(Some(Over::Badly { error, is_final: false })),
            };
        if let Some(over) = attempt.start() {
            return Ok(Some(over));
        }
        let mut workers: Vec<Worker> = Vec::new();
        for seed in attempt.take_seeds() {
            match seed.build() {
                Ok(worker) => workers.push(worker),
                Err(error) => return Ok(Some(Over::Badly { error, is_final: false })),
            }
        }
        let reports = attempt.reports();
        loop {
            if self.dead(doom) {
                return Ok(None);
            }
            if self.steps > STEP_LIMIT {
                return Err(Error::engine("simulating", format!("no end after {STEP_LIMIT} steps")));
            }
            if let Some(over) = self.step(&mut attempt, &mut workers, &reports) {
                return Ok(Some(over));
            }
        }
    }

    /// One step: of a worker, of the attempt, or of time.
    fn step(
        &mut self,
        attempt: &mut Attempt,
        workers: &mut [Worker],
        reports: &Receiver<WorkerReport>,
    ) -> Option<Over> {
        let drawn = self.random.below(100);
        match drawn {
            0..80 => {
                let at = self.random.below(workers.len() as u64) as usize;
                let step = workers[at].step(Timestamp::from_millis(self.clock.now_ms()));
                let code = match step {
                    Step::Busy => 0,
                    Step::Idle => 1,
                    Step::Held => 2,
                    Step::Done => 3,
                    Step::Until(_) => 4,
                };
                self.note(&[1, at as u64, code]);
                None
            }
            80..95 => {
                let report = reports.try_recv();
                self.note(&[2, u64::from(report.is_ok())]);
                report.ok().and_then(|report| attempt.on_report(report))
            }
            _ => {
                let millis = self.random.below(10);
                self.pass(millis);
                self.note(&[3, millis]);
                attempt.tick()
            }
        }
    }
}
