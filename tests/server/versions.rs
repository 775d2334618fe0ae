//! A server that follows the live version of a flow.

use crate::client::get;
use crate::{Click, DEADLINE, append};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::server::Server;
use rivermark::{
    BoxError, CaughtUp, Context, Engine, Flow, Options, ProcessFunction, Replay, State, StateBackend,
    Timestamp, Value, Watermarks, Windows, millis, secs,
};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const COUNT: Value<u64> = Value::new("count");
const OLD: Value<u64> = Value::new("clicks");

/// Counts clicks by user; the second version counts them twice, and has another name for what the first one has beside it.
#[derive(Clone)]
struct Count(u64);

impl ProcessFunction<String, Click> for Count {
    type Out = (String, u64);

    fn on_record(
        &mut self,
        user: &String,
        _: Click,
        cx: &mut Context<'_, String, (String, u64)>,
    ) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?.unwrap_or(0) + self.0;
        cx.state(COUNT).set(count)?;
        if self.0 == 1 {
            cx.state(OLD).set(count)?;
        }
        cx.emit((user.clone(), count));
        Ok(())
    }
}

fn flow(version: u64) -> Flow {
    let flow = Flow::new("counts").version(version);
    let clicks = flow
        .source(LogSource::<Click>::topic("clicks"))
        .event_time(|click| Timestamp::from_secs(click.2), Watermarks::monotonous());
    let by_user = |click: &Click| click.0.clone();
    clicks.clone().key_by(by_user).process(Count(version)).named("users").sink(LogSink::output("counts"));
    let windows = clicks.key_by(by_user).window(Windows::tumbling(secs(10))).count();
    windows.named(if version == 1 { "per-10s" } else { "per-ten" }).sink(LogSink::output("windows"));
    flow
}

fn deploy(engine: &Engine, version: u64) -> rivermark::Deployment {
    let caught_up = CaughtUp::new().for_at_least(millis(30));
    let deployed = engine.deploy(flow(version), Replay::from_earliest().caught_up(caught_up)).unwrap();
    if version > 1 {
        assert!(deployed.wait_for(State::CaughtUp, DEADLINE), "{:?}", deployed.progress());
    }
    deployed
}

#[test]
fn every_request_is_answered_across_promote_and_roll_back_by_the_version_that_is_live() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(2).checkpoint_every(millis(20)).state_backend(StateBackend::Memory);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    append(&engine, &[("ann", "/", 1), ("bob", "/", 2), ("ann", "/a", 3)]);
    // It can be there before anything is deployed.
    let live = engine.queries("counts");
    let server = Server::new()
        .serve::<String, _>(&live, COUNT)
        .serve::<String, _>(&live, OLD)
        .serve_windows::<String, u64>(&live, "per-10s")
        .start()
        .unwrap();
    let address = server.address();
    assert_eq!(get(address, "/readyz").status, 503);
    let first = deploy(&engine, 1);
    let until = Instant::now() + DEADLINE;
    let of_ann = "/v1/flows/counts/states/count/entries/ann";
    while get(address, "/readyz").status != 200 || get(address, of_ann).status != 200 {
        assert!(Instant::now() < until);
    }
    let answer = |path: &str, version: u64| {
        let reply = get(address, path);
        assert_eq!((reply.status, &reply.json()["at"]["version"]), (200, &json!(version)), "{reply:?}");
        reply.json()
    };
    assert_eq!(answer(of_ann, 1)["value"], 2);
    assert_eq!(answer("/v1/flows/counts/states/clicks/entries/ann", 1)["value"], 2);
    answer("/v1/flows/counts/windows/per-10s/ann", 1);

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut versions, mut read) = (Vec::new(), 0);
            while !is_over.load(Ordering::SeqCst) {
                let reply = get(address, of_ann);
                assert_eq!(reply.status, 200, "{reply:?}");
                let answer = reply.json();
                let version = answer["at"]["version"].as_u64().unwrap();
                let offset = answer["at"]["offsets"].as_object().unwrap().values().next().unwrap();
                let offset = offset.as_object().unwrap().values().next().unwrap().as_u64().unwrap();
                // Three clicks at first, two of them hers, and then only hers.
                assert_eq!(answer["value"].as_u64().unwrap(), (offset - 1) * version, "{answer}");
                assert!(offset >= read, "{answer} behind {read}");
                read = offset;
                if versions.last() != Some(&version) {
                    versions.push(version);
                }
            }
            versions
        });
        let ends = AtEnd(&is_over);
        let second = deploy(&engine, 2);
        append(&engine, &[("ann", "/", 4)]);
        second.promote().unwrap();
        answer(of_ann, 2);
        append(&engine, &[("ann", "/", 5)]);
        // What only the version before has is not there, and says so.
        for (path, what) in [("states/clicks/entries/ann", "`clicks`"), ("windows/per-10s/ann", "`per-10s`")]
        {
            let reply = get(address, &format!("/v1/flows/counts/{path}"));
            assert_eq!(reply.status, 404, "{reply:?}");
            let detail = reply.detail();
            assert!(detail.contains("version 2 of flow `counts`") && detail.contains(what), "{detail}");
        }
        assert!(get(address, "/metrics").body.contains(r#"rivermark_query_version{flow="counts"} 2.0"#));
        second.roll_back("twice is too much").unwrap();
        answer(of_ann, 1);
        append(&engine, &[("ann", "/", 6)]);
        while get(address, of_ann).json()["value"] != 5 {
            assert!(Instant::now() < until);
        }
        drop(ends);
        assert_eq!(asking.join().unwrap(), [1, 2, 1]);
    });
    assert_eq!(first.state(), State::Live);
    assert_eq!(answer("/v1/flows/counts/states/clicks/entries/ann", 1)["value"], 5);
}

struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
