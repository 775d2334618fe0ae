//! What a checkpoint or savepoint consists of, and whether its files are what was stored.

use crate::parts;
use crate::savepoint::Savepoint;
use rivermark_operators::Result;
use rivermark_state::StateKind;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a checkpoint or savepoint consists of: as [`Savepoint::summary`] tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckpointSummary {
    /// The flow.
    pub flow: String,
    /// The version of the flow.
    pub version: u64,
    /// Its number.
    pub epoch: u64,
    /// The attempt to run the flow that took it.
    pub generation: u64,
    /// The checkpoint before it.
    pub parent: Option<u64>,
    /// When its barrier began, in milliseconds since 1970.
    pub created_at_ms: i64,
    /// How many key groups the flow has.
    pub key_groups: u16,
    /// How many workers took it.
    pub workers: u32,
    /// Whether it is the last of a run whose sources had all ended.
    pub is_end: bool,
    /// The size of its files in bytes, those shared with other checkpoints included.
    pub state_bytes: u64,
    /// How many files that are.
    pub files: u64,
    /// Where the partitions of the sources stand.
    pub sources: Vec<PositionSummary>,
    /// The operators that have state.
    pub operators: Vec<OperatorSummary>,
    /// Sinks with output that is prepared, and committed once this is stored.
    pub sinks: Vec<SinkSummary>,
    /// Counts that survive restarts, by operator.
    pub counters: BTreeMap<String, u64>,
}

/// Where a partition of a source stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PositionSummary {
    /// The source.
    pub source: String,
    /// What the partition is called.
    pub partition: String,
    /// The offset behind the last record that was read; `None` where there was none.
    pub read_to: Option<u64>,
}

/// What a checkpoint has of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OperatorSummary {
    /// The operator.
    pub operator: String,
    /// In how many parts, one a worker.
    pub parts: u64,
    /// How many files.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Its watermark, in milliseconds of event time; `None` if it has none.
    pub watermark_ms: Option<i64>,
    /// The states in it.
    pub states: Vec<StateSummary>,
}

/// A state, by its description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StateSummary {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: StateKind,
    /// The types of its keys and values.
    pub types: String,
    /// The version of its schema.
    pub version: u32,
}

/// Output of a sink that waits for its commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SinkSummary {
    /// The sink.
    pub sink: String,
    /// In how many parts, one a worker at most.
    pub prepared: u64,
}

/// What reading all files of a checkpoint has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FilesVerified {
    /// Files that were read.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Those that are missing, or other than what was stored.
    pub damage: Vec<DamagedFile>,
}

/// A file of a checkpoint that is missing, or other than what was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DamagedFile {
    /// The operator's name for it; empty where it is about all of a state.
    pub file: String,
    /// What is wrong.
    pub problem: String,
}

impl Savepoint {
    /// What it consists of. Reads nothing but its record.
    ///
    /// # Errors
    /// The record was not written by this engine, or by one of another format.
    pub fn summary(&self) -> Result<CheckpointSummary> {
        let manifest = self.manifest();
        let mut sources: Vec<_> = parts::positions_of(manifest)?
            .into_iter()
            .map(|at| PositionSummary {
                source: at.source.to_string(),
                partition: at.name,
                read_to: at.remembered.read_to,
            })
            .collect();
        sources.sort_by(|a, b| (&a.source, &a.partition).cmp(&(&b.source, &b.partition)));
        let mut operators = Vec::new();
        for (operator, tasks) in &manifest.operators {
            let files = || tasks.iter().flat_map(|task| &task.files);
            let states = self.states(operator)?.into_iter().map(|state| StateSummary {
                name: state.name,
                kind: state.kind,
                types: state.schema,
                version: state.version,
            });
            operators.push(OperatorSummary {
                operator: operator.clone(),
                parts: tasks.len() as u64,
                files: files().count() as u64,
                bytes: files().map(|file| file.content.bytes).sum(),
                watermark_ms: manifest.watermarks.get(operator).copied(),
                states: states.collect(),
            });
        }
        let sinks = manifest.sinks.iter();
        Ok(CheckpointSummary {
            flow: manifest.flow.clone(),
            version: manifest.version,
            epoch: manifest.epoch.0,
            generation: manifest.generation.0,
            parent: manifest.parent.map(|parent| parent.0),
            created_at_ms: manifest.created_at_ms,
            key_groups: manifest.key_groups,
            workers: manifest.workers,
            is_end: manifest.is_end,
            state_bytes: self.state_bytes(),
            files: manifest.files().count() as u64,
            sources,
            operators,
            sinks: sinks
                .map(|(sink, prepared)| SinkSummary { sink: sink.clone(), prepared: prepared.len() as u64 })
                .collect(),
            counters: manifest.counters.clone(),
        })
    }

    /// As [`Savepoint::verify`], but goes on behind the first file that is damaged, and tells `progress` the size of each file that was read.
    pub fn verify_files(&self, mut progress: impl FnMut(u64)) -> FilesVerified {
        let mut found = FilesVerified::default();
        for operator in self.operators() {
            if let Err(error) = self.states(operator) {
                found.damage.push(DamagedFile { file: String::new(), problem: error.to_string() });
            }
        }
        for file in self.manifest().files() {
            match self.verify_file(file) {
                Ok(()) => {
                    found.files += 1;
                    found.bytes += file.content.bytes;
                }
                Err(problem) => found.damage.push(DamagedFile { file: file.name.clone(), problem }),
            }
            progress(file.content.bytes);
        }
        found
    }
}
