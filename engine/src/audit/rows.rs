//! Whether a topic holds what a replay has computed, in memory that is bounded.
//!
//! What was published is a topic of the log, from where the audited range begins. What the replay has computed is a topic of a log of its own.
//! Of both the beginning is *sure*: the cut implies it. What lies behind it *may* belong to the cut: rows that were published since, or that only
//! a silence has let out. Rows of one key have an order; rows of several keys come from several workers, and have none. So, for each partition and
//! key: the sure rows of either side are the first rows of the other side, in order, each with the same value and timestamp.
//!
//! 1. A row without a key, and any row where order does not matter, is its own key: then the two hold the same rows, each as often.
//! 2. Of a key a fixed number of bytes is kept: how many of its rows are sure, how many of them each side has, and the digest of both. So there
//!    are three passes: the sure part of what was published, counting; what was computed; what was published.
//! 3. Where there are more keys than memory is allowed, the keys whose hashes are in the upper half are left for another turn, again and again.
//!    Each turn reads everything once more.
//! 4. Rows and keys are known by 128 bits of their SHA-256.
//! 5. If a key differs, its rows are read again, and the first place at which they do is where the difference is ([`super::difference`]).

use rivermark_log::{Isolation, Log, Position, RecordView};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Bytes of memory that are counted for a key.
const KEY_BYTES: usize = 128;

/// A row or a key, by its bytes.
pub(crate) type Hash = u128;

/// The rows of one side.
pub(crate) struct Rows<'a> {
    pub(crate) log: &'a Log,
    pub(crate) topic: &'a str,
    /// Of each partition: where it begins, where what is sure ends, and where what may be ends.
    pub(crate) parts: Vec<Part>,
}

/// A stretch of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) from: u64,
    pub(crate) sure: u64,
    pub(crate) until: u64,
}

/// A row that is read.
pub(crate) struct Row<'a> {
    pub(crate) partition: u32,
    pub(crate) view: RecordView<'a>,
    pub(crate) is_sure: bool,
    pub(crate) hash: Hash,
}

impl Rows<'_> {
    /// Reads all rows, or only those that are sure, in order of partition and offset.
    pub(crate) fn read(
        &self,
        only_sure: bool,
        mut take: impl FnMut(&Row<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let failed = |e: rivermark_log::Error| e.to_string();
        let topic = self.log.topic(self.topic).map_err(failed)?;
        for (partition, part) in (0..).zip(&self.parts) {
            let until = if only_sure { part.sure } else { part.until };
            if part.from >= until {
                continue;
            }
            let start = Position::Offset(part.from);
            let mut reader = topic.reader(partition, start, Isolation::ReadCommitted).map_err(failed)?;
            while reader.position() < until {
                let Some(batch) = reader.next_batch().map_err(failed)? else { break };
                for view in batch.take_while(|row| row.offset < until) {
                    let (is_sure, hash) = (view.offset < part.sure, hash_of(partition, &view));
                    take(&Row { partition, view, is_sure, hash })?;
                }
            }
        }
        Ok(())
    }
}

fn first_16(digest: Sha256) -> Hash {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    Hash::from_be_bytes(bytes)
}

fn add(digest: &mut Sha256, bytes: Option<&[u8]>) {
    // Lengths, so that no two rows are the same bytes.
    digest.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_be_bytes());
    digest.update(bytes.unwrap_or_default());
}

/// All that a row is, but for its offset.
pub(crate) fn hash_of(partition: u32, row: &RecordView<'_>) -> Hash {
    let mut digest = Sha256::new();
    digest.update(partition.to_be_bytes());
    digest.update(row.timestamp.to_be_bytes());
    add(&mut digest, row.key);
    add(&mut digest, row.value);
    first_16(digest)
}

/// What a row is compared under.
pub(crate) fn key_of(row: &Row<'_>, any_order: bool) -> Hash {
    let Some(key) = row.view.key.filter(|_| !any_order) else { return row.hash };
    let mut digest = Sha256::new();
    digest.update(row.partition.to_be_bytes());
    digest.update(key);
    first_16(digest)
}

/// Appends a row to the digest of those before it.
fn chain(before: Hash, row: Hash) -> Hash {
    let mut digest = Sha256::new();
    digest.update(before.to_be_bytes());
    digest.update(row.to_be_bytes());
    first_16(digest)
}

/// How the rows of a key begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beginning {
    rows: u64,
    digest: Hash,
}

impl Beginning {
    fn take(&mut self, row: Hash) {
        self.rows += 1;
        self.digest = chain(self.digest, row);
    }
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// How many rows of it are sure, on the side that has more of them.
    sure: u64,
    published: Beginning,
    computed: Beginning,
    /// Where its first row is, among those that were published, or if none was, among those that were computed.
    first: Option<(u32, u64)>,
}

impl Seen {
    fn is_same(&self) -> bool {
        self.published.rows == self.sure && self.published == self.computed
    }
}

/// The keys whose hashes begin with certain bits.
#[derive(Clone, Copy, Debug)]
struct Slice {
    prefix: Hash,
    bits: u32,
}

impl Slice {
    const ALL: Slice = Slice { prefix: 0, bits: 0 };

    fn holds(&self, key: Hash) -> bool {
        self.bits == 0 || key >> (Hash::BITS - self.bits) == self.prefix
    }

    fn halves(&self) -> (Slice, Slice) {
        let half = |last| Slice { prefix: self.prefix << 1 | last, bits: self.bits + 1 };
        (half(0), half(1))
    }
}

/// What two topics came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Sure rows that were published, by partition.
    pub(crate) published: Vec<u64>,
    /// The sum of their hashes, by partition.
    pub(crate) digests: Vec<Hash>,
    /// Sure rows that were computed.
    pub(crate) computed: u64,
    /// Keys that are the same.
    pub(crate) same: u64,
    /// Keys that differ.
    pub(crate) different: u64,
    /// Those of them that begin first, if there are many.
    pub(crate) some: Vec<Hash>,
    /// How often everything was read.
    pub(crate) turns: u64,
}

/// Keys that differ of which the rows are read again.
const LOOKED_INTO: usize = 256;

/// Compares two topics; see the module's page. `go_on` is asked with every row.
pub(crate) fn compare(
    published: &Rows<'_>,
    computed: &Rows<'_>,
    any_order: bool,
    memory: usize,
    go_on: &mut dyn FnMut() -> Result<(), String>,
) -> Result<Compared, String> {
    let most = (memory / KEY_BYTES).max(2);
    let partitions = published.parts.len();
    let mut all =
        Compared { published: vec![0; partitions], digests: vec![0; partitions], ..Compared::default() };
    let mut different = Vec::new();
    let mut left = vec![Slice::ALL];
    while let Some(slice) = left.pop() {
        let mut turn = Turn { slice, keys: HashMap::new(), most, left: &mut left };
        published.read(true, |row| {
            go_on()?;
            if all.turns == 0 {
                let at = row.partition as usize;
                all.published[at] += 1;
                all.digests[at] = all.digests[at].wrapping_add(row.hash);
            }
            turn.change(key_of(row, any_order), |seen| {
                seen.sure += 1;
                seen.first.get_or_insert((row.partition, row.view.offset));
            });
            Ok(())
        })?;
        computed.read(false, |row| {
            go_on()?;
            all.computed += u64::from(all.turns == 0 && row.is_sure);
            let key = key_of(row, any_order);
            // What only may be, of a key that nothing sure is known of, is of no account.
            if row.is_sure || turn.keys.contains_key(&key) {
                turn.change(key, |seen| {
                    if row.is_sure || seen.computed.rows < seen.sure {
                        seen.computed.take(row.hash);
                        seen.sure = seen.sure.max(seen.computed.rows);
                        seen.first.get_or_insert((row.partition, row.view.offset));
                    }
                });
            }
            Ok(())
        })?;
        published.read(false, |row| {
            go_on()?;
            if let Some(seen) = turn.keys.get_mut(&key_of(row, any_order))
                && seen.published.rows < seen.sure
            {
                seen.published.take(row.hash);
            }
            Ok(())
        })?;
        for (key, seen) in turn.keys {
            match seen.is_same() {
                true => all.same += 1,
                false => different.push((seen.first, key)),
            }
        }
        all.turns += 1;
        all.different += different.len().saturating_sub(all.some.len()) as u64;
        different.sort_unstable();
        different.truncate(LOOKED_INTO);
        all.some = different.iter().map(|(_, key)| *key).collect();
    }
    Ok(all)
}

/// One turn over the keys of a slice.
struct Turn<'a> {
    slice: Slice,
    keys: HashMap<Hash, Seen>,
    most: usize,
    left: &'a mut Vec<Slice>,
}

impl Turn<'_> {
    fn change(&mut self, key: Hash, change: impl FnOnce(&mut Seen)) {
        while self.slice.holds(key) && self.keys.len() >= self.most && !self.keys.contains_key(&key) {
            let (lower, upper) = self.slice.halves();
            self.left.push(upper);
            self.slice = lower;
            self.keys.retain(|key, _| lower.holds(*key));
        }
        if self.slice.holds(key) {
            change(self.keys.entry(key).or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rivermark_log::{LogOptions, MemoryDisk, RecordBatch, TopicOptions};

    type Given = (Option<&'static str>, &'static str);

    fn log(rows: &[Given]) -> Log {
        let log = Log::open("log", LogOptions::new().disk(MemoryDisk::new())).unwrap();
        let topic = log.create_topic("rows", TopicOptions::new(1)).unwrap();
        for (key, value) in rows {
            let mut batch = RecordBatch::new();
            batch.push(key.map(str::as_bytes), Some(value.as_bytes()), 7);
            topic.append(0, &mut batch).unwrap();
        }
        log
    }

    fn rows(log: &Log, sure: u64, until: u64) -> Rows<'_> {
        Rows { log, topic: "rows", parts: vec![Part { from: 0, sure, until }] }
    }

    /// How many keys differ of `published`, sure up to `sure`, and `computed`.
    fn differ(published: &[Given], sure: u64, computed: &[Given]) -> u64 {
        let (there, here) = (log(published), log(computed));
        let all = computed.len() as u64;
        let compare = |memory| {
            let published = rows(&there, sure, published.len() as u64);
            compare(&published, &rows(&here, all, all), false, memory, &mut || Ok(())).unwrap()
        };
        let (wide, narrow) = (compare(1 << 20), compare(0));
        assert_eq!(
            (wide.same, wide.different, &wide.published),
            (narrow.same, narrow.different, &narrow.published),
            "in turns"
        );
        wide.different
    }

    const A1: Given = (Some("a"), "1");
    const A2: Given = (Some("a"), "2");
    const B1: Given = (Some("b"), "1");
    const C1: Given = (Some("c"), "1");
    const N1: Given = (None, "1");
    const N2: Given = (None, "2");

    #[test]
    fn the_order_of_a_key_counts_and_that_of_several_does_not() {
        assert_eq!(differ(&[A1, B1, A2, C1], 4, &[C1, A1, A2, B1]), 0);
        assert_eq!(differ(&[A1, B1, A2, C1], 4, &[C1, A2, A1, B1]), 1);
        assert_eq!(differ(&[N1, N2, N1], 3, &[N2, N1, N1]), 0);
    }

    #[test]
    fn a_row_that_is_missing_or_too_many_or_changed_is_found() {
        assert_eq!(differ(&[A1, B1], 2, &[A1, B1, C1]), 1);
        assert_eq!(differ(&[A1, B1, C1], 3, &[A1, B1]), 1);
        assert_eq!(differ(&[A1, A1], 2, &[A1]), 1);
        assert_eq!(differ(&[N1, N1], 2, &[N1]), 1);
        assert_eq!(differ(&[A2], 1, &[A1]), 1);
        assert_eq!(differ(&[N2], 1, &[N1]), 2, "the one and the other");
    }

    #[test]
    fn rows_behind_what_is_sure_may_be_there_and_must_be_if_they_were_computed() {
        assert_eq!(differ(&[A1, A2, B1, N1], 1, &[A1]), 0);
        assert_eq!(differ(&[A1, A2, B1, N1], 1, &[A1, A2, N1]), 0);
        assert_eq!(differ(&[A1, B1], 1, &[A1, A2]), 1, "computed, and never published");
    }
}
