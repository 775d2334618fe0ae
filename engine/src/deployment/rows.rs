//! What a version has written, by key: for comparing two versions, and for leading readers of upserts from one to the other.
//!
//! 1. A [`View`] reads a topic up to given offsets, and can be led on later: most is read while both versions run, and only the rest while they
//!    are held at the cut.
//! 2. It keeps a hash of each key's rows, not the rows. Of upserts it is that of the newest row; of rows that are only added the sum over all
//!    rows of the key, so that their order does not matter. Two different sets of rows are taken for the same once in 2^64.
//! 3. A row without a key is its own key: then a row is in both, or only in one.
//!
//! Costs reading both topics, and some 100 bytes of memory a key.

use rivermark_log::{Isolation, Log, Position, RecordBatch, TopicOptions};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Bytes of a correction that are appended at once.
const BATCH_BYTES: usize = 256 << 10;

/// Where a row is in a topic.
type RowPlace = (u32, u64);

/// A key's rows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Seen {
    rows: u64,
    digest: u64,
    /// The newest one.
    last: RowPlace,
}

impl Seen {
    fn is_same(&self, other: &Seen) -> bool {
        (self.rows, self.digest) == (other.rows, other.digest)
    }
}

/// What a topic holds; see the module's page.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// How far it has been read, by partition.
    at: Vec<u64>,
    keys: HashMap<Vec<u8>, Seen>,
    rows: u64,
}

impl View {
    /// Reads on up to `until`.
    pub(crate) fn read(
        &mut self,
        log: &Log,
        topic: &str,
        until: &[u64],
        upserts: bool,
    ) -> Result<(), String> {
        let topic = log.topic(topic).map_err(|e| e.to_string())?;
        self.at.resize(until.len(), 0);
        for (partition, until) in until.iter().enumerate() {
            let number = partition as u32;
            let start = match self.at[partition] {
                0 => Position::Earliest,
                offset => Position::Offset(offset),
            };
            let reader = topic.reader(number, start, Isolation::ReadCommitted);
            let mut reader = reader.map_err(|e| e.to_string())?;
            while reader.position() < *until {
                let Some(batch) = reader.next_batch().map_err(|e| e.to_string())? else { break };
                for row in batch.take_while(|row| row.offset < *until) {
                    self.add(row.key, row.value, (number, row.offset), upserts);
                }
            }
            self.at[partition] = *until;
        }
        Ok(())
    }

    fn add(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, place: RowPlace, upserts: bool) {
        self.rows += 1;
        let digest = hash(value);
        let known = key.or(value).unwrap_or_default();
        match (upserts, value, self.keys.get_mut(known)) {
            (true, None, _) => drop(self.keys.remove(known)),
            (true, Some(_), Some(seen)) => *seen = Seen { rows: 1, digest, last: place },
            (false, _, Some(seen)) => {
                let (rows, digest) = (seen.rows + 1, seen.digest.wrapping_add(digest));
                *seen = Seen { rows, digest, last: place };
            }
            (_, _, None) => drop(self.keys.insert(known.to_vec(), Seen { rows: 1, digest, last: place })),
        }
    }

    /// How many rows it has read.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }
}

fn hash(value: Option<&[u8]>) -> u64 {
    // Of one process only: never stored.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A key whose rows are not the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Differing {
    pub(crate) key: Vec<u8>,
    /// Its newest row in the old version.
    pub(crate) old: Option<RowPlace>,
    /// And in the new one.
    pub(crate) new: Option<RowPlace>,
}

/// The keys in which the two differ, in order, and how many are the same.
pub(crate) fn differences(old: &View, new: &View) -> (Vec<Differing>, u64) {
    let mut differing = Vec::new();
    let mut same = 0;
    for (key, there) in &old.keys {
        match new.keys.get(key) {
            Some(here) if here.is_same(there) => same += 1,
            here => differing.push(Differing {
                key: key.clone(),
                old: Some(there.last),
                new: here.map(|here| here.last),
            }),
        }
    }
    for (key, here) in new.keys.iter().filter(|(key, _)| !old.keys.contains_key(*key)) {
        differing.push(Differing { key: key.clone(), old: None, new: Some(here.last) });
    }
    differing.sort_by(|a, b| a.key.cmp(&b.key));
    (differing, same)
}

/// A row as it lies in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) timestamp: i64,
}

/// Reads rows of a topic, in order of place.
pub(crate) fn fetch(
    log: &Log,
    topic: &str,
    mut places: Vec<RowPlace>,
) -> Result<BTreeMap<RowPlace, Row>, String> {
    let failed = |e: rivermark_log::Error| e.to_string();
    let topic = log.topic(topic).map_err(failed)?;
    places.sort_unstable();
    let mut found = BTreeMap::new();
    let mut reader: Option<(u32, rivermark_log::Reader)> = None;
    for (partition, offset) in places {
        if found.contains_key(&(partition, offset)) {
            continue;
        }
        let of_partition = reader.take().filter(|(of, _)| *of == partition);
        let (_, mut at) = match of_partition {
            Some(reader) => reader,
            None => {
                let start = Position::Offset(offset);
                (partition, topic.reader(partition, start, Isolation::ReadCommitted).map_err(failed)?)
            }
        };
        at.seek(Position::Offset(offset)).map_err(failed)?;
        if let Some(row) = at.next_batch().map_err(failed)?.and_then(|mut batch| batch.next())
            && row.offset == offset
        {
            let row = Row { value: row.value.map(<[u8]>::to_vec), timestamp: row.timestamp };
            found.insert((partition, offset), row);
        }
        reader = Some((partition, at));
    }
    Ok(found)
}

/// Writes the rows that make the table `old` the table `new` to a topic of their own, and answers how many it has, by partition. The topic is
/// durable when this returns.
pub(crate) fn write_correction(
    log: &Log,
    correction: &str,
    topics: (&str, &str),
    old: &View,
    new: &View,
) -> Result<Vec<u64>, String> {
    let failed = |e: rivermark_log::Error| e.to_string();
    let (differing, _) = differences(old, new);
    let (old_topic, new_topic) = topics;
    let partitions = log.topic(new_topic).map_err(failed)?.partitions();
    let topic = log.ensure_topic(correction, TopicOptions::new(partitions)).map_err(failed)?;
    let replaced = fetch(log, old_topic, differing.iter().filter_map(|key| key.old).collect())?;
    let values = fetch(log, new_topic, differing.iter().filter_map(|key| key.new).collect())?;
    let mut batches: Vec<RecordBatch> = (0..partitions).map(|_| RecordBatch::new()).collect();
    for Differing { key, old, new } in &differing {
        // No older than what it replaces, for tables that go by time.
        let time = old.and_then(|place| replaced.get(&place)).map_or(i64::MIN, |row| row.timestamp);
        let (partition, row) = match new {
            Some(place) => {
                let row = values.get(place).ok_or("a row that was there a moment ago is gone")?;
                (place.0, row.clone())
            }
            None => {
                let place = old.ok_or("a key that differs is in neither version")?;
                (place.0, Row { value: None, timestamp: time })
            }
        };
        let batch = batches.get_mut(partition as usize).ok_or("a row is in a partition that is not there")?;
        batch.push(Some(key), row.value.as_deref(), row.timestamp.max(time));
        if batch.bytes() >= BATCH_BYTES {
            topic.append(partition, batch).map_err(failed)?;
        }
    }
    for (partition, batch) in batches.iter_mut().enumerate().filter(|(_, batch)| !batch.is_empty()) {
        topic.append(partition as u32, batch).map_err(failed)?;
    }
    topic.sync().map_err(failed)?;
    super::switch::ends_of(log, correction)
}
