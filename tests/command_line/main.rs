//! A pipeline's own program, that of `examples/21_command_line.rs`: its line of code gives it all commands, and they are about its flow.
#![allow(clippy::unwrap_used, reason = "tests")]

use rivermark::{DataDirectory, Types};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program, on a data directory.
fn program(data: &Path) -> Command {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap().join("examples/21_command_line");
    assert!(
        built.exists(),
        "{} is missing: run `cargo build --release --examples --features cli`",
        built.display()
    );
    let mut command = Command::new(built);
    command.arg("--data").arg(data).env_remove("RIVERMARK_DATA").stdin(Stdio::null());
    command
}

fn say(data: &Path, arguments: &str) -> Output {
    program(data).args(arguments.split(' ')).output().unwrap()
}

/// The one document that a command prints.
fn json_of(data: &Path, arguments: &str) -> Value {
    let output = say(data, arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_program_of_the_tutorial_runs_is_looked_at_and_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let mut ran = Killed(
        program(data).args(["run", "--deploy", "1", "--json"]).stdout(Stdio::piped()).spawn().unwrap(),
    );
    let lines = BufReader::new(ran.0.stdout.take().unwrap()).lines();
    let mut told = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let has_read = |told: &Value| {
        let version = &told["versions"][0];
        version["records_read"] == 50_000 && version["newest_epoch"].as_u64() > Some(1)
    };
    assert!(told.any(|told| has_read(&told)), "it has ended");

    // By the flow's own types, which its program knows.
    let worst = json_of(data, "state get reduce-1 total LGA --json");
    assert_eq!(
        (&worst["flow"], &worst["entries"][0]["value"]["dep_delay_min"]),
        (&json!("worst-delays"), &json!(853))
    );
    assert_eq!(json_of(data, "deploy list --json")["flows"][0]["live"], 1);
    let refused = say(data, "deploy 2 --yes");
    assert_eq!(refused.status.code(), Some(4), "the directory has one process");

    let pid = rustix::process::Pid::from_raw(ran.0.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(told.last().unwrap()["event"], "ended");
    assert!(ran.0.wait().unwrap().success());

    // The same by the library, without the program.
    let directory = DataDirectory::open(data).unwrap();
    assert_eq!((directory.holder(), directory.flows().unwrap()), (None, vec!["worst-delays".to_owned()]));
    let checkpoint = directory.checkpoint("worst-delays", 1, None).unwrap();
    let positions = checkpoint.summary().unwrap().sources;
    assert_eq!(positions.iter().filter_map(|at| at.read_to).sum::<u64>(), 50_000);
    let operator = checkpoint.operator("reduce-1").unwrap();
    let total = operator.states().into_iter().find(|state| state.name == "total").unwrap();
    let mut types = Types::new();
    types.define("Departure", "(i64, i64, u32, String, String, String, i64)").unwrap();
    let found = operator.described_at(&total, &types, &json!("LGA")).unwrap();
    assert_eq!(found[0].value, json!([1_360_554_180, 1_360_503_000, 119_785, "F9", "LGA", "DEN", 853]));
}
