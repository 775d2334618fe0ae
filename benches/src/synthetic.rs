//! Records made up on the spot, and a sink that forgets them: what is measured between is the engine.

use rivermark::sink::{Batch, CommitError, Committer, Epoch, Sink, SinkContext, SinkWriter};
use rivermark::source::{ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker};
use rivermark::{BoxError, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A cheap generator of well-spread keys below `keys` (splitmix64).
#[inline]
pub fn key_of(n: u64, keys: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % keys
}

/// The event time of a number in milliseconds: ten come at each moment, ten thousand in ten minutes.
#[inline]
pub fn time_of(n: u64) -> i64 {
    n as i64 / 10 * 600
}

/// The numbers below `events`, rising within each of some partitions: partition p of P has p, p + P, p + 2P and so on, so that all are
/// at about the same place.
pub struct Numbers {
    /// How many records there are.
    pub events: u64,
    /// How many partitions they are spread over.
    pub partitions: u32,
}

/// Reads one partition of [`Numbers`].
pub struct NumbersReader {
    next: u64,
    end: u64,
    step: u64,
}

impl Source for Numbers {
    type Item = u64;
    type Reader = NumbersReader;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Ok(named("numbers", self.partitions))
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<NumbersReader, BoxError> {
        let next =
            position.map_or(Ok(u64::from(partition)), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        Ok(NumbersReader { next, end: self.events, step: u64::from(self.partitions) })
    }
}

impl SourceReader<u64> for NumbersReader {
    fn poll(&mut self, max: usize, records: &mut Records<'_, u64>) -> Result<Polled, BoxError> {
        for _ in 0..max {
            if self.next >= self.end {
                return Ok(Polled::Ended);
            }
            records.push(self.next, Timestamp::MIN, self.next);
            self.next += self.step;
        }
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        self.next.to_le_bytes().to_vec()
    }
}

fn named(name: &str, partitions: u32) -> Vec<SourcePartition> {
    (0..partitions).map(|number| SourcePartition { number, name: format!("{name}[{number}]") }).collect()
}

/// `events` keys below `keys`, over some partitions.
pub struct Keys {
    /// How many records there are.
    pub events: u64,
    /// How many keys there are.
    pub keys: u64,
    /// How many partitions they are spread over.
    pub partitions: u32,
}

/// Reads one partition of [`Keys`].
pub struct KeysReader {
    at: u64,
    end: u64,
    keys: u64,
}

impl Source for Keys {
    type Item = u64;
    type Reader = KeysReader;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Ok(named("keys", self.partitions))
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<KeysReader, BoxError> {
        let share = self.events / u64::from(self.partitions);
        let start = u64::from(partition) * share;
        let at = position.map_or(Ok(start), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        Ok(KeysReader { at, end: start + share, keys: self.keys })
    }
}

impl SourceReader<u64> for KeysReader {
    fn poll(&mut self, max: usize, records: &mut Records<'_, u64>) -> Result<Polled, BoxError> {
        let end = self.end.min(self.at + max as u64);
        for n in self.at..end {
            records.push(n, Timestamp::MIN, key_of(n, self.keys));
        }
        self.at = end;
        Ok(if end == self.end { Polled::Ended } else { Polled::Ready })
    }

    fn position(&self) -> Vec<u8> {
        self.at.to_le_bytes().to_vec()
    }
}

/// The keys below `keys`, one after the other, again and again, but only so many records as are allowed: what has changed since a moment
/// is then known exactly, and nothing moves.
pub struct Held {
    /// How many keys there are.
    pub keys: u64,
    /// How many partitions they are spread over: partition p of P has p, p + P, p + 2P and so on.
    pub partitions: u32,
    /// How many records each partition may have given since the stream's beginning. A reader that waits sees a change within milliseconds.
    pub allowed: Arc<AtomicU64>,
}

/// Reads one partition of [`Held`].
pub struct HeldReader {
    at: u64,
    allowed: Arc<AtomicU64>,
    first: u64,
    step: u64,
    /// How many keys the partition has.
    keys: u64,
}

impl Source for Held {
    type Item = u64;
    type Reader = HeldReader;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Ok(named("held", self.partitions))
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<HeldReader, BoxError> {
        let at = position.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        let (first, step) = (u64::from(partition), u64::from(self.partitions));
        let keys = self.keys.saturating_sub(first).div_ceil(step);
        Ok(HeldReader { at, allowed: Arc::clone(&self.allowed), first, step, keys })
    }
}

impl SourceReader<u64> for HeldReader {
    fn poll(&mut self, max: usize, records: &mut Records<'_, u64>) -> Result<Polled, BoxError> {
        let end = self.allowed.load(Ordering::Relaxed).min(self.at + max as u64);
        if self.at >= end {
            return Ok(Polled::Pending);
        }
        for n in self.at..end {
            records.push(n, Timestamp::MIN, self.first + n % self.keys * self.step);
        }
        self.at = end;
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        self.at.to_le_bytes().to_vec()
    }
}

/// Takes everything and keeps nothing, for a flow whose result is its state.
pub struct Nowhere;
/// Writes nothing.
pub struct NowhereWriter;
struct NowhereCommitter;

impl<T: 'static> Sink<T> for Nowhere {
    type Writer = NowhereWriter;

    fn writer(&self, _cx: &SinkContext<'_>) -> Result<NowhereWriter, BoxError> {
        Ok(NowhereWriter)
    }

    fn committer(&self, _cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        Ok(Box::new(NowhereCommitter))
    }
}

impl<T> SinkWriter<T> for NowhereWriter {
    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), BoxError> {
        batch.clear();
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(None)
    }
}

impl Committer for NowhereCommitter {
    fn recover(&mut self, _tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch, _tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        Ok(())
    }
}
