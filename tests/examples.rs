//! The tutorial: every example of `examples/` runs to its end on a fresh directory. Those that know what their rows should be, from another program,
//! check them themselves, and end with an error where one is another.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The examples of the tutorial, which are numbered, in reading order.
fn names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let stem = |file: PathBuf| file.file_stem().unwrap().to_string_lossy().into_owned();
    let mut names: Vec<_> = files.filter(|file| file.is_file()).map(stem).collect();
    names.retain(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    names.sort();
    names
}

/// Where cargo puts examples when it builds the tests of a package.
fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(built.exists(), "{} is missing: run `cargo build --release --examples`", built.display());
    built
}

#[test]
fn every_example_ends_well_and_says_something() {
    let names = names();
    assert!(names.len() > 10, "the examples were not found: {names:?}");
    // Cargo builds an example only with the features that it needs.
    let is_built = |name: &String| cfg!(feature = "dashboard") || !name.ends_with("_dashboard");
    for name in names.into_iter().filter(is_built) {
        let output = Command::new(built(&name)).output().unwrap();
        let (said, complaint) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} ended with {}: {complaint}{said}", output.status);
        assert!(said.lines().count() > 3, "{name} says no more than {said:?}");
    }
}

#[test]
fn the_readme_lists_every_example_in_reading_order() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let places: Vec<_> = names()
        .iter()
        .map(|name| readme.find(&format!("(examples/{name}.rs) |")).ok_or(name.clone()))
        .collect();
    let places: Vec<usize> =
        places.into_iter().collect::<Result<_, _>>().expect("an example that README does not list");
    assert!(places.is_sorted(), "README has them in another order: {places:?}");
}

#[test]
fn examples_are_read_in_one_sitting() {
    for name in names() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(&name).with_extension("rs");
        let text = std::fs::read_to_string(file).unwrap();
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        let code = text.lines().filter(is_code).count();
        assert!(code <= 80, "{name} has {code} lines of code");
    }
}
