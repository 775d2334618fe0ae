//! Every query through crashes: simulated ones, jobs that are cancelled, processes under SIGKILL. The answer is the floor's, to the last row.

use crate::specification::floor_answer;
use nexmark::answer::{Answer, Folding, Row};
use nexmark::event::Lean;
use nexmark::generator::Generator;
use nexmark::queries::{self, Query, Rows};
use nexmark::sink::Answers;
use nexmark::source::Events;
use rivermark::connectors::LogSink;
use rivermark::log::{Isolation, Log, Position};
use rivermark::simulation::Simulation;
use rivermark::{Engine, Flow, Job, Options, Restart, StateBackend, Stream, millis, secs};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const TOPIC: &str = "answers";
/// Positions are those of partitions, so there are always as many, whatever the number of workers.
const PARTITIONS: u32 = 3;

/// Writes rows to the log, those of one key to one partition.
struct ToLog(Query);

impl Rows for ToLog {
    fn take<R: Row + Sync>(self, rows: Stream<R>) {
        let fields = self.0.key_fields().unwrap_or(usize::MAX);
        let key = move |row: &String| {
            let commas = row.match_indices(',').map(|(at, _)| at);
            let end = commas.take(fields).nth(fields.saturating_sub(1)).unwrap_or(row.len());
            row.as_bytes()[..end].to_vec()
        };
        let text = rows.map(|row| {
            let mut text = Vec::new();
            row.write(&mut text);
            String::from_utf8(text).unwrap()
        });
        text.sink_as("answers", LogSink::topic(TOPIC).text().key(key).partitions(2));
    }
}

/// The answer that is in the log.
fn answer_in(log: &Log, query: Query) -> (u64, u64) {
    let mut answer = Answer::new(Folding::Digest { key: query.key_fields() });
    let topic = log.topic(TOPIC).unwrap();
    for partition in 0..topic.partitions() {
        let mut rows = topic.reader(partition, Position::Earliest, Isolation::ReadCommitted).unwrap();
        while let Some(rows) = rows.next_batch().unwrap() {
            rows.for_each(|row| answer.row_of_text(row.value.unwrap()));
        }
    }
    (answer.rows(), answer.digest())
}

fn add(query: Query, flow: &Flow, events: Events<Lean>, rows: impl Rows) {
    queries::add(query, flow.source(events), secs(1), rows);
}

fn events(events: u64) -> Events<Lean> {
    Events::new(Generator::default(), events, PARTITIONS)
}

#[test]
fn every_query_gives_its_answer_through_simulated_crashes() {
    const EVENTS: u64 = 30_000;
    for query in Query::ALL {
        let expected = floor_answer::<Lean>(query, EVENTS);
        let (mut crashes, mut checkpoints) = (0, 0);
        for seed in 0..6 {
            let options = Options::new().checkpoint_every(millis(5));
            let simulation = Simulation::seed(seed).crashes(4).options(options);
            let report = simulation.run(
                |_| Ok(()),
                || {
                    let flow = Flow::new("nexmark");
                    add(query, &flow, events(EVENTS).at_most(50), ToLog(query));
                    flow
                },
            );
            let report = report.unwrap_or_else(|error| panic!("{query}, seed {seed}: {error}"));
            assert_eq!(answer_in(&report.log, query), expected, "{query}, seed {seed}");
            crashes += report.crashes;
            checkpoints += report.checkpoints;
        }
        assert!(crashes > 6 && checkpoints > 60, "{query}: {crashes} crashes, {checkpoints} checkpoints");
    }
}

/// Waits until a job has read `events`, for a minute at most.
fn reads(job: &Job, events: u64) {
    let deadline = Instant::now() + secs(60);
    let has_read = |job: &Job| job.metrics().records_read >= events;
    job.wait_until(|job| has_read(job) || Instant::now() > deadline);
    assert!(has_read(job), "{} of {events} events, {:?}", job.metrics().records_read, job.status());
}

/// Waits until a job has read `events` and stored a checkpoint behind them.
fn comes_to(job: &Job, events: u64) {
    reads(job, events);
    job.checkpoint().unwrap();
}

#[test]
fn every_query_gives_its_answer_through_jobs_that_are_cancelled_and_started_with_other_workers() {
    const EVENTS: u64 = 60_000;
    /// How many events there are behind the last checkpoint at most.
    const MORE: u64 = 5000;
    for query in Query::ALL {
        let directory = tempfile::tempdir().unwrap();
        let answers = Answers::new(Folding::Digest { key: query.key_fields() });
        let mut before = 0;
        for (workers, allowed) in [(1, 20_000), (3, 45_000), (2, EVENTS)] {
            let options = Options::new().workers(workers).state_backend(StateBackend::RocksDb);
            let options = options.checkpoint_every(millis(10)).restart(Restart::Never);
            let engine = Engine::open_with(directory.path(), options).unwrap();
            let (flow, limit) = (Flow::new("nexmark"), Arc::new(AtomicU64::new(allowed)));
            add(query, &flow, events(EVENTS).allowed(Arc::clone(&limit)), answers.clone());
            let job = engine.start(flow).unwrap();
            if allowed == EVENTS {
                job.wait().unwrap();
                continue;
            }
            comes_to(&job, allowed - before);
            // What comes now is in no checkpoint, or in one that is under way.
            let read = job.metrics().records_read;
            limit.store(allowed + MORE, Ordering::Relaxed);
            reads(&job, read + 1);
            job.cancel();
            _ = job.wait();
            before = allowed + MORE;
        }
        let answer = answers.answer();
        assert_eq!((answer.rows(), answer.digest()), floor_answer::<Lean>(query, EVENTS), "{query}");
    }
}

const DIRECTORY: &str = "NEXMARK_TEST_DIRECTORY";
const QUERY: &str = "NEXMARK_TEST_QUERY";
const ALLOWED: &str = "NEXMARK_TEST_ALLOWED";
const KILLED_EVENTS: u64 = 100_000;

#[test]
#[ignore = "the process that the test below kills"]
fn answers_a_query_slowly() {
    let query: Query = std::env::var(QUERY).unwrap().parse().unwrap();
    let allowed: u64 = std::env::var(ALLOWED).unwrap().parse().unwrap();
    let options = Options::new().workers(2).checkpoint_every(millis(10));
    let engine = Engine::open_with(PathBuf::from(std::env::var(DIRECTORY).unwrap()), options).unwrap();
    let flow = Flow::new("nexmark");
    add(query, &flow, events(KILLED_EVENTS).allowed(Arc::new(AtomicU64::new(allowed))), ToLog(query));
    let job = engine.start(flow).unwrap();
    if allowed < KILLED_EVENTS {
        comes_to(&job, 1);
        // Until it is killed, in the middle of whatever it does then.
        writeln!(std::io::stdout(), "ready").unwrap();
    }
    job.wait().unwrap();
}

#[test]
fn a_process_that_is_killed_again_and_again_answers_every_query() {
    for query in Query::ALL {
        let directory = tempfile::tempdir().unwrap();
        for allowed in [40_000, 80_000, KILLED_EVENTS] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["crashes::answers_a_query_slowly", "--exact", "--ignored", "--nocapture"]);
            command.env(DIRECTORY, directory.path()).env(QUERY, query.to_string());
            command.env(ALLOWED, allowed.to_string());
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            if allowed < KILLED_EVENTS {
                // The line may begin with what the test harness says.
                let ready = lines.any(|line| line.is_ok_and(|line| line.ends_with("ready")));
                assert!(ready, "{query}: the process ended by itself");
                child.kill().unwrap();
            } else {
                lines.for_each(drop);
            }
            assert_eq!(child.wait().unwrap().success(), allowed == KILLED_EVENTS, "{query}");
        }
        let log = Engine::open(directory.path()).unwrap().log().clone();
        assert_eq!(answer_in(&log, query), floor_answer::<Lean>(query, KILLED_EVENTS), "{query}");
    }
}
