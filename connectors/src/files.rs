//! Reading files of rows: CSV and JSON lines. A file is a partition; its records are numbered from 0.
//!
//! 1. A position is a place in a file and the file's path. A list that has another file in that place is refused: it would be read from
//!    somewhere in its middle.
//! 2. A row that does not decode goes to the dead letters with its bytes as the file has them. A file that cannot be read is another matter:
//!    that ends the attempt, whatever the flow does with dead letters.
//! 3. After an error a reader is before the record that it could not give; the file is sought anew with the next poll.

use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark_operators::{BoxError, Timestamp};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// CSV files (RFC 4180) with a header line, read to their ends.
#[derive(Clone, Debug)]
pub struct CsvSource<T> {
    files: Vec<PathBuf>,
    records: PhantomData<fn() -> T>,
}

impl<T> CsvSource<T> {
    /// Reads one file.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self::files([file])
    }

    /// Reads several files, each a partition. Their order numbers them: a flow that has a checkpoint goes on only if the list begins with
    /// the same paths in the same order. New files go to its end.
    pub fn files(files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        CsvSource { files: files.into_iter().map(Into::into).collect(), records: PhantomData }
    }
}

/// Files of one JSON value a line, read to their ends. Empty lines are skipped.
#[derive(Clone, Debug)]
pub struct JsonLinesSource<T> {
    files: Vec<PathBuf>,
    records: PhantomData<fn() -> T>,
}

impl<T> JsonLinesSource<T> {
    /// Reads one file.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self::files([file])
    }

    /// Reads several files, each a partition. Their order numbers them: a flow that has a checkpoint goes on only if the list begins with
    /// the same paths in the same order. New files go to its end.
    pub fn files(files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        JsonLinesSource { files: files.into_iter().map(Into::into).collect(), records: PhantomData }
    }
}

fn partitions_of(files: &[PathBuf]) -> Vec<SourcePartition> {
    let partition = |(number, file): (usize, &PathBuf)| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        SourcePartition { number: number as u32, name }
    };
    files.iter().enumerate().map(partition).collect()
}

fn opening(file: &Path) -> impl Fn(io::Error) -> BoxError {
    move |e| format!("opening {}: {e}", file.display()).into()
}

fn reading(file: &str, byte: u64, error: impl std::fmt::Display) -> BoxError {
    format!("reading {file} from byte {byte} on: {error}").into()
}

/// What is common to the readers of files.
struct Opened {
    file: File,
    /// The file's path, in messages and positions.
    path: String,
    place: Place,
}

/// Opens the file of a partition, which has to be the one that the position was taken in.
fn open(files: &[PathBuf], partition: u32, position: Option<&[u8]>) -> Result<Opened, BoxError> {
    let position = position.map(Place::decode).transpose()?;
    let Some(path) = files.get(partition as usize) else {
        let named = position.map(|(_, was)| format!(", {was} in the checkpoint,")).unwrap_or_default();
        let problem = format!(
            "there is no file of partition {partition}{named} in the list of {}; keep the files and their order",
            files.len()
        );
        return Err(problem.into());
    };
    let name = path.to_string_lossy().into_owned();
    let place = match position {
        Some((_, was)) if was != name => {
            let problem = format!(
                "partition {partition} is {was} in the checkpoint, and {name} in the list; \
                 keep the files and their order, add new ones at the end, or give the flow a new version"
            );
            return Err(problem.into());
        }
        Some((place, _)) => place,
        None => Place::default(),
    };
    let file = File::open(path).map_err(opening(path))?;
    let length = file.metadata().map_err(opening(path))?.len();
    if length < place.byte {
        let problem = format!("{name} has {length} bytes, and {} of them were read: it was cut", place.byte);
        return Err(problem.into());
    }
    Ok(Opened { file, path: name, place })
}

/// Where a reader of a file is: how many records lie before, and how many bytes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    record: u64,
    byte: u64,
    line: u64,
}

impl Place {
    /// The place, then the path of the file that it is in.
    fn encode(self, path: &str) -> Vec<u8> {
        let numbers = [self.record, self.byte, self.line].into_iter().flat_map(u64::to_le_bytes);
        numbers.chain(path.bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Result<(Place, &str), BoxError> {
        let parsed = bytes.split_at_checked(24).and_then(|(numbers, path)| {
            let [record, byte, line] = numbers.as_chunks::<8>().0 else { return None };
            let [record, byte, line] = [record, byte, line].map(|number| u64::from_le_bytes(*number));
            Some((Place { record, byte, line }, std::str::from_utf8(path).ok()?))
        });
        parsed.ok_or_else(|| "the checkpoint's position is not a place in a file".into())
    }
}

impl<T: DeserializeOwned + Send + 'static> Source for CsvSource<T> {
    type Item = T;
    type Reader = CsvReader<T>;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Ok(partitions_of(&self.files))
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<CsvReader<T>, BoxError> {
        let Opened { file, path, place } = open(&self.files, partition, position)?;
        CsvReader::new(file, path, place)
    }
}

/// Reads one CSV file.
pub struct CsvReader<T, F = File> {
    reader: csv::Reader<F>,
    path: String,
    headers: csv::ByteRecord,
    /// The place after the last record that was given out.
    place: Place,
    /// The file is being read somewhere else, after an error.
    misplaced: bool,
    row: csv::ByteRecord,
    records: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned, F: Read + Seek> CsvReader<T, F> {
    fn new(file: F, path: String, place: Place) -> Result<Self, BoxError> {
        let mut reader = csv::Reader::from_reader(file);
        let headers = reader.headers().map_err(|e| format!("reading the header of {path}: {e}"))?;
        let headers = headers.as_byte_record().clone();
        let mut opened = CsvReader {
            reader,
            path,
            headers,
            place,
            misplaced: place.byte > 0,
            row: csv::ByteRecord::new(),
            records: PhantomData,
        };
        if !opened.misplaced {
            opened.place = opened.reached(0);
        }
        Ok(opened)
    }

    /// Where the file is being read, `record` records having come before.
    fn reached(&self, record: u64) -> Place {
        let at = self.reader.position();
        Place { record, byte: at.byte(), line: at.line() }
    }

    fn seek(&mut self, place: Place) -> Result<(), BoxError> {
        let mut to = csv::Position::new();
        // The header is a record to the parser.
        to.set_byte(place.byte).set_line(place.line).set_record(place.record + 1);
        // `Reader::seek` would do nothing where it stands already, not even forget an error.
        let sought = self.reader.seek_raw(SeekFrom::Start(place.byte), to);
        sought.map_err(|e| reading(&self.path, place.byte, e))
    }

    /// Gives out the next row; false at the end.
    fn next(&mut self, records: &mut Records<'_, T>) -> Result<bool, BoxError> {
        let decoded = match self.reader.read_byte_record(&mut self.row) {
            Ok(false) => return Ok(false),
            Ok(true) => self.row.deserialize(Some(&self.headers)),
            Err(e) if e.is_io_error() => return Err(reading(&self.path, self.place.byte, e)),
            Err(e) => Err(e),
        };
        match decoded {
            Ok(value) => records.push(self.place.record, Timestamp::MIN, value),
            Err(e) => {
                let row = self.read_again()?;
                records.undecodable(self.place.record, None, Some(trim_newlines(&row)), e)?;
            }
        }
        Ok(true)
    }

    /// The bytes of the row that was read last, as they are in the file: what the parser has of them lacks quotes.
    fn read_again(&mut self) -> Result<Vec<u8>, BoxError> {
        let after = self.reached(self.place.record + 1);
        let mut row = vec![0; (after.byte - self.place.byte) as usize];
        let file = self.reader.get_mut();
        let read = file.seek(SeekFrom::Start(self.place.byte)).and_then(|_| file.read_exact(&mut row));
        read.map_err(|e| reading(&self.path, self.place.byte, e))?;
        self.seek(after)?;
        Ok(row)
    }
}

/// A row without what separates it from its neighbours: the end of a line may come before it, too, and empty lines are skipped.
fn trim_newlines(row: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b'\r' | b'\n');
    let (first, last) = (row.iter().position(is_text), row.iter().rposition(is_text));
    first.zip(last).map_or(&[], |(first, last)| &row[first..=last])
}

impl<T: DeserializeOwned, F: Read + Seek> SourceReader<T> for CsvReader<T, F> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        if self.misplaced {
            self.seek(self.place)?;
        }
        for _ in 0..max {
            self.misplaced = true;
            let some = self.next(records)?;
            self.misplaced = false;
            if !some {
                return Ok(Polled::Ended);
            }
            let after = self.reached(self.place.record + 1);
            records.add_bytes(after.byte - self.place.byte);
            self.place = after;
        }
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        self.place.encode(&self.path)
    }
}

impl<T: DeserializeOwned + Send + 'static> Source for JsonLinesSource<T> {
    type Item = T;
    type Reader = JsonLinesReader<T>;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        Ok(partitions_of(&self.files))
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<JsonLinesReader<T>, BoxError> {
        let Opened { file, path, place } = open(&self.files, partition, position)?;
        Ok(JsonLinesReader::new(file, path, place))
    }
}

/// Reads one file of JSON lines.
pub struct JsonLinesReader<T, F = File> {
    file: BufReader<F>,
    path: String,
    /// The place after the last record that was given out.
    place: Place,
    /// The file is being read somewhere else, after an error.
    misplaced: bool,
    line: Vec<u8>,
    records: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned, F: Read + Seek> JsonLinesReader<T, F> {
    fn new(file: F, path: String, place: Place) -> Self {
        let file = BufReader::new(file);
        JsonLinesReader {
            file,
            path,
            place,
            misplaced: place.byte > 0,
            line: Vec::new(),
            records: PhantomData,
        }
    }

    /// Gives out the next line's record, if it has one. Answers the place after it; none at the end.
    fn next(&mut self, records: &mut Records<'_, T>) -> Result<Option<Place>, BoxError> {
        let Place { mut record, byte, line } = self.place;
        self.line.clear();
        let read = self.file.read_until(b'\n', &mut self.line);
        let bytes = read.map_err(|e| reading(&self.path, byte, e))? as u64;
        let text = self.line.trim_ascii();
        if !text.is_empty() {
            match serde_json::from_slice(text) {
                Ok(value) => records.push(record, Timestamp::MIN, value),
                Err(e) => {
                    // serde_json knows of one line only.
                    let e = format!("line {} of the file, byte {byte}: {e}", line + 1);
                    records.undecodable(record, None, Some(text), e)?;
                }
            }
            record += 1;
        }
        Ok((bytes > 0).then_some(Place { record, byte: byte + bytes, line: line + 1 }))
    }
}

impl<T: DeserializeOwned, F: Read + Seek> SourceReader<T> for JsonLinesReader<T, F> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        if self.misplaced {
            let sought = self.file.seek(SeekFrom::Start(self.place.byte));
            sought.map_err(|e| reading(&self.path, self.place.byte, e))?;
        }
        let until = self.place.record.saturating_add(max as u64);
        while self.place.record < until {
            self.misplaced = true;
            let after = self.next(records)?;
            self.misplaced = false;
            let Some(after) = after else { return Ok(Polled::Ended) };
            records.add_bytes(after.byte - self.place.byte);
            self.place = after;
        }
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        self.place.encode(&self.path)
    }
}

#[cfg(test)]
mod tests;
