//! A process: the real coordinator, a driver and tasks.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rivermark_checkpoint::history::{Append, Call, Entry, Fenced, Fencing, Next, Reply, Slot};
use rivermark_checkpoint::{
    Action, Blob, Coordinator, Epoch, Event, Failure, Generation, Job, Manifest, Options, PartitionState,
    Parts, Prepared, SourcePart, StoreReply, TaskId,
};

use super::sinks::{Output, Sinks};
use super::world::History;
use super::{Draft, Scope};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    pub coordinator: Coordinator,
    pub alive: bool,
    pub done: bool,
    pub fenced: Option<Fenced>,
    /// The call that the store has yet to answer.
    pub io: Option<Io>,
    /// The slot that it put last, for the draft that trusts in it.
    pub claiming: Option<Slot>,
    /// The slot for the next manifest.
    next: Slot,
    pub tasks: Vec<Task>,
    /// The newest checkpoint that this process stored or restored.
    remembered: Option<Arc<Manifest>>,
    /// The epoch restored, once it is.
    pub restored: Option<Option<Epoch>>,
    /// The slot of that checkpoint.
    newest: Slot,
    /// Slots below that one, for deletion.
    pub expired: Vec<Slot>,
    /// Epochs cancelled, for the draft that aborts their output.
    pub cancelled: Vec<Epoch>,
    restarts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Io {
    Fence(Fencing, Call),
    Read,
    Store(Epoch, Append, Call, Arc<Manifest>),
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    pub inbox: VecDeque<Message>,
    /// Records read.
    position: u8,
    /// Records in prepared output.
    prepared: u8,
    /// Output prepared for an epoch that was not acknowledged.
    owed: Vec<Prepared>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    Restore(Generation, Option<Arc<Manifest>>),
    Inject(Epoch),
    Commit(Epoch, Vec<Prepared>),
}

/// How a task takes a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Take {
    Acknowledge,
    /// Without having prepared anything.
    Decline,
    /// After having prepared its output.
    DeclinePrepared,
}

fn job(workers: u32) -> Job {
    let workers = NonZeroU32::new(workers).unwrap();
    Job { flow: "f".to_owned(), version: 1, workers, key_groups: 1, origin_ms: 0 }
}

impl Process {
    pub fn start(scope: Scope, number: usize) -> Self {
        let never = Duration::from_secs(1_000);
        let options = Options {
            // Epochs follow each other without pause, and so do repetitions.
            interval: Some(Duration::ZERO),
            min_pause: Duration::ZERO,
            min_retry: Duration::ZERO,
            tolerated_failures: 99,
            timeout: never,
            max_retry: never,
            store_timeout: never,
            commit_timeout: never,
        };
        let mut process = Self {
            coordinator: Coordinator::new(job(scope.tasks), options),
            alive: true,
            done: false,
            fenced: None,
            io: None,
            claiming: None,
            next: 0,
            tasks: vec![Task::default(); scope.tasks as usize],
            remembered: None,
            restored: None,
            newest: 0,
            expired: Vec::new(),
            cancelled: Vec::new(),
            restarts: 0,
        };
        process.hear(Event::Start, scope, number);
        process
    }

    pub fn generation(&self) -> Generation {
        self.fenced.map_or(Generation(0), |fenced| fenced.generation)
    }

    fn hear(&mut self, event: Event, scope: Scope, number: usize) {
        for action in self.coordinator.step(Duration::ZERO, event) {
            self.perform(action, scope, number);
        }
    }

    fn perform(&mut self, action: Action, scope: Scope, number: usize) {
        match action {
            Action::Fence => {
                let (fencing, call) = Fencing::new(&number.to_string(), 0);
                let read_first = matches!(scope.draft, Draft::ReadsWithoutFencing | Draft::ReadsThenFences);
                self.io = Some(if read_first { Io::Read } else { Io::Fence(fencing, call) });
            }
            Action::Read => self.io = Some(Io::Read),
            Action::Restore { generation, checkpoint } => {
                self.remembered.clone_from(&checkpoint);
                for task in &mut self.tasks {
                    task.inbox.push_back(Message::Restore(generation, checkpoint.clone()));
                }
            }
            Action::Inject { epoch, .. } => {
                self.tasks.iter_mut().for_each(|task| task.inbox.push_back(Message::Inject(epoch)));
            }
            Action::Store { manifest } => {
                let (append, call) = Append::new(&Entry::from((*manifest).clone()), self.next);
                self.io = Some(Io::Store(manifest.epoch, append, call, manifest));
            }
            Action::Commit { task, epoch, tokens } => {
                let tokens = tokens.into_iter().map(|(_, prepared)| prepared).collect();
                self.tasks[task.0 as usize].inbox.push_back(Message::Commit(epoch, tokens));
                if scope.draft == Draft::ReportsCommitsEarly {
                    self.hear(Event::Committed { task, epoch }, scope, number);
                }
            }
            Action::Completed { .. } => self.expired = (0..self.newest).collect(),
            Action::Done { .. } => {
                self.done = true;
                self.alive = false;
            }
            Action::Fail { failure: Failure::Task { .. } }
                if scope.draft == Draft::RestoresTheRememberedEpoch && self.restarts == 0 =>
            {
                self.restart_from_memory(scope, number);
            }
            Action::Fail { .. } => self.alive = false,
            Action::Cancel { epoch, .. } if scope.draft == Draft::AbortsOutputOfFailedEpochs => {
                self.cancelled.push(epoch)
            }
            // Tasks keep what they have prepared.
            Action::Cancel { .. } | Action::Run | Action::Answer { .. } => {}
        }
    }

    /// What no driver may do: the store call goes on, and the job continues from what it remembers.
    fn restart_from_memory(&mut self, scope: Scope, number: usize) {
        let fresh = Self::start(scope, number);
        self.coordinator = fresh.coordinator;
        self.tasks = fresh.tasks;
        self.restarts += 1;
        // A generation of its own, so that its sinks tell old output from new.
        let fenced = self.fenced.unwrap();
        let generation = fenced.generation.next();
        self.fenced = Some(Fenced { generation, ..fenced });
        let checkpoint = self.remembered.clone();
        let next_epoch = checkpoint.as_ref().map_or(Epoch(1), |manifest| manifest.epoch.next());
        let io = self.io.take();
        for event in [Event::Fenced { generation }, Event::Recovered { checkpoint, next_epoch }] {
            self.hear(event, scope, number);
        }
        self.io = io;
    }

    /// Goes on with the store's answer to a call of the history's procedures.
    pub fn answered(&mut self, reply: Reply, scope: Scope, number: usize) {
        match self.io.take() {
            Some(Io::Fence(mut fencing, _)) => match fencing.step(reply) {
                Next::Call(call) => self.io = Some(Io::Fence(fencing, call)),
                Next::Done(Ok(fenced)) => self.claimed(fenced, scope, number),
                Next::Done(Err(reason)) => self.hear(Event::RecoveryFailed { reason }, scope, number),
            },
            Some(Io::Store(epoch, mut append, _, manifest)) => match append.step(reply) {
                Next::Call(call) => self.io = Some(Io::Store(epoch, append, call, manifest)),
                Next::Done(reply) => self.store_replied(epoch, reply, manifest, scope, number),
            },
            other => panic!("{reply:?} answers no call: {other:?}"),
        }
    }

    fn claimed(&mut self, fenced: Fenced, scope: Scope, number: usize) {
        let read_before = scope.draft == Draft::ReadsThenFences;
        let remembered = self.remembered.clone();
        self.fenced = Some(fenced);
        self.next = fenced.slot + 1;
        self.hear(Event::Fenced { generation: fenced.generation }, scope, number);
        if read_before {
            self.io = None;
            self.recovered(remembered, scope, number);
        }
    }

    fn recovered(&mut self, checkpoint: Option<Arc<Manifest>>, scope: Scope, number: usize) {
        let next_epoch = checkpoint.as_ref().map_or(Epoch(1), |manifest| manifest.epoch.next());
        self.hear(Event::Recovered { checkpoint, next_epoch }, scope, number);
    }

    /// Reads the newest checkpoint.
    pub fn read(&mut self, history: &History, scope: Scope, number: usize) {
        self.io = None;
        let below = self.fenced.map_or(Slot::MAX, |fenced| fenced.slot);
        let newest = history.newest(below);
        match scope.draft {
            Draft::ReadsThenFences => {
                self.remembered = newest;
                let (fencing, call) = Fencing::new(&number.to_string(), 0);
                self.io = Some(Io::Fence(fencing, call));
            }
            Draft::ReadsWithoutFencing => {
                let slot = history.end();
                let generation = Generation(history.newest_generation().0 + 1);
                self.fenced = Some(Fenced { generation, slot });
                self.next = slot;
                self.hear(Event::Fenced { generation }, scope, number);
                self.io = None;
                self.recovered(newest, scope, number);
            }
            _ => {
                self.newest = history.newest_slot(below);
                self.recovered(newest, scope, number);
            }
        }
    }

    fn store_replied(
        &mut self,
        epoch: Epoch,
        reply: StoreReply,
        manifest: Arc<Manifest>,
        scope: Scope,
        number: usize,
    ) {
        if reply == StoreReply::Stored {
            self.newest = self.next;
            self.next += 1;
            self.remembered = Some(manifest);
        }
        self.hear(Event::StoreReplied { epoch, reply }, scope, number);
    }

    /// Drops what a dead process knew.
    pub fn forget(&mut self) {
        self.remembered = None;
        self.claiming = None;
        self.next = 0;
        self.newest = 0;
        self.restored = None;
        self.restarts = 0;
        self.fenced = None;
        self.coordinator = Coordinator::new(job(1), Options::default());
    }

    /// A task dies, and with it the job.
    pub fn fail(&mut self, scope: Scope, number: usize) {
        self.hear(Event::Failed { task: TaskId(0), reason: String::new() }, scope, number);
    }

    /// Task `index` takes the barrier at the head of its inbox.
    pub fn inject(&mut self, index: usize, take: Take, sinks: &mut Sinks, scope: Scope, number: usize) {
        let generation = self.generation();
        let task = &mut self.tasks[index];
        let Some(Message::Inject(epoch)) = task.inbox.pop_front() else { panic!("no barrier") };
        let id = TaskId(index as u32);
        task.position = scope.records.min(task.position + 1);
        if take != Take::Decline && task.prepared < task.position {
            let output = Output { generation, task: id, start: task.prepared, end: task.position };
            sinks.prepared.insert(output);
            task.owed.push(output.token(epoch));
            task.prepared = task.position;
        }
        let finished = task.position == scope.records;
        let event = if take == Take::Acknowledge {
            Event::Acknowledged { task: id, epoch, parts: task.parts(index) }
        } else {
            Event::Declined { task: id, epoch, reason: String::new() }
        };
        self.hear(event, scope, number);
        if finished {
            self.hear(Event::Finished { task: id }, scope, number);
        }
    }

    /// Task `index` takes the restore at the head of its inbox.
    pub fn restore(
        &mut self,
        index: usize,
        sinks: &mut Sinks,
        scope: Scope,
        number: usize,
    ) -> Result<Option<Epoch>, String> {
        let task = &mut self.tasks[index];
        let Some(Message::Restore(generation, manifest)) = task.inbox.pop_front() else {
            panic!("no restore")
        };
        let id = TaskId(index as u32);
        let keep: BTreeSet<Output> =
            manifest.iter().flat_map(|manifest| manifest.sinks.values().flatten()).map(Output::of).collect();
        sinks.abort(id, generation, &keep)?;
        let source = manifest.as_ref().map(|manifest| &manifest.sources["s"][&index.to_string()]);
        task.position = source.map_or(0, |state| state.position.0[0]);
        task.prepared = task.position;
        let finished = task.position == scope.records;
        self.hear(Event::Restored { task: id }, scope, number);
        if finished {
            self.hear(Event::Finished { task: id }, scope, number);
        }
        Ok(manifest.map(|manifest| manifest.epoch))
    }

    /// Task `index` has taken the commit at the head of its inbox; `replied` says with what success, if it was able to.
    pub fn committed(&mut self, index: usize, replied: bool, scope: Scope, number: usize) {
        let Some(Message::Commit(epoch, _)) = self.tasks[index].inbox.pop_front() else {
            panic!("no commit")
        };
        let task = TaskId(index as u32);
        let event = if replied {
            Event::Committed { task, epoch }
        } else {
            Event::CommitFailed { task, epoch, reason: String::new() }
        };
        if scope.draft != Draft::ReportsCommitsEarly {
            self.hear(event, scope, number);
        }
    }
}

impl Task {
    fn parts(&mut self, index: usize) -> Parts {
        let state = PartitionState { position: Blob(vec![self.position]), ..PartitionState::default() };
        let source = SourcePart { source: "s".to_owned(), partition: index.to_string(), state };
        let sinks = self.owed.drain(..).map(|prepared| ("k".to_owned(), prepared)).collect();
        Parts { sources: vec![source], sinks, ..Parts::default() }
    }
}
