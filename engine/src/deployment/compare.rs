//! What two versions have written at the same offsets, compared: for a person as a table, for a program by serde.

use super::machine::OutputTopic;
use super::rows::{self, Differing, Row};
use super::switch::BothViews;
use rivermark_log::Log;
use serde::Serialize;
use std::fmt;

/// Differences of each kind that are shown.
const SAMPLES: usize = 10;
/// Letters of a key or a row that a table shows.
const WIDTH: usize = 60;

/// The output of two versions of a flow, at the same offsets of all that both read: the answer of
/// [`Deployment::compare`](crate::Deployment::compare).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The flow.
    pub flow: String,
    /// The version that is live.
    pub old: u64,
    /// The one that is to take its place.
    pub new: u64,
    /// Output by output.
    pub outputs: Vec<ComparedOutput>,
}

/// One output of two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ComparedOutput {
    /// The output's name.
    pub alias: String,
    /// Rows of the old version that were read.
    pub old_rows: u64,
    /// Rows of the new version that were read.
    pub new_rows: u64,
    /// Keys whose rows are the same.
    pub same: u64,
    /// Keys that only the old version has.
    pub only_old: u64,
    /// Keys that only the new version has.
    pub only_new: u64,
    /// Keys that both have, with other rows.
    pub different: u64,
    /// Some of each kind, in order of key.
    pub samples: Vec<Sample>,
}

/// A key in which two versions differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sample {
    /// The key, as text; where it is none, with marks for what is not.
    pub key: String,
    /// The newest row of the old version; `None` if it has no such key.
    pub old: Option<String>,
    /// The newest row of the new version; `None` if it has no such key.
    pub new: Option<String>,
}

impl Comparison {
    /// Whether the two have written the same.
    pub fn is_same(&self) -> bool {
        self.differences() == 0
    }

    /// In how many keys they differ.
    pub fn differences(&self) -> u64 {
        self.outputs.iter().map(|output| output.only_old + output.only_new + output.different).sum()
    }
}

/// Compares one output.
pub(crate) fn compare(
    log: &Log,
    alias: &str,
    topics: (&str, &str),
    views: &BothViews,
) -> Result<ComparedOutput, String> {
    let (differing, same) = rows::differences(&views.old, &views.new);
    let kind = |of: fn(&Differing) -> bool| differing.iter().filter(move |key| of(key));
    let only_old = |key: &Differing| key.new.is_none();
    let only_new = |key: &Differing| key.old.is_none();
    let in_both = |key: &Differing| key.old.is_some() && key.new.is_some();
    let count = |of| kind(of).count() as u64;
    let mut shown: Vec<&Differing> =
        [in_both, only_old, only_new].into_iter().flat_map(|of| kind(of).take(SAMPLES)).collect();
    shown.sort_by(|a, b| a.key.cmp(&b.key));
    let old = rows::fetch(log, topics.0, shown.iter().filter_map(|key| key.old).collect())?;
    let new = rows::fetch(log, topics.1, shown.iter().filter_map(|key| key.new).collect())?;
    let text = |row: Option<&Row>| row.map(|row| text(row.value.as_deref().unwrap_or_default()));
    let sample = |key: &Differing| Sample {
        key: self::text(&key.key),
        old: text(key.old.and_then(|place| old.get(&place))),
        new: text(key.new.and_then(|place| new.get(&place))),
    };
    Ok(ComparedOutput {
        alias: alias.to_owned(),
        old_rows: views.old.rows(),
        new_rows: views.new.rows(),
        same,
        only_old: count(only_old),
        only_new: count(only_new),
        different: count(in_both),
        samples: shown.into_iter().map(sample).collect(),
    })
}

/// Compares outputs as far as each version has written them: the alias, the old topic, the new one.
pub(crate) fn compare_topics(
    log: &Log,
    pairs: &[(&str, &OutputTopic, &OutputTopic)],
) -> Result<Vec<ComparedOutput>, String> {
    let ends = |topic: &str| -> Result<Vec<u64>, String> {
        let topic = log.topic(topic).map_err(|e| e.to_string())?;
        let end = |partition| topic.info(partition).map(|info| info.stable).map_err(|e| e.to_string());
        (0..topic.partitions()).map(end).collect()
    };
    let compared = |(alias, old, new): &(&str, &OutputTopic, &OutputTopic)| {
        let mut views = BothViews::default();
        views.old.read(log, &old.topic, &ends(&old.topic)?, old.upserts)?;
        views.new.read(log, &new.topic, &ends(&new.topic)?, new.upserts)?;
        compare(log, alias, (&old.topic, &new.topic), &views)
    };
    pairs.iter().map(compared).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn short(text: Option<&String>) -> String {
    let Some(text) = text else { return "-".to_owned() };
    match text.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.clone(),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { flow, old, new, .. } = self;
        writeln!(f, "flow `{flow}`, versions {old} and {new} at the same offsets")?;
        for output in &self.outputs {
            let ComparedOutput { alias, same, only_old, only_new, different, .. } = output;
            writeln!(
                f,
                "`{alias}`: {same} keys the same, {different} different, {only_old} only in {old}, {only_new} only in {new}"
            )?;
            let header = ["key".to_owned(), format!("version {old}"), format!("version {new}")];
            let row = |s: &Sample| [short(Some(&s.key)), short(s.old.as_ref()), short(s.new.as_ref())];
            let rows: Vec<[String; 3]> = [header].into_iter().chain(output.samples.iter().map(row)).collect();
            if rows.len() == 1 {
                continue;
            }
            let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let (keys, olds) = (width(0), width(1));
            for [key, old, new] in &rows {
                writeln!(f, "  {key:keys$}  {old:olds$}  {new}")?;
            }
        }
        Ok(())
    }
}
