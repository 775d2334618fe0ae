//! How long it takes until results flow again after SIGKILL, with a lot of local state.
//!
//! `restart [--keys N] [--value BYTES] [--workers W]` starts itself as a child that builds state of N keys (default 8,000,000 values
//! of 100 bytes: about 1 GB) and takes a checkpoint, kills it by SIGKILL, then opens the same data directory and measures the time
//! from the opening of the engine until the first record has gone through the stateful operator, and until the job runs.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::{Engine, Flow, Options, Restart, secs};
use rivermark_benches::measure::wait_for;
use rivermark_benches::{arguments, keeping, number};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn flow(keys: u64, workers: usize) -> Flow {
    // Far more records than are read before the end: the job is killed in the middle of its stream.
    keeping::flow(keys * 1000, keys, number("--value", 100) as usize, workers)
}

fn open(directory: &Path, workers: usize) -> Engine {
    let options = Options::new()
        .workers(workers)
        .state_budget(number("--budget", 512 << 20) as usize)
        .restart(Restart::Never)
        .checkpoint_every(secs(5));
    Engine::open_with(directory, options).expect("an engine")
}

/// Builds the state, says so, and waits to be killed.
fn build(directory: &Path, keys: u64, workers: usize) {
    let engine = open(directory, workers);
    let job = engine.start(flow(keys, workers)).expect("a job");
    let events = keys * number("--rounds", 3);
    wait_for(&job, keeping::OPERATOR, events + 1);
    job.checkpoint().expect("a checkpoint");
    let state = job.metrics().checkpoints.last().map_or(0, |checkpoint| checkpoint.state_bytes);
    println!("{state}");
    assert!(!job.wait_until(|_| false), "killed before its end");
}

fn main() {
    let (keys, workers) = (number("--keys", 8_000_000), number("--workers", 2) as usize);
    if let Some(directory) = arguments("--build") {
        return build(Path::new(&directory), keys, workers);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(std::env::args().skip(1))
        .arg("--build")
        .arg(directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program again");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped"))
        .read_line(&mut line)
        .expect("a line from the child");
    let state: u64 = line.trim().parse().expect("the size of the state");
    // SIGKILL: nothing of the process's own has a chance to run.
    child.kill().expect("the child's end");
    child.wait().expect("the child's end");

    let started = Instant::now();
    let engine = open(directory.path(), workers);
    let opened = started.elapsed();
    let job = engine.start(flow(keys, workers)).expect("a job");
    wait_for(&job, keeping::OPERATOR, 1);
    let first = started.elapsed();
    wait_for(&job, keeping::OPERATOR, keys / 10 + 1);
    let warm = started.elapsed();
    println!("state of {keys} keys, {:.2} GB in the checkpoint, {workers} workers", state as f64 / 1e9);
    println!("  engine open                        {:8.3} s", opened.as_secs_f64());
    println!("  first record through the state     {:8.3} s", first.as_secs_f64());
    println!("  a tenth of the keys touched again  {:8.3} s", warm.as_secs_f64());
    // The job would go on for long: what was asked is answered.
    std::process::exit(0);
}
