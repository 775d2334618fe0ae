//! One run: a query through the engine, or its floor, and what was measured.

use crate::answer::{Answer, Folding};
use crate::codec::{self, EventFormat, TOPIC};
use crate::event::{Event, Full, Lean};
use crate::floor::{self, Input};
use crate::generator::Generator;
use crate::queries::{self, Query};
use crate::sink::Answers;
use crate::source::Events;
use rivermark::connectors::LogSource;
use rivermark::connectors::format::Format;
use rivermark::{BoxError, Engine, Flow, Metrics, Options, Restart, StateBackend, Stream};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Which fields events have.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// All of the specification, strings in place.
    Full,
    /// Those that queries read.
    Lean,
}

/// Where the engine reads events from.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// They are made as they are read.
    Generator,
    /// They are records of the embedded log.
    Log,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The query.
    pub query: Query,
    /// How events are made.
    pub generator: Generator,
    /// How many there are.
    pub events: u64,
    /// Which fields they have.
    pub form: Form,
    /// Whether the digest of the specification is folded.
    pub digest: bool,
}

/// What the engine may use.
#[derive(Clone, Debug)]
pub struct Resources {
    /// How many workers there are, and partitions of the source.
    pub workers: usize,
    /// Where keyed state lives.
    pub state: StateBackend,
    /// How much memory it may have, if not the default.
    pub state_budget: Option<usize>,
    /// The time between checkpoints, if there are any but the last one.
    pub checkpoint: Option<Duration>,
}

/// How the engine runs it.
#[derive(Clone, Debug)]
pub struct EngineSetup {
    /// What it may use.
    pub resources: Resources,
    /// Where events are read from.
    pub source: From,
    /// The directory of an engine in whose log the events are; otherwise they are written first, which is not in the time.
    pub log: Option<PathBuf>,
}

/// What a run came to: one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `q0` to `q20`, of the engine or the floor.
    pub query: String,
    /// How many events were read.
    pub events: u64,
    /// `full` or `lean`.
    pub events_form: Form,
    /// Where the generator's hash began.
    pub seed: u64,
    /// How many workers ran; the floor is none.
    pub workers: usize,
    /// `memory` or `rocksdb`; the floor keeps nothing.
    pub state: String,
    /// The time between checkpoints, if any.
    pub checkpoint_ms: Option<u64>,
    /// `generator` or `log`.
    pub source: From,
    /// From the start until the last event was read and the last row was at the sink.
    pub seconds: f64,
    /// Events by that time.
    pub events_per_s: f64,
    /// From the start until every row was committed: with the last checkpoint, of all state.
    pub total_seconds: f64,
    /// Rows of the answer; without the digest, rows that came to the sink, updates included.
    pub rows: u64,
    /// The digest of the specification, if asked for.
    pub digest: Option<String>,
    /// Checkpoints that were completed, the last one included.
    pub checkpoints: u64,
    /// The median time from a barrier until its checkpoint was stored, of those that the engine remembers.
    pub checkpoint_p50_ms: Option<f64>,
    /// The time that 99 of 100 of those stay below.
    pub checkpoint_p99_ms: Option<f64>,
    /// The largest of those checkpoints.
    pub state_bytes: u64,
    /// The most memory that the process ever had.
    pub peak_rss_bytes: u64,
    /// Processor time of all threads by the time of `seconds`: what a run costs, however busy the machine is otherwise.
    pub cpu_seconds: f64,
}

impl Report {
    /// Nanoseconds of processor time that an event took.
    pub fn cpu_nanos(&self) -> f64 {
        self.cpu_seconds * 1e9 / self.events as f64
    }
}

impl Setup {
    fn folding(&self) -> Folding {
        if self.digest { Folding::Digest { key: self.query.key_fields() } } else { Folding::Cheap }
    }

    fn report(
        &self,
        answer: &Answer,
        source: From,
        (seconds, cpu): (Duration, f64),
        started: &Started,
    ) -> Report {
        Report {
            query: self.query.to_string(),
            events: self.events,
            events_form: self.form,
            seed: self.generator.seed,
            workers: 0,
            state: "none".into(),
            checkpoint_ms: None,
            source,
            seconds: seconds.as_secs_f64(),
            events_per_s: self.events as f64 / seconds.as_secs_f64(),
            total_seconds: started.at.elapsed().as_secs_f64(),
            cpu_seconds: cpu - started.cpu_seconds,
            rows: answer.rows(),
            digest: self.digest.then(|| format!("{:016x}", answer.digest())),
            checkpoints: 0,
            checkpoint_p50_ms: None,
            checkpoint_p99_ms: None,
            state_bytes: 0,
            peak_rss_bytes: peak_rss_bytes(),
        }
    }

    /// Runs the loop by hand.
    pub fn floor(&self) -> Report {
        let mut answer = Answer::new(self.folding());
        let input = Input { generator: self.generator, events: self.events };
        let started = Started::now();
        match self.form {
            Form::Full => floor::run::<Full>(self.query, input, &mut answer),
            Form::Lean => floor::run::<Lean>(self.query, input, &mut answer),
        }
        let seconds = started.at.elapsed();
        std::hint::black_box(answer.digest());
        self.report(&answer, From::Generator, (seconds, cpu_seconds()), &started)
    }

    /// Runs the flow.
    ///
    /// # Errors
    /// Of the engine.
    pub fn engine(&self, setup: &EngineSetup) -> Result<Report, BoxError> {
        match self.form {
            Form::Full => self.engine_over::<Full>(setup),
            Form::Lean => self.engine_over::<Lean>(setup),
        }
    }

    fn engine_over<E: Event>(&self, setup: &EngineSetup) -> Result<Report, BoxError>
    where
        EventFormat: Format<E>,
    {
        let temporary = tempfile::tempdir()?;
        let directory = setup.log.as_deref().unwrap_or(temporary.path());
        let engine = Engine::open_with(directory, setup.resources.options())?;
        let partitions = setup.resources.workers as u32;
        if setup.source == From::Log && setup.log.is_none() {
            codec::write::<E>(engine.log(), self.generator, self.events, partitions)?;
        }
        // In a directory with the log of many runs, each begins anew.
        let version = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let (flow, answers) = (Flow::new("nexmark").version(version), Answers::new(self.folding()));
        let events: Stream<E> = match setup.source {
            From::Generator => flow.source(Events::<E>::new(self.generator, self.events, partitions)),
            From::Log => flow.source(LogSource::<E>::topic(TOPIC).format(EventFormat).until_end()),
        };
        let disorder = Duration::from_millis(self.generator.jitter_ms);
        queries::add(self.query, events, disorder, answers.clone());

        let started = Started::now();
        let job = engine.start(flow)?;
        // How far it was when, and after how much processor time: which moment was the last one that counts is known at the end.
        let mut passed = Vec::new();
        job.wait_until(|job| {
            let has_read_all = job.metrics().records_read >= self.events;
            passed.push((started.at.elapsed(), has_read_all, cpu_seconds()));
            false
        });
        let metrics = job.wait()?;
        if metrics.records_read != self.events {
            let read = metrics.records_read;
            return Err(format!("{read} events were read, not {}: is it another log?", self.events).into());
        }
        let last_rows = answers.last_rows().saturating_duration_since(started.at);
        let over = passed.iter().find(|(at, has_read_all, _)| *has_read_all && *at >= last_rows);
        let (at, cpu_seconds) = over.map_or((last_rows, cpu_seconds()), |(at, _, cpu)| (*at, *cpu));
        // All was read before the last rows came, unless they came within a moment of that.
        let read_before = passed.iter().any(|(at, has_read_all, _)| *has_read_all && *at <= last_rows);
        let seconds = if read_before { last_rows } else { at };
        let report = self.report(&answers.answer(), setup.source, (seconds, cpu_seconds), &started);
        Ok(setup.complete(report, &metrics))
    }
}

impl Resources {
    pub(crate) fn options(&self) -> Options {
        let options = Options::new().workers(self.workers).state_backend(self.state);
        let options = options.checkpoint_every(self.checkpoint).restart(Restart::Never);
        match self.state_budget {
            Some(bytes) => options.state_budget(bytes),
            None => options,
        }
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match self.state {
            StateBackend::Memory => "memory",
            _ => "rocksdb",
        }
    }

    /// What checkpoints came to, of those that the engine remembers.
    pub(crate) fn checkpoints(&self, metrics: &Metrics) -> Checkpoints {
        let mut took: Vec<f64> =
            metrics.checkpoints.iter().map(|checkpoint| checkpoint.duration.as_secs_f64() * 1e3).collect();
        took.sort_by(f64::total_cmp);
        let quantile = |q: f64| took.get((took.len() as f64 * q) as usize).or(took.last()).copied();
        Checkpoints {
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            state_bytes: metrics.checkpoints.iter().map(|taken| taken.state_bytes).max().unwrap_or(0),
        }
    }
}

/// What checkpoints came to.
pub(crate) struct Checkpoints {
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// The largest.
    pub(crate) state_bytes: u64,
}

impl EngineSetup {
    fn complete(&self, report: Report, metrics: &Metrics) -> Report {
        let checkpoints = self.resources.checkpoints(metrics);
        Report {
            workers: self.resources.workers,
            state: self.resources.state_name().into(),
            checkpoint_ms: self.resources.checkpoint.map(|interval| interval.as_millis() as u64),
            checkpoints: metrics.checkpoints_completed,
            checkpoint_p50_ms: checkpoints.p50_ms,
            checkpoint_p99_ms: checkpoints.p99_ms,
            state_bytes: checkpoints.state_bytes,
            ..report
        }
    }
}

/// When a run began.
struct Started {
    at: Instant,
    cpu_seconds: f64,
}

impl Started {
    fn now() -> Started {
        Started { at: Instant::now(), cpu_seconds: cpu_seconds() }
    }
}

/// Processor time that this process has taken, in steps of Linux's hundredths of a second; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in brackets, may hold anything. Behind it, the times of user and system are the 12th and 13th field.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// The most memory that this process ever had; 0 where the system does not tell.
pub(crate) fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
