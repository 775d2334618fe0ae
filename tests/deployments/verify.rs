//! Two versions compared at the same offsets, and checks that veto.

use crate::support::*;
use rivermark::{Comparison, State};

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
