//! Real processes that die by SIGKILL at every step of a checkpoint's way to its sink. A kill from outside hits the moment between storing
//! and committing once in a hundred times; here a sink kills its own process there.

use crate::delays::{DAY_S, assert_rows, by_hour};
use crate::flights::throttle::{Allowance, Throttled};
use crate::flights::{self, Departure, HourlyDelays, expected};
use crate::kill::{AT_MOST, BACKEND, DIRECTORY, child, variable};
use crate::setup::{BY_ORIGIN, backends, deadline, options, with_departures};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::sink::{Batch, CommitError, Committer, Epoch, Sink, SinkContext, SinkWriter};
use rivermark::{BoxError, Engine, Flow};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

const POINT: &str = "RIVERMARK_TEST_POINT";

/// Where a process dies: before or after the step itself.
const POINTS: [&str; 7] = [
    "before-prepare",
    "after-prepare",
    "before-commit",
    "after-commit",
    "before-recover",
    "after-recover",
    "never",
];

/// Records that a process may read before it dies.
const SHARE: u64 = 40_000;

/// A sink that kills its process.
struct Fatal<S> {
    sink: S,
    point: String,
}

/// Its writer or committer.
struct Dying<W> {
    inner: W,
    point: String,
}

impl<W> Dying<W> {
    /// Dies if it is time.
    fn reach(&self, point: &str) {
        if self.point == point {
            let process = rustix::process::getpid();
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        }
    }
}

impl<T, S: Sink<T>> Sink<T> for Fatal<S> {
    type Writer = Dying<S::Writer>;

    fn writer(&self, cx: &SinkContext<'_>) -> Result<Self::Writer, BoxError> {
        Ok(Dying { inner: self.sink.writer(cx)?, point: self.point.clone() })
    }

    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        Ok(Box::new(Dying { inner: self.sink.committer(cx)?, point: self.point.clone() }))
    }
}

impl<T, W: SinkWriter<T>> SinkWriter<T> for Dying<W> {
    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), BoxError> {
        self.inner.write(batch)
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        self.reach("before-prepare");
        let token = self.inner.prepare(epoch)?;
        if token.is_some() {
            self.reach("after-prepare");
        }
        Ok(token)
    }
}

impl Committer for Dying<Box<dyn Committer>> {
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        self.reach("before-recover");
        self.inner.recover(tokens)?;
        self.reach("after-recover");
        Ok(())
    }

    fn sync(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        self.inner.sync(tokens)
    }

    fn commit(&mut self, epoch: Epoch, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        if !tokens.is_empty() {
            self.reach("before-commit");
        }
        self.inner.commit(epoch, tokens)?;
        if !tokens.is_empty() {
            self.reach("after-commit");
        }
        Ok(())
    }
}

#[test]
#[ignore = "the process that dies in the test below"]
fn counts_delays_and_dies() {
    let backend = backends()[variable(BACKEND).parse::<usize>().unwrap()];
    let engine = Engine::open_with(PathBuf::from(variable(DIRECTORY)), options(2, backend)).unwrap();
    let allowance = Allowance::default();
    allowance.add(variable(AT_MOST).parse().unwrap());
    let flow = Flow::new("dying");
    let source = Throttled::new(LogSource::<Departure>::topic(BY_ORIGIN).until_end(), &allowance);
    by_hour(flow.source(source), DAY_S)
        .sink(Fatal { sink: LogSink::topic("delays"), point: variable(POINT) });
    let job = engine.start(flow).unwrap();
    let is_late = deadline();
    job.wait_until(|job| job.status().is_over() || is_late());
    assert!(!is_late(), "it neither died nor ended: {:?}", job.metrics());
    job.wait().unwrap();
}

#[test]
fn a_process_that_dies_at_any_step_of_a_commit_writes_every_row_once() {
    let expected: Vec<HourlyDelays> = expected("p1_delay_by_origin_hour.csv").unwrap();
    for (backend, named) in backends().into_iter().enumerate() {
        let directory = with_departures();
        // After each death but the last another comes, so that what is half done when a process dies is found by one that dies, too.
        for point in POINTS {
            let mut process = child("deaths::counts_delays_and_dies", directory.path());
            let share = if point == "never" { flights::DEPARTURES } else { SHARE };
            process.env(BACKEND, backend.to_string()).env(AT_MOST, share.to_string()).env(POINT, point);
            let output = process.output().unwrap();
            let status = output.status;
            let expected = if point == "never" { None } else { Some(9) };
            assert_eq!(status.signal(), expected, "{named:?}, {point}: {status} {output:?}");
            assert!(expected.is_some() || status.success(), "{named:?}, {point}: {status} {output:?}");
        }
        let engine = Engine::open(directory.path()).unwrap();
        let mut rows: Vec<HourlyDelays> = flights::read(engine.log(), "delays").unwrap();
        rows.sort();
        assert_rows(&rows, &expected, &format!("{named:?}"));
    }
}
