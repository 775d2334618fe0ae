//! Every limit of the crate in one place.

/// When a store rebases and how much it does at once. The defaults suit servers; tests make them tiny.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A chain of deltas is replaced when it outgrows the larger of this and its first delta, in bytes.
    pub delta_min: usize,
    /// ... and at this size in any case where the backend's checkpoints are incremental, in bytes: it bounds what a
    /// restart has to read before the first record.
    pub delta_max: usize,
    /// ... and when there are this many deltas, or more where rewriting costs more: one for each MiB of the first.
    pub delta_count: usize,
    /// How many entries one eviction takes at least: a batch is sorted and written at once.
    pub evict_batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { delta_min: 64 << 20, delta_max: 256 << 20, delta_count: 64, evict_batch: 512 }
    }
}

/// A block of a delta file is closed at this size, in bytes: the unit of its checksums.
pub(crate) const BLOCK: usize = 64 << 10;
