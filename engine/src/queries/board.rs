//! What the attempt, the reader and those who ask tell each other.

use super::View;
use super::latest::Mailboxes;
use parking_lot::{Condvar, Mutex, RwLock};
use rivermark_checkpoint::{Checkpoints, Epoch, Manifest};
use std::sync::Arc;
use std::time::Instant;

/// The newest stored checkpoint, and the newest view.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
    visible: RwLock<Option<View>>,
    /// Where workers are asked for what they have now.
    pub(crate) mailboxes: Arc<Mailboxes>,
}

#[derive(Default)]
struct State {
    newest: Option<Stored>,
    /// How many checkpoints have been put here.
    count: u64,
    /// Which of them the reader is at, and which it was at last.
    reading: Option<u64>,
    read: u64,
    /// Why it could not read the last one.
    failure: Option<String>,
    is_closed: bool,
}

/// A checkpoint that is stored.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) manifest: Arc<Manifest>,
    pub(super) checkpoints: Checkpoints,
}

/// Why there is no view.
#[derive(Debug, PartialEq)]
pub(super) enum NoView {
    /// No checkpoint has been stored.
    NothingStored,
    /// The reader has failed.
    Failed(String),
    /// It has not come in time; the newest epoch that is visible.
    TimedOut(Option<Epoch>),
}

impl Board {
    /// A checkpoint is stored, or was restored.
    pub(crate) fn stored(&self, manifest: &Arc<Manifest>, checkpoints: &Checkpoints) {
        let mut state = self.state.lock();
        let (manifest, checkpoints) = (Arc::clone(manifest), checkpoints.clone());
        state.newest = Some(Stored { manifest, checkpoints });
        state.count += 1;
        self.changed.notify_all();
    }

    /// Whether no file that the reader needs is among those that go when `retained` checkpoints are kept.
    pub(crate) fn may_collect(&self, retained: usize) -> bool {
        let state = self.state.lock();
        state.reading.is_none_or(|reading| state.count - reading < retained as u64)
    }

    /// For the reader: waits for a checkpoint that it has not read, and begins with it. `None` when it is to end.
    pub(super) fn next(&self) -> Option<Stored> {
        let mut state = self.state.lock();
        while !state.is_closed && state.read == state.count {
            self.changed.wait(&mut state);
        }
        if state.is_closed {
            return None;
        }
        (state.reading, state.read) = (Some(state.count), state.count);
        state.newest.clone()
    }

    /// For the reader: shows what it has made of it.
    pub(super) fn show(&self, view: Result<View, String>) {
        let mut state = self.state.lock();
        state.reading = None;
        let (view, failure) = match view {
            Ok(view) => (Some(view), None),
            Err(failure) => (None, Some(failure)),
        };
        state.failure = failure;
        let before = view.and_then(|view| self.visible.write().replace(view));
        self.changed.notify_all();
        drop(state);
        // It may have been the last to hold files.
        drop(before);
    }

    /// For the reader: end.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// The newest view; nothing but a pointer is copied.
    pub(super) fn visible(&self) -> Option<View> {
        self.visible.read().clone()
    }

    /// Waits for the first view, if there is anything to make one of.
    pub(super) fn first(&self) -> Result<View, NoView> {
        let mut state = self.state.lock();
        loop {
            if let Some(view) = self.visible() {
                return Ok(view);
            }
            match &state.failure {
                _ if state.count == 0 => return Err(NoView::NothingStored),
                Some(failure) if state.read == state.count => return Err(NoView::Failed(failure.clone())),
                _ => self.changed.wait(&mut state),
            }
        }
    }

    /// Waits for a view of `epoch` or of a later one.
    pub(super) fn from(&self, epoch: Epoch, until: Instant) -> Result<View, NoView> {
        let mut state = self.state.lock();
        loop {
            let visible = self.visible();
            let at = visible.as_ref().map(View::epoch);
            match visible {
                Some(view) if view.epoch() >= epoch => return Ok(view),
                _ => {}
            }
            if self.changed.wait_until(&mut state, until).timed_out() {
                return Err(state.failure.clone().map_or(NoView::TimedOut(at), NoView::Failed));
            }
        }
    }
}
