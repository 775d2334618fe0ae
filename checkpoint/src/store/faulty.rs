//! A store that misbehaves in the ways real ones do, as drawn from a seed.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Certainty, Listed, Put, Store, StoreError};

/// What may become of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing is done and the error says so.
    Refuse,
    /// Nothing is done, and the error cannot tell (a time-out on the way there).
    LoseRequest,
    /// The call is performed, and the error cannot tell (a time-out on the way back).
    LoseReply,
    /// The error cannot tell, and a put is performed later: after some more calls, or at [`FaultyStore::land`]. Calls
    /// other than puts of bytes are not performed at all.
    Delay,
    /// The call succeeds after [`FaultyStore::on_slow`]'s hook has run.
    Slow,
}

/// How many calls of a thousand meet with each fault.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Odds {
    /// [`Fault::Refuse`]
    pub refuse: u16,
    /// [`Fault::LoseRequest`]
    pub lose_request: u16,
    /// [`Fault::LoseReply`]
    pub lose_reply: u16,
    /// [`Fault::Delay`]
    pub delay: u16,
    /// [`Fault::Slow`]
    pub slow: u16,
}

/// A [`Store`] around another one that fails as [`Odds`] say, the same way for the same seed and sequence of calls.
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
    slow: Option<Arc<dyn Fn() + Send + Sync>>,
}

#[derive(Debug)]
struct State {
    odds: Odds,
    random: u64,
    calls: u64,
    delayed: VecDeque<DelayedPut>,
}

#[derive(Debug)]
struct DelayedPut {
    due: u64,
    name: String,
    bytes: Vec<u8>,
}

/// A delayed put lands after at most so many further calls.
const LONGEST_DELAY: u64 = 24;

impl<S: Store> FaultyStore<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, odds: Odds, seed: u64) -> Self {
        let state = State { odds, random: seed, calls: 0, delayed: VecDeque::new() };
        Self { inner, state: Mutex::new(state), slow: None }
    }

    /// Runs `hook` within every call that [`Fault::Slow`] is drawn for: a simulation advances its clock there, a test
    /// of threads may block.
    #[must_use]
    pub fn on_slow(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.slow = Some(Arc::new(hook));
        self
    }

    /// Changes the odds from now on.
    pub fn set_odds(&self, odds: Odds) {
        self.state.lock().odds = odds;
    }

    /// Performs every delayed put now, oldest first, and returns how many there were.
    ///
    /// # Errors
    /// The wrapped store refused one; it and the rest stay delayed.
    pub fn land(&self) -> Result<usize, StoreError> {
        self.land_due(u64::MAX)
    }

    /// The wrapped store.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    fn land_due(&self, now: u64) -> Result<usize, StoreError> {
        let mut landed = 0;
        loop {
            let next = {
                let mut state = self.state.lock();
                let due = state.delayed.iter().position(|put| put.due <= now);
                due.and_then(|index| state.delayed.remove(index))
            };
            let Some(put) = next else { return Ok(landed) };
            if let Err(error) = self.inner.put(&put.name, &put.bytes) {
                self.state.lock().delayed.push_front(put);
                return Err(error);
            }
            landed += 1;
        }
    }

    /// Draws what becomes of the next call, after letting the delayed puts land that are due by now.
    fn draw(&self) -> Result<Option<Fault>, StoreError> {
        let (fault, calls) = {
            let mut state = self.state.lock();
            state.calls += 1;
            let ticket = (next_random(&mut state.random) % 1000) as u16;
            (state.odds.pick(ticket), state.calls)
        };
        self.land_due(calls)?;
        if let (Some(Fault::Slow), Some(hook)) = (fault, &self.slow) {
            hook();
        }
        Ok(fault)
    }

    fn delay(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        let due = state.calls + 1 + next_random(&mut state.random) % LONGEST_DELAY;
        state.delayed.push_back(DelayedPut { due, name: name.to_owned(), bytes: bytes.to_vec() });
    }

    /// Performs `call` as the next draw says.
    fn with_fault<T>(
        &self,
        attempt: &'static str,
        name: &str,
        call: impl FnOnce() -> Result<T, StoreError>,
        delay: impl FnOnce(),
    ) -> Result<T, StoreError> {
        let error = |certainty, kind: io::ErrorKind| StoreError {
            attempt,
            name: name.to_owned(),
            store: "a faulty store".to_owned(),
            certainty,
            reason: kind.into(),
        };
        match self.draw()? {
            None | Some(Fault::Slow) => call(),
            Some(Fault::Refuse) => Err(error(Certainty::Determinate, io::ErrorKind::ConnectionRefused)),
            Some(Fault::LoseRequest) => Err(error(Certainty::Indeterminate, io::ErrorKind::TimedOut)),
            Some(Fault::LoseReply) => {
                call()?;
                Err(error(Certainty::Indeterminate, io::ErrorKind::TimedOut))
            }
            Some(Fault::Delay) => {
                delay();
                Err(error(Certainty::Indeterminate, io::ErrorKind::TimedOut))
            }
        }
    }
}

impl Odds {
    fn pick(self, ticket: u16) -> Option<Fault> {
        let faults = [
            (self.refuse, Fault::Refuse),
            (self.lose_request, Fault::LoseRequest),
            (self.lose_reply, Fault::LoseReply),
            (self.delay, Fault::Delay),
            (self.slow, Fault::Slow),
        ];
        let mut below = 0;
        faults.into_iter().find_map(|(odds, fault)| {
            below += odds;
            (ticket < below).then_some(fault)
        })
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): every seed will do, also zero.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl<S: Store> Store for FaultyStore<S> {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        self.with_fault("put", name, || self.inner.put(name, bytes), || self.delay(name, bytes))
    }

    fn put_file(&self, name: &str, path: &Path) -> Result<Put, StoreError> {
        self.with_fault("put", name, || self.inner.put_file(name, path), || {})
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_fault("get", name, || self.inner.get(name), || {})
    }

    fn fetch_file(&self, name: &str, to: &Path, link: bool) -> Result<bool, StoreError> {
        let existed = to.exists();
        let outcome = self.with_fault("get", name, || self.inner.fetch_file(name, to, link), || {});
        // What a lost reply leaves behind would stand in the way of the next attempt.
        if outcome.is_err() && !existed {
            let _ = std::fs::remove_file(to);
        }
        outcome
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.with_fault("list", prefix, || self.inner.list(prefix), || {})
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.with_fault("delete", name, || self.inner.delete(name), || {})
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("inner", &self.inner)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
