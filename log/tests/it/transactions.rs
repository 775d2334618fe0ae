//! Transactions: every short history, every crash within one, and what a full disk does.
//!
//! The model: an epoch is absent, open, sealed, prepared or committed, and holds some records in each of two partitions. What each action must do to it is
//! a few lines; the log is driven beside it and compared after every step.

use crate::support::*;
use rivermark_log::*;
use std::collections::{BTreeMap, HashSet, VecDeque};

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Begin(u64),
    Append(u64),
    Seal(u64),
    Prepare(u64),
    Commit(u64),
    Abort(u64),
    /// Somebody else appends.
    Other,
    /// A higher generation takes the id over; the handle before is kept.
    Fence,
    /// The handle before tries all it can.
    Zombie(u64),
    Crash(Crash),
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    Open,
    Sealed,
    Prepared,
    Committed,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Model {
    generation: u64,
    has_zombie: bool,
    /// Stage and appended batches of each epoch.
    epochs: BTreeMap<u64, (Stage, u64)>,
    /// What each partition holds: the epochs' values, 0 for others'.
    visible: Vec<u64>,
}

impl Model {
    /// What the action does, and whether it succeeds.
    fn step(&mut self, action: Action) -> bool {
        use Action::*;
        use Stage::*;
        let stage = |model: &Model, epoch| model.epochs.get(&epoch).map(|(stage, _)| *stage);
        match action {
            Begin(epoch) if stage(self, epoch).is_none() => {
                self.epochs.insert(epoch, (Open, 0));
            }
            Append(epoch) if stage(self, epoch) == Some(Open) => self.epochs.get_mut(&epoch).unwrap().1 += 1,
            Seal(epoch) if matches!(stage(self, epoch), Some(Open | Sealed)) => {
                self.epochs.get_mut(&epoch).unwrap().0 = Sealed;
            }
            Seal(epoch) => return stage(self, epoch) == Some(Prepared),
            Prepare(epoch) if matches!(stage(self, epoch), Some(Open | Sealed | Prepared)) => {
                self.epochs.get_mut(&epoch).unwrap().0 = Prepared;
            }
            Commit(epoch) if stage(self, epoch) == Some(Prepared) => {
                let (stage, batches) = self.epochs.get_mut(&epoch).unwrap();
                *stage = Committed;
                self.visible.extend((0..*batches).map(|_| epoch));
            }
            Commit(epoch) => return stage(self, epoch) == Some(Committed),
            Abort(epoch) if stage(self, epoch) == Some(Committed) => return false,
            Abort(epoch) => {
                self.epochs.remove(&epoch);
            }
            Other => self.visible.push(0),
            Fence => {
                self.generation += 1;
                self.has_zombie = true;
                self.epochs.retain(|_, (stage, _)| !matches!(stage, Open | Sealed));
            }
            Zombie(_) => {}
            Crash(_) => {
                self.has_zombie = false;
                self.epochs.retain(|_, (stage, _)| !matches!(stage, Open | Sealed));
            }
            _ => return false,
        }
        true
    }
}

/// The log beside the model.
struct Driver {
    disk: MemoryDisk,
    log: Option<Log>,
    topics: Vec<Topic>,
    sink: Option<Transactional>,
    zombie: Option<Transactional>,
}

const ID: &str = "sink";

impl Driver {
    fn new() -> Driver {
        let disk = MemoryDisk::new();
        let mut driver = Driver { disk, log: None, topics: Vec::new(), sink: None, zombie: None };
        driver.open(1).unwrap();
        driver
    }

    fn open(&mut self, generation: u64) -> Result<()> {
        let log = Log::open("/log", memory(&self.disk).durability(Durability::Always))?;
        self.topics = ["a", "b"]
            .map(|name| log.ensure_topic(name, TopicOptions::new(1)))
            .into_iter()
            .collect::<Result<_>>()?;
        self.sink = Some(log.transactional(ID, generation)?);
        (self.log, self.zombie) = (Some(log), None);
        Ok(())
    }

    fn append(&self, sink: &Transactional, epoch: u64) -> Result<()> {
        let mut batch = RecordBatch::new();
        for topic in &self.topics {
            batch.push(None, Some(epoch.to_string().as_bytes()), 0);
            sink.append(epoch, topic, 0, &mut batch)?;
        }
        Ok(())
    }

    fn step(&mut self, action: Action, generation: u64) -> Result<()> {
        let sink = self.sink.clone().unwrap();
        match action {
            Action::Begin(epoch) => sink.begin(epoch),
            Action::Append(epoch) => self.append(&sink, epoch),
            Action::Seal(epoch) => sink.seal(epoch),
            Action::Prepare(epoch) => sink.prepare(epoch).map(|_| ()),
            Action::Commit(epoch) => sink.commit(epoch),
            Action::Abort(epoch) => sink.abort(epoch),
            Action::Other => {
                self.topics.iter().for_each(|topic| assert!(append(topic, 0, [0]) < 1000));
                Ok(())
            }
            Action::Fence => {
                self.sink = Some(self.log.as_ref().unwrap().transactional(ID, generation)?);
                self.zombie = Some(sink);
                Ok(())
            }
            Action::Zombie(epoch) => {
                if let Some(zombie) = &self.zombie {
                    let tried = [
                        zombie.begin(epoch),
                        self.append(zombie, epoch),
                        zombie.seal(epoch),
                        zombie.prepare(epoch).map(|_| ()),
                        zombie.commit(epoch),
                        zombie.abort(epoch),
                        zombie.prepared().map(|_| ()),
                    ];
                    for (i, tried) in tried.into_iter().enumerate() {
                        assert!(matches!(tried, Err(Error::Fenced { .. })), "{i}: {tried:?}");
                    }
                }
                Ok(())
            }
            Action::Crash(crash) => {
                let disk = self.disk.after(crash);
                *self = Driver { disk, log: None, topics: Vec::new(), sink: None, zombie: None };
                self.open(generation)
            }
        }
    }

    fn check(&self, model: &Model) {
        for topic in &self.topics {
            assert_eq!(values(topic, 0), model.visible);
            assert_eq!(topic.info(0).unwrap().stable, model.visible.len() as u64);
        }
        let prepared: Vec<(u64, u64)> = self
            .sink
            .as_ref()
            .unwrap()
            .prepared()
            .unwrap()
            .iter()
            .map(|p| (p.epoch, p.records / 2))
            .collect();
        let expected: Vec<(u64, u64)> = model
            .epochs
            .iter()
            .filter(|(_, (stage, _))| *stage == Stage::Prepared)
            .map(|(&epoch, &(_, batches))| (epoch, batches))
            .collect();
        assert_eq!(prepared, expected);
    }
}

fn actions() -> Vec<Action> {
    use Action::*;
    let of_an_epoch = |epoch| {
        [Begin(epoch), Append(epoch), Seal(epoch), Prepare(epoch), Commit(epoch), Abort(epoch), Zombie(epoch)]
    };
    let crashes = [
        Crash(rivermark_log::Crash::Process),
        Crash(rivermark_log::Crash::Power(0)),
        Crash(rivermark_log::Crash::Power(3)),
    ];
    [of_an_epoch(1), of_an_epoch(2)].concat().into_iter().chain(crashes).chain([Other, Fence]).collect()
}

fn run(history: &[Action]) -> Model {
    let (mut driver, mut model) = (Driver::new(), Model { generation: 1, ..Model::default() });
    for (i, &action) in history.iter().enumerate() {
        let expected = model.step(action);
        if let Action::Crash(_) = action {
            // Opening after a crash is a new generation.
            model.generation += 1;
        }
        let happened = driver.step(action, model.generation);
        assert_eq!(happened.is_ok(), expected, "step {i} of {history:?}: {happened:?}");
    }
    driver.check(&model);
    model
}

#[test]
fn every_history_of_four_steps_ends_as_the_model_says() {
    let actions = actions();
    let mut count = 0;
    let mut histories: Vec<Vec<Action>> = vec![Vec::new()];
    for _ in 0..3 {
        histories = histories
            .iter()
            .flat_map(|history| {
                actions.iter().map(move |action| history.iter().copied().chain([*action]).collect())
            })
            .collect();
        histories.iter().for_each(|history| drop(run(history)));
        count += histories.len();
    }
    // The fourth step behind a beginning that is worth it.
    for history in histories.iter().filter(|history| history[0] == Action::Begin(1)) {
        for action in &actions {
            run(&[&history[..], &[*action]].concat());
            count += 1;
        }
    }
    assert!(count > 9_000, "{count}");
}

#[test]
fn every_state_that_nine_steps_can_reach_answers_every_action_as_the_model_says() {
    let actions = actions();
    let mut seen: HashSet<Model> = HashSet::new();
    let mut queue: VecDeque<Vec<Action>> = VecDeque::from([Vec::new()]);
    while let Some(history) = queue.pop_front() {
        for &action in &actions {
            let next: Vec<Action> = history.iter().copied().chain([action]).collect();
            let mut state = run(&next);
            // The number does not matter, only that it rises.
            state.generation = 0;
            let is_small =
                state.visible.len() <= 3 && state.epochs.values().all(|(_, batches)| *batches <= 1);
            if is_small && next.len() < 9 && seen.insert(state) {
                queue.push_back(next);
            }
        }
    }
    assert!(seen.len() > 100, "{}", seen.len());
}

/// Two epochs that overlap, as an engine writes them. Returns what was acknowledged.
fn overlapping(disk: &MemoryDisk) -> Vec<Action> {
    use Action::*;
    let mut acknowledged = Vec::new();
    let mut driver = Driver { disk: disk.clone(), log: None, topics: Vec::new(), sink: None, zombie: None };
    if driver.open(1).is_err() {
        return acknowledged;
    }
    let script = [
        Begin(1),
        Append(1),
        Append(1),
        Prepare(1),
        Begin(2),
        Append(2),
        Commit(1),
        Append(2),
        Seal(2),
        Prepare(2),
        Commit(2),
    ];
    for action in script {
        if driver.step(action, 1).is_err() {
            break;
        }
        acknowledged.push(action);
    }
    acknowledged
}

#[test]
fn a_crash_before_any_disk_operation_leaves_every_epoch_whole_or_absent() {
    let whole = MemoryDisk::new();
    overlapping(&whole);
    let operations = whole.operations();
    assert!(operations > 30, "{operations}");
    let crashes: Vec<Crash> = [Crash::Process].into_iter().chain((0..24).map(Crash::Power)).collect();
    for cut in 0..operations {
        for &crash in &crashes {
            let disk = MemoryDisk::new();
            disk.cut_power_before(cut);
            let acknowledged = overlapping(&disk);
            let mut driver =
                Driver { disk: disk.after(crash), log: None, topics: Vec::new(), sink: None, zombie: None };
            let context = format!("cut before {cut}, {crash:?}, {acknowledged:?}");
            driver.open(2).unwrap_or_else(|error| panic!("{context}: {error}"));
            let sink = driver.sink.clone().unwrap();
            let found = values(&driver.topics[0], 0);
            assert_eq!(found, values(&driver.topics[1], 0), "{context}");
            let prepared: Vec<u64> = sink.prepared().unwrap().iter().map(|p| p.epoch).collect();
            for epoch in [1, 2] {
                let count = found.iter().filter(|value| **value == epoch).count();
                assert!(count == 0 || count == 2, "{context}: {found:?}");
                if acknowledged.contains(&Action::Commit(epoch)) {
                    assert_eq!(count, 2, "{context}");
                } else if acknowledged.contains(&Action::Prepare(epoch)) {
                    assert!(count == 2 || prepared.contains(&epoch), "{context}");
                }
                // As an engine recovers: what is stored is committed again, the rest aborted.
                if acknowledged.contains(&Action::Prepare(epoch)) {
                    sink.commit(epoch).unwrap_or_else(|error| panic!("{context}: {error}"));
                } else if count == 0 {
                    sink.abort(epoch).unwrap();
                }
            }
            // Once more, so that a second recovery follows the first.
            let expected: Vec<u64> = values(&driver.topics[0], 0);
            let disk = driver.disk.after(Crash::Power(0));
            let mut again = Driver { disk, log: None, topics: Vec::new(), sink: None, zombie: None };
            drop(driver);
            again.open(3).unwrap();
            assert_eq!(values(&again.topics[0], 0), expected, "{context}");
            assert_eq!(values(&again.topics[1], 0), expected, "{context}");
        }
    }
}

#[test]
fn a_commit_that_a_full_disk_interrupts_is_completed_when_there_is_room_and_seen_whole() {
    let disk = MemoryDisk::new();
    let log = Log::open("/log", memory(&disk)).unwrap();
    let topics = ["a", "b"].map(|name| log.create_topic(name, TopicOptions::new(1)).unwrap());
    let sink = log.transactional(ID, 1).unwrap();
    sink.begin(1).unwrap();
    for i in 0..20 {
        let mut batch = RecordBatch::new();
        batch.push(None, Some(format!("{i}").as_bytes()), 0);
        batch.push(Some(&[7; 500]), Some(b"0"), 0);
        sink.append(1, &topics[i % 2], 0, &mut batch).unwrap();
    }
    sink.prepare(1).unwrap();
    for room in 0..11 {
        disk.set_capacity(Some(disk.used() + 900 * room / 10));
        let error = sink.commit(1).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        for topic in &topics {
            assert!(values(topic, 0).is_empty(), "nothing of it is visible");
        }
        assert!(matches!(sink.abort(1), Err(Error::EpochState { .. })), "it is decided");
    }
    // A restart on the full disk leaves it pending, and hides what is there of it.
    drop((sink, topics, log));
    let log = Log::open("/log", memory(&disk)).unwrap();
    assert_eq!(log.recovery().pending_commits, [(ID.to_owned(), 1)]);
    let topics = ["a", "b"].map(|name| log.topic(name).unwrap());
    assert!(topics.iter().all(|topic| values(topic, 0).is_empty()));
    assert!(topics.iter().any(|topic| !values_as(topic, 0, Isolation::ReadUncommitted).is_empty()));
    disk.set_capacity(None);
    log.maintain(0).unwrap();
    for (i, topic) in topics.iter().enumerate() {
        let expected: Vec<u64> = (0..10).flat_map(|n| [n * 2 + i as u64, 0]).collect();
        assert_eq!(values(topic, 0), expected);
    }
}

#[test]
fn an_epoch_being_committed_does_not_hold_up_the_next_nor_others_records() {
    on_both_disks(|place| {
        let log = place.open();
        let topic = log.create_topic("t", TopicOptions::new(1)).unwrap();
        let sink = log.transactional(ID, 1).unwrap();
        let add = |epoch| {
            let mut batch = RecordBatch::new();
            batch.push(None, Some(format!("{epoch}").as_bytes()), 0);
            sink.append(epoch, &topic, 0, &mut batch).unwrap();
        };
        sink.begin(1).unwrap();
        add(1);
        append(&topic, 0, [100]);
        assert_eq!(values(&topic, 0), [100], "an open epoch holds nobody up");
        sink.prepare(1).unwrap();
        sink.begin(2).unwrap();
        add(2);
        sink.commit(1).unwrap();
        add(2);
        append(&topic, 0, [101]);
        sink.prepare(2).unwrap();
        sink.commit(2).unwrap();
        sink.commit(1).unwrap();
        assert_eq!(values(&topic, 0), [100, 1, 101, 2, 2]);
        assert!(
            matches!(sink.commit(3), Err(Error::EpochState { .. })),
            "what never was cannot be committed"
        );
    });
}

#[test]
fn an_epoch_committed_long_ago_is_known_to_be_also_after_a_restart() {
    on_both_disks(|place| {
        {
            let sink = place.open().transactional(ID, 1).unwrap();
            for epoch in (0..200).filter(|epoch| epoch % 10 != 3) {
                sink.begin(epoch).unwrap();
                sink.prepare(epoch).unwrap();
                sink.commit(epoch).unwrap();
            }
        }
        let sink = place.open().transactional(ID, 2).unwrap();
        for epoch in 0..200 {
            assert_eq!(sink.commit(epoch).is_ok(), epoch % 10 != 3, "{epoch}");
            assert_eq!(sink.begin(epoch).is_ok(), epoch % 10 == 3, "{epoch}");
        }
    });
}

#[test]
fn a_process_that_lost_its_lock_can_neither_prepare_nor_commit() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let old = Log::open(path, LogOptions::new()).unwrap();
    let topic = old.create_topic("t", TopicOptions::new(1)).unwrap();
    let paused = old.transactional(ID, 1).unwrap();
    let mut batch = RecordBatch::new();
    for epoch in [1, 2] {
        paused.begin(epoch).unwrap();
        batch.push(None, Some(b"1"), 0);
        paused.append(epoch, &topic, 0, &mut batch).unwrap();
    }
    paused.prepare(1).unwrap();
    // Somebody removes the lock file of a process that he believes dead.
    std::fs::remove_file(path.join("LOCK")).unwrap();
    let new = Log::open(path, LogOptions::new()).unwrap();
    let sink = new.transactional(ID, 2).unwrap();
    for refused in [paused.prepare(2).map(|_| ()), paused.commit(1), paused.begin(3), paused.abort(1)] {
        assert!(matches!(refused, Err(Error::LockLost { .. })), "{refused:?}");
    }
    assert_eq!(sink.prepared().unwrap().len(), 1);
    sink.commit(1).unwrap();
    assert_eq!(values(&new.topic("t").unwrap(), 0), [1]);
}

#[test]
fn a_process_that_wakes_with_a_lock_that_looks_right_finds_its_generation_fenced() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let (lock, aside) = (path.join("LOCK"), path.join("LOCK.aside"));
    let old = Log::open(path, LogOptions::new()).unwrap();
    let topic = old.create_topic("t", TopicOptions::new(1)).unwrap();
    let paused = old.transactional(ID, 1).unwrap();
    let mut batch = RecordBatch::new();
    for epoch in [1, 2] {
        paused.begin(epoch).unwrap();
        batch.push(None, Some(epoch.to_string().as_bytes()), 0);
        paused.append(epoch, &topic, 0, &mut batch).unwrap();
    }
    paused.prepare(1).unwrap();
    std::fs::rename(&lock, &aside).unwrap();
    let new = Log::open(path, LogOptions::new()).unwrap();
    let sink = new.transactional(ID, 2).unwrap();
    std::fs::rename(&aside, &lock).unwrap();
    for refused in [paused.prepare(2).map(|_| ()), paused.commit(1), paused.begin(3), paused.abort(1)] {
        assert!(matches!(refused, Err(Error::Fenced { generation: 1, current: 2, .. })), "{refused:?}");
    }
    assert_eq!(sink.prepared().unwrap().iter().map(|p| p.epoch).collect::<Vec<_>>(), [1]);
    assert!(values(&new.topic("t").unwrap(), 0).is_empty(), "nothing of it was committed");
}
