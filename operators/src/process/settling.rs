//! Keys whose functions are called once all records of a time have run.

use crate::error::{Error, Result};
use rivermark_state::{Key, encode_into};
use std::sync::Arc;

/// Keys that asked to be called at the end of the time in hand, each once.
///
/// Nothing of it is ever in a checkpoint: the records of one time run in one go.
pub(super) struct Settling<K> {
    keys: Vec<(u64, K)>,
}

impl<K> Default for Settling<K> {
    fn default() -> Self {
        Settling { keys: Vec::new() }
    }
}

impl<K: Key> Settling<K> {
    /// A key asks. Records of one key often come together, and then its key is kept once.
    #[inline]
    pub(super) fn add(&mut self, hash: u64, key: &K) {
        if self.keys.last().is_none_or(|(last, same)| *last != hash || same != key) {
            self.keys.push((hash, key.clone()));
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes the keys, in order of their bytes: it depends neither on who came first nor on the number of workers.
    pub(super) fn take(&mut self, operator: &Arc<str>) -> Result<Vec<(u64, K)>> {
        let keys = std::mem::take(&mut self.keys);
        if keys.len() < 2 {
            return Ok(keys);
        }
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(keys.len());
        for pair in keys {
            let start = bytes.len();
            encode_into(&pair.1, &mut bytes)
                .map_err(|e| Error::engine(format!("putting the keys of `{operator}` in order"), e))?;
            places.push((start..bytes.len(), pair));
        }
        places.sort_unstable_by(|(a, _), (b, _)| bytes[a.clone()].cmp(&bytes[b.clone()]));
        places.dedup_by(|(a, _), (b, _)| bytes[a.clone()] == bytes[b.clone()]);
        Ok(places.into_iter().map(|(_, pair)| pair).collect())
    }
}
