//! Walking over the batches of a file: the one place that turns bytes of a segment into headers and checked bodies.

use crate::disk::DiskFile;
use crate::header::{HEADER_BYTES, Header, MAGIC_BYTES};
use crate::options::READ_AHEAD_BYTES;
use std::io;

/// A reusable buffer that moves over a file.
#[derive(Debug, Default)]
pub(crate) struct Window {
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    /// Position in the file of `buffer[start]`.
    position: u64,
}

impl Window {
    /// Moves to a position; what was read ahead is forgotten.
    pub(crate) fn seek(&mut self, position: u64) {
        (self.start, self.filled, self.position) = (0, 0, position);
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Moves on.
    pub(crate) fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.filled - self.start, "only what was wanted can be consumed");
        self.start += bytes;
        self.position += bytes as u64;
    }

    /// Makes sure that so many bytes from here on are in the buffer: `false` if the file, read up to `end`, has fewer.
    pub(crate) fn want(&mut self, file: &dyn DiskFile, bytes: usize, end: u64) -> io::Result<bool> {
        if self.filled - self.start >= bytes {
            return Ok(true);
        }
        if end.saturating_sub(self.position) < bytes as u64 {
            return Ok(false);
        }
        self.buffer.copy_within(self.start..self.filled, 0);
        (self.start, self.filled) = (0, self.filled - self.start);
        let capacity = bytes.max(READ_AHEAD_BYTES);
        if self.buffer.len() < capacity {
            self.buffer.resize(capacity, 0);
        }
        let from = self.position + self.filled as u64;
        let ahead = usize::try_from(end - from).unwrap_or(usize::MAX).min(self.buffer.len() - self.filled);
        self.filled += file.read_at(&mut self.buffer[self.filled..self.filled + ahead], from)?;
        Ok(self.filled >= bytes)
    }

    /// The next bytes, which must have been wanted.
    pub(crate) fn bytes(&self, from: usize, to: usize) -> &[u8] {
        &self.buffer[self.start + from..self.start + to]
    }

    /// The bytes that were consumed last.
    pub(crate) fn consumed(&self, bytes: usize) -> &[u8] {
        &self.buffer[self.start - bytes..self.start]
    }

    /// As [`Window::bytes`], to be changed.
    pub(crate) fn bytes_mut(&mut self, from: usize, to: usize) -> &mut [u8] {
        &mut self.buffer[self.start + from..self.start + to]
    }
}

/// What a batch must be like to be taken for one.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Expected {
    /// Whose batches these are.
    pub(crate) salt: u32,
    /// Where the offsets go on.
    pub(crate) offset: u64,
    /// Whether offsets may be missing in between, because compaction removed them.
    pub(crate) gaps: bool,
    /// The largest batch to make room for.
    pub(crate) max_bytes: usize,
}

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing: the file ends between two batches.
    End,
    /// A batch whose checksums are right. Its bytes are the next ones of the window.
    Batch(Header),
    /// Something else.
    Bad(String),
    /// A batch whose header is right and which exceeds the limit.
    TooLarge(u64),
}

/// Looks at what comes next, up to `end`, and checks it.
pub(crate) fn next(
    window: &mut Window,
    file: &dyn DiskFile,
    end: u64,
    expected: &Expected,
) -> io::Result<Next> {
    if window.position() >= end {
        return Ok(Next::End);
    }
    if !window.want(file, HEADER_BYTES, end)? {
        let left = end - window.position();
        return Ok(Next::Bad(format!("{left} bytes are left, too few for a batch")));
    }
    let header = match decode(window, expected) {
        Ok(header) => header,
        Err(problem) => return Ok(Next::Bad(problem)),
    };
    let largest = header.body_bytes.max(header.plain_bytes);
    if largest as usize > expected.max_bytes {
        return Ok(Next::TooLarge(u64::from(largest)));
    }
    let total = HEADER_BYTES + header.body_bytes as usize;
    if !window.want(file, total, end)? {
        let left = end - window.position();
        return Ok(Next::Bad(format!("the batch has {total} bytes, {left} are left")));
    }
    if !header.matches(window.bytes(HEADER_BYTES, total)) {
        return Ok(Next::Bad("the batch's body fails its checksum".to_owned()));
    }
    Ok(Next::Batch(header))
}

fn decode(window: &Window, expected: &Expected) -> Result<Header, String> {
    let Ok(bytes) = window.bytes(0, HEADER_BYTES).try_into() else { return Err("no header".to_owned()) };
    let header = Header::decode(bytes)?;
    if header.salt != expected.salt {
        return Err("the batch belongs to another topic or partition".to_owned());
    }
    if header.base_offset < expected.offset || header.base_offset > expected.offset && !expected.gaps {
        return Err(format!(
            "the batch has offset {}, where {} comes next",
            header.base_offset, expected.offset
        ));
    }
    Ok(header)
}

/// Looks for a valid batch behind bad bytes: the difference between a torn tail and damage. Returns its position.
pub(crate) fn find_valid(
    file: &dyn DiskFile,
    from: u64,
    end: u64,
    expected: &Expected,
) -> io::Result<Option<u64>> {
    let later = Expected { gaps: true, ..*expected };
    let mut search = Window::default();
    let mut probe = Window::default();
    search.seek(from);
    loop {
        let left = end.saturating_sub(search.position());
        let chunk = usize::try_from(left).unwrap_or(usize::MAX).min(READ_AHEAD_BYTES);
        if chunk < HEADER_BYTES || !search.want(file, chunk, end)? {
            return Ok(None);
        }
        let bytes = search.bytes(0, chunk);
        let found = bytes.windows(MAGIC_BYTES.len()).position(|bytes| bytes == MAGIC_BYTES);
        let Some(found) = found else {
            // The magic may lie across the chunk's end.
            search.consume(chunk - (MAGIC_BYTES.len() - 1));
            continue;
        };
        search.consume(found);
        probe.seek(search.position());
        if let Next::Batch(_) | Next::TooLarge(_) = next(&mut probe, file, end, &later)? {
            return Ok(Some(search.position()));
        }
        search.consume(1);
    }
}
