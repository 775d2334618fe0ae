//! What a state of ten times its budget costs in memory.
//!
//! `memory [--budget BYTES] [--value BYTES] [--workers W]` builds states of a half, one, three and ten times the budget (default 64 MiB), each in a
//! process of its own, with a checkpoint each second, and prints the peak of each process's resident memory.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use rivermark::{Engine, Options, Restart, secs};
use rivermark_benches::measure::peak;
use rivermark_benches::{arguments, keeping, number};
use std::process::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Builds a state of `bytes` bytes and prints what it took.
fn build(bytes: u64) {
    let (budget, value) = (number("--budget", 64 << 20), number("--value", 100));
    let workers = number("--workers", 2) as usize;
    let before = peak();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = Options::new()
        .workers(workers)
        .state_budget(budget as usize)
        .restart(Restart::Never)
        .checkpoint_every(secs(1));
    let engine = Engine::open_with(directory.path(), options).expect("an engine");
    let keys = bytes / (value + 8);
    // Every key three times: most of the time what is asked for has been spilled.
    let job = engine.start(keeping::flow(keys * 3, keys, value as usize, workers)).expect("a job");
    let metrics = job.wait().expect("the job's end");
    let stored = metrics.checkpoints.iter().map(|checkpoint| checkpoint.state_bytes).max().unwrap_or(0);
    let peak = peak();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{:>9.0} {:>9.1}x {:>14.0} {:>12.0} {:>12.0} {:>12.0} {:>12}",
        mib(bytes),
        bytes as f64 / budget as f64,
        mib(stored),
        mib(peak),
        mib(before),
        mib(peak.saturating_sub(budget)),
        metrics.checkpoints_completed
    );
}

fn main() {
    if let Some(bytes) = arguments("--build") {
        return build(bytes.parse().expect("a number of bytes"));
    }
    let budget = number("--budget", 64 << 20);
    println!("a budget of {} MiB; all in MiB", budget >> 20);
    println!(
        "{:>9} {:>10} {:>14} {:>12} {:>12} {:>12} {:>12}",
        "state", "of budget", "in checkpoint", "peak memory", "at start", "over budget", "checkpoints"
    );
    for bytes in [budget / 2, budget, 3 * budget, 10 * budget] {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(std::env::args().skip(1))
            .args(["--build", &bytes.to_string()])
            .status()
            .expect("this program again");
        assert!(status.success(), "{status}");
    }
}
