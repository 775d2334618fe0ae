//! Barrier alignment over the input channels of one operator.
//!
//! 1. The first barrier of an epoch on any channel begins its alignment. The channel is *blocked*: what follows on it
//!    belongs to the next epoch.
//! 2. When every channel has delivered the barrier or has ended, the epoch is *aligned*: all channels are released, the
//!    operator takes its snapshot and sends the barrier on.
//! 3. An epoch that the coordinator gave up releases its channels ([`Aligner::cancel`]). A newer barrier does so as well:
//!    the coordinator has one epoch in flight, so the older one is dead. Barriers of a dead epoch that arrive later are
//!    stale, and dropped.
//!
//! (Carbone et al., *Lightweight Asynchronous Snapshots for Distributed Dataflows*, 2015, algorithm 1.)

use crate::Epoch;

/// The alignment of one operator's input channels, `0..channels`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Aligner {
    channels: Box<[Channel]>,
    /// How many channels are open: neither blocked nor ended.
    open: usize,
    /// How many channels have ended.
    ended: usize,
    /// The epoch that is being aligned.
    aligning: Option<Epoch>,
    /// The newest epoch that is over: aligned or cancelled.
    over: Option<Epoch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Channel {
    Open,
    Blocked,
    Ended,
}

/// What a barrier or an end means to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alignment {
    /// Nothing yet: other channels are awaited, or no epoch is being aligned.
    Waiting,
    /// As `Waiting`, and channels that were blocked for this older epoch are released: it is dead.
    Superseded(Epoch),
    /// Take the snapshot of this epoch and send its barrier on, before anything else is read. Every channel is
    /// released. After an end, [`Aligner::is_ended`] may hold as well.
    Aligned(Epoch),
    /// The barrier is of an epoch that is over: drop it.
    Stale,
    /// The last channel has ended, and no epoch was being aligned.
    Ended,
}

impl Aligner {
    /// An aligner over so many channels, all open.
    #[must_use]
    pub fn new(channels: usize) -> Self {
        let open = vec![Channel::Open; channels].into_boxed_slice();
        Self { channels: open, open: channels, ended: 0, aligning: None, over: None }
    }

    /// Whether `channel` must not be read now. Costs one look at an array.
    ///
    /// # Panics
    /// There is no such channel.
    #[inline]
    #[must_use]
    pub fn is_blocked(&self, channel: usize) -> bool {
        self.channels[channel] == Channel::Blocked
    }

    /// Whether every channel has ended.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended == self.channels.len()
    }

    /// The epoch that is being aligned.
    #[must_use]
    pub const fn aligning(&self) -> Option<Epoch> {
        self.aligning
    }

    /// `channel` has delivered the barrier of `epoch`. Costs O(1), or O(channels) where channels are released.
    ///
    /// # Panics
    /// There is no such channel; in debug builds, also if it has ended.
    pub fn barrier(&mut self, channel: usize, epoch: Epoch) -> Alignment {
        debug_assert_ne!(
            self.channels[channel],
            Channel::Ended,
            "a barrier after the end of channel {channel}"
        );
        let dead =
            self.over.is_some_and(|over| epoch <= over) || self.aligning.is_some_and(|newer| epoch < newer);
        if dead || self.channels[channel] == Channel::Ended {
            return Alignment::Stale;
        }
        let superseded = self.aligning.filter(|older| *older < epoch);
        if superseded.is_some() {
            self.release();
        }
        self.aligning = Some(epoch);
        if self.channels[channel] == Channel::Open {
            self.channels[channel] = Channel::Blocked;
            self.open -= 1;
        }
        match (self.finish(), superseded) {
            (Alignment::Waiting, Some(older)) => Alignment::Superseded(older),
            (alignment, _) => alignment,
        }
    }

    /// `channel` has ended: it counts as aligned with every epoch from now on.
    ///
    /// # Panics
    /// There is no such channel.
    pub fn end(&mut self, channel: usize) -> Alignment {
        match std::mem::replace(&mut self.channels[channel], Channel::Ended) {
            Channel::Open => self.open -= 1,
            Channel::Blocked => {}
            Channel::Ended => return Alignment::Waiting,
        }
        self.ended += 1;
        match self.aligning {
            Some(_) => self.finish(),
            None if self.is_ended() => Alignment::Ended,
            None => Alignment::Waiting,
        }
    }

    /// The coordinator has given up `epoch`, whether or not a barrier of it was seen: releases the channels that are
    /// blocked for it. Returns whether there was such an alignment.
    pub fn cancel(&mut self, epoch: Epoch) -> bool {
        self.over = self.over.max(Some(epoch));
        let aligning = self.aligning.is_some_and(|aligning| aligning <= epoch);
        if aligning {
            self.aligning = None;
            self.release();
        }
        aligning
    }

    /// Completes the alignment if no channel is open any more.
    fn finish(&mut self) -> Alignment {
        match self.aligning {
            Some(epoch) if self.open == 0 => {
                self.aligning = None;
                self.over = Some(epoch);
                self.release();
                Alignment::Aligned(epoch)
            }
            _ => Alignment::Waiting,
        }
    }

    fn release(&mut self) {
        for channel in self.channels.iter_mut().filter(|channel| **channel == Channel::Blocked) {
            *channel = Channel::Open;
        }
        self.open = self.channels.len() - self.ended;
    }
}
