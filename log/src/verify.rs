//! Reading everything through, to know that it can be read. Nothing is repaired, and damage in one place hides no other place's.

use crate::batches::Batches;
use crate::environment::Environment;
use crate::error::{Error, Place, Result};
use crate::options::LogOptions;
use crate::recovery::{Opening, Truncated, list};
use crate::scan::find_valid;
use crate::segment::log_name;
use crate::topic;
use std::io;
use std::path::Path;

/// What reading a log through has found.
#[derive(Debug, Default)]
pub struct Verification {
    /// Segments that were read.
    pub segments: u64,
    /// Batches whose checksums are right.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
    /// Bytes at the very end of partitions that are no whole batch: being written just now, or a torn tail that opening the log for writing
    /// will cut off.
    pub unfinished: Vec<Truncated>,
    /// What is wrong, at most one problem a segment: behind the first bad byte of a segment, nothing in it is read.
    pub damage: Vec<Error>,
}

/// Reads the log in a folder through, also one that cannot be opened any more. Takes no lock, changes nothing.
///
/// # Errors
/// Only if the folder cannot be listed; what is damaged is in the result.
pub fn verify(directory: impl AsRef<Path>, options: LogOptions) -> Result<Verification> {
    verify_all(&Environment::of_reader(directory.as_ref(), options))
}

/// As [`verify`], of one topic if one is named, and tells `progress` after each batch what was found so far.
///
/// # Errors
/// As there. Of a topic that is not there nothing is found.
pub fn verify_with(
    directory: impl AsRef<Path>,
    options: LogOptions,
    topic: Option<&str>,
    progress: &mut dyn FnMut(&Verification),
) -> Result<Verification> {
    verify_those(&Environment::of_reader(directory.as_ref(), options), topic, progress)
}

pub(crate) fn verify_all(environment: &Environment) -> Result<Verification> {
    verify_those(environment, None, &mut |_| {})
}

fn verify_those(
    environment: &Environment,
    topic: Option<&str>,
    progress: &mut dyn FnMut(&Verification),
) -> Result<Verification> {
    let mut found = Verification::default();
    let names = topic::list(environment)?.into_iter();
    for name in names.filter(|name| topic.is_none_or(|topic| topic == name)) {
        let directory = environment.topics().join(&name);
        let options = match topic::describe(&*environment.disk, &directory) {
            Ok(options) => options,
            Err(error) => {
                found.damage.push(error);
                continue;
            }
        };
        for partition in 0..options.partitions {
            let place = Place { topic: name.as_str().into(), partition };
            let directory = directory.join(partition.to_string());
            let compacted = options.compaction.is_some();
            let opening = Opening { environment, place: &place, directory: &directory, compacted };
            if let Err(error) = partition_through(&opening, &mut found, progress) {
                found.damage.push(error);
            }
        }
    }
    Ok(found)
}

fn partition_through(
    opening: &Opening<'_>,
    found: &mut Verification,
    progress: &mut dyn FnMut(&Verification),
) -> Result<()> {
    let bases = list(opening.environment, opening.directory)?.bases;
    for (i, &base) in bases.iter().enumerate() {
        match segment_through(opening, base, bases.get(i + 1).copied(), found, progress) {
            // Retention or compaction has removed it meanwhile.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.damage.push(error),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn segment_through(
    opening: &Opening<'_>,
    base: u64,
    next: Option<u64>,
    found: &mut Verification,
    progress: &mut dyn FnMut(&Verification),
) -> Result<()> {
    let path = opening.directory.join(log_name(base));
    let failed = |e| Error::io("reading", &path, e);
    let file = opening.environment.disk.open(&path).map_err(failed)?;
    let bytes = file.len().map_err(failed)?;
    found.segments += 1;
    let mut batches = Batches::new(*opening, base, file.clone(), bytes);
    loop {
        let (position, offset) = batches.position();
        match batches.next() {
            Ok(Some((header, _))) => {
                found.batches += 1;
                found.records += u64::from(header.records);
                found.bytes += header.total_bytes();
                progress(found);
            }
            Ok(None) => {
                let is_short = next.is_some_and(|next| offset < next && !opening.compacted);
                let problem =
                    || format!("it ends there, and the next segment begins at {next:?}: records are missing");
                return if is_short {
                    Err(opening.corrupt(base, position, offset, problem()))
                } else {
                    Ok(())
                };
            }
            Err(Error::Corrupt { problem, .. }) if next.is_none() => {
                let valid = find_valid(&*file, position + 1, bytes, &opening.expected(offset, true))
                    .map_err(failed)?;
                if valid.is_some() {
                    return Err(opening.corrupt(base, position, offset, problem));
                }
                let (place, segment) = (opening.place.clone(), log_name(base));
                found.unfinished.push(Truncated { place, segment, offset, bytes: bytes - position, problem });
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}
