//! How commands are asked for, and what they answer to nonsense.

use crate::support::*;
use std::collections::BTreeSet;
use std::path::Path;

fn help(of: &[&str]) -> String {
    let output = rivermark().args(of).arg("--help").output().unwrap();
    assert!(output.status.success(), "{of:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let listed = listed.take_while(|line| !line.trim().is_empty());
    let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(name)
        .filter(|name| name != "help")
        .collect()
}

#[test]
fn nonsense_is_refused_with_what_was_meant() {
    for arguments in [&["lgo"][..], &["log", "tial"], &["log", "tail"], &["--unknown"], &[]] {
        let output = rivermark().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    let output = rivermark().args(["log", "tial"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("'tail'"));
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let help = help(&[]);
    for code in 0..=7 {
        assert!(help.contains(&format!("\n  {code}  ")), "{code} is not in {help}");
    }
}

#[test]
fn the_guide_shows_every_command() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/command-line.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let mut shown = BTreeSet::new();
    for command in commands(&help(&[])) {
        let below = commands(&help(&[&command]));
        if below.is_empty() {
            shown.insert(command);
        } else {
            shown.extend(below.iter().map(|below| format!("{command} {below}")));
        }
    }
    assert!(shown.len() > 20, "{shown:?}");
    let missing: Vec<_> = shown.iter().filter(|command| !guide.contains(&format!("`{command}"))).collect();
    assert!(missing.is_empty(), "docs/command-line.md does not speak of {missing:?}");
}

#[test]
fn shells_complete_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = rivermark().args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && script.contains("rivermark") && script.contains("promote"),
            "{shell}"
        );
    }
}

#[test]
fn a_directory_that_is_none_is_not_made() {
    let data = Data::new();
    for command in
        ["log topics", "log verify", "log compact", "checkpoint list", "deploy list", "savepoint list"]
    {
        data.say(command).expect(5).complains(&["no such directory", "RIVERMARK_DATA"]);
    }
    assert!(!data.path().exists());
    let other = tempfile::tempdir().unwrap();
    let said = rivermark().env("RIVERMARK_DATA", other.path()).args(["log", "topics"]).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("no engine has ever used it"));
}

#[test]
fn the_environment_names_the_directory() {
    let data = Data::counted();
    let said = rivermark().env("RIVERMARK_DATA", data.path()).args(["log", "topics"]).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("words"));
}
