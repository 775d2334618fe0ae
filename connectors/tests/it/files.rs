use rivermark_connectors::conformance::{check_sink, check_source};
use rivermark_connectors::{CsvSink, CsvSource, JsonLinesSink, JsonLinesSource, part_files};
use rivermark_operators::plan::Resources;
use rivermark_operators::sink::Batch;
use rivermark_operators::source::{ConnectorContext, Records, Source, SourceReader, Waker};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Row {
    number: u64,
    name: String,
}

fn row(number: u64) -> Row {
    Row { number, name: format!("\"quoted\", {number}\nand broken") }
}

fn write_csv(path: &Path, rows: &[Row]) {
    let mut writer = csv::Writer::from_path(path).unwrap();
    rows.iter().for_each(|row| writer.serialize(row).unwrap());
    writer.flush().unwrap();
}

fn write_json(path: &Path, rows: &[Row]) {
    let lines: Vec<_> = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n\n").collect();
    std::fs::write(path, lines.concat()).unwrap();
}

#[test]
fn csv_files_are_a_source() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.csv"), directory.path().join("b.csv"));
    write_csv(&a, &(0..7).map(row).collect::<Vec<_>>());
    std::fs::write(&b, "number,name\n").unwrap();
    check_source(&CsvSource::<Row>::files([a, b]), &Resources::default());
}

#[test]
fn files_of_json_lines_are_a_source() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.jsonl"), directory.path().join("b.jsonl"));
    write_json(&a, &(0..7).map(row).collect::<Vec<_>>());
    std::fs::write(&b, "").unwrap();
    check_source(&JsonLinesSource::<Row>::files([a, b]), &Resources::default());
}

fn read_csv<T: DeserializeOwned>(directory: &Path) -> Vec<T> {
    let files = part_files(directory).unwrap();
    let rows = files.iter().flat_map(|file| csv::Reader::from_path(file).unwrap().into_deserialize::<T>());
    rows.map(Result::unwrap).collect()
}

fn read_json<T: DeserializeOwned>(directory: &Path) -> Vec<T> {
    let files = part_files(directory).unwrap();
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn csv_files_are_a_sink() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let make = || (CsvSink::directory(&out), Resources::default());
    check_sink(make, row, |_, _| read_csv::<Row>(&out));
}

#[test]
fn files_of_json_lines_are_a_sink() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let make = || (JsonLinesSink::directory(&out), Resources::default());
    check_sink(make, row, |_, _| read_json::<Row>(&out));
}

#[test]
fn an_undecodable_line_is_an_error_that_says_where_and_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    let (csv, json) = (directory.path().join("a.csv"), directory.path().join("a.jsonl"));
    std::fs::write(&csv, "number,name\n1,one\ntwo,two\n").unwrap();
    std::fs::write(&json, "{\"number\":1,\"name\":\"one\"}\n{\"number\":\"two\"}\n").unwrap();
    fn errors<S: Source<Item = Row>>(source: &S) -> Vec<String> {
        let resources = Resources::default();
        let cx = ConnectorContext { flow: "f", version: 1, name: "s", resources: &resources };
        let mut reader = source.reader(0, None, Waker::none(), &cx).unwrap();
        let mut poll = || {
            let mut batch = Batch::new();
            reader.poll(10, &mut Records::into_batch(&mut batch)).unwrap_err().to_string()
        };
        vec![poll(), poll()]
    }
    for errors in [errors(&CsvSource::<Row>::file(csv)), errors(&JsonLinesSource::<Row>::file(json))] {
        assert!(errors.iter().all(|error| error.contains("offset 1: cannot be decoded")), "{errors:?}");
    }
}
