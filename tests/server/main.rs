//! Queries over HTTP: the answers, the refusals, and the description of both.
#![expect(clippy::unwrap_used, reason = "tests")]

mod client;
mod deployments;
mod events;
mod metrics;
mod records;
mod versions;

use client::{Reply, check, get, request};
use rivermark::connectors::{Collect, LogSource};
use rivermark::log::{RecordBatch, TopicOptions};
use rivermark::server::{Limits, RunningServer, Server};
use rivermark::{
    BoxError, Context, Engine, Flow, Job, Map, Options, ProcessFunction, StateBackend, Timestamp, Value,
    Watermarks, Windows, secs,
};
use serde_json::{Value as Json, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const COUNT: Value<u64> = Value::new("count");
const PER_PAGE: Map<String, u64> = Map::new("per-page");
const DEADLINE: Duration = Duration::from_secs(60);

/// User, page, second.
type Click = (String, String, i64);

#[derive(Clone)]
struct Clicks;

impl ProcessFunction<String, Click> for Clicks {
    type Out = ();

    fn on_record(
        &mut self,
        _: &String,
        (_, page, _): Click,
        cx: &mut Context<'_, String, ()>,
    ) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?.unwrap_or(0) + 1;
        cx.state(COUNT).set(count)?;
        let of_page = cx.state(PER_PAGE).get(&page)?.unwrap_or(0) + 1;
        cx.state(PER_PAGE).put(page, of_page)
    }
}

fn flow() -> Flow {
    let flow = Flow::new("clicks");
    let clicks = flow
        .source(LogSource::<Click>::topic("clicks"))
        .event_time(|click| Timestamp::from_secs(click.2), Watermarks::monotonous());
    clicks.clone().key_by(|click| click.0.clone()).process(Clicks).named("users").sink(Collect::new());
    clicks.clone().key_by(|click| click.1.clone()).process(Clicks).named("pages").sink(Collect::new());
    let by_user = clicks.key_by(|click| click.0.clone());
    by_user.window(Windows::tumbling(secs(10))).count().named("per-10s").sink(Collect::new());
    flow
}

/// A job over some clicks.
struct Running {
    job: Job,
    engine: Engine,
    _directory: TempDir,
}

fn append(engine: &Engine, clicks: &[(&str, &str, i64)]) {
    let topic = engine.log().ensure_topic("clicks", TopicOptions::new(1)).unwrap();
    let mut batch = RecordBatch::new();
    for click in clicks {
        batch.push(None, Some(&serde_json::to_vec(click).unwrap()), 0);
    }
    topic.append(0, &mut batch).unwrap();
}

fn start(clicks: &[(&str, &str, i64)]) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(2).checkpoint_every(None).state_backend(StateBackend::Memory);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    append(&engine, clicks);
    let job = engine.start(flow()).unwrap();
    Running { job, engine, _directory: directory }
}

impl Running {
    /// Until an epoch has seen so many clicks.
    fn read(&self, clicks: u64) {
        assert!(self.job.wait_until(|job| job.metrics().records_read == clicks));
        let epoch = self.job.checkpoint().unwrap();
        self.job.queries().view_from(epoch, DEADLINE).unwrap();
    }

    fn server(&self) -> Server {
        Server::new()
            .serve::<String, _>(&self.job, COUNT)
            .serve_of::<(String, String), _>(&self.job, "users", PER_PAGE)
            .serve_windows::<String, u64>(&self.job, "per-10s")
    }
}

const CLICKS: &[(&str, &str, i64)] =
    &[("ann", "/", 1), ("bob", "/", 2), ("ann", "/a", 3), ("andy", "/ä b", 4)];

fn serving(limits: Limits) -> (Running, RunningServer) {
    let running = start(CLICKS);
    running.read(4);
    let server = running.server().limits(limits).start().unwrap();
    (running, server)
}

/// Keys and values of an answer.
fn entries(reply: &Reply) -> Vec<(String, u64)> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let entries = reply.json()["entries"].as_array().unwrap().clone();
    let entry = |entry: &Json| (entry["key"].as_str().unwrap().to_owned(), entry["value"].as_u64().unwrap());
    entries.iter().map(entry).collect()
}

#[test]
fn a_key_is_answered_with_the_epoch_offsets_and_watermark_that_it_reflects() {
    let (running, server) = serving(Limits::default());
    let of_ann = "/v1/flows/clicks/states/count/entries/ann?operator=users";
    let reply = get(server.address(), of_ann).json();
    let view = running.job.view().unwrap();
    assert_eq!((&reply["key"], &reply["value"]), (&json!("ann"), &json!(2)));
    assert_eq!(reply["at"]["epoch"], view.epoch().0);
    assert_eq!(reply["at"]["watermark_ms"], 4000);
    assert!(reply["at"]["offsets"].to_string().contains(":4}"), "{reply}");

    append(&running.engine, &[("ann", "/", 5)]);
    running.read(5);
    let later = get(server.address(), of_ann).json();
    assert_eq!((&later["value"], &later["at"]["watermark_ms"]), (&json!(3), &json!(5000)));
    assert!(later["at"]["epoch"].as_u64() > reply["at"]["epoch"].as_u64());

    // JSON or text, in any encoding of the URL; pairs are JSON.
    let count = |key: &str| get(server.address(), &format!("/v1/flows/clicks/states/{key}"));
    assert_eq!(count("count/entries/%22ann%22?operator=users").json()["value"], 3);
    assert_eq!(count("count/entries/%2F%C3%A4%20b?operator=pages").json()["value"], 1);
    assert_eq!(count("per-page/entries/%5B%22ann%22,%22/%22%5D").status, 404, "a slash is to be encoded");
    assert_eq!(count("per-page/entries/%5B%22ann%22,%22%2F%22%5D").json()["value"], 2);
}

#[test]
fn entries_come_in_the_order_of_keys_and_page_by_page() {
    let (_running, server) = serving(Limits::default());
    let users = |params: &str| {
        get(server.address(), &format!("/v1/flows/clicks/states/count/entries?operator=users{params}"))
    };
    let all = [("andy".to_owned(), 1), ("ann".to_owned(), 2), ("bob".to_owned(), 1)];
    assert_eq!(entries(&users("")), all);
    assert_eq!(entries(&users("&prefix=an")), all[..2]);
    assert_eq!(entries(&users("&from=ann")), all[1..]);
    assert_eq!(entries(&users("&to=ann")), all[..1]);
    let page = users("&limit=2");
    assert_eq!((entries(&page), &page.json()["has_more"]), (all[..2].to_vec(), &json!(true)));
    let page = users("&limit=2&after=ann");
    assert_eq!((entries(&page), &page.json()["has_more"]), (all[2..].to_vec(), &json!(false)));
}

#[test]
fn questions_of_one_request_are_answered_at_one_epoch() {
    let (_running, server) = serving(Limits::default());
    let questions = json!({ "questions": [
        { "state": "count", "operator": "users", "key": "ann" },
        { "state": "count", "operator": "pages", "key": "/" },
        { "state": "per-page", "key": ["ann", "/a"] },
        { "state": "count", "operator": "users", "key": "nobody" },
    ]});
    let path = "/v1/flows/clicks/query";
    let reply = request(server.address(), "POST", path, &[], &questions.to_string());
    assert_eq!(reply.json()["values"], json!([2, 2, 1, null]), "{reply:?}");
    assert!(reply.json()["at"]["epoch"].is_u64());
}

#[test]
fn windows_of_a_key_are_answered_between_two_times() {
    let (_running, server) = serving(Limits::default());
    let windows = |key: &str| get(server.address(), &format!("/v1/flows/clicks/windows/per-10s/{key}"));
    assert_eq!(windows("ann").json()["windows"], json!([{ "start_ms": 0, "value": 2 }]));
    assert_eq!(windows("ann?from_ms=10000").json()["windows"], json!([]));
    assert_eq!(windows("ann?from_ms=soon").status, 400);
}

#[test]
fn what_cannot_be_answered_is_refused_with_a_reason() {
    let (_running, server) = serving(Limits { entries: 2, body: 100, questions: 1, ..Limits::default() });
    let says = |path: &str, status: u16, words: &[&str]| {
        let reply = get(server.address(), path);
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        let detail = reply.detail();
        words.iter().for_each(|word| assert!(detail.contains(word), "{path}: `{word}` is not in: {detail}"));
    };
    says("/v1/flow", 404, &["/openapi.json"]);
    says("/v1/flows/click", 404, &["`click`", "`clicks`"]);
    says("/v1/flows/clicks/states/cuont/entries/ann", 404, &["cuont", "`count`", "epoch"]);
    says("/v1/flows/clicks/states/count/entries/ann", 400, &["`pages`", "`users`", "`operator`"]);
    says("/v1/flows/clicks/states/count/entries/zoe?operator=users", 404, &["zoe", "users", "epoch"]);
    // Served of one operator only.
    says("/v1/flows/clicks/states/per-page/entries/a?operator=pages", 404, &["pages"]);
    says(
        "/v1/flows/clicks/states/per-page/entries/ann",
        400,
        &["(alloc::string::String, alloc::string::String)"],
    );
    says("/v1/flows/clicks/states/count/entries/ann?oeprator=users", 400, &["oeprator", "`operator`"]);
    says("/v1/flows/clicks/states/count/entries?operator=users", 413, &["2 entries", "`limit`"]);
    says("/v1/flows/clicks/states/count/entries?operator=users&limit=3", 413, &["at most 2"]);
    says("/v1/flows/clicks/states/count/entries?operator=users&limit=0", 400, &["limit"]);
    says("/v1/flows/clicks/windows/none/ann", 404, &["`none`", "`per-10s`"]);
    let post = |body: &str| request(server.address(), "POST", "/v1/flows/clicks/query", &[], body);
    assert_eq!(post("{").status, 400);
    assert_eq!(post(r#"{"questions":[{"state":"count","kee":"ann"}]}"#).status, 400);
    assert_eq!(post(&" ".repeat(101)).status, 413);
    let one = r#"{"state":"count","key":1}"#;
    assert!(post(&format!(r#"{{"questions":[{one},{one}]}}"#)).detail().contains("at most 1"));
}

#[test]
fn limits_of_time_bytes_and_requests_are_held() {
    let (running, server) = serving(Limits { scans: 0, bytes: 10, ..Limits::default() });
    let all = "/v1/flows/clicks/states/count/entries?operator=users";
    let busy = get(server.address(), all);
    assert_eq!((busy.status, busy.head.contains("retry-after")), (429, true), "{busy:?}");
    let none = running.server().limits(Limits { requests: 0, ..Limits::default() }).start().unwrap();
    assert_eq!(get(none.address(), "/healthz").status, 429);
    let small = running.server().limits(Limits { bytes: 10, ..Limits::default() }).start().unwrap();
    assert!(get(small.address(), all).detail().contains("10 bytes"));
    let hasty =
        running.server().limits(Limits { time: Duration::ZERO, ..Limits::default() }).start().unwrap();
    let reply = get(hasty.address(), all);
    assert_eq!((reply.status, reply.detail().contains("too long")), (503, true));
}

#[test]
fn only_who_has_a_token_is_let_in() {
    let (running, _) = serving(Limits::default());
    let server = running.server().token("one").token("another").start().unwrap();
    let ask = |header: &str| request(server.address(), "GET", "/v1/flows", &[header], "");
    for refused in [
        "X: y",
        "Authorization: Bearer",
        "Authorization: Bearer on",
        "Authorization: Bearer onee",
        "Authorization: Basic one",
        "Authorization: one",
        "Authorization: Bearer ",
    ] {
        let reply = ask(refused);
        assert_eq!(reply.status, 401, "{refused}: {reply:?}");
        assert!(reply.head.contains("www-authenticate: bearer"));
    }
    assert_eq!(ask("Authorization: Bearer one").status, 200);
    assert_eq!(ask("authorization: bearer another").status, 200);
    assert_eq!(get(server.address(), "/metrics").status, 401);
    assert_eq!(get(server.address(), "/healthz").status, 200);
    assert_eq!(get(server.address(), "/readyz").status, 200);
}

#[test]
fn a_name_that_others_can_lead_here_is_not_answered_without_a_token() {
    let (running, server) = serving(Limits::default());
    let ask = |server: &RunningServer, path: &str, host: &str, token: &str| {
        let headers = [format!("Host: {host}"), format!("Authorization: Bearer {token}")];
        request(server.address(), "GET", path, &headers.each_ref().map(String::as_str), "").status
    };
    assert_eq!(ask(&server, "/v1/flows", "evil.example:80", ""), 403);
    assert_eq!(ask(&server, "/healthz", "evil.example:80", ""), 200);
    assert_eq!(ask(&server, "/v1/flows", "127.0.0.1:80", ""), 200);
    let named = running.server().host("flows.example").start().unwrap();
    assert_eq!(ask(&named, "/v1/flows", "flows.example", ""), 200);
    let secret = running.server().token("secret").start().unwrap();
    assert_eq!(
        ask(&secret, "/v1/flows", "evil.example", "secret"),
        200,
        "browsers do not send tokens by themselves"
    );
    assert_eq!(ask(&secret, "/v1/flows", "evil.example", ""), 401);
}

#[test]
fn beyond_loopback_it_listens_with_a_token_only() {
    let running = start(CLICKS);
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let error = running.server().listen_on(everywhere).start().unwrap_err().to_string();
    assert!(error.contains("token") && error.contains("0.0.0.0"), "{error}");
    running.server().listen_on(everywhere).token("secret").start().unwrap();
}

#[test]
fn a_flow_without_an_epoch_is_not_ready_and_becomes_so() {
    let running = start(CLICKS);
    let server = running.server().start().unwrap();
    let entry = "/v1/flows/clicks/states/count/entries/ann?operator=users";
    for path in ["/readyz", entry] {
        let reply = get(server.address(), path);
        assert_eq!((reply.status, reply.detail().contains("clicks")), (503, true), "{path}");
    }
    assert_eq!(get(server.address(), "/healthz").status, 200);
    assert_eq!(get(server.address(), "/v1/flows/clicks").json()["at"], Json::Null);
    running.read(4);
    let deadline = Instant::now() + DEADLINE;
    while get(server.address(), "/readyz").status != 200 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(get(server.address(), entry).json()["value"], 2);
}

#[test]
fn metrics_tell_of_jobs_and_requests() {
    let (_running, server) = serving(Limits::default());
    get(server.address(), "/v1/flows/none");
    let reply = get(server.address(), "/metrics");
    assert!(reply.head.contains("application/openmetrics-text"), "{reply:?}");
    for line in [
        r#"rivermark_http_requests_total{status="404"} 1"#,
        r#"rivermark_records_read_total{flow="clicks"} 4"#,
        "# TYPE rivermark_http_request_duration_seconds histogram",
        r#"rivermark_query_epoch{flow="clicks"}"#,
        r#"rivermark_watermark_seconds{flow="clicks"} 4.0"#,
        "# EOF",
    ] {
        assert!(reply.body.contains(line), "no {line} in\n{}", reply.body);
    }
}

#[test]
fn the_description_is_what_the_server_does() {
    let (running, server) = serving(Limits::default());
    let document = get(server.address(), "/openapi.json").json();
    let example = |path: &str| {
        let path = path.replace("{flow}", "clicks").replace("{state}", "count").replace("{key}", "ann");
        path.replace("{operator}", "per-10s")
    };
    let check = |reply: &Reply, described: &Json, path: &str| check(&document, reply, described, path);
    let paths = document["paths"].as_object().unwrap();
    // Those of deployments and of the log are checked where there are some; events have no end.
    let others = ["/deployments", "/v1/log", "/v1/events"];
    let paths: Vec<_> =
        paths.iter().filter(|(path, _)| !others.iter().any(|other| path.contains(other))).collect();
    assert_eq!(paths.len(), 10);
    for (path, item) in paths {
        let (method, described) =
            item.as_object().unwrap().iter().find(|(name, _)| *name != "parameters").unwrap();
        // Every parameter that is described is known; an unknown one is refused.
        let known = |name: &Json| match name.as_str().unwrap() {
            "operator" => "operator=users",
            "limit" => "limit=5",
            "from_ms" => "from_ms=0",
            "to_ms" => "to_ms=9",
            "to" => "to=zoe",
            "from" | "after" | "prefix" => "",
            other => panic!("{other}"),
        };
        let params = described["parameters"].as_array().into_iter().flatten();
        let params: Vec<&str> = params.map(|param| known(&param["name"])).collect();
        let asked = format!("{}?{}", example(path), params.join("&"));
        let body = match method.as_str() {
            "post" => r#"{"questions":[{"state":"per-page","key":["ann","/"]}]}"#,
            _ => "",
        };
        let method = method.to_uppercase();
        let reply = request(server.address(), &method, &asked, &[], body);
        assert_eq!(reply.status, 200, "{asked}: {reply:?}");
        check(&reply, described, path);
        // What refuses everything refuses as described.
        let closed = running
            .server()
            .token("secret")
            .limits(Limits { scans: 0, ..Limits::default() })
            .start()
            .unwrap();
        check(&request(closed.address(), &method, &asked, &[], body), described, path);
        check(
            &request(closed.address(), &method, &asked, &["Authorization: Bearer secret"], body),
            described,
            path,
        );
        if described["responses"]["404"].is_object() {
            let reply = request(server.address(), &method, &asked.replace("clicks", "none"), &[], body);
            assert_eq!(reply.status, 404);
            check(&reply, described, path);
        }
        if described["responses"]["400"].is_object() {
            let asked = example(path) + "?no=such";
            let reply = request(server.address(), &method, &asked, &[], "{");
            assert_eq!(reply.status, 400, "{asked}");
            check(&reply, described, path);
        }
    }
}
