//! The delta file: what changed between two barriers, as byte-level operations on rows.
//!
//! ```text
//! file   := header block* end
//! header := magic[8] version:u32 zero:u32
//! block  := kind:u8 zero:u8 table:u16 klen:u32 vlen:u32 count:u32 len:u32 crc:u32 payload[len]
//! end    := a block of kind 255 without payload whose count is the number of blocks before it
//! ```
//! Integers are little endian; `crc` is CRC32C over the header's first 20 bytes and the payload. Operations count in the
//! order of the file, so a later one wins.
//!
//! 1. `put` and `delete` carry a row's key (namespace, key group as two big-endian bytes, key) without the table's id.
//! 2. While all records of a block have keys of one length and values of one length they are stored without any lengths (`klen`,
//!    `vlen` say which): fixed-size state costs its bytes and nothing else. The first record that differs closes the block
//!    and opens one with lengths (`klen == u32::MAX`).
//! 3. `drop` removes all rows under a prefix, within a range of key groups.
//!
//! Every row carries its key group, so a task that restores other groups skips foreign rows by two bytes, without decoding
//! them and without the writer having had to sort.

use std::sync::Arc;

use crate::codec::CodecError;
use crate::error::{Result, StateError};
use crate::key::KeyGroupRange;
use crate::limits::BLOCK;
use crate::snapshot::SharedBytes;

const MAGIC: [u8; 8] = *b"RVMKDLT\n";
const VERSION: u32 = 1;
const FILE_HEADER: usize = 16;
const HEADER: usize = 24;
const VARIABLE: u32 = u32::MAX;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DROP: u8 = 3;
const END: u8 = 255;

/// One operation of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    Put { row: &'a [u8], value: &'a [u8] },
    Delete { row: &'a [u8] },
    Drop { prefix: &'a [u8], groups: KeyGroupRange },
}

#[derive(Debug)]
struct Open {
    start: usize,
    kind: u8,
    table: u16,
    klen: u32,
    vlen: u32,
    count: u32,
}

/// Encodes operations into blocks.
#[derive(Debug, Default)]
pub(crate) struct DeltaWriter {
    out: Vec<u8>,
    open: Option<Open>,
    blocks: u32,
    scratch: Vec<u8>,
    /// Whoever fills it may stop beyond this many bytes, if not 0.
    cap: usize,
}

impl DeltaWriter {
    /// A writer that reuses the pages of an old file.
    pub fn reusing(mut out: Vec<u8>) -> Self {
        out.clear();
        Self { out, ..Self::default() }
    }

    /// An empty writer with this one's memory, given up beyond `cap` bytes unless that is 0.
    pub fn restarted(mut self, cap: usize) -> Self {
        self.clear();
        Self { cap, ..self }
    }

    /// Whether there is no point in going on.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.cap != 0 && self.out.len() > self.cap
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    pub fn clear(&mut self) {
        self.out.clear();
        self.open = None;
        self.blocks = 0;
    }

    /// Appends a put; both closures append to the buffer they get.
    #[inline]
    pub fn put(
        &mut self,
        table: u16,
        row: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let (uniform, at) = match &self.open {
            Some(open) if open.kind == PUT && open.table == table && self.out.len() - open.start < BLOCK => {
                (open.klen != VARIABLE, self.out.len())
            }
            _ => {
                self.begin(PUT, table, 0);
                (true, self.out.len())
            }
        };
        if !uniform {
            return self.put_variable(at, row, value);
        }
        if let Err(error) = row(&mut self.out) {
            self.out.truncate(at);
            return Err(error);
        }
        let middle = self.out.len();
        if let Err(error) = value(&mut self.out) {
            self.out.truncate(at);
            return Err(error);
        }
        let (klen, vlen) = ((middle - at) as u32, (self.out.len() - middle) as u32);
        let open = self.open.as_mut().expect("a block was begun above");
        if open.count == 0 {
            (open.klen, open.vlen) = (klen, vlen);
        } else if (open.klen, open.vlen) != (klen, vlen) {
            self.reopen_variable(table, at, middle);
            return Ok(());
        }
        open.count += 1;
        Ok(())
    }

    fn put_variable(
        &mut self,
        at: usize,
        row: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        self.out.extend_from_slice(&[0; 4]);
        if let Err(error) = row(&mut self.out) {
            self.out.truncate(at);
            return Err(error);
        }
        let middle = self.out.len();
        self.patch(at, (middle - at - 4) as u32);
        self.out.extend_from_slice(&[0; 4]);
        if let Err(error) = value(&mut self.out) {
            self.out.truncate(at);
            return Err(error);
        }
        self.patch(middle, (self.out.len() - middle - 4) as u32);
        self.open.as_mut().expect("the caller looked at it").count += 1;
        Ok(())
    }

    /// Moves the record `at..` (key up to `middle`) out of a uniform block into a new one with lengths.
    #[cold]
    fn reopen_variable(&mut self, table: u16, at: usize, middle: usize) {
        let mut record = std::mem::take(&mut self.scratch);
        record.clear();
        record.extend_from_slice(&self.out[at..]);
        self.out.truncate(at);
        self.begin(PUT, table, VARIABLE);
        let (row, value) = record.split_at(middle - at);
        self.push_sized(row);
        self.push_sized(value);
        self.open.as_mut().expect("begun above").count = 1;
        self.scratch = record;
    }

    /// Appends a delete of one row.
    pub fn delete(&mut self, table: u16, row: &[u8]) {
        self.ensure(DELETE, table);
        self.push_sized(row);
        self.count();
    }

    /// Appends a drop of all rows under `prefix` in `groups`.
    pub fn drop_prefix(&mut self, table: u16, prefix: &[u8], groups: KeyGroupRange) {
        self.ensure(DROP, table);
        self.out.extend_from_slice(&groups.start.to_le_bytes());
        self.out.extend_from_slice(&groups.end.to_le_bytes());
        self.push_sized(prefix);
        self.count();
    }

    /// Appends an operation read from another delta.
    pub fn push(&mut self, table: u16, op: Op<'_>) {
        match op {
            Op::Put { row, value } => {
                let copy = |bytes: &[u8], out: &mut Vec<u8>| {
                    out.extend_from_slice(bytes);
                    Ok(())
                };
                self.put(table, |out| copy(row, out), |out| copy(value, out)).expect("copying cannot fail");
            }
            Op::Delete { row } => self.delete(table, row),
            Op::Drop { prefix, groups } => self.drop_prefix(table, prefix, groups),
        }
    }

    /// Appends all operations of a finished file, by copying its blocks.
    pub fn append_file(&mut self, file: &[u8]) {
        self.ensure_header();
        self.close();
        let (blocks, end) = file[FILE_HEADER..].split_at(file.len() - FILE_HEADER - HEADER);
        debug_assert_eq!(end[0], END, "a finished file ends with its end marker");
        self.out.extend_from_slice(blocks);
        self.blocks += u32_at(end, 12);
    }

    /// Closes the file and hands its bytes out.
    pub fn finish(&mut self) -> Vec<u8> {
        self.ensure_header();
        self.close();
        let blocks = self.blocks;
        self.begin(END, 0, 0);
        self.open.as_mut().expect("begun above").count = blocks;
        self.close();
        self.blocks = 0;
        std::mem::take(&mut self.out)
    }

    fn ensure(&mut self, kind: u8, table: u16) {
        match &self.open {
            Some(open) if open.kind == kind && open.table == table && self.out.len() - open.start < BLOCK => {
            }
            _ => self.begin(kind, table, VARIABLE),
        }
    }

    fn ensure_header(&mut self) {
        if self.out.is_empty() {
            self.out.extend_from_slice(&MAGIC);
            self.out.extend_from_slice(&VERSION.to_le_bytes());
            self.out.extend_from_slice(&[0; 4]);
        }
    }

    #[cold]
    fn begin(&mut self, kind: u8, table: u16, klen: u32) {
        self.ensure_header();
        self.close();
        self.open = Some(Open { start: self.out.len(), kind, table, klen, vlen: klen, count: 0 });
        self.out.extend_from_slice(&[0; HEADER]);
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let length = self.out.len() - open.start - HEADER;
        if open.count == 0 && open.kind != END {
            self.out.truncate(open.start);
            return;
        }
        let (header, payload) = self.out[open.start..].split_at_mut(HEADER);
        header[0] = open.kind;
        header[2..4].copy_from_slice(&open.table.to_le_bytes());
        header[4..8].copy_from_slice(&open.klen.to_le_bytes());
        header[8..12].copy_from_slice(&open.vlen.to_le_bytes());
        header[12..16].copy_from_slice(&open.count.to_le_bytes());
        header[16..20].copy_from_slice(&(length as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), payload);
        header[20..24].copy_from_slice(&crc.to_le_bytes());
        self.blocks += 1;
    }

    fn push_sized(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.out.extend_from_slice(bytes);
    }

    fn patch(&mut self, at: usize, length: u32) {
        self.out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn count(&mut self) {
        self.open.as_mut().expect("a block was ensured").count += 1;
    }
}

#[derive(Debug, Clone, Copy)]
struct Block {
    kind: u8,
    table: u16,
    klen: u32,
    vlen: u32,
    count: u32,
    payload: usize,
    end: usize,
}

/// A verified delta file.
#[derive(Debug, Clone)]
pub(crate) struct DeltaReader {
    file: Arc<str>,
    bytes: SharedBytes,
    blocks: Arc<[Block]>,
}

impl DeltaReader {
    /// Verifies all checksums and lengths: about 0.1 ns a byte.
    pub fn open(file: &str, bytes: SharedBytes) -> Result<Self> {
        let corrupt = |position: usize, reason: &str| StateError::Corrupt {
            file: file.to_owned(),
            position: position as u64,
            reason: reason.to_owned(),
        };
        if bytes.len() < FILE_HEADER || bytes[..8] != MAGIC {
            return Err(corrupt(0, "it does not start like a delta file"));
        }
        if u32_at(&bytes, 8) != VERSION {
            let reason = format!("its format is {}, this program reads {VERSION}", u32_at(&bytes, 8));
            return Err(corrupt(8, &reason));
        }
        if bytes[12..FILE_HEADER] != [0; 4] {
            return Err(corrupt(12, "reserved bytes are not zero"));
        }
        let mut blocks = Vec::new();
        let mut at = FILE_HEADER;
        loop {
            let block = read_block(&bytes, at).map_err(|reason| corrupt(at, &reason))?;
            at = block.end;
            if block.kind == END {
                if block.count as usize != blocks.len() {
                    return Err(corrupt(at, "blocks are missing"));
                }
                break;
            }
            blocks.push(block);
        }
        if at != bytes.len() {
            return Err(corrupt(at, "there are bytes after its end"));
        }
        Ok(Self { file: file.into(), bytes, blocks: blocks.into() })
    }

    /// Visits the operations of `table` in order.
    pub fn for_each(&self, table: u16, mut visit: impl FnMut(Op<'_>) -> Result<()>) -> Result<()> {
        for block in self.blocks.iter().filter(|block| block.table == table) {
            self.visit_block(block, &mut visit)?;
        }
        Ok(())
    }

    /// Visits all operations in order, with their table.
    pub fn for_each_table(&self, mut visit: impl FnMut(u16, Op<'_>) -> Result<()>) -> Result<()> {
        for block in self.blocks.iter() {
            self.visit_block(block, &mut |op| visit(block.table, op))?;
        }
        Ok(())
    }

    /// A row that is too short to name its key group.
    pub fn short_row(&self, length: usize) -> StateError {
        StateError::Corrupt {
            file: self.file.to_string(),
            position: 0,
            reason: format!("a row of {length} bytes names no key group"),
        }
    }

    fn visit_block(&self, block: &Block, visit: &mut impl FnMut(Op<'_>) -> Result<()>) -> Result<()> {
        let bytes = &self.bytes[..block.end];
        let mut at = block.payload;
        for _ in 0..block.count {
            let start = at;
            let op = read_op(bytes, block, &mut at).ok_or_else(|| StateError::Corrupt {
                file: self.file.to_string(),
                position: start as u64,
                reason: "a record reaches past its block".to_owned(),
            })?;
            visit(op)?;
        }
        Ok(())
    }
}

#[inline]
fn read_op<'a>(bytes: &'a [u8], block: &Block, at: &mut usize) -> Option<Op<'a>> {
    Some(match block.kind {
        PUT if block.klen != VARIABLE => Op::Put {
            row: take(bytes, at, block.klen as usize)?,
            value: take(bytes, at, block.vlen as usize)?,
        },
        PUT => Op::Put { row: take_sized(bytes, at)?, value: take_sized(bytes, at)? },
        DELETE => Op::Delete { row: take_sized(bytes, at)? },
        _ => {
            let groups = take(bytes, at, 4)?;
            let start = u16::from_le_bytes([groups[0], groups[1]]);
            let end = u16::from_le_bytes([groups[2], groups[3]]);
            Op::Drop { groups: KeyGroupRange::new(start, end), prefix: take_sized(bytes, at)? }
        }
    })
}

#[inline]
fn take<'a>(bytes: &'a [u8], at: &mut usize, length: usize) -> Option<&'a [u8]> {
    let slice = bytes.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some(slice)
}

#[inline]
fn take_sized<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = take(bytes, at, 4)?;
    take(bytes, at, u32_at(length, 0) as usize)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read_block(bytes: &[u8], at: usize) -> Result<Block, String> {
    let header = bytes.get(at..at + HEADER).ok_or("it ends before its end marker")?;
    let block = Block {
        kind: header[0],
        table: u16::from_le_bytes([header[2], header[3]]),
        klen: u32_at(header, 4),
        vlen: u32_at(header, 8),
        count: u32_at(header, 12),
        payload: at + HEADER,
        end: at + HEADER + u32_at(header, 16) as usize,
    };
    let payload = bytes.get(block.payload..block.end).ok_or("a block reaches past the end")?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), payload);
    if crc != u32_at(header, 20) {
        return Err(format!("checksum {crc:08x}, expected {:08x}", u32_at(header, 20)));
    }
    if !matches!(block.kind, PUT | DELETE | DROP | END) {
        return Err(format!("unknown kind of block {}", block.kind));
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Owned {
        Put(Vec<u8>, Vec<u8>),
        Delete(Vec<u8>),
        Drop(Vec<u8>, u16, u16),
    }

    fn owned(op: Op<'_>) -> Owned {
        match op {
            Op::Put { row, value } => Owned::Put(row.to_vec(), value.to_vec()),
            Op::Delete { row } => Owned::Delete(row.to_vec()),
            Op::Drop { prefix, groups } => Owned::Drop(prefix.to_vec(), groups.start, groups.end),
        }
    }

    fn write(ops: &[(u16, Owned)]) -> Vec<u8> {
        let mut writer = DeltaWriter::default();
        for (table, op) in ops {
            writer.push(
                *table,
                match op {
                    Owned::Put(row, value) => Op::Put { row, value },
                    Owned::Delete(row) => Op::Delete { row },
                    Owned::Drop(prefix, start, end) => {
                        Op::Drop { prefix, groups: KeyGroupRange::new(*start, *end) }
                    }
                },
            );
        }
        writer.finish()
    }

    fn op() -> impl Strategy<Value = (u16, Owned)> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..5);
        let op = prop_oneof![
            4 => (Just(vec![1, 2, 3]), Just(vec![4])).prop_map(|(k, v)| Owned::Put(k, v)),
            2 => (bytes(), bytes()).prop_map(|(k, v)| Owned::Put(k, v)),
            1 => bytes().prop_map(Owned::Delete),
            1 => (bytes(), any::<u16>(), any::<u16>()).prop_map(|(p, s, e)| Owned::Drop(p, s, e)),
        ];
        (0u16..2, op)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_order(ops in prop::collection::vec(op(), 0..60)) {
            let reader = DeltaReader::open("d", write(&ops).into()).unwrap();
            let mut read = Vec::new();
            reader.for_each_table(|table, op| { read.push((table, owned(op))); Ok(()) }).unwrap();
            prop_assert_eq!(read, ops);
        }

        #[test]
        fn any_changed_or_missing_byte_is_an_error_naming_the_file(
            ops in prop::collection::vec(op(), 0..20), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let bytes = write(&ops);
            let at = at.index(bytes.len());
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let error = DeltaReader::open("5.delta", damaged.into()).unwrap_err().to_string();
            prop_assert!(error.contains("5.delta") && error.contains("at byte"), "{}", error);
            prop_assert!(DeltaReader::open("5.delta", bytes[..at].to_vec().into()).is_err());
        }
    }
}
