//! How far event time has come for an operator of windows, also across the end of a bounded stream.

use crate::context::CheckpointParts;
use crate::time::Timestamp;
use std::sync::Arc;

/// The watermark, and the time that it stands for.
///
/// The end of a stream is a watermark at the end of time, which fires what is open. More may be appended and read by a next run of the flow.
/// For that run time has not come to its end, but to the end of the last window that fired: so what fired is final, and what
/// comes for it is late, while later windows are as open as ever.
#[derive(Copy, Clone)]
pub(super) struct Reached {
    pub(super) watermark: Timestamp,
    /// The watermark, or the last end that the end of the stream has brought about.
    pub(super) time: Timestamp,
}

impl Reached {
    pub(super) fn restored(watermark: Timestamp) -> Reached {
        Reached { watermark, time: watermark }
    }

    /// The watermark has risen; `last` is the last end that has come with it. That of windows which end with all time is none: nothing is
    /// behind it.
    pub(super) fn advance(&mut self, watermark: Timestamp, last: Option<Timestamp>) {
        self.watermark = watermark;
        self.time = if watermark == Timestamp::MAX {
            last.map_or(self.time, |last| last.max(self.time))
        } else {
            watermark
        };
    }

    /// Tells the checkpoint, where the stream has ended.
    pub(super) fn save(&self, name: &Arc<str>, parts: &mut CheckpointParts) {
        if self.watermark == Timestamp::MAX {
            parts.ends.push((Arc::clone(name), self.time));
        }
    }
}
