//! What a run wrote: read back, digested, and compared with what it should be.

use crate::flights::{self, Departure, HourlyDelays};
use crate::flow::{Output, Version};
use rivermark::BoxError;
use rivermark::log::{Isolation, Log, Position};
use std::collections::BTreeMap;
use std::path::Path;

/// The result of a run, as the bytes that it wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct Results {
    /// The lines of all CSV files without their headers, sorted.
    pub csv: Vec<String>,
    /// The records of the topic, sorted.
    pub json: Vec<String>,
    /// How many CSV files there are.
    pub files: usize,
}

impl Results {
    /// Reads what is committed.
    pub fn read(log: &Log, output: &Output) -> Result<Results, BoxError> {
        let (csv, files) = csv_lines(&output.files)?;
        Ok(Results { csv, json: json_lines(log, &output.topic)?, files })
    }

    /// The rows, in order of hour and airport.
    pub fn rows(&self) -> Result<Vec<HourlyDelays>, BoxError> {
        let lines = self.json.iter();
        let mut rows: Vec<_> = lines.map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
        rows.sort();
        Ok(rows)
    }

    /// A digest of the sorted lines of both outputs (FNV-1a).
    pub fn digest(&self) -> String {
        let bytes = self.csv.iter().chain(&self.json).flat_map(|line| line.bytes().chain([b'\n']));
        let digest = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{digest:016x}")
    }

    /// Whether topic and files say the same, and that what `expected` says.
    pub fn check(&self, expected: &[HourlyDelays]) -> Result<(), BoxError> {
        compare("a line of the CSV files", &self.csv, &csv_of(expected)?)?;
        compare("a row of the topic", &self.rows()?, expected)
    }
}

/// Compares, and tells of the first difference.
pub fn compare<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &[T],
    expected: &[T],
) -> Result<(), BoxError> {
    if let Some((found, expected)) = found.iter().zip(expected).find(|(found, expected)| found != expected) {
        return Err(format!("{what} is {found:?} and should be {expected:?}").into());
    }
    if found.len() != expected.len() {
        return Err(format!("{what}: there are {}, and should be {}", found.len(), expected.len()).into());
    }
    Ok(())
}

/// The answers that were computed elsewhere, as far as a version agrees with them, and what a plain loop over the departures makes of
/// the rest.
pub fn expected(version: Version, departures: &[Departure]) -> Result<Vec<HourlyDelays>, BoxError> {
    let mut rows: Vec<HourlyDelays> = flights::expected("p1_delay_by_origin_hour.csv")?;
    let mut late: BTreeMap<(i64, &str), u64> = BTreeMap::new();
    for departure in departures.iter().filter(|departure| version.is_late(departure.dep_delay_min)) {
        *late.entry((departure.sched_dep / 3600 * 3600, &departure.origin)).or_default() += 1;
    }
    for row in &mut rows {
        let counted = late.get(&(row.window_start, &*row.origin)).copied().unwrap_or(0);
        if version == Version::Two && counted != row.n_late15 {
            return Err(
                format!("the expected file and a plain loop disagree about {row:?}: {counted}").into()
            );
        }
        row.n_late15 = counted;
    }
    Ok(rows)
}

fn csv_of(rows: &[HourlyDelays]) -> Result<Vec<String>, BoxError> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    let text = String::from_utf8(writer.into_inner()?)?;
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn csv_lines(folder: &Path) -> Result<(Vec<String>, usize), BoxError> {
    let (mut lines, mut files) = (Vec::new(), 0);
    for entry in std::fs::read_dir(folder).map_err(|e| format!("listing {}: {e}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            files += 1;
            lines.extend(std::fs::read_to_string(path)?.lines().skip(1).map(str::to_owned));
        }
    }
    lines.sort();
    Ok((lines, files))
}

fn json_lines(log: &Log, topic: &str) -> Result<Vec<String>, BoxError> {
    let topic = log.topic(topic)?;
    let mut lines = Vec::new();
    for partition in 0..topic.partitions() {
        let mut reader = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted)?;
        while let Some(records) = reader.next_batch()? {
            for record in records {
                lines.push(std::str::from_utf8(record.value.unwrap_or_default())?.to_owned());
            }
        }
    }
    lines.sort();
    Ok(lines)
}
