//! The operators of the public API, as the sources of `operators/` declare them: what a table of all operators must not forget.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where operators are declared, below `operators/src`; what the engine and the tests use is elsewhere.
const FOLDERS: [&str; 8] =
    ["dead_letters", "stream", "window", "process", "join", "table", "pattern", "look_up"];

/// Every public method that makes a stream or a table of its receiver, as `Type::method`.
pub fn operators() -> BTreeSet<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("operators/src");
    let files = FOLDERS.iter().flat_map(|folder| files(&sources.join(folder)));
    let found: BTreeSet<String> =
        files.flat_map(|file| declared(&std::fs::read_to_string(file).unwrap())).collect();
    assert!(
        found.contains("Stream::map") && found.contains("IntervalJoin::full"),
        "not read right: {found:?}"
    );
    found
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.into_iter().chain(folders.iter().flat_map(|folder| self::files(folder))).collect()
}

/// The operators of one file.
fn declared(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut owner = None;
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("impl") {
            owner = owner_of(line);
        }
        let (Some(owner), Some(rest)) = (&owner, line.strip_prefix("    pub fn ")) else { continue };
        let mut signature = rest.to_owned();
        while !signature.contains(" {") && !signature.contains("where") {
            signature += lines.next().unwrap_or(" {");
        }
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        let result = signature.rsplit_once(") -> ").map_or("", |(_, result)| result);
        let is_method = signature.contains("self,") || signature.contains("self)");
        if is_method && (result.contains("Stream<") || result.contains("Table<")) {
            found.push(format!("{owner}::{name}"));
        }
    }
    found
}

/// The type of an `impl` block that is not of a trait.
fn owner_of(line: &str) -> Option<String> {
    let rest = line.strip_prefix("impl")?;
    let mut depth = 0_i32;
    let after = rest.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '<') - i32::from(c == '>' && !rest[..at].ends_with('-'));
        (depth == 0 && (c == '>' || c == ' ')).then_some(at + 1)
    })?;
    let named = rest[after..].trim_start();
    let is_of_a_trait = named.contains(" for ");
    (!is_of_a_trait).then(|| named.split(['<', ' ']).next().unwrap_or_default().to_owned())
}
