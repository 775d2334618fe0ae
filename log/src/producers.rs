//! What a partition remembers of producers, to refuse duplicates and gaps.
//!
//! 1. A producer numbers its records within a partition: the first is 0. A batch carries the number of its first record.
//! 2. A batch that follows on is appended. One that was appended already is acknowledged with the offset that it has. Anything else is a gap.
//! 3. A transactional producer's numbers begin at 0 in each epoch, so that a commit interrupted by a crash goes on where it stopped.
//! 4. The table follows from the batches' headers alone. It is stored beside each new segment, so that it survives retention and
//!    compaction; if that copy is lost, it is rebuilt from the headers that are left.

use crate::header::Header;
use crate::options::{REMEMBERED_BATCHES, REMEMBERED_PRODUCERS};
use std::collections::{HashMap, VecDeque};

/// See the module's page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    by_id: HashMap<u64, Producer>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Producer {
    epoch: Option<u64>,
    next_sequence: u64,
    last_offset: u64,
    /// Offset of the first record of the epoch.
    epoch_begin: u64,
    recent: VecDeque<Recent>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Recent {
    sequence: u64,
    records: u32,
    base_offset: u64,
}

/// What to do with a batch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    Duplicate { base_offset: u64 },
    Forgotten { expected: u64 },
    Gap { expected: u64 },
}

impl Producers {
    /// Judges a batch of an idempotent producer.
    pub(crate) fn judge(&self, producer: u64, sequence: u64, records: u32) -> Verdict {
        let known = self.by_id.get(&producer);
        let expected = known.map_or(0, |known| known.next_sequence);
        if sequence == expected {
            return Verdict::Append;
        }
        let same = |recent: &&Recent| (recent.sequence, recent.records) == (sequence, records);
        match known.and_then(|known| known.recent.iter().find(same)) {
            Some(recent) => Verdict::Duplicate { base_offset: recent.base_offset },
            None if sequence.checked_add(u64::from(records)).is_some_and(|end| end <= expected) => {
                Verdict::Forgotten { expected }
            }
            None => Verdict::Gap { expected },
        }
    }

    /// How many records of an epoch of a transactional producer are in the partition.
    pub(crate) fn applied(&self, producer: u64, epoch: u64) -> u64 {
        self.by_id
            .get(&producer)
            .filter(|known| known.epoch == Some(epoch))
            .map_or(0, |known| known.next_sequence)
    }

    /// Where the records of an epoch begin, if any are in the partition.
    pub(crate) fn begin_of(&self, producer: u64, epoch: u64) -> Option<u64> {
        self.by_id.get(&producer).filter(|known| known.epoch == Some(epoch)).map(|known| known.epoch_begin)
    }

    /// Notes a batch that is in the partition.
    pub(crate) fn note(&mut self, header: &Header) {
        if header.producer == 0 {
            return;
        }
        if self.by_id.len() >= REMEMBERED_PRODUCERS && !self.by_id.contains_key(&header.producer) {
            self.forget_the_most_silent();
        }
        // In a compacted batch records may be missing, but sequences and offsets still go together.
        let records = header.last_delta + 1;
        let producer = self.by_id.entry(header.producer).or_default();
        if producer.epoch != header.epoch {
            producer.epoch_begin = header.base_offset;
        }
        producer.epoch = header.epoch;
        producer.next_sequence = header.sequence.saturating_add(u64::from(records));
        producer.last_offset = header.next_offset() - 1;
        if header.epoch.is_none() {
            if producer.recent.len() == REMEMBERED_BATCHES {
                producer.recent.pop_front();
            }
            let recent = Recent { sequence: header.sequence, records, base_offset: header.base_offset };
            producer.recent.push_back(recent);
        }
    }

    fn forget_the_most_silent(&mut self) {
        let silent = self.by_id.iter().min_by_key(|(_, producer)| producer.last_offset).map(|(&id, _)| id);
        if let Some(id) = silent {
            self.by_id.remove(&id);
        }
    }

    /// The table as bytes, with a checksum.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        let mut put = |n: u64| out.extend_from_slice(&n.to_le_bytes());
        put(self.by_id.len() as u64);
        let mut ids: Vec<_> = self.by_id.iter().collect();
        ids.sort_unstable_by_key(|(id, _)| **id);
        for (&id, producer) in ids {
            for n in [id, u64::from(producer.epoch.is_some()), producer.epoch.unwrap_or_default()] {
                put(n);
            }
            for n in [
                producer.next_sequence,
                producer.last_offset,
                producer.epoch_begin,
                producer.recent.len() as u64,
            ] {
                put(n);
            }
            for recent in &producer.recent {
                for n in [recent.sequence, u64::from(recent.records), recent.base_offset] {
                    put(n);
                }
            }
        }
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads it back; `None` if these are not the bytes that were written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Producers> {
        let (crc, rest) = bytes.split_first_chunk::<4>()?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut numbers = rest.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default()));
        let mut next = || numbers.next();
        let mut producers = Producers::default();
        for _ in 0..next()? {
            let (id, has_epoch, epoch) = (next()?, next()?, next()?);
            let epoch = (has_epoch != 0).then_some(epoch);
            let (next_sequence, last_offset, epoch_begin) = (next()?, next()?, next()?);
            let mut recent = VecDeque::new();
            for _ in 0..next()? {
                let (sequence, records, base_offset) = (next()?, u32::try_from(next()?).ok()?, next()?);
                recent.push_back(Recent { sequence, records, base_offset });
            }
            producers.by_id.insert(id, Producer { epoch, next_sequence, last_offset, epoch_begin, recent });
        }
        Some(producers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::Codec;

    fn batch(producer: u64, sequence: u64, records: u32, base_offset: u64, epoch: Option<u64>) -> Header {
        Header {
            body_bytes: 0,
            body_crc: 0,
            base_offset,
            base_timestamp: 0,
            max_timestamp: 0,
            producer,
            sequence,
            epoch,
            records,
            last_delta: records - 1,
            plain_bytes: 0,
            salt: 0,
            codec: Codec::None,
            sparse: false,
        }
    }

    #[test]
    fn what_follows_is_appended_what_was_is_acknowledged_what_is_missing_is_refused() {
        let mut producers = Producers::default();
        assert_eq!(producers.judge(7, 1, 1), Verdict::Gap { expected: 0 });
        producers.note(&batch(7, 0, 10, 100, None));
        producers.note(&batch(7, 10, 5, 200, None));
        assert_eq!(producers.judge(7, 15, 1), Verdict::Append);
        assert_eq!(producers.judge(7, 0, 10), Verdict::Duplicate { base_offset: 100 });
        assert_eq!(producers.judge(7, 10, 5), Verdict::Duplicate { base_offset: 200 });
        assert_eq!(producers.judge(7, 16, 1), Verdict::Gap { expected: 15 });
        assert_eq!(producers.judge(7, 10, 6), Verdict::Gap { expected: 15 }, "half of it is new");
        assert_eq!(producers.judge(7, 3, 2), Verdict::Forgotten { expected: 15 });
    }

    #[test]
    fn an_epoch_counts_from_zero() {
        let mut producers = Producers::default();
        producers.note(&batch(7, 0, 10, 100, Some(1)));
        assert_eq!((producers.applied(7, 1), producers.applied(7, 2)), (10, 0));
    }

    #[test]
    fn the_table_is_bounded_and_comes_back_from_bytes() {
        let mut producers = Producers::default();
        for id in 1..=REMEMBERED_PRODUCERS as u64 + 1 {
            producers.note(&batch(id, 0, 1, id, (id % 2 == 0).then_some(id)));
        }
        assert_eq!(producers.by_id.len(), REMEMBERED_PRODUCERS);
        assert!(!producers.by_id.contains_key(&1), "the most silent is forgotten");
        let bytes = producers.encode();
        assert_eq!(Producers::decode(&bytes), Some(producers));
        for at in (0..bytes.len()).step_by(997) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Producers::decode(&bad), None);
        }
    }
}
