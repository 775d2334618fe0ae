//! The command line `rivermark`: looks at data directories. See `rivermark --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    rivermark_cli::main(std::env::args_os())
}
