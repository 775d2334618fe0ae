//! Waking those who wait for new records.

use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What is called when new records can be read. It must be quick and must not call the log: it runs on the appending thread.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The waiting room of one partition.
#[derive(Default)]
pub(crate) struct Tail {
    wakers: Mutex<Vec<(u64, Waker)>>,
    registered: AtomicUsize,
    next: AtomicUsize,
    waiting: AtomicUsize,
    room: Mutex<()>,
    bell: Condvar,
}

impl Tail {
    /// Tells everybody. To be called after what they wait for is visible.
    pub(crate) fn ring(&self) {
        if self.registered.load(Ordering::SeqCst) > 0 {
            let wakers = self.wakers.lock().clone();
            wakers.iter().for_each(|(_, waker)| waker());
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Taking the lock makes sure that a waiter that has just looked is asleep, and hears it.
            drop(self.room.lock());
            self.bell.notify_all();
        }
    }

    /// Blocks until `ready` or the deadline; says whether it is ready.
    pub(crate) fn wait(&self, deadline: Instant, mut ready: impl FnMut() -> bool) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut room = self.room.lock();
        let mut is_ready = ready();
        while !is_ready && !self.bell.wait_until(&mut room, deadline).timed_out() {
            is_ready = ready();
        }
        drop(room);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        is_ready || ready()
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("registered", &self.registered).finish_non_exhaustive()
    }
}

/// Keeps a waker registered until dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    tail: Arc<Tail>,
    id: u64,
}

impl Registration {
    pub(crate) fn new(tail: Arc<Tail>, waker: Waker) -> Self {
        let id = tail.next.fetch_add(1, Ordering::Relaxed) as u64;
        let mut wakers = tail.wakers.lock();
        wakers.push((id, waker));
        tail.registered.store(wakers.len(), Ordering::SeqCst);
        drop(wakers);
        Registration { tail, id }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut wakers = self.tail.wakers.lock();
        wakers.retain(|(id, _)| *id != self.id);
        self.tail.registered.store(wakers.len(), Ordering::SeqCst);
    }
}
