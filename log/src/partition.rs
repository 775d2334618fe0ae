//! A partition: what is appended to it, what is visible of it, what of it is durable.
//!
//! 1. A batch is compressed and checksummed outside the lock. Inside, it gets its offset and is written in one piece; if that fails, what was
//!    written of it is cut off.
//! 2. A full segment is synced, the next begins, and the index of the one and the table of producers for the other are written. So all but the last
//!    segment are durable and known to be whole. Upkeep begins the next ahead of time where the last would be full soon: it syncs most of it
//!    first, so that an append waits for a few milliseconds' records to reach the disk and not for a segment's.
//! 3. Two ends are published. The *end* is one past the last record written. The *stable end*, for read-committed readers, is at most that:
//!    with [`Durability::Always`] what is synced, and while a transaction is being applied no more than what stood before it.
//! 4. Syncs are shared: whoever needs one while none runs performs it, outside the append lock, for all who have appended until then; the
//!    others wait for it. With [`Durability::Interval`] upkeep does so at half the time, so that an append, which must at the whole of it, seldom
//!    has to. After a failed sync nobody knows what the file holds (the kernel may have dropped the pages), so the
//!    partition takes no appends until it is opened again.

use crate::batch::{Author, RecordBatch};
use crate::disk::DiskFile;
use crate::environment::Environment;
use crate::error::{Error, Place, Result};
use crate::follow::Follower;
use crate::header::{HEADER_BYTES, Header, salt};
use crate::options::{Durability, TopicOptions};
use crate::producers::{Producers, Verdict};
use crate::record::Records;
use crate::recovery::{Opened, Opening, Recovery};
use crate::retention::{expired, is_stale};
use crate::scan::Expected;
use crate::segment::{Extent, Indexed, Segment, producers_name};
use crate::tail::Tail;
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What became of an appended batch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record; the others follow.
    pub base_offset: u64,
    /// How many records it has.
    pub count: u32,
    /// Whether it had been appended before, by the same producer with the same sequence, and was not appended again.
    pub duplicate: bool,
}

/// The numbering of an idempotent producer.
///
/// A producer numbers its records within each partition: the first is 0. A batch that is sent again with the same number is acknowledged
/// and not appended again; one that leaves numbers out is refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The producer's own number, from 1 to 2^63 - 1, chosen by the embedder and kept over restarts.
    pub producer: u64,
    /// The number of the batch's first record.
    pub sequence: u64,
}

/// Producer numbers from here on belong to transactional ids.
pub(crate) const TRANSACTIONAL_PRODUCERS: u64 = 1 << 63;

/// What is to be known about a partition.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The first offset there is.
    pub earliest: u64,
    /// One past the last offset.
    pub end: u64,
    /// One past the last offset that read-committed readers see.
    pub stable: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Records of all segments.
    pub records: u64,
    /// Number of segments.
    pub segments: usize,
    /// Greatest timestamp of any record; `None` if there is none.
    pub max_timestamp: Option<i64>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) environment: Arc<Environment>,
    pub(crate) place: Place,
    pub(crate) directory: PathBuf,
    pub(crate) options: TopicOptions,
    pub(crate) salt: u32,
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    end: AtomicU64,
    stable: AtomicU64,
    role: Role,
    syncs: Mutex<Syncs>,
    synced: Condvar,
    tail: Arc<Tail>,
    /// The last segment and its bytes when upkeep last looked.
    looked: Mutex<Option<(u64, u64)>>,
    /// One retention, compaction or segment begun ahead of time at once.
    pub(crate) upkeep: Mutex<()>,
}

#[derive(Debug)]
enum Role {
    Writer(Mutex<Writer>),
    Follower(Mutex<Follower>),
}

/// The appending side.
#[derive(Debug)]
pub(crate) struct Writer {
    file: Arc<dyn DiskFile>,
    segment: Arc<Segment>,
    producers: Producers,
    /// Transactions being applied, and the end before each.
    holds: Vec<(u64, u64)>,
    /// Bytes behind the end may be left of a write that failed.
    must_truncate: bool,
    /// A crash may lose the file's name: the folder has not been synced since it was created.
    is_unnamed: bool,
    /// Upkeep is syncing the segment in order to begin the next.
    is_awaiting_next: bool,
}

/// A segment that was closed, and what is still to be written about it.
struct Closed {
    segment: Arc<Segment>,
    indexed: Indexed,
    /// The table of producers that the next segment begins with.
    producers: Vec<u8>,
}

#[derive(Debug)]
struct Syncs {
    end: u64,
    /// When the last one began that has succeeded: what was appended since may not be durable.
    at_ms: i64,
    /// When the one began that is running.
    running: Option<i64>,
    failed: Option<String>,
}

impl Partition {
    /// Opens it for reading and writing, and repairs what a crash has left.
    pub(crate) fn open(
        environment: &Arc<Environment>,
        place: Place,
        directory: PathBuf,
        options: TopicOptions,
        recovery: &mut Recovery,
    ) -> Result<Partition> {
        let compacted = options.compaction.is_some();
        let opening = Opening { environment, place: &place, directory: &directory, compacted };
        let (segments, role) = if environment.is_read_only() {
            (opening.for_follower()?, Role::Follower(Mutex::default()))
        } else {
            let Opened { segments, producers, file } = opening.for_writer(recovery)?;
            let segment = Arc::clone(&segments[segments.len() - 1]);
            if environment.durability != Durability::OsBuffered {
                // A process that was killed may have left bytes that no sync has covered.
                file.sync().map_err(|e| Error::unknown("syncing", &segment.path, e))?;
            }
            let writer = Writer {
                file,
                segment,
                producers,
                holds: Vec::new(),
                must_truncate: false,
                is_unnamed: false,
                is_awaiting_next: false,
            };
            (segments, Role::Writer(Mutex::new(writer)))
        };
        let end = segments.last().map_or(0, |segment| segment.extent().next_offset);
        let syncs = Syncs { end, at_ms: environment.clock.now_ms(), running: None, failed: None };
        let partition = Partition {
            salt: salt(&place.topic, place.partition),
            environment: Arc::clone(environment),
            place,
            directory,
            options,
            segments: RwLock::new(Arc::new(segments)),
            end: AtomicU64::new(end),
            stable: AtomicU64::new(end),
            role,
            syncs: Mutex::new(syncs),
            synced: Condvar::new(),
            tail: Arc::default(),
            looked: Mutex::default(),
            upkeep: Mutex::default(),
        };
        partition.refresh()?;
        Ok(partition)
    }

    pub(crate) fn opening(&self) -> Opening<'_> {
        Opening {
            environment: &self.environment,
            place: &self.place,
            directory: &self.directory,
            compacted: self.options.compaction.is_some(),
        }
    }

    pub(crate) fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    pub(crate) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read())
    }

    /// The segment that an offset is in, or where compaction has removed it, the next one that holds any; with its file.
    pub(crate) fn locate(&self, offset: u64) -> Result<(Arc<Segment>, Arc<dyn DiskFile>)> {
        for _ in 0..2 {
            // Files are replaced under this lock, so what is opened is what the segment describes.
            let segments = self.segments.read();
            let at_or_before = segments.partition_point(|segment| segment.base <= offset);
            let gone = || Error::OffsetOutOfRange {
                place: self.place.clone(),
                offset,
                earliest: segments.first().map_or(0, |segment| segment.base),
                end: self.end(),
            };
            let mut i = at_or_before.checked_sub(1).ok_or_else(gone)?;
            if segments[i].extent().next_offset <= offset && i + 1 < segments.len() {
                i += 1;
            }
            if segments[i].base > offset && self.options.compaction.is_none() {
                return Err(gone());
            }
            let segment = Arc::clone(&segments[i]);
            let opened = segment.open(&*self.environment.disk);
            if let Some(file) = opened.map_err(|e| Error::io("opening", &segment.path, e))? {
                return Ok((segment, file));
            }
            drop(segments);
            self.reload()?;
        }
        let (earliest, end) = (self.earliest(), self.end());
        Err(Error::OffsetOutOfRange { place: self.place.clone(), offset, earliest, end })
    }

    /// Lets a follower look again which segments there are. Does nothing in the writer's own process.
    pub(crate) fn reload(&self) -> Result<()> {
        match &self.role {
            Role::Writer(_) => Ok(()),
            Role::Follower(follower) => follower.lock().reload(self),
        }
    }

    /// Puts other segments in place, while nobody opens one: `change` may replace files.
    pub(crate) fn replace_segments<T>(
        &self,
        change: impl FnOnce(&[Arc<Segment>]) -> Result<(Vec<Arc<Segment>>, T)>,
    ) -> Result<T> {
        let mut segments = self.segments.write();
        let (changed, outcome) = change(&segments)?;
        *segments = Arc::new(changed);
        Ok(outcome)
    }

    pub(crate) fn set_segments(&self, segments: Vec<Arc<Segment>>) {
        *self.segments.write() = Arc::new(segments);
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::SeqCst)
    }

    pub(crate) fn stable(&self) -> u64 {
        self.stable.load(Ordering::SeqCst)
    }

    pub(crate) fn earliest(&self) -> u64 {
        self.segments.read().first().map_or(0, |segment| segment.base)
    }

    pub(crate) fn expected(&self, offset: u64) -> Expected {
        self.opening().expected(offset, self.options.compaction.is_some())
    }

    pub(crate) fn info(&self) -> PartitionInfo {
        let segments = self.segments();
        let extents: Vec<Extent> = segments.iter().map(|segment| segment.extent()).collect();
        let records = extents.iter().map(|extent| extent.records).sum();
        PartitionInfo {
            earliest: self.earliest(),
            end: self.end(),
            stable: self.stable(),
            bytes: extents.iter().map(|extent| extent.bytes).sum(),
            records,
            segments: segments.len(),
            max_timestamp: extents.iter().map(|extent| extent.max_timestamp).max().filter(|_| records > 0),
        }
    }

    /// The appending side, locked; refused to readers and after a failed sync.
    fn writer(&self, attempt: &'static str) -> Result<MutexGuard<'_, Writer>> {
        let Role::Writer(writer) = &self.role else { return Err(Error::ReadOnly { attempt }) };
        let writer = writer.lock();
        if let Some(cause) = self.syncs.lock().failed.clone() {
            return Err(Error::Poisoned { place: self.place.clone(), cause });
        }
        Ok(writer)
    }

    /// Refuses what exceeds the limits, before anything is written.
    pub(crate) fn check(&self, batch: &RecordBatch) -> Result<()> {
        let place = || self.place.clone();
        let (record_limit, batch_limit) =
            (self.environment.max_record_bytes, self.environment.max_batch_bytes);
        if batch.largest() > record_limit {
            let (bytes, limit) = (batch.largest() as u64, record_limit as u64);
            return Err(Error::RecordTooLarge { place: place(), bytes, limit });
        }
        if batch.bytes() > batch_limit {
            let (bytes, limit) = (batch.bytes() as u64, batch_limit as u64);
            return Err(Error::BatchTooLarge { place: place(), bytes, limit });
        }
        if self.options.compaction.is_some() && batch.has_keyless() {
            return Err(Error::KeyRequired { place: place() });
        }
        Ok(())
    }

    /// Appends a batch, and empties it if that succeeds.
    pub(crate) fn append(&self, batch: &mut RecordBatch, by: Option<Sequence>) -> Result<Appended> {
        let count = batch.len() as u32;
        if batch.is_empty() {
            drop(self.writer("appending")?);
            return Ok(Appended { base_offset: self.end(), count, duplicate: false });
        }
        self.check(batch)?;
        let author = by.map_or(Author::default(), |by| Author {
            producer: by.producer,
            sequence: by.sequence,
            epoch: None,
        });
        let (header, bytes) = batch.seal(self.options.compression, self.salt, author);
        let mut writer = self.writer("appending")?;
        let duplicate = match by {
            Some(by) => self.judge(&writer, by, count)?,
            None => None,
        };
        let base_offset = match duplicate {
            Some(base_offset) => base_offset,
            None => self.write(&mut writer, header, bytes)?,
        };
        self.publish(&writer);
        drop(writer);
        self.tail.ring();
        self.make_durable(base_offset + u64::from(count))?;
        batch.clear();
        Ok(Appended { base_offset, count, duplicate: duplicate.is_some() })
    }

    /// The offset of a duplicate, or `None` for a batch to be appended.
    fn judge(&self, writer: &Writer, by: Sequence, count: u32) -> Result<Option<u64>> {
        let Sequence { producer, sequence } = by;
        let place = self.place.clone();
        match writer.producers.judge(producer, sequence, count) {
            Verdict::Append => Ok(None),
            Verdict::Duplicate { base_offset } => Ok(Some(base_offset)),
            Verdict::Gap { expected } => Err(Error::SequenceGap { place, producer, sequence, expected }),
            Verdict::Forgotten { expected } => {
                Err(Error::ForgottenDuplicate { place, producer, sequence, expected })
            }
        }
    }

    /// Gives a sealed batch its offset, and writes it at the end.
    fn write(&self, writer: &mut Writer, mut header: Header, bytes: &mut [u8]) -> Result<u64> {
        let extent = writer.segment.extent();
        // Where upkeep is about to begin the next, it may catch up.
        let patience = if writer.is_awaiting_next { 2 } else { 1 };
        let most = self.options.segment_bytes.saturating_mul(patience);
        if extent.bytes > 0 && extent.bytes + header.total_bytes() > most {
            self.roll(writer)?;
        }
        let extent = writer.segment.extent();
        let path = &writer.segment.path;
        if writer.must_truncate {
            writer
                .file
                .truncate(extent.bytes)
                .map_err(|e| Error::io("cutting a failed write off", path, e))?;
            writer.must_truncate = false;
        }
        header.base_offset = extent.next_offset;
        let Some(head) = bytes.first_chunk_mut::<HEADER_BYTES>() else { return Ok(extent.next_offset) };
        header.encode(head);
        if let Err(error) = writer.file.write_at(bytes, extent.bytes) {
            writer.must_truncate = writer.file.truncate(extent.bytes).is_err();
            return Err(Error::io("appending to", path, error));
        }
        writer.segment.grow(&header);
        writer.producers.note(&header);
        Ok(header.base_offset)
    }

    /// Closes the last segment and begins the next.
    fn roll(&self, writer: &mut Writer) -> Result<()> {
        let closed = self.begin_next(writer)?;
        self.describe(closed)
    }

    /// Begins the next segment if the last would be full before upkeep has looked twice again: then an append need not do it. Syncs outside
    /// the lock what there is, and again what came meanwhile, so that little is left for the sync inside.
    pub(crate) fn roll_ahead(&self) -> Result<()> {
        let Some(last) = self.segments().last().cloned() else { return Ok(()) };
        let bytes = last.extent().bytes;
        let growth = match self.looked.lock().replace((last.base, bytes)) {
            Some((base, before)) if base == last.base => bytes.saturating_sub(before),
            Some(_) => bytes,
            None => return Ok(()),
        };
        let is_soon_full = bytes.saturating_add(growth.saturating_mul(2)) >= self.options.segment_bytes;
        if !is_soon_full || growth == 0 || bytes < self.options.segment_bytes / 2 {
            return Ok(());
        }
        // Nobody compacts what is not described yet.
        let _one_at_a_time = self.upkeep.lock();
        self.writer("beginning a segment")?.is_awaiting_next = true;
        let synced = self.sync_to(self.end()).and_then(|()| self.sync_to(self.end()));
        let closed = {
            let mut writer = self.writer("beginning a segment")?;
            writer.is_awaiting_next = false;
            synced?;
            if writer.segment.base != last.base {
                return Ok(());
            }
            self.begin_next(&mut writer)?
        };
        self.describe(closed)
    }

    /// Syncs the last segment, and begins the next.
    fn begin_next(&self, writer: &mut Writer) -> Result<Closed> {
        let disk = &self.environment.disk;
        self.environment.check_writer("beginning a segment")?;
        let closed = Arc::clone(&writer.segment);
        if let Err(error) = writer.file.sync() {
            self.poison(&error);
            return Err(Error::unknown("syncing", &closed.path, error));
        }
        let indexed = closed.indexed();
        let base = indexed.extent.next_offset;
        let segment = Arc::new(Segment::new(&self.directory, base, Extent::empty(base), Some(Vec::new())));
        let file = disk.create(&segment.path).map_err(|e| Error::io("creating", &segment.path, e))?;
        segment.opened(&file);
        self.replace_segments(|segments| Ok((segments.iter().chain([&segment]).cloned().collect(), ())))?;
        (writer.segment, writer.file, writer.is_unnamed) = (segment, file, true);
        Ok(Closed { segment: closed, indexed, producers: writer.producers.encode() })
    }

    /// Writes down what a closed segment holds and what the next began with. If a crash comes before, the next opening reads the segment through.
    fn describe(&self, closed: Closed) -> Result<()> {
        let Closed { segment, indexed, producers } = closed;
        let disk = &self.environment.disk;
        let path = self.directory.join(producers_name(indexed.extent.next_offset));
        crate::disk::replace(&**disk, &path, &producers)
            .map_err(|e| Error::io("writing the table of producers", &path, e))?;
        self.opening().write_index(segment.base, &indexed);
        segment.close();
        // A table that is left over is read only where a later segment has none.
        let _ = disk.remove(&self.directory.join(producers_name(segment.base)));
        Ok(())
    }

    /// Makes what is written visible, as far as it may be.
    fn publish(&self, writer: &Writer) {
        let end = writer.segment.extent().next_offset;
        self.end.fetch_max(end, Ordering::SeqCst);
        if self.environment.durability != Durability::Always {
            self.stable.fetch_max(writer.stable_end(end), Ordering::SeqCst);
        }
    }

    /// What durability asks for after an append that ends there.
    fn make_durable(&self, end: u64) -> Result<()> {
        match self.environment.durability {
            Durability::OsBuffered => Ok(()),
            Durability::Always => self.sync_to(end),
            Durability::Interval(interval) => self.sync_after(interval, self.environment.clock.now_ms()),
        }
    }

    /// Syncs what will be due soon: when half the interval has passed.
    pub(crate) fn sync_ahead(&self, now_ms: i64) -> Result<()> {
        match self.environment.durability {
            Durability::Interval(interval) => self.sync_after(interval / 2, now_ms),
            Durability::Always | Durability::OsBuffered => Ok(()),
        }
    }

    /// Syncs if so long has passed since the last time, or the clock was set back. While a sync runs that began later than that, there is
    /// nothing to do: what it does not cover is younger.
    fn sync_after(&self, interval: Duration, now_ms: i64) -> Result<()> {
        let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        let is_due = |at_ms: i64| now_ms < at_ms || now_ms.saturating_sub(at_ms) >= interval;
        let due = {
            let syncs = self.syncs.lock();
            syncs.failed.is_some() || is_due(syncs.at_ms) && syncs.running.is_none_or(is_due)
        };
        if due { self.sync_to(self.end()) } else { Ok(()) }
    }

    /// Makes everything before an offset durable, in one sync with others who ask for it.
    pub(crate) fn sync_to(&self, end: u64) -> Result<()> {
        let mut syncs = self.syncs.lock();
        loop {
            if let Some(cause) = syncs.failed.clone() {
                return Err(Error::Poisoned { place: self.place.clone(), cause });
            }
            if syncs.end >= end {
                return Ok(());
            }
            if syncs.running.is_some() {
                self.synced.wait(&mut syncs);
                continue;
            }
            let began_ms = self.environment.clock.now_ms();
            syncs.running = Some(began_ms);
            drop(syncs);
            let synced = self.sync_now();
            syncs = self.syncs.lock();
            syncs.running = None;
            match synced {
                Ok(synced) => (syncs.end, syncs.at_ms) = (synced.max(syncs.end), began_ms),
                Err((path, error)) => {
                    syncs.failed = Some(error.to_string());
                    self.synced.notify_all();
                    return Err(Error::unknown("syncing", &path, error));
                }
            }
            self.synced.notify_all();
        }
    }

    fn sync_now(&self) -> Result<u64, (PathBuf, std::io::Error)> {
        let Role::Writer(writer) = &self.role else { return Ok(self.end()) };
        let (file, segment, end, stable, is_unnamed) = {
            let writer = writer.lock();
            let end = writer.segment.extent().next_offset;
            let (file, segment) = (Arc::clone(&writer.file), Arc::clone(&writer.segment));
            (file, segment, end, writer.stable_end(end), writer.is_unnamed)
        };
        file.sync().map_err(|error| (segment.path.clone(), error))?;
        if is_unnamed {
            let named = self.environment.disk.sync_dir(&self.directory);
            named.map_err(|error| (self.directory.clone(), error))?;
            let mut writer = writer.lock();
            writer.is_unnamed &= !Arc::ptr_eq(&writer.segment, &segment);
        }
        if self.stable.fetch_max(stable, Ordering::SeqCst) < stable {
            self.tail.ring();
        }
        Ok(end)
    }

    fn poison(&self, error: &std::io::Error) {
        self.syncs.lock().failed = Some(error.to_string());
        self.synced.notify_all();
    }

    /// From now on, read-committed readers see nothing that is appended, nor what an interrupted commit of this epoch has left, until
    /// [`Partition::release`].
    pub(crate) fn hold(&self, producer: u64, epoch: u64) -> Result<()> {
        let mut writer = self.writer("committing")?;
        if writer.holds.iter().all(|(held, _)| *held != producer) {
            let end = writer.segment.extent().next_offset;
            let held = writer.producers.begin_of(producer, epoch).unwrap_or(end);
            writer.holds.push((producer, held));
            // Lower only when the log is being opened: before, the epoch's first record was appended under a hold.
            self.stable.fetch_min(held, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Appends a batch of a committed epoch, unless it is there already. Held back until [`Partition::release`].
    pub(crate) fn apply(&self, header: &Header, bytes: &mut [u8]) -> Result<()> {
        let mut writer = self.writer("committing")?;
        let Some(epoch) = header.epoch else { return Ok(()) };
        if header.sequence < writer.producers.applied(header.producer, epoch) {
            return Ok(());
        }
        self.write(&mut writer, header.clone(), bytes)?;
        self.publish(&writer);
        drop(writer);
        self.tail.ring();
        Ok(())
    }

    /// Lets readers see what was held back.
    pub(crate) fn release(&self, producer: u64) {
        let Role::Writer(writer) = &self.role else { return };
        let mut writer = writer.lock();
        writer.holds.retain(|(held, _)| *held != producer);
        let synced = self.syncs.lock().end;
        let end = writer.segment.extent().next_offset;
        let end = if self.environment.durability == Durability::Always { end.min(synced) } else { end };
        self.stable.fetch_max(writer.stable_end(end), Ordering::SeqCst);
        drop(writer);
        self.tail.ring();
    }

    /// Removes what retention no longer keeps. Readers that have a removed segment open can read it to its end.
    pub(crate) fn retain(&self, now_ms: i64) -> Result<()> {
        let retention = &self.options.retention;
        if retention.time.is_none() && retention.bytes.is_none() {
            return Ok(());
        }
        let _one_at_a_time = self.upkeep.lock();
        if self.segments().last().is_some_and(|last| is_stale(&last.extent(), retention, now_ms)) {
            self.roll_now()?;
        }
        let removed = self.replace_segments(|segments| {
            let extents: Vec<Extent> = segments.iter().map(|segment| segment.extent()).collect();
            let Some((active, closed)) = extents.split_last() else { return Ok((Vec::new(), Vec::new())) };
            let count = expired(closed, active.bytes, retention, now_ms);
            Ok((segments[count..].to_vec(), segments[..count].to_vec()))
        })?;
        // The oldest first: a crash in between leaves no hole. The index last: without its segment it is known to be left over.
        for path in
            removed.iter().flat_map(|segment| [segment.path.clone(), segment.path.with_extension("index")])
        {
            match self.environment.disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("removing the expired", &path, error));
                }
                _ => {}
            }
        }
        if removed.is_empty() {
            return Ok(());
        }
        self.environment.disk.sync_dir(&self.directory).map_err(|e| Error::io("syncing", &self.directory, e))
    }

    /// Closes the last segment if it holds anything, so that retention and compaction can reach it.
    pub(crate) fn roll_now(&self) -> Result<()> {
        let mut writer = self.writer("beginning a segment")?;
        if writer.segment.extent().bytes > 0 { self.roll(&mut writer) } else { Ok(()) }
    }

    /// Looks for what a writer in another process has appended. Does nothing in the writer's own process. Says whether there is more.
    pub(crate) fn refresh(&self) -> Result<bool> {
        let Role::Follower(follower) = &self.role else { return Ok(false) };
        let end = follower.lock().advance(self)?;
        let more = self.end.fetch_max(end, Ordering::SeqCst) < end;
        self.stable.fetch_max(end, Ordering::SeqCst);
        if more {
            self.tail.ring();
        }
        Ok(more)
    }

    /// As a batch's problem is reported.
    pub(crate) fn corrupt(
        &self,
        segment: &Segment,
        position: u64,
        offset: u64,
        problem: impl Into<String>,
    ) -> Error {
        self.opening().corrupt(segment.base, position, offset, problem.into())
    }

    /// The records of a body whose checksum is right.
    pub(crate) fn records<'a>(
        &self,
        segment: &Segment,
        position: u64,
        header: &Header,
        body: &'a [u8],
    ) -> Result<Records<'a>> {
        Records::new(header, body)
            .map_err(|problem| self.corrupt(segment, position, header.base_offset, problem))
    }
}

impl Writer {
    /// The end for read-committed readers, if that is the end.
    fn stable_end(&self, end: u64) -> u64 {
        self.holds.iter().map(|(_, held)| *held).fold(end, u64::min)
    }
}
