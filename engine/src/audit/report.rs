//! What an audit came to: for people as a table, for programs by serde.

use super::difference::{Difference, RowText};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Letters of a row that a table shows.
const WIDTH: usize = 100;

/// What an audit came to.
///
/// [`AuditReport::is_identical`] says that for each partition of each topic in [`AuditReport::outputs`], the rows in the range are exactly those
/// that a second run of the same version has computed from the same records: same keys, values and timestamps, each as often, and those of a key in
/// the same order (unless [`Audit::any_order`](crate::Audit::any_order) was said). Rows without a key have no order. Rows and keys are compared by
/// 128 bits of SHA-256. It does not say that the flow computes what it should, that records of the source are what they were (the log's
/// checksums do), or anything of rows outside of the range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// The flow.
    pub flow: String,
    /// The version that was audited, and that was run again.
    pub version: u64,
    /// Where the replay began.
    pub begins: String,
    /// The checkpoint at whose offsets both are compared.
    pub epoch: u64,
    /// What was read again.
    pub inputs: Vec<AuditedInput>,
    /// What was compared.
    pub outputs: Vec<AuditedOutput>,
    /// Sinks that write no topic of the log. Nothing is known of what they have written; the replay has thrown their rows away.
    pub not_audited: Vec<String>,
    /// What may explain a difference, or limits what is proven.
    pub warnings: Vec<String>,
    /// The first difference of the first output that has one.
    pub difference: Option<Difference>,
    /// How many records were read again.
    pub records: u64,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
}

fn millis<S: serde::Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

/// A partition of a source that was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditedInput {
    /// The source.
    pub source: String,
    /// What the partition is called.
    pub partition: String,
    /// The first offset, if the source can tell.
    pub from: Option<u64>,
    /// One past the last; `None` if nothing was read of it.
    pub until: Option<u64>,
}

/// A topic that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditedOutput {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: Vec<AuditedPartition>,
    /// Rows that were published in the range.
    pub published: u64,
    /// Rows that the replay has computed.
    pub computed: u64,
    /// Keys whose rows are the same. A row without a key is a key.
    pub same_keys: u64,
    /// Keys whose rows are not.
    pub different_keys: u64,
}

/// A partition of a topic that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditedPartition {
    /// Its number.
    pub partition: u32,
    /// The first offset of the range.
    pub from: u64,
    /// One past the last.
    pub until: u64,
    /// Rows that were published in it.
    pub rows: u64,
    /// The sum of their hashes, in hexadecimal digits: the same for the same rows in any order, and on any machine.
    pub digest: String,
}

impl AuditReport {
    /// Whether what was published is what the replay has computed.
    pub fn is_identical(&self) -> bool {
        self.outputs.iter().all(|output| output.different_keys == 0)
    }
}

impl AuditedOutput {
    pub(super) fn partition(
        partition: usize,
        from: u64,
        until: u64,
        rows: u64,
        digest: u128,
    ) -> AuditedPartition {
        AuditedPartition { partition: partition as u32, from, until, rows, digest: format!("{digest:032x}") }
    }
}

fn row(row: &RowText) -> String {
    let value = row.value.as_deref().unwrap_or("(tombstone)");
    let value: String = match value.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    };
    match &row.key {
        Some(key) => format!("{value} (key {key}, timestamp {})", row.timestamp),
        None => format!("{value} (timestamp {})", row.timestamp),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { topic, partition, offset, kind, published, computed } = self;
        let kind = format!("{kind:?}").to_lowercase();
        match offset {
            Some(offset) => writeln!(f, "{topic}[{partition}] offset {offset}: {kind}")?,
            None => writeln!(f, "{topic}[{partition}], behind the last row of its key: {kind}")?,
        }
        writeln!(f, "  published  {}", published.as_ref().map_or("-".to_owned(), row))?;
        write!(f, "  computed   {}", computed.as_ref().map_or("-".to_owned(), row))
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AuditReport { flow, version, begins, epoch, records, took, .. } = self;
        let verdict = if self.is_identical() { "identical" } else { "NOT identical" };
        writeln!(f, "flow `{flow}`, version {version}: {verdict}")?;
        writeln!(
            f,
            "replayed from {begins} to checkpoint {epoch}: {records} records in {:.1} s",
            took.as_secs_f64()
        )?;
        let names = self.inputs.iter().map(|input| input.partition.chars().count()).max().unwrap_or(0);
        for AuditedInput { partition, from, until, .. } in &self.inputs {
            let offset = |offset: &Option<u64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
            writeln!(f, "  read      {partition:names$}  offsets {} to {}", offset(from), offset(until))?;
        }
        for output in &self.outputs {
            for AuditedPartition { partition, from, until, rows, digest } in &output.partitions {
                let name = format!("{}[{partition}]", output.topic);
                writeln!(
                    f,
                    "  compared  {name:names$}  offsets {from} to {until}, {rows} rows, digest {digest}"
                )?;
            }
            if output.different_keys > 0 {
                let AuditedOutput { topic, published, computed, different_keys, .. } = output;
                writeln!(
                    f,
                    "  `{topic}`: {different_keys} keys differ; {published} rows published, {computed} computed"
                )?;
            }
        }
        for sink in &self.not_audited {
            writeln!(f, "not audited: sink `{sink}` writes no topic of the log")?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        self.difference.iter().try_for_each(|first| writeln!(f, "first difference: {first}"))
    }
}
