//! The file that a flow's deployments are: `deployments/FLOW` in the data directory.
//!
//! The first line is the CRC32C of the rest, the rest is the record as JSON. It is replaced as a whole: written beside itself, synced, renamed, and
//! the folder synced. So it is the old record or the new one, whatever crashes when; a damaged one is an error and never taken for another.

use super::machine::Deployments;
use rivermark_operators::{Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The file of one flow.
#[derive(Clone, Debug)]
pub(crate) struct RecordFile {
    flow: String,
    path: PathBuf,
}

impl RecordFile {
    /// The file of a flow in the folder of all of them.
    pub(crate) fn of(folder: &Path, flow: &str) -> RecordFile {
        RecordFile { flow: flow.to_owned(), path: folder.join(flow) }
    }

    /// The flows that have one.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn flows(folder: &Path) -> Result<Vec<String>> {
        let failed = |e| Error::engine(format!("listing the deployments in {}", folder.display()), e);
        let entries = match std::fs::read_dir(folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut flows = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            // What a crash has left of a write begins with a dot.
            if !name.starts_with('.') {
                flows.push(name);
            }
        }
        flows.sort();
        Ok(flows)
    }

    /// What is in it; the record of a flow of which nothing is deployed if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub(crate) fn read(&self) -> Result<Deployments> {
        let attempt = || format!("reading the deployments of flow `{}` ({})", self.flow, self.path.display());
        let text = match std::fs::read_to_string(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Deployments::of(&self.flow)),
            text => text.map_err(|e| Error::engine(attempt(), e))?,
        };
        let damaged = |what: String| {
            let advice = "it says which version is live: bring the file back from a copy of the directory";
            Error::engine(attempt(), format!("the file is damaged ({what}); {advice}"))
        };
        let (sum, body) = text.split_once('\n').ok_or_else(|| damaged("it has no checksum".into()))?;
        if sum != checksum(body) {
            return Err(damaged("its checksum is another".into()));
        }
        let record: Deployments = serde_json::from_str(body).map_err(|e| damaged(e.to_string()))?;
        match record.fault() {
            Some(fault) => Err(damaged(fault)),
            None => Ok(record),
        }
    }

    /// Makes it this record, durably.
    ///
    /// # Errors
    /// It cannot be written. It may or may not have been replaced.
    pub(crate) fn write(&self, record: &Deployments) -> Result<()> {
        let failed = |e: BoxedError| {
            let attempt =
                format!("writing the deployments of flow `{}` ({})", self.flow, self.path.display());
            Error::engine(attempt, e)
        };
        self.try_write(record).map_err(failed)
    }

    fn try_write(&self, record: &Deployments) -> std::result::Result<(), BoxedError> {
        let folder = self.path.parent().ok_or("it has no folder")?;
        crate::directory::create(folder)?;
        let body = serde_json::to_string_pretty(record)?;
        let beside = folder.join(format!(".{}.new", self.flow));
        let mut file = File::create(&beside)?;
        write!(file, "{}\n{body}", checksum(&body))?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        Ok(File::open(folder)?.sync_all()?)
    }
}

type BoxedError = rivermark_operators::BoxError;

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32c::crc32c(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::machine::Event;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_record_is_read_as_it_was_written_and_damage_anywhere_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = RecordFile::of(&folder.path().join("deployments"), "clicks");
        assert_eq!(file.read().unwrap(), Deployments::of("clicks"));
        let deploy = Event::Deploy { version: 1, outputs: BTreeMap::new() };
        let record = Deployments::of("clicks").step(&deploy).unwrap();
        file.write(&record).unwrap();
        file.write(&record).unwrap();
        assert_eq!(file.read().unwrap(), record);
        assert_eq!(RecordFile::flows(&folder.path().join("deployments")).unwrap(), ["clicks"]);
        let whole = std::fs::read(&file.path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&file.path, &damaged).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains("deployments of flow `clicks`"), "{at}: {error}");
        }
        std::fs::write(&file.path, &whole[..whole.len() - 1]).unwrap();
        assert!(file.read().is_err());
    }
}
