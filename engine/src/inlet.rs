//! The receiving end of an exchange on one worker: barriers aligned, watermarks combined, over all sending workers.
//!
//! What a signal brings about may be more than fits downstream. Then it is done in parts, one a step and only while there is room, and
//! signals wait here, and everything else in its channel, until it is done.

use crate::channels::Channels;
use rivermark_checkpoint::{Aligner, Alignment, Epoch};
use rivermark_operators::context::{CheckpointParts, Payload, TaskContext};
use rivermark_operators::edge::Signal;
use rivermark_operators::frontier::Frontier;
use rivermark_operators::holding::Hold;
use rivermark_operators::plan::InletTask;
use rivermark_operators::{Result, Timestamp};
use std::collections::VecDeque;

pub(crate) struct AlignedInlet {
    task: InletTask,
    aligner: Aligner,
    frontier: Frontier,
    senders: usize,
    /// Which sender is read first next time.
    next: usize,
    /// Signals that wait until what an earlier one brought about is done.
    untold: VecDeque<Signal>,
    /// What the last signal brought about may not be done.
    unfinished: bool,
}

impl AlignedInlet {
    pub(crate) fn new(task: InletTask, senders: usize) -> Self {
        AlignedInlet {
            task,
            aligner: Aligner::new(senders),
            frontier: Frontier::new(senders),
            senders,
            next: 0,
            untold: VecDeque::new(),
            unfinished: false,
        }
    }

    /// Goes on with what is unfinished; then takes up to `most` payloads of each sender that is not behind a barrier. Only where there is
    /// room for what may come of it, and no union holds too much of that already. Answers whether there was anything to do.
    pub(crate) fn drain(
        &mut self,
        most: usize,
        channels: &mut Channels,
        now: Timestamp,
        parts: &mut CheckpointParts,
    ) -> Result<bool> {
        let has_room = self.task.feeds.iter().all(|exchange| channels.has_room(*exchange));
        if !has_room || self.task.holds.iter().any(Hold::is_full) {
            return Ok(false);
        }
        let mut some = self.unfinished;
        let mut cx = TaskContext { transport: channels, now, parts };
        self.tell(&mut cx)?;
        for turn in 0..self.senders {
            let from = (self.next + turn) % self.senders;
            for _ in 0..most {
                if self.unfinished || self.aligner.is_blocked(from) {
                    break;
                }
                let Some(payload) = channels.receive(self.task.exchange.0 as usize, from) else { break };
                some = true;
                let mut cx = TaskContext { transport: channels, now, parts };
                match payload {
                    Payload::Batch(batch) => self.task.inlet.on_batch(batch, &mut cx)?,
                    Payload::Signal(signal) => self.signal(from, signal, &mut cx)?,
                }
            }
        }
        self.next = (self.next + 1) % self.senders;
        Ok(some)
    }

    pub(crate) fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.task.inlet.flush(cx)
    }

    /// Lets go of the senders that wait behind a barrier of this epoch: it was given up.
    pub(crate) fn cancel(&mut self, epoch: Epoch) {
        self.aligner.cancel(epoch);
        self.untold.retain(|signal| !matches!(signal, Signal::Barrier(of) if *of <= epoch));
    }

    fn signal(&mut self, from: usize, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        let moved = self.frontier.hear(from, signal);
        self.untold.extend(moved.signals());
        match signal {
            Signal::Barrier(epoch) => {
                let alignment = self.aligner.barrier(from, epoch);
                self.aligned(alignment);
            }
            Signal::End => {
                let alignment = self.aligner.end(from);
                self.aligned(alignment);
                if self.aligner.is_ended() {
                    self.untold.push_back(Signal::End);
                }
            }
            // Partitions are the business of the task that reads them: routers keep them back.
            _ => {}
        }
        self.tell(cx)
    }

    fn aligned(&mut self, alignment: Alignment) {
        match alignment {
            Alignment::Aligned(epoch) => self.untold.push_back(Signal::Barrier(epoch)),
            Alignment::Waiting | Alignment::Superseded(_) | Alignment::Stale | Alignment::Ended => {}
        }
    }

    /// Does a part of what is unfinished, and passes on the signals that wait until one of them is unfinished itself.
    fn tell(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        loop {
            if self.unfinished {
                self.unfinished = !self.task.inlet.go_on(cx)?;
                if self.unfinished {
                    return Ok(());
                }
            }
            let Some(signal) = self.untold.pop_front() else { return Ok(()) };
            if let Signal::Barrier(_) = signal {
                cx.parts.ends_reached += 1;
            }
            self.unfinished = true;
            self.task.inlet.on_signal(signal, cx)?;
        }
    }
}
