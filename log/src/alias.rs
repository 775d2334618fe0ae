//! Aliases: a name for what several topics hold one after the other.
//!
//! An alias is a list of *segments*. Each is a range of a topic's offsets, in every partition; the last one is open. Read one after the other they
//! are one partitioned sequence with offsets of its own: record `o` of a segment that begins at `from` has offset `base + o - from`, where `base`
//! is where the segment before it ended. So an alias is read as a topic is, and a position in it stays what it is when a segment is closed and
//! another one is opened behind it.
//!
//! The log does not keep aliases; whoever does hands them in ([`Aliases::set`]), with one duty: a segment is closed *before* records appear
//! behind its end. Then no reader sees one of them:
//! 1. a reader looks at the alias, then reads a batch, then sees whether the alias has changed since;
//! 2. if it has, it throws the batch away, and looks again.
//!
//! A record behind the end that is in the batch appeared after the change, so the reader sees that there was one.

use crate::error::{Error, Place, Result};
use crate::log::Log;
use crate::reader::{Isolation, Position, Reader};
use crate::record::{RecordView, Records};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an alias takes of one partition of a topic.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AliasRange {
    /// The first offset of the topic.
    pub from: u64,
    /// One past the last; `None` for as far as it goes.
    pub until: Option<u64>,
    /// The alias's offset of the record at `from`.
    pub base: u64,
}

/// A part of an alias: ranges of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasSegment {
    /// The topic.
    pub topic: String,
    /// By partition. One that is not here is taken from its beginning as far as it goes.
    pub ranges: Vec<AliasRange>,
}

impl AliasSegment {
    fn range(&self, partition: u32) -> AliasRange {
        let all = AliasRange { from: 0, until: None, base: 0 };
        self.ranges.get(partition as usize).copied().unwrap_or(all)
    }
}

type Wake = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Inner {
    segments: RwLock<HashMap<String, Arc<Vec<AliasSegment>>>>,
    /// How often they have changed.
    changes: AtomicU64,
    wakers: RwLock<Vec<(u64, Wake)>>,
    next_waker: AtomicU64,
}

/// The aliases that are known in a process. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Aliases {
    inner: Arc<Inner>,
}

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Aliases").field(&*self.inner.segments.read()).finish()
    }
}

impl Aliases {
    /// Says what an alias is now. No record may have appeared yet behind the end of a segment that this closes.
    pub fn set(&self, alias: &str, segments: Vec<AliasSegment>) {
        let mut known = self.inner.segments.write();
        if known.get(alias).is_some_and(|known| **known == segments) {
            return;
        }
        known.insert(alias.to_owned(), Arc::new(segments));
        self.inner.changes.fetch_add(1, Ordering::SeqCst);
        drop(known);
        let wakers = self.inner.wakers.read().clone();
        wakers.iter().for_each(|(_, wake)| wake());
    }

    /// Its segments, oldest first.
    pub fn get(&self, alias: &str) -> Option<Arc<Vec<AliasSegment>>> {
        self.inner.segments.read().get(alias).cloned()
    }

    /// Reads a partition of an alias, from a position in it on.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`] if there is no such alias, or its topic is not there yet; otherwise as [`Topic::reader`](crate::Topic::reader).
    pub fn reader(&self, log: &Log, alias: &str, partition: u32, start: Position) -> Result<AliasReader> {
        let mut reader = AliasReader {
            log: log.clone(),
            aliases: self.clone(),
            alias: alias.to_owned(),
            partition,
            next: 0,
            at: None,
            wake: None,
            registration: None,
        };
        reader.next = reader.locate(start)?;
        Ok(reader)
    }

    fn changes(&self) -> u64 {
        self.inner.changes.load(Ordering::SeqCst)
    }
}

/// Reads one partition of an alias; see the module's page. It sees what is committed.
pub struct AliasReader {
    log: Log,
    aliases: Aliases,
    alias: String,
    partition: u32,
    next: u64,
    at: Option<At>,
    wake: Option<Wake>,
    registration: Option<Registration>,
}

/// Where a reader is.
struct At {
    /// The number of changes before the alias was looked at.
    changes: u64,
    range: AliasRange,
    reader: Reader,
}

/// Takes a waker away when it is dropped.
struct Registration {
    aliases: Aliases,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.aliases.inner.wakers.write().retain(|(id, _)| *id != self.id);
    }
}

impl AliasReader {
    /// The offset in the alias of the next record.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Calls `wake` whenever more can be read, as [`Reader::wake_with`] does; may be called without need.
    pub fn wake_with(&mut self, wake: impl Fn() + Send + Sync + 'static) {
        let wake: Wake = Arc::new(wake);
        let id = self.aliases.inner.next_waker.fetch_add(1, Ordering::Relaxed);
        self.aliases.inner.wakers.write().push((id, Arc::clone(&wake)));
        self.registration = Some(Registration { aliases: self.aliases.clone(), id });
        self.wake = Some(wake);
        // Opened again, with the waker.
        self.at = None;
    }

    /// The next records; `None` if there are none now. No records may come that are all of a batch which the alias has no part in: then there may
    /// be more, and the caller asks again.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] if what it would read next is not there any more: retention has taken it, or the version that wrote it was
    /// retired. Otherwise as [`Reader::next_batch`].
    pub fn next_batch(&mut self) -> Result<Option<AliasRecords<'_>>> {
        if self.at.as_ref().is_none_or(|at| at.changes != self.aliases.changes()) {
            self.at = Some(self.open()?);
        }
        let Some(At { changes, range, reader }) = &mut self.at else { return Ok(None) };
        let until = range.until.unwrap_or(u64::MAX);
        if reader.position() >= until {
            // The next segment is looked for behind its end.
            self.next = range.base + (until - range.from);
            *changes = u64::MAX;
            return Ok(Some(AliasRecords::none()));
        }
        let before = reader.position();
        let end = reader.end().min(until);
        let Some(records) = reader.next_batch()? else {
            // What lies before the end may have been compacted away.
            if end >= until {
                self.next = range.base + (until - range.from);
                *changes = u64::MAX;
                return Ok(Some(AliasRecords::none()));
            }
            return Ok(None);
        };
        if *changes != self.aliases.changes() {
            *changes = u64::MAX;
            return Ok(Some(AliasRecords::none()));
        }
        let reached = records.end().clamp(before, until);
        self.next = range.base + (reached - range.from);
        Ok(Some(AliasRecords { records: Some(records), range: *range }))
    }

    /// Where a position is in the alias.
    fn locate(&self, start: Position) -> Result<u64> {
        let segments = self.segments()?;
        let topic = |segment: &AliasSegment, position| {
            self.log.topic(&segment.topic)?.reader(self.partition, position, Isolation::ReadCommitted)
        };
        let offset = |range: AliasRange, at: u64| {
            range.base + at.clamp(range.from, range.until.unwrap_or(u64::MAX)) - range.from
        };
        match start {
            Position::Offset(offset) => Ok(offset),
            Position::Earliest | Position::Timestamp(_) => {
                // The first segment in which there is a record of that kind.
                for segment in segments.iter() {
                    let (range, reader) = (segment.range(self.partition), topic(segment, start)?);
                    if range.until.is_none_or(|until| reader.position() < until) {
                        return Ok(offset(range, reader.position()));
                    }
                }
                Ok(0)
            }
            Position::Latest => {
                let Some(last) = segments.last() else { return Ok(0) };
                Ok(offset(last.range(self.partition), topic(last, start)?.position()))
            }
        }
    }

    fn segments(&self) -> Result<Arc<Vec<AliasSegment>>> {
        self.aliases.get(&self.alias).ok_or_else(|| Error::UnknownTopic { topic: self.alias.clone() })
    }

    /// Opens the segment that has the next record.
    fn open(&self) -> Result<At> {
        // Before the look: a change after it is seen.
        let changes = self.aliases.changes();
        let segments = self.segments()?;
        let holds = |range: AliasRange| {
            range.base <= self.next
                && range.until.is_none_or(|until| self.next < range.base + (until - range.from))
        };
        // An empty segment holds nothing; the last one is open.
        let found = segments.iter().map(|segment| (segment, segment.range(self.partition)));
        let found = found.rev().find(|(_, range)| holds(*range));
        let Some((segment, range)) = found else {
            let bounds = segments.iter().map(|segment| segment.range(self.partition).base);
            let place = Place { topic: self.alias.as_str().into(), partition: self.partition };
            let (earliest, end) = (bounds.clone().min().unwrap_or(0), bounds.max().unwrap_or(0));
            return Err(Error::OffsetOutOfRange { place, offset: self.next, earliest, end });
        };
        let start = Position::Offset(range.from + (self.next - range.base));
        let topic = self.log.topic(&segment.topic)?;
        let mut reader = topic.reader(self.partition, start, Isolation::ReadCommitted)?;
        if let Some(wake) = self.wake.clone() {
            reader.wake_with(move || wake());
        }
        Ok(At { changes, range, reader })
    }
}

/// Records of an alias: an iterator. Their offsets are those of the alias.
pub struct AliasRecords<'a> {
    records: Option<Records<'a>>,
    range: AliasRange,
}

impl AliasRecords<'_> {
    fn none() -> Self {
        AliasRecords { records: None, range: AliasRange { from: 0, until: None, base: 0 } }
    }
}

impl<'a> Iterator for AliasRecords<'a> {
    type Item = RecordView<'a>;

    fn next(&mut self) -> Option<RecordView<'a>> {
        let mut record = self.records.as_mut()?.next()?;
        if self.range.until.is_some_and(|until| record.offset >= until) {
            self.records = None;
            return None;
        }
        record.offset = self.range.base + (record.offset - self.range.from);
        Some(record)
    }
}
