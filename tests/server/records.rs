//! The log over HTTP: topics, and records from an offset or a time on.

use crate::client::{check, get, request};
use rivermark::Engine;
use rivermark::log::{RecordBatch, TopicOptions};
use rivermark::server::{Limits, RunningServer, Server};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

const RECORDS: &str = "/v1/log/topics/mixed/partitions/1/records";

/// Records of all kinds in the second of two partitions: a number a second.
fn serve(limits: Limits) -> (RunningServer, Engine, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    let topic = engine.log().create_topic("mixed", TopicOptions::new(2)).unwrap();
    let mut batch = RecordBatch::new();
    batch.push(Some(b"ann"), Some(br#"{"page":"/","n":18446744073709551615}"#), 0);
    batch.push_with_headers(None, Some(b"plain text"), 1000, &[("trace", Some(b"7")), ("empty", None)]);
    batch.push(Some(b"\x00\xff"), None, 2000);
    (3..10).for_each(|n: i64| batch.push(None, Some(n.to_string().as_bytes()), n * 1000));
    topic.append(1, &mut batch).unwrap();
    engine.log().sync().unwrap();
    let server = Server::new().limits(limits).log(engine.log()).start().unwrap();
    (server, engine, directory)
}

fn offsets(page: &Json) -> Vec<u64> {
    page["records"].as_array().unwrap().iter().map(|record| record["offset"].as_u64().unwrap()).collect()
}

#[test]
fn topics_tell_of_their_partitions() {
    let (server, ..) = serve(Limits::default());
    let topics = get(server.address(), "/v1/log/topics").json();
    let topic = topics["topics"].as_array().unwrap().iter().find(|topic| topic["topic"] == "mixed").unwrap();
    let partition = &topic["partitions"][1];
    assert_eq!((&partition["earliest"], &partition["end"]), (&json!(0), &json!(10)));
    assert_eq!((&partition["records"], &partition["max_timestamp_ms"]), (&json!(10), &json!(9000)));
    assert_eq!(topic["partitions"][0]["max_timestamp_ms"], Json::Null);
}

#[test]
fn records_are_written_as_json_text_or_digits() {
    let (server, ..) = serve(Limits::default());
    let reply = get(server.address(), &format!("{RECORDS}?limit=4"));
    // Numbers are as they were written, however large.
    assert!(reply.body.contains("18446744073709551615"), "{reply:?}");
    let page = reply.json();
    let records = &page["records"];
    assert_eq!(records[0]["key"], json!({ "as": "text", "value": "ann", "bytes": 3 }));
    assert_eq!(
        (&records[0]["value"]["as"], &records[0]["value"]["value"]["page"]),
        (&json!("json"), &json!("/"))
    );
    assert_eq!(records[1]["value"]["value"], "plain text");
    assert_eq!(
        records[1]["headers"],
        json!([
            { "name": "trace", "value": { "as": "json", "value": 7, "bytes": 1 } },
            { "name": "empty", "value": null },
        ])
    );
    assert_eq!((&records[2]["key"]["value"], &records[2]["value"]), (&json!("00ff"), &Json::Null));
    assert_eq!((&records[3]["value"]["value"], &records[3]["timestamp_ms"]), (&json!(3), &json!(3000)));
}

#[test]
fn one_begins_at_an_offset_or_a_time_and_reads_on_page_by_page() {
    let (server, engine, _directory) = serve(Limits::default());
    let page = |params: &str| get(server.address(), &format!("{RECORDS}?{params}")).json();
    assert_eq!(offsets(&page("from=4&limit=3")), [4, 5, 6]);
    assert_eq!(page("from=4&limit=3")["next"], 7);
    assert_eq!(offsets(&page("from=7&limit=3")), [7, 8, 9]);
    assert_eq!(offsets(&page("time=6500")), [7, 8, 9]);
    assert_eq!(offsets(&page("time=-1&limit=1")), [0]);
    // Nothing is there yet, and then it is.
    let end = page("from=10");
    assert_eq!((offsets(&end), &end["next"], &end["end"]), (vec![], &json!(10), &json!(10)));
    assert_eq!(offsets(&page("from=18446744073709551615")), Vec::<u64>::new());
    assert_eq!(offsets(&page("time=99999")), Vec::<u64>::new());
    let mut batch = RecordBatch::new();
    batch.push(None, Some(b"new"), 10_000);
    engine.log().topic("mixed").unwrap().append(1, &mut batch).unwrap();
    engine.log().sync().unwrap();
    assert_eq!(offsets(&page("from=10")), [10]);
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason() {
    let (server, engine, _directory) = serve(Limits { entries: 5, ..Limits::default() });
    let says = |path: &str, status: u16, word: &str| {
        let reply = get(server.address(), path);
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert!(reply.detail().contains(word), "{path}: {reply:?}");
    };
    says("/v1/log/topics/mxied/partitions/0/records", 404, "`mixed`");
    says("/v1/log/topics/mixed/partitions/2/records", 404, "partition");
    says("/v1/log/topics/mixed/partitions/x/records", 400, "`x`");
    says(&format!("{RECORDS}?from=1&time=1"), 400, "not both");
    says(&format!("{RECORDS}?from=-1"), 400, "`from`");
    says(&format!("{RECORDS}?time=noon"), 400, "milliseconds");
    says(&format!("{RECORDS}?limit=0"), 400, "`limit`");
    says(&format!("{RECORDS}?limit=6"), 413, "at most 5");
    says(&format!("{RECORDS}?offset=6"), 400, "`from`");
    assert_eq!(offsets(&get(server.address(), RECORDS).json()).len(), 5);
    // What is not handed over is not served.
    let closed = Server::new().start().unwrap();
    assert!(get(closed.address(), "/v1/log/topics").detail().contains("Server::log"));
    let secret = Server::new().token("secret").log(engine.log()).start().unwrap();
    assert_eq!(get(secret.address(), RECORDS).status, 401);
}

#[test]
fn an_answer_ends_when_it_is_large_enough() {
    let (server, ..) = serve(Limits { bytes: 100, ..Limits::default() });
    let page = get(server.address(), RECORDS).json();
    assert!((1..10).contains(&offsets(&page).len()), "{page}");
    assert_eq!(page["next"], offsets(&page).len());
}

#[test]
fn the_log_can_be_opened_again_as_soon_as_the_server_is_dropped() {
    let (server, engine, directory) = serve(Limits::default());
    assert_eq!(get(server.address(), RECORDS).status, 200);
    drop(server);
    drop(engine);
    Engine::open(directory.path()).unwrap();
}

#[test]
fn what_is_described_of_the_log_is_what_the_server_does() {
    let (server, engine, _directory) = serve(Limits::default());
    let document = get(server.address(), "/openapi.json").json();
    let closed = Server::new().token("secret").log(engine.log()).start().unwrap();
    for (path, asked) in [
        ("/v1/log/topics", "/v1/log/topics"),
        ("/v1/log/topics/{topic}/partitions/{partition}/records", &format!("{RECORDS}?from=0&limit=3")),
    ] {
        let described = &document["paths"][path]["get"];
        let reply = get(server.address(), asked);
        assert_eq!(reply.status, 200, "{reply:?}");
        check(&document, &reply, described, path);
        check(&document, &request(closed.address(), "GET", asked, &[], ""), described, path);
        check(&document, &get(Server::new().start().unwrap().address(), asked), described, path);
    }
    assert!(document["paths"]["/v1/events"]["get"].is_object());
}
