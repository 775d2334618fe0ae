//! Engines to try, and the records to try them with.

use rivermark::connectors::{Collect, FromVec};
use rivermark::{Engine, Flow, Metrics, Options, Restart, StateBackend, Stream};
use std::cell::Cell;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything takes that is not broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// A record: what it is about, when it happened, and something to aggregate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub key: u8,
    pub time: i64,
    pub value: i64,
}

pub fn event(key: u8, time: i64, value: i64) -> Event {
    Event { key, time, value }
}

/// An engine in a directory of its own that runs one flow after the other.
pub struct Lab {
    engine: Engine,
    runs: Cell<u32>,
    pub name: String,
    _directory: TempDir,
}

impl Lab {
    pub fn new(workers: usize, backend: StateBackend) -> Lab {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new()
            .workers(workers)
            .state_backend(backend)
            .checkpoint_every(None)
            .restart(Restart::Never);
        let engine = Engine::open_with(directory.path(), options).unwrap();
        Lab {
            engine,
            runs: Cell::new(0),
            name: format!("{workers} workers, {backend:?}"),
            _directory: directory,
        }
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A flow that this engine has not run yet.
    pub fn flow(&self) -> Flow {
        self.runs.set(self.runs.get() + 1);
        Flow::new(format!("flow-{}", self.runs.get()))
    }

    /// Runs what `describe` makes of these partitions, to the end. Answers the rows, those of one key in order.
    pub fn run<T: Clone + Send + Sync + 'static, R: Clone + Send + 'static>(
        &self,
        partitions: &[Vec<T>],
        describe: impl FnOnce(Stream<T>) -> Stream<R>,
    ) -> (Vec<R>, Metrics) {
        let (flow, rows) = (self.flow(), Collect::new());
        describe(flow.source(FromVec::partitions(partitions.to_vec()))).sink(rows.clone());
        let metrics = self.engine.run(flow).unwrap();
        (rows.rows(), metrics)
    }
}

/// One worker and several, memory and more.
pub fn labs() -> Vec<Lab> {
    vec![
        Lab::new(1, StateBackend::Memory),
        Lab::new(2, StateBackend::Memory),
        Lab::new(3, StateBackend::Memory),
        #[cfg(feature = "rocksdb")]
        Lab::new(2, StateBackend::RocksDb),
    ]
}

/// Answers whether the deadline has passed, for conditions that are waited for.
pub fn deadline() -> impl Fn() -> bool {
    let until = Instant::now() + DEADLINE;
    move || Instant::now() > until
}
