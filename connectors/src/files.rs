//! Reading files of rows: CSV and JSON lines. A file is a partition; its records are numbered from 0.

use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark_operators::{BoxError, Timestamp};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
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
    let path = files.get(partition as usize).ok_or_else(|| {
        format!(
            "the checkpoint goes on in file {partition}, and there are {} now: files may be added behind the others, never removed",
            files.len()
        )
    })?;
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
        let headers = reader.byte_headers();
        let headers = headers.map_err(|e| format!("reading the header of {}: {e}", path.display()))?.clone();
        if place.byte > 0 {
            let mut to = csv::Position::new();
            to.set_byte(place.byte).set_line(place.line).set_record(place.record);
            reader.seek(to)?;
        }
        Ok(CsvReader {
            path: path.to_owned(),
            reader,
            headers,
            record: place.record,
            row: csv::ByteRecord::new(),
            records: PhantomData,
        })
    }
}

/// Reads one CSV file.
pub struct CsvReader<T, R = File> {
    path: PathBuf,
    reader: csv::Reader<R>,
    headers: csv::ByteRecord,
    /// How many records lie before.
    record: u64,
    row: csv::ByteRecord,
    records: PhantomData<fn() -> T>,
}

impl<T, R> CsvReader<T, R> {
    /// The bytes of a row as they are in the file, without the end of the line.
    fn raw(&self, from: u64, to: u64) -> Result<Vec<u8>, BoxError> {
        let failed = |e| format!("reading bytes {from} to {to} of {} again: {e}", self.path.display());
        let mut bytes = Vec::new();
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        file.take(to - from).read_to_end(&mut bytes).map_err(failed)?;
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        bytes.truncate(bytes.iter().rposition(|byte| !is_end(byte)).map_or(0, |last| last + 1));
        Ok(bytes.into_iter().skip_while(is_end).collect())
    }
}

impl<T: DeserializeOwned, R: Read + Seek> SourceReader<T> for CsvReader<T, R> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        for _ in 0..max {
            let before = self.reader.position().clone();
            let decoded = match self.reader.read_byte_record(&mut self.row) {
                Ok(false) => return Ok(Polled::Ended),
                Ok(true) => self.row.deserialize(Some(&self.headers)),
                // Nothing is known of the row, nor of those behind it.
                Err(e) if e.is_io_error() => {
                    let (path, byte) = (self.path.display(), before.byte());
                    return Err(format!("reading {path} at byte {byte}: {e}").into());
                }
                Err(e) => Err(e),
            };
            let after = self.reader.position().byte();
            match decoded {
                Ok(value) => records.push(self.record, Timestamp::MIN, value),
                Err(e) => {
                    let raw = self.raw(before.byte(), after)?;
                    if let Err(e) = records.undecodable(self.record, None, Some(&raw), e) {
                        self.reader.seek(before)?;
                        return Err(e);
                    }
                }
            }
            records.add_bytes(after - before.byte());
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

#[cfg(test)]
mod tests {
    use super::*;
    use rivermark_operators::Batch;
    use std::io;

    /// A file on a disk that fails from some byte on.
    struct Failing(io::Cursor<Vec<u8>>, u64);

    impl Read for Failing {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let left = self.1.saturating_sub(self.0.position()) as usize;
            if left == 0 {
                return Err(io::Error::other("bad sector"));
            }
            let some = bytes.len().min(left);
            self.0.read(&mut bytes[..some])
        }
    }

    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn a_disk_that_fails_is_no_bad_row_and_no_end() {
        let file = Failing(io::Cursor::new(b"a,b\n1,2\n3,4\n5,6\n".to_vec()), 10);
        let mut reader = csv::Reader::from_reader(file);
        let headers = reader.byte_headers().unwrap().clone();
        let (path, row) = (PathBuf::from("/data/rows.csv"), csv::ByteRecord::new());
        let mut reader: CsvReader<(u8, u8), Failing> =
            CsvReader { path, reader, headers, record: 0, row, records: PhantomData };
        let mut batch = Batch::new();
        let error = reader.poll(10, &mut Records::into_batch(&mut batch)).unwrap_err().to_string();
        assert!(
            error.contains("reading /data/rows.csv at byte 8: ") && error.contains("bad sector"),
            "{error}"
        );
        assert_eq!(batch.values(), [(1, 2)]);
    }
}
