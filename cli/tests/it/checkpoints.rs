//! `checkpoint` and `savepoint`.

use crate::support::*;
use crate::words;
use serde_json::json;
use std::path::PathBuf;

#[test]
fn checkpoints_are_listed_and_shown() {
    let data = Data::counted();
    let listed = data.say("checkpoint list --json").expect(0).json();
    let newest = &listed["checkpoints"][0];
    assert_eq!((&newest["flow"], &newest["version"]), (&json!("words"), &json!(1)));
    let epochs: Vec<u64> = listed["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|known| known["epoch"].as_u64().unwrap())
        .collect();
    assert!(epochs.len() > 1 && epochs.windows(2).all(|two| two[0] > two[1]), "the newest first: {epochs:?}");
    let shown = data.say("checkpoint show --json").expect(0).json();
    assert_eq!(shown["epoch"], newest["epoch"]);
    let positions = shown["sources"].as_array().unwrap();
    assert_eq!(positions.len(), 2);
    assert!(positions.iter().all(|at| at["read_to"] == 50), "{positions:?}");
    let operator = &shown["operators"][0];
    let states: Vec<&str> =
        operator["states"].as_array().unwrap().iter().map(|state| state["name"].as_str().unwrap()).collect();
    for state in ["count", "seen", "letters", "times", "timers"] {
        assert!(states.contains(&state), "{states:?}");
    }
    let older = data.say(&format!("checkpoint show --epoch {} --json", epochs[1])).expect(0).json();
    assert_eq!(older["epoch"], epochs[1]);
    let text = data.say("checkpoint show").expect(0).out;
    assert!(
        text.contains("flow `words`, version 1") && text.contains("Map") && text.contains("words[0]"),
        "{text}"
    );
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let data = Data::counted();
    data.say("checkpoint show --flow wrods")
        .expect(5)
        .complains(&["no flow `wrods`", "did you mean `words`?"]);
    data.say("checkpoint show --version 9")
        .expect(5)
        .complains(&["version 9 of flow `words`", "that have: 1"]);
    data.say("checkpoint show --epoch 9999").expect(5).complains(&["no checkpoint 9999"]);
    data.say("savepoint show befor").expect(5).complains(&["no savepoint `befor`"]);
}

#[test]
fn everything_can_be_looked_at_beside_a_running_job() {
    let data = Data::new();
    let engine = data.engine();
    let job = data.start(&engine);
    // Checkpoints come every few milliseconds, and those before the last three go.
    for from in (100..150).step_by(2) {
        words::append(&engine, from, from + 2).unwrap();
        assert!(job.wait_until(|job| job.metrics().records_read >= (from + 2) as u64));
    }
    for _ in 0..5 {
        for command in [
            "checkpoint list --json",
            "checkpoint show --json",
            "checkpoint verify --json",
            "state stats --json",
            "state scan process-1 count --json",
            "log topics --json",
            "log verify --json",
            "deploy list --json",
        ] {
            data.say(command).expect(0).json();
        }
    }
    let counted = data.say("state scan process-1 count --json").expect(0).json();
    let total: u64 =
        counted["entries"].as_array().unwrap().iter().map(|entry| entry["value"].as_u64().unwrap()).sum();
    assert!(total >= 100, "{counted}");
    let said = data.say("deploy list").expect(0).out;
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
}

/// The state files of all checkpoints.
fn state_files(data: &Data) -> Vec<PathBuf> {
    let files = files(&data.path().join("checkpoints/words/1/files"));
    assert!(!files.is_empty());
    files
}

#[test]
fn a_damaged_state_file_is_found() {
    let data = Data::counted();
    let whole = data.say("checkpoint verify --json").expect(0).json();
    assert!(
        whole["checkpoints"].as_array().unwrap().iter().all(|found| found["damage"] == json!([])),
        "{whole}"
    );
    state_files(&data).iter().for_each(|file| damage(file));
    let found = data.say("checkpoint verify").expect(3);
    assert!(found.out.contains("damaged: state file") && found.err.contains("restore"), "{}", found.out);
    state_files(&data).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let found = data.say("checkpoint verify --json").expect(3).json();
    let all = found["checkpoints"].as_array().unwrap();
    assert!(
        all.iter().any(|found| found["damage"][0]["problem"].as_str().is_some_and(|p| p.contains("missing")))
    );
}

#[test]
fn a_damaged_record_is_found_and_hides_no_other() {
    let data = Data::counted();
    let before = data.say("checkpoint list --json").json()["checkpoints"].as_array().unwrap().len();
    let records = files(&data.path().join("checkpoints/words/1/history"));
    damage(records.last().unwrap());
    let listed = data.say("checkpoint list --json").expect(0).json();
    assert_eq!(listed["damaged"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["checkpoints"].as_array().unwrap().len(), before - 1);
    let found = data.say("checkpoint verify --json").expect(3).json();
    assert_eq!(found["damaged"].as_array().unwrap().len(), 1);
}

#[test]
fn savepoints_are_listed_shown_verified_read_and_deleted() {
    let data = Data::new();
    let engine = data.engine();
    let job = data.start(&engine);
    job.savepoint("before").unwrap();
    let listed = data.say("savepoint list --json").expect(0).json();
    assert_eq!(listed["savepoints"][0]["name"], "before");
    assert_eq!(data.say("savepoint show before --json").expect(0).json()["flow"], "words");
    data.say("savepoint verify before").expect(0);
    let scanned = data.say("state scan process-1 count --savepoint before --json").expect(0).json();
    assert_eq!(scanned["entries"].as_array().unwrap().len(), 4);
    data.say("savepoint delete before").expect(4).complains(&["deleting a savepoint"]);
    drop((job, engine));
    damage(&files(&data.path().join("savepoints/words/before/files"))[0]);
    data.say("savepoint verify before").expect(3);
    data.say("savepoint delete before").expect(0);
    assert_eq!(data.say("savepoint list --json").json(), json!({ "savepoints": [] }));
}
