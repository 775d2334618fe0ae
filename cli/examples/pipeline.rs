//! The program that the tests run: words counted by two versions. The tutorial has one to learn from, `examples/21_command_line.rs`.
#![allow(clippy::unwrap_used, reason = "for tests")]

#[path = "../tests/it/words.rs"]
mod words;

use rivermark::cli::Pipeline;
use rivermark::{CaughtUp, millis};
use std::process::ExitCode;

fn main() -> ExitCode {
    let caught_up = CaughtUp::new().for_at_least(millis(50));
    Pipeline::new("words")
        .version(1, || words::count(1))
        .version(2, || words::count(2))
        .options(words::options)
        .prepare(words::prepare)
        .replay(move |_, replay| replay.caught_up(caught_up).workers(1))
        .main()
}
