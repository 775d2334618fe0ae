//! A source and a sink small enough to be seen through: numbers from memory, and rows that appear when committed.

use parking_lot::Mutex;
use rivermark_checkpoint::Epoch;
use rivermark_operators::sink::{CommitError, Committer, Sink, SinkContext, SinkWriter};
use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark_operators::{Batch, BoxError, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Partitions of values, each read in order.
#[derive(Clone)]
pub struct Values<T> {
    pub partitions: Arc<Vec<Vec<T>>>,
    /// Never ends.
    pub live: bool,
    /// How many values a poll gives at the most.
    pub per_poll: usize,
}

pub struct ValuesReader<T> {
    partitions: Arc<Vec<Vec<T>>>,
    partition: usize,
    at: usize,
    live: bool,
    per_poll: usize,
}

impl<T: Clone + Send + Sync + 'static> Source for Values<T> {
    type Item = T;
    type Reader = ValuesReader<T>;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let partition = |n| SourcePartition { number: n as u32, name: format!("values[{n}]") };
        Ok((0..self.partitions.len()).map(partition).collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<ValuesReader<T>, BoxError> {
        let at = position.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        let partitions = Arc::clone(&self.partitions);
        Ok(ValuesReader {
            partitions,
            partition: partition as usize,
            at: at as usize,
            live: self.live,
            per_poll: self.per_poll,
        })
    }
}

impl<T: Clone> SourceReader<T> for ValuesReader<T> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        let values = &self.partitions[self.partition];
        let end = values.len().min(self.at + max.min(self.per_poll));
        for (at, value) in values[self.at..end].iter().enumerate() {
            records.push((self.at + at) as u64, Timestamp::MIN, value.clone());
        }
        self.at = end;
        Ok(match (end == values.len(), self.live) {
            (true, false) => Polled::Ended,
            (true, true) => Polled::Pending,
            (false, _) => Polled::Ready,
        })
    }

    fn position(&self) -> Vec<u8> {
        (self.at as u64).to_le_bytes().to_vec()
    }
}

/// Rows that appear when they are committed, exactly once.
#[derive(Clone)]
pub struct Rows<T>(Arc<Mutex<RowsInner<T>>>);

struct RowsInner<T> {
    generation: u64,
    next_token: u64,
    prepared: BTreeMap<u64, Vec<T>>,
    committed: Vec<T>,
    ever_committed: Vec<u64>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Rows(Arc::new(Mutex::new(RowsInner {
            generation: 0,
            next_token: 0,
            prepared: BTreeMap::new(),
            committed: Vec::new(),
            ever_committed: Vec::new(),
        })))
    }
}

impl<T: Clone + Ord> Rows<T> {
    pub fn sorted(&self) -> Vec<T> {
        let mut rows = self.0.lock().committed.clone();
        rows.sort();
        rows
    }

    pub fn len(&self) -> usize {
        self.0.lock().committed.len()
    }
}

pub struct RowsWriter<T> {
    rows: Rows<T>,
    generation: u64,
    open: Vec<T>,
}

impl<T: Send + 'static> Sink<T> for Rows<T> {
    type Writer = RowsWriter<T>;

    fn writer(&self, cx: &SinkContext<'_>) -> Result<RowsWriter<T>, BoxError> {
        Ok(RowsWriter { rows: Rows(Arc::clone(&self.0)), generation: cx.generation, open: Vec::new() })
    }

    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        self.0.lock().generation = cx.generation;
        Ok(Box::new(RowsCommitter(Rows(Arc::clone(&self.0)))))
    }
}

impl<T> SinkWriter<T> for RowsWriter<T> {
    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), BoxError> {
        self.open.extend(batch.drain().map(|(_, row)| row));
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        let mut inner = self.rows.0.lock();
        if inner.generation != self.generation {
            return Err("fenced".into());
        }
        if self.open.is_empty() {
            return Ok(None);
        }
        inner.next_token += 1;
        let token = inner.next_token;
        inner.prepared.insert(token, std::mem::take(&mut self.open));
        Ok(Some(token.to_le_bytes().to_vec()))
    }
}

struct RowsCommitter<T>(Rows<T>);

impl<T: Send> Committer for RowsCommitter<T> {
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        self.commit(Epoch(0), tokens)?;
        self.0.0.lock().prepared.clear();
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        let mut inner = self.0.0.lock();
        for token in tokens {
            let token = u64::from_le_bytes(
                token[..].try_into().map_err(|_| CommitError::Refused("no token".into()))?,
            );
            match inner.prepared.remove(&token) {
                Some(rows) => {
                    inner.committed.extend(rows);
                    inner.ever_committed.push(token);
                }
                None if inner.ever_committed.contains(&token) => {}
                None => return Err(CommitError::Refused(format!("token {token} was never prepared").into())),
            }
        }
        Ok(())
    }
}
