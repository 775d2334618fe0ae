//! A source that gives no more than it is allowed to, so that a year of flights lasts long enough for something to happen in it.
//!
//! It wraps any source and never blocks: out of its allowance it is pending, as at the end of a topic, and whoever raises the
//! allowance wakes its worker.

use rivermark::BoxError;
use rivermark::source::{ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many more records may be read, over all partitions.
#[derive(Clone, Default)]
pub struct Allowance(Arc<Shared>);

#[derive(Default)]
struct Shared {
    left: AtomicU64,
    wakers: Mutex<Vec<Waker>>,
}

impl Allowance {
    /// Allows `records` more.
    pub fn add(&self, records: u64) {
        self.0.left.fetch_add(records, Ordering::Relaxed);
        let wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.iter().for_each(Waker::wake);
    }

    /// Takes up to `wanted` away, and answers how many that were.
    fn take(&self, wanted: u64) -> u64 {
        let take = |left: u64| Some(left.saturating_sub(wanted));
        let before = self.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        before.unwrap_or_else(|left| left).min(wanted)
    }
}

/// A source within an allowance.
pub struct Throttled<S> {
    source: S,
    allowance: Allowance,
}

impl<S> Throttled<S> {
    pub fn new(source: S, allowance: &Allowance) -> Self {
        Throttled { source, allowance: allowance.clone() }
    }
}

impl<S: Source> Source for Throttled<S> {
    type Item = S::Item;
    type Reader = ThrottledReader<S::Reader>;

    fn partitions(&self, cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        self.source.partitions(cx)
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        waker: Waker,
        cx: &ConnectorContext<'_>,
    ) -> Result<Self::Reader, BoxError> {
        let reader = self.source.reader(partition, position, waker.clone(), cx)?;
        self.allowance.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
        Ok(ThrottledReader { reader, allowance: self.allowance.clone() })
    }
}

/// Reads one partition within an allowance.
pub struct ThrottledReader<R> {
    reader: R,
    allowance: Allowance,
}

impl<T, R: SourceReader<T>> SourceReader<T> for ThrottledReader<R> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        let allowed = self.allowance.take(max as u64);
        if allowed == 0 {
            return Ok(Polled::Pending);
        }
        let before = records.len();
        let polled = self.reader.poll(allowed as usize, records);
        let read = (records.len() - before) as u64;
        // What the reader had no records for is for the other partitions. A worker that came away empty meanwhile is woken by the
        // next raise, not by this: waking at every look would keep the workers at the end of a topic busy.
        self.allowance.0.left.fetch_add(allowed.saturating_sub(read), Ordering::Relaxed);
        polled
    }

    fn position(&self) -> Vec<u8> {
        self.reader.position()
    }

    fn backlog(&self) -> Option<u64> {
        self.reader.backlog()
    }
}
