//! How long a result takes: from the moment at which its event was due to be appended to the log, until it is at the sink.
//!
//! 1. The load is an open loop: event n is due at n / rate, whatever becomes of those before it. A latency counts from when the event was *due*,
//!    not from when it was sent, so an append that had to wait, or a program that stood still, is in the figures of all events that it
//!    delayed (Tene's correction of coordinated omission).
//! 2. Events are appended to the embedded log by a thread of this program, on the same cores; the job reads them from there, and writes its
//!    rows to another topic, exactly once.
//! 3. A row of q0, q1, q2, q18, q19 counts from the event that it was made of. A row of a window (q5, q7, q8, q12) counts from the
//!    event that moves event time past the window's end: before that nobody could know it.
//! 4. It is looked at twice: when the row is handed to the sink, and when it is committed and can be read in the topic of results, which
//!    exactly-once binds to the checkpoint.
//! 5. If the rate is said as a share, the most that the same setup takes is measured just before: the same producer appends as fast as the
//!    job reads.

mod feed;
pub mod schedule;
mod sink;

use crate::codec::{EventFormat, TOPIC};
use crate::event::{Event, Full, Lean};
use crate::generator::Generator;
use crate::queries::{self, Query};
use crate::run::{Form, Resources};
use feed::Feed;
use hdrhistogram::Histogram;
use rivermark::connectors::LogSource;
use rivermark::connectors::format::Format;
use rivermark::log::{Retention, Topic, TopicOptions};
use rivermark::{BoxError, Engine, Flow, Job, Metrics, Status, Stream};
use schedule::{Firings, Schedule, Start};
use serde::{Deserialize, Serialize};
use sink::{Tally, Timed, Timing};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is kept of the events: what has been read is of no use any more.
const KEPT_BYTES: u64 = 256 << 20;

/// How many events are due in a second.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Rate {
    /// As many.
    PerSecond(f64),
    /// This share of the most that is possible.
    Share(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let (digits, is_share) = text.strip_suffix('%').map_or((text, false), |digits| (digits, true));
        let wrong =
            || format!("`{text}` is no rate: say 200000 for so many events a second, or 50% of the most");
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        match number > 0.0 && number.is_finite() {
            true if is_share => Ok(Rate::Share(number / 100.0)),
            true => Ok(Rate::PerSecond(number)),
            false => Err(wrong()),
        }
    }
}

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct LatencySetup {
    /// The query.
    pub query: Query,
    /// How events are made.
    pub generator: Generator,
    /// Which fields events have.
    pub form: Form,
    /// What the engine may use.
    pub resources: Resources,
    /// How fast events come.
    pub rate: Rate,
    /// For how long, the warm-up included.
    pub time: Duration,
    /// Rows that are due in this time are not counted.
    pub warm_up: Duration,
    /// Where the engine's directory is made and deleted again; a temporary place unless said.
    pub directory: Option<PathBuf>,
}

/// Latencies, in milliseconds.
#[derive(Copy, Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Percentiles {
    /// Of half the rows at most.
    pub p50_ms: f64,
    /// Of 99 of 100.
    pub p99_ms: f64,
    /// Of 999 of 1,000.
    pub p999_ms: f64,
    /// Of 9,999 of 10,000.
    pub p9999_ms: f64,
    /// Of all.
    pub max_ms: f64,
}

impl Percentiles {
    fn of(micros: &Histogram<u64>) -> Percentiles {
        let at = |quantile: f64| micros.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            p9999_ms: at(0.9999),
            max_ms: micros.max() as f64 / 1e3,
        }
    }
}

/// What was measured: one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyReport {
    /// `q0` to `q19`.
    pub query: String,
    /// `full` or `lean`.
    pub events_form: Form,
    /// How many workers ran, and partitions there were.
    pub workers: usize,
    /// `memory` or `rocksdb`.
    pub state: String,
    /// The time between checkpoints, if any.
    pub checkpoint_ms: Option<u64>,
    /// The most that was possible, in events a second, if it was measured.
    pub most_per_s: Option<f64>,
    /// Events that were due in a second.
    pub rate_per_s: f64,
    /// Events that were read in a second, from the first one's due time until the last one had been read.
    pub achieved_per_s: f64,
    /// For how long events were due.
    pub seconds: f64,
    /// How much of that was warm-up.
    pub warm_up_seconds: f64,
    /// How many events were due, and were read.
    pub events: u64,
    /// Rows that came of them.
    pub rows: u64,
    /// Rows of the warm-up: they are in no percentile.
    pub warm_up_rows: u64,
    /// Rows of windows that ended with the stream: they are in no percentile.
    pub end_rows: u64,
    /// Rows that are in the percentiles.
    pub timed_rows: u64,
    /// Until a row was handed to the sink.
    pub arrived: Percentiles,
    /// Until it could be read in the topic of results.
    pub committed: Percentiles,
    /// Checkpoints that were completed.
    pub checkpoints: u64,
    /// The median time that they took, of those that the engine remembers.
    pub checkpoint_p50_ms: Option<f64>,
    /// The time that 99 of 100 of those stay below.
    pub checkpoint_p99_ms: Option<f64>,
    /// The largest of them.
    pub state_bytes: u64,
    /// The most memory that the process ever had.
    pub peak_rss_bytes: u64,
}

impl LatencySetup {
    /// Measures it.
    ///
    /// # Errors
    /// For a query whose rows wait for something else than an event or a window, and those of the engine.
    pub fn measure(&self) -> Result<LatencyReport, BoxError> {
        match self.form {
            Form::Full => self.measure_over::<Full>(),
            Form::Lean => self.measure_over::<Lean>(),
        }
    }

    fn measure_over<E: Event>(&self) -> Result<LatencyReport, BoxError>
    where
        EventFormat: Format<E>,
    {
        let (most, rate) = match self.rate {
            Rate::PerSecond(rate) => (None, rate),
            Rate::Share(share) => {
                let most = self.most::<E>()?;
                (Some(most), most * share)
            }
        };
        let schedule = Schedule::of(rate);
        let events = schedule.due_by(self.time.as_nanos() as u64) - 1;
        let running = Running::start::<E>(self)?;
        let beginning = Instant::now();
        *running.timing.schedule.lock().map_err(|_| "a worker panicked")? = Some((schedule, beginning));
        running.feed::<E>(self.generator).by_schedule(schedule, beginning, events, || running.is_over())?;
        running.job.wait_until(|job| job.metrics().records_read >= events);
        let achieved = events as f64 / beginning.elapsed().as_secs_f64();
        let (tally, metrics) = running.drain()?;
        if metrics.records_read != events {
            return Err(format!("{} of {events} events were read", metrics.records_read).into());
        }
        Ok(self.report((most, rate, achieved), events, &tally, &metrics))
    }

    /// Events that the same setup takes in a second.
    fn most<E: Event>(&self) -> Result<f64, BoxError>
    where
        EventFormat: Format<E>,
    {
        let running = Running::start::<E>(self)?;
        // Rows want to know when they were due. It does not matter here.
        let anything = Some((Schedule::of(1e12), Instant::now()));
        *running.timing.schedule.lock().map_err(|_| "a worker panicked")? = anything;
        let read = || running.job.metrics().records_read;
        let mut feed = running.feed::<E>(self.generator);
        let (warm_up, time) =
            (Duration::from_secs(2), self.time.clamp(Duration::from_secs(3), Duration::from_secs(10)));
        feed.as_fast_as_read(warm_up, read, || running.is_over())?;
        let (before, since) = (read(), Instant::now());
        feed.as_fast_as_read(time, read, || running.is_over())?;
        let most = (read() - before) as f64 / since.elapsed().as_secs_f64();
        running.job.cancel();
        running.job.wait()?;
        Ok(most)
    }

    fn report(
        &self,
        (most, rate, achieved): (Option<f64>, f64, f64),
        events: u64,
        tally: &Tally,
        metrics: &Metrics,
    ) -> LatencyReport {
        let checkpoints = self.resources.checkpoints(metrics);
        LatencyReport {
            query: self.query.to_string(),
            events_form: self.form,
            workers: self.resources.workers,
            state: self.resources.state_name().into(),
            checkpoint_ms: self.resources.checkpoint.map(|interval| interval.as_millis() as u64),
            most_per_s: most,
            rate_per_s: rate,
            achieved_per_s: achieved,
            seconds: self.time.as_secs_f64(),
            warm_up_seconds: self.warm_up.as_secs_f64(),
            events,
            rows: tally.rows,
            warm_up_rows: tally.warm_up,
            end_rows: tally.at_end,
            timed_rows: tally.arrived.len(),
            arrived: Percentiles::of(&tally.arrived),
            committed: Percentiles::of(&tally.committed),
            checkpoints: metrics.checkpoints_completed,
            checkpoint_p50_ms: checkpoints.p50_ms,
            checkpoint_p99_ms: checkpoints.p99_ms,
            state_bytes: checkpoints.state_bytes,
            peak_rss_bytes: crate::run::peak_rss_bytes(),
        }
    }
}

/// A job that waits for events.
struct Running {
    job: Job,
    topic: Topic,
    timing: Arc<Timing>,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start<E: Event>(setup: &LatencySetup) -> Result<Running, BoxError>
    where
        EventFormat: Format<E>,
    {
        let query = setup.query;
        let start = Start::of(query).ok_or_else(|| {
            format!("a row of {query} waits for no single event; latencies are told of q0, q1, q2, q5, q7, q8, q12, q18, q19")
        })?;
        let directory = match &setup.directory {
            Some(directory) => tempfile::tempdir_in(directory)?,
            None => tempfile::tempdir()?,
        };
        let engine = Engine::open_with(directory.path(), setup.resources.options())?;
        let (partitions, generator) = (setup.resources.workers, setup.generator);
        let retention = Retention { time: None, bytes: Some(KEPT_BYTES) };
        let options = TopicOptions::new(partitions as u32).retention(retention);
        let topic = engine.log().create_topic(TOPIC, options)?;

        let firings = Firings::new(partitions, generator.jitter_ms, generator.event::<Lean>(0).date_time());
        let timing = Arc::new(Timing::new(start, partitions as u64, setup.warm_up, firings));
        let flow = Flow::new("nexmark-latency");
        let events: Stream<E> = flow.source(LogSource::<E>::topic(TOPIC).format(EventFormat));
        let disorder = Duration::from_millis(generator.jitter_ms);
        queries::add(query, events, disorder, Timed(Arc::clone(&timing)));
        let job = engine.start(flow)?;
        job.wait_until(|job| job.status() == Status::Running);
        Ok(Running { job, topic, timing, _directory: directory })
    }

    fn feed<E: Event>(&self, generator: Generator) -> Feed<'_, E>
    where
        EventFormat: Format<E>,
    {
        let firings = (self.timing.start == Start::Window).then_some(&self.timing.firings);
        Feed::new(&self.topic, generator, firings)
    }

    fn is_over(&self) -> bool {
        self.job.status().is_over()
    }

    /// Ends the streams where they stand, and waits until every row is committed.
    fn drain(self) -> Result<(Tally, Metrics), BoxError> {
        self.job.drain();
        let metrics = self.job.wait()?;
        Ok((self.timing.tally(), metrics))
    }
}
