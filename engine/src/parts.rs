//! From what workers add to a checkpoint to what the manifest holds, and back.

use crate::stops::Stops;
use rivermark_checkpoint::{
    Blob, Checkpoints, Epoch, FileRef, FileRole, JournalState, KeyGroups, Manifest, OperatorPart,
    PartitionState, Parts, Prepared, Source, SourcePart, StateFile, TaskId, TaskState, Writer,
};
use rivermark_operators::context::{CheckpointParts, JournalPart};
use rivermark_operators::journal::{JournalChunk, StoredJournal};
use rivermark_operators::partitions::{Partitions, Remembered};
use rivermark_operators::{Error, Result};
use rivermark_state::{KeyGroupRange, Snapshot, SnapshotSource};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Remembers which state files the store has, so that a checkpoint uploads what is new.
#[derive(Default)]
pub(crate) struct Uploaded {
    /// By operator and key groups: a worker goes on with the files of the one before it that owned exactly the same key groups, whatever
    /// its number was. A name means nothing without its key groups: two workers may use the same.
    files: HashMap<(Arc<str>, KeyGroupRange), HashMap<String, FileRef>>,
    /// Of journals, by operator and partition.
    journals: HashMap<(Arc<str>, u16), HashMap<String, FileRef>>,
    /// What was counted before this attempt; the first worker's part carries it on.
    counted: BTreeMap<String, u64>,
    /// Where earlier runs had ended, and where other versions' had that are to be repeated; carried on like them.
    pub(crate) stops: Stops,
}

/// What a worker's parts came to.
pub(crate) struct UploadedParts {
    pub(crate) parts: Parts,
    /// Size of all state files that the worker's part needs.
    pub(crate) state_bytes: u64,
    /// Size of those that were new.
    pub(crate) uploaded_bytes: u64,
}

impl UploadedParts {
    /// Counts a file that the worker's part needs.
    fn count(&mut self, content: FileRef, is_new: bool) {
        self.state_bytes += content.bytes;
        self.uploaded_bytes += if is_new { content.bytes } else { 0 };
    }
}

impl Uploaded {
    /// Uploads a worker's new state files, and says what the manifest needs to know of its parts.
    pub(crate) fn upload(
        &mut self,
        writer: &Writer,
        checkpoints: &Checkpoints,
        partitions: &Partitions,
        task: TaskId,
        epoch: Epoch,
        mut parts: CheckpointParts,
    ) -> Result<UploadedParts> {
        let mut uploaded = UploadedParts { parts: Parts::default(), state_bytes: 0, uploaded_bytes: 0 };
        let mut journals: HashMap<u16, BTreeMap<String, JournalState>> = HashMap::new();
        let carried = if task == TaskId(0) { carried_journals(partitions) } else { Vec::new() };
        for journal in std::mem::take(&mut parts.journals).into_iter().chain(carried) {
            let (operator, partition) = (journal.operator.to_string(), journal.partition);
            let state = self.upload_journal(writer, checkpoints, epoch, journal, &mut uploaded)?;
            journals.entry(partition).or_default().insert(operator, state);
        }
        uploaded.parts = sources_and_sinks(partitions, task, &parts, &mut journals);
        if task == TaskId(0) {
            uploaded.parts.counters.extend(self.counted.clone());
            uploaded.parts.stops = self.stops.passed.clone();
            uploaded.parts.stops_ahead = self.stops.ahead.clone();
        }
        for (operator, snapshot) in parts.states {
            let state = self.upload_state(writer, task, epoch, &operator, snapshot, &mut uploaded)?;
            uploaded.parts.operators.push(OperatorPart { operator: operator.to_string(), state });
        }
        Ok(uploaded)
    }

    fn upload_state(
        &mut self,
        writer: &Writer,
        task: TaskId,
        epoch: Epoch,
        operator: &Arc<str>,
        snapshot: Snapshot,
        sizes: &mut UploadedParts,
    ) -> Result<TaskState> {
        let owner = (Arc::clone(operator), snapshot.range);
        // Only the newest snapshot's files can be asked for again.
        let before = self.files.remove(&owner).unwrap_or_default();
        let mut known = HashMap::with_capacity(snapshot.files.len());
        let mut files = Vec::with_capacity(snapshot.files.len());
        for file in snapshot.files {
            let before = before.get(&file.name).copied();
            let before = before.filter(|content| file.reused && writer.keep(epoch, content));
            let content = match (before, &file.source) {
                (Some(content), _) => content,
                (None, SnapshotSource::Path(held)) => {
                    store(writer, epoch, operator, &file.name, Source::Path(held.path()))?
                }
                (None, SnapshotSource::Bytes(bytes)) => {
                    store(writer, epoch, operator, &file.name, Source::Bytes(bytes))?
                }
                (None, SnapshotSource::Stored) => {
                    let attempt = format!("adding `{}` to checkpoint {epoch}", file.name);
                    return Err(Error::state(
                        operator,
                        attempt,
                        "the checkpoint store does not have it any more",
                    ));
                }
            };
            sizes.count(content, before.is_none());
            known.insert(file.name.clone(), content);
            files.push(StateFile { name: file.name, role: role_of(file.role), content });
        }
        self.files.insert(owner, known);
        let groups = KeyGroups { start: snapshot.range.start, end: snapshot.range.end };
        Ok(TaskState { task, groups, files, meta: Blob(snapshot.meta) })
    }

    /// Uploads the chunks of a journal that the store does not have.
    fn upload_journal(
        &mut self,
        writer: &Writer,
        checkpoints: &Checkpoints,
        epoch: Epoch,
        journal: JournalPart,
        sizes: &mut UploadedParts,
    ) -> Result<JournalState> {
        let JournalPart { operator, partition, chunks, tail } = journal;
        let before = self.journals.remove(&(Arc::clone(&operator), partition)).unwrap_or_default();
        let mut files = Vec::with_capacity(chunks.len());
        for JournalChunk { name, content } in chunks {
            let stored = before.get(&name).copied();
            let kept = stored.filter(|content| writer.keep(epoch, content));
            let content = match (kept, content, stored) {
                (Some(kept), _, _) => kept,
                (None, Some(bytes), _) => store(writer, epoch, &operator, &name, Source::Bytes(&bytes))?,
                // The flow has returned to a checkpoint whose files are on their way out.
                (None, None, Some(content)) => {
                    let file = StateFile { name: name.clone(), role: FileRole::Base, content };
                    let bytes = fetch_chunk(checkpoints, &operator, &file)?;
                    store(writer, epoch, &operator, &name, Source::Bytes(&bytes))?
                }
                (None, None, None) => {
                    let attempt = format!("adding chunk `{name}` of its journal to checkpoint {epoch}");
                    return Err(Error::state(
                        &operator,
                        attempt,
                        "neither it nor the checkpoint store has the bytes",
                    ));
                }
            };
            sizes.count(content, kept.is_none());
            files.push(StateFile { name, role: FileRole::Base, content });
        }
        self.note_journal(operator, partition, &files);
        Ok(JournalState { files, tail: Blob(tail) })
    }

    fn note_journal(&mut self, operator: Arc<str>, partition: u16, files: &[StateFile]) {
        let files = files.iter().map(|file| (file.name.clone(), file.content)).collect();
        self.journals.insert((operator, partition), files);
    }

    /// Notes what the attempt was restored from.
    ///
    /// # Errors
    /// An entry was not written by this engine.
    pub(crate) fn restored(&mut self, manifest: &Manifest) -> Result<()> {
        for (source, partition, state) in partitions_of(manifest) {
            let (index, _) = decode_position(source, partition, state)?;
            for (operator, journal) in &state.journals {
                self.note_journal(operator.as_str().into(), index, &journal.files);
            }
        }
        self.counted = manifest.counters.clone();
        for (operator, tasks) in &manifest.operators {
            let operator: Arc<str> = operator.as_str().into();
            for state in tasks {
                let range = KeyGroupRange { start: state.groups.start, end: state.groups.end };
                let files = state.files.iter().map(|file| (file.name.clone(), file.content));
                self.files.insert((Arc::clone(&operator), range), files.collect());
            }
        }
        Ok(())
    }
}

fn store(writer: &Writer, epoch: Epoch, operator: &str, name: &str, source: Source<'_>) -> Result<FileRef> {
    let stored = writer.upload(epoch, source);
    stored.map_err(|e| {
        Error::state(operator, format!("uploading state file `{name}` of checkpoint {epoch}"), e)
    })
}

pub(crate) fn role_of(role: rivermark_state::FileRole) -> FileRole {
    match role {
        rivermark_state::FileRole::Base => FileRole::Base,
        rivermark_state::FileRole::Delta => FileRole::Delta,
    }
}

/// The other direction of [`role_of`].
pub(crate) fn restored_role(role: FileRole) -> rivermark_state::FileRole {
    match role {
        FileRole::Base => rivermark_state::FileRole::Base,
        FileRole::Delta => rivermark_state::FileRole::Delta,
    }
}

/// What a manifest calls a partition of a source.
pub(crate) fn partition_key(number: u32, name: &str) -> String {
    format!("{number:05}:{name}")
}

/// The position of a partition as the manifest keeps it: its index in the job's table, then the source's own encoding.
fn encode_position(index: u16, position: &[u8]) -> Blob {
    Blob([&index.to_le_bytes(), position].concat())
}

fn sources_and_sinks(
    partitions: &Partitions,
    task: TaskId,
    parts: &CheckpointParts,
    journals: &mut HashMap<u16, BTreeMap<String, JournalState>>,
) -> Parts {
    let mut operators: HashMap<u16, BTreeMap<String, Blob>> = HashMap::new();
    for part in &parts.partition_states {
        let of_partition = operators.entry(part.partition).or_default();
        of_partition.insert(part.operator.to_string(), Blob(part.state.clone()));
    }
    let carried: Vec<_> = match task {
        TaskId(0) => carried_on(partitions, journals).collect(),
        _ => Vec::new(),
    };
    let sources = parts.positions.iter().map(|part| {
        let entry = partitions.get(part.partition).expect("workers read partitions of the table");
        SourcePart {
            source: part.source.to_string(),
            partition: partition_key(entry.number, &entry.name),
            state: PartitionState {
                position: encode_position(part.partition, &part.position),
                read_to: part.read_to,
                operators: operators.remove(&part.partition).unwrap_or_default(),
                journals: journals.remove(&part.partition).unwrap_or_default(),
            },
        }
    });
    let sinks = parts.tokens.iter().map(|part| {
        let prepared = Prepared { task, epoch: part.epoch, token: Blob(part.token.clone()) };
        (part.sink.to_string(), prepared)
    });
    Parts {
        sources: sources.chain(carried).collect(),
        operators: Vec::new(),
        sinks: sinks.collect(),
        watermarks: parts.watermarks.iter().map(|(name, at)| (name.to_string(), at.millis())).collect(),
        ends: parts.ends.iter().map(|(name, at)| (name.to_string(), at.millis())).collect(),
        stops: Vec::new(),
        stops_ahead: Vec::new(),
        counters: parts.counters.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
    }
}

/// What operators had written down about partitions of sources that the flow has dropped.
fn carried_journals(partitions: &Partitions) -> Vec<JournalPart> {
    let dropped = partitions.all().into_iter().filter(|entry| entry.dropped().is_some());
    let journals = dropped.flat_map(|entry| {
        let part = |(operator, journal): (&String, &StoredJournal)| {
            let (chunks, tail) = journal.unchanged();
            JournalPart { operator: operator.as_str().into(), partition: entry.index, chunks, tail }
        };
        entry.restored_journals().map(part).collect::<Vec<_>>()
    });
    journals.collect()
}

/// The partitions of sources that the flow has dropped, as they were left.
fn carried_on(
    partitions: &Partitions,
    journals: &mut HashMap<u16, BTreeMap<String, JournalState>>,
) -> impl Iterator<Item = SourcePart> {
    partitions.all().into_iter().filter_map(|entry| {
        let position = entry.dropped()?;
        let operators = entry.restored_states().map(|(name, saved)| (name.clone(), Blob(saved.clone())));
        Some(SourcePart {
            source: entry.source.to_string(),
            partition: partition_key(entry.number, &entry.name),
            state: PartitionState {
                position: encode_position(entry.index, position),
                read_to: entry.read_to(),
                operators: operators.collect(),
                journals: journals.remove(&entry.index).unwrap_or_default(),
            },
        })
    })
}

/// A source partition as a checkpoint knows it.
pub(crate) struct RestoredPartition {
    pub(crate) index: u16,
    pub(crate) source: Arc<str>,
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) position: Vec<u8>,
    pub(crate) remembered: Remembered,
}

fn partitions_of(manifest: &Manifest) -> impl Iterator<Item = (&str, &str, &PartitionState)> {
    manifest.sources.iter().flat_map(|(source, partitions)| {
        partitions.iter().map(move |(partition, state)| (source.as_str(), partition.as_str(), state))
    })
}

/// An entry of a checkpoint that cannot be read.
fn broken(source: &str, partition: &str) -> Error {
    let attempt = format!("restoring the position of `{partition}`");
    Error::source(source, attempt, "the checkpoint's entry was not written by this engine")
}

/// The other direction of [`encode_position`].
fn decode_position<'a>(source: &str, partition: &str, state: &'a PartitionState) -> Result<(u16, &'a [u8])> {
    let (index, position) = state.position.0.split_first_chunk().ok_or_else(|| broken(source, partition))?;
    Ok((u16::from_le_bytes(*index), position))
}

/// The partitions of a checkpoint, in the order of their indexes. Their journals are read from `checkpoints` when they are asked for.
pub(crate) fn restored_partitions(
    manifest: Option<&Manifest>,
    checkpoints: &Checkpoints,
) -> Result<Vec<RestoredPartition>> {
    let journals_of = |state: &PartitionState| {
        let journal = |(operator, journal): (&String, &JournalState)| {
            (operator.clone(), stored_journal(operator, journal, checkpoints))
        };
        state.journals.iter().map(journal).collect()
    };
    let mut restored: Vec<_> = manifest
        .into_iter()
        .flat_map(partitions_of)
        .map(|(source, partition, state)| restored_partition(source, partition, state, journals_of(state)))
        .collect::<Result<_>>()?;
    restored.sort_by_key(|partition| partition.index);
    if restored.iter().enumerate().any(|(at, partition)| usize::from(partition.index) != at) {
        return Err(Error::engine(
            "restoring the positions of sources",
            "the checkpoint's table of partitions has holes",
        ));
    }
    Ok(restored)
}

/// The partitions of a checkpoint without their journals, for where they are.
pub(crate) fn positions_of(manifest: &Manifest) -> Result<Vec<RestoredPartition>> {
    let without = |(source, partition, state)| restored_partition(source, partition, state, HashMap::new());
    partitions_of(manifest).map(without).collect()
}

fn restored_partition(
    source: &str,
    partition: &str,
    state: &PartitionState,
    journals: HashMap<String, StoredJournal>,
) -> Result<RestoredPartition> {
    let (number, name) = partition.split_once(':').ok_or_else(|| broken(source, partition))?;
    let (index, position) = decode_position(source, partition, state)?;
    Ok(RestoredPartition {
        index,
        source: source.into(),
        number: number.parse().map_err(|_| broken(source, partition))?,
        name: name.to_string(),
        position: position.to_vec(),
        remembered: Remembered {
            read_to: state.read_to,
            states: state.operators.iter().map(|(name, blob)| (name.clone(), blob.0.clone())).collect(),
            journals,
        },
    })
}

fn stored_journal(operator: &str, journal: &JournalState, checkpoints: &Checkpoints) -> StoredJournal {
    let chunks = journal.files.iter().map(|file| file.name.clone()).collect();
    let (operator, files, checkpoints) = (operator.to_string(), journal.files.clone(), checkpoints.clone());
    StoredJournal::new(chunks, journal.tail.0.clone(), move |index| {
        Ok(fetch_chunk(&checkpoints, &operator, &files[index])?)
    })
}

fn fetch_chunk(checkpoints: &Checkpoints, operator: &str, file: &StateFile) -> Result<Vec<u8>> {
    checkpoints
        .fetch_bytes(file)
        .map_err(|e| Error::state(operator, format!("reading chunk `{}` of its journal", file.name), e))
}
