//! How far event time has come for an operator, also across the end of a bounded stream.

use crate::context::CheckpointParts;
use crate::time::Timestamp;
use std::sync::Arc;

/// The watermark, and the time that it stands for.
///
/// The end of a stream is a watermark at the end of time, which lets everything run that waits. More may be appended and read by a next run of
/// the flow. For that run time has not come to its end:
/// 1. Partitions that have all ended wait for none of them, so time has come to the greatest of their watermarks. Who tells time says
///    so before the end ([`crate::clocks`]), so every task of every operator knows the same.
/// 2. For windows it has come to the end of the last one that fired: what fired is final, and what comes for it is late, while later
///    windows are as open as ever. For functions in event-time order it has come to the last record that ran, or records would run behind
///    those that followed them. The timers of a function are its own business: they may be far ahead of all data.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) watermark: Timestamp,
    /// The watermark, or what the end of the stream has brought about.
    pub(crate) time: Timestamp,
}

impl Reached {
    pub(crate) fn restored(watermark: Timestamp) -> Reached {
        Reached { watermark, time: watermark }
    }

    /// The watermark has risen; `last` is the last time that the next run cannot come back to, because of it. That of windows which end with all
    /// time is none: nothing is behind it.
    pub(crate) fn advance(&mut self, watermark: Timestamp, last: Option<Timestamp>) {
        self.watermark = watermark;
        self.time = if watermark == Timestamp::MAX {
            last.map_or(self.time, |last| last.max(self.time))
        } else {
            watermark
        };
    }

    /// Tells the checkpoint, where the stream has ended.
    pub(crate) fn save(&self, name: &Arc<str>, parts: &mut CheckpointParts) {
        if self.watermark == Timestamp::MAX {
            parts.ends.push((Arc::clone(name), self.time));
        }
    }
}
