//! The batches of one segment, one after the other, verified and decompressed: for compaction and verification. (A reader has its own way,
//! which follows a segment that grows.)

use crate::compression::Decompressor;
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::header::{HEADER_BYTES, Header};
use crate::partition::Partition;
use crate::record::Records;
use crate::recovery::Opening;
use crate::scan::{Next, Window, next};
use crate::segment::Segment;
use std::io;
use std::sync::Arc;

/// See the module's page.
pub(crate) struct Batches<'a> {
    opening: Opening<'a>,
    base: u64,
    file: Arc<dyn DiskFile>,
    /// Where to stop.
    bytes: u64,
    window: Window,
    offset: u64,
    plain: Vec<u8>,
    decompressor: Decompressor,
}

impl<'a> Batches<'a> {
    /// The batches of an open partition's segment.
    pub(crate) fn of(partition: &'a Partition, segment: &Segment) -> Result<Self> {
        let opened = segment.open(&*partition.environment.disk);
        let file = opened.and_then(|file| file.ok_or(io::ErrorKind::NotFound.into()));
        let file = file.map_err(|e| Error::io("opening", &segment.path, e))?;
        Ok(Batches::new(partition.opening(), segment.base, file, segment.extent().bytes))
    }

    /// The batches in so many bytes of a file.
    pub(crate) fn new(opening: Opening<'a>, base: u64, file: Arc<dyn DiskFile>, bytes: u64) -> Self {
        let (window, plain, decompressor) = (Window::default(), Vec::new(), Decompressor::default());
        Batches { opening, base, file, bytes, window, offset: base, plain, decompressor }
    }

    /// Position and offset of the next batch.
    pub(crate) fn position(&self) -> (u64, u64) {
        (self.window.position(), self.offset)
    }

    /// The next batch.
    pub(crate) fn next(&mut self) -> Result<Option<(Header, Records<'_>)>> {
        let (opening, base, position) = (&self.opening, self.base, self.window.position());
        let expected = opening.expected(self.offset, opening.compacted);
        let found = next(&mut self.window, &*self.file, self.bytes, &expected);
        let header = match found.map_err(|e| Error::io("reading", opening.directory, e))? {
            Next::End => return Ok(None),
            Next::Batch(header) => header,
            Next::Bad(problem) => return Err(opening.corrupt(base, position, self.offset, problem)),
            Next::TooLarge(bytes) => {
                let limit = opening.environment.max_batch_bytes as u64;
                return Err(Error::BatchTooLarge { place: opening.place.clone(), bytes, limit });
            }
        };
        self.window.consume(header.total_bytes() as usize);
        self.offset = header.next_offset();
        self.plain.resize(header.plain_bytes as usize, 0);
        let packed = self.window.consumed(header.body_bytes as usize);
        let bad = |problem| opening.corrupt(base, position, header.base_offset, problem);
        let unpacked = self.decompressor.decompress(header.codec, packed, &mut self.plain);
        unpacked.map_err(|problem| bad(format!("the batch cannot be decompressed: {problem}")))?;
        let records = Records::new(&header, &self.plain).map_err(|problem| bad(problem.to_owned()))?;
        Ok(Some((header, records)))
    }

    /// The bytes of the batch that came last.
    pub(crate) fn raw(&self, header: &Header) -> &[u8] {
        self.window.consumed(HEADER_BYTES + header.body_bytes as usize)
    }
}
