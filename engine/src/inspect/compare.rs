//! What two versions have written, compared where it lies, without their jobs.

use super::DataDirectory;
use crate::deployment::{Comparison, OutputTopic, compare_topics};
use rivermark_operators::{Error, Result};
use serde::Serialize;

/// The output of two versions as far as each has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ComparedAtRest {
    /// What they have written, compared. `old` and `new` are the versions in the order in which they were asked for.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Whether the newest checkpoints of both have the same offsets of all that they read. If not, what one has written and the other has not may
    /// be what only one of them has read.
    pub same_offsets: bool,
}

impl DataDirectory {
    /// Compares what two versions of a flow have written, by key, as far as each has come. Only the jobs can be brought to the same offsets:
    /// that is what [`Deployment::compare`](crate::Deployment::compare) does. Costs reading both outputs, and some 200 bytes of memory a key.
    ///
    /// # Errors
    /// A version was never deployed, they have no output in common, or it cannot be read.
    pub fn compare(&self, flow: &str, old: u64, new: u64) -> Result<ComparedAtRest> {
        let failed = |problem: String| {
            Error::engine(format!("comparing versions {old} and {new} of flow `{flow}` at rest"), problem)
        };
        let record = self.deployments(flow)?;
        let outputs = |version: u64| {
            let known = record.versions.get(&version).map(|version| &version.outputs);
            known.ok_or_else(|| failed(format!("version {version} was never deployed")))
        };
        let theirs = outputs(new)?;
        let pairs: Vec<(&str, &OutputTopic, &OutputTopic)> = outputs(old)?
            .iter()
            .filter_map(|(alias, topic)| Some((alias.as_str(), topic, theirs.get(alias)?)))
            .collect();
        if pairs.is_empty() {
            return Err(failed("they have no output in common".into()));
        }
        let outputs = compare_topics(&self.log()?, &pairs).map_err(failed)?;
        let offsets = |version| -> Option<Vec<_>> {
            let summary = self.checkpoint(flow, version, None).ok()?.summary().ok()?;
            Some(summary.sources.into_iter().map(|at| (at.source, at.partition, at.read_to)).collect())
        };
        let same_offsets = offsets(old).is_some_and(|there| Some(there) == offsets(new));
        let comparison = Comparison { flow: flow.to_owned(), old, new, outputs };
        Ok(ComparedAtRest { comparison, same_offsets })
    }
}
