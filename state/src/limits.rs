//! Every limit of the crate in one place.

/// When a store rebases and how much it does at once. The defaults suit servers; tests make them tiny.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A chain of deltas is replaced when it outgrows the larger of this and its first delta, in bytes.
    pub delta_min: usize,
    /// ... and at this size in any case where the backend's checkpoints are incremental, in bytes: it bounds what a
    /// restart has to read before the first record.
    pub delta_max: usize,
    /// ... and when it has so many deltas. Small ones are merged before it comes to that.
    pub delta_files: usize,
    /// The newest deltas are kept in memory to be merged while they are of so many bytes together.
    pub delta_kept: usize,
    /// How many entries one eviction takes at least: a batch is sorted and written at once.
    pub evict_batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            delta_min: 64 << 20,
            delta_max: 256 << 20,
            delta_files: 64,
            delta_kept: 4 << 20,
            evict_batch: 512,
        }
    }
}

/// A block of a delta file is closed at this size, in bytes: the unit of its checksums.
pub(crate) const BLOCK: usize = 64 << 10;
