//! Reading beside a writer in another process.
//!
//! The writer's process tells nobody, so a follower looks: first whether the last segment has grown, and only if not whether
//! there are others. What it looks at is what the operating system has, so it sees records before they are durable.
//!
//! A batch that is not whole yet is not damage: the follower waits for the rest, unless a valid batch or a further segment follows.

use crate::error::{Error, Result};
use crate::partition::Partition;
use crate::scan::find_valid;
use crate::segment::{Extent, Indexed, Segment};
use std::sync::Arc;

/// How often a follower looks again when files vanish under its eyes.
const RELOADS: usize = 10;

/// What a follower remembers between two looks.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// A bad batch that was seen with a valid one behind it: damage, if it is still so on the next look.
    suspect: Option<u64>,
}

impl Follower {
    /// Looks for more, and returns the partition's end.
    pub(crate) fn advance(&mut self, partition: &Partition) -> Result<u64> {
        loop {
            let segments = partition.segments();
            let Some(last) = segments.last() else {
                self.reload(partition)?;
                return Ok(partition.segments().last().map_or(0, |segment| segment.base));
            };
            let before = last.extent();
            let bad = self.walk(partition, last)?;
            if last.extent().bytes > before.bytes {
                return Ok(last.extent().next_offset);
            }
            let newest =
                crate::recovery::list(&partition.environment, &partition.directory)?.bases.last().copied();
            if newest.is_none_or(|newest| newest <= last.base) {
                return Ok(last.extent().next_offset);
            }
            // The last segment is closed: whatever is in it now is all there will be. It may have grown since it was walked over.
            self.walk(partition, last)?;
            if last.extent().bytes > before.bytes {
                continue;
            }
            if let Some(problem) = bad {
                let Extent { bytes, next_offset, .. } = last.extent();
                return Err(partition.corrupt(last, bytes, next_offset, problem));
            }
            self.reload(partition)?;
        }
    }

    /// Walks over what is new in a segment. Returns what is wrong with its end, if anything.
    fn walk(&mut self, partition: &Partition, segment: &Arc<Segment>) -> Result<Option<String>> {
        let opened = segment.open(&*partition.environment.disk);
        let Some(file) = opened.map_err(|e| Error::io("opening", &segment.path, e))? else { return Ok(None) };
        let opening = partition.opening();
        let indexed = Indexed { extent: segment.extent(), entries: Vec::new() };
        let walk = opening.walk(&*file, segment.base, indexed, false, |header| segment.grow(header))?;
        let Some(problem) = walk.bad else {
            self.suspect = None;
            return Ok(None);
        };
        let Extent { bytes, next_offset, .. } = segment.extent();
        let expected = opening.expected(next_offset, true);
        let valid = find_valid(&*file, bytes + 1, walk.file_bytes, &expected);
        match valid.map_err(|e| Error::io("reading", &segment.path, e))? {
            Some(valid) if self.suspect == Some(bytes) => {
                let problem = format!("{problem}; a valid batch follows at byte {valid}");
                Err(partition.corrupt(segment, bytes, next_offset, problem))
            }
            Some(_) => {
                self.suspect = Some(bytes);
                Ok(Some(problem))
            }
            None => Ok(Some(problem)),
        }
    }

    /// Takes note of segments that were added, removed or compacted.
    pub(crate) fn reload(&mut self, partition: &Partition) -> Result<()> {
        let mut segments = None;
        for _ in 0..RELOADS {
            segments = match partition.opening().for_follower() {
                // Between listing and opening a file, the writer may have removed it.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                loaded => Some(loaded?),
            };
            break;
        }
        let Some(mut segments) = segments else { return partition.opening().for_follower().map(|_| ()) };
        // What has been walked over need not be again.
        if let (Some(old), Some(new)) = (partition.segments().last(), segments.last_mut())
            && old.base == new.base
        {
            *new = Arc::clone(old);
        }
        partition.set_segments(segments);
        Ok(())
    }
}
