//! One attempt to run a job: from fencing the ones before it to its end or failure.
//!
//! The attempt is the acting half of the checkpoint protocol: [`rivermark_checkpoint::Coordinator`] decides, the attempt performs.
//! It blocks on the store and on sinks' commits, which is why it has a thread of its own in the engine; workers never wait for
//! it. In a simulation it is called between the workers' steps.
//!
//! Nothing is remembered from one attempt to the next but what the store says.

use crate::channels::{Channels, Wake};
use crate::deployment::ends_of;
use crate::earlier::Earlier;
use crate::endings::Endings;
use crate::environment::{Environment, WorkerSeed};
use crate::job::{JobShared, LastSavepoint};
use crate::metrics::{CheckpointMetrics, FailedCheckpoint};
use crate::parts::{self, Uploaded};
use crate::stops::Stops;
use crate::worker::{Command, Report};
use crossbeam_channel::{Receiver, Sender, unbounded};
use rivermark_checkpoint::{
    Action, BarrierKind, Checkpoints, Coordinator, Epoch, Event, Failure, Generation, Manifest, Outcome,
    Prepared, RestoreFrom, StoreReply, TaskId, Writer,
};
use rivermark_log::Log;
use rivermark_operators::partitions::{PartitionEntry, Partitions, Remembered};
use rivermark_operators::sink::{CommitError, Committer, SinkContext, WrittenTopic};
use rivermark_operators::source::SourcePartition;
use rivermark_operators::{Error, Result, Timestamp};
use rivermark_state::StateError;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a job that is to begin nothing by itself looks whether it still is.
const QUIET: Duration = Duration::from_millis(5);

/// Monotonic time since some moment, as the attempt's owner tells it.
pub(crate) type Monotonic = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How an attempt is over.
pub(crate) enum Over {
    /// The job is done.
    Well(Outcome),
    /// It came to where a run of an earlier version had ended: another attempt goes on from there.
    Again,
    /// Its owner wanted no more of it.
    Cancelled,
    /// It failed; another attempt may do better, unless it is final.
    Badly {
        /// Why.
        error: Error,
        /// Whether trying again is pointless: another process runs the flow, or it cannot run as it is described.
        is_final: bool,
    },
}

/// Whether a flow cannot run as it is described, and so will not the next time either.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Flow { .. } => true,
        Error::State { source, .. } => {
            use StateError::{Gone, Layout, Schema, Undeclared, Version};
            matches!(
                source.downcast_ref(),
                Some(Gone { .. } | Layout { .. } | Schema { .. } | Undeclared { .. } | Version { .. })
            )
        }
        _ => false,
    }
}

impl Over {
    /// The same, final if told so.
    fn or_final(self, told: bool) -> Over {
        match self {
            Over::Badly { error, is_final } => Over::Badly { error, is_final: is_final || told },
            other => other,
        }
    }
}

/// The attempt; see the module's page.
pub(crate) struct Attempt {
    environment: Arc<Environment>,
    shared: Arc<JobShared>,
    origin_ms: i64,
    clock: Monotonic,
    /// Which checkpoint to begin from.
    from: RestoreFrom,
    /// Whether that is not the newest.
    rewound: bool,
    coordinator: Coordinator,
    checkpoints: Checkpoints,
    /// The right to store as this generation, once it is fenced.
    writer: Option<Arc<Writer>>,
    generation: Generation,
    partitions: Arc<Partitions>,
    /// For partitions that are read from their beginning.
    earlier: Earlier,
    /// Where to begin each partition, until it has been assigned.
    positions: HashMap<u16, Vec<u8>>,
    committers: HashMap<Arc<str>, Box<dyn Committer>>,
    commands: Vec<Sender<Command>>,
    wakes: Vec<Wake>,
    reports: (Sender<Report>, Receiver<Report>),
    /// Workers to be built, from the moment the checkpoint is read until the runner takes them.
    seeds: Vec<WorkerSeed>,
    /// The first failure, with its type; the coordinator knows only its words.
    failure: Option<Error>,
    took: HashMap<Epoch, Taking>,
    uploaded: Uploaded,
    /// The newest stored epoch: from then on its files need not be kept locally.
    stored: Arc<AtomicU64>,
    /// The newest manifest that this attempt has stored.
    newest: Option<Arc<Manifest>>,
    answers: HashMap<u64, Answer>,
    /// Savepoints of the end, and which end.
    at_end: Vec<(Outcome, LastSavepoint)>,
    draining: Draining,
    endings: Endings,
    /// Whether the sources have ended where a run of an earlier version had.
    has_repeated: bool,
    /// Whether another attempt is to go on behind this one's end.
    goes_on: bool,
    /// Whether the owner has asked the job to stop.
    is_stopping: bool,
    /// Whether the workers have been started.
    is_running: bool,
    next_request: u64,
    next_discovery: Duration,
    ending: Option<(Outcome, usize)>,
}

/// Who waits for a checkpoint.
enum Answer {
    Checkpoint(Sender<Result<Epoch, String>>),
    /// And wants to keep it.
    Savepoint(LastSavepoint),
}

/// Whether the sources have been told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Draining {
    No,
    /// As soon as they run.
    Wanted,
    Told,
}

/// What is measured about a checkpoint while it is taken.
struct Taking {
    begun: Duration,
    stored: Option<Duration>,
    state_bytes: u64,
    uploaded_bytes: u64,
}

impl Attempt {
    pub(crate) fn new(
        environment: Arc<Environment>,
        shared: Arc<JobShared>,
        origin_ms: i64,
        clock: Monotonic,
        from: RestoreFrom,
    ) -> Result<Attempt> {
        let coordinator = environment.coordinator(origin_ms);
        let checkpoints = environment.open_checkpoints()?;
        Ok(Attempt {
            environment,
            shared,
            origin_ms,
            clock,
            from,
            rewound: false,
            coordinator,
            checkpoints,
            writer: None,
            generation: Generation::default(),
            partitions: Arc::default(),
            earlier: Earlier::default(),
            positions: HashMap::new(),
            committers: HashMap::new(),
            commands: Vec::new(),
            wakes: Vec::new(),
            reports: unbounded(),
            seeds: Vec::new(),
            failure: None,
            took: HashMap::new(),
            uploaded: Uploaded::default(),
            stored: Arc::default(),
            newest: None,
            answers: HashMap::new(),
            at_end: Vec::new(),
            draining: Draining::No,
            endings: Endings::default(),
            has_repeated: false,
            goes_on: false,
            is_stopping: false,
            is_running: false,
            next_request: 0,
            next_discovery: Duration::ZERO,
            ending: None,
        })
    }

    /// Fences, reads the checkpoint and prepares the workers, which [`Attempt::take_seeds`] then gives.
    pub(crate) fn start(&mut self) -> Option<Over> {
        self.hear(Event::Start)
    }

    /// The workers to build and run; each once.
    pub(crate) fn take_seeds(&mut self) -> Vec<WorkerSeed> {
        std::mem::take(&mut self.seeds)
    }

    /// Where the workers' reports arrive.
    pub(crate) fn reports(&self) -> Receiver<Report> {
        self.reports.1.clone()
    }

    /// When [`Attempt::tick`] is due.
    pub(crate) fn wake_at(&self) -> Duration {
        if self.shared.is_quiet() {
            return (self.clock)() + QUIET;
        }
        self.coordinator.wake_at().map_or(self.next_discovery, |at| at.min(self.next_discovery))
    }

    /// Lets time pass: periodic checkpoints, time-outs, discovery of partitions.
    pub(crate) fn tick(&mut self) -> Option<Over> {
        if self.shared.is_quiet() {
            return None;
        }
        let now = (self.clock)();
        if !self.commands.is_empty()
            && now >= self.next_discovery
            && self.seeds.is_empty()
            && self.draining == Draining::No
            && !self.endings.have_all()
        {
            self.next_discovery = now + self.environment.options.discovery_interval;
            if let Err(error) = self.discover() {
                return self.fail(error);
            }
        }
        self.hear(Event::Tick)
    }

    /// Asks for a checkpoint now; the answer goes to `answer`.
    pub(crate) fn request_checkpoint(&mut self, answer: Sender<Result<Epoch, String>>) -> Option<Over> {
        self.next_request += 1;
        self.answers.insert(self.next_request, Answer::Checkpoint(answer));
        self.hear(Event::CheckpointRequested { request: self.next_request })
    }

    /// Asks for a checkpoint now, to be kept under a name.
    pub(crate) fn request_savepoint(&mut self, savepoint: LastSavepoint) -> Option<Over> {
        self.next_request += 1;
        self.answers.insert(self.next_request, Answer::Savepoint(savepoint));
        self.hear(Event::CheckpointRequested { request: self.next_request })
    }

    /// Asks for a last checkpoint, to be kept if there is a name for it, and the end of the job.
    pub(crate) fn request_stop(&mut self, savepoint: Option<LastSavepoint>) -> Option<Over> {
        self.next_request += 1;
        self.is_stopping = true;
        self.at_end.extend(savepoint.map(|savepoint| (Outcome::Stopped, savepoint)));
        self.hear(Event::StopRequested { request: self.next_request })
    }

    /// Lets the sources end where they stand; the job then ends as any whose sources have ended.
    pub(crate) fn request_drain(&mut self, savepoint: Option<LastSavepoint>) {
        self.at_end.extend(savepoint.map(|savepoint| (Outcome::Finished, savepoint)));
        if self.draining == Draining::No {
            self.draining = Draining::Wanted;
            self.drain_if_running();
        }
    }

    fn drain_if_running(&mut self) {
        if self.is_running && self.draining == Draining::Wanted {
            self.draining = Draining::Told;
            self.send_all(|| Command::Drain);
        }
    }

    /// Hears what a worker says.
    pub(crate) fn on_report(&mut self, report: Report) -> Option<Over> {
        let event = match report {
            Report::Restored { worker } => Event::Restored { task: worker },
            Report::SourcesEnded { worker, taken } => {
                let workers = self.commands.len();
                return match self.endings.end(worker, taken) {
                    true => {
                        (0..workers).find_map(|task| self.hear(Event::Finished { task: TaskId(task as u32) }))
                    }
                    false => None,
                };
            }
            Report::Acknowledged { worker, epoch, parts } => {
                let writer = Arc::clone(self.writer());
                match self.uploaded.upload(
                    &writer,
                    &self.checkpoints,
                    &self.partitions,
                    worker,
                    epoch,
                    *parts,
                ) {
                    Ok(uploaded) => {
                        if let Some(taking) = self.took.get_mut(&epoch) {
                            taking.state_bytes += uploaded.state_bytes;
                            taking.uploaded_bytes += uploaded.uploaded_bytes;
                        }
                        Event::Acknowledged { task: worker, epoch, parts: uploaded.parts }
                    }
                    Err(error) => return self.fail(error),
                }
            }
            // The coordinator is done and hears no more; its last epoch is committed, so a new attempt finds nothing left to do.
            Report::Failed { error, .. } if self.ending.is_some() => return self.fail(error),
            Report::Failed { worker, error } => {
                let reason = error.to_string();
                self.failure.get_or_insert(error);
                Event::Failed { task: worker, reason }
            }
            Report::Ended => {
                let (outcome, left) = self.ending.take()?;
                if left == 1 {
                    return Some(if self.goes_on { Over::Again } else { Over::Well(outcome) });
                }
                self.ending = Some((outcome, left - 1));
                return None;
            }
        };
        self.hear(event)
    }

    /// Lets the coordinator hear an event, performs what it decides, and goes on with what comes of that.
    fn hear(&mut self, event: Event) -> Option<Over> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let now = (self.clock)();
            for action in self.coordinator.step(now, event) {
                match self.perform(now, action, &mut events) {
                    Ok(None) => {}
                    Ok(over) => return over,
                    Err(error) => return self.fail(error),
                }
            }
        }
        None
    }

    /// The attempt failed outside the coordinator.
    fn fail(&mut self, error: Error) -> Option<Over> {
        // Whoever asked may have stopped waiting.
        for (_, answer) in self.answers.drain() {
            let _ = match answer {
                Answer::Checkpoint(answer) => answer.send(Err(error.to_string())).is_ok(),
                Answer::Savepoint(savepoint) => savepoint.answer.send(Err(error.to_string())).is_ok(),
            };
        }
        for (_, savepoint) in self.at_end.drain(..) {
            let _ = savepoint.answer.send(Err(error.to_string()));
        }
        let error = self.failure.take().unwrap_or(error);
        // What is stored already is committed by the next attempt.
        let unstored: Vec<Epoch> =
            self.took.iter().filter(|(_, taking)| taking.stored.is_none()).map(|(epoch, _)| *epoch).collect();
        unstored.into_iter().for_each(|epoch| self.note_failed(epoch, &format!("the job failed: {error}")));
        let is_final = is_final(&error);
        Some(Over::Badly { error, is_final })
    }

    fn perform(&mut self, now: Duration, action: Action, events: &mut Vec<Event>) -> Result<Option<Over>> {
        match action {
            Action::Fence => events.push(self.fence()),
            Action::Read => events.push(self.read()),
            Action::Restore { generation, checkpoint } => {
                let epoch = checkpoint.as_ref().map_or(Epoch(0), |manifest| manifest.epoch);
                let span = tracing::info_span!("restore", %generation, %epoch);
                span.in_scope(|| self.restore(generation, checkpoint))?;
            }
            Action::Run => {
                self.next_discovery = now + self.environment.options.discovery_interval;
                self.send_all(|| Command::Start);
                self.is_running = true;
                self.drain_if_running();
                self.shared.set_status(crate::job::Status::Running);
            }
            Action::Inject { epoch, kind } => {
                let taking = Taking { begun: now, stored: None, state_bytes: 0, uploaded_bytes: 0 };
                self.took.insert(epoch, taking);
                let last = kind != BarrierKind::Checkpoint;
                let has_come = kind == BarrierKind::Final && self.draining == Draining::No;
                if has_come && self.partitions.repeats_an_end() && !self.has_repeated {
                    self.has_repeated = true;
                    self.uploaded.stops.has_come();
                }
                self.send_all(|| Command::Barrier { epoch, last });
            }
            Action::Cancel { epoch, reason } => {
                tracing::warn!(%epoch, reason, "checkpoint given up");
                self.note_failed(epoch, &reason);
                self.send_all(|| Command::Cancel { epoch });
            }
            Action::Store { manifest } => {
                let span = tracing::debug_span!("store", epoch = %manifest.epoch);
                let reply = span.in_scope(|| self.store(&manifest));
                if reply == StoreReply::Stored {
                    self.newest = Some(Arc::clone(&manifest));
                    self.shared.board.stored(&manifest, &self.checkpoints);
                    self.stored.store(manifest.epoch.0, Ordering::Release);
                    let now = (self.clock)();
                    if let Some(taking) = self.took.get_mut(&manifest.epoch) {
                        taking.stored = Some(now);
                    }
                }
                events.push(Event::StoreReplied { epoch: manifest.epoch, reply });
            }
            Action::Commit { task, epoch, tokens } => {
                let span = tracing::debug_span!("commit", %epoch, %task);
                events.push(span.in_scope(|| self.commit(task, epoch, tokens)));
            }
            Action::Completed { epoch } => self.completed(epoch),
            Action::Answer { request, outcome } => {
                // Whoever asked may have stopped waiting.
                match (self.answers.remove(&request), outcome) {
                    (Some(Answer::Checkpoint(answer)), outcome) => drop(answer.send(outcome)),
                    (Some(Answer::Savepoint(savepoint)), Ok(epoch)) => self.keep(savepoint, epoch),
                    (Some(Answer::Savepoint(savepoint)), Err(reason)) => {
                        drop(savepoint.answer.send(Err(reason)));
                    }
                    (None, _) => {}
                }
            }
            Action::Done { outcome } => {
                // An earlier version went on from there. Whoever asked for an end has it now.
                self.goes_on = self.has_repeated
                    && outcome == Outcome::Finished
                    && self.draining == Draining::No
                    && !self.is_stopping;
                if !self.goes_on {
                    self.keep_the_last(outcome);
                }
                self.ending = Some((outcome, self.commands.len()));
                self.send_all(|| Command::End);
            }
            Action::Fail { failure } => {
                let is_fenced = matches!(failure, Failure::Fenced { .. });
                let error = self.environment.error("running", failure);
                return Ok(self.fail(error).map(|over| over.or_final(is_fenced)));
            }
        }
        Ok(None)
    }

    fn fence(&mut self) -> Event {
        let kept = NonZeroUsize::new(self.environment.options.checkpoints_kept).unwrap_or(NonZeroUsize::MIN);
        match self.checkpoints.fence(&self.environment.owner, self.origin_ms, kept) {
            Ok(writer) => {
                let generation = writer.generation();
                self.writer = Some(Arc::new(writer));
                Event::Fenced { generation }
            }
            Err(e) => Event::RecoveryFailed { reason: e.to_string() },
        }
    }

    /// Stores a manifest, once everything that it points to is durable.
    fn store(&mut self, manifest: &Manifest) -> StoreReply {
        match self.environment.sync_sources().and_then(|()| self.sync_sinks(manifest)) {
            Ok(()) => self.writer().store(manifest),
            Err(error) => StoreReply::Refused { reason: error.to_string() },
        }
    }

    fn sync_sinks(&mut self, manifest: &Manifest) -> Result<()> {
        for (sink, prepared) in &manifest.sinks {
            // That the flow has no such sink is said at the commit.
            let Some(committer) = self.committers.get_mut(&**sink) else { continue };
            let tokens: Vec<Vec<u8>> = prepared.iter().map(|prepared| prepared.token.0.clone()).collect();
            let attempt = "making durable what the checkpoint is to commit";
            committer.sync(&tokens).map_err(|e| Error::sink(sink, attempt, e))?;
        }
        Ok(())
    }

    fn writer(&self) -> &Arc<Writer> {
        self.writer.as_ref().expect("the coordinator fences before anything else")
    }

    fn read(&mut self) -> Event {
        match self.writer().read(self.from) {
            Ok(recovered) => {
                self.rewound = recovered.rewound;
                Event::Recovered { checkpoint: recovered.checkpoint, next_epoch: recovered.next_epoch }
            }
            Err(e) => Event::RecoveryFailed { reason: e.to_string() },
        }
    }

    /// Takes the sinks over, lays out the partitions and makes the workers' seeds.
    fn restore(&mut self, generation: Generation, checkpoint: Option<Arc<Manifest>>) -> Result<()> {
        self.generation = generation;
        self.environment.check_compatible(checkpoint.as_deref())?;
        self.recover_sinks(checkpoint.as_deref())?;
        if let Some(manifest) = &checkpoint {
            self.shared.board.stored(manifest, &self.checkpoints);
            self.uploaded.restored(manifest)?;
        }
        self.partitions = Arc::default();
        self.shared.set_partitions(Arc::clone(&self.partitions));
        self.shared.restore_counters(checkpoint.as_deref());
        self.shared.set_committed(checkpoint.clone());
        self.uploaded.stops = self.read_earlier(checkpoint.as_deref())?;
        for restored in parts::restored_partitions(checkpoint.as_deref(), &self.checkpoints)? {
            let parts::RestoredPartition { source, number, name, position, remembered, .. } = restored;
            if self.environment.plan.drops_source(&source) {
                self.partitions.add_dropped(source, number, name, remembered, position);
                continue;
            }
            let earlier = self.earlier.take(&source, number, &name);
            let known = self.partitions.add(source, number, name, remembered, earlier);
            self.positions.insert(known.index, position);
        }
        let workers = self.environment.workers();
        self.wakes = (0..workers).map(|_| Wake::default()).collect();
        self.shared.set_wakes(self.wakes.clone());
        self.endings = Endings::of(workers);
        let batches = self.environment.channel_batches;
        let channels = Channels::connect(self.environment.plan.exchanges(), &self.wakes, batches);
        for (index, channels) in channels.into_iter().enumerate() {
            let (commands, obeys) = unbounded();
            self.commands.push(commands);
            self.seeds.push(WorkerSeed {
                id: TaskId(index as u32),
                generation,
                environment: Arc::clone(&self.environment),
                shared: Arc::clone(&self.shared),
                checkpoints: self.checkpoints.clone(),
                stored: Arc::clone(&self.stored),
                checkpoint: checkpoint.clone(),
                rewound: self.rewound,
                partitions: Arc::clone(&self.partitions),
                channels,
                commands: obeys,
                reports: self.reports.0.clone(),
                wake: self.wakes[index].clone(),
            });
        }
        self.find_stops()?;
        self.discover()?;
        self.partitions.set_known();
        for partition in self.partitions.all() {
            if self.positions.contains_key(&partition.index) {
                self.assign(partition);
            }
        }
        Ok(())
    }

    fn recover_sinks(&mut self, checkpoint: Option<&Manifest>) -> Result<()> {
        for (name, committer) in self.environment.plan.committers() {
            let Some(connector) = self.environment.sink(name) else { continue };
            let context = SinkContext { connector, worker: 0, generation: self.generation.0 };
            let opened =
                committer.open(&context).map_err(|e| Error::sink(name, "opening the committer", e))?;
            let committer = self.committers.entry(Arc::clone(name)).or_insert(opened);
            let prepared = checkpoint.and_then(|manifest| manifest.sinks.get(&**name));
            let tokens: Vec<Vec<u8>> = prepared.into_iter().flatten().map(|p| p.token.0.clone()).collect();
            let attempt =
                format!("committing what the last checkpoint holds, as generation {}", self.generation);
            committer.recover(&tokens).map_err(|e| Error::sink(name, attempt, e))?;
        }
        Ok(())
    }

    /// Finds partitions that the table does not have yet, and has them read from the source's configured start. Those that an earlier version
    /// read have the order that they had there, in which it may have found some of them late: records of the same time are taken in that order.
    fn discover(&mut self) -> Result<()> {
        let known: HashMap<(Arc<str>, u32), Arc<PartitionEntry>> =
            self.partitions.all().into_iter().map(|p| ((Arc::clone(&p.source), p.number), p)).collect();
        let environment = Arc::clone(&self.environment);
        let mut appeared = Vec::new();
        for (name, source) in environment.plan.sources() {
            let found = source
                .partitions(&environment.connector(name))
                .map_err(|e| Error::source(name, "listing its partitions", e))?;
            for partition in found {
                let is_of_the_stop =
                    self.uploaded.stops.place(name, partition.number, &partition.name).is_some();
                if !is_of_the_stop || !environment.reads(name, partition.number) {
                    continue;
                }
                if let Some(entry) = known.get(&(Arc::clone(name), partition.number)) {
                    environment.check_same(entry, &partition.name)?;
                } else {
                    appeared.push((Arc::clone(name), partition));
                }
            }
        }
        environment.check_partitions(known.len() + appeared.len())?;
        appeared.sort_by_key(|(source, partition)| {
            self.earlier.place(source, partition.number, &partition.name).unwrap_or(usize::MAX)
        });
        for (source, SourcePartition { number, name }) in appeared {
            let earlier = self.earlier.take(&source, number, &name);
            let begins = environment.begins(&source, number);
            let entry = self.partitions.add(source, number, name, Remembered::default(), earlier);
            self.positions.extend(begins.map(|position| (entry.index, position)));
            self.assign(entry);
        }
        Ok(())
    }

    /// Reads what there is to repeat of an earlier version, as far as that may be of use, and answers the ends that the flow knows of.
    fn read_earlier(&mut self, checkpoint: Option<&Manifest>) -> Result<Stops> {
        let mut stops = checkpoint.map(Stops::of).transpose()?.unwrap_or_default();
        let repeats = self.environment.repeats.is_some();
        let is_needed = checkpoint.is_none()
            || self.environment.plan.keeps_journals()
            || !stops.ahead.is_empty()
            || repeats;
        // Partitions that appear behind an end which was repeated are read from their beginning too.
        let may_be_of_use = checkpoint.is_some_and(|manifest| manifest.is_end);
        let wanted = is_needed || may_be_of_use;
        let read = if wanted { Earlier::read(&self.environment) } else { Ok(Earlier::default()) };
        self.earlier = match read {
            Err(error) if !is_needed => {
                tracing::warn!(%error, "an earlier version's decisions about partitions that are new cannot be repeated");
                Earlier::default()
            }
            earlier => earlier?,
        };
        Ok(match checkpoint {
            // A savepoint knows of no ends behind it.
            Some(manifest) if repeats => {
                stops.set_ahead(manifest, std::mem::take(&mut self.earlier.stops));
                stops
            }
            Some(_) => stops,
            None => Stops::behind(std::mem::take(&mut self.earlier.stops)),
        })
    }

    /// Finds out whether there is an end to repeat.
    fn find_stops(&mut self) -> Result<()> {
        if self.uploaded.stops.ahead.is_empty() {
            return Ok(());
        }
        let environment = Arc::clone(&self.environment);
        let mut found = Vec::new();
        for (name, source) in environment.plan.sources() {
            let partitions = source.partitions(&environment.connector(name));
            let listed = partitions.map_err(|e| Error::source(name, "listing its partitions", e))?;
            found.push((Arc::clone(name), listed));
        }
        if self.uploaded.stops.begin(environment.flow(), &found) {
            tracing::info!(
                ahead = self.uploaded.stops.ahead.len(),
                "repeats where runs of an earlier version have ended"
            );
            self.partitions.set_repeats_an_end();
        }
        Ok(())
    }

    fn assign(&mut self, partition: Arc<PartitionEntry>) {
        self.uploaded.stops.apply(&partition);
        let worker = usize::from(partition.index) % self.commands.len();
        let position = self.positions.remove(&partition.index);
        self.endings.give(worker);
        self.send(worker, Command::Assign { partition, position });
    }

    fn send(&self, worker: usize, command: Command) {
        // A worker that is gone has reported its failure, which ends the attempt.
        let _ = self.commands[worker].send(command);
        self.wakes[worker].wake();
    }

    fn send_all(&self, command: impl Fn() -> Command) {
        (0..self.commands.len()).for_each(|worker| self.send(worker, command()));
    }

    /// Commits one worker's tokens of a stored epoch, sink by sink.
    fn commit(&mut self, task: TaskId, epoch: Epoch, tokens: Vec<(String, Prepared)>) -> Event {
        let mut by_sink: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (sink, prepared) in tokens {
            by_sink.entry(sink).or_default().push(prepared.token.0);
        }
        for (sink, tokens) in by_sink {
            let Some(committer) = self.committers.get_mut(&*sink) else {
                let reason = format!("the checkpoint has output of sink `{sink}`, which the flow has not");
                return Event::CommitRefused { task, epoch, reason };
            };
            match committer.commit(epoch, &tokens) {
                Ok(()) => {}
                Err(e @ CommitError::Refused(_)) => {
                    return Event::CommitRefused { task, epoch, reason: format!("sink `{sink}`: {e}") };
                }
                Err(e @ CommitError::Unknown(_)) => {
                    return Event::CommitFailed { task, epoch, reason: format!("sink `{sink}`: {e}") };
                }
            }
        }
        Event::Committed { task, epoch }
    }

    /// Makes a savepoint of a checkpoint that is committed everywhere and is the newest, so that its files are not collected meanwhile.
    fn keep(&self, savepoint: LastSavepoint, epoch: Epoch) {
        let LastSavepoint { name, answer } = savepoint;
        let manifest = self.newest.as_deref().filter(|manifest| manifest.epoch == epoch);
        let taken = match manifest {
            Some(manifest) => {
                // This thread commits, so nothing has followed.
                let manifest = Manifest { output_ends: self.output_ends(), ..manifest.clone() };
                let taken = self.environment.savepoints.take(&name, &self.checkpoints, &manifest);
                taken.map_err(|e| format!("checkpoint {epoch} is stored and committed, yet not kept: {e}"))
            }
            None => Err(format!("checkpoint {epoch} is not the newest any more")),
        };
        match &taken {
            Ok(savepoint) => tracing::info!(%savepoint, %epoch, "savepoint taken"),
            Err(reason) => tracing::warn!(savepoint = name, reason, "savepoint not taken"),
        }
        // Whoever asked may have stopped waiting.
        let _ = answer.send(taken);
    }

    /// Where the topics end that the flow writes. Those that cannot be read are left out.
    fn output_ends(&self) -> BTreeMap<String, Vec<u64>> {
        let Some(log) = self.environment.resources.get::<Log>() else { return BTreeMap::new() };
        let written = self.environment.written_topics().into_values();
        let ends = |written: WrittenTopic| Some((written.topic.clone(), ends_of(log, &written.topic).ok()?));
        written.filter_map(ends).collect()
    }

    fn keep_the_last(&mut self, outcome: Outcome) {
        let last = self.newest.as_ref().map_or(Epoch(0), |manifest| manifest.epoch);
        for (wanted, savepoint) in std::mem::take(&mut self.at_end) {
            // A flow whose sources have ended is more than stopped.
            if (wanted, outcome) == (Outcome::Finished, Outcome::Stopped) {
                let _ = savepoint.answer.send(Err("the job was stopped before it was drained".into()));
            } else {
                self.keep(savepoint, last);
            }
        }
    }

    fn by_the_clock(&self, at: Duration) -> Timestamp {
        Timestamp::from_millis(
            self.origin_ms.saturating_add(i64::try_from(at.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// Counts a checkpoint that came to nothing.
    fn note_failed(&mut self, epoch: Epoch, reason: &str) {
        let Some(taking) = self.took.remove(&epoch) else { return };
        let now = (self.clock)();
        self.shared.checkpoint_failed(FailedCheckpoint {
            epoch,
            failed_at: self.by_the_clock(now),
            duration: now.saturating_sub(taking.begun),
            reason: reason.to_owned(),
        });
    }

    fn completed(&mut self, epoch: Epoch) {
        if let Some(manifest) = self.newest.as_ref().filter(|manifest| manifest.epoch == epoch) {
            self.shared.set_committed(Some(Arc::clone(manifest)));
        }
        let Some(taking) = self.took.remove(&epoch) else { return };
        let Taking { begun, stored, state_bytes, uploaded_bytes } = taking;
        let stored = stored.unwrap_or(begun);
        let duration = stored.saturating_sub(begun);
        tracing::debug!(%epoch, ?duration, state_bytes, uploaded_bytes, "checkpoint completed");
        self.shared.checkpoint_completed(CheckpointMetrics {
            epoch,
            stored_at: self.by_the_clock(stored),
            duration,
            state_bytes,
            uploaded_bytes,
        });
        if !self.shared.board.may_collect(self.environment.options.checkpoints_kept) {
            return;
        }
        if let Err(error) = self.writer().collect() {
            tracing::warn!(%error, "old checkpoints could not be removed; tried again after the next");
        }
    }
}
