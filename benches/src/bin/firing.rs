//! What it costs that a million windows fire at once.
//!
//! `firing [--keys N] [--workers W]` counts each of N keys (default 4 million) once, in one window. At the end of the stream all fire into a second
//! exchange, behind which they are counted again. Tumbling, and sliding of two slices, each in a process of its own: how long the run took,
//! and the most memory that the process had before the windows fired and at all.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::{Engine, Flow, StateBackend, Timestamp, Watermarks, Windows, hours};
use rivermark_benches::counting::Counting;
use rivermark_benches::measure::{options, peak, wait_for};
use rivermark_benches::synthetic::{Nowhere, Numbers};
use rivermark_benches::{arguments, number};
use std::process::Command;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The operator that keeps the windows, in a job's metrics.
const WINDOWS: &str = "window-1";

fn run(windows: &str) {
    let (keys, workers) = (number("--keys", 4_000_000), number("--workers", 2) as usize);
    let shape = match windows {
        "sliding" => Windows::sliding(hours(2), hours(1)),
        _ => Windows::tumbling(hours(1)),
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = options(workers, StateBackend::Memory).state_budget(8 << 30);
    let engine = Engine::open_with(directory.path(), options).expect("an engine");
    let flow = Flow::new("firing");
    flow.source(Numbers { events: keys, partitions: workers as u32 })
        .event_time(|_| Timestamp::from_millis(0), Watermarks::monotonous())
        .key_by(|number| *number)
        .window(shape)
        .count()
        .named(WINDOWS)
        .key_by(|row| row.key % 1024)
        .process(Counting)
        .sink(Nowhere);
    let started = Instant::now();
    let job = engine.start(flow).expect("a job");
    wait_for(&job, WINDOWS, keys);
    let before = peak();
    job.wait().expect("the job's end");
    let (seconds, mebibytes) = (started.elapsed().as_secs_f64(), |bytes: u64| bytes >> 20);
    println!("{windows:>9} {seconds:>9.1} s {:>9} MiB {:>9} MiB", mebibytes(before), mebibytes(peak()));
}

fn main() {
    if let Some(windows) = arguments("--windows") {
        return run(&windows);
    }
    println!("{:>9} {:>11} {:>13} {:>13}", "windows", "run", "peak before", "peak");
    for windows in ["tumbling", "sliding"] {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(std::env::args().skip(1))
            .args(["--windows", windows])
            .status()
            .expect("this program again");
        assert!(status.success(), "{status}");
    }
}
