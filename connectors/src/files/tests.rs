use super::*;
use rivermark_operators::plan::Resources;
use rivermark_operators::sink::Batch;
use rivermark_operators::source::DeadLetter;
use std::cell::Cell;
use std::io::Cursor;

/// A file whose bytes beyond some place cannot be read for the next so many times.
struct Faulty {
    bytes: Cursor<Vec<u8>>,
    readable: u64,
    faults: Cell<u32>,
}

impl Faulty {
    fn new(text: &str, readable: u64) -> Faulty {
        Faulty { bytes: Cursor::new(text.into()), readable, faults: Cell::new(2) }
    }
}

impl Read for Faulty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.bytes.position();
        if self.faults.get() == 0 {
            return self.bytes.read(buffer);
        }
        if at >= self.readable {
            self.faults.set(self.faults.get() - 1);
            return Err(io::Error::other("the disk is ill"));
        }
        let most = buffer.len().min((self.readable - at) as usize);
        self.bytes.read(&mut buffer[..most])
    }
}

impl Seek for Faulty {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// Polls to the end, dead letters allowed, whatever errors come. Answers rows, dead letters and errors.
fn read_all(reader: &mut impl SourceReader<(u64, String)>) -> (Vec<u64>, Vec<DeadLetter>, Vec<String>) {
    let (mut rows, mut letters, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let (mut batch, mut dead) = (Batch::new(), Batch::new());
        let polled = reader.poll(3, &mut Records::into_batch(&mut batch).dead_letters_into(&mut dead));
        rows.extend(batch.drain().map(|(_, (number, _))| number));
        letters.extend(dead.drain().map(|(_, letter)| letter));
        match polled {
            Ok(Polled::Ready) => {}
            Ok(_) => return (rows, letters, errors),
            Err(error) => errors.push(error.to_string()),
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_not_a_dead_letter_nor_its_end() {
    let (csv, json) =
        ("number,name\n1,one\n2,two\n3,three\n4,four\n", "[1,\"\"]\n[2,\"\"]\n[3,\"\"]\n[4,\"\"]\n");
    // The error comes after whole rows, in the middle of a row, and just before the end.
    for (readable, from) in [(18, 18), (20, 18), (27, 24)] {
        let file = Faulty::new(csv, readable);
        let mut reader = CsvReader::new(file, "a.csv".into(), Place::default()).unwrap();
        let (rows, letters, errors) = read_all(&mut reader);
        let expected = format!("reading a.csv from byte {from} on: the disk is ill");
        assert_eq!((rows, letters, errors), (vec![1, 2, 3, 4], vec![], vec![expected.clone(), expected]));
    }
    for (readable, from) in [(7, 7), (10, 7), (24, 21)] {
        let mut reader =
            JsonLinesReader::new(Faulty::new(json, readable), "a.jsonl".into(), Place::default());
        let (rows, letters, errors) = read_all(&mut reader);
        let expected = format!("reading a.jsonl from byte {from} on: the disk is ill");
        assert_eq!((rows, letters, errors), (vec![1, 2, 3, 4], vec![], vec![expected.clone(), expected]));
    }
}

#[test]
fn a_dead_letter_has_the_bytes_that_the_file_has() {
    let bad: [&[u8]; 4] = [b"\"t\"\"wo\",\"2, two\"", b"\xff\xfe,three", b"4,\xff", b"5,five,fifth"];
    for newline in ["\n", "\r\n", "\n\n"] {
        let newline = newline.as_bytes();
        let file = [&[b"number,name", b"1,one".as_slice()], &bad[..], &[b"6,six"]].concat().join(newline);
        let open = |place| CsvReader::new(Cursor::new(file.clone()), "a.csv".into(), place).unwrap();
        let (rows, letters, errors) = read_all(&mut open(Place::default()));
        assert_eq!((rows, errors), (vec![1, 6], vec![]));
        let raw: Vec<_> = letters.iter().map(|letter| letter.value().unwrap()).collect();
        assert_eq!(raw, bad);
        let offsets: Vec<_> = letters.iter().map(|letter| letter.offset().unwrap()).collect();
        assert_eq!(offsets, [1, 2, 3, 4]);
        assert!(letters[0].error.contains("record 2 (line: "), "{}", letters[0].error);
        // They are the same in a run that begins in the middle.
        let mut reader = open(Place::default());
        let (mut batch, mut dead) = (Batch::new(), Batch::new());
        reader.poll(2, &mut Records::into_batch(&mut batch).dead_letters_into(&mut dead)).unwrap();
        let position = reader.position();
        let (_, rest, _) = read_all(&mut open(Place::decode(&position).unwrap().0));
        assert_eq!(rest, letters[1..]);
    }
    let lines = b"[1,\"\"]\n\n[\xff]\n[6,\"\"]\n".to_vec();
    let mut reader = JsonLinesReader::new(Cursor::new(lines), "a.jsonl".into(), Place::default());
    let (rows, letters, errors) = read_all(&mut reader);
    assert_eq!((rows, errors), (vec![1, 6], vec![]));
    assert_eq!(letters[0].value(), Some(&b"[\xff]"[..]));
    assert!(letters[0].error.starts_with("line 3 of the file, byte 8: "), "{}", letters[0].error);
}

#[test]
fn another_file_in_a_checkpointed_partition_s_place_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("a.csv"), "number,name\n1,one\n2,two\n").unwrap();
    std::fs::copy(path("a.csv"), path("b.csv")).unwrap();
    let resources = Resources::default();
    let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
    let open = |files: &[&str], partition, position: Option<&[u8]>| {
        let source = CsvSource::<(u64, String)>::files(files.iter().map(|name| path(name)));
        source.reader(partition, position, Waker::none(), &cx)
    };
    let mut reader = open(&["a.csv"], 0, None).unwrap();
    reader.poll(1, &mut Records::into_batch(&mut Batch::new())).unwrap();
    let position = reader.position();
    assert_eq!(read_all(&mut open(&["a.csv", "b.csv"], 0, Some(&position)).unwrap()).0, [2]);

    let refused = |files: &[&str], partition| {
        open(files, partition, Some(&position)).err().expect("it is refused").to_string()
    };
    let error = refused(&["b.csv", "a.csv"], 0);
    assert!(
        error.contains("a.csv in the checkpoint, and ") && error.contains("b.csv in the list"),
        "{error}"
    );
    let error = refused(&["b.csv"], 1);
    assert!(
        error.contains("no file of partition 1, ") && error.contains("a.csv in the checkpoint"),
        "{error}"
    );
    assert!(open(&["a.csv"], 3, None).is_err());
    std::fs::write(path("a.csv"), "number,name\n").unwrap();
    let error = refused(&["a.csv"], 0);
    assert!(error.contains("a.csv has 12 bytes, and 18 of them were read"), "{error}");
}
