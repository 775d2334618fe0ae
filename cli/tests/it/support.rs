//! What the tests share: a data directory that a pipeline has used, and the binary.

use crate::words;
use rivermark::{Engine, Job, Options};
use serde_json::Value;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a command has said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: &Output) -> Said {
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one document that it printed.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {:?} {:?}", self.out, self.err))
    }

    /// Holds it to an exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Said {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    /// Holds its error to the form of errors, and to some words.
    #[track_caller]
    pub fn complains(self, words: &[&str]) -> Said {
        let (program, rest) = self.err.split_once(": ").unwrap_or_default();
        assert!(program == "rivermark" || program == "pipeline", "{:?}", self.err);
        assert!(rest.contains(": ") || rest.contains("; "), "{:?}", self.err);
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in {:?}", self.err);
        }
        assert_eq!(self.out, "", "an error is not output");
        self
    }
}

/// The binary `rivermark`.
pub fn rivermark() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rivermark"));
    command.env_remove("RIVERMARK_DATA").env_remove("RIVERMARK_TOKEN").env("NO_COLOR", "1");
    command.stdin(Stdio::null());
    command
}

/// The tests' own pipeline, `cli/examples/pipeline.rs`.
pub fn pipeline() -> Command {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap().join("examples/pipeline");
    assert!(built.exists(), "{} is missing: run `cargo build --examples`", built.display());
    let mut command = Command::new(built);
    command.env_remove("RIVERMARK_DATA").env_remove("RIVERMARK_TOKEN").stdin(Stdio::null());
    command
}

/// A data directory.
pub struct Data {
    folder: tempfile::TempDir,
}

impl Data {
    /// One that nobody has used.
    pub fn new() -> Data {
        Data { folder: tempfile::tempdir().unwrap() }
    }

    /// One in which the words were counted, and nobody is at work any more.
    pub fn counted() -> Data {
        let data = Data::new();
        let engine = data.engine();
        data.start(&engine).stop();
        data
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn engine(&self) -> Engine {
        Engine::open_with(self.path(), words::options(Options::new())).unwrap()
    }

    /// Starts the flow, and waits until a hundred words are counted and in a checkpoint.
    pub fn start(&self, engine: &Engine) -> Job {
        words::prepare(engine).unwrap();
        let job = engine.start(words::count(1)).unwrap();
        assert!(job.wait_until(|job| job.metrics().records_read >= 100), "{:?}", job.status());
        job.checkpoint().unwrap();
        job
    }

    /// Runs a command on it, given as one would type it.
    pub fn say(&self, arguments: &str) -> Said {
        self.say_all(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    pub fn say_all(&self, arguments: &[&str]) -> Said {
        Said::of(&rivermark().arg("--data").arg(self.path()).args(arguments).output().unwrap())
    }

    /// As [`Data::say`], of the tests' own pipeline.
    pub fn tell(&self, arguments: &str) -> Said {
        let mut command = pipeline();
        Said::of(&command.arg("--data").arg(self.path()).args(arguments.split_whitespace()).output().unwrap())
    }

    /// Runs a command on it that is handed lines.
    pub fn feed(&self, arguments: &str, lines: &str) -> Said {
        let mut command = rivermark();
        command.arg("--data").arg(self.path()).args(arguments.split_whitespace());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        match child.stdin.take().unwrap().write_all(lines.as_bytes()) {
            // A command that is refused may be over before it has read any.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            written => written.unwrap(),
        }
        Said::of(&child.wait_with_output().unwrap())
    }
}

/// A process that is killed at the end, whatever happens.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a condition.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} has not come true");
        std::thread::yield_now();
    }
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Changes one byte in the middle of a file.
pub fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // The file may be a link: what it is elsewhere stays whole.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}
