//! The header of a batch, as it lies in a segment.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..4 | magic, which holds the format's version |
//! | 4..8 | CRC32C of bytes 8..84 |
//! | 8..12 | length of the body as stored |
//! | 12..16 | CRC32C of the body as stored |
//! | 16..24 | offset of the first record |
//! | 24..32, 32..40 | timestamp of the first record, greatest timestamp, in milliseconds |
//! | 40..48 | producer, or 0 |
//! | 48..56 | the producer's sequence of the first record |
//! | 56..64 | the epoch, of a transactional batch |
//! | 64..68 | number of records |
//! | 68..72 | offset of the last record, relative to the first offset |
//! | 72..76 | length of the body decompressed |
//! | 76..80 | salt: which topic and partition it belongs to |
//! | 80, 81 | codec, flags |
//! | 82..84 | zero |
//!
//! All little endian. The offset is in the header alone, so that a batch can be checksummed and compressed outside the partition's lock,
//! and a staged one moved into its partition without touching its body.

use crate::compression::Codec;

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 84;
const MAGIC: u32 = u32::from_le_bytes(*b"RVB1");
pub(crate) const MAGIC_BYTES: [u8; 4] = MAGIC.to_le_bytes();
/// The batch belongs to an epoch of a transactional producer.
const TRANSACTIONAL: u8 = 1;
/// Compaction removed records: each carries its own offset.
const SPARSE: u8 = 2;

/// See the module's page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body_bytes: u32,
    pub(crate) body_crc: u32,
    pub(crate) base_offset: u64,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer: u64,
    pub(crate) sequence: u64,
    pub(crate) epoch: Option<u64>,
    pub(crate) records: u32,
    pub(crate) last_delta: u32,
    pub(crate) plain_bytes: u32,
    pub(crate) salt: u32,
    pub(crate) codec: Codec,
    pub(crate) sparse: bool,
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Header {
    /// Reads a header, or says what is wrong with it. Lengths are the writer's once this has passed, not yet within limits.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, &'static str> {
        if u32_at(bytes, 0) != MAGIC {
            return Err("no batch begins here");
        }
        if crc32c::crc32c(&bytes[8..]) != u32_at(bytes, 4) {
            return Err("the batch's header fails its checksum");
        }
        let codec =
            Codec::from_byte(bytes[80]).ok_or("the batch is compressed in a way unknown to this version")?;
        let flags = bytes[81];
        if flags & !(TRANSACTIONAL | SPARSE) != 0 {
            return Err("the batch has flags unknown to this version");
        }
        let header = Header {
            body_bytes: u32_at(bytes, 8),
            body_crc: u32_at(bytes, 12),
            base_offset: u64_at(bytes, 16),
            base_timestamp: u64_at(bytes, 24) as i64,
            max_timestamp: u64_at(bytes, 32) as i64,
            producer: u64_at(bytes, 40),
            sequence: u64_at(bytes, 48),
            epoch: (flags & TRANSACTIONAL != 0).then(|| u64_at(bytes, 56)),
            records: u32_at(bytes, 64),
            last_delta: u32_at(bytes, 68),
            plain_bytes: u32_at(bytes, 72),
            salt: u32_at(bytes, 76),
            codec,
            sparse: flags & SPARSE != 0,
        };
        if header.records == 0 || header.records - 1 > header.last_delta {
            return Err("the batch's header counts its records wrongly");
        }
        if header.base_offset.checked_add(u64::from(header.last_delta) + 1).is_none() {
            return Err("the batch's offsets exceed 64 bits");
        }
        Ok(header)
    }

    /// Writes the header, with its checksum.
    pub(crate) fn encode(&self, bytes: &mut [u8; HEADER_BYTES]) {
        let flags =
            if self.epoch.is_some() { TRANSACTIONAL } else { 0 } | if self.sparse { SPARSE } else { 0 };
        bytes[0..4].copy_from_slice(&MAGIC_BYTES);
        bytes[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base_offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base_timestamp.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.max_timestamp.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.producer.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.epoch.unwrap_or_default().to_le_bytes());
        bytes[64..68].copy_from_slice(&self.records.to_le_bytes());
        bytes[68..72].copy_from_slice(&self.last_delta.to_le_bytes());
        bytes[72..76].copy_from_slice(&self.plain_bytes.to_le_bytes());
        bytes[76..80].copy_from_slice(&self.salt.to_le_bytes());
        bytes[80..84].copy_from_slice(&[self.codec.to_byte(), flags, 0, 0]);
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Bytes of header and body.
    pub(crate) fn total_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// One past the last offset.
    pub(crate) fn next_offset(&self) -> u64 {
        self.base_offset + u64::from(self.last_delta) + 1
    }

    /// Whether these are the bytes that were written.
    pub(crate) fn matches(&self, body: &[u8]) -> bool {
        crc32c::crc32c(body) == self.body_crc
    }
}

/// Marks a partition's batches, so that a batch is not taken for one of another partition: one that lies in the wrong folder, or
/// inside a record's value.
pub(crate) fn salt(topic: &str, partition: u32) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(topic.as_bytes()), &partition.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            body_bytes: 7,
            body_crc: 0x1234_5678,
            base_offset: u64::MAX / 3,
            base_timestamp: -5,
            max_timestamp: i64::MAX,
            producer: 9,
            sequence: 11,
            epoch: Some(0),
            records: 3,
            last_delta: 12,
            plain_bytes: 100,
            salt: salt("clicks", 3),
            codec: Codec::Zstd,
            sparse: true,
        }
    }

    #[test]
    fn a_header_comes_back() {
        let mut bytes = [0; HEADER_BYTES];
        for header in [sample(), Header { epoch: None, sparse: false, ..sample() }] {
            header.encode(&mut bytes);
            assert_eq!(Header::decode(&bytes), Ok(header));
        }
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let mut bytes = [0; HEADER_BYTES];
        sample().encode(&mut bytes);
        for bit in 0..HEADER_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
