//! The channels between workers: bounded, never waited for.
//!
//! 1. For every exchange, each pair of different workers has a bounded channel; a worker's records to itself go through a plain queue.
//! 2. Sending tries the channel; what does not fit waits in order beside it, and its worker reads no sources until it has gone. That is
//!    the whole of backpressure: a full channel stops the sources upstream of it, and nobody ever blocks.
//! 3. After a step, a worker wakes those it has sent to, and those whose channels it has made room in.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rivermark_operators::context::{ExchangeId, Payload, Transport};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::thread::Thread;

/// Batches that a channel between two workers holds. At 1,024 records a batch enough to ride over a scheduler's slice, little enough
/// that a barrier does not wait long behind them.
pub(crate) const CHANNEL_BATCHES: usize = 32;

/// Wakes a worker's thread, once it has one; in a simulation there is none and nothing to wake.
#[derive(Clone, Default)]
pub(crate) struct Wake(Arc<OnceLock<Thread>>);

impl Wake {
    /// Says that the calling thread is the worker's.
    pub(crate) fn register(&self) {
        // A second registration would be the same thread: a worker never moves.
        let _ = self.0.set(std::thread::current());
    }

    pub(crate) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

struct Outbound {
    sender: Sender<Payload>,
    /// What did not fit, in order.
    waiting: VecDeque<Payload>,
}

/// One worker's ends of all channels.
pub(crate) struct Channels {
    me: usize,
    /// By exchange, then by receiver; `None` at `me`.
    outbound: Vec<Vec<Option<Outbound>>>,
    /// By exchange, then by sender; `None` at `me`.
    inbound: Vec<Vec<Option<Receiver<Payload>>>>,
    /// By exchange: what this worker sent to itself.
    local: Vec<VecDeque<Payload>>,
    /// Batches that this worker may have waiting for itself (behind a barrier) before what fills them stops.
    most_local: usize,
    wakes: Vec<Wake>,
    to_wake: Vec<bool>,
    /// How many payloads wait beside full channels, by exchange.
    waiting: Vec<usize>,
    /// Whether anything has been sent since somebody asked.
    has_sent: bool,
}

impl Channels {
    /// The channels of `exchanges` exchanges between as many workers as there are `wakes`, each of `batches` batches.
    pub(crate) fn connect(exchanges: usize, wakes: &[Wake], batches: usize) -> Vec<Channels> {
        let workers = wakes.len();
        let mut all: Vec<Channels> = (0..workers)
            .map(|me| Channels {
                me,
                outbound: Vec::new(),
                inbound: (0..exchanges).map(|_| (0..workers).map(|_| None).collect()).collect(),
                local: (0..exchanges).map(|_| VecDeque::new()).collect(),
                most_local: batches,
                wakes: wakes.to_vec(),
                to_wake: vec![false; workers],
                waiting: vec![0; exchanges],
                has_sent: false,
            })
            .collect();
        for exchange in 0..exchanges {
            for from in 0..workers {
                let mut ends = Vec::with_capacity(workers);
                for (to, receiving) in all.iter_mut().enumerate() {
                    ends.push((to != from).then(|| {
                        let (sender, receiver) = bounded(batches);
                        receiving.inbound[exchange][from] = Some(receiver);
                        Outbound { sender, waiting: VecDeque::new() }
                    }));
                }
                all[from].outbound.push(ends);
            }
        }
        all
    }

    /// Takes the next payload that `from` sent through an exchange, if it has come.
    pub(crate) fn receive(&mut self, exchange: usize, from: usize) -> Option<Payload> {
        if from == self.me {
            return self.local[exchange].pop_front();
        }
        let receiver = self.inbound[exchange][from].as_ref()?;
        let received = receiver.try_recv().ok()?;
        self.to_wake[from] = true;
        Some(received)
    }

    /// Tries again what did not fit. Answers whether anything moved.
    pub(crate) fn retry(&mut self) -> bool {
        let mut moved = false;
        for (exchange, outbound) in self.outbound.iter_mut().enumerate() {
            if self.waiting[exchange] == 0 {
                continue;
            }
            for (to, end) in outbound.iter_mut().enumerate() {
                let Some(end) = end else { continue };
                while let Some(payload) = end.waiting.pop_front() {
                    match end.sender.try_send(payload) {
                        Ok(()) => {
                            self.waiting[exchange] -= 1;
                            self.to_wake[to] = true;
                            moved = true;
                        }
                        // A worker that is gone has failed; the job is being stopped.
                        Err(TrySendError::Full(payload) | TrySendError::Disconnected(payload)) => {
                            end.waiting.push_front(payload);
                            break;
                        }
                    }
                }
            }
        }
        moved
    }

    /// Whether there is room for more in an exchange: everything sent has gone, and little waits for this worker itself.
    pub(crate) fn has_room(&self, exchange: ExchangeId) -> bool {
        let exchange = exchange.0 as usize;
        self.waiting[exchange] == 0 && self.local[exchange].len() < self.most_local
    }

    /// The exchanges in which there is none.
    pub(crate) fn full(&self) -> impl Iterator<Item = usize> {
        (0..self.waiting.len()).filter(|exchange| !self.has_room(ExchangeId(*exchange as u32)))
    }

    /// Whether there is room in all of them.
    pub(crate) fn all_have_room(&self) -> bool {
        (0..self.waiting.len()).all(|exchange| self.has_room(ExchangeId(exchange as u32)))
    }

    /// Whether this worker has anything waiting for itself.
    pub(crate) fn has_local(&self) -> bool {
        self.local.iter().any(|queue| !queue.is_empty())
    }

    /// Whether anything has been sent since this was asked last.
    pub(crate) fn take_sent(&mut self) -> bool {
        std::mem::take(&mut self.has_sent)
    }

    /// Wakes those for whom this step has done something.
    pub(crate) fn wake_others(&mut self) {
        for (wake, to_wake) in self.wakes.iter().zip(&mut self.to_wake) {
            if std::mem::take(to_wake) {
                wake.wake();
            }
        }
    }
}

impl Transport for Channels {
    fn send(&mut self, exchange: ExchangeId, to: usize, payload: Payload) {
        self.has_sent = true;
        let exchange = exchange.0 as usize;
        let Some(end) = &mut self.outbound[exchange][to] else {
            self.local[exchange].push_back(payload);
            return;
        };
        if end.waiting.is_empty() {
            match end.sender.try_send(payload) {
                Ok(()) => {
                    self.to_wake[to] = true;
                    return;
                }
                Err(TrySendError::Full(payload) | TrySendError::Disconnected(payload)) => {
                    end.waiting.push_back(payload);
                }
            }
        } else {
            end.waiting.push_back(payload);
        }
        self.waiting[exchange] += 1;
    }

    fn wake_all(&mut self) {
        self.to_wake.iter_mut().enumerate().for_each(|(worker, wake)| *wake |= worker != self.me);
    }
}
