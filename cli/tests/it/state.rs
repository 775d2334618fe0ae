//! `state`: against what the flow's own handles read.

use crate::support::*;
use crate::words::{self, COUNT, LETTERS, Seen, TIMES};
use rivermark::connectors::LogSource;
use rivermark::{AtRest, Engine, Flow, OperatorState, Options, Timestamp, Watermarks, Windows, millis, secs};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The operator of a savepoint of the counted words.
fn at_rest(data: &Data) -> OperatorState {
    let engine = data.engine();
    let savepoint = data.start(&engine).stop_with_savepoint("rest").unwrap();
    savepoint.operator("process-1").unwrap()
}

fn entries<P: 'static, H: AtRest<P>>(operator: &OperatorState, handle: H) -> Vec<(P, H::Entry)> {
    operator.entries(handle).unwrap().map(Result::unwrap).collect()
}

fn scan(data: &Data, arguments: &str) -> Vec<Value> {
    let said = data.say(&format!("state scan --savepoint rest --json {arguments}")).expect(0).json();
    said["entries"].as_array().unwrap().clone()
}

#[test]
fn states_of_every_kind_are_scanned_as_their_handles_read_them() {
    let data = Data::new();
    let operator = at_rest(&data);
    let pairs = |entries: Vec<Value>| -> Vec<(Value, Value)> {
        entries.into_iter().map(|entry| (entry["key"].clone(), entry["value"].clone())).collect()
    };
    let count: Vec<_> =
        entries::<String, _>(&operator, COUNT).into_iter().map(|(k, v)| (json!(k), json!(v))).collect();
    assert_eq!(pairs(scan(&data, "process-1 count")), count);
    assert_eq!(count.len(), 4);
    let times: Vec<_> =
        entries::<String, _>(&operator, TIMES).into_iter().map(|(k, v)| (json!(k), json!(v))).collect();
    assert_eq!(pairs(scan(&data, "process-1 times")), times);
    let letters: Vec<_> = entries::<(String, char), _>(&operator, LETTERS)
        .into_iter()
        .map(|((k, letter), n)| (json!(k), json!(letter), json!(n)))
        .collect();
    let scanned: Vec<_> = scan(&data, "process-1 letters")
        .into_iter()
        .map(|entry| (entry["key"].clone(), entry["map_key"].clone(), entry["value"].clone()))
        .collect();
    assert_eq!(scanned, letters);
    let timers: Vec<(i64, String)> = operator
        .timers::<String>("timers")
        .unwrap()
        .map(|timer| timer.map(|(at, key)| (at.millis(), key)).unwrap())
        .collect();
    let scanned: Vec<_> = scan(&data, "process-1 timers")
        .into_iter()
        .map(|entry| (entry["times_ms"][0].as_i64().unwrap(), entry["key"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(scanned, timers);
}

#[test]
fn a_key_is_found_whatever_group_it_is_in() {
    let data = Data::counted();
    for word in ["alpha", "beta", "gamma", "delta"] {
        let said = data.say(&format!("state get process-1 count {word} --json")).expect(0).json();
        assert_eq!((&said["entries"][0]["key"], &said["entries"][0]["value"]), (&json!(word), &json!(25)));
    }
    let letters = data.say("state get process-1 letters alpha --json").expect(0).json();
    let of: BTreeMap<&str, u64> = letters["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["map_key"].as_str().unwrap(), entry["value"].as_u64().unwrap()))
        .collect();
    assert_eq!(of, BTreeMap::from([("a", 50), ("l", 25), ("p", 25), ("h", 25)]));
    let times = data.say("state get process-1 times delta --json").expect(0).json();
    assert_eq!(times["entries"][0]["value"].as_array().unwrap().len(), 25);
    assert_eq!(
        data.say("state get process-1 timers beta --json").expect(0).json()["entries"][0]["key"],
        "beta"
    );
    let text = data.say("state get process-1 count alpha").expect(0).out;
    assert!(text.lines().nth(1).unwrap().ends_with("alpha     25"), "{text}");
    data.say("state get process-1 count omega").expect(5).complains(&["nothing under `omega`"]);
}

#[test]
fn a_type_of_the_programs_own_is_shown_as_bytes_or_as_one_says_it_is() {
    let data = Data::counted();
    let raw = data.say("state get process-1 seen beta --json").expect(0).json();
    assert_eq!(raw["entries"][0]["value"]["type"], "Seen");
    assert_eq!(raw["entries"][0]["value"]["hex"].as_str().unwrap().len(), 24);
    let told = data.say_all(&[
        "state",
        "get",
        "process-1",
        "seen",
        "beta",
        "--json",
        "--type",
        "Seen=(Timestamp, u32)",
    ]);
    let seen = Seen { first: Timestamp::from_secs(1), length: 4 };
    assert_eq!(told.expect(0).json()["entries"][0]["value"], json!([seen.first, seen.length]));
    data.say_all(&["state", "scan", "process-1", "seen", "--type", "Seen"])
        .expect(2)
        .complains(&["NAME=TYPE"]);
    let wrong = data.say_all(&["state", "scan", "process-1", "seen", "--type", "Seen=(u64"]);
    wrong.expect(2).complains(&["`(u64` is not a type"]);
}

#[test]
fn names_that_are_not_there_are_answered_with_the_nearest() {
    let data = Data::counted();
    data.say("state scan process count").expect(5).complains(&["did you mean `process-1`?"]);
    data.say("state scan process-1 cuont")
        .expect(5)
        .complains(&["no state `cuont`", "did you mean `count`?"]);
    data.say("state scan process-1")
        .expect(2)
        .complains(&["which state of operator `process-1`?", "`letters`"]);
    data.say("state stats nothing").expect(5).complains(&["no operator with state `nothing`"]);
}

#[test]
fn statistics_count_every_entry_once() {
    let data = Data::counted();
    let said = data.say("state stats --json").expect(0).json();
    assert_eq!(said["key_groups"], 128);
    let of = |name: &str| {
        said["states"].as_array().unwrap().iter().find(|state| state["state"] == name).unwrap().clone()
    };
    let count = of("count");
    assert_eq!(count["entries"], 4);
    // Eight bytes of length, the word, and eight of the number.
    assert_eq!(count["bytes"], 4 * 16 + "alphabetagammadelta".len());
    assert_eq!(count["largest_bytes"], 21);
    let groups: u64 = count["entries_by_group"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(groups, 4);
    assert_eq!(of("timers")["entries"], 4);
    let distinct: usize = ["alph", "beta", "gam", "delta"].iter().map(|letters| letters.len()).sum();
    assert_eq!(of("letters")["entries"], distinct);
    let text = data.say("state stats").expect(0).out;
    assert!(text.contains("flow `words`, version 1") && text.contains("fullest group"), "{text}");
}

/// Open windows, a composite key, and state that was spilled to RocksDB.
fn windows(engine: &Engine) {
    let flow = Flow::new("windows");
    flow.source(LogSource::<words::Word>::topic("words"))
        .event_time(|(_, second)| Timestamp::from_secs(*second), Watermarks::bounded(secs(5)))
        .key_by(|(word, second)| (word.clone(), *second))
        .window(Windows::tumbling(secs(1_000_000)))
        .count()
        .for_each_row();
    let job = engine.start(flow).unwrap();
    assert!(job.wait_until(|job| job.metrics().records_read >= 20_000), "{:?}", job.status());
    job.checkpoint().unwrap();
}

trait ForEachRow {
    fn for_each_row(self);
}

impl<T: Clone + Send + Sync + serde::Serialize + 'static> ForEachRow for rivermark::Stream<T> {
    fn for_each_row(self) {
        self.sink(rivermark::connectors::LogSink::topic("rows"));
    }
}

#[test]
fn windows_and_keys_of_several_fields_are_read_from_rocksdb_too() {
    let data = Data::new();
    let options = Options::new().workers(2).checkpoint_every(millis(20)).state_budget(256 << 10);
    let engine = Engine::open_with(data.path(), options).unwrap();
    words::append(&engine, 0, 20_000).unwrap();
    windows(&engine);
    let shown = data.say("checkpoint show --flow windows --json").expect(0).json();
    let operator = shown["operators"][0]["operator"].as_str().unwrap();
    let scanned = data.say(&format!("state scan {operator} slices --flow windows --json")).expect(0).json();
    assert_eq!(scanned["entries"].as_array().unwrap().len(), 20_000);
    let key =
        data.say_all(&["state", "get", operator, "slices", "[\"beta\", 401]", "--flow", "windows", "--json"]);
    let key = key.expect(0).json();
    assert_eq!(key["entries"].as_array().unwrap().len(), 1, "{key}");
    let entry = &key["entries"][0];
    assert_eq!((&entry["key"], &entry["value"]), (&json!(["beta", 401]), &json!(1)));
    assert_eq!(entry["times_ms"][0], 0);
}
