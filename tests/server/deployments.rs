//! Versions of a flow over HTTP: what they are, the requests that change them, and who may send those.

use crate::client::{Reply, check, get, request};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{RecordBatch, TopicOptions};
use rivermark::server::{RunningServer, Server};
use rivermark::{
    CaughtUp, Deployment, Engine, Flow, Options, Replay, Restart, State, StateBackend, Timestamp, Watermarks,
    millis, secs,
};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);
const VERSIONS: &str = "/v1/flows/doubled/deployments";

fn flow(version: u64) -> Flow {
    let flow = Flow::new("doubled").version(version);
    flow.source(LogSource::<u64>::topic("numbers"))
        .event_time(|number| Timestamp::from_secs(*number as i64), Watermarks::monotonous())
        .map(move |number| (number, if version > 1 && number % 10 == 0 { 3 * number } else { 2 * number }))
        .sink(LogSink::output("doubled").key(|row: &(u64, u64)| row.0.to_string().into_bytes()));
    flow
}

/// Two versions, of which the first is live and the second has caught up. Fields are dropped in this order.
struct Deployed {
    server: RunningServer,
    blue: Deployment,
    green: Deployment,
    engine: Engine,
    _directory: TempDir,
}

fn append(engine: &Engine, numbers: std::ops::Range<u64>) {
    let topic = engine.log().ensure_topic("numbers", TopicOptions::new(1)).unwrap();
    let mut batch = RecordBatch::new();
    numbers.for_each(|number| batch.push(None, Some(number.to_string().as_bytes()), 0));
    topic.append(0, &mut batch).unwrap();
}

fn deploy(serve: impl FnOnce(Server) -> Server) -> Deployed {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(1).state_backend(StateBackend::Memory);
    let options = options.checkpoint_every(millis(20)).restart(Restart::Never);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    append(&engine, 0..100);
    let caught_up = CaughtUp::new().within_event_time(secs(10)).for_at_least(millis(20));
    let replay = Replay::from_earliest().caught_up(caught_up);
    let blue = engine.deploy(flow(1), replay.clone()).unwrap();
    let green = engine.deploy(flow(2), replay).unwrap();
    assert!(green.wait_for(State::CaughtUp, DEADLINE));
    let server = serve(Server::new()).deployments(&blue).start().unwrap();
    Deployed { server, blue, green, engine, _directory: directory }
}

impl Deployed {
    fn ask(&self, version: u64, what: &str, headers: &[&str], body: &str) -> Reply {
        request(self.server.address(), "POST", &format!("{VERSIONS}/{version}/{what}"), headers, body)
    }

    fn version(&self, version: u64) -> Json {
        let all = get(self.server.address(), VERSIONS).json();
        let of = all["versions"].as_array().unwrap().iter().find(|one| one["version"] == version);
        of.unwrap().clone()
    }
}

#[test]
fn versions_say_what_they_are_and_how_far_they_have_come() {
    let deployed = deploy(|server| server);
    let until = Instant::now() + DEADLINE;
    while deployed.version(2)["progress"]["records_behind"] != 0 {
        assert!(Instant::now() < until);
    }
    let all = get(deployed.server.address(), VERSIONS).json();
    assert_eq!((&all["flow"], &all["live"], &all["before"]), (&json!("doubled"), &json!(1), &Json::Null));
    let (one, two) = (deployed.version(1), deployed.version(2));
    assert_eq!((&one["state"], &one["status"]), (&json!("live"), &json!("running")));
    assert_eq!((&two["state"], &two["paused"]), (&json!("caught_up"), &json!(false)));
    let progress = &two["progress"];
    assert_eq!((&progress["event_time_ms"], &progress["eta_ms"]), (&json!(99_000), &json!(0)));
    let partition = &progress["partitions"][0];
    assert_eq!((&partition["offset"], &partition["live_offset"]), (&json!(100), &json!(100)));
    assert_eq!(get(deployed.server.address(), "/v1/flows/none/deployments").status, 404);
}

#[test]
fn a_version_is_promoted_compared_and_rolled_back() {
    let deployed = deploy(|server| server);
    let compared = get(deployed.server.address(), &format!("{VERSIONS}/2/compare")).json();
    assert_eq!((&compared["old"], &compared["new"]), (&json!(1), &json!(2)));
    let output = &compared["outputs"][0];
    // 0 is 0 in both.
    assert_eq!((&output["same"], &output["different"]), (&json!(91), &json!(9)), "{output}");

    let promoted = deployed.ask(2, "promote", &[], r#"{"reason":"it is right"}"#).json();
    assert_eq!((&promoted["state"], &promoted["live"]), (&json!("live"), &json!(2)));
    assert_eq!(promoted["cut"]["outputs"]["doubled"]["until"], json!([100]));
    assert_eq!((deployed.blue.state(), deployed.green.state()), (State::Kept, State::Live));

    // Again: nothing is left to do.
    assert_eq!(deployed.ask(2, "promote", &[], "").status, 200);
    let not_live = deployed.ask(1, "rollback", &[], "");
    assert_eq!(not_live.status, 409);
    assert!(not_live.detail().contains("only the live one"), "{not_live:?}");

    let rolled_back = deployed.ask(2, "rollback", &[], r#"{"reason":"it is wrong"}"#).json();
    assert_eq!((&rolled_back["state"], &rolled_back["live"]), (&json!("rolled_back"), &json!(1)));
    assert_eq!(deployed.version(2)["reason"], "it is wrong");
    let stopped = deployed.ask(2, "pause", &[], "");
    assert_eq!((stopped.status, stopped.detail().contains("rolled back")), (409, true));
    assert_eq!(deployed.ask(2, "retire", &[], "").json()["state"], "retired");
    assert_eq!(deployed.ask(1, "retire", &[], "").status, 409, "it is live");
    let unknown = deployed.ask(3, "promote", &[], "");
    assert_eq!((unknown.status, unknown.detail().contains("`1`, `2`")), (404, true), "{unknown:?}");
}

#[test]
fn prometheus_reads_what_versions_are_and_how_far_behind() {
    let deployed = deploy(|server| server);
    let until = Instant::now() + DEADLINE;
    // Caught up is close behind, and there a moment later.
    let has = |line: &str| loop {
        let text = get(deployed.server.address(), "/metrics").body;
        if text.lines().any(|known| known == line) {
            return;
        }
        assert!(Instant::now() < until, "{line} is not in {text}");
    };
    has("rivermark_deployment_state{flow=\"doubled\",version=\"1\",state=\"live\"} 1");
    has("rivermark_deployment_state{flow=\"doubled\",version=\"2\",state=\"caught_up\"} 1");
    has("rivermark_deployment_behind_records{flow=\"doubled\",version=\"2\"} 0.0");
    has("rivermark_deployment_behind_seconds{flow=\"doubled\",version=\"2\"} 0.0");
    has("rivermark_deployment_switches_total{flow=\"doubled\"} 0");
    assert_eq!(deployed.ask(2, "promote", &[], "").status, 200);
    has("rivermark_deployment_state{flow=\"doubled\",version=\"2\",state=\"live\"} 1");
    has("rivermark_deployment_switches_total{flow=\"doubled\"} 1");
}

#[test]
fn a_version_that_is_paused_reads_nothing_until_it_is_resumed() {
    let deployed = deploy(|server| server);
    assert_eq!(deployed.ask(2, "pause", &[], "").status, 200);
    assert_eq!(deployed.version(2)["paused"], true);
    append(&deployed.engine, 100..200);
    let read = |deployment: &Deployment| deployment.metrics().unwrap().records_read;
    let until = Instant::now() + DEADLINE;
    while read(&deployed.blue) < 200 {
        assert!(Instant::now() < until);
    }
    assert_eq!(read(&deployed.green), 100);
    assert_eq!(deployed.ask(2, "resume", &[], "").status, 200);
    while read(&deployed.green) < 200 {
        assert!(Instant::now() < until);
    }
    assert_eq!(deployed.version(2)["paused"], false);
}

#[test]
fn pages_of_other_sites_and_strangers_change_nothing() {
    let deployed = deploy(|server| server.token("secret"));
    let token = "Authorization: Bearer secret";
    let own = "Origin: http://localhost";
    assert_eq!(deployed.ask(2, "promote", &[], "").status, 401);
    assert_eq!(deployed.ask(2, "promote", &[own], "").status, 401);
    for foreign in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://localhost:81",
        "Sec-Fetch-Site: cross-site",
    ] {
        for what in ["promote", "rollback", "retire", "pause", "resume"] {
            let reply = deployed.ask(2, what, &[token, foreign], "");
            assert_eq!(reply.status, 403, "{what}, {foreign}: {reply:?}");
        }
    }
    // It changes nothing, and lets both stand still.
    let compare = format!("{VERSIONS}/2/compare");
    let foreign = [token, "Sec-Fetch-Site: cross-site"];
    assert_eq!(request(deployed.server.address(), "GET", &compare, &foreign, "").status, 403);
    assert_eq!((deployed.blue.state(), deployed.green.state()), (State::Live, State::CaughtUp));
    assert_eq!(deployed.green.is_paused(), Some(false));
    assert_eq!(deployed.ask(2, "promote", &[token, own, "Sec-Fetch-Site: same-origin"], "").status, 200);

    // Without a token a name that was led here is of its page's own origin, and not answered for that.
    let open = Server::new().deployments(&deployed.blue).start().unwrap();
    let rebound = ["Host: evil.example", "Origin: http://evil.example"];
    let reply = request(open.address(), "POST", &format!("{VERSIONS}/2/rollback"), &rebound, "");
    assert_eq!(reply.status, 403, "{reply:?}");
    assert_eq!(deployed.green.state(), State::Live);
}

#[test]
fn the_server_keeps_no_version_running() {
    let deployed = deploy(|server| server);
    let Deployed { server, blue, green, engine, _directory } = deployed;
    let weak = green.downgrade();
    drop((blue, green));
    // A moment later: the thread that moves versions may be the last to hold them.
    let until = Instant::now() + DEADLINE;
    let reply = loop {
        let reply = get(server.address(), VERSIONS);
        if reply.status != 200 {
            break reply;
        }
        assert!(Instant::now() < until, "{reply:?}");
    };
    assert_eq!((reply.status, reply.detail().contains("let go")), (404, true));
    assert!(weak.upgrade().is_none());
    // And they have stopped.
    while let Err(error) = engine.deploy(flow(1), Replay::from_earliest()) {
        assert!(Instant::now() < until, "{error}");
    }
}

#[test]
fn what_is_described_of_deployments_is_what_the_server_does() {
    let deployed = deploy(|server| server);
    let closed = Server::new().token("secret").deployments(&deployed.blue).start().unwrap();
    let document = get(deployed.server.address(), "/openapi.json").json();
    let paths = document["paths"].as_object().unwrap();
    // In an order in which each can be done.
    for what in ["", "/compare", "/pause", "/resume", "/promote", "/rollback", "/retire"] {
        let path = format!(
            "/v1/flows/{{flow}}/deployments{}{what}",
            if what.is_empty() { "" } else { "/{version}" }
        );
        let item = paths[&path].as_object().unwrap();
        let (method, described) = item.iter().find(|(name, _)| *name != "parameters").unwrap();
        let method = method.to_uppercase();
        let asked = path.replace("{flow}", "doubled").replace("{version}", "2");
        let reply = request(deployed.server.address(), &method, &asked, &[], "");
        assert_eq!(reply.status, 200, "{asked}: {reply:?}");
        check(&document, &reply, described, &path);
        for (refused, status) in [
            (request(closed.address(), &method, &asked, &[], ""), 401),
            (request(deployed.server.address(), &method, &asked.replace("doubled", "none"), &[], ""), 404),
        ] {
            assert_eq!(refused.status, status, "{asked}: {refused:?}");
            check(&document, &refused, described, &path);
        }
        if method == "POST" {
            let malformed = request(deployed.server.address(), &method, &asked, &[], r#"{"why":1}"#);
            assert_eq!(malformed.status, 400, "{asked}");
            check(&document, &malformed, described, &path);
        }
        if !what.is_empty() {
            let unreadable =
                request(deployed.server.address(), &method, &asked.replace("/2/", "/two/"), &[], "");
            assert_eq!(unreadable.status, 400, "{asked}");
        }
    }
}
