//! Records: how they are encoded in a batch's body, and how they are read without being copied.
//!
//! A record is `key length + 1, value length + 1` (0: there is none), `timestamp - first timestamp` (zigzag), `bytes of headers`, in a sparse
//! batch `offset - first offset`, then the headers, the key and the value. All numbers are LEB128. Headers are their number, then for each
//! `name length, name, value length + 1, value`.

use crate::header::Header;
use crate::varint;

/// A header of a record: a name, and a value that may be absent.
pub type RecordHeader<'a> = (&'a str, Option<&'a [u8]>);

/// One record, borrowed from the reader's buffer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its offset in the partition.
    pub offset: u64,
    /// Its timestamp, in milliseconds since the Unix epoch by convention.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone: compaction removes the key.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The record's headers, in the order in which they were written.
    pub fn headers(&self) -> Headers<'a> {
        let mut rest = self.headers;
        let left = varint::take(&mut rest).unwrap_or(0);
        Headers { rest, left }
    }

    /// The value of the first header of that name: `None` if there is no such header, `Some(None)` if it has no value.
    pub fn header(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.headers().find(|header| header.0 == name).map(|header| header.1)
    }
}

/// The headers of a record.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u64,
}

impl<'a> Iterator for Headers<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        self.left = self.left.checked_sub(1)?;
        take_header(&mut self.rest)
    }
}

fn take_header<'a>(rest: &mut &'a [u8]) -> Option<RecordHeader<'a>> {
    let len = varint::take(rest)?;
    let name = std::str::from_utf8(take_bytes(rest, len)?).ok()?;
    let value = take_optional_len(rest)?;
    Some((name, take_optional(rest, value)?))
}

#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (bytes, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(bytes)
}

#[inline]
fn take_optional_len(rest: &mut &[u8]) -> Option<u64> {
    varint::take(rest)
}

/// `len` is one more than the length, or 0.
#[inline]
fn take_optional<'a>(rest: &mut &'a [u8], len: u64) -> Option<Option<&'a [u8]>> {
    match len.checked_sub(1) {
        Some(len) => take_bytes(rest, len).map(Some),
        None => Some(None),
    }
}

/// What of a record stands before its bytes.
pub(crate) struct Prelude {
    pub(crate) key: Option<usize>,
    pub(crate) timestamp_delta: i64,
    pub(crate) header_bytes: usize,
    pub(crate) offset_delta: Option<u32>,
}

impl Prelude {
    /// Writes it, with room for the value's length, whose position it returns.
    pub(crate) fn put_open(&self, out: &mut Vec<u8>) -> usize {
        self.put_key_len(out);
        let slot = out.len();
        out.extend_from_slice(&[0; varint::PADDED]);
        self.put_rest(out);
        slot
    }

    /// Writes it.
    #[inline]
    pub(crate) fn put(&self, value: Option<usize>, out: &mut Vec<u8>) {
        self.put_key_len(out);
        varint::put(out, value.map_or(0, |len| len as u64 + 1));
        self.put_rest(out);
    }

    #[inline]
    fn put_key_len(&self, out: &mut Vec<u8>) {
        varint::put(out, self.key.map_or(0, |len| len as u64 + 1));
    }

    #[inline]
    fn put_rest(&self, out: &mut Vec<u8>) {
        varint::put(out, varint::zigzag(self.timestamp_delta));
        varint::put(out, self.header_bytes as u64);
        if let Some(delta) = self.offset_delta {
            varint::put(out, u64::from(delta));
        }
    }
}

/// Writes headers as a record carries them.
pub(crate) fn put_headers(headers: &[RecordHeader<'_>], out: &mut Vec<u8>) {
    varint::put(out, headers.len() as u64);
    for (name, value) in headers {
        varint::put(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        varint::put(out, value.map_or(0, |value| value.len() as u64 + 1));
        out.extend_from_slice(value.unwrap_or_default());
    }
}

/// The records of one batch, borrowed from the reader's buffer: an iterator.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: u32,
    next: u64,
    base_offset: u64,
    base_timestamp: i64,
    end: u64,
    sparse: bool,
}

impl<'a> Records<'a> {
    /// The records in a body whose checksum is right; an error if they are not what the header says.
    ///
    /// Walking over the lengths here costs some nanoseconds a record, and buys an iterator that cannot fail.
    pub(crate) fn new(header: &Header, body: &'a [u8]) -> Result<Records<'a>, &'static str> {
        let records = Records {
            rest: body,
            left: header.records,
            next: header.base_offset,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            end: header.next_offset(),
            sparse: header.sparse,
        };
        let mut walk = records.clone();
        let mut from = header.base_offset;
        for _ in 0..header.records {
            let record = walk.take_record().ok_or("a record's lengths exceed its batch")?;
            if record.offset < from || record.offset >= records.end {
                return Err("a record's offset is outside its batch");
            }
            from = record.offset + 1;
            if !record.headers.is_empty() && !are_headers(record.headers) {
                return Err("a record's headers are malformed");
            }
        }
        if walk.rest.is_empty() {
            Ok(records)
        } else {
            Err("bytes are left over behind the batch's last record")
        }
    }

    /// One past the offset of the batch's last record. Compaction may have removed that record.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Leaves out the records before an offset.
    pub(crate) fn skip_to(mut self, offset: u64) -> Records<'a> {
        let mut ahead = self.clone();
        while let Some(record) = ahead.next() {
            if record.offset >= offset {
                break;
            }
            self = ahead.clone();
        }
        self
    }

    #[inline(always)]
    fn take_record(&mut self) -> Option<RecordView<'a>> {
        let rest = &mut self.rest;
        let key = take_optional_len(rest)?;
        let value = take_optional_len(rest)?;
        let timestamp = self.base_timestamp.wrapping_add(varint::unzigzag(varint::take(rest)?));
        let header_bytes = varint::take(rest)?;
        let offset = if self.sparse { self.base_offset.checked_add(varint::take(rest)?)? } else { self.next };
        let headers = take_bytes(rest, header_bytes)?;
        let key = take_optional(rest, key)?;
        let value = take_optional(rest, value)?;
        self.next = offset.checked_add(1)?;
        Some(RecordView { offset, timestamp, key, value, headers })
    }
}

fn are_headers(mut rest: &[u8]) -> bool {
    let Some(count) = varint::take(&mut rest) else { return false };
    (0..count).all(|_| take_header(&mut rest).is_some()) && rest.is_empty()
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordView<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordView<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.take_record()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Records<'_> {}
