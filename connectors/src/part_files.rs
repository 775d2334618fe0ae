//! Files that appear only when they are committed: the CSV and JSON-lines sinks.
//!
//! 0. The sink's folders are made one by one, each synced in the folder above before anything is put into it: a part file that is synced
//!    must not be lost with a folder that is not.
//! 1. A writer gathers its rows in a file in a hidden folder of the sink's directory, `.staging-FLOW-vVERSION-SINK`.
//! 2. At a barrier the file is synced; the token says what it is called and what it will be called: `part-EPOCH-WORKER.csv`.
//! 3. Committing gives it that name by a hard link, syncs the directory, and removes the staged name. A crash in between leaves both
//!    names, and committing again finishes.
//! 4. Recovering removes every staged file that no token names. That is also what fences: an older attempt that wakes finds its files gone,
//!    and its tokens can never be committed.

use rivermark_operators::BoxError;
use rivermark_operators::sink::{Batch, CommitError, Committer, Epoch, Sink, SinkContext, SinkWriter};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// How rows become lines of a file.
trait Lines<T>: Send + Sync + 'static {
    const EXTENSION: &'static str;
    fn write(row: &T, is_first: bool, line: &mut Vec<u8>) -> Result<(), BoxError>;
}

/// RFC 4180, with a header line in each file.
struct Csv;

impl<T: Serialize> Lines<T> for Csv {
    const EXTENSION: &'static str = "csv";

    fn write(row: &T, is_first: bool, line: &mut Vec<u8>) -> Result<(), BoxError> {
        let mut writer = csv::WriterBuilder::new().has_headers(is_first).from_writer(line);
        writer.serialize(row)?;
        Ok(writer.flush()?)
    }
}

/// One JSON value a line.
struct JsonLines;

impl<T: Serialize> Lines<T> for JsonLines {
    const EXTENSION: &'static str = "jsonl";

    fn write(row: &T, _is_first: bool, line: &mut Vec<u8>) -> Result<(), BoxError> {
        serde_json::to_writer(&mut *line, row)?;
        line.push(b'\n');
        Ok(())
    }
}

/// A directory of CSV files as a sink: a part file for each worker and checkpoint that has rows, each with a header.
///
/// Only committed files are visible: whoever reads the directory at any moment sees each row at most once, and in the end exactly once.
#[derive(Clone, Debug)]
pub struct CsvSink {
    directory: PathBuf,
}

impl CsvSink {
    /// Writes part files into `directory`, which is created if need be. A directory belongs to one sink.
    pub fn directory(directory: impl Into<PathBuf>) -> Self {
        CsvSink { directory: directory.into() }
    }
}

/// A directory of JSON-lines files as a sink. See [`CsvSink`].
#[derive(Clone, Debug)]
pub struct JsonLinesSink {
    directory: PathBuf,
}

impl JsonLinesSink {
    /// Writes part files into `directory`, which is created if need be. A directory belongs to one sink.
    pub fn directory(directory: impl Into<PathBuf>) -> Self {
        JsonLinesSink { directory: directory.into() }
    }
}

/// The committed part files of a directory, in order of epoch and worker.
///
/// # Errors
/// If the directory cannot be read. One that is not there has no files.
pub fn part_files(directory: impl AsRef<Path>) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("part-") {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

macro_rules! part_file_sink {
    ($sink:ty, $lines:ty) => {
        impl<T: Serialize + Send + 'static> Sink<T> for $sink {
            type Writer = PartWriter<T>;

            fn writer(&self, cx: &SinkContext<'_>) -> Result<PartWriter<T>, BoxError> {
                PartWriter::open::<$lines>(&self.directory, cx)
            }

            fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
                Ok(Box::new(PartCommitter {
                    directory: self.directory.clone(),
                    staging: staging(&self.directory, cx),
                }))
            }
        }
    };
}

part_file_sink!(CsvSink, Csv);
part_file_sink!(JsonLinesSink, JsonLines);

fn staging(directory: &Path, cx: &SinkContext<'_>) -> PathBuf {
    let plain = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
    let (flow, name) = (plain(cx.connector.flow), plain(cx.connector.name));
    directory.join(format!(".staging-{flow}-v{}-{name}", cx.connector.version))
}

/// Adds what was attempted, on what.
fn failed(attempt: &str, path: &Path) -> impl Fn(io::Error) -> BoxError {
    let (attempt, path) = (attempt.to_owned(), path.to_owned());
    move |e| format!("{attempt} {}: {e}", path.display()).into()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), BoxError> {
    sync(path).map_err(failed("syncing the directory", path))
}

/// The folder that holds a path's name.
fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Makes a folder and those above it, so that they are there after a power cut.
///
/// Each name is made durable by `sync` of the folder above it before the next is made. So of those that are there when this begins, again
/// after a crash perhaps, all but the deepest are durable.
fn create_durably(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut deepest = path;
    while !deepest.try_exists()? {
        missing.push(deepest);
        deepest = above(deepest);
    }
    match sync(above(deepest)) {
        // Whoever may not read a folder has not made one in it: this one was there before the sink.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        synced => synced?,
    }
    for folder in missing.into_iter().rev() {
        match std::fs::create_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            created => created?,
        }
        sync(above(folder))?;
    }
    Ok(())
}

/// Makes the directory of a sink and the folder of its staged files.
fn create_directories(directory: &Path, staging: &Path) -> Result<(), BoxError> {
    [directory, staging]
        .into_iter()
        .try_for_each(|path| create_durably(path, sync).map_err(failed("creating the directory", path)))
}

/// Names a staged file and the name it will have.
#[derive(Serialize, Deserialize)]
struct Token {
    staged: String,
    part: String,
}

type WriteLine<T> = fn(&T, bool, &mut Vec<u8>) -> Result<(), BoxError>;

/// One worker's share of a sink of part files.
pub struct PartWriter<T> {
    staging: PathBuf,
    /// Distinguishes the staged files of this writer from all others'.
    stem: String,
    worker: usize,
    number: u64,
    extension: &'static str,
    write_line: WriteLine<T>,
    open: Option<(String, BufWriter<File>)>,
    line: Vec<u8>,
    bytes: u64,
    rows: PhantomData<fn(T)>,
}

impl<T> PartWriter<T> {
    fn open<L: Lines<T>>(directory: &Path, cx: &SinkContext<'_>) -> Result<Self, BoxError> {
        let staging = staging(directory, cx);
        create_directories(directory, &staging)?;
        Ok(PartWriter {
            staging,
            stem: format!("g{}-w{}", cx.generation, cx.worker),
            worker: cx.worker,
            number: 0,
            extension: L::EXTENSION,
            write_line: L::write,
            open: None,
            line: Vec::new(),
            bytes: 0,
            rows: PhantomData,
        })
    }
}

impl<T> SinkWriter<T> for PartWriter<T> {
    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), BoxError> {
        for (_, row) in batch.drain() {
            let is_first = self.open.is_none();
            if is_first {
                let name = format!("{}-{}", self.stem, self.number);
                let path = self.staging.join(&name);
                let file = File::create_new(&path).map_err(failed("creating", &path))?;
                self.open = Some((name, BufWriter::with_capacity(1 << 16, file)));
            }
            self.line.clear();
            (self.write_line)(&row, is_first, &mut self.line)
                .map_err(|e| format!("a row for {} cannot be encoded: {e}", self.staging.display()))?;
            if let Some((name, file)) = &mut self.open {
                file.write_all(&self.line).map_err(failed("writing", &self.staging.join(name)))?;
            }
            self.bytes += self.line.len() as u64;
        }
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        let Some((staged, file)) = self.open.take() else { return Ok(None) };
        let path = self.staging.join(&staged);
        let file = file.into_inner().map_err(|e| failed("writing", &path)(e.into_error()))?;
        file.sync_all().map_err(failed("syncing", &path))?;
        sync_directory(&self.staging)?;
        self.number += 1;
        let part = format!("part-{epoch:010}-{:04}.{}", self.worker, self.extension);
        Ok(Some(serde_json::to_vec(&Token { staged, part })?))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

struct PartCommitter {
    directory: PathBuf,
    staging: PathBuf,
}

impl PartCommitter {
    fn parse(token: &[u8]) -> Result<Token, CommitError> {
        serde_json::from_slice(token)
            .map_err(|e| CommitError::Refused(format!("a token names no part file: {e}").into()))
    }

    fn publish(&self, token: &Token) -> Result<(), CommitError> {
        let (staged, part) = (self.staging.join(&token.staged), self.directory.join(&token.part));
        match std::fs::hard_link(&staged, &part) {
            Ok(()) => {}
            // It was linked before; the staged name says whether by us.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if is_other(&staged, &part).map_err(|e| CommitError::Unknown(e.into()))? {
                    let problem = format!(
                        "{} is there already, from another run; give the sink a directory of its own",
                        part.display()
                    );
                    return Err(CommitError::Refused(problem.into()));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return self.publish_without(&staged, &part),
            Err(e) => return Err(CommitError::Unknown(failed("publishing", &part)(e))),
        }
        sync_directory(&self.directory).map_err(CommitError::Unknown)?;
        match std::fs::remove_file(&staged) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(CommitError::Unknown(failed("removing", &staged)(e)))
            }
            _ => Ok(()),
        }
    }

    /// What a missing staged file means: published before, fenced, or the disk itself is not there.
    fn publish_without(&self, staged: &Path, part: &Path) -> Result<(), CommitError> {
        let is_there =
            |path: &Path| path.try_exists().map_err(|e| CommitError::Unknown(failed("looking for", path)(e)));
        if is_there(part)? {
            return Ok(());
        }
        if !is_there(&self.staging)? {
            let problem = format!("{} is not there: mount it, or put it back", self.staging.display());
            return Err(CommitError::Unknown(problem.into()));
        }
        let problem = format!("{} is gone: the attempt that prepared it is fenced", staged.display());
        Err(CommitError::Refused(problem.into()))
    }
}

/// Whether two names stand for different files.
fn is_other(staged: &Path, part: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    Ok(identity(staged)? != identity(part)?)
}

impl Committer for PartCommitter {
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        create_directories(&self.directory, &self.staging).map_err(CommitError::Unknown)?;
        self.commit(Epoch(0), tokens)?;
        let unknown = |e| CommitError::Unknown(failed("clearing", &self.staging)(e));
        for entry in std::fs::read_dir(&self.staging).map_err(unknown)? {
            std::fs::remove_file(entry.map_err(unknown)?.path()).map_err(unknown)?;
        }
        sync_directory(&self.staging).map_err(CommitError::Unknown)
    }

    fn commit(&mut self, _epoch: Epoch, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        let tokens = tokens.iter().map(|token| Self::parse(token)).collect::<Result<Vec<_>, _>>()?;
        tokens.iter().try_for_each(|token| self.publish(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rivermark_operators::plan::Resources;
    use rivermark_operators::source::ConnectorContext;

    #[test]
    fn a_folder_is_durable_before_anything_is_put_into_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let at = |name: &str| root.join(name);
        let mut synced = Vec::new();
        let mut create = |path: &Path, failing: Option<PathBuf>| {
            synced.clear();
            let result = create_durably(path, |folder| {
                let names = std::fs::read_dir(folder)?.count();
                synced.push((folder.to_owned(), names));
                if failing.as_deref() == Some(folder) { Err(io::Error::other("no")) } else { Ok(()) }
            });
            (result.is_ok(), synced.clone())
        };
        let names = |pairs: &[(&Path, usize)]| {
            pairs.iter().map(|(path, names)| (path.to_path_buf(), *names)).collect::<Vec<_>>()
        };
        // Below `a`, nothing is made before `a` is durable; the one that was there may be an earlier attempt's.
        let above_root = (directory.path(), 1);
        assert_eq!(create(&at("a/b"), Some(root.clone())), (false, names(&[above_root, (&root, 1)])));
        assert!(!at("a/b").exists());
        assert_eq!(create(&at("a/b"), None), (true, names(&[(&root, 1), (&at("a"), 1)])));
        assert_eq!(create(&at("a/b"), None), (true, names(&[(&at("a"), 1)])));
    }

    #[test]
    fn a_commit_that_the_disk_prevents_may_be_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let (blocked, resources) = (folder.path().join("out"), Resources::default());
        let sink = JsonLinesSink::directory(&blocked);
        let cx = SinkContext {
            connector: ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources },
            worker: 0,
            generation: 1,
        };
        let mut committer = Sink::<u64>::committer(&sink, &cx).unwrap();
        std::fs::write(&blocked, "a file where the directory belongs").unwrap();
        assert!(matches!(committer.recover(&[]), Err(CommitError::Unknown(_))));
        std::fs::remove_file(&blocked).unwrap();
        committer.recover(&[]).unwrap();

        let mut writer = Sink::<u64>::writer(&sink, &cx).unwrap();
        let mut batch: Batch<u64> =
            [(rivermark_operators::Stamp::derived(rivermark_operators::Timestamp::MIN), 7)]
                .into_iter()
                .collect();
        writer.write(&mut batch).unwrap();
        let token = [writer.prepare(Epoch(1)).unwrap().unwrap()];
        let elsewhere = folder.path().join("elsewhere");
        std::fs::rename(&blocked, &elsewhere).unwrap();
        assert!(matches!(committer.commit(Epoch(1), &token), Err(CommitError::Unknown(_))));
        std::fs::rename(&elsewhere, &blocked).unwrap();
        committer.commit(Epoch(1), &token).unwrap();
        assert_eq!(part_files(&blocked).unwrap().len(), 1);
        // What is gone for good is refused.
        std::fs::remove_file(&part_files(&blocked).unwrap()[0]).unwrap();
        assert!(matches!(committer.commit(Epoch(1), &token), Err(CommitError::Refused(_))));
    }
}
