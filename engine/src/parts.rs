//! From what workers add to a checkpoint to what the manifest holds, and back.

use rivermark_checkpoint::{
    Blob, Epoch, FileRef, FileRole, KeyGroups, Manifest, OperatorPart, PartitionState, Parts, Prepared,
    Source, SourcePart, StateFile, TaskId, TaskState, Writer,
};
use rivermark_operators::context::CheckpointParts;
use rivermark_operators::partitions::Partitions;
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
    /// What was counted before this attempt; the first worker's part carries it on.
    counted: BTreeMap<String, u64>,
}

/// What a worker's parts came to.
pub(crate) struct UploadedParts {
    pub(crate) parts: Parts,
    /// Size of all state files that the worker's part needs.
    pub(crate) state_bytes: u64,
    /// Size of those that were new.
    pub(crate) uploaded_bytes: u64,
}

impl Uploaded {
    /// Uploads a worker's new state files, and says what the manifest needs to know of its parts.
    pub(crate) fn upload(
        &mut self,
        writer: &Writer,
        partitions: &Partitions,
        task: TaskId,
        epoch: Epoch,
        parts: CheckpointParts,
    ) -> Result<UploadedParts> {
        let mut uploaded = UploadedParts {
            parts: sources_and_sinks(partitions, task, &parts),
            state_bytes: 0,
            uploaded_bytes: 0,
        };
        if task == TaskId(0) {
            uploaded.parts.counters.extend(self.counted.clone());
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
            sizes.state_bytes += content.bytes;
            sizes.uploaded_bytes += if before.is_none() { content.bytes } else { 0 };
            known.insert(file.name.clone(), content);
            files.push(StateFile { name: file.name, role: role_of(file.role), content });
        }
        self.files.insert(owner, known);
        let groups = KeyGroups { start: snapshot.range.start, end: snapshot.range.end };
        Ok(TaskState { task, groups, files, meta: Blob(snapshot.meta) })
    }

    /// Notes what the attempt was restored from.
    pub(crate) fn restored(&mut self, manifest: &Manifest) {
        self.counted = manifest.counters.clone();
        for (operator, tasks) in &manifest.operators {
            let operator: Arc<str> = operator.as_str().into();
            for state in tasks {
                let range = KeyGroupRange { start: state.groups.start, end: state.groups.end };
                let files = state.files.iter().map(|file| (file.name.clone(), file.content));
                self.files.insert((Arc::clone(&operator), range), files.collect());
            }
        }
    }
}

fn store(writer: &Writer, epoch: Epoch, operator: &str, name: &str, source: Source<'_>) -> Result<FileRef> {
    let stored = writer.upload(epoch, source);
    stored.map_err(|e| {
        Error::state(operator, format!("uploading state file `{name}` of checkpoint {epoch}"), e)
    })
}

fn role_of(role: rivermark_state::FileRole) -> FileRole {
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

/// The position of a partition as the manifest keeps it: its index in the job's table, then the source's own encoding.
fn encode_position(index: u16, position: &[u8]) -> Blob {
    Blob([&index.to_le_bytes(), position].concat())
}

fn sources_and_sinks(partitions: &Partitions, task: TaskId, parts: &CheckpointParts) -> Parts {
    let mut operators: HashMap<u16, BTreeMap<String, Blob>> = HashMap::new();
    for part in &parts.partition_states {
        let of_partition = operators.entry(part.partition).or_default();
        of_partition.insert(part.operator.to_string(), Blob(part.state.clone()));
    }
    let sources = parts.positions.iter().map(|part| {
        let entry = partitions.get(part.partition).expect("workers read partitions of the table");
        SourcePart {
            source: part.source.to_string(),
            partition: format!("{:05}:{}", entry.number, entry.name),
            state: PartitionState {
                position: encode_position(part.partition, &part.position),
                operators: operators.remove(&part.partition).unwrap_or_default(),
            },
        }
    });
    let sinks = parts.tokens.iter().map(|part| {
        let prepared = Prepared { task, epoch: part.epoch, token: Blob(part.token.clone()) };
        (part.sink.to_string(), prepared)
    });
    Parts {
        sources: sources.collect(),
        operators: Vec::new(),
        sinks: sinks.collect(),
        watermarks: parts.watermarks.iter().map(|(name, at)| (name.to_string(), at.millis())).collect(),
        ends: parts.ends.iter().map(|(name, at)| (name.to_string(), at.millis())).collect(),
        counters: parts.counters.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
    }
}

/// A source partition as a checkpoint knows it.
pub(crate) struct RestoredPartition {
    pub(crate) index: u16,
    pub(crate) source: Arc<str>,
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) position: Vec<u8>,
    pub(crate) operators: HashMap<String, Vec<u8>>,
}

/// The partitions of a checkpoint, in the order of their indexes.
pub(crate) fn restored_partitions(manifest: Option<&Manifest>) -> Result<Vec<RestoredPartition>> {
    let mut restored = Vec::new();
    for (source, partition, state) in
        manifest.into_iter().flat_map(|manifest| &manifest.sources).flat_map(|(source, partitions)| {
            partitions.iter().map(move |(partition, state)| (source, partition, state))
        })
    {
        let broken = || {
            let attempt = format!("restoring the position of `{partition}`");
            Error::source(source, attempt, "the checkpoint's entry was not written by this engine")
        };
        let (number, name) = partition.split_once(':').ok_or_else(broken)?;
        let (index, position) = state.position.0.split_first_chunk().ok_or_else(broken)?;
        restored.push(RestoredPartition {
            index: u16::from_le_bytes(*index),
            source: source.as_str().into(),
            number: number.parse().map_err(|_| broken())?,
            name: name.to_string(),
            position: position.to_vec(),
            operators: state.operators.iter().map(|(name, blob)| (name.clone(), blob.0.clone())).collect(),
        });
    }
    restored.sort_by_key(|partition| partition.index);
    if restored.iter().enumerate().any(|(at, partition)| usize::from(partition.index) != at) {
        return Err(Error::engine(
            "restoring the positions of sources",
            "the checkpoint's table of partitions has holes",
        ));
    }
    Ok(restored)
}
