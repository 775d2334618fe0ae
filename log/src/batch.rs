//! Building batches: records are encoded straight into the buffer that will be written.

use crate::compression::{Codec, Compression, Compressor};
use crate::header::{HEADER_BYTES, Header};
use crate::record::{Prelude, RecordHeader, RecordView, put_headers};
use crate::varint;

/// Records to be appended together: atomically, with one checksum, compressed as one.
///
/// Reuse it: appending leaves it empty, with its buffers. Larger batches cost less a record; some 64 KiB is a good size.
#[derive(Debug)]
pub struct RecordBatch {
    /// Room for the header, then the body.
    plain: Vec<u8>,
    /// Room for the header, then the compressed body.
    packed: Vec<u8>,
    scratch: Vec<u8>,
    compressor: Compressor,
    records: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    largest: usize,
    keyless: bool,
    sparse_base: Option<u64>,
    last_delta: u32,
}

impl Default for RecordBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Who wrote a batch, as its header says.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Author {
    pub(crate) producer: u64,
    pub(crate) sequence: u64,
    pub(crate) epoch: Option<u64>,
}

impl RecordBatch {
    /// An empty batch.
    pub fn new() -> Self {
        RecordBatch {
            plain: vec![0; HEADER_BYTES],
            packed: Vec::new(),
            scratch: Vec::new(),
            compressor: Compressor::default(),
            records: 0,
            base_timestamp: 0,
            max_timestamp: i64::MIN,
            largest: 0,
            keyless: false,
            sparse_base: None,
            last_delta: 0,
        }
    }

    /// A batch of records that carry their offsets, which compaction left over.
    pub(crate) fn sparse(base_offset: u64, last_delta: u32) -> Self {
        RecordBatch { sparse_base: Some(base_offset), last_delta, ..Self::new() }
    }

    /// Adds a record. Costs a copy of key and value into the batch.
    #[inline]
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) {
        let from = self.plain.len();
        self.prelude(key, timestamp, 0).put(value.map(<[u8]>::len), &mut self.plain);
        self.plain.extend_from_slice(key.unwrap_or_default());
        self.plain.extend_from_slice(value.unwrap_or_default());
        self.added(from, key, timestamp);
    }

    /// Adds a record with headers.
    pub fn push_with_headers(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: i64,
        headers: &[RecordHeader<'_>],
    ) {
        if headers.is_empty() {
            return self.push(key, value, timestamp);
        }
        let from = self.plain.len();
        self.scratch.clear();
        put_headers(headers, &mut self.scratch);
        self.prelude(key, timestamp, self.scratch.len()).put(value.map(<[u8]>::len), &mut self.plain);
        self.plain.extend_from_slice(&self.scratch);
        self.plain.extend_from_slice(key.unwrap_or_default());
        self.plain.extend_from_slice(value.unwrap_or_default());
        self.added(from, key, timestamp);
    }

    /// Adds a record whose value `encode` appends to the batch's own buffer, so that it is not copied. `encode` must only append. If it
    /// fails, nothing is added.
    pub fn push_with<E>(
        &mut self,
        key: Option<&[u8]>,
        timestamp: i64,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let from = self.plain.len();
        let slot = self.prelude(key, timestamp, 0).put_open(&mut self.plain);
        self.plain.extend_from_slice(key.unwrap_or_default());
        let value = self.plain.len();
        if let Err(error) = encode(&mut self.plain) {
            self.plain.truncate(from);
            return Err(error);
        }
        let len = self.plain.len() - value;
        varint::patch_padded(&mut self.plain[slot..], len as u64 + 1);
        self.added(from, key, timestamp);
        Ok(())
    }

    /// Adds a record as it was read, with its headers, and in a sparse batch its offset.
    pub(crate) fn push_view(&mut self, record: &RecordView<'_>) {
        let headers: Vec<_> = record.headers().collect();
        let from = self.plain.len();
        self.scratch.clear();
        if !headers.is_empty() {
            put_headers(&headers, &mut self.scratch);
        }
        let mut prelude = self.prelude(record.key, record.timestamp, self.scratch.len());
        prelude.offset_delta = self.sparse_base.map(|base| (record.offset - base) as u32);
        prelude.put(record.value.map(<[u8]>::len), &mut self.plain);
        self.plain.extend_from_slice(&self.scratch);
        self.plain.extend_from_slice(record.key.unwrap_or_default());
        self.plain.extend_from_slice(record.value.unwrap_or_default());
        self.added(from, record.key, record.timestamp);
    }

    #[inline]
    fn prelude(&mut self, key: Option<&[u8]>, timestamp: i64, header_bytes: usize) -> Prelude {
        if self.records == 0 {
            self.base_timestamp = timestamp;
        }
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        Prelude { key: key.map(<[u8]>::len), timestamp_delta, header_bytes, offset_delta: None }
    }

    #[inline]
    fn added(&mut self, from: usize, key: Option<&[u8]>, timestamp: i64) {
        self.records += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.largest = self.largest.max(self.plain.len() - from);
        self.keyless |= key.is_none();
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.records as usize
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of the encoded records, before compression.
    pub fn bytes(&self) -> usize {
        self.plain.len() - HEADER_BYTES
    }

    /// Removes all records, keeps the buffers.
    pub fn clear(&mut self) {
        self.plain.truncate(HEADER_BYTES);
        self.records = 0;
        self.max_timestamp = i64::MIN;
        self.largest = 0;
        self.keyless = false;
    }

    /// Encoded bytes of the largest record.
    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    pub(crate) fn has_keyless(&self) -> bool {
        self.keyless
    }

    /// Compresses and checksums. What it returns lacks only its offset: header and room for it, then the body.
    ///
    /// The caller has checked that body and records fit into 32 bits.
    pub(crate) fn seal(
        &mut self,
        compression: Compression,
        salt: u32,
        author: Author,
    ) -> (Header, &mut [u8]) {
        self.packed.clear();
        self.packed.resize(HEADER_BYTES, 0);
        let plain_bytes = self.bytes() as u32;
        let codec = self.compressor.compress(compression, &self.plain[HEADER_BYTES..], &mut self.packed);
        let bytes = if codec == Codec::None { &mut self.plain } else { &mut self.packed };
        let header = Header {
            body_bytes: (bytes.len() - HEADER_BYTES) as u32,
            body_crc: crc32c::crc32c(&bytes[HEADER_BYTES..]),
            base_offset: self.sparse_base.unwrap_or(0),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer: author.producer,
            sequence: author.sequence,
            epoch: author.epoch,
            records: self.records,
            last_delta: if self.sparse_base.is_some() { self.last_delta } else { self.records - 1 },
            plain_bytes,
            salt,
            codec,
            sparse: self.sparse_base.is_some(),
        };
        (header, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Records;
    use proptest::prelude::*;

    type Owned = (Option<Vec<u8>>, Option<Vec<u8>>, i64, Vec<(String, Option<Vec<u8>>)>);

    fn records() -> impl Strategy<Value = Vec<Owned>> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
        let headers = proptest::collection::vec((".{0,5}", bytes()), 0..3);
        proptest::collection::vec((bytes(), bytes(), any::<i64>(), headers), 1..20)
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read(records in records()) {
            let mut batch = RecordBatch::new();
            for (key, value, timestamp, headers) in &records {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
                batch.push_with_headers(key.as_deref(), value.as_deref(), *timestamp, &headers);
            }
            let (header, bytes) = batch.seal(Compression::None, 0, Author::default());
            let read: Vec<Owned> = Records::new(&header, &bytes[HEADER_BYTES..]).unwrap().map(|r| {
                let headers = r.headers().map(|(n, v)| (n.to_owned(), v.map(<[u8]>::to_vec))).collect();
                (r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec), r.timestamp, headers)
            }).collect();
            prop_assert_eq!(&read, &records);
            prop_assert_eq!(header.max_timestamp, records.iter().map(|r| r.2).max().unwrap());
        }

        #[test]
        fn bytes_that_are_no_records_are_refused_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..100), n in 1_u32..20) {
            let mut batch = RecordBatch::new();
            batch.push(None, None, 0);
            let (header, _) = batch.seal(Compression::None, 0, Author::default());
            let header = Header { records: n, last_delta: n, ..header };
            if let Ok(records) = Records::new(&header, &body) {
                prop_assert_eq!(records.count(), n as usize);
            }
        }
    }

    #[test]
    fn a_value_encoded_in_place_equals_one_that_was_copied() {
        let mut batch = RecordBatch::new();
        batch.push(Some(b"k"), Some(b"value"), 5);
        batch
            .push_with::<()>(Some(b"k"), 5, |out| {
                out.extend_from_slice(b"value");
                Ok(())
            })
            .unwrap();
        batch
            .push_with(None, 6, |out| {
                out.extend_from_slice(b"half");
                Err("no")
            })
            .unwrap_err();
        let (header, bytes) = batch.seal(Compression::None, 0, Author::default());
        let read: Vec<_> = Records::new(&header, &bytes[HEADER_BYTES..]).unwrap().collect();
        assert_eq!((read.len(), read[0].value, read[0].key), (2, read[1].value, read[1].key));
    }
}
