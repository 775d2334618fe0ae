//! Files that appear only when they are committed: the CSV and JSON-lines sinks.
//!
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

fn sync_directory(path: &Path) -> Result<(), BoxError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("syncing the directory", path))
}

/// Creates a directory and those it lies in, durably: what is synced into one that a power cut takes away is lost all the same.
fn create(path: &Path) -> Result<(), BoxError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), create)?;
    match std::fs::create_dir(path) {
        // Another worker was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created.map_err(failed("creating the directory", path))?,
    }
    sync_directory(parent.unwrap_or(Path::new(".")))
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
        create(&staging)?;
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
            Err(e) if e.kind() == io::ErrorKind::NotFound && part.exists() => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let problem = format!("{} is gone: the attempt that prepared it is fenced", staged.display());
                return Err(CommitError::Refused(problem.into()));
            }
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
}

/// Whether two names stand for different files.
fn is_other(staged: &Path, part: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    Ok(identity(staged)? != identity(part)?)
}

impl Committer for PartCommitter {
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        create(&self.staging).map_err(CommitError::Unknown)?;
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
