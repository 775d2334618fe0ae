//! `log`.

use crate::support::*;
use crate::words;
use rivermark::log::{Compaction, RecordBatch, TopicOptions};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

#[test]
fn topics_and_partitions_are_listed() {
    let data = Data::counted();
    let said = data.say("log topics").expect(0);
    assert!(said.out.lines().next().unwrap().starts_with("topic "), "{}", said.out);
    assert!(said.out.contains("words") && said.out.contains("counts.v1"), "{}", said.out);
    let listed = data.say("log topics --json").expect(0).json();
    let words = listed["topics"].as_array().unwrap().iter().find(|topic| topic["topic"] == "words").unwrap();
    assert_eq!((&words["records"], &words["compacted"]), (&json!(100), &json!(false)));
    let of_one = data.say("log topics words --json").expect(0).json();
    assert_eq!(of_one["partitions"][1]["end"], 50);
    assert_eq!(of_one["partitions"][1]["max_timestamp_ms"], 99_000);
}

/// Offsets of records that were printed, by partition.
fn offsets(said: &Said) -> Vec<(u64, u64)> {
    let record = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let place = |record: Value| (record["partition"].as_u64().unwrap(), record["offset"].as_u64().unwrap());
    said.out.lines().map(record).map(place).collect()
}

#[test]
fn a_topic_is_read_from_where_one_says() {
    let data = Data::counted();
    let tail = |arguments: &str| offsets(&data.say(&format!("log tail words --json {arguments}")).expect(0));
    assert_eq!(tail("").len(), 20);
    assert_eq!(tail("-n 2"), [(0, 48), (0, 49), (1, 48), (1, 49)]);
    assert_eq!(tail("--from 47 --partition 1"), [(1, 47), (1, 48), (1, 49)]);
    assert_eq!(tail("--from earliest --count 3"), [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(tail("--from latest"), []);
    // Second 96 is the first of partition 0 behind 95.
    assert_eq!(tail("--from 1970-01-01T00:01:35 -p 0"), [(0, 48), (0, 49)]);
    let line = data.say("log tail words -n 1 -p 1").expect(0).out;
    assert_eq!(line, "1:49  1970-01-01T00:01:39Z  delta  [\"delta\",99]\n");
    data.say("log tail words --from yesterday").expect(2).complains(&["`yesterday` is no time", "earliest"]);
    data.say("log tail words --partition 7").expect(5).complains(&["partition 7", "2 partitions"]);
    data.say("log tail words --from 700 -p 0").expect(5).complains(&["offset 700"]);
}

#[test]
fn what_is_no_text_is_printed_as_bytes_and_disturbs_no_terminal() {
    let data = Data::new();
    let engine = data.engine();
    let topic = engine.log().create_topic("raw", TopicOptions::new(1)).unwrap();
    let mut batch = RecordBatch::new();
    batch.push(Some(&[0xff, 0x00]), Some(b"a\x1b[2Jb"), 0);
    batch.push(Some(b"gone"), None, 0);
    topic.append(0, &mut batch).unwrap();
    let said = data.say("log tail raw --json").expect(0);
    let records: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[0]["key_hex"], "ff00");
    assert_eq!(records[0]["value"], "a\u{1b}[2Jb");
    assert_eq!(records[1]["value"], Value::Null);
    let text = data.say("log tail raw").expect(0).out;
    assert!(text.contains("\\xff\\x00") && !text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn following_a_topic_shows_what_another_process_appends() {
    let data = Data::new();
    let engine = data.engine();
    words::append(&engine, 0, 4).unwrap();
    let mut command = rivermark();
    command
        .arg("--data")
        .arg(data.path())
        .args(["log", "tail", "words", "-f", "--from", "earliest", "--json", "-n", "7"]);
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    for _ in 0..4 {
        assert!(lines.next().unwrap().unwrap().contains("\"topic\":\"words\""));
    }
    words::append(&engine, 4, 7).unwrap();
    let mut seconds: Vec<i64> = lines
        .map(|line| {
            serde_json::from_str::<Value>(&line.unwrap()).unwrap()["timestamp_ms"].as_i64().unwrap() / 1000
        })
        .collect();
    seconds.sort_unstable();
    assert_eq!(seconds, [4, 5, 6]);
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn lines_are_appended_where_a_sink_would_put_them() {
    let data = Data::counted();
    let said =
        data.feed("log append words --key-separator : --json", "alpha:1\nbeta:2\ngamma:\n").expect(0).json();
    assert_eq!(said["records"], 3);
    let tail = data.say("log tail words -n 3 --json").expect(0).out;
    assert!(tail.contains("\"key\":\"gamma\"") && tail.contains("\"value\":\"\""), "{tail}");
    let keyed = data.feed("log append counts.v1 --key-separator =", "alpha=x").expect(0);
    assert!(keyed.out.contains("appended 1 records to topic `counts.v1`"), "{}", keyed.out);
    let all = data.feed("log append words --partition 1", "no key\n").expect(0);
    assert!(all.out.contains("partition 1: offsets "), "{}", all.out);
}

#[test]
fn a_line_without_its_key_is_named_and_what_came_before_it_is_there() {
    let data = Data::counted();
    let said = data.feed("log append words --key-separator :", "a:1\nno key\nb:2\n").expect(1);
    assert!(said.err.contains("line 2 has no `:`"), "{}", said.err);
    assert!(said.out.contains("appended 1 records"), "{}", said.out);
}

#[test]
fn a_topic_is_made_only_if_one_says_so() {
    let data = Data::counted();
    data.feed("log append wrds", "x\n").expect(5).complains(&["no topic `wrds`", "did you mean `words`?"]);
    data.feed("log append new --create 3", "x\n").expect(0);
    assert_eq!(data.say("log topics new --json").json()["partitions"].as_array().unwrap().len(), 3);
    let fresh = Data::new();
    fresh.feed("log append words", "x\n").expect(5).complains(&["no such directory", "--data"]);
    assert!(!fresh.path().exists(), "a command that was refused has made a directory");
    fresh.feed("log append words --create 1", "x\n").expect(0);
}

#[test]
fn what_changes_a_directory_is_refused_while_another_process_holds_it_and_says_which() {
    let data = Data::counted();
    let engine = data.engine();
    let holder = format!("process {}", std::process::id());
    data.feed("log append words", "x\n").expect(4).complains(&["appending to topic `words`", &holder]);
    data.say("log compact").expect(4).complains(&["compacting", &holder]);
    drop(engine);
    data.feed("log append words", "x\n").expect(0);
}

#[test]
fn a_damaged_segment_is_found_and_named() {
    let data = Data::counted();
    {
        // Damage in the last batch of all cannot be told from one that was being written.
        let engine = data.engine();
        words::append(&engine, 100, 200).unwrap();
        words::append(&engine, 200, 300).unwrap();
    }
    let whole = data.say("log verify --json").expect(0).json();
    assert_eq!(whole["damage"], json!([]));
    assert!(whole["records"].as_u64().unwrap() >= 200, "{whole}");
    let segments = files(&data.path().join("log/topics/words/1"));
    damage(segments.iter().find(|path| path.extension().is_some_and(|e| e == "log")).unwrap());
    // Only one topic is damaged.
    data.say("log verify counts.v1").expect(0);
    let said = data.say("log verify words").expect(3);
    assert!(
        said.out.contains("topic words, partition 1") && said.err.contains("restore"),
        "{}{}",
        said.out,
        said.err
    );
    let found = data.say("log verify --json").expect(3).json();
    assert_eq!(found["damage"].as_array().unwrap().len(), 1, "{found}");
    data.say("log verify wods").expect(5).complains(&["no topic `wods`", "`words`"]);
}

#[test]
fn a_compacted_topic_keeps_the_last_record_of_a_key() {
    let data = Data::new();
    let engine = data.engine();
    let options = TopicOptions::new(1).compaction(Compaction::default());
    let topic = engine.log().create_topic("prices", options).unwrap();
    engine.log().create_topic("plain", TopicOptions::new(1)).unwrap();
    for price in 0..50 {
        let mut batch = RecordBatch::new();
        batch.push(Some(b"gold"), Some(price.to_string().as_bytes()), price);
        topic.append(0, &mut batch).unwrap();
    }
    drop((topic, engine));
    let said = data.say("log compact --json").expect(0).json();
    assert_eq!(said["topics"][0]["records_before"], 50);
    assert_eq!(said["topics"][0]["records"], 1);
    let tail = data.say("log tail prices --from earliest --json").expect(0);
    assert_eq!(offsets(&tail), [(0, 49)]);
    data.say("log compact plain").expect(1).complains(&["topic plain", "keeps all records"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let data = Data::new();
    words::append(&data.engine(), 0, 100_000).unwrap();
    let mut command = rivermark();
    command.arg("--data").arg(data.path()).args(["log", "tail", "words", "--from", "earliest"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 10];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut some).unwrap();
    drop(out);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}
