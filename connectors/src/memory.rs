//! Sources and sinks in memory, for tests and examples.

use parking_lot::Mutex;
use rivermark_operators::sink::{Batch, CommitError, Committer, Epoch, Sink, SinkContext, SinkWriter};
use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark_operators::{BoxError, Timestamp};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Vectors as a bounded source: one partition each, positions are indexes.
#[derive(Clone, Debug)]
pub struct FromVec<T> {
    partitions: Arc<Vec<Vec<T>>>,
}

impl<T> FromVec<T> {
    /// One partition of these records.
    pub fn new(records: Vec<T>) -> Self {
        Self::partitions(vec![records])
    }

    /// A partition of each of these vectors.
    pub fn partitions(partitions: Vec<Vec<T>>) -> Self {
        FromVec { partitions: Arc::new(partitions) }
    }
}

impl<T: Clone + Send + Sync + 'static> Source for FromVec<T> {
    type Item = T;
    type Reader = FromVecReader<T>;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let partition = |number| SourcePartition { number, name: format!("vec[{number}]") };
        Ok((0..self.partitions.len() as u32).map(partition).collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<FromVecReader<T>, BoxError> {
        let Some(vector) = self.partitions.get(partition as usize) else {
            return Err(format!("there is no vec[{partition}] among the {}", self.partitions.len()).into());
        };
        let next = position.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        if next > vector.len() as u64 {
            let problem = format!("vec[{partition}] has {} records, and {next} were read", vector.len());
            return Err(problem.into());
        }
        Ok(FromVecReader {
            partitions: Arc::clone(&self.partitions),
            partition: partition as usize,
            next: next as usize,
        })
    }
}

/// Reads one vector of a [`FromVec`].
#[derive(Debug)]
pub struct FromVecReader<T> {
    partitions: Arc<Vec<Vec<T>>>,
    partition: usize,
    next: usize,
}

impl<T: Clone> SourceReader<T> for FromVecReader<T> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        let all = &self.partitions[self.partition];
        let end = all.len().min(self.next + max);
        for (at, value) in all.iter().enumerate().take(end).skip(self.next) {
            records.push(at as u64, Timestamp::MIN, value.clone());
        }
        self.next = end;
        Ok(if end == all.len() { Polled::Ended } else { Polled::Ready })
    }

    fn position(&self) -> Vec<u8> {
        (self.next as u64).to_le_bytes().to_vec()
    }

    fn backlog(&self) -> Option<u64> {
        Some((self.partitions[self.partition].len() - self.next) as u64)
    }
}

/// A sink that keeps what is committed in memory. Clones share it, also as several sinks of a flow; it outlives the job, but not the process.
pub struct Collect<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

/// A sink of a flow and its version: what one of them throws away when it recovers must not be another's.
#[derive(Clone, PartialEq)]
struct Owner {
    flow: String,
    version: u64,
    sink: String,
}

impl Owner {
    fn of(cx: &SinkContext<'_>) -> Owner {
        let connector = &cx.connector;
        Owner { flow: connector.flow.into(), version: connector.version, sink: connector.name.into() }
    }
}

struct Shared<T> {
    generation: u64,
    prepared: BTreeMap<u64, (Owner, Vec<T>)>,
    next: u64,
    committed: Vec<T>,
    done: HashSet<u64>,
}

impl<T> Shared<T> {
    /// Whether an attempt of this generation may still act.
    fn admit(&self, generation: u64) -> Result<(), String> {
        if self.generation > generation {
            return Err(format!("generation {generation} is fenced by generation {}", self.generation));
        }
        Ok(())
    }
}

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Collect { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Default for Collect<T> {
    fn default() -> Self {
        let shared = Shared {
            generation: 0,
            prepared: BTreeMap::new(),
            next: 0,
            committed: Vec::new(),
            done: HashSet::new(),
        };
        Collect { shared: Arc::new(Mutex::new(shared)) }
    }
}

impl<T> fmt::Debug for Collect<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collect({} rows)", self.shared.lock().committed.len())
    }
}

impl<T> Collect<T> {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<T: Clone> Collect<T> {
    /// The rows that are committed, in the order of their commits.
    pub fn rows(&self) -> Vec<T> {
        self.shared.lock().committed.clone()
    }
}

impl<T: Send + 'static> Sink<T> for Collect<T> {
    type Writer = CollectWriter<T>;

    fn writer(&self, cx: &SinkContext<'_>) -> Result<CollectWriter<T>, BoxError> {
        let owner = Owner::of(cx);
        Ok(CollectWriter { collect: self.clone(), owner, generation: cx.generation, rows: Vec::new() })
    }

    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        Ok(Box::new(CollectCommitter {
            collect: self.clone(),
            owner: Owner::of(cx),
            generation: cx.generation,
        }))
    }
}

/// One worker's share of a [`Collect`].
pub struct CollectWriter<T> {
    collect: Collect<T>,
    owner: Owner,
    generation: u64,
    rows: Vec<T>,
}

impl<T> SinkWriter<T> for CollectWriter<T> {
    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), BoxError> {
        self.rows.extend(batch.drain().map(|(_, row)| row));
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        let mut shared = self.collect.shared.lock();
        shared.admit(self.generation)?;
        if self.rows.is_empty() {
            return Ok(None);
        }
        let number = shared.next;
        shared.next += 1;
        shared.prepared.insert(number, (self.owner.clone(), std::mem::take(&mut self.rows)));
        Ok(Some(number.to_le_bytes().to_vec()))
    }
}

struct CollectCommitter<T> {
    collect: Collect<T>,
    owner: Owner,
    generation: u64,
}

impl<T> CollectCommitter<T> {
    fn numbers(&self, tokens: &[Vec<u8>]) -> Result<Vec<u64>, CommitError> {
        let number = |token: &Vec<u8>| token[..].try_into().map(u64::from_le_bytes).ok();
        let numbers: Option<_> = tokens.iter().map(number).collect();
        numbers.ok_or_else(|| CommitError::Refused("a token is none of this collection's".into()))
    }
}

impl<T: Send> Committer for CollectCommitter<T> {
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        {
            let mut shared = self.collect.shared.lock();
            shared.admit(self.generation).map_err(|e| CommitError::Refused(e.into()))?;
            shared.generation = self.generation;
        }
        self.commit(Epoch(0), tokens)?;
        self.collect.shared.lock().prepared.retain(|_, (owner, _)| *owner != self.owner);
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        let numbers = self.numbers(tokens)?;
        let mut shared = self.collect.shared.lock();
        shared.admit(self.generation).map_err(|e| CommitError::Refused(e.into()))?;
        for number in numbers {
            match shared.prepared.remove(&number) {
                Some((_, rows)) => {
                    shared.committed.extend(rows);
                    shared.done.insert(number);
                }
                None if shared.done.contains(&number) => {}
                None => {
                    return Err(CommitError::Refused(
                        format!("rows {number} were never prepared here").into(),
                    ));
                }
            }
        }
        Ok(())
    }
}
