//! What the attempt, the reader and those who ask tell each other.

use super::View;
use super::latest::Mailboxes;
use parking_lot::{Condvar, Mutex, RwLock};
use rivermark_checkpoint::{Checkpoints, Epoch, Manifest};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The newest stored checkpoint, and the newest view.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
    visible: RwLock<Option<View>>,
    /// Whether somebody has asked since the reader last looked.
    asked: AtomicBool,
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
    attention: Attention,
    is_closed: bool,
}

/// What the reader is to do.
pub(super) enum Turn {
    /// Make a view of this checkpoint.
    Read(Stored),
    /// Let go of everything: nobody has asked for long.
    Rest,
    /// End.
    End,
}

/// Whether the reader follows the job or rests.
#[derive(Default)]
struct Attention {
    /// When it last found that somebody had asked.
    asked: Option<Instant>,
    rests: bool,
}

impl Attention {
    /// Takes note of whether somebody has asked. Answers whether it is to begin to rest.
    fn look(&mut self, asked: bool, now: Instant, pause: Duration) -> bool {
        if asked {
            (self.asked, self.rests) = (Some(now), false);
            return false;
        }
        let since = self.asked.get_or_insert(now);
        let is_over = now.duration_since(*since) >= pause;
        is_over && !std::mem::replace(&mut self.rests, true)
    }
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

    /// For the reader: waits for a checkpoint that it has not read, and begins with it; or to be told that nobody has asked for `pause`. It looks
    /// whether that is so when there is a new checkpoint.
    pub(super) fn next(&self, pause: Duration) -> Turn {
        let mut state = self.state.lock();
        loop {
            if state.is_closed {
                return Turn::End;
            }
            let asked = self.asked.swap(false, Ordering::Relaxed);
            if asked || state.read != state.count {
                if state.attention.look(asked, Instant::now(), pause) {
                    state.read = 0;
                    let before = self.visible.write().take();
                    drop(state);
                    drop(before);
                    return Turn::Rest;
                }
                if state.read != state.count && !state.attention.rests {
                    (state.reading, state.read) = (Some(state.count), state.count);
                    if let Some(newest) = state.newest.clone() {
                        return Turn::Read(newest);
                    }
                }
            }
            self.changed.wait(&mut state);
        }
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

    /// The newest view, for somebody who asks; nothing but a pointer is copied.
    pub(super) fn visible(&self) -> Option<View> {
        // Read first: those who ask at the same time do not fight for it.
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
        self.visible.read().clone()
    }

    /// The newest view, for somebody who does not ask.
    pub(super) fn peek(&self) -> Option<View> {
        self.visible.read().clone()
    }

    /// Somebody has asked, and will wait.
    fn wake_reader(&self, state: &State) {
        if state.attention.rests {
            self.changed.notify_all();
        }
    }

    /// Waits for the first view of `from` or a later epoch, if there is anything to make one of. `from` has been stored, or is nought.
    pub(super) fn first(&self, from: Epoch) -> Result<View, NoView> {
        let mut state = self.state.lock();
        loop {
            if let Some(view) = self.visible().filter(|view| view.epoch() >= from) {
                return Ok(view);
            }
            match &state.failure {
                _ if state.count == 0 => return Err(NoView::NothingStored),
                Some(failure) if state.read == state.count => return Err(NoView::Failed(failure.clone())),
                _ => {
                    self.wake_reader(&state);
                    self.changed.wait(&mut state);
                }
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
            self.wake_reader(&state);
            if self.changed.wait_until(&mut state, until).timed_out() {
                return Err(state.failure.clone().map_or(NoView::TimedOut(at), NoView::Failed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_rests_once_when_nobody_has_asked_for_long_enough() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut attention = Attention::default();
        let mut look = |asked, seconds| attention.look(asked, start + second * seconds, 3 * second);
        assert_eq!(
            [look(true, 0), look(false, 2), look(false, 3), look(false, 4)],
            [false, false, true, false]
        );
        // Whoever asks begins anew.
        assert_eq!([look(true, 5), look(false, 7), look(true, 8), look(false, 10)], [false; 4]);
        assert_eq!([look(false, 11), look(false, 99)], [true, false]);
    }
}
