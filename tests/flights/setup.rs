//! What the tests share: a data directory with the departures in its log, and the engines to try.

use crate::flights::{self, Departure};
use rivermark::{Engine, Options, Restart, StateBackend, millis};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// All departures in the order of the file, in one partition.
pub const ONE_PARTITION: &str = "departures";
/// The same with a partition for each origin.
pub const BY_ORIGIN: &str = "departures-by-origin";

/// Longer than anything takes that is not broken.
const DEADLINE: Duration = Duration::from_secs(120);

/// A data directory whose log holds the departures, both ways.
pub fn with_departures() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open(directory.path()).unwrap();
    let departures = flights::departures().unwrap();
    assert_eq!(departures.len() as u64, flights::DEPARTURES);
    flights::append(engine.log(), ONE_PARTITION, 1, &departures, |_| 0, |_| ()).unwrap();
    flights::append_by_origin(engine.log(), BY_ORIGIN, &departures).unwrap();
    directory
}

/// Checkpoints often, so that there is much to get wrong; fails at once, so that nothing is hidden by a restart.
pub fn options(workers: usize, backend: StateBackend) -> Options {
    Options::new()
        .workers(workers)
        .state_backend(backend)
        .checkpoint_every(millis(20))
        .restart(Restart::Never)
}

pub fn backends() -> Vec<StateBackend> {
    vec![
        StateBackend::Memory,
        #[cfg(feature = "rocksdb")]
        StateBackend::RocksDb,
    ]
}

/// Opens an engine of each kind on the directory, one after the other; the second argument is a name for the flow to run there.
pub fn for_each_engine(directory: &Path, mut run: impl FnMut(&Engine, &str)) {
    for backend in backends() {
        for workers in [1, 2, 3] {
            let engine = Engine::open_with(directory, options(workers, backend)).unwrap();
            run(&engine, &format!("{workers}-workers-{backend:?}"));
        }
    }
}

/// Answers whether the deadline has passed, for conditions that are waited for.
pub fn deadline() -> impl Fn() -> bool {
    let until = Instant::now() + DEADLINE;
    move || Instant::now() > until
}

/// The place of a departure in the log: partition by origin, and offset there.
pub fn place_of(flight_id: u32) -> (u32, usize) {
    let departures = flights::departures().unwrap();
    let departure = departures.iter().find(|departure| departure.flight_id == flight_id).unwrap();
    let of_partition = departures.iter().filter(|other| other.origin == departure.origin);
    let offset = of_partition.clone().position(|other| other.flight_id == flight_id).unwrap();
    (Departure::partition(departure), offset)
}
