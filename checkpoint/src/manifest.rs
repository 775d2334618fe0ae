//! What a checkpoint is: the manifest that names everything needed to continue from an epoch.
//!
//! A manifest is built from the [`Parts`] with which the tasks acknowledged an epoch. It is written once, as JSON that
//! an editor opens and `jq .` reads, in the envelope of [`crate::history`], which adds the checksum and the version of
//! the format. Opaque bytes are hexadecimal.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::files::FileRef;
use crate::{Epoch, Generation, TaskId};

/// Everything needed to continue a flow from an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Manifest {
    /// The flow's name.
    pub flow: String,
    /// The version of the flow that is deployed.
    pub version: u64,
    /// The epoch this is a checkpoint of.
    pub epoch: Epoch,
    /// The generation that took it.
    pub generation: Generation,
    /// The stored epoch before it, on the line of history that this one continues.
    pub parent: Option<Epoch>,
    /// When the epoch began, in milliseconds since 1970 by the clock handed in.
    pub created_at_ms: i64,
    /// The number of key groups, fixed for the flow's life.
    pub key_groups: u16,
    /// The number of tasks that acknowledged it.
    pub workers: u32,
    /// Source uid -> partition -> where to continue reading, inclusive of what belongs to the partition.
    pub sources: BTreeMap<String, BTreeMap<String, PartitionState>>,
    /// Operator uid -> the state of its tasks, in order of task.
    pub operators: BTreeMap<String, Vec<TaskState>>,
    /// Sink uid -> the output that is prepared and must be committed, now that this is stored.
    pub sinks: BTreeMap<String, Vec<Prepared>>,
    /// Operator uid -> its watermark, in milliseconds of event time: the least over its tasks.
    pub watermarks: BTreeMap<String, i64>,
    /// Operator uid -> how far its event time had come when the stream ended, in milliseconds: the greatest over its tasks. Only of
    /// operators whose stream has ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ends: BTreeMap<String, i64>,
    /// Whether it is the last checkpoint of a run whose sources had all ended. Where they ended depended on the moment.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_end: bool,
    /// Where earlier such runs had ended, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stops: Vec<Stop>,
    /// The ends of another version's runs that this one has yet to repeat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stops_ahead: Vec<Stop>,
    /// Name -> count, summed over the tasks.
    pub counters: BTreeMap<String, u64>,
    /// Topic -> where each of its partitions ended once the output of this checkpoint was committed. Only savepoints know it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub output_ends: BTreeMap<String, Vec<u64>>,
}

/// Where the partitions of the sources were when they had all ended: source uid -> partition -> place.
pub type Stop = BTreeMap<String, BTreeMap<String, StopAt>>;

/// Where a partition had ended.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StopAt {
    /// Where to continue reading, as the source encodes it.
    pub position: Blob,
    /// The offset behind the last record; none where there was no record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Opaque bytes, written as hexadecimal.
#[derive(Default, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(pub Vec<u8>);

/// Where a partition of a source stands at an epoch.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionState {
    /// Where to continue reading, as the source encodes it.
    pub position: Blob,
    /// The offset behind the last record that was read; none where there was no record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_to: Option<u64>,
    /// Operator uid -> state that belongs to the partition and moves with it, such as a watermark generator's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub operators: BTreeMap<String, Blob>,
    /// Operator uid -> what it has written down about the partition's records.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub journals: BTreeMap<String, JournalState>,
}

/// What an operator has written down about the records of a partition: bytes that only grow at their end.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JournalState {
    /// The files that hold its beginning, in order.
    pub files: Vec<StateFile>,
    /// What follows them.
    pub tail: Blob,
}

/// The key groups `start..end` of a task.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroups {
    /// The first group.
    pub start: u16,
    /// The group after the last one.
    pub end: u16,
}

/// The state of one task of an operator at an epoch.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskState {
    /// Which task.
    pub task: TaskId,
    /// The key groups it owned.
    pub groups: KeyGroups,
    /// Its state files, in the order in which they are to be applied.
    pub files: Vec<StateFile>,
    /// What the operator keeps beside its files, as it encodes it.
    pub meta: Blob,
}

/// A state file as an operator knows it, and where the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateFile {
    /// The operator's name for it.
    pub name: String,
    /// Whether it is part of a base or a delta on it.
    pub role: FileRole,
    /// Its content in the store.
    #[serde(flatten)]
    pub content: FileRef,
}

/// What a state file is to its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// A part of the state as of some earlier barrier.
    Base,
    /// What changed since the file before it.
    Delta,
}

/// Output that a sink has prepared: durable, invisible, and waiting for its commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Prepared {
    /// The task that prepared it.
    pub task: TaskId,
    /// The epoch under which it was prepared: earlier than the manifest's if an epoch between failed.
    pub epoch: Epoch,
    /// What the sink needs to commit it, as it encodes it.
    pub token: Blob,
}

/// What a task acknowledges an epoch with.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct Parts {
    /// Positions of the source partitions that the task reads.
    pub sources: Vec<SourcePart>,
    /// State of the operators in the task.
    pub operators: Vec<OperatorPart>,
    /// Sink uid and token of the output prepared for this epoch; with it, what was prepared for an earlier epoch that
    /// was cancelled before the task acknowledged it.
    pub sinks: Vec<(String, Prepared)>,
    /// Operator uid and watermark, in milliseconds of event time.
    pub watermarks: Vec<(String, i64)>,
    /// Operator uid and how far its event time had come when its stream ended, in milliseconds.
    pub ends: Vec<(String, i64)>,
    /// Where earlier runs had ended, and the ends that have yet to be repeated; of one task.
    pub stops: Vec<Stop>,
    /// See [`Manifest::stops_ahead`].
    pub stops_ahead: Vec<Stop>,
    /// Name and count.
    pub counters: Vec<(String, u64)>,
}

/// The position of one source partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourcePart {
    /// The source's uid.
    pub source: String,
    /// The partition's name or number.
    pub partition: String,
    /// Where it stands.
    pub state: PartitionState,
}

/// The state of one operator in a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperatorPart {
    /// The operator's uid.
    pub operator: String,
    /// Its state; [`TaskState::task`] is set by the coordinator.
    pub state: TaskState,
}

/// Two tasks acknowledged an epoch with parts that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Contradiction {
    /// A partition is read by two tasks.
    #[error(
        "partition `{partition}` of source `{source_uid}` is acknowledged twice, the second time by task {task}"
    )]
    Partition {
        /// The source's uid.
        source_uid: String,
        /// The partition.
        partition: String,
        /// The second task.
        task: TaskId,
    },
    /// Key groups are owned by two tasks.
    #[error(
        "task {task} acknowledges key groups {start}..{end} of operator `{operator}`, which another task owns"
    )]
    KeyGroups {
        /// The operator's uid.
        operator: String,
        /// The second task.
        task: TaskId,
        /// The first group of its range.
        start: u16,
        /// The group after the last.
        end: u16,
    },
}

impl Manifest {
    /// Every file in the manifest: of operators' state, and of journals.
    pub fn files(&self) -> impl Iterator<Item = &StateFile> {
        let journals = self
            .sources
            .values()
            .flat_map(BTreeMap::values)
            .flat_map(|partition| partition.journals.values());
        let of_journals = journals.flat_map(|journal| &journal.files);
        self.operators.values().flatten().flat_map(|task| &task.files).chain(of_journals)
    }

    /// The same, to be changed.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut StateFile> {
        let partitions = self.sources.values_mut().flat_map(BTreeMap::values_mut);
        let journals = partitions.flat_map(|partition| partition.journals.values_mut());
        let of_journals = journals.flat_map(|journal| &mut journal.files);
        self.operators.values_mut().flatten().flat_map(|task| &mut task.files).chain(of_journals)
    }

    /// Adds the parts of `task`.
    ///
    /// # Errors
    /// They contradict those of another task.
    pub fn add(&mut self, task: TaskId, parts: Parts) -> Result<(), Contradiction> {
        for SourcePart { source, partition, state } in parts.sources {
            match self.sources.entry(source.clone()).or_default().entry(partition) {
                Entry::Vacant(entry) => entry.insert(state),
                Entry::Occupied(entry) => {
                    let partition = entry.key().clone();
                    return Err(Contradiction::Partition { source_uid: source, partition, task });
                }
            };
        }
        for OperatorPart { operator, state } in parts.operators {
            self.add_state(task, operator, state)?;
        }
        for (sink, prepared) in parts.sinks {
            self.sinks.entry(sink).or_default().push(prepared);
        }
        for (operator, watermark) in parts.watermarks {
            let least = self.watermarks.entry(operator).or_insert(watermark);
            *least = watermark.min(*least);
        }
        for (operator, end) in parts.ends {
            let greatest = self.ends.entry(operator).or_insert(end);
            *greatest = end.max(*greatest);
        }
        self.stops.extend(parts.stops);
        self.stops_ahead.extend(parts.stops_ahead);
        for (name, count) in parts.counters {
            let sum = self.counters.entry(name).or_default();
            *sum = sum.saturating_add(count);
        }
        Ok(())
    }

    fn add_state(&mut self, task: TaskId, operator: String, state: TaskState) -> Result<(), Contradiction> {
        let KeyGroups { start, end } = state.groups;
        let states = self.operators.entry(operator.clone()).or_default();
        let overlaps = |other: &TaskState| start < other.groups.end && other.groups.start < end;
        if states.iter().any(overlaps) {
            return Err(Contradiction::KeyGroups { operator, task, start, end });
        }
        let at = states.partition_point(|other| other.task <= task);
        states.insert(at, TaskState { task, ..state });
        Ok(())
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({})", to_hex(&self.0))
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        from_hex(&hex).map(Blob).ok_or_else(|| de::Error::custom("bytes that are not hexadecimal"))
    }
}

/// The bytes as lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of lower-case hexadecimal digits.
pub(crate) fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}
