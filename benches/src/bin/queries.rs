//! What queries cost a flow, and how many of them are answered beside it, in process and over HTTP.
//!
//! `queries [--keys N] [--value BYTES] [--workers W] [--rate RECORDS] [--gets GETS] [--seconds S]` runs a flow that changes a value of some bytes a key (default 1,000,000
//! of 16 bytes) with a checkpoint each second, and takes its speed: as it is, while a thread makes views that nobody asks for, while one thread asks
//! for keys, and while clients on two threads do so over HTTP, sixteen connections each. With `--rate` the flow is held to so many
//! records a second, which is what it is like beside a job that keeps up; with `--gets` the clients ask for so many keys a second together, and
//! not as many as they can.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::server::Server;
use rivermark::{Engine, Job, Options, RateLimit, Restart, secs};
use rivermark_benches::measure::{records_in, wait_for};
use rivermark_benches::synthetic::key_of;
use rivermark_benches::{keeping, number};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Clients over HTTP.
const HTTP_CLIENTS: u64 = 2;
/// Connections of one client.
const CONNECTIONS: usize = 16;

/// The speed of the flow in records a second while this much time passes.
fn speed(job: &Job, during: Duration) -> f64 {
    let (began, before) = (Instant::now(), records_in(job, keeping::OPERATOR));
    sleep(during);
    (records_in(job, keeping::OPERATOR) - before) as f64 / began.elapsed().as_secs_f64()
}

/// Lets `clients` threads ask until the flow's speed is taken; answers a second, and the speed.
fn while_asked(
    job: &Job,
    during: Duration,
    clients: u64,
    ask: impl Fn(u64, &AtomicBool) -> u64 + Sync,
) -> (f64, f64) {
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let speed = scope(|scope| {
        for client in 0..clients {
            let (over, answered, ask) = (&over, &answered, &ask);
            scope.spawn(move || answered.fetch_add(ask(client, over), Ordering::Relaxed));
        }
        let speed = speed(job, during);
        over.store(true, Ordering::Relaxed);
        speed
    });
    (answered.into_inner() as f64 / during.as_secs_f64(), speed)
}

/// A client over HTTP: sends a request on each of its connections, then reads the answers; a round of that each `pace`.
fn ask_over_http(address: SocketAddr, client: u64, keys: u64, pace: Duration, over: &AtomicBool) -> u64 {
    let connect = |_| {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        BufReader::new(stream)
    };
    let mut connections: Vec<_> = (0..CONNECTIONS).map(connect).collect();
    let (mut answered, mut line, mut body) = (0, String::new(), Vec::new());
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        sleep(due.saturating_duration_since(Instant::now()));
        due += pace;
        for (n, connection) in connections.iter_mut().enumerate() {
            let key = key_of(answered + n as u64 + (client << 32), keys);
            let request = format!(
                "GET /v1/flows/keeping/states/kept/entries/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            );
            connection.get_mut().write_all(request.as_bytes()).expect("a request is sent");
        }
        for connection in &mut connections {
            let mut length = 0;
            loop {
                line.clear();
                connection.read_line(&mut line).expect("an answer");
                assert!(!line.starts_with("HTTP/1.1 ") || line.contains(" 200 "), "{line}");
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().expect("a length");
                }
                if line == "\r\n" {
                    break;
                }
            }
            body.resize(length, 0);
            connection.read_exact(&mut body).expect("a body");
            answered += 1;
        }
    }
    answered
}

fn main() {
    let (keys, bytes, workers) = (number("--keys", 1_000_000), number("--value", 16), number("--workers", 2));
    let during = secs(number("--seconds", 10));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new().workers(workers as usize).restart(Restart::Never).checkpoint_every(secs(1));
    let engine = Engine::open_with(directory.path(), options).expect("an engine");
    let flow = keeping::flow(1 << 40, keys, bytes as usize, workers as usize);
    let job = engine.start(flow).expect("a job");
    wait_for(&job, keeping::OPERATOR, keys * 20);
    let rate = number("--rate", 0);
    if rate > 0 {
        let source = job.metrics().operators[0].name.clone();
        job.set_rate_limit(&source, Some(RateLimit::records_per_second(rate))).expect("the source");
    }
    job.checkpoint().expect("a checkpoint");

    let alone = speed(&job, during);
    println!("flow alone:              {:.2} M records/s", alone / 1e6);
    let began = Instant::now();
    let view = job.view().expect("a view");
    println!("first view:              {:.2} s, {} MiB", began.elapsed().as_secs_f64(), view.memory() >> 20);
    let viewed = speed(&job, during);
    println!("with views:              {:.2} M records/s, {:.2} of alone", viewed / 1e6, viewed / alone);

    let (gets, asked) = while_asked(&job, during, 1, |_, over| {
        let mut gets = 0;
        while !over.load(Ordering::Relaxed) {
            let found = job.query(keeping::KEPT).get(&key_of(gets, keys)).expect("an answer");
            assert!(found.is_some());
            gets += 1;
        }
        gets
    });
    println!("{gets:.0} gets/s in process:  {:.2} M records/s, {:.2} of alone", asked / 1e6, asked / alone);

    let server = Server::new().serve::<u64, _>(&job, keeping::KEPT).start().expect("a server");
    let gets = number("--gets", 0);
    let round = (HTTP_CLIENTS as usize * CONNECTIONS) as f64;
    let pace = if gets == 0 { Duration::ZERO } else { Duration::from_secs_f64(round / gets as f64) };
    let ask = |client, over: &AtomicBool| ask_over_http(server.address(), client, keys, pace, over);
    let (gets, asked) = while_asked(&job, during, HTTP_CLIENTS, ask);
    println!("{gets:.0} gets/s over HTTP:   {:.2} M records/s, {:.2} of alone", asked / 1e6, asked / alone);
    drop(server);
    job.cancel();
}
