//! The operator: hands requests out, takes replies in, and passes on what may leave the queue.

use super::answers::{Answers, Repeats};
use super::queue::{Due, Entry, Phase, Queue, Waiting};
use super::reply::{Mailbox, Replied, Ticket};
use super::{Ask, LookUp, OrElse};
use crate::batch::{Batch, Origin, Stamp};
use crate::context::{BlameCell, PartitionStatePart, TaskContext};
use crate::dead_letters::Failures;
use crate::edge::{Operator, Output, PartitionChange, Signal};
use crate::error::{BoxError, Error, Result};
use crate::outstanding::Share;
use crate::partitions::{PartitionEntry, Partitions};
use crate::plan::TaskBuilder;
use crate::time::Timestamp;
use rivermark_state::{StateValue, decode, encode_into, hash_key};
use serde::{Deserialize, Serialize};
use std::hash::Hash;
use std::sync::Arc;

/// What a checkpoint has of a partition.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    /// It was repeating the answers of an earlier version.
    repeating: bool,
    /// The offset of the journal's last entry.
    last: u64,
    /// What was in the queue, in order.
    queue: Vec<SavedRecord>,
}

#[derive(Serialize, Deserialize)]
struct SavedRecord {
    offset: u64,
    time: Timestamp,
    watermark: Timestamp,
    request: u32,
    /// `None` for one that has been passed on.
    value: Option<Vec<u8>>,
    /// `None` for one that is to be asked about again.
    answer: Option<Vec<u8>>,
}

struct Partition {
    entry: Arc<PartitionEntry>,
    answers: Answers,
    repeats: Option<Repeats>,
}

/// See the module's page.
pub(super) struct Asking<T, Q, A, U, R, J> {
    name: Arc<str>,
    blame: BlameCell,
    ask: Arc<Ask<Q, A>>,
    or_else: Option<Arc<OrElse<Q, A>>>,
    attempts: u32,
    journaled: bool,
    request: R,
    join: J,
    queue: Queue<T, Outcome<A>>,
    mailbox: Arc<Mailbox<A>>,
    replied: Vec<Replied<A>>,
    table: Arc<Partitions>,
    partitions: Vec<Partition>,
    share: Share,
    out: Output<U>,
    failures: Failures,
}

/// An answer, or why there is none: then the record is a dead letter. Journaled as such, so that a replay has the same letters.
type Outcome<A> = Result<A, String>;

fn encoded<T: Serialize + 'static>(value: &T) -> Result<Vec<u8>, BoxError> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes)?;
    Ok(bytes)
}

impl<T, Q, A, U, R, J> Asking<T, Q, A, U, R, J>
where
    T: StateValue,
    Q: Hash + Send + 'static,
    A: StateValue,
    U: Send + 'static,
    R: Fn(&T) -> Q,
    J: Fn(T, A) -> U,
{
    pub(super) fn new(
        builder: &TaskBuilder<'_>,
        look_up: LookUp<Q, A>,
        request: R,
        join: J,
        out: Output<U>,
        failures: Failures,
    ) -> Self {
        let environment = builder.environment();
        Asking {
            name: builder.name(),
            blame: builder.blame(),
            ask: look_up.ask,
            or_else: look_up.or_else,
            attempts: look_up.rules.retries.saturating_add(1),
            journaled: look_up.journaled,
            request,
            join,
            queue: Queue::new(look_up.rules),
            mailbox: Mailbox::new(environment.waker.clone()),
            replied: Vec::new(),
            table: Arc::clone(&environment.partitions),
            partitions: Vec::new(),
            share: builder.outstanding().share(),
            out,
            failures,
        }
    }

    fn failed(&self, entry: &PartitionEntry, problem: impl Into<BoxError>) -> Error {
        Error::state(&self.name, format!("restoring the look-ups of {}", entry.name), problem)
    }

    /// What the checkpoint knows of a partition: its queue comes before anything that is read.
    fn open(&mut self, index: u16) -> Result<()> {
        let entry = self.table.get(index).expect("the source announces partitions of the table");
        let restored = entry.restored(&self.name);
        let saved = restored.map(decode::<Saved>).transpose().map_err(|e| self.failed(&entry, e))?;
        let repeating = self.journaled && saved.as_ref().is_none_or(|saved| saved.repeating);
        let repeats = entry.to_repeat(&self.name, repeating);
        let repeats =
            repeats.and_then(|earlier| earlier.map(|(_, journal)| Repeats::begin(journal)).transpose());
        let repeats = repeats.map_err(|e| self.failed(&entry, e))?;
        let Saved { last, queue, .. } = saved.unwrap_or_default();
        let answers = Answers::restore(entry.restored_journal(&self.name), last);
        let answers = answers.map_err(|e| self.failed(&entry, e))?;
        for record in queue {
            self.queue.push(waiting(index, record).map_err(|e| self.failed(&entry, e))?);
        }
        self.partitions.push(Partition { entry, answers, repeats });
        Ok(())
    }

    fn save(&mut self, epoch: u64, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut queues: Vec<Vec<SavedRecord>> = self.partitions.iter().map(|_| Vec::new()).collect();
        for entry in self.queue.entries() {
            let Entry::Record(record) = entry else { continue };
            let saved = saved(record).map_err(|e| {
                let attempt = format!("writing the record of {:?} into epoch {epoch}", record.stamp.origin);
                Error::state(&self.name, attempt, e)
            })?;
            queues[position(&self.partitions, record.stamp.origin)].push(saved);
        }
        for (partition, queue) in self.partitions.iter_mut().zip(queues) {
            let index = partition.entry.index;
            let saved =
                Saved { repeating: partition.repeats.is_some(), last: partition.answers.last(), queue };
            let state = encoded(&saved)
                .map_err(|e| Error::state(&self.name, format!("saving the look-ups for epoch {epoch}"), e))?;
            let operator = Arc::clone(&self.name);
            cx.parts.partition_states.push(PartitionStatePart { operator, partition: index, state });
            if self.journaled {
                cx.parts.add_journal(&self.name, index, partition.answers.journal(), epoch);
            }
        }
        Ok(())
    }

    /// Takes a record in, with the answer of an earlier version if that had asked the same.
    fn enqueue(&mut self, stamp: Stamp, value: T) -> Result<(), BoxError> {
        // The hash's upper half: the journal is long, and one offset has few requests.
        let request = if self.journaled { (hash_key(&(self.request)(&value)) >> 32) as u32 } else { 0 };
        let phase = match self.repeated(stamp.origin, request)? {
            // What stops the job is asked again: it may have been mended.
            Some(answer) if answer.is_ok() || self.failures.are_kept() => Phase::Answered(value, answer),
            _ => Phase::New(value),
        };
        self.queue.push(Waiting { stamp, request, phase });
        Ok(())
    }

    /// What an earlier version was answered to this request.
    fn repeated(&mut self, origin: Origin, request: u32) -> Result<Option<Outcome<A>>, BoxError> {
        let at = position(&self.partitions, origin);
        let Some(repeats) = &mut self.partitions[at].repeats else { return Ok(None) };
        let answer = repeats.answer_to(origin.offset().unwrap_or_default(), request)?;
        if repeats.is_over() {
            self.partitions[at].repeats = None;
        }
        let answer = answer.map(|answer| decode(&answer)).transpose();
        answer.map_err(|e| format!("an earlier version of the flow was answered something else: {e}").into())
    }

    /// Does all that can be done now.
    fn advance(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        loop {
            self.take_replies(cx.now)?;
            self.take_due(cx.now)?;
            self.ask_new(cx.now);
            // A service may have answered while it was asked.
            if self.mailbox.is_empty() {
                break;
            }
        }
        self.release(cx)?;
        self.share.set(!self.queue.is_empty(), self.queue.is_full());
        Ok(())
    }

    fn take_replies(&mut self, now: Timestamp) -> Result<()> {
        let mut replied = std::mem::take(&mut self.replied);
        self.mailbox.take(&mut replied);
        for (ticket, answer) in replied.drain(..) {
            self.hear(ticket, answer.map(Ok), now)?;
        }
        self.replied = replied;
        Ok(())
    }

    fn take_due(&mut self, now: Timestamp) -> Result<()> {
        while let Some(due) = self.queue.next_due(now) {
            match due {
                Due::TimedOut(ticket) => self.hear(ticket, Err("there was no reply in time".into()), now)?,
                Due::Again(ticket) => {
                    if let Some((ticket, stamp, value)) = self.queue.ask_again(ticket, now) {
                        let mut watch = self.blame.watch(&self.name);
                        watch.at(stamp);
                        (self.ask)((self.request)(value), self.mailbox.reply(ticket));
                    }
                }
            }
        }
        Ok(())
    }

    fn ask_new(&mut self, now: Timestamp) {
        let mut watch = self.blame.watch(&self.name);
        while let Some((ticket, stamp, value)) = self.queue.next_to_ask(now) {
            watch.at(stamp);
            (self.ask)((self.request)(value), self.mailbox.reply(ticket));
        }
    }

    fn hear(&mut self, ticket: Ticket, answer: Result<Outcome<A>, BoxError>, now: Timestamp) -> Result<()> {
        let Some(reason) = self.queue.hear(ticket, answer, now) else { return Ok(()) };
        let Some((stamp, value)) = self.queue.given_up(ticket.place) else { return Ok(()) };
        let mut watch = self.blame.watch(&self.name);
        watch.at(stamp);
        let instead = match &self.or_else {
            Some(or_else) => or_else((self.request)(value), reason),
            None => {
                Err(format!("its look-up failed {} times, the last time: {reason}", self.attempts).into())
            }
        };
        let answer = match instead {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failures.describe(error, &watch)?),
        };
        drop(watch);
        self.queue.answer_instead(ticket.place, answer);
        Ok(())
    }

    /// Passes on what may leave, and writes the answers down in the order of the log.
    fn release(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        loop {
            let journaled = self.journaled;
            let bytes = |answer: &Outcome<A>| if journaled { encoded(answer) } else { Ok(Vec::new()) };
            if let Some(early) = self.queue.take_early(bytes) {
                let (stamp, value, answer) = early.map_err(|e| self.not_written(e))?;
                self.emit(stamp, value, answer, cx)?;
                continue;
            }
            match self.queue.pop() {
                None => break,
                Some(Entry::Signal(signal)) => self.pass_on(signal, cx)?,
                Some(Entry::Record(Waiting { stamp, request, phase })) => match phase {
                    Phase::Answered(value, answer) => {
                        if self.journaled {
                            let bytes = encoded(&answer).map_err(|e| self.not_written(e))?;
                            self.write_down(&stamp, request, &bytes);
                        }
                        self.emit(stamp, value, answer, cx)?;
                    }
                    Phase::Gone(bytes) if self.journaled => self.write_down(&stamp, request, &bytes),
                    _ => {}
                },
            }
        }
        self.failures.send(cx)?;
        self.out.send(cx)
    }

    fn pass_on(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.failures.signal(signal, cx)?;
        self.out.signal(signal, cx)
    }

    fn emit(&mut self, stamp: Stamp, value: T, answer: Outcome<A>, cx: &mut TaskContext<'_>) -> Result<()> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.failures.push(stamp, error, None);
                return Ok(());
            }
        };
        let mut watch = self.blame.watch(&self.name);
        watch.at(&stamp);
        self.out.push(stamp, (self.join)(value, answer));
        drop(watch);
        if self.out.is_full() { self.out.send(cx) } else { Ok(()) }
    }

    fn write_down(&mut self, stamp: &Stamp, request: u32, answer: &[u8]) {
        let at = position(&self.partitions, stamp.origin);
        self.partitions[at].answers.write(stamp.origin.offset().unwrap_or_default(), request, answer);
    }

    fn not_written(&self, error: BoxError) -> Error {
        Error::state(&self.name, "writing an answer into the journal", error)
    }
}

/// Which of this task's partitions a record is from.
fn position(partitions: &[Partition], origin: Origin) -> usize {
    let index = origin.partition();
    let found = partitions.iter().position(|partition| Some(partition.entry.index) == index);
    found.expect("look_up follows a source in the same task, which announces its partitions")
}

/// A record of the queue as a checkpoint has it.
fn saved<T: StateValue, A: StateValue>(record: &Waiting<T, A>) -> Result<SavedRecord, BoxError> {
    let Waiting { stamp, request, phase } = record;
    let (value, answer) = match phase {
        Phase::New(value) | Phase::Asked(value, _) | Phase::Pausing(value, _) | Phase::GivenUp(value) => {
            (Some(encoded(value)?), None)
        }
        Phase::Answered(value, answer) => (Some(encoded(value)?), Some(encoded(answer)?)),
        Phase::Gone(answer) => (None, Some(answer.clone())),
    };
    let offset = stamp.origin.offset().unwrap_or_default();
    Ok(SavedRecord { offset, time: stamp.time, watermark: stamp.watermark, request: *request, value, answer })
}

/// The other direction of [`saved`].
fn waiting<T: StateValue, A: StateValue>(
    partition: u16,
    saved: SavedRecord,
) -> Result<Waiting<T, A>, BoxError> {
    let SavedRecord { offset, time, watermark, request, value, answer } = saved;
    let phase = match (value, answer) {
        (Some(value), None) => Phase::New(decode(&value)?),
        (Some(value), Some(answer)) => Phase::Answered(decode(&value)?, decode(&answer)?),
        (None, answer) => Phase::Gone(answer.unwrap_or_default()),
    };
    Ok(Waiting { stamp: Stamp { time, watermark, origin: Origin::new(partition, offset) }, request, phase })
}

impl<T, Q, A, U, R, J> Operator<T> for Asking<T, Q, A, U, R, J>
where
    T: StateValue,
    Q: Hash + Send + 'static,
    A: StateValue,
    U: Send + 'static,
    R: Fn(&T) -> Q,
    J: Fn(T, A) -> U,
{
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let blame = self.blame.clone();
        let name = Arc::clone(&self.name);
        let mut watch = blame.watch(&name);
        batch.try_drain(|stamp, value| {
            watch.at(stamp);
            self.enqueue(*stamp, value).map_err(|e| watch.fail(e))
        })?;
        drop(watch);
        self.advance(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            // Before anything of it: nothing that is in the queue is of this partition.
            Signal::Partition(PartitionChange::Opened(index)) => {
                self.pass_on(signal, cx)?;
                self.open(index)?;
                self.share.set(!self.queue.is_empty(), self.queue.is_full());
                Ok(())
            }
            Signal::Barrier(epoch) => {
                self.advance(cx)?;
                self.save(epoch.0, cx)?;
                self.pass_on(signal, cx)
            }
            // A job that stops before its sources end has what is in the queue in its last checkpoint.
            Signal::End => {
                self.share.set(false, false);
                self.pass_on(signal, cx)
            }
            Signal::Watermark(_) | Signal::Idle | Signal::Active | Signal::Partition(_) => {
                self.queue.push_signal(signal);
                self.advance(cx)
            }
        }
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.advance(cx)?;
        self.failures.flush(cx)?;
        self.out.flush(cx)
    }
}
