//! Reading everything through, to know that it can be read.

use crate::compaction::Batches;
use crate::error::Error;
use crate::partition::Partition;

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
    /// What is wrong, at most one problem a segment: behind the first bad byte of a segment, nothing in it is read.
    pub damage: Vec<Error>,
}

/// Reads a partition through.
pub(crate) fn verify(partition: &Partition, found: &mut Verification) {
    let _no_other_files_meanwhile = partition.upkeep.lock();
    for segment in partition.segments().iter() {
        found.segments += 1;
        let mut batches = match Batches::open(partition, segment) {
            Ok(batches) => batches,
            Err(error) => {
                found.damage.push(error);
                continue;
            }
        };
        loop {
            match batches.next() {
                Ok(None) => break,
                Ok(Some((header, _))) => {
                    found.batches += 1;
                    found.records += u64::from(header.records);
                    found.bytes += header.total_bytes();
                }
                Err(error) => {
                    found.damage.push(error);
                    break;
                }
            }
        }
    }
}
