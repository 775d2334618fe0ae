//! The pages of `docs/` that speak of the whole API: they leave nothing out, and name nothing that is not checked.
//!
//! What stands in brackets is a link in the documentation of the crate (`from_flink_and_kafka_streams`), and rustdoc refuses one that leads
//! nowhere. What is left to check is that all names are in brackets, and all operators there.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/vocabulary.rs"]
mod vocabulary;

use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("../docs/from-flink-and-kafka-streams.md");

/// The cells of the rows of all tables but their headers.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let is_row =
        |line: &&str| line.starts_with("| ") && !line.starts_with("| --") && !line.starts_with("| what |");
    page.lines()
        .filter(is_row)
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// The names in code of a text that are, or are not, links by their name alone.
fn names(text: &str, linked: bool) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut pieces = text.split('`');
    let mut before = pieces.next().unwrap_or_default();
    while let (Some(name), Some(after)) = (pieces.next(), pieces.next()) {
        let is_link = before.ends_with('[') && after.starts_with(']') && !after.starts_with("](");
        if is_link == linked {
            names.insert(name);
        }
        before = after;
    }
    names
}

#[test]
fn every_name_of_ours_in_the_comparison_is_a_link() {
    for row in rows(PAGE).iter().filter(|row| row.len() == 4) {
        let bare = names(row[3], false);
        // A command, not an item of the crate.
        assert!(bare.iter().all(|name| *name == "tracing"), "{bare:?} are not in brackets: {row:?}");
    }
    assert!(names(PAGE, true).len() > 100, "the page was not read");
}

#[test]
fn every_row_of_the_comparison_has_all_its_cells() {
    for row in rows(PAGE) {
        assert!((row.len() == 4 || row.len() == 2) && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn the_comparison_names_every_operator() {
    let linked = names(PAGE, true);
    // A join is named by the method that begins it, and what it gives by the kind.
    let is_named = |operator: &String| {
        let owner = operator.split("::").next().unwrap_or_default();
        linked.iter().any(|name| name.ends_with(operator.as_str()))
            || (owner.ends_with("Join") && PAGE.contains(owner))
    };
    let missing: Vec<_> =
        vocabulary::operators().into_iter().filter(|operator| !is_named(operator)).collect();
    assert!(
        missing.is_empty(),
        "docs/from-flink-and-kafka-streams.md does not say what these are: {missing:?}"
    );
}

/// What the documentation of `operators/` runs: the code of all its examples.
fn runnable_examples() -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("operators/src");
    let texts: Vec<String> =
        vocabulary::files(&sources).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let mut code = String::new();
    for text in &texts {
        // Whatever is said behind a fence means that what follows is not run.
        let mut block: Option<bool> = None;
        let comments = text.lines().filter_map(|line| {
            line.trim_start().strip_prefix("///").or(line.trim_start().strip_prefix("//!"))
        });
        for line in comments {
            match line.trim().strip_prefix("```") {
                Some(how) => block = if block.is_some() { None } else { Some(how.is_empty()) },
                None if block == Some(true) => code += &format!("{line}\n"),
                None => {}
            }
        }
    }
    code
}

#[test]
fn every_operator_is_called_in_an_example_that_is_run() {
    let code = runnable_examples();
    let is_shown = |operator: &String| {
        let method = operator.rsplit("::").next().unwrap_or_default();
        code.contains(&format!(".{method}(")) || code.contains(&format!(".{method}::<"))
    };
    let missing: Vec<_> =
        vocabulary::operators().into_iter().filter(|operator| !is_shown(operator)).collect();
    assert!(missing.is_empty(), "give the documentation of these an example: {missing:?}");
}

#[test]
fn a_bare_name_and_a_forgotten_cell_are_seen() {
    assert_eq!(names("[`Stream::map`] and `Stream::filter`", true), BTreeSet::from(["Stream::map"]));
    assert_eq!(names("[`Stream::map`] and `Stream::filter`", false), BTreeSet::from(["Stream::filter"]));
    assert_eq!(names("[`a page`](page.md)", true), BTreeSet::new());
    assert_eq!(rows("| what | ours |\n| --- | --- |\n| a | b | c |"), [["a", "b", "c"]]);
}
