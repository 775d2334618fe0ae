//! The store, the sinks and the processes, and what may happen next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rivermark_checkpoint::history::{Call, Entry, Reply, Slot};
use rivermark_checkpoint::{Certainty, Epoch, Generation, Manifest, Put};

use super::process::{Io, Message, Process, Take};
use super::sinks::{Output, Sinks};
use super::{Draft, Scope};

#[derive(Debug, Clone)]
pub struct World {
    scope: Scope,
    history: History,
    sinks: Sinks,
    processes: Vec<Process>,
    faults: u8,
}

/// The objects of the store, and what is on its way to it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct History {
    objects: BTreeMap<Slot, Arc<[u8]>>,
    late_puts: BTreeSet<(Slot, Arc<[u8]>)>,
    late_deletes: BTreeSet<Slot>,
    /// What each slot held first.
    first: BTreeMap<Slot, Arc<[u8]>>,
    newest_generation: Generation,
    /// The newest epoch that somebody committed.
    committed: Epoch,
}

/// Something that may happen.
#[derive(Debug, Clone, Copy)]
pub enum Choice {
    Start,
    Crash(usize),
    /// The store answers the call of a process.
    Answer(usize),
    /// It performs the put, and the answer is lost.
    LoseReply(usize),
    /// It refuses the put.
    Refuse(usize),
    /// The put is late, and the process told that it may have happened.
    Delay(usize),
    /// A late put lands.
    Land(usize),
    /// A late delete lands.
    Delete(Slot),
    /// A task takes what is at the head of its inbox.
    Task(usize, usize),
    /// A task takes a barrier badly.
    Decline(usize, usize, Take),
    /// A task cannot commit, and says so.
    RefuseCommit(usize, usize),
    /// A task commits, and reports that it may have failed to.
    CommitUnknown(usize, usize),
    /// A task commits, and the process crashes before it hears of it.
    CommitAndCrash(usize, usize),
    /// A task dies.
    Fail(usize),
}

impl std::hash::Hash for World {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.history, &self.sinks, &self.processes, self.faults).hash(state);
    }
}

impl World {
    pub fn new(scope: Scope) -> Self {
        let (history, sinks) = Default::default();
        Self { scope, history, sinks, processes: Vec::new(), faults: scope.faults }
    }

    pub fn is_done(&self) -> bool {
        self.processes.iter().any(|process| process.done)
    }

    pub fn choices(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        let alive = self.processes.iter().filter(|process| process.alive).count();
        if self.processes.len() < self.scope.processes && alive < 2 {
            choices.push(Choice::Start);
        }
        for (number, process) in self.processes.iter().enumerate().filter(|(_, process)| process.alive) {
            self.choices_of(number, process, &mut choices);
        }
        choices.extend((0..self.history.late_puts.len()).map(Choice::Land));
        choices.extend(self.history.late_deletes.iter().copied().map(Choice::Delete));
        choices
    }

    fn choices_of(&self, number: usize, process: &Process, choices: &mut Vec<Choice>) {
        let faulty = self.faults > 0;
        choices.push(Choice::Crash(number));
        if process.io.is_some() {
            choices.push(Choice::Answer(number));
        }
        if faulty && process.put().is_some() {
            choices.extend([Choice::LoseReply(number), Choice::Refuse(number), Choice::Delay(number)]);
        }
        if faulty && process.restored.is_some() {
            choices.push(Choice::Fail(number));
        }
        for (index, task) in process.tasks.iter().enumerate() {
            let Some(message) = task.inbox.front() else { continue };
            choices.push(Choice::Task(number, index));
            match message {
                Message::Inject(_) if faulty => {
                    choices.push(Choice::Decline(number, index, Take::Decline));
                    choices.push(Choice::Decline(number, index, Take::DeclinePrepared));
                }
                Message::Commit(..) => {
                    choices.push(Choice::CommitAndCrash(number, index));
                    if faulty {
                        choices.push(Choice::RefuseCommit(number, index));
                        choices.push(Choice::CommitUnknown(number, index));
                    }
                }
                _ => {}
            }
        }
    }

    pub fn apply(&mut self, choice: Choice) -> Result<(), String> {
        match choice {
            Choice::Start => self.processes.push(Process::start(self.scope, self.processes.len())),
            Choice::Crash(number) => self.crash(number),
            Choice::Answer(number) => self.answer(number)?,
            Choice::Land(index) => {
                let (slot, bytes) = self.history.late_puts.iter().nth(index).cloned().unwrap();
                self.history.late_puts.remove(&(slot, Arc::clone(&bytes)));
                self.land(slot, &bytes)?;
            }
            Choice::Delete(slot) => {
                self.history.late_deletes.remove(&slot);
                self.history.objects.remove(&slot);
            }
            Choice::Task(number, index) => self.task(number, index)?,
            Choice::CommitAndCrash(number, index) => {
                self.commit(number, index)?;
                self.crash(number);
            }
            faulty => {
                self.faults -= 1;
                self.fault(faulty)?;
            }
        }
        Ok(())
    }

    fn fault(&mut self, choice: Choice) -> Result<(), String> {
        let lost = || Reply::Failed(Certainty::Indeterminate, String::new());
        let refused = || Reply::Failed(Certainty::Determinate, String::new());
        let scope = self.scope;
        match choice {
            Choice::LoseReply(number) => {
                let (slot, bytes) = self.processes[number].put().unwrap();
                self.land(slot, &bytes)?;
                self.processes[number].answered(lost(), scope, number);
            }
            Choice::Refuse(number) => self.processes[number].answered(refused(), scope, number),
            Choice::Delay(number) => {
                self.history.late_puts.extend(self.processes[number].put());
                self.processes[number].answered(lost(), scope, number);
            }
            Choice::Decline(number, index, take) => {
                self.processes[number].inject(index, take, &mut self.sinks, scope, number);
            }
            Choice::RefuseCommit(number, index) => {
                self.processes[number].committed(index, false, scope, number);
            }
            Choice::CommitUnknown(number, index) => {
                self.commit(number, index)?;
                self.processes[number].committed(index, false, scope, number);
            }
            Choice::Fail(number) => {
                // Unless the driver makes a mistake of it, the process gives up what it had under way.
                if scope.draft != Draft::RestoresTheRememberedEpoch {
                    self.history.late_puts.extend(self.processes[number].put());
                }
                self.processes[number].fail(scope, number);
            }
            other => panic!("no fault: {other:?}"),
        }
        self.abort_cancelled()?;
        self.sweep();
        Ok(())
    }

    /// A process is gone; its put may land yet.
    fn crash(&mut self, number: usize) {
        self.history.late_puts.extend(self.processes[number].put());
        self.processes[number].alive = false;
        self.sweep();
    }

    /// Forgets what a dead process knew, so that states which differ in that alone are one.
    fn sweep(&mut self) {
        for process in self.processes.iter_mut().filter(|process| !process.alive) {
            process.io = None;
            process.tasks.clear();
            process.expired.clear();
            process.forget();
        }
    }

    fn answer(&mut self, number: usize) -> Result<(), String> {
        let call = match &self.processes[number].io {
            Some(Io::Fence(_, call) | Io::Store(_, _, call, _)) => call.clone(),
            Some(Io::Read) => {
                self.processes[number].read(&self.history, self.scope, number);
                return Ok(());
            }
            None => panic!("no call"),
        };
        let process = &mut self.processes[number];
        let reply = match call {
            Call::List if self.scope.draft == Draft::TrustsItsFence && process.claiming.is_some() => {
                Reply::Listed(process.claiming.into_iter().collect())
            }
            Call::List => Reply::Listed(self.history.objects.keys().copied().collect()),
            Call::Get(slot) => Reply::Got(self.history.objects.get(&slot).map(|bytes| bytes.to_vec())),
            Call::Put(slot, bytes) => {
                process.claiming = (self.scope.draft == Draft::TrustsItsFence).then_some(slot);
                Reply::Put(self.land(slot, &bytes)?)
            }
        };
        self.processes[number].answered(reply, self.scope, number);
        self.abort_cancelled()?;
        self.sweep();
        Ok(())
    }

    /// A put reaches the store.
    fn land(&mut self, slot: Slot, bytes: &Arc<[u8]>) -> Result<Put, String> {
        if self.history.objects.contains_key(&slot) {
            return Ok(Put::AlreadyExists);
        }
        let last = slot >= self.history.end();
        self.history.objects.insert(slot, Arc::clone(bytes));
        let entry = Entry::decode(bytes).unwrap();
        // In a hole that a delete has left: it fences nobody, and must not be taken for one that does.
        if !last && matches!(entry, Entry::Fence { .. }) {
            return Ok(Put::Created);
        }
        // What was deleted comes back by a repetition of its put, and nobody minds.
        if self.history.first.get(&slot) == Some(bytes) {
            return Ok(Put::Created);
        }
        if entry.generation() < self.history.newest_generation {
            return Err(format!("generation {} stores after it was fenced", entry.generation()));
        }
        self.history.newest_generation = entry.generation();
        self.history.first.insert(slot, Arc::clone(bytes));
        if let Entry::Manifest(manifest) = entry {
            let outputs: Vec<Output> = manifest.sinks.values().flatten().map(Output::of).collect();
            if let Some(aborted) = outputs.iter().find(|output| self.sinks.aborted.contains(output)) {
                return Err(format!("{aborted:?} was aborted and is stored now"));
            }
            self.sinks.stored.extend(outputs);
        }
        Ok(Put::Created)
    }

    fn task(&mut self, number: usize, index: usize) -> Result<(), String> {
        match self.processes[number].tasks[index].inbox.front() {
            Some(Message::Restore(..)) => {
                let epoch = self.processes[number].restore(index, &mut self.sinks, self.scope, number)?;
                self.restored(number, epoch)?;
            }
            Some(Message::Inject(_)) => {
                let sinks = &mut self.sinks;
                self.processes[number].inject(index, Take::Acknowledge, sinks, self.scope, number);
            }
            Some(Message::Commit(..)) => {
                self.commit(number, index)?;
                self.processes[number].committed(index, true, self.scope, number);
                self.expire(number);
            }
            None => panic!("an empty inbox"),
        }
        self.sweep();
        Ok(())
    }

    /// A process has restored `epoch`, after which nothing older may be committed and nothing newer may have been.
    fn restored(&mut self, number: usize, epoch: Option<Epoch>) -> Result<(), String> {
        // A process that is fenced while it restores may restore something older, in vain.
        let fenced = self.processes[number].generation() < self.history.newest_generation;
        if !fenced && self.history.committed > epoch.unwrap_or_default() {
            return Err(format!("{epoch:?} is restored and {} was committed", self.history.committed));
        }
        self.processes[number].restored = Some(epoch);
        Ok(())
    }

    fn commit(&mut self, number: usize, index: usize) -> Result<(), String> {
        let Some(Message::Commit(epoch, tokens)) = self.processes[number].tasks[index].inbox.front() else {
            panic!("no commit");
        };
        let (epoch, outputs) = (*epoch, tokens.iter().map(Output::of).collect::<Vec<_>>());
        self.committing(number, epoch)?;
        let task = rivermark_checkpoint::TaskId(index as u32);
        self.sinks.commit(task, &outputs)
    }

    /// A process may commit what its successors have restored too, and nothing beyond.
    fn committing(&mut self, number: usize, epoch: Epoch) -> Result<(), String> {
        let generation = self.processes[number].generation();
        let newer = |process: &&Process| process.alive && process.generation() > generation;
        let behind =
            |process: &Process| process.restored.is_some_and(|restored| restored.unwrap_or_default() < epoch);
        if self.processes.iter().filter(newer).any(behind) {
            return Err(format!(
                "generation {generation} commits {epoch}, which its successor has not restored"
            ));
        }
        self.history.committed = self.history.committed.max(epoch);
        Ok(())
    }

    /// What [`Draft::AbortsOutputOfFailedEpochs`] does.
    fn abort_cancelled(&mut self) -> Result<(), String> {
        for process in &mut self.processes {
            let generation = process.generation();
            for _ in process.cancelled.drain(..) {
                for task in 0..self.scope.tasks {
                    let id = rivermark_checkpoint::TaskId(task);
                    self.sinks.abort(id, generation.next(), &BTreeSet::new())?;
                }
            }
        }
        Ok(())
    }

    /// Sends the deletes of what has expired on their way.
    fn expire(&mut self, number: usize) {
        let expired = std::mem::take(&mut self.processes[number].expired);
        if !self.scope.deletes {
            return;
        }
        for slot in expired {
            let Some(bytes) = self.history.objects.get(&slot) else { continue };
            let manifest = matches!(Entry::decode(bytes), Ok(Entry::Manifest(_)));
            if manifest || self.scope.draft == Draft::DeletesFences {
                self.history.late_deletes.insert(slot);
            }
        }
    }

    /// This world with every process dead and no faults any more.
    pub fn all_dead(&self) -> Self {
        let mut world = self.clone();
        for number in 0..world.processes.len() {
            world.crash(number);
        }
        (world.faults, world.scope.draft) = (0, Draft::Right);
        world.processes.iter_mut().for_each(|process| process.done = false);
        world
    }

    /// A healthy process starts and runs to its end; then whatever is late arrives.
    pub fn complete(&self) -> Result<(), String> {
        let mut world = self.clone();
        world.apply(Choice::Start)?;
        let number = world.processes.len() - 1;
        while world.processes[number].alive {
            let mut steps = world.choices_of_process(number);
            let step = steps.find(|choice| matches!(choice, Choice::Answer(_) | Choice::Task(..)));
            world.apply(step.ok_or("a healthy process is stuck")?)?;
        }
        while !world.history.late_puts.is_empty() {
            world.apply(Choice::Land(0))?;
        }
        let (committed, all) =
            (world.sinks.records_committed(), world.scope.tasks * u32::from(world.scope.records));
        if !world.processes[number].done || committed != all {
            return Err(format!("a healthy process ended with {committed} of {all} records committed"));
        }
        Ok(())
    }

    fn choices_of_process(&self, number: usize) -> impl Iterator<Item = Choice> + use<> {
        let mut choices = Vec::new();
        self.choices_of(number, &self.processes[number], &mut choices);
        choices.into_iter()
    }
}

impl History {
    /// The newest manifest below a slot, as `RestoreFrom::Latest` finds it.
    pub fn newest(&self, below: Slot) -> Option<Arc<Manifest>> {
        self.objects.range(..below).rev().find_map(|(_, bytes)| match Entry::decode(bytes) {
            Ok(Entry::Manifest(manifest)) => Some(Arc::new(*manifest)),
            _ => None,
        })
    }

    /// The slot of that manifest.
    pub fn newest_slot(&self, below: Slot) -> Slot {
        let manifest = |bytes: &[u8]| matches!(Entry::decode(bytes), Ok(Entry::Manifest(_)));
        self.objects.range(..below).rev().find(|(_, bytes)| manifest(bytes)).map_or(0, |(slot, _)| *slot)
    }

    /// The first slot that is free.
    pub fn end(&self) -> Slot {
        self.objects.last_key_value().map_or(0, |(slot, _)| slot + 1)
    }

    pub const fn newest_generation(&self) -> Generation {
        self.newest_generation
    }
}

impl Process {
    /// The put that is on its way to the store.
    fn put(&self) -> Option<(Slot, Arc<[u8]>)> {
        match &self.io {
            Some(Io::Fence(_, Call::Put(slot, bytes)) | Io::Store(_, _, Call::Put(slot, bytes), _)) => {
                Some((*slot, Arc::clone(bytes)))
            }
            _ => None,
        }
    }
}
