//! Watermark strategies: how event time is told from the records of one partition.
//!
//! A strategy is kept per source partition and moved after every record, so the watermark just before a record is a
//! function of that partition's records alone.

use crate::time::{Timestamp, span_millis};
use std::time::Duration;

/// Derives one partition's watermark from the times of its records.
///
/// The watermark after a record is whatever the generator answers, but never lower than before.
pub trait WatermarkGenerator: Send {
    /// Takes a record's event time and answers the watermark after it, or `None` to leave it.
    fn on_record(&mut self, time: Timestamp) -> Option<Timestamp>;

    /// The generator's own memory, for a checkpoint. The watermark itself is kept by the engine. Default: nothing.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes back what [`WatermarkGenerator::save`] gave.
    fn restore(&mut self, _saved: &[u8]) {}
}

type MakeGenerator = std::sync::Arc<dyn Fn() -> Box<dyn WatermarkGenerator> + Send + Sync>;

#[derive(Clone)]
enum Strategy {
    Bounded(i64),
    Custom(MakeGenerator),
}

/// How watermarks are made, and what holds for partitions that are silent or run ahead.
#[derive(Clone)]
pub struct Watermarks {
    strategy: Strategy,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) max_drift: Option<Duration>,
}

impl Watermarks {
    fn of(strategy: Strategy) -> Self {
        Watermarks { strategy, idle_after: None, max_drift: None }
    }

    /// Records are out of order by at most `bound`: the watermark is the greatest time seen, less `bound`. A record behind the
    /// watermark is late. (Flink's `forBoundedOutOfOrderness` is one millisecond lower, since its watermark is inclusive.)
    pub fn bounded(bound: Duration) -> Self {
        Self::of(Strategy::Bounded(span_millis(bound)))
    }

    /// The times of a partition never fall.
    pub fn monotonous() -> Self {
        Self::bounded(Duration::ZERO)
    }

    /// A generator of the user's, one for each partition.
    pub fn generator<G: WatermarkGenerator + 'static>(make: impl Fn() -> G + Send + Sync + 'static) -> Self {
        Self::of(Strategy::Custom(std::sync::Arc::new(move || Box::new(make()))))
    }

    /// A partition without records for `silence` of processing time holds the others back no longer.
    ///
    /// This makes what fires depend on the moment: a record that such a partition brings later, for a window that
    /// fired without it, is late.
    pub fn idle_after(mut self, silence: Duration) -> Self {
        self.idle_after = Some(silence);
        self
    }

    /// No partition runs more than `drift` of event time ahead of the slowest: reading it waits. Keeps a replay from
    /// swelling the state of windows that cannot fire yet. Changes no result.
    ///
    /// A partition without records is the slowest, and all others wait for it, until [`Watermarks::idle_after`] lets them go: where
    /// a partition may be silent, say both.
    pub fn align_within(mut self, drift: Duration) -> Self {
        self.max_drift = Some(drift);
        self
    }

    pub(crate) fn start(&self) -> PartitionWatermark {
        let generator = match &self.strategy {
            Strategy::Bounded(bound) => Generator::Bounded(*bound),
            Strategy::Custom(make) => Generator::Custom(make()),
        };
        PartitionWatermark { watermark: Timestamp::MIN, generator }
    }
}

enum Generator {
    Bounded(i64),
    Custom(Box<dyn WatermarkGenerator>),
}

/// The watermark of one partition.
pub(crate) struct PartitionWatermark {
    watermark: Timestamp,
    generator: Generator,
}

impl PartitionWatermark {
    /// Takes a record's time; answers the watermark just before it.
    #[inline]
    pub(crate) fn on_record(&mut self, time: Timestamp) -> Timestamp {
        let before = self.watermark;
        let after = match &mut self.generator {
            Generator::Bounded(bound) => time.minus_millis(*bound),
            Generator::Custom(generator) => generator.on_record(time).unwrap_or(before),
        };
        // The end of time is the end of the stream, which no record can tell.
        self.watermark = before.max(after.min(Timestamp::MAX.minus_millis(1)));
        before
    }

    pub(crate) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Raises the watermark to `floor`: the decision that others did not wait for this partition while it was idle.
    pub(crate) fn raise(&mut self, floor: Timestamp) {
        self.watermark = self.watermark.max(floor);
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        let mut saved = self.watermark.millis().to_le_bytes().to_vec();
        if let Generator::Custom(generator) = &self.generator {
            saved.extend(generator.save());
        }
        saved
    }

    /// Takes back what `save` gave; answers false if it cannot be that.
    pub(crate) fn restore(&mut self, saved: &[u8]) -> bool {
        let Some((watermark, rest)) = saved.split_first_chunk() else { return false };
        self.watermark = Timestamp::from_millis(i64::from_le_bytes(*watermark));
        if let Generator::Custom(generator) = &mut self.generator {
            generator.restore(rest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::secs;

    #[test]
    fn a_bounded_watermark_trails_the_greatest_time_seen() {
        let mut partition = Watermarks::bounded(secs(1)).start();
        let times = [5000, 4000, 7000, 6500];
        let before: Vec<_> = times.map(|t| partition.on_record(Timestamp::from_millis(t)).millis()).into();
        assert_eq!(before, [i64::MIN, 4000, 4000, 6000]);
    }

    #[test]
    fn a_restored_watermark_goes_on_where_it_was() {
        let mut partition = Watermarks::monotonous().start();
        partition.on_record(Timestamp::from_millis(42));
        let mut restored = Watermarks::monotonous().start();
        assert!(restored.restore(&partition.save()));
        assert_eq!(restored.on_record(Timestamp::from_millis(7)).millis(), 42);
        assert!(!restored.restore(&[1, 2]));
    }
}
