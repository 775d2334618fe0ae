//! How fast a source may be read.
//!
//! 1. A token bucket for records and one for bytes, each filled with time up to a burst. A partition that is about to be read claims as many
//!    records as there are tokens for, and settles afterwards what it was given. How many bytes come is known only then: the bucket may go
//!    below zero, and the next claim waits until it is above.
//! 2. The buckets are the source's, shared by its partitions on all workers. A partition that has been served more than the others that ask too, by
//!    more than its part of a burst, waits for them (start-time fair queueing; Goyal et al., SIGCOMM 1996). One that asks for nothing, because it
//!    has no records or its worker has no room, holds nobody back, and has no credit later.
//! 3. Who has to wait is told until when. Nothing blocks: the worker does other things and asks again.
//!
//! What happens is a function of the state and the time, which is handed in. A limit changes when records are read and never what comes of
//! them: results are the same as without. (Processing time, and what waits for a silence of the wall clock, are not results of the log alone anyway.)
//! A source without a limit pays one load of an atomic a batch.

use crate::line::{Line, Lines, Reach};
use crate::time::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

/// How long a partition that has asked for records is waited for by the others, in milliseconds.
const ASKS_FOR_MS: i64 = 50;
/// When to ask again while a source is paused, in milliseconds.
const PAUSE_MS: i64 = 10;
/// A token is so many parts: a rate a second is then so many parts a millisecond.
const TOKEN: i64 = 1000;

/// The most that is read from a source: records or bytes a second, or both.
///
/// ```
/// use rivermark_operators::{RateLimit, millis};
///
/// let limit = RateLimit::records_per_second(10_000).and(RateLimit::bytes_per_second(1 << 20)).burst(millis(500));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    records: Option<u64>,
    bytes: Option<u64>,
    burst: Duration,
}

impl RateLimit {
    const NONE: RateLimit = RateLimit { records: None, bytes: None, burst: Duration::from_millis(100) };

    /// At most so many records a second, over all partitions of the source.
    ///
    /// # Panics
    /// If it is zero: then nothing would ever be read.
    pub fn records_per_second(records: u64) -> RateLimit {
        assert!(records > 0, "a source that is limited to no records is never read");
        RateLimit { records: Some(records), ..Self::NONE }
    }

    /// At most so many bytes a second, as the source counts them (keys and values, before decoding), over all of its partitions. A source
    /// that does not count bytes is not limited by it.
    ///
    /// # Panics
    /// If it is zero.
    pub fn bytes_per_second(bytes: u64) -> RateLimit {
        assert!(bytes > 0, "a source that is limited to no bytes is never read");
        RateLimit { bytes: Some(bytes), ..Self::NONE }
    }

    /// The most records a second, if they are limited.
    pub fn records(&self) -> Option<u64> {
        self.records
    }

    /// Both limits: of two for the same thing the lower.
    pub fn and(self, other: RateLimit) -> RateLimit {
        let lower = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        RateLimit {
            records: lower(self.records, other.records),
            bytes: lower(self.bytes, other.bytes),
            burst: self.burst.min(other.burst),
        }
    }

    /// How much may be read at once after a time in which less was: what the rate gives in `burst`, and at least one record. Default: 100 ms.
    pub fn burst(self, burst: Duration) -> RateLimit {
        RateLimit { burst, ..self }
    }
}

/// Tokens, in parts of one.
#[derive(Debug)]
struct Bucket {
    /// Parts a millisecond.
    rate: i64,
    most: i64,
    level: i64,
}

impl Bucket {
    fn full(per_second: u64, burst: Duration) -> Bucket {
        let rate = i64::try_from(per_second).unwrap_or(i64::MAX);
        let burst = i64::try_from(burst.as_millis()).unwrap_or(i64::MAX);
        let most = rate.saturating_mul(burst).max(TOKEN);
        Bucket { rate, most, level: most }
    }

    fn pass(&mut self, millis: i64) {
        self.level = self.level.saturating_add(self.rate.saturating_mul(millis)).min(self.most);
    }

    fn take(&mut self, tokens: u64) {
        let parts = i64::try_from(tokens).unwrap_or(i64::MAX).saturating_mul(TOKEN);
        self.level = self.level.saturating_sub(parts);
    }

    /// Whole tokens in it.
    fn tokens(&self) -> u64 {
        u64::try_from(self.level / TOKEN).unwrap_or(0)
    }

    /// Milliseconds until there is one.
    fn wait(&self) -> i64 {
        (TOKEN - self.level).max(0).saturating_add(self.rate - 1) / self.rate
    }
}

/// A partition that has asked for records.
#[derive(Debug)]
struct Asking {
    partition: u16,
    /// Of what the limit counts: records, or bytes where only those are limited.
    served: u64,
    /// When it asked last. `None` if it asks for nothing now.
    at: Option<Timestamp>,
}

/// What a partition is told that asks to be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It may give so many records.
    Read(usize),
    /// It is to ask again then.
    Wait(Timestamp),
}

/// The state of a source's limit; see the module's page.
#[derive(Debug, Default)]
struct Tokens {
    limit: Option<RateLimit>,
    paused: bool,
    records: Option<Bucket>,
    bytes: Option<Bucket>,
    /// When time was last looked at.
    at: Option<Timestamp>,
    asking: Vec<Asking>,
    /// What a record had lately.
    bytes_each: u64,
}

impl Tokens {
    fn set_limit(&mut self, limit: Option<RateLimit>) {
        self.limit = limit;
        self.records = limit.and_then(|limit| Some(Bucket::full(limit.records?, limit.burst)));
        self.bytes = limit.and_then(|limit| Some(Bucket::full(limit.bytes?, limit.burst)));
        self.asking.clear();
    }

    fn is_limited(&self) -> bool {
        self.paused || self.limit.is_some()
    }

    fn pass(&mut self, now: Timestamp) {
        let before = *self.at.get_or_insert(now);
        let millis = now.millis().saturating_sub(before.millis());
        if millis > 0 {
            self.at = Some(now);
            self.buckets().for_each(|bucket| bucket.pass(millis));
        }
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.records.iter_mut().chain(&mut self.bytes)
    }

    /// May `partition` be read, and how many records at most?
    fn claim(&mut self, now: Timestamp, partition: u16, most: usize) -> Claim {
        if self.paused {
            return Claim::Wait(now.plus_millis(PAUSE_MS));
        }
        self.pass(now);
        let turn = self.turn(now, partition);
        let wait = self.buckets().map(|bucket| bucket.wait()).max().unwrap_or(0);
        if wait > 0 {
            return Claim::Wait(now.plus_millis(wait));
        }
        if turn == 0 {
            return Claim::Wait(now.plus_millis(1));
        }
        let each = self.bytes_each.max(1);
        let of_bytes = self.bytes.as_ref().map(|bucket| (bucket.tokens() / each).max(1));
        // Of bytes nothing is known before the first record has come.
        let of_bytes = of_bytes.map(|records| if self.bytes_each == 0 { 1 } else { records });
        let turn = if self.records.is_some() { turn } else { (turn / each).max(1) };
        let of_records = self.records.as_ref().map(Bucket::tokens);
        let records = of_records.into_iter().chain(of_bytes).fold(turn, u64::min).min(most as u64);
        if let Some(bucket) = &mut self.records {
            bucket.take(records);
        }
        Claim::Read(records as usize)
    }

    /// How much `partition` may be served before it waits for others that ask.
    fn turn(&mut self, now: Timestamp, partition: u16) -> u64 {
        let asks = |asking: &Asking| {
            asking.at.is_some_and(|at| now.millis().saturating_sub(at.millis()) <= ASKS_FOR_MS)
        };
        let least = self.asking.iter().filter(|other| other.partition != partition && asks(other));
        let (others, least) = (least.clone().count() as u64, least.map(|other| other.served).min());
        let at = match self.asking.iter().position(|asking| asking.partition == partition) {
            Some(at) => at,
            None => {
                self.asking.push(Asking { partition, served: 0, at: None });
                self.asking.len() - 1
            }
        };
        let mine = &mut self.asking[at];
        if !asks(mine) {
            mine.served = mine.served.max(least.unwrap_or(0));
        }
        mine.at = Some(now);
        let ahead = mine.served.saturating_sub(least.unwrap_or(mine.served));
        let burst = self.records.as_ref().or(self.bytes.as_ref()).map_or(0, |bucket| bucket.most / TOKEN);
        let part = (burst as u64 / (others + 1)).max(1);
        part.saturating_sub(ahead)
    }

    /// What came of a claim of `claimed` records.
    fn settle(&mut self, partition: u16, claimed: usize, records: usize, bytes: u64) {
        if let Some(bucket) = &mut self.records {
            bucket.level = bucket
                .level
                .saturating_add((claimed as i64 - records as i64).saturating_mul(TOKEN))
                .min(bucket.most);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes);
        }
        if records > 0 {
            self.bytes_each = bytes / records as u64;
        }
        let served = if self.records.is_some() { records as u64 } else { bytes };
        if let Some(asking) = self.asking.iter_mut().find(|asking| asking.partition == partition) {
            asking.served += served;
            if records == 0 {
                asking.at = None;
            }
        }
    }
}

/// When a partition that gives nothing is idle.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Silence {
    /// After as long a silence as the flow says.
    #[default]
    Timed,
    /// Never: what was decided when these records were new is repeated, and nothing else.
    Unheeded,
    /// At once, if the flow says that it can be.
    AtOnce,
}

/// The limit of one source, shared by the workers that read it and by whoever changes it.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Whether there is anything to ask.
    is_limited: AtomicBool,
    tokens: Mutex<Tokens>,
    lines: Lines,
    silence: AtomicU8,
}

impl Throttle {
    /// Changes the limit, or takes it away. It holds from the next read on, with a full burst.
    pub fn set_limit(&self, limit: Option<RateLimit>) {
        self.change(|tokens| tokens.set_limit(limit));
    }

    /// Reads nothing more until [`Throttle::resume`], whatever the limit.
    pub fn pause(&self) {
        self.change(|tokens| tokens.paused = true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.change(|tokens| tokens.paused = false);
    }

    /// Lets each partition be read up to its line and no further, by its number; one that has none not at all. `None` takes all lines away. It holds
    /// from the next read on.
    pub fn set_lines(&self, lines: Option<HashMap<u32, Line>>) {
        self.lines.set(lines);
    }

    /// Says when a partition that gives nothing is idle, from the next look on.
    pub fn set_silence(&self, silence: Silence) {
        self.silence.store(silence as u8, Ordering::Relaxed);
    }

    pub(crate) fn silence(&self) -> Silence {
        let silence = self.silence.load(Ordering::Relaxed);
        [Silence::Unheeded, Silence::AtOnce].into_iter().find(|s| *s as u8 == silence).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn reach(&self, number: u32) -> Reach {
        self.lines.reach(number)
    }

    /// Whether it is between [`Throttle::pause`] and [`Throttle::resume`].
    pub fn is_paused(&self) -> bool {
        self.tokens.lock().paused
    }

    fn change(&self, change: impl FnOnce(&mut Tokens)) {
        let mut tokens = self.tokens.lock();
        change(&mut tokens);
        self.is_limited.store(tokens.is_limited(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn claim(&self, now: Timestamp, partition: u16, most: usize) -> Claim {
        if !self.is_limited.load(Ordering::Relaxed) {
            return Claim::Read(most);
        }
        self.tokens.lock().claim(now, partition, most)
    }

    #[inline]
    pub(crate) fn settle(&self, partition: u16, claimed: usize, records: usize, bytes: u64) {
        if self.is_limited.load(Ordering::Relaxed) {
            self.tokens.lock().settle(partition, claimed, records, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partitions that always have records of `bytes` bytes, each asked every millisecond in turn. Answers what each was given in `millis`.
    fn read(throttle: &Throttle, from: i64, millis: i64, bytes: &[u64]) -> Vec<u64> {
        let mut read = vec![0; bytes.len()];
        for now in from..from + millis {
            // Whoever comes first in a millisecond comes first in all of them.
            for (partition, bytes) in bytes.iter().enumerate() {
                let claim = throttle.claim(Timestamp::from_millis(now), partition as u16, 1024);
                if let Claim::Read(records) = claim {
                    throttle.settle(partition as u16, records, records, records as u64 * bytes);
                    read[partition] += records as u64;
                }
            }
        }
        read
    }

    fn limited(limit: RateLimit) -> Throttle {
        let throttle = Throttle::default();
        throttle.set_limit(Some(limit));
        throttle
    }

    #[test]
    fn no_more_is_read_than_the_rate_and_one_burst_and_no_less_than_the_rate() {
        for rate in [1, 3, 999, 1000, 40_000, 800_000] {
            let read = read(&limited(RateLimit::records_per_second(rate)), 0, 10_000, &[1])[0];
            let burst = (rate / 10).max(1);
            assert!(
                (10 * rate - rate / 100..=10 * rate + burst).contains(&read),
                "{read} at {rate} a second"
            );
        }
    }

    #[test]
    fn partitions_are_served_alike_whoever_asks_first() {
        for rate in [10, 100, 1000, 77_777] {
            let limit = RateLimit::records_per_second(rate);
            let read = read(&limited(limit), 0, 10_000, &[1, 1, 1]);
            let (least, most) = (read.iter().min().unwrap(), read.iter().max().unwrap());
            // Whoever is first has the first burst.
            assert!(most - least <= (rate / 10 * 3 / 2).max(2), "{read:?} at {rate} a second");
            assert!(read.iter().sum::<u64>() >= 10 * rate - rate / 50 - 2, "{read:?} at {rate} a second");
        }
    }

    #[test]
    fn a_partition_without_records_holds_nobody_back_and_has_no_credit_when_it_returns() {
        let throttle = limited(RateLimit::records_per_second(1000));
        for now in 0..5000 {
            let now = Timestamp::from_millis(now);
            if let Claim::Read(claimed) = throttle.claim(now, 7, 1024) {
                throttle.settle(7, claimed, 0, 0);
            }
            read(&throttle, now.millis(), 1, &[1]);
        }
        let tokens = throttle.tokens.lock();
        let served = tokens.asking.iter().find(|asking| asking.partition == 0).unwrap().served;
        drop(tokens);
        assert!(served >= 5000, "{served} of 5000");
        // From now on it has as many records as the other.
        let both = read(&throttle, 5000, 2000, &[1, 1, 1, 1, 1, 1, 1, 1]);
        assert!(both[0].abs_diff(both[7]) <= 100, "{both:?}");
    }

    #[test]
    fn bytes_are_limited_although_they_are_known_only_afterwards() {
        let throttle = limited(RateLimit::bytes_per_second(100_000));
        let bytes: u64 =
            read(&throttle, 0, 10_000, &[700, 90]).iter().zip([700, 90]).map(|(n, each)| n * each).sum();
        assert!((980_000..=1_100_000).contains(&bytes), "{bytes}");
        // One record may be more than a burst.
        let throttle = limited(RateLimit::bytes_per_second(1000));
        let records = read(&throttle, 0, 100_000, &[5000])[0];
        assert!((19..=22).contains(&records), "{records} of 5000 bytes each in 100 s");
    }

    #[test]
    fn of_two_limits_the_one_holds_that_is_reached_first() {
        let both = RateLimit::records_per_second(1000).and(RateLimit::bytes_per_second(10_000));
        assert!(read(&limited(both), 0, 10_000, &[1])[0] <= 10_100);
        let read = read(&limited(both), 0, 10_000, &[100])[0];
        assert!((980..=1_050).contains(&read), "{read}");
    }

    #[test]
    fn a_limit_changes_and_a_source_pauses_while_it_is_read() {
        let throttle = limited(RateLimit::records_per_second(100));
        assert!(read(&throttle, 0, 1000, &[1])[0] <= 110);
        throttle.set_limit(Some(RateLimit::records_per_second(10_000)));
        assert!(read(&throttle, 1000, 1000, &[1])[0] >= 10_000);
        throttle.pause();
        assert_eq!(read(&throttle, 2000, 1000, &[1]), [0]);
        throttle.resume();
        assert!((10_000..=11_000).contains(&read(&throttle, 3000, 1000, &[1])[0]));
        throttle.set_limit(None);
        assert_eq!(read(&throttle, 4000, 10, &[1]), [10 * 1024]);
    }

    #[test]
    fn who_has_to_wait_is_told_until_when_and_time_that_stands_still_gives_nothing() {
        let throttle = limited(RateLimit::records_per_second(4));
        let at = Timestamp::from_millis;
        assert_eq!(throttle.claim(at(0), 0, 1024), Claim::Read(1));
        throttle.settle(0, 1, 1, 0);
        assert_eq!(throttle.claim(at(0), 0, 1024), Claim::Wait(at(250)));
        assert_eq!(throttle.claim(at(100), 0, 1024), Claim::Wait(at(250)));
        assert_eq!(throttle.claim(at(90), 0, 1024), Claim::Wait(at(240)));
        assert_eq!(throttle.claim(at(250), 0, 1024), Claim::Read(1));
    }
}
