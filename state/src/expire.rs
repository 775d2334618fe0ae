//! State that expires by itself: entries with a time to live (TTL).
//!
//! 1. A handle says how long its entries live and what renews them ([`Value::expiring`](crate::Value::expiring), [`Ttl`]). An entry is
//!    stored with the *deadline* that this makes, a [`Timed`].
//! 2. An entry is there for an access at time `t` if and only if `t` is below its deadline. Nothing else decides: not the moment, not the
//!    watermark of an operator, not whether the entry has been cleaned up.
//! 3. The owner of a store says how far time has come ([`KeyedStore::expire_until`](crate::KeyedStore::expire_until)): a *horizon* that no
//!    later access lies below. What has a deadline at or below it can never be seen again, so whether and when it is removed is a matter
//!    of space alone: nothing about it has to survive a restart.
//! 4. It is removed where somebody comes across it; in memory, by a hand that goes over a few entries a batch, in turns an eighth of the
//!    time to live apart; in RocksDB by a compaction filter; in the memory backend at its checkpoint.
//! 5. An entry that the last snapshot and the backend hold as it is goes without a trace: what they bring back is as expired as it was. Else
//!    an older version of it may have a later deadline, so that its removal is recorded.
//!
//! The shape is Flink's `StateTtlConfig` with `OnCreateAndWrite` or `OnReadAndWrite`, `NeverReturnExpired`, incremental clean-up and the
//! RocksDB filter; there, time is the clock's, and a replay sees other state than the first run.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::codec::{self, StateValue};
use crate::handle::{List, Map, Reducing, Value};

/// How long an entry of a state lives, and from when on that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    millis: i64,
    renewed_by_reading: bool,
}

impl Ttl {
    /// An entry lives for `span` from when it was last written.
    ///
    /// # Panics
    /// If `span` is below a millisecond or above a hundred thousand years: in a constant, the program does not compile.
    pub const fn after_write(span: Duration) -> Self {
        let millis = span.as_millis();
        assert!(millis > 0, "a time to live is at least a millisecond");
        assert!(millis < 1 << 52, "a time to live is less than a hundred thousand years");
        Self { millis: millis as i64, renewed_by_reading: false }
    }

    /// An entry lives for `span` from when it was last read or written. Reading then changes state: it costs what writing costs, at the
    /// next checkpoint too.
    ///
    /// # Panics
    /// As [`Ttl::after_write`].
    pub const fn after_access(span: Duration) -> Self {
        Self { renewed_by_reading: true, ..Self::after_write(span) }
    }

    /// How long an entry lives.
    pub const fn span(&self) -> Duration {
        Duration::from_millis(self.millis as u64)
    }

    /// Whether reading renews an entry, too.
    pub const fn is_renewed_by_reading(&self) -> bool {
        self.renewed_by_reading
    }

    /// The deadline of what is written at `at`.
    pub(crate) const fn deadline(&self, at: i64) -> i64 {
        at.saturating_add(self.millis)
    }

    pub(crate) const fn millis(&self) -> i64 {
        self.millis
    }
}

/// A value and when it expires: what a state with a [`Ttl`] holds.
///
/// A state that gets a time to live is a state of another type, and so of another [version](crate::Value::version):
/// `Migrations::new().from(1, Timed::<Order>::without_deadline)` leads there. What was stored without a deadline gets one when it is next used. The
/// way back is [`Timed::into_value`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<T> {
    deadline: i64,
    value: T,
}

/// The deadline of what never had one.
const NONE: i64 = i64::MAX;

// By hand, so that the deadline surely comes first: compaction reads it without knowing `T`.
impl<T: Serialize> Serialize for Timed<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.deadline, &self.value).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Timed<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (deadline, value) = <(i64, T)>::deserialize(deserializer)?;
        Ok(Self { deadline, value })
    }
}

impl<T> Timed<T> {
    /// The value, which has no deadline until it is used.
    pub fn without_deadline(value: T) -> Self {
        Self { deadline: NONE, value }
    }

    /// The value, which is there for accesses below `deadline`, in milliseconds of the stream's time.
    pub fn until(deadline: i64, value: T) -> Self {
        Self { deadline, value }
    }

    /// When it expires, in milliseconds of the stream's time; `None` for what was stored without a time to live and not used since.
    pub fn deadline(&self) -> Option<i64> {
        (self.deadline != NONE).then_some(self.deadline)
    }

    /// The value, whether or not it has expired.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The value, whether or not it has expired.
    pub fn into_value(self) -> T {
        self.value
    }

    /// For changing the value in place.
    pub fn value_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// Whether an access at `at` finds it.
    #[inline]
    pub fn is_live(&self, at: i64) -> bool {
        at < self.deadline
    }

    /// Lets it live at least until what an access at `at` gives it. Answers whether that is longer, or the first deadline it has.
    pub fn renew(&mut self, ttl: Ttl, at: i64) -> bool {
        let deadline = ttl.deadline(at);
        let renews = self.deadline == NONE || deadline > self.deadline;
        if renews {
            self.deadline = deadline;
        }
        renews
    }

    /// Whether an access at `at` that only reads has to [`renew`](Self::renew) it.
    pub fn needs_renewal(&self, ttl: Ttl, at: i64) -> bool {
        self.deadline == NONE || (ttl.is_renewed_by_reading() && ttl.deadline(at) > self.deadline)
    }

    pub(crate) fn raw_deadline(&self) -> i64 {
        self.deadline
    }
}

/// A state's handle with a time to live: see [`Value::expiring`](crate::Value::expiring).
pub struct Expiring<H> {
    handle: H,
    ttl: Ttl,
}

impl<H: Copy> Expiring<H> {
    /// The handle without the time to live.
    pub const fn handle(&self) -> H {
        self.handle
    }

    /// The time to live.
    pub const fn ttl(&self) -> Ttl {
        self.ttl
    }
}

impl<H: Copy> Clone for Expiring<H> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<H: Copy> Copy for Expiring<H> {}

impl<H: fmt::Debug> fmt::Debug for Expiring<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} expiring {:?}", self.handle, self.ttl)
    }
}

macro_rules! expiring {
    ($(#[$doc:meta])* $name:ident<$($type:ident),+>) => {
        impl<$($type),+> $name<$($type),+> {
            $(#[$doc])*
            pub const fn expiring(self, ttl: Ttl) -> Expiring<Self> {
                Expiring { handle: self, ttl }
            }
        }
    };
}

expiring!(
    /// The same state with a time to live: a value is gone when that long has passed since it was written (or read, if [`Ttl`] says so).
    ///
    /// ```
    /// use std::time::Duration;
    /// use rivermark_state::{Expiring, Ttl, Value};
    /// const SEEN: Expiring<Value<u64>> = Value::new("seen").expiring(Ttl::after_write(Duration::from_secs(3600)));
    /// ```
    Value<T>
);
expiring!(
    /// The same state with a time to live, which each value that is merged in renews.
    Reducing<T>
);
expiring!(
    /// The same state with a time to live for each element.
    List<T>
);
expiring!(
    /// The same state with a time to live for each entry.
    Map<K, V>
);

/// When a stored row may be removed: the greatest deadline of what is in it; `None` if that cannot be told.
pub type DeadlineOf = fn(&[u8]) -> Option<i64>;

/// Which rows of a backend have expired. Shared by a store, which says so, and its backend, which may remove them whenever it suits it.
pub struct Expiry {
    horizon: AtomicI64,
    tables: Mutex<Vec<(u16, DeadlineOf)>>,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { horizon: AtomicI64::new(i64::MIN), tables: Mutex::default() }
    }
}

impl Expiry {
    pub(crate) fn add(&self, table: u16, deadline_of: DeadlineOf) {
        self.tables.lock().push((table, deadline_of));
    }

    /// How far time has come.
    pub(crate) fn horizon(&self) -> i64 {
        self.horizon.load(Ordering::Relaxed)
    }

    /// Time has come as far as `horizon`.
    pub(crate) fn advance(&self, horizon: i64) {
        self.horizon.fetch_max(horizon, Ordering::Relaxed);
    }

    /// What has expired by now.
    pub fn now(&self) -> Expired {
        Expired { horizon: self.horizon(), tables: self.tables.lock().clone() }
    }
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiry").field("horizon", &self.horizon).finish_non_exhaustive()
    }
}

/// Which rows of a backend had expired at one moment.
pub struct Expired {
    horizon: i64,
    tables: Vec<(u16, DeadlineOf)>,
}

impl Expired {
    /// Whether there are tables with a time to live at all.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() || self.horizon == i64::MIN
    }

    /// Whether the row `key`, as the backend has it, holds nothing that anybody can see.
    pub fn includes(&self, key: &[u8], value: &[u8]) -> bool {
        let Some(id) = key.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)) else { return false };
        let of_table = self.tables.iter().find(|(table, _)| *table == id);
        of_table
            .and_then(|(_, deadline_of)| deadline_of(value))
            .is_some_and(|deadline| deadline <= self.horizon)
    }
}

/// The deadline of a row that is one [`Timed`].
pub(crate) fn of_value(value: &[u8]) -> Option<i64> {
    value.first_chunk().map(|deadline| i64::from_le_bytes(*deadline))
}

/// The greatest deadline of a row that is a chunk of a list.
pub(crate) fn of_chunk<T: StateValue>(mut chunk: &[u8]) -> Option<i64> {
    let mut greatest = i64::MIN;
    while !chunk.is_empty() {
        let (item, used) = codec::decode_prefix::<Timed<T>>(chunk).ok()?;
        greatest = greatest.max(item.deadline);
        chunk = &chunk[used..];
    }
    Some(greatest)
}

/// A hand that goes over a table's entries and removes those that have expired.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Which of the store's tables.
    pub table: usize,
    ttl: i64,
    /// The horizon of this turn, or of the last one.
    pub horizon: i64,
    pub is_on: bool,
}

impl Turn {
    pub fn new(table: usize, ttl: Ttl) -> Self {
        Self { table, ttl: ttl.millis(), horizon: i64::MIN, is_on: false }
    }

    /// Begins a turn if the last one is an eighth of the time to live ago.
    pub fn begin(&mut self, horizon: i64) {
        if !self.is_on && horizon.saturating_sub(self.horizon) >= (self.ttl / 8).max(1) {
            (self.horizon, self.is_on) = (horizon, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Ttl = Ttl::after_write(Duration::from_secs(3600));

    #[test]
    fn the_deadline_of_a_row_is_read_without_its_type() {
        let mut row = Vec::new();
        codec::encode_into(&Timed::until(77, ("ab".to_owned(), 5_u32)), &mut row).unwrap();
        assert_eq!(of_value(&row), Some(77));
        assert_eq!(of_value(&row[..7]), None);
    }

    #[test]
    fn a_chunk_expires_with_its_last_element() {
        let mut chunk = Vec::new();
        for deadline in [5, 9, 7] {
            codec::encode_into(&Timed::until(deadline, "x".to_owned()), &mut chunk).unwrap();
        }
        assert_eq!(of_chunk::<String>(&chunk), Some(9));
        assert_eq!(of_chunk::<String>(&chunk[..chunk.len() - 1]), None, "a torn chunk is kept");
    }

    #[test]
    fn a_row_is_expired_at_its_deadline_and_only_in_a_table_with_a_time_to_live() {
        let expiry = Expiry::default();
        let row = 10_i64.to_le_bytes();
        expiry.advance(10);
        assert!(expiry.now().is_empty());
        expiry.add(3, of_value);
        assert!(expiry.now().includes(&[0, 3, 9], &row));
        assert!(!expiry.now().includes(&[0, 2, 9], &row));
        assert!(!expiry.now().includes(&[0, 3, 9], &11_i64.to_le_bytes()));
        expiry.advance(4);
        assert_eq!(expiry.horizon(), 10, "time does not go back");
    }

    #[test]
    fn a_turn_begins_an_eighth_of_the_time_to_live_after_the_last() {
        let mut turn = Turn::new(0, HOUR);
        turn.begin(1_000);
        assert!(turn.is_on);
        turn.is_on = false;
        turn.begin(1_000 + 3_600_000 / 8 - 1);
        assert!(!turn.is_on);
        turn.begin(1_000 + 3_600_000 / 8);
        assert!(turn.is_on);
    }

    #[test]
    fn what_had_no_deadline_gets_one_when_it_is_used() {
        let mut old = Timed::without_deadline(5_u8);
        assert!(old.is_live(i64::MAX - 1));
        assert_eq!(old.deadline(), None);
        assert!(old.needs_renewal(HOUR, 0));
        assert!(old.renew(HOUR, 0));
        assert_eq!(old.deadline(), Some(3_600_000));
        assert!(!old.renew(HOUR, -5), "an older access does not shorten a life");
    }
}
