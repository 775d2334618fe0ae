//! What was tampered with is found, and what cannot be audited is refused with its reason.

use crate::support::{Row, append, audit, flow, numbers, open, tamper};
use rivermark::connectors::{Collect, LogSink, LogSource};
use rivermark::log::{Retention, TopicOptions};
use rivermark::{Audit, AuditReport, DifferenceKind, Engine, Flow};

/// An engine whose flow has run, and was tampered with.
fn tampered(topic: &str, change: impl Fn(u32, &mut Vec<Row>)) -> (tempfile::TempDir, Engine, AuditReport) {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 1500));
    engine.run(flow(None, true)).unwrap();
    tamper(engine.log(), topic, change);
    let report = audit(&engine, flow(None, true), 2);
    (directory, engine, report)
}

fn text(bytes: &Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.clone().unwrap()).unwrap()
}

#[test]
fn a_changed_byte_is_found_with_what_it_was() {
    let changed = std::cell::RefCell::new((String::new(), String::new()));
    let change = |partition: u32, rows: &mut Vec<Row>| {
        if partition == 1 {
            let before = text(&rows[100].1);
            rows[100].1.as_mut().unwrap()[1] ^= 1;
            *changed.borrow_mut() = (before, text(&rows[100].1));
        }
    };
    let (_directory, _engine, report) = tampered("totals", change);
    let first = report.difference.as_ref().unwrap();
    assert_eq!((&*first.topic, first.partition, first.offset), ("totals", 1, Some(100)), "{report}");
    assert_eq!(first.kind, DifferenceKind::Changed);
    let value = |row: &Option<rivermark::RowText>| row.as_ref().unwrap().value.clone().unwrap();
    assert_eq!((value(&first.computed), value(&first.published)), changed.into_inner());
    let shown = report.to_string();
    assert!(shown.contains("NOT identical") && shown.contains("totals[1] offset 100: changed"), "{shown}");
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["difference"]["kind"], "changed");
}

#[test]
fn a_changed_byte_of_a_row_without_a_key_is_found_with_what_it_was() {
    let (_directory, _engine, report) = tampered("sessions", |_, rows| rows[40].1.as_mut().unwrap()[1] ^= 1);
    let first = report.difference.as_ref().unwrap();
    assert_eq!((first.offset, first.kind), (Some(40), DifferenceKind::Changed), "{report}");
    assert!(first.computed.is_some() && first.computed != first.published);
}

#[test]
fn a_row_that_is_missing_is_found_by_the_one_behind_it() {
    let (_directory, _engine, report) = tampered("totals", |partition, rows| {
        if partition == 1 {
            rows.remove(100);
        }
    });
    let first = report.difference.as_ref().unwrap();
    assert_eq!((first.partition, first.kind), (1, DifferenceKind::Missing), "{report}");
    assert!(first.offset.is_some_and(|offset| offset >= 100) && first.computed.is_some(), "{report}");
    assert_eq!(report.outputs.iter().map(|output| output.different_keys).sum::<u64>(), 1);
}

#[test]
fn a_row_that_is_there_twice_is_found() {
    for topic in ["totals", "late"] {
        let (_directory, _engine, report) = tampered(topic, |partition, rows| {
            if partition == 0 {
                rows.insert(31, rows[30].clone());
            }
        });
        let first = report.difference.as_ref().unwrap();
        assert_eq!((first.offset, first.kind), (Some(31), DifferenceKind::Extra), "{report}");
    }
}

#[test]
fn rows_of_a_key_that_have_changed_places_are_found_unless_their_order_does_not_matter() {
    let (_directory, engine, report) = tampered("totals", |partition, rows| {
        let next = rows.iter().skip(11).position(|row| row.0 == rows[10].0).unwrap() + 11;
        if partition == 0 {
            rows.swap(10, next);
        }
    });
    let first = report.difference.as_ref().unwrap();
    assert_eq!((first.offset, first.kind), (Some(10), DifferenceKind::Moved), "{report}");
    let any_order = engine.audit(flow(None, true), Audit::from_earliest().any_order()).unwrap();
    let report = any_order.wait().unwrap();
    assert!(report.is_identical(), "{report}");
}

#[test]
fn a_hole_in_the_log_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    let retention = Retention { bytes: Some(32 << 10), ..Retention::default() };
    let options = TopicOptions::new(crate::support::PARTITIONS).segment_bytes(4096).retention(retention);
    engine.log().create_topic("numbers", options).unwrap();
    for round in 0..20 {
        append(engine.log(), numbers(round * 100, round * 100 + 100));
    }
    engine.run(flow(None, true)).unwrap();
    let report = audit(&engine, flow(None, true), 2);
    assert!(report.is_identical(), "{report}");
    engine.log().topic("numbers").unwrap().roll().unwrap();
    append(engine.log(), numbers(2000, 20_000));
    engine.log().topic("numbers").unwrap().roll().unwrap();
    engine.log().maintain(i64::MAX / 2).unwrap();
    let error = engine.audit(flow(None, true), Audit::from_earliest()).map(drop).unwrap_err().to_string();
    assert!(error.contains("offsets 0 to ") && error.contains("numbers[0] are not there"), "{error}");
}

#[test]
fn what_has_published_nothing_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 10));
    let refused = |flow: Flow| engine.audit(flow, Audit::from_earliest()).map(drop).unwrap_err().to_string();
    let error = refused(flow(None, true));
    assert!(error.contains("flow `audited`") && error.contains("there is no topic late"), "{error}");
    let elsewhere = Flow::new("elsewhere");
    elsewhere.source(LogSource::<Vec<u8>>::topic("numbers").raw()).sink(Collect::new());
    let error = refused(elsewhere);
    assert!(error.contains("no sink that writes a topic of the log"), "{error}");
}

#[test]
fn sinks_that_do_not_write_the_log_are_named_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2);
    append(engine.log(), numbers(0, 100));
    let collected = Collect::new();
    let both = || {
        let flow = Flow::new("both");
        let source = LogSource::<crate::support::Number>::topic("numbers").until_end();
        let numbers = flow.source(source).map(|number| number.0);
        numbers.clone().sink_as("outside", collected.clone());
        numbers.sink(LogSink::topic("copied"));
        flow
    };
    engine.run(both()).unwrap();
    assert_eq!(collected.rows().len(), 100);
    let report = audit(&engine, both(), 1);
    assert!(report.is_identical(), "{report}");
    assert_eq!(report.not_audited, ["outside"]);
    assert_eq!(collected.rows().len(), 100, "nothing was written a second time");
}
