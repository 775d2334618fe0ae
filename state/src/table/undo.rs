//! Taking back what one call of a user's function has changed.
//!
//! 1. A table that keeps its changes notes, before each, what was there: a clone of the old value, or that there was none.
//! 2. [`KeyedStore::mark`](crate::KeyedStore::mark) forgets the notes: what comes is another call's.
//! 3. [`KeyedStore::undo`](crate::KeyedStore::undo) puts back what was there, the newest change first, by the same operations that anyone uses. So
//!    it does not matter what was spilled, loaded or snapshotted in between; entries are written into the next delta needlessly, and that is all.
//!
//! A table that does not keep them, as is the rule, pays a comparison a change.

/// What was there before each change since the last mark.
pub(crate) struct Changes<C>(Option<Vec<C>>);

impl<C> Default for Changes<C> {
    fn default() -> Self {
        Changes(None)
    }
}

impl<C> Changes<C> {
    /// Whether changes are noted.
    #[inline]
    pub fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Notes them from now on.
    pub fn keep(&mut self) {
        self.0.get_or_insert_default();
    }

    /// The last note, which may take in a change more.
    pub fn newest(&mut self) -> Option<&mut C> {
        self.0.as_mut()?.last_mut()
    }

    pub fn note(&mut self, before: C) {
        if let Some(noted) = &mut self.0 {
            noted.push(before);
        }
    }

    /// Forgets what was noted.
    pub fn mark(&mut self) {
        if let Some(noted) = &mut self.0 {
            noted.clear();
        }
    }

    /// Takes what was noted, the newest first. Nothing is noted until [`Self::keep`]: putting it back is no change.
    pub fn take(&mut self) -> impl Iterator<Item = C> + use<C> {
        self.0.take().into_iter().flat_map(|noted| noted.into_iter().rev())
    }
}
