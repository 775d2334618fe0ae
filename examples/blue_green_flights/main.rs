//! Blue and green on a year of real flights: a corrected version replays the log from offset zero beside the live one, takes its place and is rolled back,
//! while departures come in and clients ask over HTTP; and the same in processes that are killed again and again.
//!
//! `cargo run --release --features server --example blue_green_flights [-- --kills N] [--seed N] [--data-dir DIR]`
//!
//! Every answer says by which version, and at which offsets, it was given; it is compared with what a plain program computes for these, and with the
//! answers before it ([`clients`], [`answers`]). Every row that readers of the output have is compared as well: none may be missing, none there
//! twice, and each has to be that of the version that was live for it. A difference ends the program with an error.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

mod answers;
mod clients;
mod feeder;
#[path = "../flights/mod.rs"]
mod flights;
mod flow;
mod http;
mod killed;
mod site;
mod story;

use answers::Answers;
use rivermark::BoxError;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

const USAGE: &str = "usage: blue_green_flights [--kills N] [--seed N] [--data-dir DIR]";

fn main() -> ExitCode {
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nblue_green_flights: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [child, directory, pace, until] = &arguments[..]
        && child == killed::CHILD
    {
        return killed::child(directory.as_ref(), pace.parse()?, until.parse()?);
    }
    let (mut kills, mut seed, mut base) = (10, 1, std::env::temp_dir());
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let value = rest.next().ok_or(USAGE)?;
        match &*argument {
            "--kills" => kills = value.parse()?,
            "--seed" => seed = value.parse()?,
            "--data-dir" => base = PathBuf::from(value),
            other => return Err(format!("{other}: {USAGE}").into()),
        }
    }
    let started = Instant::now();
    std::fs::create_dir_all(&base)?;
    let directory = |prefix| tempfile::Builder::new().prefix(prefix).tempdir_in(&base);
    let answers = Arc::new(Answers::compute()?);
    story::run(directory("rivermark-blue-green-")?.path(), &answers)?;
    if kills > 0 {
        killed::run(directory("rivermark-killed-")?.path(), &answers, kills, seed)?;
    }
    println!("\nAll answers and rows are right, in {:.1} s.", started.elapsed().as_secs_f64());
    Ok(())
}
