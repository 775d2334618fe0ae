//! A year of flights through a pipeline, killed and replayed on the way.
//!
//! `cargo run --release --example demo [-- --data-dir DIR] [--keep]`
//!
//! 1. 328,521 real departures are appended to the embedded log ([`load`]).
//! 2. A flow computes delays by airport and scheduled hour, into a topic and into CSV files ([`pipeline`]).
//! 3. The same flow runs in processes that are killed again and again, and gives the same bytes ([`killed`]).
//! 4. A corrected version is replayed from offset zero, beside the first one's output ([`replay`]).
//! 5. The flights are joined with weather, arrivals and schedule, and drawn on a page ([`joins`]).
//!
//! Every result is compared with answers that were computed elsewhere; a difference ends the program with an error.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

#[path = "../flights/mod.rs"]
mod flights;
mod flow;
mod joins;
mod killed;
mod load;
mod pipeline;
mod replay;
mod results;

use flow::Output;
use rivermark::{BoxError, Engine, Options, millis};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "usage: demo [--data-dir DIR] [--keep]";

/// The engine of every part: checkpoints often enough for a job of a fraction of a second to have some.
fn open(directory: &Path) -> Result<Engine, BoxError> {
    Ok(Engine::open_with(directory, Options::new().checkpoint_every(millis(20)))?)
}

/// All parts, in order.
fn run(directory: &Path) -> Result<(), BoxError> {
    let (first, second) = (Output::new(directory, "delays-v1"), Output::new(directory, "delays-v2"));
    let engine = open(directory)?;
    let departures = load::load(&engine)?;
    let results = pipeline::first_version(&engine, &departures, &first)?;
    // A data directory belongs to one process at a time: now to the ones that are killed.
    drop(engine);
    let engine = killed::run(directory, &results)?;
    replay::run(&engine, &departures, (&first, &results), &second)?;
    joins::run(&engine)
}

fn main() -> ExitCode {
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [child, directory, at_most] = &arguments[..]
        && child == killed::CHILD
    {
        return killed::child(directory.as_ref(), at_most.parse()?);
    }
    let (mut chosen, mut keep) = (None, false);
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        match &*argument {
            "--data-dir" => chosen = Some(PathBuf::from(rest.next().ok_or(USAGE)?)),
            "--keep" => keep = true,
            other => return Err(format!("{other}: {USAGE}").into()),
        }
    }
    let started = Instant::now();
    let base = chosen.unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&base)?;
    // Each run has a directory of its own: what it shows begins with an empty log.
    let directory =
        tempfile::Builder::new().prefix("rivermark-demo-").disable_cleanup(keep).tempdir_in(base)?;
    println!("Rivermark, in {}", directory.path().display());
    run(directory.path())?;
    println!("\nAll results are right, in {:.1} s.", started.elapsed().as_secs_f64());
    if keep {
        println!("Log, checkpoints and results are kept in {}", directory.path().display());
    }
    Ok(())
}
