//! One part of an epoch's snapshot: a base that is read where it lies, and a run for each file on top of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::run::{Row, Run};
use super::{Content, PartFiles};
use crate::backend::{Backends, Frozen, Visit};
use crate::error::{Result, StateError};
use crate::key::KeyGroupRange;
use crate::rest::RowParts;
use crate::snapshot::{FileRole, Meta, RestoreFile, TableMeta, is_native};

/// Rows of the base are taken in pages that end with so many bytes,
const PAGE_BYTES: usize = 256 << 10;
/// or so many rows.
const PAGE_ROWS: usize = 1024;

type PageRow = (Box<[u8]>, Box<[u8]>);

/// The base, and what it was opened from.
struct Base {
    content: Vec<Content>,
    rows: Arc<dyn Frozen>,
}

/// What a part consists of; the next epoch's shares with it whatever is the same.
pub(super) struct Layers {
    range: KeyGroupRange,
    tables: Vec<TableMeta>,
    base: Option<Arc<Base>>,
    /// In the order of the files: the last one is the newest.
    runs: Vec<(Content, Arc<Run>)>,
}

impl Layers {
    /// Opens what is new of a part, and takes the rest from the epoch before.
    pub fn open(
        operator: &Arc<str>,
        name: &str,
        backends: &dyn Backends,
        meta: &Meta,
        files: &PartFiles<'_>,
        before: Option<&Layers>,
    ) -> Result<Self> {
        let before = before.filter(|before| before.is_of(meta));
        let (mut native, mut others) = (Vec::new(), Vec::new());
        for (name, role, _) in &meta.files {
            let missing = || StateError::MissingFile { operator: operator.clone(), file: name.clone() };
            let at = files.files.iter().position(|file| file.name == *name).ok_or_else(missing)?;
            if is_native(name, *role) { native.push(at) } else { others.push((at, *role)) }
        }
        let content: Vec<Content> = native.iter().map(|&at| files.files[at].content).collect();
        let old = before.and_then(|before| before.base.clone()).filter(|base| base.content == content);
        let base = match old {
            _ if native.is_empty() => None,
            Some(base) => Some(base),
            None => {
                let sources = native.iter().map(|&at| files.fetch(at)).collect::<Result<Vec<_>>>()?;
                Some(Arc::new(Base { content, rows: backends.open_frozen(name, &sources)? }))
            }
        };
        let mut runs = Vec::with_capacity(others.len());
        for (at, role) in others {
            let content = files.files[at].content;
            let known = before.and_then(|before| before.run(&content));
            let run = match known {
                Some(run) => run,
                None => Arc::new(open_run(&files.fetch(at)?, role, meta)?),
            };
            runs.push((content, run));
        }
        Ok(Self { range: meta.range, tables: meta.tables.clone(), base, runs })
    }

    /// Whether files of `meta` mean the same here.
    fn is_of(&self, meta: &Meta) -> bool {
        let is_same = |(ours, theirs): (&TableMeta, &TableMeta)| {
            ours.id == theirs.id
                && ours.kind == theirs.kind
                && ours.namespace_width == theirs.namespace_width
                && ours.name == theirs.name
        };
        self.range == meta.range && self.tables.iter().zip(&meta.tables).all(is_same)
            // A file that was read before a table was known may have said something of it.
            && self.tables.len() <= meta.tables.len()
    }

    fn run(&self, content: &Content) -> Option<Arc<Run>> {
        self.runs.iter().find(|(known, _)| known == content).map(|(_, run)| Arc::clone(run))
    }

    /// The key groups it has.
    pub fn range(&self) -> KeyGroupRange {
        self.range
    }

    /// Bytes of memory of its runs.
    pub fn memory(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.memory()).sum()
    }

    /// Rows of its runs.
    pub fn rows(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.len()).sum()
    }

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        value.clear();
        for (_, run) in self.runs.iter().rev() {
            match run.get(key) {
                Some(Row::Put(found)) => {
                    value.extend_from_slice(found);
                    return Ok(true);
                }
                Some(Row::Deleted) => return Ok(false),
                None => {}
            }
        }
        self.base.as_ref().map_or(Ok(false), |base| base.rows.get(key, value))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        let Some(base) = &self.base else { return self.merge(&[], from, to, visit).map(|_| ()) };
        let mut from = from.to_vec();
        loop {
            let (page, next) = page(&*base.rows, &from, to)?;
            let until = next.as_deref().unwrap_or(to);
            if self.merge(&page, &from, until, visit)?.is_break() {
                return Ok(());
            }
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Visits what the runs make of the rows of `from..to`, which are `page` in the base.
    fn merge(&self, page: &[PageRow], from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<ControlFlow<()>> {
        // The least key first, and of one key the newest: layer 0 is the base.
        let mut heads = BinaryHeap::with_capacity(self.runs.len() + 1);
        let mut places: Vec<usize> = self.runs.iter().map(|(_, run)| run.seek(from)).collect();
        for (at, (_, run)) in self.runs.iter().enumerate() {
            if let Some((key, row)) = run.row(places[at]).filter(|(key, _)| *key < to) {
                heads.push(Head { key: Reverse(key), layer: at + 1, row });
            }
        }
        let mut base = page.iter();
        if let Some((key, value)) = base.next() {
            heads.push(Head { key: Reverse(key), layer: 0, row: Row::Put(value) });
        }
        let mut last: Option<&[u8]> = None;
        while let Some(Head { key: Reverse(key), layer, row }) = heads.pop() {
            let next = match layer.checked_sub(1) {
                None => base.next().map(|(key, value)| (&**key, Row::Put(value))),
                Some(run) => {
                    places[run] += 1;
                    self.runs[run].1.row(places[run]).filter(|(key, _)| *key < to)
                }
            };
            heads.extend(next.map(|(key, row)| Head { key: Reverse(key), layer, row }));
            if last == Some(key) {
                continue;
            }
            last = Some(key);
            let Row::Put(value) = row else { continue };
            let is_deleted = self.runs[layer..].iter().any(|(_, run)| run.deletes(key));
            if !is_deleted && visit(key, value)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The next row of a layer.
#[derive(PartialEq, Eq)]
struct Head<'a> {
    key: Reverse<&'a [u8]>,
    layer: usize,
    row: Row<'a>,
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.key, self.layer).cmp(&(other.key, other.layer))
    }
}
impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn open_run(file: &RestoreFile, role: FileRole, meta: &Meta) -> Result<Run> {
    match role {
        FileRole::Base => Run::of_image(file),
        FileRole::Delta => Run::of_delta(file, &meta.tables, meta.range),
    }
}

/// The next page of the base's rows, and where the one behind it begins, if there may be one.
fn page(base: &dyn Frozen, from: &[u8], to: &[u8]) -> Result<(Vec<PageRow>, Option<Vec<u8>>)> {
    let (mut page, mut next, mut bytes) = (Vec::new(), None, 0);
    base.scan(from, to, &mut |key, value| {
        page.push((key.into(), value.into()));
        bytes += key.len() + value.len();
        if bytes < PAGE_BYTES && page.len() < PAGE_ROWS {
            return Ok(ControlFlow::Continue(()));
        }
        next = Some([key, &[0]].concat());
        Ok(ControlFlow::Break(()))
    })?;
    Ok((page, next))
}

/// A part as an image sees it.
pub struct ViewPart {
    /// From the image's ids of tables to the part's.
    pub(super) ids: HashMap<u16, u16>,
    pub(super) layers: Layers,
}

impl RowParts for Vec<ViewPart> {
    fn count(&self) -> usize {
        self.len()
    }
    fn range(&self, part: usize) -> KeyGroupRange {
        self[part].layers.range()
    }
    fn id_of(&self, part: usize, table: u16) -> Option<u16> {
        self[part].ids.get(&table).copied()
    }
    fn get(&self, part: usize, key: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        self[part].layers.get(key, value)
    }
    fn scan(&self, part: usize, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self[part].layers.scan(from, to, visit)
    }
}
