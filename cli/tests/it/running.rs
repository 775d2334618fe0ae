//! A pipeline's own binary: run, deployed, interrupted, and asked by the other commands.

use crate::support::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Lines};
use std::process::{ChildStdout, Stdio};

/// A pipeline that runs, and tells of itself by lines of JSON.
struct Ran {
    child: Killed,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Ran {
    fn start(data: &Data, arguments: &str, is_served: bool) -> Ran {
        let mut command = pipeline();
        command.arg("--data").arg(data.path()).arg("run").arg("--json").args(arguments.split_whitespace());
        command.env("RIVERMARK_TOKEN", "secret");
        if !is_served {
            command.arg("--no-server");
        }
        let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        Ran { child, lines }
    }

    /// Reads lines until one is as wanted.
    #[track_caller]
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..120 {
            let line = self.lines.next().expect("it has ended").unwrap();
            let told: Value = serde_json::from_str(&line).unwrap();
            if wanted(&told) {
                return told;
            }
        }
        panic!("it was not told in two minutes");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.0.id() as i32).unwrap(), signal).unwrap();
    }
}

/// Whether all words are read and in a checkpoint.
fn has_counted(told: &Value) -> bool {
    let version = &told["versions"][0];
    version["records_behind"] == 0 && version["newest_epoch"].is_u64() && version["status"] == "running"
}

#[test]
fn a_pipeline_runs_until_it_is_interrupted_and_ends_behind_a_checkpoint() {
    for signal in [Signal::TERM, Signal::INT] {
        let data = Data::new();
        let mut ran = Ran::start(&data, "", true);
        let told = ran.until(has_counted);
        assert_eq!(
            (&told["flow"], &told["versions"][0]["version"], &told["versions"][0]["state"]),
            (&json!("words"), &json!(2), &json!("live"))
        );
        assert!(data.path().join("control.json").exists());
        ran.signal(signal);
        let last = ran.until(|told| told["event"] == "ended");
        assert_eq!(last["versions"][0]["records_read"], 100);
        assert_eq!(ran.child.0.wait().unwrap().code(), Some(0));
        assert!(!data.path().join("control.json").exists() && !data.path().join("control.token").exists());
        let shown = data.tell("checkpoint show --json").expect(0).json();
        assert!(shown["sources"].as_array().unwrap().iter().all(|at| at["read_to"] == 50), "{shown}");
        // Nothing was counted twice.
        let mut ran = Ran::start(&data, "", true);
        ran.until(|told| told["versions"][0]["status"] == "running");
        ran.signal(Signal::TERM);
        let last = ran.until(|told| told["event"] == "ended");
        assert_eq!(last["versions"][0]["records_read"], 0);
    }
}

#[test]
fn commands_that_need_the_directory_are_refused_while_the_pipeline_runs() {
    let data = Data::new();
    let mut ran = Ran::start(&data, "--deploy 1", true);
    ran.until(has_counted);
    data.tell("run").expect(4).complains(&["running the pipeline", "(pipeline) holds the data directory"]);
    data.tell("deploy 2 --yes").expect(4).complains(&["deploying version 2", "`run --deploy 2`"]);
    data.tell("savepoint now").expect(4).complains(&["taking savepoint `now`", "stop it"]);
    // What only looks is not.
    data.tell("state stats").expect(0);
    data.say("deploy list").expect(0);
}

#[test]
fn a_version_is_deployed_compared_promoted_and_rolled_back_by_commands() {
    let data = Data::new();
    let mut ran = Ran::start(&data, "--deploy 1", true);
    ran.until(has_counted);
    ran.signal(Signal::TERM);
    ran.child.0.wait().unwrap();
    let plan = data.tell("deploy 2 --plan-only --json").expect(0).json();
    assert_eq!((&plan["can_start"], &plan["live"], &plan["records"]), (&json!(true), &json!(1), &json!(100)));
    data.tell("deploy 2").expect(2);
    let mut ran = Ran::start(&data, "--deploy 2", true);
    ran.until(|told| told["versions"][1]["state"] == "caught_up");
    data.tell("deploy promote 2 --token wrong").expect(1).complains(&["Unauthorized", "--token"]);
    let compared = data.say("deploy diff 2 --json").expect(3).json();
    assert_eq!((&compared["old"], &compared["outputs"][0]["only_new"]), (&json!(1), &json!(4)));
    let listed = data.say("deploy list --live --json").expect(0).json();
    assert_eq!((&listed["live"], &listed["versions"][1]["state"]), (&json!(1), &json!("caught_up")));
    assert_eq!(listed["versions"][1]["progress"]["records_behind"], 0, "{listed}");
    let promoted = data.tell("deploy promote 2 --json").expect(0).json();
    assert_eq!(
        (&promoted["state"], &promoted["cut"]["outputs"]["counts"]["from"]),
        (&json!("live"), &json!([100]))
    );
    ran.until(|told| told["versions"][1]["state"] == "live" && told["versions"][0]["state"] == "kept");
    data.say("deploy retire 2").expect(6).complains(&["version 2 is live"]);
    data.say("deploy rollback 2 --reason capitals").expect(0);
    ran.until(|told| told["versions"][0]["state"] == "live");
    let shown = data.say("deploy show 2 --json").expect(0).json();
    assert_eq!(shown["versions"][0]["state"], "rolled_back");
    ran.signal(Signal::TERM);
    assert_eq!(ran.child.0.wait().unwrap().code(), Some(0));
    // What runs at the next start is what is on record.
    let mut ran = Ran::start(&data, "", false);
    let told = ran.until(|told| told["versions"][0]["status"] == "running");
    assert_eq!(told["versions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_version_promotes_itself_if_one_says_so() {
    let data = Data::new();
    let mut ran = Ran::start(&data, "--deploy 1", false);
    ran.until(has_counted);
    ran.signal(Signal::TERM);
    ran.child.0.wait().unwrap();
    let mut ran = Ran::start(&data, "--deploy 2 --auto-promote --rate-limit 100000 --keep-old-for 1h", false);
    ran.until(|told| told["versions"][1]["state"] == "live");
}

#[test]
fn a_pipeline_that_is_killed_leaves_nothing_that_misleads() {
    let data = Data::new();
    let mut ran = Ran::start(&data, "", true);
    ran.until(has_counted);
    ran.child.0.kill().unwrap();
    ran.child.0.wait().unwrap();
    assert!(data.path().join("control.json").exists());
    data.say("deploy pause 2").expect(7).complains(&["no pipeline runs on"]);
    let mut ran = Ran::start(&data, "", false);
    ran.until(has_counted);
    assert!(!data.path().join("control.json").exists(), "it serves nothing, and the file says it does");
}

#[test]
fn a_savepoint_is_taken_between_two_runs_and_a_version_begins_with_it() {
    let data = Data::new();
    data.tell("savepoint first").expect(5).complains(&["no such directory"]);
    let mut ran = Ran::start(&data, "--deploy 1", false);
    ran.until(has_counted);
    ran.signal(Signal::TERM);
    ran.child.0.wait().unwrap();
    let taken = data.tell("savepoint first --json").expect(0).json();
    assert_eq!((&taken["version"], &taken["name"]), (&json!(1), &json!("first")));
    data.tell("savepoint first").expect(1).complains(&["already"]);
    let plan = data.tell("deploy 2 --plan-only --from savepoint:first --json").expect(0).json();
    assert!(plan["begins"].as_str().unwrap().contains("`first`") && plan["records"] == 0, "{plan}");
    data.tell("deploy 2 --plan-only --from savepoint:frist").expect(1).complains(&["frist", "first"]);
    data.tell("deploy 2 --plan-only --from nowhere").expect(2);
    data.tell("deploy 7 --plan-only").expect(5).complains(&["no version 7", "it has 1, 2"]);
}

#[test]
fn what_was_published_is_audited_and_explained_between_two_runs() {
    let data = Data::new();
    data.tell("audit").expect(5).complains(&["no such directory"]);
    let mut ran = Ran::start(&data, "--deploy 1", false);
    ran.until(has_counted);
    data.tell("audit").expect(4).complains(&["auditing flow `words`", "Engine::audit"]);
    data.tell("explain counts.v1 0 5").expect(4).complains(&["counts.v1[0]", "offset 5"]);
    ran.signal(Signal::TERM);
    ran.child.0.wait().unwrap();
    let report = data.tell("audit --json").expect(0).json();
    assert_eq!((&report["version"], &report["records"]), (&json!(1), &json!(100)), "{report}");
    assert!(data.tell("audit 1").expect(0).out.contains("identical"));
    let explained = data.tell("explain counts.v1 0 5 --json").expect(0).json();
    assert_eq!((&explained["offset"], &explained["flow"]), (&json!(5), &json!("words")), "{explained}");
    let records = explained["contributing"].as_array().unwrap();
    assert!(!records.is_empty() && records.iter().all(|record| record["place"].is_object()), "{explained}");
    data.tell("explain counts.v1 0 5000").expect(1).complains(&["5000"]);
    data.tell("audit 7").expect(5).complains(&["no version 7"]);
    // A row that nobody has computed.
    let topic = "log append counts.v1 --partition 0";
    data.feed(topic, "forged\n").expect(0);
    let told = data.tell("audit --json").expect(3);
    assert!(told.json()["difference"].is_object(), "{}", told.out);
    assert_eq!(told.err, "");
}

#[test]
fn a_pipeline_that_cannot_run_says_why() {
    let data = Data::new();
    data.tell("run --deploy 3").expect(5).complains(&["no version 3", "it has 1, 2"]);
    data.tell("run --rate-limit 0").expect(2);
    data.tell("deploy").expect(2).complains(&["which version?", "1, 2"]);
}
