//! What a job tells of itself to `tracing`.
#![allow(clippy::unwrap_used, reason = "tests")]

use rivermark::connectors::{Collect, FromVec};
use rivermark::{Engine, Flow, Options, Restart, StateBackend, millis};
use std::io::Write;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The only test of its process, since workers speak to the process's subscriber.
#[test]
fn jobs_attempts_workers_and_checkpoints_are_spans_that_name_their_flow() {
    let lines = Lines::default();
    let written = lines.clone();
    tracing_subscriber::fmt()
        .with_writer(move || written.clone())
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_span_events(FmtSpan::NEW)
        .with_ansi(false)
        .init();
    let directory = tempfile::tempdir().unwrap();
    let restart = Restart::FixedDelay { delay: millis(1), attempts: 1 };
    let options = Options::new().workers(2).state_backend(StateBackend::Memory).restart(restart);
    let engine = Engine::open_with(directory.path(), options).unwrap();

    let flow = Flow::new("quiet");
    flow.source(FromVec::new(vec![1, 2, 3])).sink(Collect::new());
    engine.run(flow).unwrap();
    let flow = Flow::new("loud").version(7);
    flow.source(FromVec::new(vec![1])).try_map(|_| Err::<u64, _>("no".into())).sink(Collect::new());
    engine.run(flow).unwrap_err();

    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for told in [
        r#"job{flow="quiet" version=1}:attempt{number=1}:restore{"#,
        r#"job{flow="quiet" version=1}:attempt{number=1}:worker{worker=1}: "#,
        r#"job{flow="quiet" version=1}:attempt{number=1}:store{"#,
        r#"job{flow="quiet" version=1}:attempt{number=1}:commit{"#,
        "checkpoint completed epoch=",
        r#"job{flow="loud" version=7}:attempt{number=2}"#,
        "job failed; restarting error=",
        "job failed error=",
    ] {
        assert!(lines.contains(told), "no {told} in:\n{lines}");
    }
}
