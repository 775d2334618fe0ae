//! Samples of jobs and versions, as server-sent events.

use crate::{CLICKS, DEADLINE, append, start};
use rivermark::server::{Limits, RunningServer};
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// Who listens.
struct Listener {
    lines: std::io::Lines<BufReader<TcpStream>>,
    status: u16,
}

impl Listener {
    fn of(server: &RunningServer, headers: &str) -> Listener {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().unwrap().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        Listener { lines, status }
    }

    /// The next sample.
    fn next(&mut self) -> Json {
        let data = |line: &String| line.strip_prefix("data: ").map(str::to_owned);
        let line = self.lines.by_ref().map(Result::unwrap).find_map(|line| data(&line)).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn until(&mut self, mut done: impl FnMut(&Json) -> bool) -> Json {
        (0..60).map(|_| self.next()).find(|sample| done(sample)).expect("a sample within a minute")
    }
}

#[test]
fn a_sample_tells_of_operators_and_checkpoints_and_the_next_one_of_what_came_since() {
    let running = start(CLICKS);
    running.read(4);
    let server = running.server().start().unwrap();
    let (mut one, mut other) = (Listener::of(&server, ""), Listener::of(&server, ""));
    let first = one.next();
    let job = &first["jobs"][0];
    assert_eq!((&job["flow"], &job["status"]), (&"clicks".into(), &"running".into()));
    assert_eq!((&job["records_read"], &job["watermark_ms"]), (&4.into(), &4000.into()));
    let operators = job["operators"].as_array().unwrap();
    let users = operators.iter().find(|operator| operator["name"] == "users").unwrap();
    assert_eq!((&users["records_in"], &users["kind"]), (&4.into(), &"stateful".into()));
    let input = users["inputs"][0].as_u64().unwrap() as usize;
    assert_eq!(operators[input]["kind"], "exchange");
    assert_eq!(job["checkpoints"].as_array().unwrap().len(), 1);
    append(&running.engine, &[("ann", "/", 5)]);
    running.read(5);
    for listener in [&mut one, &mut other] {
        let later = listener.until(|sample| sample["jobs"][0]["checkpoints"].as_array().unwrap().len() == 2);
        assert_eq!(later["jobs"][0]["records_read"], 5);
        assert!(later["at_ms"].as_u64() > first["at_ms"].as_u64());
    }
}

#[test]
fn only_so_many_listen_and_only_with_the_token() {
    let running = start(CLICKS);
    let limits = Limits { listeners: 1, ..Limits::default() };
    let server = running.server().token("secret").limits(limits).start().unwrap();
    assert_eq!(Listener::of(&server, "").status, 401);
    let token = "Authorization: Bearer secret\r\n";
    let mut first = Listener::of(&server, token);
    assert!(first.next()["jobs"].is_array());
    assert_eq!(Listener::of(&server, token).status, 429);
    drop(first);
    // As soon as the server has noticed that it is gone, with the next sample at the latest.
    let until = std::time::Instant::now() + DEADLINE;
    while Listener::of(&server, token).status != 200 {
        assert!(std::time::Instant::now() < until);
    }
}
