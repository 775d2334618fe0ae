//! What a version that begins anew takes over from the one before: the decisions that depended on the moment.
//!
//! A replay reads a partition's records without the silences between them. Where the version before it did not wait for a silent partition
//! and then found a record late, the replay must do the same, or its results would differ from those that were published. Such
//! decisions are in the checkpoints of the earlier version, beside the positions of its partitions. Those that are too many to be taken over
//! at once are in journals, which are read as the replay goes on, also after a restart in the middle of it.

use crate::environment::Environment;
use crate::parts;
use crate::stops::Stops;
use rivermark_checkpoint::{Checkpoints, FlowId, Manifest, Stop};
use rivermark_operators::journal::StoredJournal;
use rivermark_operators::partitions::Remembered;
use rivermark_operators::{BoxError, Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// A partition by its source, number and name.
type PartitionId = (Arc<str>, u32, String);

/// What operators had saved for each partition, and which place it had in the job's table.
#[derive(Default)]
pub(crate) struct Earlier {
    partitions: HashMap<PartitionId, (usize, Remembered)>,
    /// Where its runs have ended, or were to end as it repeated those of a version before it.
    pub(crate) stops: Vec<Stop>,
}

impl Earlier {
    /// Reads the newest checkpoint of the newest version before the flow's own that has one.
    ///
    /// # Errors
    /// The store failed, or that version has checkpoints and none is intact.
    pub(crate) fn read(environment: &Environment) -> Result<Earlier> {
        let failed = |e| environment.error("reading the checkpoints of its earlier versions", e);
        let own = environment.flow_id();
        let versions = environment.open_checkpoints()?.versions().map_err(failed)?;
        for version in versions.into_iter().rev().filter(|version| *version < own.version) {
            let flow = FlowId { version, ..own.clone() };
            let checkpoints = Checkpoints::new(Arc::clone(environment.store()), flow).map_err(failed)?;
            if let Some(manifest) = checkpoints.newest().map_err(failed)? {
                tracing::info!(flow = own.name, version, epoch = %manifest.epoch, "repeats the decisions of an earlier version");
                return Earlier::of(&manifest, &checkpoints);
            }
        }
        Ok(Earlier::default())
    }

    fn of(manifest: &Manifest, checkpoints: &Checkpoints) -> Result<Earlier> {
        let Stops { mut passed, ahead, .. } = Stops::of(manifest)?;
        passed.extend(ahead);
        let partitions = parts::restored_partitions(Some(manifest), checkpoints)?;
        let pinned = partitions.into_iter().map(|partition| {
            let parts::RestoredPartition {
                source,
                number,
                name,
                index,
                remembered: Remembered { states, journals, .. },
                ..
            } = partition;
            // The earlier version may go on, and put its files together.
            let pin = |(operator, journal): (String, StoredJournal)| Ok((operator, journal.pin()?));
            let journals = journals.into_iter().map(pin).collect::<Result<_, BoxError>>();
            let journals = journals.map_err(|e| {
                Error::engine(format!("reading the journals of {name} of an earlier version"), e)
            })?;
            let remembered = Remembered { states, journals, ..Remembered::default() };
            Ok(((source, number, name), (usize::from(index), remembered)))
        });
        Ok(Earlier { partitions: pinned.collect::<Result<_>>()?, stops: passed })
    }

    /// Which place a partition had in the job's table.
    pub(crate) fn place(&self, source: &Arc<str>, number: u32, name: &str) -> Option<usize> {
        self.partitions.get(&(Arc::clone(source), number, name.to_string())).map(|(place, _)| *place)
    }

    /// What was saved for a partition.
    pub(crate) fn take(&mut self, source: &Arc<str>, number: u32, name: &str) -> Remembered {
        self.partitions
            .remove(&(Arc::clone(source), number, name.to_string()))
            .map(|(_, saved)| saved)
            .unwrap_or_default()
    }
}
