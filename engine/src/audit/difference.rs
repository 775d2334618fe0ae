//! Where two topics differ first.
//!
//! 1. The rows of the keys that differ are read again, a stretch of each key at a time, as much as memory allows.
//! 2. A key differs at the first of its places where one side has a sure row and the other none or another one. The row after it says how.
//! 3. Of all these places the first is the one with the lowest partition and offset in what was published. (Of very many keys that differ only
//!    those are looked into that begin first.)
//! 4. A row without a key that was changed is one that was published and not computed, and one that was computed and not published: such a pair
//!    with the same timestamp is told as one.

use super::rows::{Hash, Rows, key_of};
use rivermark_log::{Isolation, Log, Position, RecordView};
use serde::Serialize;
use std::collections::HashMap;

/// Bytes of memory that are counted for a row.
const ROW_BYTES: usize = 64;

/// The first place where what was published is not what the replay has computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset of the row that was published; of a row that is missing, that of the next one with its key. `None` if there is none.
    pub offset: Option<u64>,
    /// What is wrong.
    pub kind: DifferenceKind,
    /// What was published there.
    pub published: Option<RowText>,
    /// What the replay has computed.
    pub computed: Option<RowText>,
}

/// How what was published is not what the replay has computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DifferenceKind {
    /// There is another row.
    Changed,
    /// A row was computed and not published.
    Missing,
    /// A row was published and not computed, or published more often than it was computed.
    Extra,
    /// A row comes before another one of its key, and was computed after it.
    Moved,
}

/// A row, for people: bytes that are no text have marks in their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RowText {
    /// Its timestamp, in milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value; `None` for a tombstone.
    pub value: Option<String>,
}

/// A row's place and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    hash: Hash,
    partition: u32,
    offset: u64,
    timestamp: i64,
    has_key: bool,
    is_sure: bool,
}

/// A place where a key differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    kind: DifferenceKind,
    published: Option<Known>,
    computed: Option<Known>,
}

impl Found {
    fn place(&self) -> (u32, u64) {
        let known = self.published.or(self.computed);
        // What is missing without a row behind it comes last.
        known.map_or((0, 0), |known| (known.partition, self.published.map_or(u64::MAX, |row| row.offset)))
    }

    /// The row of one side alone, if it is one without a key.
    fn alone(&self, kind: DifferenceKind) -> Option<Known> {
        let row = match kind {
            DifferenceKind::Extra => self.published,
            _ => self.computed,
        };
        row.filter(|row| self.kind == kind && !row.has_key)
    }
}

/// The rows of a key between two of its places.
#[derive(Default)]
struct Stretch {
    published: Vec<Known>,
    computed: Vec<Known>,
}

/// Finds the first difference among the keys that differ. `go_on` is asked with every row.
pub(super) fn first(
    published: &Rows<'_>,
    computed: &Rows<'_>,
    different: &[Hash],
    any_order: bool,
    memory: usize,
    go_on: &mut dyn FnMut() -> Result<(), String>,
) -> Result<Option<Difference>, String> {
    let mut left: HashMap<Hash, Stretch> = different.iter().map(|key| (*key, Stretch::default())).collect();
    let mut found = Vec::new();
    let mut from = 0;
    while !left.is_empty() {
        let length = (memory / ROW_BYTES / left.len()).max(16);
        // One more, to see what comes behind.
        let stretch = from..from + length + 1;
        read(published, any_order, &stretch, &mut left, |stretch| &mut stretch.published, go_on)?;
        read(computed, any_order, &stretch, &mut left, |stretch| &mut stretch.computed, go_on)?;
        left.retain(|_, stretch| {
            found.extend(difference(stretch));
            let goes_on = stretch.published.len() > length || stretch.computed.len() > length;
            let is_same = difference(stretch).is_none();
            *stretch = Stretch::default();
            is_same && goes_on
        });
        from += length;
    }
    let Some(first) = found.iter().min_by_key(|found| found.place()).copied() else { return Ok(None) };
    let first = paired(first, &found);
    let published_row = first.published.filter(|_| first.kind != DifferenceKind::Missing);
    let text = |rows: &Rows<'_>, row: Known| text(rows.log, rows.topic, row);
    Ok(Some(Difference {
        topic: published.topic.to_owned(),
        partition: first.place().0,
        offset: first.published.map(|row| row.offset),
        kind: first.kind,
        published: published_row.map(|row| text(published, row)).transpose()?,
        computed: first.computed.map(|row| text(computed, row)).transpose()?,
    }))
}

/// Reads the rows of keys that lie in a stretch of their places.
fn read(
    rows: &Rows<'_>,
    any_order: bool,
    stretch: &std::ops::Range<usize>,
    keys: &mut HashMap<Hash, Stretch>,
    side: fn(&mut Stretch) -> &mut Vec<Known>,
    go_on: &mut dyn FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let mut places: HashMap<Hash, usize> = HashMap::new();
    rows.read(false, |row| {
        go_on()?;
        let key = key_of(row, any_order);
        let Some(of_key) = keys.get_mut(&key) else { return Ok(()) };
        let place = places.entry(key).or_default();
        if stretch.contains(place) {
            side(of_key).push(Known {
                hash: row.hash,
                partition: row.partition,
                offset: row.view.offset,
                timestamp: row.view.timestamp,
                has_key: row.view.key.is_some(),
                is_sure: row.is_sure,
            });
        }
        *place += 1;
        Ok(())
    })
}

/// Where the two sides of a key differ first.
fn difference(rows: &Stretch) -> Option<Found> {
    let Stretch { published, computed } = rows;
    for at in 0..published.len().max(computed.len()) {
        let (there, here) = (published.get(at).copied(), computed.get(at).copied());
        let is_sure = there.is_some_and(|row| row.is_sure) || here.is_some_and(|row| row.is_sure);
        if !is_sure {
            return None;
        }
        let is =
            |row: Option<&Known>, other: Option<Known>| row.map(|row| row.hash) == other.map(|row| row.hash);
        if is(there.as_ref(), here) {
            continue;
        }
        let (next_there, next_here) = (published.get(at + 1), computed.get(at + 1));
        let kind = match (there, here) {
            (Some(_), None) => DifferenceKind::Extra,
            (None, _) => DifferenceKind::Missing,
            (Some(_), Some(_)) => match (is(next_there, here), is(next_here, there)) {
                (true, true) => DifferenceKind::Moved,
                (true, false) => DifferenceKind::Extra,
                (false, true) => DifferenceKind::Missing,
                (false, false) => DifferenceKind::Changed,
            },
        };
        let computed = here.filter(|_| kind != DifferenceKind::Extra);
        return Some(Found { kind, published: there, computed });
    }
    None
}

/// A row without a key that only one side has, with the one that the other side has in its place.
fn paired(first: Found, all: &[Found]) -> Found {
    let partner = |row: Known, kind| {
        let in_its_place =
            |other: &Known| (other.partition, other.timestamp) == (row.partition, row.timestamp);
        all.iter().find_map(|found| found.alone(kind).filter(in_its_place))
    };
    let extra = first.alone(DifferenceKind::Extra);
    match extra.and_then(|row| partner(row, DifferenceKind::Missing)) {
        Some(computed) => Found { kind: DifferenceKind::Changed, computed: Some(computed), ..first },
        None => first,
    }
}

impl RowText {
    pub(crate) fn of(view: &RecordView<'_>) -> RowText {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        RowText { timestamp: view.timestamp, key: view.key.map(text), value: view.value.map(text) }
    }
}

fn text(log: &Log, topic: &str, row: Known) -> Result<RowText, String> {
    let failed = |e: rivermark_log::Error| e.to_string();
    let topic = log.topic(topic).map_err(failed)?;
    let start = Position::Offset(row.offset);
    let mut reader = topic.reader(row.partition, start, Isolation::ReadCommitted).map_err(failed)?;
    let batch = reader.next_batch().map_err(failed)?;
    let view = batch.into_iter().flatten().next().ok_or("a row that was there a moment ago is gone")?;
    Ok(RowText::of(&view))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of one key: a letter each.
    fn known(letters: &str) -> Vec<Known> {
        let known = |(offset, letter): (usize, char)| Known {
            hash: letter as Hash,
            partition: 0,
            offset: offset as u64,
            timestamp: 0,
            has_key: true,
            is_sure: true,
        };
        letters.chars().enumerate().map(known).collect()
    }

    fn of(published: &str, computed: &str) -> Option<(DifferenceKind, Option<u64>)> {
        let found = difference(&Stretch { published: known(published), computed: known(computed) });
        found.map(|found| (found.kind, found.published.map(|row| row.offset)))
    }

    #[test]
    fn what_comes_behind_the_first_difference_says_what_it_is() {
        assert_eq!(of("abc", "abc"), None);
        assert_eq!(of("axc", "abc"), Some((DifferenceKind::Changed, Some(1))));
        assert_eq!(of("ac", "abc"), Some((DifferenceKind::Missing, Some(1))));
        assert_eq!(of("ab", "abc"), Some((DifferenceKind::Missing, None)));
        assert_eq!(of("abbc", "abc"), Some((DifferenceKind::Extra, Some(2))));
        assert_eq!(of("acb", "abc"), Some((DifferenceKind::Moved, Some(1))));
    }
}
