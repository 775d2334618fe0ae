//! Which crate may depend on which, held against the manifests. `ARCHITECTURE.md` gives the reasons at length.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a crate may name of ours, and why nothing else. A crate that is not listed here fails the test.
const ALLOWED: &[(&str, &[&str], &str)] = &[
    (
        "rivermark-log",
        &[],
        "the log stores bytes and knows nothing of streams, so that it can be trusted and tested alone",
    ),
    ("rivermark-state", &[], "state is keyed bytes in key groups and knows nothing of streams"),
    (
        "rivermark-checkpoint",
        &[],
        "the protocol is explored exhaustively, which takes a crate that nothing else reaches into",
    ),
    (
        "rivermark-operators",
        &["rivermark-state", "rivermark-checkpoint"],
        "operators describe and compute; what runs them and what feeds them lies above",
    ),
    (
        "rivermark-engine",
        &["rivermark-operators", "rivermark-state", "rivermark-checkpoint", "rivermark-log"],
        "the engine runs any source and sink and must not know one by name",
    ),
    (
        "rivermark-connectors",
        &["rivermark-operators", "rivermark-log"],
        "a connector implements Source and Sink and reaches no further, as those of other people do",
    ),
    (
        "rivermark-server",
        &["rivermark-engine", "rivermark-operators", "rivermark-log"],
        "the server asks jobs and reads the log as any program could, and nothing of it is in one that does not want it",
    ),
    (
        "rivermark-cli",
        &["rivermark-engine", "rivermark-operators", "rivermark-log", "rivermark-server", "rivermark"],
        "the command line looks at what lies there and runs what it is handed; its tests are written against the facade",
    ),
    (
        "rivermark",
        &[
            "rivermark-log",
            "rivermark-state",
            "rivermark-checkpoint",
            "rivermark-operators",
            "rivermark-engine",
            "rivermark-connectors",
            "rivermark-server",
            "rivermark-cli",
        ],
        "the facade exports the crates below it, and benches lie above it",
    ),
    ("rivermark-benches", &["rivermark"], "benches measure what users get: the facade"),
    ("rivermark-nexmark", &["rivermark"], "a benchmark of what users get, written as they would write it"),
];

/// Who alone may name a crate of others.
const CONFINED: &[(&str, &str, &str)] = &[
    ("rocksdb", "rivermark-state", "RocksDB is one backend of keyed state, behind a feature"),
    ("bincode", "rivermark-state", "its format is finished and will be replaced: one codec module knows it"),
    ("axum", "rivermark-server", "whoever does not serve HTTP compiles nothing of it"),
    ("ureq", "rivermark-cli", "the command line alone asks others over HTTP"),
    (
        "signal-hook",
        "rivermark-cli",
        "what a signal does is for a program to say, never for a library below it",
    ),
    ("futures-util", "rivermark-server", "an answer that goes on is a stream, and nothing else is"),
    ("tokio", "rivermark-server", "the crates impose no async runtime; the server owns one"),
];

/// A dependency that a manifest names, of whatever kind.
#[derive(Debug, PartialEq)]
struct Edge {
    from: String,
    to: String,
}

/// What `edges` break.
fn broken(edges: &[Edge]) -> Vec<String> {
    let mut faults = Vec::new();
    for Edge { from, to } in edges {
        let Some((_, allowed, why)) = ALLOWED.iter().find(|(name, ..)| name == from) else {
            faults.push(format!(
                "{from} is not in ALLOWED: say what it may depend on, here and in ARCHITECTURE.md"
            ));
            continue;
        };
        let ours = ALLOWED.iter().any(|(name, ..)| name == to);
        if ours && !allowed.contains(&to.as_str()) {
            faults.push(format!("{from} must not depend on {to}: {why}"));
        }
        if let Some((_, owner, why)) = CONFINED.iter().find(|(name, owner, _)| name == to && owner != from) {
            faults.push(format!("{from} must not depend on {to}, only {owner} may: {why}"));
        }
    }
    faults
}

/// Every dependency line of a manifest that does not come from the workspace, and lints that do not.
fn not_inherited(manifest: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut section = String::new();
    let mut lints = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if line.is_empty() || line.starts_with('#') {
            continue;
        } else if section == "lints" {
            lints |= line == "workspace = true";
        } else if section.ends_with("dependencies") && section != "workspace.dependencies" {
            let inherited = line.contains(".workspace = true") || line.contains("{ workspace = true");
            if !inherited {
                faults.push(format!(
                    "[{section}] `{line}`: versions live in [workspace.dependencies] (one line each)"
                ));
            }
        } else if section.contains("dependencies.") && !section.starts_with("workspace.") {
            faults.push(format!("[{section}]: write it as `name.workspace = true`, one line"));
        }
    }
    if !lints {
        faults.push("there is no `[lints] workspace = true`".to_owned());
    }
    faults
}

/// Names of our crates below the facade in a source file, in code or in comments.
fn reaches_below_the_facade(source: &str) -> Vec<&'static str> {
    let inner = ALLOWED.iter().map(|(name, ..)| *name);
    inner
        .filter(|name| !["rivermark", "rivermark-benches", "rivermark-nexmark"].contains(name))
        .filter(|name| source.contains(&name.replace('-', "_")))
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The workspace's packages, as cargo reads them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn edges(packages: &[Value]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for package in packages {
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
            edges.push(Edge { from: name(package), to: name(dependency) });
        }
    }
    edges
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn edge(from: &str, to: &str) -> Edge {
    Edge { from: from.to_owned(), to: to.to_owned() }
}

#[test]
fn crates_depend_only_downwards() {
    let packages = packages();
    let edges = edges(&packages);
    assert!(
        edges.contains(&edge("rivermark-engine", "rivermark-operators")),
        "no edges were read: {edges:?}"
    );
    let missing = |name: &&str| !packages.iter().any(|package| package["name"] == *name);
    let gone: Vec<_> = ALLOWED.iter().map(|(name, ..)| *name).filter(missing).collect();
    assert!(gone.is_empty(), "ALLOWED speaks of crates that are gone: {gone:?}");
    assert_eq!(broken(&edges), Vec::<String>::new());
}

#[test]
fn every_manifest_takes_versions_and_lints_from_the_workspace() {
    for package in packages() {
        let path = package["manifest_path"].as_str().unwrap();
        let faults = not_inherited(&std::fs::read_to_string(path).unwrap());
        assert!(faults.is_empty(), "{path}: {faults:#?}");
    }
}

#[test]
fn examples_and_benches_use_the_facade_alone() {
    let files: Vec<_> = ["examples", "benches"].iter().flat_map(|name| sources(&root().join(name))).collect();
    assert!(!files.is_empty(), "no sources were read");
    for path in files {
        let inner = reaches_below_the_facade(&std::fs::read_to_string(&path).unwrap());
        assert!(
            inner.is_empty(),
            "{} names {inner:?}: what a user needs is exported by `rivermark`, so export it there",
            path.display()
        );
    }
}

#[test]
fn bincode_is_known_to_the_codec_alone() {
    for path in sources(&root().join("state/src")) {
        let named = std::fs::read_to_string(&path).unwrap().contains("bincode::");
        assert_eq!(
            named,
            path.ends_with("codec.rs"),
            "{}: `bincode::` belongs into codec.rs",
            path.display()
        );
    }
}

#[test]
fn an_upward_edge_a_sideways_edge_and_a_confined_crate_are_refused() {
    let refused = |from, to| broken(&[edge(from, to)]).len() == 1;
    assert!(refused("rivermark-state", "rivermark-log"));
    assert!(refused("rivermark-operators", "rivermark-engine"));
    assert!(refused("rivermark-connectors", "rivermark-state"));
    assert!(refused("rivermark-engine", "rivermark-connectors"));
    assert!(refused("rivermark-benches", "rivermark-engine"));
    assert!(refused("rivermark", "rivermark-benches"));
    assert!(refused("rivermark-engine", "rocksdb"));
    assert!(refused("rivermark-checkpoint", "bincode"));
    assert!(refused("rivermark-new", "serde"));
    assert!(!refused("rivermark-state", "rocksdb"));
    assert!(!refused("rivermark-engine", "rivermark-log"));
    assert!(!refused("rivermark-benches", "criterion"));
}

#[test]
fn a_version_of_its_own_and_missing_lints_are_refused() {
    let lints = "[lints]\nworkspace = true\n";
    let faults = |dependencies: &str| not_inherited(&format!("{dependencies}\n{lints}")).len();
    assert_eq!(
        faults("[dependencies]\nserde.workspace = true\nrocksdb = { workspace = true, optional = true }"),
        0
    );
    assert_eq!(faults("[workspace.dependencies]\nserde = \"1\""), 0);
    assert_eq!(faults("[dev-dependencies]\nserde = \"1\""), 1);
    assert_eq!(faults("[dependencies]\nrivermark-log = { path = \"../log\" }"), 1);
    assert_eq!(faults("[target.'cfg(unix)'.dependencies]\nserde = { version = \"1\" }"), 1);
    assert_eq!(faults("[dependencies.serde]\nversion = \"1\""), 1);
    assert_eq!(not_inherited("[dependencies]\nserde.workspace = true").len(), 1);
}
