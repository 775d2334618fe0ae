//! Two versions compared at the same offsets, and checks that veto.

use crate::support::*;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{Position, RecordBatch, Retention, TopicOptions};
use rivermark::{Becomes, Comparison, Flow, State};

#[test]
fn two_versions_are_compared_at_the_same_offsets_while_records_come() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 3000));
    let _first = engine.deploy(flow(1), replay()).unwrap();
    wait_for_rows(&engine, 3000);
    let second = engine.deploy(flow(2), replay()).unwrap();
    wait_for(&second, State::CaughtUp);
    let compared = second.compare().unwrap();
    assert_eq!((compared.old, compared.new), (1, 2));
    let (windows, totals) = (&compared.outputs[1], &compared.outputs[0]);
    assert_eq!((windows.alias.as_str(), totals.alias.as_str()), (WINDOWS, TOTALS));
    // Rows name the version that wrote them, so each differs; none is only in one.
    let (expected_windows, expected_totals) = expected(1, 3000);
    assert_eq!(windows.different, expected_windows.len() as u64);
    assert_eq!(totals.different, expected_totals.len() as u64);
    for output in &compared.outputs {
        assert_eq!((output.same, output.only_old, output.only_new), (0, 0, 0), "{compared}");
        assert_eq!(output.old_rows, output.new_rows);
    }
    // The table for a person, and the same for a program.
    let text = compared.to_string();
    assert!(text.contains("flow `sums`, versions 1 and 2 at the same offsets"), "{text}");
    assert!(text.contains("`totals`: 0 keys the same, 3000 different, 0 only in 1, 0 only in 2"), "{text}");
    let json = serde_json::to_value(&compared).unwrap();
    assert_eq!(json["outputs"][0]["different"], 3000);
    let sample = windows.samples[0].clone();
    let row = |text: Option<String>| serde_json::from_str::<WindowRow>(&text.unwrap()).unwrap();
    let (old, new) = (row(sample.old), row(sample.new));
    assert_eq!((old.0, new.0), (1, 2));
    assert_eq!((old.1, old.2), (new.1, new.2), "the same window and key");
    assert_eq!(sample.key, format!("{}-{}", old.1, old.2));
    // Nobody stands still behind it.
    append(engine.log(), numbers(3000, 4000));
    assert_eq!(check_rows(&engine, 4000), [1]);
}

#[test]
fn a_check_vetoes_a_promotion_and_all_goes_on_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 1000));
    let first = engine.deploy(flow(1), replay()).unwrap();
    wait_for_rows(&engine, 1000);
    let few = |most: u64| {
        move |compared: &Comparison| match compared.differences() {
            differences if differences > most => Err(format!("{differences} keys differ")),
            _ => Ok(()),
        }
    };
    let strict = replay().check("few differences", few(10)).promote_when_caught_up();
    let second = engine.deploy(flow(2), strict).unwrap();
    wait_for(&second, State::CaughtUp);
    let error = second.promote().unwrap_err().to_string();
    assert!(error.contains("check `few differences` vetoes it") && error.contains("keys differ"), "{error}");
    append(engine.log(), numbers(1000, 2000));
    assert_eq!(check_rows(&engine, 2000), [1]);
    assert_eq!(first.state(), State::Live);
    wait_for(&second, State::CaughtUp);
    second.retire().unwrap();
    assert_eq!(second.state(), State::Retired);
    let third =
        engine.deploy(flow(3), replay().check("any", few(u64::MAX)).promote_when_caught_up()).unwrap();
    wait_for(&third, State::Live);
    append(engine.log(), numbers(2000, 3000));
    assert_eq!(check_rows(&engine, 3000), [1, 3]);
}

#[test]
fn a_plan_says_what_a_deployment_would_do_and_one_that_would_hit_a_hole_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 3000));
    let plan = engine.plan(flow(1), &replay()).unwrap();
    assert!(plan.can_start && plan.live.is_none(), "{plan}");
    let _first = engine.deploy(flow(1), replay()).unwrap();
    wait_for_rows(&engine, 3000);
    let plan = engine.plan(flow(2), &replay()).unwrap();
    assert_eq!((plan.can_start, plan.live, plan.records), (true, Some(1), 3000), "{plan}");
    assert!(plan.bytes > 3000 && plan.disk_bytes > Some(0) && plan.takes.is_some(), "{plan}");
    assert_eq!(plan.partitions.len(), 3);
    assert!(plan.states.iter().all(|state| state.becomes == Becomes::Rebuilt));
    assert!(plan.states.iter().any(|state| state.operator == "total"), "{plan}");
    assert!(plan.to_string().contains("version 2 of flow `sums` can start"), "{plan}");
    assert_eq!(serde_json::to_value(&plan).unwrap()["partitions"][0]["from"], 0);
    // Readers would lose an output.
    let less = Flow::new("sums").version(2);
    less.source(LogSource::<Number>::topic("numbers"))
        .map(|n| (2, n.0, n.1, 0))
        .sink(LogSink::<TotalRow>::output(TOTALS));
    let plan = engine.plan(less, &replay()).unwrap();
    assert!(!plan.can_start && plan.problems[0].contains("has other outputs"), "{plan}");
    // What cannot be decoded is found before the replay begins.
    let mut batch = RecordBatch::new();
    batch.push(None, Some(b"no number"), 0);
    engine.log().create_topic("others", TopicOptions::new(1)).unwrap().append(0, &mut batch).unwrap();
    let other = Flow::new("others");
    other
        .source(LogSource::<Number>::topic("others"))
        .map(|n| (1, n.0, n.1, 0))
        .sink(LogSink::<TotalRow>::output(TOTALS));
    let plan = engine.plan(other, &replay()).unwrap();
    assert!(plan.warnings.iter().any(|w| w.contains("others[0]: offset 0 cannot be decoded")), "{plan}");
}

#[test]
fn a_replay_from_before_the_logs_first_record_is_refused_and_nothing_is_deployed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let options =
        TopicOptions::new(1).retention(Retention { time: None, bytes: Some(0) }).segment_bytes(1 << 10);
    let topic = engine.log().create_topic("old", options).unwrap();
    let deploy = |version, start| {
        let flow = Flow::new("old").version(version);
        flow.source(LogSource::<Number>::topic("old").starting_from(start))
            .map(move |number| (version, number.0, number.1, 0))
            .sink(LogSink::<TotalRow>::output("rows"));
        engine.deploy(flow, replay())
    };
    let _first = deploy(1, Position::Earliest).unwrap();
    let mut offset = 0;
    while topic.info(0).unwrap().earliest == 0 {
        let mut batch = RecordBatch::new();
        for number in numbers(offset, offset + 100) {
            batch.push(None, Some(&serde_json::to_vec(&number).unwrap()), 0);
        }
        topic.append(0, &mut batch).unwrap();
        offset += 100;
        engine.log().maintain(0).unwrap();
    }
    let error = deploy(2, Position::Offset(0)).err().unwrap().to_string();
    assert!(error.contains("it would begin at offset 0, and the first that is still there is"), "{error}");
    assert_eq!(engine.deployments("old").unwrap().state(2), None);
    deploy(2, Position::Earliest).unwrap();
}
