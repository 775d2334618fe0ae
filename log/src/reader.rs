//! Reading a partition: from a position to its end, and on when there is more.
//!
//! 1. The position is an offset. The segment that holds it is found in memory, the place in the segment by its index.
//! 2. The file is read ahead into one buffer, up to what is published. Each batch's checksums are verified, it is decompressed into a
//!    second buffer if need be, and its records are handed out as they lie there.
//! 3. At the end of a segment the next one is looked up by offset. A segment that retention removes meanwhile can be read to its end.

use crate::compression::{Codec, Decompressor};
use crate::disk::DiskFile;
use crate::error::{Error, Place, Result};
use crate::header::{HEADER_BYTES, Header};
use crate::partition::Partition;
use crate::record::Records;
use crate::scan::{Next, Window, next};
use crate::segment::Segment;
use crate::tail::{Registration, Waker};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a reader in another process than the writer's sleeps between two looks, at first and at most.
const FOLLOWER_NAPS: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));

/// Where to begin reading.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// At the first record there is.
    Earliest,
    /// Behind the last record that the reader would see now.
    Latest,
    /// At this offset, or where compaction has removed it, at the next.
    Offset(u64),
    /// At the first record whose timestamp is at least this; behind the last if there is none.
    Timestamp(i64),
}

/// Which records a reader sees.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Those that are as durable as the log's [`Durability`](crate::Durability) promises, and of a transaction either all or,
    /// in whatever partition, none yet.
    #[default]
    ReadCommitted,
    /// Also those that are appended and not yet synced, and those of a commit that is being applied. (A transaction's records have no place in the
    /// partition before its commit, so nobody sees records that may yet be aborted.)
    ReadUncommitted,
}

/// Reads one partition. Any number may read at the same time, also in other processes.
#[derive(Debug)]
pub struct Reader {
    partition: Arc<Partition>,
    isolation: Isolation,
    next: u64,
    at: Option<Cursor>,
    window: Window,
    plain: Vec<u8>,
    decompressor: Decompressor,
    registration: Option<Registration>,
}

/// Where the window stands.
#[derive(Debug)]
struct Cursor {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    /// The offset that is expected there.
    offset: u64,
}

/// A batch that lies in the reader's buffers.
struct Loaded {
    segment: Arc<Segment>,
    position: u64,
    header: Header,
}

impl Reader {
    pub(crate) fn new(partition: Arc<Partition>, position: Position, isolation: Isolation) -> Result<Reader> {
        let mut reader = Reader {
            partition,
            isolation,
            next: 0,
            at: None,
            window: Window::default(),
            plain: Vec::new(),
            decompressor: Decompressor::default(),
            registration: None,
        };
        reader.seek(position)?;
        Ok(reader)
    }

    /// Which partition it reads.
    pub fn place(&self) -> &Place {
        &self.partition.place
    }

    /// The offset of the next record it will read, which is the position to begin from again.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// One past the last record that it can see now.
    pub fn end(&self) -> u64 {
        match self.isolation {
            Isolation::ReadCommitted => self.partition.stable(),
            Isolation::ReadUncommitted => self.partition.end(),
        }
    }

    /// Goes on from somewhere else. Costs a look into the index, and reading 64 KiB, when the next batch is read; by timestamp at once.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] for an offset before the earliest or behind the end; the reader stays where it was.
    pub fn seek(&mut self, position: Position) -> Result<()> {
        self.partition.refresh()?;
        let (earliest, end) = (self.partition.earliest(), self.partition.end());
        let next = match position {
            Position::Earliest => earliest,
            Position::Latest => self.end(),
            Position::Offset(offset) if offset < earliest || offset > end => {
                let place = self.place().clone();
                return Err(Error::OffsetOutOfRange { place, offset, earliest, end });
            }
            Position::Offset(offset) => offset,
            Position::Timestamp(timestamp) => {
                let before = self.next;
                let found = self.find_timestamp(timestamp);
                self.next = before;
                found?
            }
        };
        (self.next, self.at) = (next, None);
        Ok(())
    }

    /// The first offset that is visible whose record's timestamp is at least this, or the end.
    fn find_timestamp(&mut self, timestamp: i64) -> Result<u64> {
        let end = self.end();
        let segments = self.partition.segments();
        let Some(segment) = segments.iter().find(|segment| segment.extent().max_timestamp >= timestamp)
        else {
            return Ok(end);
        };
        let entries = segment.entries(&*self.partition.environment.disk);
        let before = entries.partition_point(|entry| entry.max_timestamp < timestamp);
        let from = before.checked_sub(1).map_or(segment.base, |i| entries[i].offset);
        (self.next, self.at) = (from, None);
        while let Some(mut records) = self.next_batch()? {
            if let Some(record) = records.find(|record| record.timestamp >= timestamp) {
                return Ok(record.offset);
            }
        }
        Ok(end)
    }

    /// The next batch's records from the position on, or `None` if there are none now. They borrow from the reader's buffers; the
    /// position moves behind them at once.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for damage, again on every call: nothing is skipped. [`Error::OffsetOutOfRange`] if retention has
    /// overtaken the reader.
    pub fn next_batch(&mut self) -> Result<Option<Records<'_>>> {
        let from = self.next;
        let Some(Loaded { segment, position, header }) = self.load()? else { return Ok(None) };
        let body = match header.codec {
            Codec::None => self.window.consumed(header.body_bytes as usize),
            _ => &self.plain[..],
        };
        let records = match self.partition.records(&segment, position, &header, body) {
            Ok(records) => records,
            Err(error) => {
                self.at = None;
                return Err(error);
            }
        };
        self.next = header.next_offset();
        Ok(Some(if header.base_offset < from { records.skip_to(from) } else { records }))
    }

    /// Reads the next batch that reaches behind the position into the buffers, decompressed; `None` at the end.
    fn load(&mut self) -> Result<Option<Loaded>> {
        let mut has_reloaded = false;
        loop {
            let limit = match self.end() {
                end if end <= self.next => {
                    self.partition.refresh()?;
                    self.end()
                }
                end => end,
            };
            if limit <= self.next {
                return Ok(None);
            }
            let cursor = match self.at.take() {
                Some(cursor) => cursor,
                None => self.locate()?,
            };
            let segment = Arc::clone(&cursor.segment);
            let position = self.window.position();
            let expected = self.partition.expected(cursor.offset);
            let found = next(&mut self.window, &*cursor.file, segment.extent().bytes, &expected);
            match found.map_err(|e| Error::io("reading", &segment.path, e))? {
                Next::Batch(header) if header.base_offset >= limit => {
                    self.at = Some(cursor);
                    return Ok(None);
                }
                Next::Batch(header) if header.base_offset > self.next && !expected.gaps => {
                    let problem = format!("the index leads to offset {}, behind it", header.base_offset);
                    return Err(self.partition.corrupt(&segment, position, self.next, problem));
                }
                Next::Batch(header) => {
                    if header.next_offset() > self.next {
                        self.decompress(&segment, position, &header)?;
                    }
                    self.window.consume(header.total_bytes() as usize);
                    self.at = Some(Cursor { offset: header.next_offset(), ..cursor });
                    if header.next_offset() > self.next {
                        return Ok(Some(Loaded { segment, position, header }));
                    }
                }
                // On to the next segment. Behind the last records of a compacted one, others may have been.
                Next::End => self.next = self.next.max(segment.extent().next_offset),
                Next::Bad(_) if self.partition.environment.is_read_only() && !has_reloaded => {
                    // The writer's process may have put another file there.
                    has_reloaded = true;
                    self.partition.reload()?;
                }
                Next::Bad(problem) => {
                    return Err(self.partition.corrupt(&segment, position, cursor.offset, problem));
                }
                Next::TooLarge(bytes) => {
                    let limit = self.partition.environment.max_batch_bytes as u64;
                    return Err(Error::BatchTooLarge { place: self.place().clone(), bytes, limit });
                }
            }
        }
    }

    /// Puts the window at or before the position.
    fn locate(&mut self) -> Result<Cursor> {
        let (segment, file) = self.partition.locate(self.next)?;
        let entries = if self.next > segment.base {
            segment.entries(&*self.partition.environment.disk)
        } else {
            Vec::new()
        };
        let before = entries.partition_point(|entry| entry.offset <= self.next);
        let (position, offset) =
            before.checked_sub(1).map_or((0, segment.base), |i| (entries[i].position, entries[i].offset));
        self.window.seek(position);
        Ok(Cursor { segment, file, offset })
    }

    /// Decompresses the batch at the front of the window.
    fn decompress(&mut self, segment: &Segment, position: u64, header: &Header) -> Result<()> {
        if header.codec == Codec::None {
            return Ok(());
        }
        self.plain.resize(header.plain_bytes as usize, 0);
        let packed = self.window.bytes(HEADER_BYTES, HEADER_BYTES + header.body_bytes as usize);
        self.decompressor.decompress(header.codec, packed, &mut self.plain).map_err(|problem| {
            let problem = format!("the batch cannot be decompressed: {problem}");
            self.partition.corrupt(segment, position, header.base_offset, problem)
        })
    }

    /// Blocks until there is something to read, or the deadline has passed; says whether there is. For threads; a worker that must not block
    /// registers a waker.
    pub fn wait(&mut self, deadline: Instant) -> Result<bool> {
        if !self.partition.environment.is_read_only() {
            return Ok(self.partition.tail().wait(deadline, || self.next < self.end()));
        }
        let (mut nap, longest) = FOLLOWER_NAPS;
        loop {
            self.partition.refresh()?;
            let now = Instant::now();
            if self.next < self.end() || now >= deadline {
                return Ok(self.next < self.end());
            }
            std::thread::sleep(nap.min(deadline - now));
            nap = (nap * 2).min(longest);
        }
    }

    /// Calls `waker` whenever more can be read, until the reader is dropped or another waker registered. It is called by the thread that
    /// appends (or commits, or syncs), so it should only unpark somebody, and must not call the log. It may be called without need. To miss nothing, register first and
    /// read to the end then.
    ///
    /// In a log opened read-only, nobody appends; it is called by whoever finds more: any reader, or
    /// [`Log::maintain`](crate::Log::maintain).
    pub fn wake_with(&mut self, waker: impl Fn() + Send + Sync + 'static) {
        let waker: Waker = Arc::new(waker);
        self.registration = Some(Registration::new(Arc::clone(self.partition.tail()), waker));
    }
}
