//! What can be set about an engine, with defaults that suit a laptop and a server.

use rivermark_state::DEFAULT_KEY_GROUPS;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Where keyed state lives.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StateBackend {
    /// In memory only; checkpoints write all of it from time to time.
    Memory,
    /// A hot tier in memory over RocksDB, for state larger than memory.
    #[cfg(feature = "rocksdb")]
    RocksDb,
}

/// When and how often a failed job is started again, from its last checkpoint.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Restart {
    /// Not at all: the first failure is the job's result.
    Never,
    /// After a pause, at most `attempts` times without progress in between.
    FixedDelay {
        /// The pause.
        delay: Duration,
        /// How many failures in a row are forgiven. A checkpoint stored in between starts the count again.
        attempts: u32,
    },
    /// After a pause that doubles from `first` to `most`, at most `attempts` times without progress in between.
    ExponentialBackoff {
        /// The first pause.
        first: Duration,
        /// The longest pause.
        most: Duration,
        /// How many failures in a row are forgiven. A checkpoint stored in between starts the count again.
        attempts: u32,
    },
}

impl Restart {
    /// The pause before attempt `failures` (1 after the first failure), or `None` to give up.
    pub(crate) fn delay(&self, failures: u32) -> Option<Duration> {
        match *self {
            Restart::Never => None,
            Restart::FixedDelay { delay, attempts } => (failures <= attempts).then_some(delay),
            Restart::ExponentialBackoff { first, most, attempts } => (failures <= attempts).then(|| {
                let doublings = failures.saturating_sub(1).min(31);
                first.saturating_mul(1 << doublings).min(most)
            }),
        }
    }
}

/// The settings of an engine. All jobs of the engine share them.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) workers: usize,
    pub(crate) key_groups: u16,
    pub(crate) checkpoint_interval: Option<Duration>,
    pub(crate) checkpoint_timeout: Duration,
    pub(crate) checkpoints_kept: usize,
    pub(crate) discovery_interval: Duration,
    pub(crate) backend: StateBackend,
    pub(crate) state_budget: usize,
    pub(crate) restart: Restart,
    pub(crate) queries_rest_after: Duration,
    pub(crate) log: rivermark_log::LogOptions,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            key_groups: DEFAULT_KEY_GROUPS,
            checkpoint_interval: Some(Duration::from_secs(1)),
            checkpoint_timeout: Duration::from_secs(600),
            checkpoints_kept: 3,
            discovery_interval: Duration::from_secs(5),
            #[cfg(feature = "rocksdb")]
            backend: StateBackend::RocksDb,
            #[cfg(not(feature = "rocksdb"))]
            backend: StateBackend::Memory,
            state_budget: 512 << 20,
            restart: Restart::FixedDelay { delay: Duration::from_secs(1), attempts: 3 },
            queries_rest_after: Duration::from_secs(10),
            log: rivermark_log::LogOptions::default(),
        }
    }
}

impl Options {
    /// The defaults: a worker a core, a checkpoint each second, RocksDB with 512 MiB for state, three restarts.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many workers, threads that each own a share of every operator. Default: the cores.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// How many key groups a new flow has; fixed for its life. At least the most workers it will ever run with.
    pub fn key_groups(mut self, key_groups: u16) -> Self {
        self.key_groups = key_groups.max(1);
        self
    }

    /// The time between checkpoints; `None` takes one only at the end or when asked. Default: a second.
    pub fn checkpoint_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.checkpoint_interval = interval.into();
        self
    }

    /// After how long a checkpoint that is not complete is given up. Default: ten minutes.
    pub fn checkpoint_timeout(mut self, timeout: Duration) -> Self {
        self.checkpoint_timeout = timeout;
        self
    }

    /// How many checkpoints are kept. Default: 3.
    pub fn checkpoints_kept(mut self, kept: usize) -> Self {
        self.checkpoints_kept = kept.max(1);
        self
    }

    /// How often sources are asked for partitions that have appeared: a topic that was created, a file. Default: five seconds.
    pub fn discover_every(mut self, interval: Duration) -> Self {
        self.discovery_interval = interval;
        self
    }

    /// Where keyed state lives.
    pub fn state_backend(mut self, backend: StateBackend) -> Self {
        self.backend = backend;
        self
    }

    /// How many bytes of memory the keyed state of a job may use, over all workers. Default: 512 MiB.
    pub fn state_budget(mut self, bytes: usize) -> Self {
        self.state_budget = bytes;
        self
    }

    /// What happens after a failure. Default: three more attempts, a second apart.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// For how long after the last question a job's state goes on being read with each checkpoint, so that the next question is answered at once.
    /// Afterwards queries cost nothing again, and the first one waits for the state to be read. Default: ten seconds.
    pub fn queries_rest_after(mut self, pause: Duration) -> Self {
        self.queries_rest_after = pause;
        self
    }

    /// The settings of the embedded log.
    pub fn log(mut self, log: rivermark_log::LogOptions) -> Self {
        self.log = log;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_gives_up_after_its_attempts() {
        let second = Duration::from_secs(1);
        let fixed = Restart::FixedDelay { delay: second, attempts: 2 };
        assert_eq!([1, 2, 3].map(|n| fixed.delay(n)), [Some(second), Some(second), None]);
        assert_eq!(Restart::Never.delay(1), None);
    }

    #[test]
    fn a_backoff_doubles_up_to_its_most() {
        let backoff = Restart::ExponentialBackoff {
            first: Duration::from_millis(100),
            most: Duration::from_secs(1),
            attempts: u32::MAX,
        };
        let delays = [1, 2, 4, 5, 1000].map(|n| backoff.delay(n).unwrap().as_millis());
        assert_eq!(delays, [100, 200, 800, 1000, 1000]);
    }
}
