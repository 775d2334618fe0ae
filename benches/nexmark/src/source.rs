//! The generator as a source of the engine: replayable, since event n is a function of n.

use crate::event::Event;
use crate::generator::Generator;
use rivermark::source::{ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker};
use rivermark::{BoxError, Timestamp};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Events that follow each other in one partition, before the next partition has as many.
pub const BLOCK: u64 = 1000;

/// The first events of a [`Generator`], in partitions: block after block of [`BLOCK`] events, in turn. A position is the number of the next event.
///
/// Within a partition the numbers rise, so no event is further out of order there than in the whole stream.
pub struct Events<E> {
    generator: Generator,
    events: u64,
    partitions: u32,
    allowed: Option<Arc<AtomicU64>>,
    at_most: usize,
    form: PhantomData<fn() -> E>,
}

impl<E> Events<E> {
    /// The first `events` events, in so many partitions.
    ///
    /// # Panics
    /// Without a partition.
    pub fn new(generator: Generator, events: u64, partitions: u32) -> Self {
        assert!(partitions > 0, "events without a partition");
        Events { generator, events, partitions, allowed: None, at_most: usize::MAX, form: PhantomData }
    }

    /// Gives no event whose number is not below `allowed`, which may rise: for tests that stop a job at a certain place.
    pub fn allowed(mut self, allowed: Arc<AtomicU64>) -> Self {
        self.allowed = Some(allowed);
        self
    }

    /// Gives at most so many events at once: for tests that want many steps.
    pub fn at_most(mut self, events: usize) -> Self {
        self.at_most = events.max(1);
        self
    }
}

impl<E: Event> Source for Events<E> {
    type Item = E;
    type Reader = EventsReader<E>;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let partition = |number| SourcePartition { number, name: format!("events[{number}]") };
        Ok((0..self.partitions).map(partition).collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<EventsReader<E>, BoxError> {
        let first = u64::from(partition) * BLOCK;
        let next = position.map_or(Ok(first), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        Ok(EventsReader {
            generator: self.generator,
            next,
            end: self.events,
            skip: u64::from(self.partitions - 1) * BLOCK,
            allowed: self.allowed.clone(),
            at_most: self.at_most,
            form: PhantomData,
        })
    }
}

/// Reads one partition of [`Events`].
pub struct EventsReader<E> {
    generator: Generator,
    next: u64,
    end: u64,
    /// How many events lie between two blocks.
    skip: u64,
    allowed: Option<Arc<AtomicU64>>,
    at_most: usize,
    form: PhantomData<fn() -> E>,
}

impl<E: Event> SourceReader<E> for EventsReader<E> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, E>) -> Result<Polled, BoxError> {
        let allowed = self.allowed.as_ref().map_or(self.end, |allowed| allowed.load(Ordering::Relaxed));
        let max = max.min(self.at_most) as u64;
        let mut left = max;
        while left > 0 && self.next < self.end.min(allowed) {
            let block_end = (self.next / BLOCK + 1) * BLOCK;
            let to = block_end.min(self.end).min(allowed).min(self.next + left);
            for n in self.next..to {
                self.generator.give(n, |event| records.push(n, Timestamp::MIN, event));
            }
            left -= to - self.next;
            self.next = if to == block_end { to + self.skip } else { to };
        }
        Ok(match () {
            () if self.next >= self.end => Polled::Ended,
            () if left < max => Polled::Ready,
            () => Polled::Pending,
        })
    }

    fn position(&self) -> Vec<u8> {
        self.next.to_le_bytes().to_vec()
    }
}
