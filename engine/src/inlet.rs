//! The receiving end of an exchange on one worker: barriers aligned, watermarks combined, over all sending workers.

use crate::channels::Channels;
use rivermark_checkpoint::{Aligner, Alignment, Epoch};
use rivermark_operators::context::{CheckpointParts, ExchangeId, Payload, TaskContext};
use rivermark_operators::edge::Signal;
use rivermark_operators::frontier::Frontier;
use rivermark_operators::plan::Inlet;
use rivermark_operators::{Result, Timestamp};

pub(crate) struct AlignedInlet {
    id: ExchangeId,
    inlet: Box<dyn Inlet>,
    aligner: Aligner,
    frontier: Frontier,
    senders: usize,
    /// Which sender is read first next time.
    next: usize,
}

impl AlignedInlet {
    pub(crate) fn new(id: ExchangeId, inlet: Box<dyn Inlet>, senders: usize) -> Self {
        AlignedInlet {
            id,
            inlet,
            aligner: Aligner::new(senders),
            frontier: Frontier::new(senders),
            senders,
            next: 0,
        }
    }

    pub(crate) fn id(&self) -> ExchangeId {
        self.id
    }

    /// Takes up to `most` payloads of each sender that is not behind a barrier. Answers whether there were any.
    pub(crate) fn drain(
        &mut self,
        most: usize,
        channels: &mut Channels,
        now: Timestamp,
        parts: &mut CheckpointParts,
    ) -> Result<bool> {
        let mut some = false;
        for turn in 0..self.senders {
            let from = (self.next + turn) % self.senders;
            for _ in 0..most {
                if self.aligner.is_blocked(from) {
                    break;
                }
                let Some(payload) = channels.receive(self.id.0 as usize, from) else { break };
                some = true;
                let mut cx = TaskContext { transport: channels, now, parts };
                match payload {
                    Payload::Batch(batch) => self.inlet.on_batch(batch, &mut cx)?,
                    Payload::Signal(signal) => self.signal(from, signal, &mut cx)?,
                }
            }
        }
        self.next = (self.next + 1) % self.senders;
        Ok(some)
    }

    pub(crate) fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.inlet.flush(cx)
    }

    /// Lets go of the senders that wait behind a barrier of this epoch: it was given up.
    pub(crate) fn cancel(&mut self, epoch: Epoch) {
        self.aligner.cancel(epoch);
    }

    fn signal(&mut self, from: usize, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        let moved = self.frontier.hear(from, signal);
        moved.signals().try_for_each(|moved| self.inlet.on_signal(moved, cx))?;
        match signal {
            Signal::Barrier(epoch) => {
                let alignment = self.aligner.barrier(from, epoch);
                self.aligned(alignment, cx)
            }
            Signal::End => {
                let alignment = self.aligner.end(from);
                self.aligned(alignment, cx)?;
                if self.aligner.is_ended() { self.inlet.on_signal(Signal::End, cx) } else { Ok(()) }
            }
            // Partitions are the business of the task that reads them: routers keep them back.
            _ => Ok(()),
        }
    }

    fn aligned(&mut self, alignment: Alignment, cx: &mut TaskContext<'_>) -> Result<()> {
        match alignment {
            Alignment::Aligned(epoch) => {
                cx.parts.ends_reached += 1;
                self.inlet.on_signal(Signal::Barrier(epoch), cx)
            }
            Alignment::Waiting | Alignment::Superseded(_) | Alignment::Stale | Alignment::Ended => Ok(()),
        }
    }
}
