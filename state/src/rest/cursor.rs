//! Walks over the rows of a table, a page at a time.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::RowParts;
use crate::backend::successor;
use crate::error::Result;
use crate::snapshot::TableMeta;

/// A page ends with so many bytes,
const PAGE_BYTES: usize = 256 << 10;
/// or so many rows.
const PAGE_ROWS: usize = 1024;

type Row = (Box<[u8]>, Box<[u8]>);

/// Where a walk is. It holds nothing of the image, so that rows it has passed may change meanwhile.
pub(super) struct Cursor {
    /// Of the table, in the image.
    table: u16,
    /// The part that the next page comes from.
    next_part: usize,
    /// The part after the last one.
    end: usize,
    /// What all rows begin with, without the table's id.
    prefix: Vec<u8>,
    /// Whether only the row that is `prefix` counts.
    is_exact: bool,
    /// The backend's key from which on the next page of the part goes; `None` begins it.
    from: Option<Vec<u8>>,
    page: VecDeque<Row>,
    /// The part that `page` is of.
    part: usize,
}

impl Cursor {
    /// Over all rows of a table.
    pub fn over(table: &TableMeta) -> Self {
        Self::new(table, 0..usize::MAX, Vec::new(), false)
    }

    /// Over a row, or the rows under a prefix.
    pub fn at(table: &TableMeta, part: usize, row: &[u8], is_prefix: bool) -> Self {
        Self::new(table, part..part + 1, row.to_vec(), !is_prefix)
    }

    fn new(table: &TableMeta, parts: std::ops::Range<usize>, prefix: Vec<u8>, is_exact: bool) -> Self {
        let page = VecDeque::new();
        let (next_part, end) = (parts.start, parts.end);
        Self { table: table.id, next_part, end, prefix, is_exact, from: None, page, part: 0 }
    }

    /// The part of the row that was given last.
    pub fn part(&self) -> usize {
        self.part
    }

    /// The next row and its value; rows come without the table's id.
    pub fn next(&mut self, parts: &impl RowParts) -> Result<Option<Row>> {
        self.fill(parts)?;
        Ok(self.page.pop_front())
    }

    /// The next row of the same part, if it has one.
    pub fn peek(&mut self, parts: &impl RowParts) -> Result<Option<&[u8]>> {
        if self.page.is_empty() && self.next_part == self.part {
            self.fill_from(parts)?;
        }
        Ok(self.page.front().map(|(row, _)| &**row))
    }

    fn fill(&mut self, parts: &impl RowParts) -> Result<()> {
        while self.page.is_empty() && self.next_part < self.end.min(parts.count()) {
            self.fill_from(parts)?;
        }
        Ok(())
    }

    /// Reads the next page of the part whose turn it is.
    fn fill_from(&mut self, parts: &impl RowParts) -> Result<()> {
        self.part = self.next_part;
        let Some(id) = parts.id_of(self.part, self.table) else {
            self.next_part += 1;
            return Ok(());
        };
        let first = [&id.to_be_bytes(), &*self.prefix].concat();
        let to = match self.is_exact {
            true => [&*first, &[0]].concat(),
            false => successor(&first).unwrap_or_else(|| vec![u8::MAX; first.len() + 1]),
        };
        let from = self.from.take().unwrap_or(first);
        let (page, next, mut bytes) = (&mut self.page, &mut self.from, 0);
        parts.scan(self.part, &from, &to, &mut |key, value| {
            page.push_back((key[2..].into(), value.into()));
            bytes += key.len() + value.len();
            if bytes < PAGE_BYTES && page.len() < PAGE_ROWS {
                return Ok(ControlFlow::Continue(()));
            }
            // The first key behind this one.
            *next = Some([key, &[0]].concat());
            Ok(ControlFlow::Break(()))
        })?;
        if self.from.is_none() {
            self.next_part += 1;
        }
        Ok(())
    }
}
