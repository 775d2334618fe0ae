//! Appending events to the log: as a schedule has them, or as fast as the job takes them.
//!
//! Event n goes to partition `n % partitions`, so that its offset tells its number again.

use super::schedule::{Firings, Schedule};
use crate::codec::EventFormat;
use crate::event::Event;
use crate::generator::Generator;
use rivermark::BoxError;
use rivermark::connectors::format::Format;
use rivermark::log::{RecordBatch, Topic};
use std::marker::PhantomData;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Between two looks at what is due.
const TICK: Duration = Duration::from_micros(500);
/// Events that are appended at once at most: some 200 KiB a partition.
const MOST_AT_ONCE: u64 = 2000;
/// Events that may lie ahead of the job where it tells the speed: enough for it to find something always.
const MOST_AHEAD: u64 = 50_000;

/// Appends events to a topic.
pub(crate) struct Feed<'a, E> {
    topic: &'a Topic,
    generator: Generator,
    batches: Vec<RecordBatch>,
    /// Who needs to know which event lets a window fire.
    firings: Option<&'a Mutex<Firings>>,
    next: u64,
    form: PhantomData<E>,
}

impl<'a, E: Event> Feed<'a, E>
where
    EventFormat: Format<E>,
{
    pub(crate) fn new(topic: &'a Topic, generator: Generator, firings: Option<&'a Mutex<Firings>>) -> Self {
        let batches = (0..topic.partitions()).map(|_| RecordBatch::new()).collect();
        Feed { topic, generator, batches, firings, next: 0, form: PhantomData }
    }

    /// Appends `events` events, each once it is due by a schedule that begins at `beginning`. Whoever is behind it appends what is due at once.
    pub(crate) fn by_schedule(
        &mut self,
        schedule: Schedule,
        beginning: Instant,
        events: u64,
        is_over: impl Fn() -> bool,
    ) -> Result<(), BoxError> {
        while self.next < events && !is_over() {
            let due = schedule.due_by(beginning.elapsed().as_nanos() as u64).min(events);
            match due.saturating_sub(self.next) {
                0 => std::thread::sleep(TICK),
                some => {
                    self.append(some.min(MOST_AT_ONCE))?;
                    // A producer that appended each event by itself would spend its time on appending.
                    if some < MOST_AT_ONCE {
                        std::thread::sleep(TICK);
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends events for as long, but never many more than the job has `read`.
    pub(crate) fn as_fast_as_read(
        &mut self,
        time: Duration,
        read: impl Fn() -> u64,
        is_over: impl Fn() -> bool,
    ) -> Result<(), BoxError> {
        let (beginning, mut has_read) = (Instant::now(), 0);
        while beginning.elapsed() < time && !is_over() {
            if self.next >= has_read + MOST_AHEAD {
                has_read = read();
            }
            match self.next < has_read + MOST_AHEAD {
                true => self.append(MOST_AT_ONCE)?,
                false => std::thread::sleep(TICK),
            }
        }
        Ok(())
    }

    fn append(&mut self, events: u64) -> Result<(), BoxError> {
        let partitions = self.batches.len() as u64;
        // Whoever waits for an event knows of it before it can be read.
        let mut firings = self.firings.map(|firings| firings.lock().expect("nobody panics with it"));
        for n in self.next..self.next + events {
            let (event, partition) = (self.generator.event::<E>(n), (n % partitions) as usize);
            if let Some(firings) = &mut firings {
                firings.note(partition, event.date_time(), n);
            }
            let time = event.date_time().millis();
            self.batches[partition].push_with(None, time, |bytes| EventFormat.encode(&event, bytes))?;
        }
        drop(firings);
        self.next += events;
        for (partition, batch) in self.batches.iter_mut().enumerate() {
            self.topic.append(partition as u32, batch)?;
        }
        Ok(())
    }
}
