//! Opening a partition: which segments there are, and where the last one really ends.
//!
//! 1. Leftovers of work that a crash interrupted are removed: temporary files, indexes and tables without a segment, segments whose
//!    records a merged one before them holds.
//! 2. Every segment but the last was synced before the next began. Its index says what it holds; without one it is read through, and any bad
//!    byte is an error.
//! 3. The last segment is read through. At the first bad byte: if a valid batch follows anywhere, the segment is damaged, which is an
//!    error; if none does, the tail is torn, which a crash does, and is cut off and reported.
//! 4. What is known of producers is read from the table written when the last segment began, and brought up to date by that segment's
//!    headers.

use crate::disk::{DiskFile, read_all};
use crate::environment::Environment;
use crate::error::{Error, Place, Result};
use crate::header::{Header, salt};
use crate::options::Damage;
use crate::producers::Producers;
use crate::scan::{Expected, Next, Window, find_valid, next};
use crate::segment::{Extent, Indexed, Segment, base_of, log_name, producers_name, read_index};
use std::path::Path;
use std::sync::Arc;

/// What opening a log had to repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Torn tails that were cut off: what was being appended when the process or the machine went down.
    pub truncated: Vec<Truncated>,
    /// Segments whose index was lost and has been rebuilt.
    pub rebuilt_indexes: Vec<(Place, String)>,
    /// Commits that were decided before a crash and have been completed: transactional id and epoch.
    pub completed_commits: Vec<(String, u64)>,
    /// Decided commits that could not be completed yet, because the disk is full; [`Log::maintain`](crate::Log::maintain) tries again.
    pub pending_commits: Vec<(String, u64)>,
}

/// A torn tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Which partition.
    pub place: Place,
    /// The segment's file name.
    pub segment: String,
    /// The offset at which the partition goes on.
    pub offset: u64,
    /// Bytes that were removed.
    pub bytes: u64,
    /// What was wrong with them.
    pub problem: String,
}

/// The names in a partition's folder.
#[derive(Debug)]
pub(crate) struct Listing {
    /// First offsets of the segments, ascending.
    pub(crate) bases: Vec<u64>,
    names: Vec<String>,
}

pub(crate) fn list(environment: &Environment, directory: &Path) -> Result<Listing> {
    let names = environment.disk.list(directory).map_err(|e| Error::io("listing", directory, e))?;
    let bases = names.iter().filter_map(|name| base_of(name, ".log")).collect();
    Ok(Listing { bases, names })
}

impl Listing {
    /// Files that belong to no segment.
    fn leftovers(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| {
            let of = [".log", ".index", ".producers"].iter().find_map(|ending| base_of(name, ending));
            name.ends_with(".tmp") || of.is_some_and(|base| !self.bases.contains(&base))
        })
    }
}

/// A partition being opened.
#[derive(Copy, Clone)]
pub(crate) struct Opening<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) place: &'a Place,
    pub(crate) directory: &'a Path,
    /// Whether compaction may have removed records.
    pub(crate) compacted: bool,
}

/// How far a segment is good.
pub(crate) struct Walk {
    pub(crate) indexed: Indexed,
    /// What is wrong with the bytes behind.
    pub(crate) bad: Option<String>,
    pub(crate) file_bytes: u64,
}

impl Opening<'_> {
    pub(crate) fn expected(&self, offset: u64, gaps: bool) -> Expected {
        let salt = salt(&self.place.topic, self.place.partition);
        Expected { salt, offset, gaps, max_bytes: self.environment.max_batch_bytes }
    }

    pub(crate) fn corrupt(&self, base: u64, position: u64, offset: u64, problem: String) -> Error {
        Error::Corrupt { place: self.place.clone(), segment: log_name(base), position, offset, problem }
    }

    fn open(&self, base: u64) -> Result<Arc<dyn DiskFile>> {
        let path = self.directory.join(log_name(base));
        self.environment.disk.open(&path).map_err(|e| Error::io("opening", &path, e))
    }

    /// Removes what interrupted work has left.
    fn tidy(&self) -> Result<Listing> {
        let listing = list(self.environment, self.directory)?;
        for name in listing.leftovers() {
            let path = self.directory.join(name);
            self.environment.disk.remove(&path).map_err(|e| Error::io("removing the left-over", &path, e))?;
        }
        Ok(listing)
    }

    /// Reads a segment from a known point on, up to its first bad byte.
    pub(crate) fn walk(
        &self,
        file: &dyn DiskFile,
        base: u64,
        mut indexed: Indexed,
        gaps: bool,
        mut each: impl FnMut(&Header),
    ) -> Result<Walk> {
        let path = self.directory.join(log_name(base));
        let failed = |e| Error::io("reading", &path, e);
        let file_bytes = file.len().map_err(failed)?;
        let mut window = Window::default();
        window.seek(indexed.extent.bytes);
        loop {
            let expected = self.expected(indexed.extent.next_offset, gaps);
            let bad = match next(&mut window, file, file_bytes, &expected).map_err(failed)? {
                Next::Batch(header) => {
                    window.consume(header.total_bytes() as usize);
                    each(&header);
                    indexed.add(&header);
                    continue;
                }
                Next::End => None,
                Next::Bad(problem) => Some(problem),
                Next::TooLarge(bytes) => {
                    let limit = self.environment.max_batch_bytes as u64;
                    return Err(Error::BatchTooLarge { place: self.place.clone(), bytes, limit });
                }
            };
            return Ok(Walk { indexed, bad, file_bytes });
        }
    }

    /// What a closed segment holds: by its index, or read through. The second says whether the index had to be rebuilt.
    pub(crate) fn closed(&self, base: u64) -> Result<(Indexed, bool)> {
        let file = self.open(base)?;
        let path = self.directory.join(log_name(base));
        let bytes = file.len().map_err(|e| Error::io("reading", &path, e))?;
        let index = read_index(&*self.environment.disk, &path.with_extension("index"));
        if let Some(index) = index.filter(|index| index.extent.bytes == bytes) {
            return Ok((index, false));
        }
        let walk = self.walk(&*file, base, Indexed::empty(base), self.compacted, |_| {})?;
        let Extent { bytes, next_offset, .. } = walk.indexed.extent;
        match walk.bad {
            Some(problem) => Err(self.corrupt(base, bytes, next_offset, problem)),
            None => Ok((walk.indexed, true)),
        }
    }

    /// All closed segments, checked to follow on each other up to `end`.
    fn all_closed(&self, bases: &[u64], end: u64, recovery: &mut Recovery) -> Result<Vec<Arc<Segment>>> {
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        for (i, &base) in bases.iter().enumerate() {
            if segments.last().is_some_and(|before| before.extent().next_offset > base) {
                self.remove_merged(base)?;
                continue;
            }
            let (indexed, is_rebuilt) = self.closed(base)?;
            let next = bases.get(i + 1).copied().unwrap_or(end);
            let Extent { bytes, next_offset, .. } = indexed.extent;
            if next_offset < next && !self.compacted {
                let problem = format!(
                    "it ends there, and the next segment begins at offset {next}: records are missing"
                );
                return Err(self.corrupt(base, bytes, next_offset, problem));
            }
            if is_rebuilt && !self.environment.is_read_only() {
                self.write_index(base, &indexed);
                recovery.rebuilt_indexes.push((self.place.clone(), log_name(base)));
            }
            segments.push(Arc::new(Segment::new(self.directory, base, indexed.extent, None)));
        }
        Ok(segments)
    }

    /// Removes a segment whose records the one before holds since they were merged.
    fn remove_merged(&self, base: u64) -> Result<()> {
        if self.environment.is_read_only() {
            return Ok(());
        }
        for ending in ["log", "index", "producers"] {
            let path = self.directory.join(log_name(base)).with_extension(ending);
            match self.environment.disk.remove(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("removing the merged segment", &path, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes an index. Failing that costs the next opening some time, no records.
    pub(crate) fn write_index(&self, base: u64, indexed: &Indexed) {
        let path = self.directory.join(log_name(base)).with_extension("index");
        let written = self.environment.disk.create(&path).and_then(|file| {
            file.truncate(0)?;
            file.write_at(&indexed.encode(), 0)?;
            file.sync()
        });
        if let Err(error) = written {
            tracing::warn!(index = %path.display(), %error, "the index could not be written; it will be rebuilt");
        }
    }

    /// Decides about the bad bytes at the end of the last segment, and cuts them off.
    fn cut_off(&self, file: &dyn DiskFile, base: u64, walk: &Walk, recovery: &mut Recovery) -> Result<()> {
        let Some(problem) = walk.bad.clone() else { return Ok(()) };
        let Extent { bytes, next_offset, .. } = walk.indexed.extent;
        let path = self.directory.join(log_name(base));
        if self.environment.damage == Damage::Refuse {
            let found = find_valid(file, bytes + 1, walk.file_bytes, &self.expected(next_offset, true));
            if let Some(valid) = found.map_err(|e| Error::io("reading", &path, e))? {
                let problem = format!("{problem}; a valid batch follows at byte {valid}");
                return Err(self.corrupt(base, bytes, next_offset, problem));
            }
        }
        file.truncate(bytes).map_err(|e| Error::io("cutting the torn tail off", &path, e))?;
        file.sync().map_err(|e| Error::unknown("cutting the torn tail off", &path, e))?;
        let truncated = Truncated {
            place: self.place.clone(),
            segment: log_name(base),
            offset: next_offset,
            bytes: walk.file_bytes - bytes,
            problem,
        };
        tracing::warn!(place = %truncated.place, segment = truncated.segment, offset = truncated.offset,
            bytes = truncated.bytes, problem = truncated.problem, "cut a torn tail off");
        recovery.truncated.push(truncated);
        Ok(())
    }

    /// The table written when a segment began, or one rebuilt from the headers before it: those behind the newest table that there is.
    fn producers_before(&self, base: u64, closed: &[Arc<Segment>]) -> Result<Producers> {
        let written = |base: u64| {
            let path = self.directory.join(producers_name(base));
            let bytes = read_all(&*self.environment.disk, &path, 1 << 30).ok()?;
            Producers::decode(&bytes)
        };
        if let Some(producers) = written(base) {
            return Ok(producers);
        }
        let newest =
            closed.iter().enumerate().rev().find_map(|(i, segment)| Some((i, written(segment.base)?)));
        let (from, mut producers) = newest.unwrap_or_default();
        for segment in &closed[from..] {
            let file = self.open(segment.base)?;
            self.walk(&*file, segment.base, Indexed::empty(segment.base), self.compacted, |h| {
                producers.note(h)
            })?;
        }
        Ok(producers)
    }

    /// Opens the partition for its writer.
    pub(crate) fn for_writer(&self, recovery: &mut Recovery) -> Result<Opened> {
        let listing = self.tidy()?;
        let disk = &self.environment.disk;
        let active = listing.bases.last().copied().unwrap_or(0);
        let path = self.directory.join(log_name(active));
        let file = disk.create(&path).map_err(|e| Error::io("creating", &path, e))?;
        if listing.bases.is_empty() {
            disk.sync_dir(self.directory).map_err(|e| Error::io("syncing", self.directory, e))?;
        }
        let closed = &listing.bases[..listing.bases.len().saturating_sub(1)];
        let mut segments = self.all_closed(closed, active, recovery)?;
        let mut producers = self.producers_before(active, &segments)?;
        let walk =
            self.walk(&*file, active, Indexed::empty(active), false, |header| producers.note(header))?;
        self.cut_off(&*file, active, &walk, recovery)?;
        let Indexed { extent, entries } = walk.indexed;
        let segment = Arc::new(Segment::new(self.directory, active, extent, Some(entries)));
        segment.opened(&file);
        segments.push(segment);
        Ok(Opened { segments, producers, file })
    }

    /// The segments that there are now, for a reader beside a writer in another process. The last one's extent is empty: it is walked over
    /// afterwards, again and again.
    pub(crate) fn for_follower(&self) -> Result<Vec<Arc<Segment>>> {
        let bases = list(self.environment, self.directory)?.bases;
        let Some((&active, closed)) = bases.split_last() else { return Ok(Vec::new()) };
        let mut segments = self.all_closed(closed, active, &mut Recovery::default())?;
        segments.push(Arc::new(Segment::new(
            self.directory,
            active,
            Extent::empty(active),
            Some(Vec::new()),
        )));
        Ok(segments)
    }
}

/// A partition as its writer found it.
pub(crate) struct Opened {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) producers: Producers,
    pub(crate) file: Arc<dyn DiskFile>,
}
