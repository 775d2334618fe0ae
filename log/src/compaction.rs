//! Compaction by key: of each key the last record is kept, as in Kafka's log cleaner.
//!
//! 1. It is worth it when enough of the closed segments' bytes are new since the last pass. The last segment is never touched.
//! 2. The new segments are read for the last offset of each key, as far as the keys fit into memory; the pass ends there.
//! 3. Every segment up to there is rewritten from the oldest on, without the records that a later one of the same key makes superfluous,
//!    and without tombstones that an earlier pass saw longer ago than they must be kept. Neighbours that have become small are
//!    written as one. A record is removed only if its successor stays, so a crash anywhere in between leaves the last of every key.
//! 4. A rewritten file is synced, then put in place of the old one by a rename; a merged one first, those it replaces are removed after.
//!    (If a crash comes between, opening the log removes them: they begin before the merged one ends.)
//! 5. `compaction.json` notes up to which offset keys are unique, and when: a tombstone below that is removed by a pass later than
//!    `delete_retention` after. Its key's older records are gone by then, also from the files.
//!
//! Offsets are kept, so compacted partitions have gaps, as in Kafka; readers pass over them.

use crate::batch::{Author, RecordBatch};
use crate::batches::Batches;
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::options::{COMPACTION_MEMORY_BYTES, Compaction};
use crate::partition::Partition;
use crate::record::RecordView;
use crate::segment::{Extent, Indexed, Segment, log_name};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NOTES: &str = "compaction.json";
/// What a key in the map takes beside its bytes, roughly.
const KEY_OVERHEAD: usize = 64;

/// The content of `compaction.json`: offsets below which keys were unique, and since when, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes {
    passes: Vec<Pass>,
    /// Below which offset tombstones have been removed.
    forgotten_below: u64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pass {
    below: u64,
    at_ms: i64,
}

impl Notes {
    /// Up to which offset keys are unique.
    pub(crate) fn clean_below(&self) -> u64 {
        self.passes.last().map_or(0, |pass| pass.below)
    }

    /// Below which offset tombstones need not be kept any longer.
    fn forgettable_below(&self, compaction: &Compaction, now_ms: i64) -> u64 {
        let retention = compaction.delete_retention.as_millis() as i128;
        let old = self.passes.iter().filter(|pass| i128::from(now_ms) - i128::from(pass.at_ms) >= retention);
        old.map(|pass| pass.below).max().unwrap_or(0)
    }

    fn add(&mut self, plan: &Plan, now_ms: i64) {
        self.forgotten_below = plan.forgettable_below;
        // Of those that are old enough already, the greatest says all that the others do.
        self.passes.retain(|pass| pass.below >= plan.forgettable_below);
        if plan.below > self.clean_below() {
            self.passes.push(Pass { below: plan.below, at_ms: now_ms });
        }
    }
}

/// Whether a pass is worth it: a pure decision.
fn is_due(closed: &[Extent], notes: &Notes, compaction: &Compaction, now_ms: i64) -> bool {
    let all: u64 = closed.iter().map(|extent| extent.bytes).sum();
    let clean = notes.clean_below();
    let dirty: u64 = closed.iter().filter(|e| e.next_offset > clean).map(|e| e.bytes).sum();
    let has_forgettable = notes.forgettable_below(compaction, now_ms) > notes.forgotten_below;
    dirty > 0 && dirty as f64 >= compaction.min_dirty_ratio * all as f64 || has_forgettable
}

/// What a pass keeps.
struct Plan {
    /// The last offset of each key that occurs from `clean_below` to `below`.
    last: HashMap<Box<[u8]>, u64>,
    below: u64,
    forgettable_below: u64,
}

impl Plan {
    fn keeps(&self, record: &RecordView<'_>) -> bool {
        if record.offset >= self.below {
            return true;
        }
        if record.value.is_none() && record.offset < self.forgettable_below {
            return false;
        }
        let Some(key) = record.key else { return true };
        self.last.get(key).is_none_or(|last| record.offset >= *last)
    }
}

/// Compacts a partition, if that is worth it; says whether it was.
pub(crate) fn compact(partition: &Partition, compaction: &Compaction, now_ms: i64) -> Result<bool> {
    let _one_at_a_time = partition.upkeep.lock();
    let mut notes = read_notes(partition)?;
    let segments = partition.segments();
    let Some((_, closed)) = segments.split_last() else { return Ok(false) };
    // What a commit that is being applied has appended must not make others' records superfluous before it is seen.
    let stable = partition.stable();
    let closed = &closed[..closed.partition_point(|segment| segment.extent().next_offset <= stable)];
    let extents: Vec<Extent> = closed.iter().map(|segment| segment.extent()).collect();
    if !is_due(&extents, &notes, compaction, now_ms) {
        return Ok(false);
    }
    let plan = plan(partition, closed, &notes, notes.forgettable_below(compaction, now_ms))?;
    let mut rest: Vec<Arc<Segment>> =
        closed.iter().filter(|segment| segment.base < plan.below).cloned().collect();
    while !rest.is_empty() {
        let taken = rewrite(partition, &rest, &plan)?;
        rest.drain(..taken);
    }
    notes.add(&plan, now_ms);
    write_notes(partition, &notes)?;
    Ok(true)
}

fn read_notes(partition: &Partition) -> Result<Notes> {
    let path = partition.directory.join(NOTES);
    match crate::disk::read_all(&*partition.environment.disk, &path, 1 << 20) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Error::BadFile {
            path,
            problem: format!("{e}; remove it to compact from the beginning"),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Notes::default()),
        Err(error) => Err(Error::io("reading", &path, error)),
    }
}

fn write_notes(partition: &Partition, notes: &Notes) -> Result<()> {
    let path = partition.directory.join(NOTES);
    let failed = |e| Error::io("writing", &path, e);
    let text = serde_json::to_vec(notes).map_err(|e| failed(e.into()))?;
    crate::disk::replace(&*partition.environment.disk, &path, &text).map_err(failed)
}

/// Reads the new segments for the last offset of each key.
fn plan(
    partition: &Partition,
    closed: &[Arc<Segment>],
    notes: &Notes,
    forgettable_below: u64,
) -> Result<Plan> {
    let from = notes.clean_below();
    let mut plan = Plan { last: HashMap::new(), below: from, forgettable_below };
    let mut memory = 0;
    'segments: for segment in closed.iter().filter(|segment| segment.extent().next_offset > from) {
        let mut batches = Batches::of(partition, segment)?;
        while let Some((_, records)) = batches.next()? {
            let end = records.end();
            for record in records.filter(|record| record.offset >= from) {
                let Some(key) = record.key else { continue };
                match plan.last.get_mut(key) {
                    Some(last) => *last = record.offset,
                    None => {
                        plan.last.insert(key.into(), record.offset);
                        memory += key.len() + KEY_OVERHEAD;
                    }
                }
            }
            plan.below = plan.below.max(end);
            if memory > COMPACTION_MEMORY_BYTES {
                break 'segments;
            }
        }
        plan.below = plan.below.max(segment.extent().next_offset);
    }
    Ok(plan)
}

/// Writes the first of the segments anew, together with as many of the next as fit into one file; returns how many that were.
fn rewrite(partition: &Partition, segments: &[Arc<Segment>], plan: &Plan) -> Result<usize> {
    let temporary = partition.directory.join(format!("{}.tmp", log_name(segments[0].base)));
    let rewritten = write_anew(partition, segments, plan, &temporary);
    let (taken, indexed) = match rewritten {
        Ok((taken, Some(indexed))) => (taken, indexed),
        other => {
            // On a full disk, what has been written is in the way; if it cannot be removed now, it is when the log is opened.
            let _ = partition.environment.disk.remove(&temporary);
            return other.map(|(taken, _)| taken);
        }
    };
    swap(partition, &segments[..taken], &temporary, indexed)?;
    Ok(taken)
}

/// Returns how many segments the new file holds, and its index, unless it is the same as the one there is.
fn write_anew(
    partition: &Partition,
    segments: &[Arc<Segment>],
    plan: &Plan,
    temporary: &PathBuf,
) -> Result<(usize, Option<Indexed>)> {
    let failed = |e| Error::io("compacting into", temporary, e);
    let file = partition.environment.disk.create(temporary).map_err(failed)?;
    file.truncate(0).map_err(failed)?;
    let indexed = Indexed::empty(segments[0].base);
    let mut rewritten = Rewritten { path: temporary, file, indexed, unchanged: true };
    let mut taken = 0;
    for segment in segments {
        // What it would become is not known before; what it is, is the most it can take.
        let bytes = segment.extent().bytes;
        if taken > 0 && rewritten.indexed.extent.bytes + bytes > partition.options.segment_bytes {
            break;
        }
        rewritten.add(partition, segment, plan)?;
        taken += 1;
    }
    if rewritten.unchanged && taken == 1 {
        return Ok((taken, None));
    }
    rewritten.file.sync().map_err(failed)?;
    let mut indexed = rewritten.indexed;
    indexed.extent.next_offset = segments[taken - 1].extent().next_offset;
    Ok((taken, Some(indexed)))
}

/// Puts a rewritten file in the place of some segments.
fn swap(partition: &Partition, old: &[Arc<Segment>], temporary: &Path, indexed: Indexed) -> Result<()> {
    let disk = &partition.environment.disk;
    let path = old[0].path.clone();
    let failed = |e| Error::io("putting the compacted segment in place of", &path, e);
    let sync = || disk.sync_dir(&partition.directory).map_err(failed);
    // An index describes one file: it goes before another file comes.
    remove_if_there(partition, &path.with_extension("index"))?;
    sync()?;
    partition.replace_segments(|segments| {
        disk.rename(temporary, &path).map_err(failed)?;
        let merged = Arc::new(Segment::new(&partition.directory, old[0].base, indexed.extent, None));
        let is_old = |segment: &Arc<Segment>| old.iter().any(|old| Arc::ptr_eq(old, segment));
        let kept = segments.iter().filter(|segment| !is_old(segment)).cloned();
        let mut changed: Vec<_> = kept.chain([merged]).collect();
        changed.sort_unstable_by_key(|segment| segment.base);
        Ok((changed, ()))
    })?;
    sync()?;
    partition.opening().write_index(old[0].base, &indexed);
    for segment in &old[1..] {
        remove_if_there(partition, &segment.path)?;
        remove_if_there(partition, &segment.path.with_extension("index"))?;
    }
    sync()
}

fn remove_if_there(partition: &Partition, path: &Path) -> Result<()> {
    match partition.environment.disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("removing", path, error)),
        _ => Ok(()),
    }
}

/// A file being written anew.
struct Rewritten<'a> {
    path: &'a PathBuf,
    file: Arc<dyn DiskFile>,
    indexed: Indexed,
    unchanged: bool,
}

impl Rewritten<'_> {
    fn add(&mut self, partition: &Partition, segment: &Segment, plan: &Plan) -> Result<()> {
        let mut batches = Batches::of(partition, segment)?;
        while let Some((header, records)) = batches.next()? {
            let kept = records.clone().filter(|record| plan.keeps(record)).count();
            if kept == header.records as usize {
                self.write(&header, batches.raw(&header))?;
                continue;
            }
            self.unchanged = false;
            if kept > 0 {
                let mut batch = RecordBatch::sparse(header.base_offset, header.last_delta);
                records.filter(|record| plan.keeps(record)).for_each(|record| batch.push_view(&record));
                let author =
                    Author { producer: header.producer, sequence: header.sequence, epoch: header.epoch };
                let (header, bytes) = batch.seal(partition.options.compression, partition.salt, author);
                if let Some(head) = bytes.first_chunk_mut() {
                    header.encode(head);
                }
                self.write(&header, bytes)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, header: &Header, bytes: &[u8]) -> Result<()> {
        let at = self.indexed.extent.bytes;
        self.file.write_at(bytes, at).map_err(|e| Error::io("compacting into", self.path, e))?;
        self.indexed.add(header);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const COMPACTION: Compaction =
        Compaction { delete_retention: Duration::from_millis(100), min_dirty_ratio: 0.5 };

    fn pass(notes: &mut Notes, below: u64, now_ms: i64) {
        let forgettable_below = notes.forgettable_below(&COMPACTION, now_ms);
        notes.add(&Plan { last: HashMap::new(), below, forgettable_below }, now_ms);
    }

    #[test]
    fn tombstones_are_forgotten_so_long_after_the_pass_that_saw_them() {
        let mut notes = Notes::default();
        pass(&mut notes, 10, 1000);
        pass(&mut notes, 20, 1050);
        let at = |notes: &Notes, now_ms| notes.forgettable_below(&COMPACTION, now_ms);
        assert_eq!((at(&notes, 1099), at(&notes, 1100), at(&notes, 1150)), (0, 10, 20));
        pass(&mut notes, 30, 1150);
        assert_eq!((notes.clean_below(), notes.forgotten_below), (30, 20));
        assert_eq!(at(&notes, 1150), 20, "what was forgettable stays so");
    }

    #[test]
    fn a_pass_is_due_when_enough_is_new_or_tombstones_can_go() {
        let segment = |next_offset, bytes| Extent { bytes, next_offset, max_timestamp: 0, records: 1 };
        let mut notes = Notes::default();
        assert!(!is_due(&[], &notes, &COMPACTION, 0));
        assert!(is_due(&[segment(10, 100)], &notes, &COMPACTION, 0));
        pass(&mut notes, 10, 0);
        assert!(!is_due(&[segment(10, 100)], &notes, &COMPACTION, 99));
        assert!(!is_due(&[segment(10, 100), segment(20, 99)], &notes, &COMPACTION, 99));
        assert!(is_due(&[segment(10, 100), segment(20, 100)], &notes, &COMPACTION, 99));
        assert!(is_due(&[segment(10, 100)], &notes, &COMPACTION, 100));
    }
}
