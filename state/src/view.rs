//! The state of one operator at an epoch, read while the operator runs on.
//!
//! A snapshot is a base and deltas, files that nobody changes any more (see [`snapshot`](crate::snapshot)). They are read as they are, beside
//! the thread that owns the state and without it:
//!
//! 1. The *base*, where it is of a backend on disk, is opened for reading, from links to its files: nothing of it is in memory but what the
//!    backend caches. Every other file is decoded once, when it is new, into a sorted *run*: its rows, the deletions among them, and the
//!    ranges that it deletes.
//! 2. A row is what the newest run says that has it or deletes it, and else what the base has. A scan merges all of them.
//! 3. The view of the next epoch shares the base and all runs that are still part of the snapshot, found by the digests of their content; where small
//!    deltas were merged into one file, that is one more run, and theirs go. A new base comes with one run of all that it lacks.
//!
//! So a view costs decoding what changed, and memory for the bytes of the deltas and 16 bytes a row of them: per task at most what a
//! restart would read before its first record ([`Limits::delta_max`](crate::Limits), where the backend is on disk; with state in memory, all
//! of it). Views that are still held by somebody keep what they alone have.

mod part;
mod queried;
mod run;

use std::fmt;
use std::sync::Arc;

use self::part::Layers;
pub use self::part::ViewPart;
pub use self::queried::Queried;
use crate::backend::Backends;
use crate::error::Result;
use crate::rest::Image;
use crate::snapshot::restore::{check_overlaps, ids_of, layout_of, read_meta, union};
use crate::snapshot::{FileRole, RestoreFile, RestoreSource};

/// Names the content of a file: two files of one digest have the same.
pub type Content = [u8; 32];

/// The state of one operator at an epoch. See the [module](self).
pub type StateView = Image<Vec<ViewPart>>;

/// A file of a snapshot that may have to be read.
#[derive(Clone, Debug)]
pub struct ViewFile {
    /// The name it has in the snapshot.
    pub name: String,
    /// The role it has.
    pub role: FileRole,
    /// What is in it.
    pub content: Content,
}

/// The snapshot of one task, whose files are fetched when they are needed.
pub struct PartFiles<'a> {
    /// [`Snapshot::meta`](crate::Snapshot::meta).
    pub meta: &'a [u8],
    /// [`Snapshot::files`](crate::Snapshot::files).
    pub files: Vec<ViewFile>,
    /// Says where the file of an index is now; it must be readable until [`StateView::open`] returns.
    pub source: Box<dyn Fn(usize) -> Result<RestoreSource> + 'a>,
}

impl PartFiles<'_> {
    fn fetch(&self, at: usize) -> Result<RestoreFile> {
        let ViewFile { name, role, .. } = &self.files[at];
        Ok(RestoreFile { name: name.clone(), role: *role, source: (self.source)(at)? })
    }
}

impl fmt::Debug for PartFiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartFiles").field("files", &self.files).finish_non_exhaustive()
    }
}

impl StateView {
    /// The state of `operator`, of a flow of so many key groups, from all parts of its snapshot. What it shares with the view `before`, of an
    /// earlier epoch, is taken from there; only other files are fetched and read.
    ///
    /// # Errors
    /// A file is missing or damaged, or of a backend that `backends` does not open, or parts contradict each other.
    pub fn of(
        operator: &str,
        groups: u16,
        backends: &dyn Backends,
        parts: &[PartFiles<'_>],
        before: Option<&StateView>,
    ) -> Result<Self> {
        let operator: Arc<str> = operator.into();
        let metas = parts.iter().map(|part| read_meta(groups, &operator, part.meta));
        let metas = metas.collect::<Result<Vec<_>>>()?;
        check_overlaps(&operator, &metas.iter().map(|meta| meta.range).collect::<Vec<_>>())?;
        let layout = layout_of(&operator, metas.iter())?;
        let tables = union(&operator, metas.iter())?;
        let mut opened = Vec::with_capacity(parts.len());
        for (index, (meta, files)) in metas.iter().zip(parts).enumerate() {
            let ids = ids_of(meta, &tables).into_iter().map(|(theirs, ours)| (ours, theirs)).collect();
            let of_range = |part: &&ViewPart| part.layers.range() == meta.range;
            let before = before.and_then(|before| before.parts.iter().find(of_range));
            let before = before.map(|part| &part.layers);
            let name = format!("{operator}-view-{index}");
            let layers = Layers::open(&operator, &name, backends, meta, files, before)?;
            opened.push(ViewPart { ids, layers });
        }
        Ok(Image::over(operator, groups, layout, tables, opened))
    }

    /// Bytes of memory that its runs take, those shared with other views included.
    pub fn memory(&self) -> usize {
        self.parts.iter().map(|part| part.layers.memory()).sum()
    }

    /// How many rows are in its runs, deletions included.
    pub fn rows_in_memory(&self) -> usize {
        self.parts.iter().map(|part| part.layers.rows()).sum()
    }
}
