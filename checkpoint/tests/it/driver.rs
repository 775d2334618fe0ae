//! A driver for tests: performs a coordinator's actions on a store, with tasks that do as they are told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use rivermark_checkpoint::{
    Action, Blob, Checkpoints, Coordinator, Epoch, Event, FileRef, FileRole, FlowId, Generation, Job,
    KeyGroups, Manifest, Options, PartitionState, Parts, Prepared, RestoreFrom, SourcePart, StateFile, Store,
    TaskId, TaskState, Writer,
};

pub fn flow() -> FlowId {
    FlowId { name: "flow".to_owned(), version: 1 }
}

pub fn checkpoints(store: impl Store + 'static) -> Checkpoints {
    Checkpoints::new(Arc::new(store), flow()).unwrap()
}

pub fn writer(checkpoints: &Checkpoints, owner: &str) -> Writer {
    checkpoints.fence(owner, 1_000, NonZeroUsize::new(2).unwrap()).unwrap()
}

pub fn job(workers: u32) -> Job {
    let workers = NonZeroU32::new(workers).unwrap();
    Job { flow: "flow".to_owned(), version: 1, workers, key_groups: 128, origin_ms: 1_000_000 }
}

/// Pauses and time-outs of round numbers, and no periodic epochs.
pub fn options() -> Options {
    Options {
        interval: None,
        min_pause: secs(1),
        timeout: secs(100),
        tolerated_failures: 1,
        min_retry: secs(1),
        max_retry: secs(4),
        store_timeout: secs(60),
        commit_timeout: secs(60),
    }
}

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A task's share of an epoch: the position of its partition, and a token.
pub fn parts(task: u32, epoch: Epoch) -> Parts {
    let state = PartitionState { position: Blob(vec![epoch.0 as u8]), ..PartitionState::default() };
    let source = SourcePart { source: "source".to_owned(), partition: task.to_string(), state };
    Parts { sources: vec![source], sinks: vec![("sink".to_owned(), token(task, epoch))], ..Parts::default() }
}

pub fn token(task: u32, epoch: Epoch) -> Prepared {
    Prepared { task: TaskId(task), epoch, token: Blob(format!("{task}@{epoch}").into_bytes()) }
}

/// A process that runs a coordinator to its next rest, acknowledging everything at once.
pub struct Process {
    pub coordinator: Coordinator,
    pub checkpoints: Checkpoints,
    pub writer: Option<Writer>,
    pub restored: Option<Arc<Manifest>>,
    pub committed: BTreeSet<Prepared>,
    pub log: Vec<Action>,
    pub workers: u32,
    pub now: Duration,
}

impl Process {
    pub fn start(checkpoints: Checkpoints, workers: u32, owner: &str) -> Self {
        let mut process = Self {
            coordinator: Coordinator::new(job(workers), options()),
            checkpoints,
            writer: None,
            restored: None,
            committed: BTreeSet::new(),
            log: Vec::new(),
            workers,
            now: Duration::ZERO,
        };
        process.writer = Some(writer(&process.checkpoints, owner));
        process.hear(Event::Start);
        process
    }

    pub fn hear(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.coordinator.step(self.now, event) {
                self.log.push(action.clone());
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Vec<Event> {
        let writer = self.writer.as_ref().unwrap();
        let tasks = 0..self.workers;
        match action {
            Action::Fence => vec![Event::Fenced { generation: writer.generation() }],
            Action::Read => {
                let recovered = writer.read(RestoreFrom::Latest).unwrap();
                let (checkpoint, next_epoch) = (recovered.checkpoint, recovered.next_epoch);
                vec![Event::Recovered { checkpoint, next_epoch }]
            }
            Action::Restore { checkpoint, .. } => {
                self.restored = checkpoint;
                tasks.map(|task| Event::Restored { task: TaskId(task) }).collect()
            }
            Action::Inject { epoch, .. } => tasks
                .map(|task| Event::Acknowledged { task: TaskId(task), epoch, parts: parts(task, epoch) })
                .collect(),
            Action::Store { manifest } => {
                vec![Event::StoreReplied { epoch: manifest.epoch, reply: writer.store(&manifest) }]
            }
            Action::Commit { task, epoch, tokens } => {
                self.committed.extend(tokens.into_iter().map(|(_, prepared)| prepared));
                vec![Event::Committed { task, epoch }]
            }
            _ => Vec::new(),
        }
    }
}

/// A manifest of an epoch with these files.
pub fn manifest(generation: Generation, epoch: Epoch, files: Vec<FileRef>) -> Manifest {
    let name =
        |(number, content)| StateFile { name: format!("file-{number}"), role: FileRole::Base, content };
    let files = files.into_iter().enumerate().map(name).collect();
    let groups = KeyGroups { start: 0, end: 128 };
    let state = TaskState { task: TaskId(0), groups, files, meta: Blob::default() };
    Manifest {
        flow: flow().name,
        version: flow().version,
        epoch,
        generation,
        parent: None,
        created_at_ms: 0,
        key_groups: 128,
        workers: 1,
        sources: BTreeMap::new(),
        operators: [("operator".to_owned(), vec![state])].into(),
        sinks: BTreeMap::new(),
        watermarks: BTreeMap::new(),
        ends: BTreeMap::new(),
        is_end: false,
        stops: Vec::new(),
        stops_ahead: Vec::new(),
        counters: BTreeMap::new(),
        output_ends: BTreeMap::new(),
    }
}
