//! `deploy`, offline and by a server.

use crate::http::{self, Request};
use crate::support::*;
use crate::words;
use rivermark::{CaughtUp, Engine, Replay, State, millis, minutes};
use serde_json::json;
use std::sync::{Arc, Mutex};

/// Deploys both versions, and waits until the second has caught up.
fn deployed(engine: &Engine) -> Vec<rivermark::Deployment> {
    words::prepare(engine).unwrap();
    let caught_up = CaughtUp::new().for_at_least(millis(50));
    let replay = Replay::from_earliest().caught_up(caught_up).workers(1);
    let blue = engine.deploy(words::count(1), replay.clone()).unwrap();
    let green = engine.deploy(words::count(2), replay).unwrap();
    assert!(green.wait_for(State::CaughtUp, minutes(1)), "{:?}", green.status());
    vec![blue, green]
}

fn rested() -> Data {
    let data = Data::new();
    let deployments = deployed(&data.engine());
    deployments[0].stop_all().unwrap();
    data
}

#[test]
fn the_record_is_read_while_the_versions_run_and_afterwards() {
    let data = Data::new();
    let deployments = deployed(&data.engine());
    let look = |is_running: bool| {
        let listed = data.say("deploy list --json").expect(0).json();
        assert_eq!(listed["running"].is_string(), is_running, "{listed}");
        let versions = listed["flows"][0]["versions"].as_array().unwrap();
        assert_eq!(versions.len(), 2);
        assert_eq!((&versions[0]["state"], &versions[1]["state"]), (&json!("live"), &json!("caught_up")));
        assert_eq!(listed["flows"][0]["live"], 1);
        let shown = data.say("deploy show 2 --json").expect(0).json();
        assert_eq!(shown["versions"].as_array().unwrap().len(), 1);
        assert_eq!(shown["versions"][0]["outputs"][0]["topic"], "counts.v2");
        assert_eq!(shown["outputs"]["counts"][0]["topic"], "counts.v1");
        data.say("deploy show").expect(0);
    };
    look(true);
    deployments[0].stop_all().unwrap();
    drop(deployments);
    wait_until("that the directory is let go of", || {
        data.say("deploy list --json").expect(0).json()["running"].is_null()
    });
    look(false);
    data.say("deploy show 7").expect(5).complains(&["version 7 of flow `words` was never deployed", "1, 2"]);
}

#[test]
fn versions_are_compared_at_rest() {
    let data = rested();
    let found = data.say("deploy diff --json").expect(3).json();
    assert_eq!((&found["old"], &found["new"], &found["same_offsets"]), (&json!(1), &json!(2), &json!(true)));
    let output = &found["outputs"][0];
    assert_eq!(
        (&output["only_old"], &output["only_new"], &output["same"]),
        (&json!(4), &json!(4), &json!(0))
    );
    let text = data.say("deploy diff 2").expect(3);
    assert!(text.out.contains("ALPHA") && text.err.contains("differ in 8 keys"), "{}{}", text.out, text.err);
    // A version is the same as itself.
    data.say("deploy diff 2 --with 2").expect(0);
}

#[test]
fn a_version_is_retired_where_no_pipeline_runs() {
    let data = rested();
    data.say("deploy retire 1").expect(1).complains(&["version 1 is live"]);
    data.say("deploy retire 2").expect(0);
    let listed = data.say("deploy list --json").expect(0).json();
    assert_eq!(listed["flows"][0]["versions"][1]["state"], "retired");
    assert!(!data.path().join("log/topics/counts.v2").exists());
    data.say("checkpoint show --version 2").expect(5).complains(&["it was retired"]);
}

#[test]
fn without_a_running_pipeline_nothing_is_promoted() {
    let data = rested();
    for order in ["promote 2", "rollback 1", "pause 1", "resume 1"] {
        data.say(&format!("deploy {order}")).expect(7).complains(&["no pipeline runs on", "`run`"]);
    }
    let engine = data.engine();
    data.say("deploy promote 2")
        .expect(7)
        .complains(&[&format!("process {}", std::process::id()), "serves no HTTP"]);
    // Where somebody holds the directory and cannot be asked, nothing is changed behind its back.
    data.say("deploy retire 2").expect(4).complains(&["retiring version 2", "holds the data directory"]);
    drop(engine);
    // What a process that was killed has left leads nowhere.
    std::fs::write(data.path().join("control.json"), "{\"pid\":1,\"address\":\"127.0.0.1:1\"}").unwrap();
    data.say("deploy promote 2").expect(7).complains(&["no pipeline runs on"]);
    data.say("deploy promote 2 --url http://127.0.0.1:1").expect(7).complains(&["is it running there?"]);
}

/// A server that keeps what it was asked, and answers what it is told to.
fn stub(status: u16, body: serde_json::Value) -> (std::net::SocketAddr, Arc<Mutex<Vec<Request>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let address = http::serve(move |request| {
        kept.lock().unwrap().push(request.clone());
        (status, body.to_string())
    });
    (address, asked)
}

fn request(line: &str, authorization: Option<&str>, body: &str) -> Request {
    Request { line: line.into(), authorization: authorization.map(Into::into), body: body.into() }
}

#[test]
fn orders_are_sent_as_the_contract_has_them() {
    let cut = json!({ "outputs": { "counts": { "until": [7], "from": [9], "correction": null } } });
    let (address, asked) = stub(200, json!({ "version": 2, "state": "live", "cut": cut }));
    let data = Data::new();
    let order = |order: &str| {
        data.say(&format!("deploy {order} --flow words --url http://{address} --token t0p")).expect(0)
    };
    let said = order("promote 2 --reason better");
    assert!(said.out.contains("version 2 of flow `words` is live"), "{}", said.out);
    assert!(
        said.out.lines().last().unwrap().split_whitespace().eq(["counts", "0", "7", "9"]),
        "{}",
        said.out
    );
    ["rollback 2", "retire 1", "pause 1", "resume 1"].iter().for_each(|line| drop(order(line)));
    let path = "POST /v1/flows/words/deployments";
    let token = Some("Bearer t0p");
    let expected = [
        request(&format!("{path}/2/promote"), token, "{\"reason\":\"better\"}"),
        request(&format!("{path}/2/rollback"), token, "{}"),
        request(&format!("{path}/1/retire"), token, "{}"),
        request(&format!("{path}/1/pause"), token, "{}"),
        request(&format!("{path}/1/resume"), token, "{}"),
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
}

#[test]
fn what_a_server_refuses_is_the_commands_error() {
    let data = Data::new();
    let cases = [
        (409, "Conflict", "version 2 is replaying, 700 records behind", 6),
        (404, "Not Found", "there is no version 2", 5),
        (401, "Unauthorized", "the token is another", 1),
        (500, "Internal", "the record cannot be written", 1),
    ];
    for (status, title, detail, code) in cases {
        let (address, _) = stub(status, json!({ "title": title, "detail": detail, "status": status }));
        let said = data.say(&format!("deploy promote 2 --flow words --url http://{address}")).expect(code);
        let said = said.complains(&["promoting version 2", title, detail]);
        assert_eq!(said.err.contains("--token"), status == 401, "{}", said.err);
    }
}

#[test]
fn a_server_tells_of_its_versions_and_compares_them() {
    let data = Data::new();
    let listed = json!({ "flow": "words", "live": 1, "versions": [
        { "version": 1, "state": "Live", "status": "running", "records_behind": 3 },
        { "version": 2, "state": "Replaying", "status": "running", "progress": { "records_behind": 700, "records_per_second": 12.6 } },
    ]});
    let (address, asked) = stub(200, listed.clone());
    let said = data.say(&format!("deploy list --flow words --url http://{address}")).expect(0);
    let cells: Vec<Vec<&str>> =
        said.out.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells, [["1", "live", "running", "3", "-"], ["2", "replaying", "running", "700", "13"]]);
    let said = data.say(&format!("deploy list --flow words --json --url http://{address}")).expect(0).json();
    assert_eq!(said, listed);
    assert_eq!(asked.lock().unwrap()[0], request("GET /v1/flows/words/deployments", None, ""));
    let same = json!({ "flow": "words", "old": 1, "new": 2, "outputs": [
        { "alias": "counts", "old_rows": 5, "new_rows": 5, "same": 5, "only_old": 0, "only_new": 0, "different": 0, "samples": [] },
    ]});
    let (address, asked) = stub(200, same);
    let said = data.say(&format!("deploy diff 2 --flow words --url http://{address}")).expect(0);
    assert!(said.out.contains("at the same offsets"), "{}", said.out);
    assert_eq!(asked.lock().unwrap()[0].line, "GET /v1/flows/words/deployments/2/compare");
}

#[test]
fn a_directory_leads_to_the_server_of_its_pipeline() {
    let data = rested();
    let engine = data.engine();
    let (address, asked) = stub(200, json!({ "version": 2, "state": "live" }));
    let control =
        json!({ "pid": std::process::id(), "address": address.to_string(), "token_file": "control.token" });
    std::fs::write(data.path().join("control.json"), control.to_string()).unwrap();
    std::fs::write(data.path().join("control.token"), "hidden\n").unwrap();
    data.say("deploy promote 2").expect(0);
    assert_eq!(asked.lock().unwrap()[0].authorization.as_deref(), Some("Bearer hidden"));
    data.say("deploy promote 2 --token mine").expect(0);
    assert_eq!(asked.lock().unwrap()[1].authorization.as_deref(), Some("Bearer mine"));
    data.say("deploy list --live").expect(0);
    assert_eq!(asked.lock().unwrap()[2].line, "GET /v1/flows/words/deployments");
    drop(engine);
    data.say("deploy list --live").expect(7).complains(&["listing deployments", "no pipeline runs on"]);
}
