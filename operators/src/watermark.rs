//! Watermark strategies: how event time is told from the records of one partition.
//!
//! A strategy is kept per source partition and moved after every record, so the watermark just before a record is a
//! function of that partition's records alone. Records can carry watermarks themselves ([`Punctuation`]): the higher of what the strategy
//! tells and of what they say counts.
//!
//! Partitions that do not keep step:
//! 1. One that is *silent* holds everybody back, until [`Watermarks::idle_after`] lets the others go on.
//! 2. One that *appears later* (a topic that is created, a partition that is added) holds nobody back before it is found.
//! 3. Both begin where the others are when they speak. Where that makes a record late, the record's place and the watermark are written down
//!    with the checkpoints, and a later version of the flow repeats it.
//! 4. One that *runs ahead*, as happens in a replay, is made to wait by [`Watermarks::align_within`] or [`Watermarks::align_group`]. That changes
//!    no result: it bounds what has to be kept.

use crate::time::{Timestamp, span_millis};
use std::sync::Arc;
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

/// What a record says about the time of those that follow it in its partition; see
/// [`Stream::event_time_punctuated`](crate::Stream::event_time_punctuated).
///
/// A promise holds from just behind the record that makes it: the record itself is judged by what was promised before. A record that breaks one
/// is late, as any that is behind its partition's watermark; a promise that is lower than an earlier one changes nothing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Punctuation {
    /// Nothing: it is data.
    None,
    /// It is data, and no record with a time below this follows.
    Promise(Timestamp),
    /// It is no data, and says just that no record with a time below this follows. It is not passed on, and nobody asks for its time.
    Heartbeat(Timestamp),
}

impl From<Option<Timestamp>> for Punctuation {
    fn from(promise: Option<Timestamp>) -> Punctuation {
        promise.map_or(Punctuation::None, Punctuation::Promise)
    }
}

type MakeGenerator = Arc<dyn Fn() -> Box<dyn WatermarkGenerator> + Send + Sync>;

#[derive(Clone)]
enum Strategy {
    Bounded(i64),
    /// The records say it.
    Punctuated,
    Custom(MakeGenerator),
}

/// How watermarks are made, and what holds for partitions that are silent or run ahead.
#[derive(Clone)]
pub struct Watermarks {
    strategy: Strategy,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) alignment: Option<Alignment>,
}

/// How far partitions may run ahead of the slowest of their group.
#[derive(Clone)]
pub(crate) struct Alignment {
    /// The group's name; without one it is that of all who have none.
    pub(crate) group: Option<Arc<str>>,
    pub(crate) drift: Duration,
}

impl Watermarks {
    fn of(strategy: Strategy) -> Self {
        Watermarks { strategy, idle_after: None, alignment: None }
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

    /// The times of records tell nothing: only what they say moves the watermark, by way of
    /// [`Stream::event_time_punctuated`](crate::Stream::event_time_punctuated). With [`Stream::event_time`](crate::Stream::event_time) no window
    /// would ever end, and it is an error of [`Flow::into_plan`](crate::Flow::into_plan).
    pub fn punctuated() -> Self {
        Self::of(Strategy::Punctuated)
    }

    /// A generator of the user's, one for each partition.
    pub fn generator<G: WatermarkGenerator + 'static>(make: impl Fn() -> G + Send + Sync + 'static) -> Self {
        Self::of(Strategy::Custom(Arc::new(move || Box::new(make()))))
    }

    /// A partition without records for `silence` of processing time holds the others back no longer.
    ///
    /// This makes what is late depend on the moment: when such a partition speaks again its watermark begins where the others are, so a record
    /// that it brings for a window which fired without it is late. Where that happens it is written down with the checkpoints, and a
    /// later version of the flow that replays the log repeats it, as far as the checkpoint that is the newest when the replay begins. Operators
    /// are found by their names: where a version adds an `event_time`, give them [names](crate::Stream::named).
    ///
    /// ```
    /// use rivermark_operators::{Stream, Timestamp, Watermarks, Windows, minutes, secs};
    ///
    /// # fn describe(readings: Stream<(u32, i64)>) {
    /// // Sensors report each second. A gateway that has been quiet for half a minute does not stop the others' windows.
    /// let watermarks = Watermarks::bounded(secs(5)).idle_after(secs(30));
    /// readings
    ///     .event_time(|reading| Timestamp::from_secs(reading.1), watermarks)
    ///     .key_by(|reading| reading.0)
    ///     .window(Windows::tumbling(minutes(1)))
    ///     .count();
    /// # }
    /// ```
    pub fn idle_after(mut self, silence: Duration) -> Self {
        self.idle_after = Some(silence);
        self
    }

    /// No partition runs more than `drift` of event time ahead of the slowest: reading it waits. Keeps a replay from
    /// swelling the state of windows that cannot fire yet. Changes no result.
    ///
    /// The others are those of the same source, and of all sources of the flow that are aligned without the name of a group. A
    /// partition without records is the slowest, and all others wait for it, until [`Watermarks::idle_after`] lets them go: where a
    /// partition may be silent, say both. What was read at once, up to 1024 records, may lie beyond the drift.
    pub fn align_within(self, drift: Duration) -> Self {
        self.aligned(None, drift)
    }

    /// As [`Watermarks::align_within`], among all sources of the flow whose watermarks name the same `group`, and no others. Say it for the
    /// inputs of a join: a replay reads the one as far as the other, instead of keeping years of flights until their weather
    /// has been read. Each source's `drift` is how far its own partitions may be ahead.
    ///
    /// Partitions that are idle or have ended are not waited for, those that appear later are. Somebody can always be read: who waits is ahead of
    /// another, and the slowest of all waits for nobody. Who is made to wait is not silent by that, so it never counts as idle. A replay with a
    /// group and one without give the same rows. (Flink's `withWatermarkAlignment`.)
    ///
    /// ```
    /// use rivermark_operators::{Interval, Stream, Timestamp, Watermarks, hours, minutes};
    ///
    /// # fn describe(flights: Stream<(u32, Timestamp)>, weather: Stream<(u32, Timestamp)>) {
    /// // A month of weather is read in a moment, a month of flights is not.
    /// let watermarks = || Watermarks::bounded(minutes(10)).align_group("flights and weather", hours(6));
    /// let weather = weather.event_time(|seen| seen.1, watermarks()).key_by(|seen| seen.0);
    /// let flights = flights.event_time(|flight| flight.1, watermarks()).key_by(|flight| flight.0);
    /// flights
    ///     .interval_join(weather, Interval::around(hours(1), hours(1)))
    ///     .inner(|place, flight, seen| (*place, flight.1, seen.1));
    /// # }
    /// ```
    pub fn align_group(self, group: &str, drift: Duration) -> Self {
        self.aligned(Some(group.into()), drift)
    }

    fn aligned(mut self, group: Option<Arc<str>>, drift: Duration) -> Self {
        self.alignment = Some(Alignment { group, drift });
        self
    }

    /// Whether nothing but what records say moves it.
    pub(crate) fn is_punctuated(&self) -> bool {
        matches!(self.strategy, Strategy::Punctuated)
    }

    pub(crate) fn start(&self) -> PartitionWatermark {
        let generator = match &self.strategy {
            Strategy::Bounded(bound) => Generator::Bounded(*bound),
            Strategy::Punctuated => Generator::None,
            Strategy::Custom(make) => Generator::Custom(make()),
        };
        PartitionWatermark::new(generator)
    }
}

enum Generator {
    None,
    Bounded(i64),
    Custom(Box<dyn WatermarkGenerator>),
}

/// The watermark of one partition.
///
/// It is a function of the partition's records, but for *decisions*: that others did not wait for the partition while it was idle, or before it
/// was found. A decision raises the watermark to where the others were. It matters to records below it alone, so it is written down, at the
/// offset of the first such record, and a replay repeats it there. Where none comes before the records themselves have raised the watermark
/// as far, it has changed nothing and is forgotten: as long as partitions are live when they are back, nothing is ever written down.
pub(crate) struct PartitionWatermark {
    watermark: Timestamp,
    generator: Generator,
    /// What it was raised to, as long as that may matter.
    raised: Option<Timestamp>,
    /// Offsets at which the watermark was raised, and to what, in order: behind `repeated` those to be repeated.
    decisions: Vec<(u64, Timestamp)>,
    repeated: usize,
    /// The first offset at which there is something to do about decisions.
    look_from: u64,
    /// It is silent: nobody waits for it.
    idle: bool,
}

/// In what [`PartitionWatermark::save`] gives, marks the number of decisions where the partition was idle.
const IDLE: u64 = 1 << 63;

/// Whether a partition was idle, by what [`PartitionWatermark::save`] gave for it.
pub(crate) fn was_idle(saved: &[u8]) -> bool {
    Saved::read(saved).is_some_and(|saved| saved.idle)
}

impl PartitionWatermark {
    fn new(generator: Generator) -> Self {
        PartitionWatermark {
            watermark: Timestamp::MIN,
            generator,
            raised: None,
            decisions: Vec::new(),
            repeated: 0,
            look_from: u64::MAX,
            idle: false,
        }
    }

    /// Takes the time of the record at an offset; answers the watermark just before it.
    #[inline]
    pub(crate) fn on_record(&mut self, offset: u64, time: Timestamp) -> Timestamp {
        if offset >= self.look_from {
            self.decide(offset, time);
        }
        let before = self.watermark;
        let after = match &mut self.generator {
            Generator::None => return before,
            Generator::Bounded(bound) => time.minus_millis(*bound),
            Generator::Custom(generator) => generator.on_record(time).unwrap_or(before),
        };
        // The end of time is the end of the stream, which no record can tell.
        self.watermark = before.max(after.min(Timestamp::MAX.minus_millis(1)));
        before
    }

    /// Takes a record's word that none below `to` follows. The end of time is the end of the stream, which no record can tell.
    pub(crate) fn promise(&mut self, to: Timestamp) {
        self.watermark = self.watermark.max(to.min(Timestamp::MAX.minus_millis(1)));
    }

    /// Repeats the decisions whose place has come, and writes down the one that was taken if it matters to the record.
    #[cold]
    fn decide(&mut self, offset: u64, time: Timestamp) {
        while let Some((at, to)) = self.decisions.get(self.repeated)
            && *at <= offset
        {
            self.watermark = self.watermark.max(*to);
            self.repeated += 1;
        }
        if let Some(to) = self.raised {
            if time < to {
                self.decisions.insert(self.repeated, (offset, to));
                self.repeated += 1;
            }
            if time < to || self.watermark > to {
                self.raised = None;
            }
        }
        self.look_again();
    }

    fn look_again(&mut self) {
        let next = self.decisions.get(self.repeated).map_or(u64::MAX, |(at, _)| *at);
        self.look_from = if self.raised.is_some() { 0 } else { next };
    }

    pub(crate) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Raises the watermark to `floor`: the decision that others did not wait for this partition.
    pub(crate) fn raise(&mut self, floor: Timestamp) {
        if floor > self.watermark {
            self.watermark = floor;
            self.raised = Some(floor);
            self.look_again();
        }
    }

    /// Notes whether others wait for it.
    pub(crate) fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.idle
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        let mut saved = self.watermark.millis().to_le_bytes().to_vec();
        let raised = self.raised.map_or(i64::MIN, Timestamp::millis);
        saved.extend(raised.to_le_bytes());
        let idle = if self.idle { IDLE } else { 0 };
        saved.extend((self.decisions.len() as u64 | idle).to_le_bytes());
        for (offset, to) in &self.decisions {
            saved.extend(offset.to_le_bytes());
            saved.extend(to.millis().to_le_bytes());
        }
        if let Generator::Custom(generator) = &self.generator {
            saved.extend(generator.save());
        }
        saved
    }

    /// Takes back what `save` gave after an offset; answers false if it cannot be that.
    pub(crate) fn restore(&mut self, saved: &[u8]) -> bool {
        let Some(Saved { watermark, raised, idle, decisions, generator: rest }) = Saved::read(saved) else {
            return false;
        };
        self.watermark = watermark;
        self.raised = raised;
        self.idle = idle;
        self.decisions = decisions;
        if let Generator::Custom(generator) = &mut self.generator {
            generator.restore(rest);
        }
        self.look_again();
        true
    }

    /// Takes over, for a replay from the beginning, the decisions of another version of the flow out of what `save` gave there; answers false
    /// if it cannot be that.
    pub(crate) fn repeat(&mut self, saved: &[u8]) -> bool {
        let Some(saved) = Saved::read(saved) else { return false };
        self.decisions = saved.decisions;
        self.look_again();
        true
    }
}

/// What [`PartitionWatermark::save`] gave.
struct Saved<'a> {
    watermark: Timestamp,
    raised: Option<Timestamp>,
    idle: bool,
    decisions: Vec<(u64, Timestamp)>,
    generator: &'a [u8],
}

impl Saved<'_> {
    fn read(bytes: &[u8]) -> Option<Saved<'_>> {
        let mut rest = bytes;
        let mut next = || {
            let (word, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(u64::from_le_bytes(*word))
        };
        let watermark = Timestamp::from_millis(next()? as i64);
        let raised = Some(next()? as i64).filter(|to| *to != i64::MIN).map(Timestamp::from_millis);
        let count = next()?;
        let (idle, count) = (count & IDLE != 0, count & !IDLE);
        let decisions: Option<Vec<_>> =
            (0..count).map(|_| Some((next()?, Timestamp::from_millis(next()? as i64)))).collect();
        Some(Saved { watermark, raised, idle, decisions: decisions?, generator: rest })
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
        let before: Vec<_> = times.map(|t| partition.on_record(0, Timestamp::from_millis(t)).millis()).into();
        assert_eq!(before, [i64::MIN, 4000, 4000, 6000]);
    }

    #[test]
    fn a_promise_counts_from_the_next_record_and_never_lowers_what_is_known() {
        let mut partition = Watermarks::bounded(secs(1)).start();
        assert_eq!(partition.on_record(0, t(5000)), Timestamp::MIN);
        partition.promise(t(7000));
        assert_eq!(run(&mut partition, &[(1, 6000), (2, 9000), (3, 9000)]), [7000, 7000, 8000]);
        partition.promise(t(100));
        assert_eq!(partition.watermark(), t(8000));
        partition.promise(Timestamp::MAX);
        assert!(partition.watermark() < Timestamp::MAX, "no record ends a stream");
        let mut silent = Watermarks::punctuated().start();
        assert_eq!(run(&mut silent, &[(0, 10), (1, 20)]), [i64::MIN, i64::MIN]);
    }

    #[test]
    fn a_restored_watermark_goes_on_where_it_was() {
        let mut partition = Watermarks::monotonous().start();
        partition.on_record(0, Timestamp::from_millis(42));
        let mut restored = Watermarks::monotonous().start();
        assert!(restored.restore(&partition.save()));
        assert_eq!(restored.on_record(1, Timestamp::from_millis(7)).millis(), 42);
        assert!(!restored.restore(&[1, 2]));
        assert!(!restored.is_idle());
        partition.set_idle(true);
        assert!(restored.restore(&partition.save()) && restored.is_idle() && was_idle(&partition.save()));
    }

    fn t(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// The watermarks before the records at these offsets.
    fn run(partition: &mut PartitionWatermark, records: &[(u64, i64)]) -> Vec<i64> {
        records.iter().map(|(offset, time)| partition.on_record(*offset, t(*time)).millis()).collect()
    }

    #[test]
    fn a_decision_that_made_a_record_late_is_repeated_where_it_did() {
        let mut live = Watermarks::monotonous().start();
        run(&mut live, &[(0, 10), (1, 20)]);
        live.raise(t(100));
        // The first record is not below it, the second is.
        assert_eq!(run(&mut live, &[(2, 100), (3, 60), (4, 70)]), [100, 100, 100]);
        let mut replay = Watermarks::monotonous().start();
        assert!(replay.repeat(&live.save()));
        let replayed = run(&mut replay, &[(0, 10), (1, 20), (2, 100), (3, 60), (4, 70), (5, 200), (6, 210)]);
        assert_eq!(replayed, [i64::MIN, 10, 20, 100, 100, 100, 200]);
        assert_eq!(replay.save()[16..], live.save()[16..], "and can be repeated again");
    }

    #[test]
    fn a_decision_that_makes_no_record_late_is_forgotten() {
        let mut live = Watermarks::bounded(secs(1)).start();
        run(&mut live, &[(0, 5000)]);
        live.raise(t(9000));
        assert_eq!(
            run(&mut live, &[(1, 9500), (2, 10_500), (3, 10_600), (4, 2000)]),
            [9000, 9000, 9500, 9600]
        );
        assert_eq!(Saved::read(&live.save()).unwrap().decisions, []);
    }

    #[test]
    fn a_decision_outlives_a_restart_and_one_of_an_earlier_version_a_checkpoint_of_the_later() {
        let mut live = Watermarks::monotonous().start();
        run(&mut live, &[(0, 10)]);
        live.raise(t(50));
        let mut restarted = Watermarks::monotonous().start();
        assert!(restarted.restore(&live.save()));
        assert_eq!(run(&mut restarted, &[(1, 40), (2, 45)]), [50, 50]);

        let (mut replay, mut again) = (Watermarks::monotonous().start(), Watermarks::monotonous().start());
        assert!(replay.repeat(&restarted.save()));
        run(&mut replay, &[(0, 10)]);
        assert!(again.restore(&replay.save()));
        assert_eq!(run(&mut again, &[(1, 40), (2, 45)]), [50, 50]);
        // It decides for itself too, in between.
        let mut replay = Watermarks::monotonous().start();
        assert!(replay.repeat(&restarted.save()));
        replay.raise(t(20));
        assert_eq!(run(&mut replay, &[(0, 10), (1, 40)]), [20, 50]);
        assert_eq!(Saved::read(&replay.save()).unwrap().decisions, [(0, t(20)), (1, t(50))]);
    }
}
