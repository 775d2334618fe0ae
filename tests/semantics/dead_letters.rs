//! Records that cannot be decoded: kept with where they were, or an error; never skipped.

use crate::support::Lab;
use rivermark::connectors::{Collect, CsvSource, JsonLinesSource, LogSource};
use rivermark::log::{RecordBatch, TopicOptions};
use rivermark::source::Source;
use rivermark::{
    DeadLetter, Engine, Flow, Options, Restart, StateBackend, Timestamp, Watermarks, Windows, millis,
};

/// Numbers as JSON in two partitions, with two records that are none.
fn lab(workers: usize) -> Lab {
    let lab = Lab::new(workers, StateBackend::Memory);
    let topic = lab.engine().log().create_topic("numbers", TopicOptions::new(2)).unwrap();
    let mut batch = RecordBatch::new();
    for value in ["1", "2", "three", "4"] {
        batch.push(None, Some(value.as_bytes()), 0);
    }
    topic.append(0, &mut batch).unwrap();
    batch.push(None, Some(b"5"), 0);
    batch.push(Some(b"key"), None, 0);
    topic.append(1, &mut batch).unwrap();
    lab
}

#[test]
fn what_cannot_be_decoded_goes_to_the_dead_letters_with_its_bytes_and_place() {
    let lab = lab(2);
    let (flow, numbers, dead) = (lab.flow(), Collect::new(), Collect::new());
    let source = LogSource::<u64>::topic("numbers").until_end();
    let (decoded, letters) = flow.source_with_dead_letters(source);
    decoded.sink(numbers.clone());
    letters.sink(dead.clone());
    let metrics = lab.engine().run(flow).unwrap();
    let mut numbers = numbers.rows();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 4, 5]);
    let mut dead: Vec<DeadLetter> = dead.rows();
    dead.sort_by(|a, b| (a.partition(), a.offset()).cmp(&(b.partition(), b.offset())));
    let found: Vec<_> = dead
        .iter()
        .map(|letter| (letter.partition().unwrap(), letter.offset().unwrap(), letter.key(), letter.value()))
        .collect();
    assert_eq!(
        found,
        [("numbers[0]", 2, None, Some(&b"three"[..])), ("numbers[1]", 1, Some(&b"key"[..]), None)]
    );
    assert!(dead.iter().all(|letter| !letter.error.is_empty()), "{dead:?}");
    assert_eq!(metrics.records_read, 6, "what cannot be decoded was read all the same");
}

#[test]
fn dead_letters_can_be_counted_in_windows_as_any_stream() {
    for workers in [1, 2] {
        let lab = lab(workers);
        let (flow, counts) = (lab.flow(), Collect::new());
        let source = LogSource::<u64>::topic("numbers").until_end();
        let (decoded, letters) = flow.source_with_dead_letters(source);
        decoded.sink(Collect::new());
        letters
            .event_time(
                |letter| Timestamp::from_millis(letter.offset().unwrap() as i64),
                Watermarks::monotonous(),
            )
            .key_by(|letter| letter.partition().unwrap().to_owned())
            .window(Windows::tumbling(millis(10)))
            .count()
            .sink(counts.clone());
        lab.engine().run(flow).unwrap();
        let mut counts: Vec<_> = counts.rows().into_iter().map(|row| (row.key, row.value)).collect();
        counts.sort();
        assert_eq!(counts, [("numbers[0]".to_string(), 1), ("numbers[1]".to_string(), 1)]);
    }
}

#[test]
fn without_a_dead_letter_output_the_job_stops_at_the_record_and_names_its_place() {
    let lab = lab(2);
    let flow = lab.flow();
    flow.source(LogSource::<u64>::topic("numbers").until_end()).sink(Collect::new());
    let error = lab.engine().run(flow).unwrap_err().to_string();
    let places = ["numbers[0] offset 2", "numbers[1] offset 1"];
    assert!(places.iter().any(|place| error.contains(place)), "{error}");
}

type Row = (u32, String);
/// Offset and bytes.
type BadRow = (u64, Vec<u8>);

fn read_file<S: Source<Item = Row>>(source: S) -> (Vec<Row>, Vec<BadRow>) {
    let lab = Lab::new(1, StateBackend::Memory);
    let (flow, rows, dead) = (lab.flow(), Collect::new(), Collect::new());
    let (decoded, letters) = flow.source_with_dead_letters(source);
    decoded.sink(rows.clone());
    letters.map(|letter| (letter.offset().unwrap(), letter.value().unwrap().to_vec())).sink(dead.clone());
    lab.engine().run(flow).unwrap();
    (rows.rows(), dead.rows())
}

#[test]
fn bad_rows_of_files_are_kept_byte_by_byte() {
    let directory = tempfile::tempdir().unwrap();
    let (csv, json) = (directory.path().join("rows.csv"), directory.path().join("rows.jsonl"));
    let rows = b"id,name\n1,one\n\n2,\"tw\"\"o\",3\nthree,x\n4,\xff\n5,\"fi\nve\"\n";
    std::fs::write(&csv, rows).unwrap();
    let (good, bad) = read_file(CsvSource::file(csv));
    assert_eq!(good, [(1, "one".to_string()), (5, "fi\nve".to_string())]);
    let expected = [(1, &b"2,\"tw\"\"o\",3"[..]), (2, b"three,x"), (3, b"4,\xff")];
    assert_eq!(bad, expected.map(|(at, bytes)| (at, bytes.to_vec())));

    std::fs::write(&json, b"[1,\"one\"]\n{\n[2,\"\xff\"]\n[5,\"five\"]").unwrap();
    let (good, bad) = read_file(JsonLinesSource::file(json));
    assert_eq!(good, [(1, "one".to_string()), (5, "five".to_string())]);
    assert_eq!(bad, [(1, b"{".to_vec()), (2, b"[2,\"\xff\"]".to_vec())]);
}

#[test]
fn files_that_changed_places_since_the_checkpoint_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(1).restart(Restart::Never);
    let engine = Engine::open_with(directory.path().join("data"), options).unwrap();
    let file = |name: &str, rows: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("id,name\n{rows}")).unwrap();
        path
    };
    let (a, b) = (file("a.csv", "1,one\n"), file("b.csv", "2,two\n3,three\n"));
    let rows = Collect::new();
    let run = |files: &[&std::path::PathBuf]| {
        let flow = Flow::new("files");
        flow.source(CsvSource::<(u32, String)>::files(files.iter().copied())).sink(rows.clone());
        engine.run(flow).map(|_| ())
    };
    run(&[&a, &b]).unwrap();
    let error = run(&[&b, &a]).unwrap_err().to_string();
    assert!(
        error.contains(
            "partition 0 of source `source-1` was `a.csv` when it was read first, and is `b.csv` now"
        ),
        "{error}"
    );
    let error = run(&[&a]).unwrap_err().to_string();
    assert!(
        error.contains("there is no file of partition 1") && error.contains("b.csv in the checkpoint"),
        "{error}"
    );
    run(&[&a, &b, &file("c.csv", "4,four\n")]).unwrap();
    assert_eq!(rows.rows().len(), 4);
}
