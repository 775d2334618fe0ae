//! `processing_time`: records happen when they are read, and a replay repeats when that was.
//!
//! Processing time is not in the log, so results that depend on it differ from run to run. Here it is told where records are read, once, and
//! is then a time like any other: windows, timers and functions behind it do not know the difference. What was told is journaled.
//! 1. A record's time is the clock's when it is read, rounded down to the resolution, and never below that of the record before it in its
//!    partition. So no record is ever late.
//! 2. A partition's watermark is the clock itself, for whatever is read next is no earlier: windows end while nothing comes. The
//!    task's is the minimum over its partitions, or that of all tasks where it has none ([`crate::clocks`]).
//! 3. Where a record's time is not that of the one before it, its offset and its time are written down ([`crate::journal`]). So the journal has
//!    an entry for each tick of the resolution in which a partition gave records, of three to six bytes.
//! 4. A version of the flow that begins anew reads the journal of the one before it beside each partition, and gives its records the times
//!    they had; the watermark follows the records. Behind the last record that the earlier version had read, the clock is asked again.
//!
//! Other engines ask the clock at each operator (Flink's processing time) or at the source without writing it down (its former
//! ingestion time); neither can be replayed.

use super::Stream;
use super::telling::Telling;
use crate::batch::Batch;
use crate::clocks::Clock;
use crate::context::{PartitionStatePart, TaskContext};
use crate::edge::{Operator, Output, PartitionChange, Signal};
use crate::error::{BoxError, Error, Result};
use crate::journal::{Journal, JournalReader};
use crate::partitions::PartitionEntry;
use crate::plan::{NodeKind, NodeSpec};
use crate::time::{Timestamp, span_millis};
use std::sync::Arc;
use std::time::Duration;

impl<T: Send + 'static> Stream<T> {
    /// Tells processing time: a record happens when it is read, to a `resolution` of a millisecond or more. Windows, timers and
    /// functions behind it are of processing time, and end while no record comes.
    ///
    /// When records were read is journaled with the checkpoints, so another [version](crate::Flow::version) of the flow that replays the log
    /// sees the same times, up to where the earlier version had read in its newest checkpoint when the replay began; as long as the replay has
    /// not come so far, the earlier version's checkpoints must be kept. The operator is found by its [name](Stream::named). Functions whose
    /// result depends on the order of a key's records say [`in_event_time_order`](crate::KeyedStream::in_event_time_order), as with event time.
    ///
    /// The journal costs three to six bytes for each partition and tick of the resolution with records, for as long as the flow lives: at a
    /// second at most 15 MiB a month and partition. Windows of a minute need no finer ticks than that; timers and windows are late by up to one tick.
    ///
    /// As with [`Stream::event_time`], call it before [`Stream::key_by`]. Streams of processing time and of event time must not meet, in a
    /// join or union: an hour of the one is not an hour of the other. When the sources end, time ends: open windows fire.
    ///
    /// ```
    /// use rivermark_operators::{Flow, Stream, Windows, minutes, secs};
    /// # fn describe(requests: Stream<(u32, String)>) {
    /// // Requests of a user in each minute, as they came in.
    /// requests.processing_time(secs(1)).key_by(|(user, _)| *user).window(Windows::tumbling(minutes(1))).count();
    /// # }
    /// ```
    pub fn processing_time(self, resolution: Duration) -> Stream<T> {
        let mut spec = NodeSpec::new("processing_time", NodeKind::Transform, vec![], 1);
        spec.gives_event_time = true;
        spec.needs_partitions = true;
        spec.tells_time = true;
        spec.keeps_journals = true;
        let tick = span_millis(resolution);
        if tick < 1 {
            spec.problem = Some(format!("a resolution of {resolution:?}: give a millisecond or more"));
        }
        self.then(spec, move |builder, port| {
            let out = builder.output::<T>(port);
            let telling = Telling::of(builder);
            builder.attach(
                0,
                TellingProcessingTime {
                    name: builder.name(),
                    telling,
                    tick,
                    partitions: Vec::new(),
                    begun: false,
                    out,
                },
            );
            Ok(())
        })
    }
}

/// When the records of one partition were read.
#[derive(Default)]
struct Readings {
    /// The watermark: whatever is read next is no earlier.
    at: Timestamp,
    /// The entry that the journal ends with.
    last: Option<(u64, Timestamp)>,
    /// The offset behind the last record.
    read_to: u64,
    journal: Journal,
    repeats: Option<Repeats>,
}

/// The readings of an earlier version.
struct Repeats {
    journal: JournalReader,
    /// The entry that the last record fell under.
    current: Option<(u64, Timestamp)>,
    next: Option<(u64, Timestamp)>,
    /// The offset behind the last record that the earlier version had read.
    until: u64,
}

impl Repeats {
    fn begin(mut journal: JournalReader, until: u64) -> Result<Repeats, BoxError> {
        let next = read_entry(&mut journal, None)?;
        Ok(Repeats { journal, current: None, next, until })
    }

    /// When the record at `offset` was read; `None` if it had not been.
    fn time_of(&mut self, offset: u64) -> Result<Option<Timestamp>, BoxError> {
        if offset >= self.until {
            return Ok(None);
        }
        while let Some(next) = self.next
            && next.0 <= offset
        {
            self.current = Some(next);
            self.next = read_entry(&mut self.journal, self.current)?;
        }
        // A record that the earlier version left out before it told time, at the very beginning, was read no later than the next.
        Ok(self.current.or(self.next).map(|(_, time)| time))
    }
}

/// An entry holds the distances to the one before it: neither offsets nor times ever fall.
fn read_entry(
    journal: &mut JournalReader,
    before: Option<(u64, Timestamp)>,
) -> Result<Option<(u64, Timestamp)>, BoxError> {
    let Some(distance) = journal.number()? else { return Ok(None) };
    let later = journal.number()?.ok_or("the journal ends within an entry")?;
    let (offset, time) = before.unwrap_or((0, Timestamp::default()));
    Ok(Some((offset.saturating_add(distance), time.plus_millis(i64::try_from(later).unwrap_or(i64::MAX)))))
}

impl Readings {
    /// Lets the clock pass while nothing is read.
    fn pass(&mut self, now: Timestamp) {
        if self.repeats.is_none() {
            self.at = self.at.max(now);
        }
    }

    /// Takes the record at `offset`, when the clock says `now`; answers its time.
    #[inline]
    fn on_record(&mut self, offset: u64, now: Timestamp, tick: i64) -> Result<Timestamp, BoxError> {
        let read = match &mut self.repeats {
            None => now,
            Some(repeats) => match repeats.time_of(offset)? {
                Some(time) => time.floor(tick, 0),
                None => {
                    self.repeats = None;
                    now
                }
            },
        };
        let time = self.at.max(read);
        if self.last.is_none_or(|(_, last)| last != time) {
            self.write_down(offset, time);
        }
        self.at = time;
        self.read_to = offset + 1;
        Ok(time)
    }

    #[cold]
    fn write_down(&mut self, offset: u64, time: Timestamp) {
        // The clock never says a time before 1970: the distances are of whole numbers.
        let (before, then) = self.last.unwrap_or((0, Timestamp::default()));
        self.journal.push(offset.saturating_sub(before));
        self.journal.push(time.millis().saturating_sub(then.millis()).max(0) as u64);
        self.last = Some((offset, time));
    }

    /// Notes that all the earlier version had read may have been repeated.
    fn look_up(&mut self) {
        if self.repeats.as_ref().is_some_and(|repeats| self.read_to >= repeats.until) {
            self.repeats = None;
        }
    }

    fn save(&self) -> Vec<u8> {
        let (offset, time) = self.last.unwrap_or((u64::MAX, Timestamp::MIN));
        let words = [
            self.at.millis() as u64,
            self.read_to,
            offset,
            time.millis() as u64,
            u64::from(self.repeats.is_some()),
        ];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Takes back what [`Readings::save`] gave; answers whether it was still repeating, or `None` if it cannot be that.
    fn restore(&mut self, saved: &[u8]) -> Option<bool> {
        let (words, rest) = saved.as_chunks::<8>();
        let &[at, read_to, offset, time, repeating] = words else { return None };
        let word = u64::from_le_bytes;
        let time_of = |bytes| Timestamp::from_millis(word(bytes) as i64);
        self.at = time_of(at);
        self.read_to = word(read_to);
        self.last = (word(offset) != u64::MAX).then(|| (word(offset), time_of(time)));
        rest.is_empty().then_some(word(repeating) != 0)
    }
}

/// How far an earlier version had read, by what [`Readings::save`] gave there.
fn read_to(saved: &[u8]) -> Option<u64> {
    let mut readings = Readings::default();
    readings.restore(saved).map(|_| readings.read_to)
}

struct Partition {
    entry: Arc<PartitionEntry>,
    readings: Readings,
    ended: bool,
    clock: Arc<Clock>,
}

struct TellingProcessingTime<T> {
    name: Arc<str>,
    telling: Telling,
    tick: i64,
    partitions: Vec<Partition>,
    /// All partitions that are there at the start have been opened: before, some must not speak for others.
    begun: bool,
    out: Output<T>,
}

impl<T> TellingProcessingTime<T> {
    fn open(&mut self, index: u16) -> Result<()> {
        let entry = self.telling.entry(index);
        let mut readings = self.readings_of(&entry).map_err(|problem| {
            let attempt = format!("restoring when the records of {} were read", entry.name);
            Error::state(&self.name, attempt, problem)
        })?;
        readings.at = readings.at.max(self.telling.sent());
        readings.look_up();
        let clock = self.telling.clock(index, readings.at);
        self.partitions.push(Partition { entry, readings, ended: false, clock });
        Ok(())
    }

    /// What the checkpoint knows of a partition, and what is to be repeated of an earlier version's readings.
    fn readings_of(&self, entry: &PartitionEntry) -> Result<Readings, BoxError> {
        let mut readings = Readings { at: Timestamp::MIN, ..Readings::default() };
        let repeating = match entry.restored(&self.name) {
            Some(saved) => readings.restore(saved).ok_or("the checkpoint's bytes are not that")?,
            None => true,
        };
        if let Some(journal) = entry.restored_journal(&self.name) {
            readings.journal = Journal::restore(journal)?;
        }
        if let Some((saved, journal)) = entry.to_repeat(&self.name, repeating)? {
            let until = read_to(saved)
                .ok_or("the earlier version's checkpoint has something else under this name")?;
            readings.repeats = Some(Repeats::begin(journal.read(), until)?);
        }
        Ok(readings)
    }

    /// Lets time pass, and passes on how far it has come.
    fn settle(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.begun = self.begun || self.telling.follow().is_some();
        if !self.begun {
            return Ok(());
        }
        let now = cx.now.floor(self.tick, 0);
        let (mut moved, mut least) = (false, None);
        for partition in self.partitions.iter_mut().filter(|partition| !partition.ended) {
            partition.readings.pass(now);
            let at = partition.readings.at;
            moved |= partition.clock.advance(at);
            least = Some(least.unwrap_or(at).min(at));
        }
        if moved {
            self.telling.wake_followers(cx);
        }
        self.telling.pass_on(least, &mut self.out, cx)
    }

    fn save(&mut self, epoch: u64, cx: &mut TaskContext<'_>) {
        self.telling.save(cx);
        for partition in &mut self.partitions {
            let readings = &mut partition.readings;
            readings.at = readings.at.max(self.telling.reached());
            let index = partition.entry.index;
            cx.parts.add_journal(&self.name, index, &mut readings.journal, epoch);
            cx.parts.partition_states.push(PartitionStatePart {
                operator: Arc::clone(&self.name),
                partition: index,
                state: readings.save(),
            });
        }
    }
}

impl<T> Operator<T> for TellingProcessingTime<T> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let now = cx.now.floor(self.tick, 0);
        let stamps = batch.stamps_mut();
        let mut start = 0;
        // A batch of one reader is of one partition; a union's may change in between.
        while start < stamps.len() {
            let index = stamps[start].origin.partition();
            let run = stamps[start..].iter().take_while(|stamp| stamp.origin.partition() == index).count();
            let of_index = |partition: &&mut Partition| Some(partition.entry.index) == index;
            let partition = self.partitions.iter_mut().find(of_index);
            let partition = partition
                .expect("processing_time follows a source in the same task, which announces its partitions");
            for stamp in &mut stamps[start..start + run] {
                stamp.watermark = partition.readings.at;
                let offset = stamp.origin.offset().unwrap_or_default();
                stamp.time = partition.readings.on_record(offset, now, self.tick).map_err(|problem| {
                    let attempt = format!("repeating when the records of {} were read", partition.entry.name);
                    Error::state(&self.name, attempt, problem)
                })?;
            }
            partition.readings.look_up();
            start += run;
        }
        self.out.forward(batch, cx)?;
        self.settle(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            // What was known of time upstream is replaced; a silent partition has the clock's time like any other.
            Signal::Watermark(_) | Signal::Idle | Signal::Active => Ok(()),
            Signal::Partition(change) => {
                match change {
                    PartitionChange::Opened(index) => self.open(index)?,
                    PartitionChange::Ended(index) => {
                        let of_index = |partition: &&mut Partition| partition.entry.index == index;
                        if let Some(partition) = self.partitions.iter_mut().find(of_index) {
                            partition.ended = true;
                            self.telling.leave(&partition.clock);
                        }
                    }
                    PartitionChange::Idle(_) | PartitionChange::Active(_) => {}
                }
                self.out.signal(signal, cx)?;
                self.telling.wake_followers(cx);
                if let PartitionChange::Opened(_) = change { Ok(()) } else { self.settle(cx) }
            }
            Signal::Barrier(epoch) => {
                // The last barrier comes when all have ended, and with it the end of time.
                self.settle(cx)?;
                self.save(epoch.0, cx);
                self.out.signal(signal, cx)
            }
            Signal::End => self.out.signal(signal, cx),
        }
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.settle(cx)?;
        self.out.flush(cx)
    }
}
