//! The show-case `examples/blue_green_flights`: its whole scenario, with processes that are killed; and that it would notice if something were wrong.
//!
//! `RIVERMARK_KILLS=100` kills as many processes, `RIVERMARK_SEED` draws other points to do so.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../examples/blue_green_flights/answers.rs"]
#[allow(dead_code, reason = "the tests use a part of it")]
mod answers;
#[path = "../../examples/flights/mod.rs"]
mod flights;
#[path = "../../examples/blue_green_flights/flow.rs"]
#[allow(dead_code, reason = "the tests use a part of it")]
mod flow;

use answers::{Answers, RowOf, Told};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;

/// Some in each stage of a deployment.
const KILLS: &str = "12";

#[test]
fn every_answer_and_row_is_right_across_promote_roll_back_and_kills() {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap().join("examples/blue_green_flights");
    let how = "cargo build --release --features server --example blue_green_flights";
    assert!(built.exists(), "{} is missing: run `{how}`", built.display());
    let variable = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (kills, seed) = (variable("RIVERMARK_KILLS", KILLS), variable("RIVERMARK_SEED", "1"));
    let output = Command::new(built).args(["--kills", &kills, "--seed", &seed]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("All answers and rows are right"), "{said}");
}

/// The rows of a year, with two cuts.
fn rows(answers: &Answers) -> Vec<RowOf> {
    let ends = answers.ends();
    let places: Vec<_> = answers.rows_over(1, ends).into_keys().collect();
    let (one, two) = (places[places.len() / 3].0, places[places.len() / 2].0);
    let version = |hour| if hour < one || hour >= two { 1 } else { 2 };
    let by_version = [answers.rows_over(1, ends), answers.rows_over(2, ends)];
    let row = |place: &answers::Place| {
        let version = version(place.0);
        (version, by_version[version as usize - 1][place].clone())
    };
    places.iter().map(row).collect()
}

#[test]
fn a_row_that_is_missing_twice_wrong_or_behind_its_cut_is_noticed() {
    let answers = Answers::compute().unwrap();
    let (right, ends) = (rows(&answers), answers.ends());
    answers.check_rows(&right, ends).unwrap();
    let cuts: Vec<usize> = (1..right.len()).filter(|at| right[*at].0 != right[at - 1].0).collect();
    let is_noticed = |words: &str, change: &dyn Fn(&mut Vec<RowOf>)| {
        let mut rows = right.clone();
        change(&mut rows);
        let error = answers.check_rows(&rows, ends).unwrap_err();
        assert!(error.contains(words), "`{words}` is not in: {error}");
    };
    is_noticed("missing", &|rows| drop(rows.remove(cuts[0])));
    is_noticed("missing", &|rows| rows.truncate(rows.len() - 1));
    is_noticed("twice", &|rows| rows.insert(cuts[1], rows[cuts[1]].clone()));
    is_noticed("should have", &|rows| rows[7].1.n += 1);
    // A row in which the versions differ, from the wrong one.
    let differs =
        |row: &RowOf| answers.rows_over(2, ends)[&(row.1.window_start, row.1.origin.clone())] != row.1;
    let at = right[..cuts[0]].iter().position(differs).unwrap();
    is_noticed("should have", &|rows| rows[at].0 = 2);
    // The first row behind a cut was over before it.
    is_noticed("over before the cut", &|rows| rows.swap(cuts[0], cuts[0] - 1));
    // And what is not over yet is not there.
    let fewer = answers.ends().map(|end| end / 2);
    assert!(answers.check_rows(&right, fewer).unwrap_err().contains("should have None"));
}

#[test]
fn an_answer_of_other_offsets_or_of_another_version_is_noticed() {
    let answers = Answers::compute().unwrap();
    let told = |version, offsets| Told { version, offsets };
    let at = [50_000, 40_000, 30_000];
    let mut late = [0, 0];
    let (mut flights, mut delay) = (0, 0);
    let mut read = [0; 3];
    for departure in &answers.departures {
        let read = &mut read[departure.partition() as usize];
        if *read < at[departure.partition() as usize] && departure.carrier == "UA" {
            flights += 1;
            delay += departure.dep_delay_min;
            late[0] += u64::from(departure.dep_delay_min > 15);
            late[1] += u64::from(departure.dep_delay_min >= 15);
        }
        *read += 1;
    }
    let value = |late: u64| json!({ "flights": flights, "late": late, "delay_min": delay });
    answers.check_carrier(&told(1, at), "UA", &value(late[0])).unwrap();
    answers.check_carrier(&told(7, at), "UA", &value(late[1])).unwrap();
    answers.check_carrier(&told(1, at), "UA", &value(late[1])).unwrap_err();
    answers.check_carrier(&told(1, [50_100, 40_000, 30_000]), "UA", &value(late[0])).unwrap_err();
    answers.check_carrier(&told(1, at), "UA", &Json::Null).unwrap_err();
    let error = answers.check_hours(&told(1, at), "EWR", &json!([])).unwrap_err();
    assert!(error.contains("should have"), "{error}");
    let untold = json!({ "at": { "flow": "delays", "epoch": 3, "version": 1 }, "value": 1 });
    assert!(Told::of(&untold).unwrap_err().contains("offsets"));
}
