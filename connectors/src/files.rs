//! Reading files of rows: CSV and JSON lines. A file is a partition; its records are numbered from 0.

use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark_operators::{BoxError, Timestamp};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
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

    /// Reads several files, each a partition. Their order numbers them, so it must not change for a flow that has a checkpoint.
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

    /// Reads several files, each a partition. Their order numbers them, so it must not change for a flow that has a checkpoint.
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

fn opening(file: &Path) -> impl Fn(std::io::Error) -> BoxError {
    let file = file.to_owned();
    move |e| format!("opening {}: {e}", file.display()).into()
}

/// Opens the file of a partition. Answers what it is called and where its reader is to go on.
fn open<'a>(
    files: &'a [PathBuf],
    partition: u32,
    position: Option<&[u8]>,
) -> Result<(&'a Path, File, Place), BoxError> {
    let path = &files[partition as usize];
    let file = File::open(path).map_err(opening(path))?;
    Ok((path, file, position.map_or(Ok(Place::default()), Place::decode)?))
}

/// Where a reader of a file is: how many records lie before, and how many bytes.
#[derive(Copy, Clone, Debug, Default)]
struct Place {
    record: u64,
    byte: u64,
    line: u64,
}

impl Place {
    fn encode(self) -> Vec<u8> {
        [self.record, self.byte, self.line].iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Place, BoxError> {
        let numbers = bytes.as_chunks::<8>();
        let ([record, byte, line], []) = numbers else {
            return Err("the checkpoint's position is not a place in a file".into());
        };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        Ok(Place { record: number(record), byte: number(byte), line: number(line) })
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
        let (path, file, place) = open(&self.files, partition, position)?;
        let mut reader = csv::Reader::from_reader(file);
        let headers =
            reader.headers().map_err(|e| format!("reading the header of {}: {e}", path.display()))?.clone();
        if place.byte > 0 {
            let mut to = csv::Position::new();
            to.set_byte(place.byte).set_line(place.line).set_record(place.record);
            reader.seek(to)?;
        }
        Ok(CsvReader {
            reader,
            headers,
            record: place.record,
            row: csv::StringRecord::new(),
            records: PhantomData,
        })
    }
}

/// Reads one CSV file.
pub struct CsvReader<T> {
    reader: csv::Reader<File>,
    headers: csv::StringRecord,
    /// How many records lie before.
    record: u64,
    row: csv::StringRecord,
    records: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> SourceReader<T> for CsvReader<T> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        for _ in 0..max {
            let before = self.reader.position().clone();
            let read = self.reader.read_record(&mut self.row);
            let decoded = match read {
                Ok(false) => return Ok(Polled::Ended),
                Ok(true) => self.row.deserialize(Some(&self.headers)),
                Err(e) => Err(e),
            };
            match decoded {
                Ok(value) => records.push(self.record, Timestamp::MIN, value),
                Err(e) => {
                    let bytes = self.row.iter().collect::<Vec<_>>().join(",");
                    if let Err(e) = records.undecodable(self.record, None, Some(bytes.as_bytes()), e) {
                        self.reader.seek(before)?;
                        return Err(e);
                    }
                }
            }
            records.add_bytes(self.reader.position().byte() - before.byte());
            self.record += 1;
        }
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        let at = self.reader.position();
        Place { record: self.record, byte: at.byte(), line: at.line() }.encode()
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
        let (path, mut file, place) = open(&self.files, partition, position)?;
        file.seek(SeekFrom::Start(place.byte)).map_err(opening(path))?;
        Ok(JsonLinesReader { file: BufReader::new(file), place, line: Vec::new(), records: PhantomData })
    }
}

/// Reads one file of JSON lines.
pub struct JsonLinesReader<T> {
    file: BufReader<File>,
    place: Place,
    line: Vec<u8>,
    records: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> SourceReader<T> for JsonLinesReader<T> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        let mut given = 0;
        while given < max {
            self.line.clear();
            let bytes = self.file.read_until(b'\n', &mut self.line)? as u64;
            if bytes == 0 {
                return Ok(Polled::Ended);
            }
            let text = self.line.trim_ascii();
            if !text.is_empty() {
                match serde_json::from_slice(text) {
                    Ok(value) => records.push(self.place.record, Timestamp::MIN, value),
                    Err(e) => {
                        if let Err(e) = records.undecodable(self.place.record, None, Some(text), e) {
                            self.file.seek(SeekFrom::Start(self.place.byte))?;
                            return Err(e);
                        }
                    }
                }
                given += 1;
                self.place.record += 1;
            }
            self.place.byte += bytes;
            self.place.line += 1;
            records.add_bytes(bytes);
        }
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        self.place.encode()
    }
}
