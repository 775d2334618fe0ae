//! Look-ups outside: whatever the service answers and when, each record is joined with one answer, and a replay repeats it.

use crate::support::{
    Say, Script, deadline, in_pieces, replay_through_cancels, run_through_cancels, say,
    start_with_checkpoints,
};
use rivermark::connectors::{Collect, FromVec, blocking};
use rivermark::simulation::Simulation;
use rivermark::{
    BoxError, DeadLetter, Engine, Flow, Job, LookUp, Options, Reply, Restart, StateBackend, Stream,
    Timestamp, Watermarks, Windows, millis, secs,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A key, and a number that no other record has.
type Record = (u8, i64);
/// The record, and what was answered.
type Answered = (u8, i64, u64);

/// What was asked, and where the answer goes.
type Held = (i64, Reply<u64>);

/// A service that never answers the same twice, and answers in an order of its own: whoever asks may free the reply of another.
#[derive(Clone, Default)]
struct Capricious {
    asked: Arc<AtomicU64>,
    held: Arc<Mutex<Vec<Held>>>,
}

impl Capricious {
    fn look_up(&self) -> LookUp<i64, u64> {
        let service = self.clone();
        let ask = move |number: i64, reply| {
            let asked = service.asked.fetch_add(1, Ordering::Relaxed);
            let mut held = service.held.lock().unwrap();
            held.push((number, reply));
            if held.len() > 5 {
                let of = (asked.wrapping_mul(6_364_136_223_846_793_005) >> 33) as usize % held.len();
                let (number, reply) = held.swap_remove(of);
                drop(held);
                match asked % 7 {
                    0 => reply.send(Err("not in the mood".into())),
                    // Letting go of it is a failure too.
                    1 => drop(reply),
                    _ => reply.send(Ok(number as u64 * 1_000_000 + asked)),
                }
            }
        };
        // What it sits on times out, and is asked for again.
        LookUp::new(ask).capacity(8).time_out(millis(4)).retries(u32::MAX, millis(1))
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A version of a flow, and what it has published.
struct Deployed {
    version: u64,
    unordered: bool,
    service: Capricious,
    rows: Collect<Answered>,
    sums: Collect<(u8, i64, u64)>,
}

impl Deployed {
    fn new(version: u64, unordered: bool) -> Deployed {
        let (service, rows, sums) = (Capricious::default(), Collect::new(), Collect::new());
        Deployed { version, unordered, service, rows, sums }
    }

    fn flow(&self, source: Script<Record>) -> Flow {
        let flow = Flow::new("asked").version(self.version);
        let look_up = self.service.look_up();
        let look_up = if self.unordered { look_up.unordered() } else { look_up };
        let answered = flow
            .source(source)
            .event_time(|(_, number)| Timestamp::from_millis(*number), Watermarks::monotonous())
            .look_up(look_up, |(_, number)| *number, |(key, number), answer| (key, number, answer));
        let windows = answered.clone().key_by(|row| row.0).window(Windows::tumbling(millis(10)));
        let row = |row: rivermark::Windowed<u8, u64>| (row.key, row.window.start.millis(), row.value);
        windows.sum(|row| row.2).map(row).sink(self.sums.clone());
        answered.sink(self.rows.clone());
        flow
    }

    fn start(&self, directory: &TempDir, workers: usize, source: Script<Record>) -> (Engine, Job) {
        start_with_checkpoints(directory, workers, self.flow(source))
    }

    fn run(&self, directory: &TempDir, workers: usize) {
        self.start(directory, workers, script(0)).1.wait().unwrap();
    }

    /// Rows and sums, sorted.
    fn published(&self) -> (Vec<Answered>, Vec<(u8, i64, u64)>) {
        let (mut rows, mut sums) = (self.rows.rows(), self.sums.rows());
        rows.sort_unstable();
        sums.sort_unstable();
        (rows, sums)
    }

    /// Each record has one answer, which is one to it, and is in one window.
    fn check(&self, name: &str) {
        let (rows, sums) = self.published();
        let numbers: Vec<i64> = rows.iter().map(|row| row.1).collect();
        assert_eq!(numbers.len(), 260, "{name}");
        let mut model = BTreeMap::new();
        for (key, number, answer) in &rows {
            assert_eq!(answer / 1_000_000, *number as u64, "{name}");
            *model.entry((*key, number - number % 10)).or_insert(0) += answer;
        }
        let model: Vec<_> = model.into_iter().map(|((key, start), sum)| (key, start, sum)).collect();
        assert_eq!(sums, model, "{name}: a window fired without some of its records, or twice");
    }
}

fn records(numbers: std::ops::Range<i64>) -> Vec<Say<Record>> {
    say(&numbers.map(|number| ((number % 3) as u8, number)).collect::<Vec<_>>())
}

/// 260 records of three partitions, with pauses of so many polls.
fn script(polls: u32) -> Script<Record> {
    in_pieces(polls, records)
}

#[test]
fn a_replay_gets_the_answers_of_the_first_run_without_asking_and_so_does_a_replay_of_the_replay() {
    for (live, replayed, unordered) in [(1, 3, false), (2, 1, true), (3, 2, false), (2, 4, true)] {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("{live} workers, {replayed} for the replay, unordered: {unordered}");
        let first = Deployed::new(1, unordered);
        first.run(&directory, live);
        first.check(&name);
        assert!(first.service.asked() >= 260);
        for version in [2, 3] {
            // Whether it is in order now has nothing to do with how it was.
            let again = Deployed::new(version, unordered != (version == 3));
            again.run(&directory, replayed);
            assert_eq!(again.published(), first.published(), "{name}: version {version}");
            assert_eq!(again.service.asked(), 0, "{name}: version {version}");
        }
    }
}

#[test]
fn through_crashes_each_record_has_one_answer_and_a_replay_that_crashes_repeats_it() {
    let is_late = deadline();
    for (live, replayed, unordered) in [([2, 1, 3], [1, 2, 2], false), ([1, 3, 2], [3, 1, 4], true)] {
        let directory = tempfile::tempdir().unwrap();
        let first = Deployed::new(1, unordered);
        let published = || first.rows.rows().len() as u64;
        run_through_cancels(live, published, &is_late, |workers| first.start(&directory, workers, script(4)));
        first.check(&format!("{live:?}"));
        let second = Deployed::new(2, unordered);
        replay_through_cancels(replayed, &is_late, |workers, polls| {
            second.start(&directory, workers, script(polls))
        });
        assert_eq!(second.published(), first.published());
        assert_eq!(second.service.asked(), 0);
        assert!(!is_late());
    }
}

#[test]
fn in_simulated_crashes_each_record_has_one_answer_and_no_window_fires_without_its_records() {
    for seed in 0..60 {
        let deployed = Deployed::new(1, seed % 2 == 0);
        let report = Simulation::seed(seed)
            .run(|_| Ok(()), || deployed.flow(script(30)))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        deployed.check(&format!("seed {seed}, {} crashes", report.crashes));
    }
}

/// A service that answers nothing until it is let.
#[derive(Clone, Default)]
struct Silent {
    held: Arc<Mutex<Vec<Reply<u64>>>>,
    most: Arc<AtomicU64>,
}

impl Silent {
    fn look_up(&self) -> LookUp<i64, u64> {
        let service = self.clone();
        LookUp::new(move |_, reply| {
            let mut held = service.held.lock().unwrap();
            held.push(reply);
            service.most.fetch_max(held.len() as u64, Ordering::Relaxed);
        })
        .capacity(3)
    }

    fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }
}

fn asking(flow: &Flow, records: Vec<Vec<Record>>, look_up: LookUp<i64, u64>, rows: &Collect<Answered>) {
    let records = flow.source(FromVec::partitions(records));
    records
        .look_up(look_up, |(_, number)| *number, |(key, number), answer| (key, number, answer))
        .sink(rows.clone());
}

#[test]
fn no_more_requests_are_out_than_asked_for_and_checkpoints_do_not_wait_for_them() {
    let is_late = deadline();
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(2).checkpoint_every(millis(5)).state_backend(StateBackend::Memory);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let records: Vec<Vec<Record>> = (0..2).map(|p| (0..5000).map(|n| (p, n)).collect()).collect();
    let (service, rows) = (Silent::default(), Collect::new());
    let flow = Flow::new("silent");
    asking(&flow, records.clone(), service.look_up(), &rows);
    let job = engine.start(flow).unwrap();
    job.wait_until(|job| service.held() == 6 && job.metrics().checkpoints_completed > 3 || is_late());
    assert!(!is_late());
    let read = job.metrics().records_read;
    assert!(read < 10_000, "all {read} records were read though the service answers none");
    job.stop();
    job.wait().unwrap();
    assert_eq!((rows.rows().len(), service.most.load(Ordering::Relaxed)), (0, 6));

    // What was in flight is in the checkpoint; now somebody answers.
    let flow = Flow::new("silent");
    asking(&flow, records, LookUp::new(blocking(3, |number: i64| Ok(number as u64))).capacity(3), &rows);
    engine.start(flow).unwrap().wait().unwrap();
    let rows = rows.rows();
    for partition in 0..2 {
        let of: Vec<_> = rows.iter().filter(|row| row.0 == partition).map(|row| (row.1, row.2)).collect();
        assert_eq!(of, (0..5000).map(|n| (n, n as u64)).collect::<Vec<_>>(), "in order, each once");
    }
}

#[test]
fn a_service_that_is_down_stops_the_job_at_the_record_or_is_answered_for_and_the_replay_finds_it_down_again()
{
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(1).restart(Restart::Never).state_backend(StateBackend::Memory);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let records = vec![vec![(1, 10), (1, 11)]];
    let down = |number: i64| match number {
        11 => Err::<u64, BoxError>("503".into()),
        number => Ok(number as u64),
    };
    let rows = Collect::new();
    let flow = Flow::new("strict");
    asking(&flow, records.clone(), LookUp::new(blocking(1, down)).retries(2, millis(1)), &rows);
    let error = engine.run(flow).unwrap_err().to_string();
    assert!(error.contains("`look_up-1`") && error.contains("offset 1"), "{error}");
    assert!(error.contains("failed 3 times, the last time: 503"), "{error}");

    let flow = Flow::new("lenient");
    let instead = |number: i64, reason: BoxError| match reason.to_string().as_str() {
        "503" => Ok(number as u64 * 100),
        _ => Err(reason),
    };
    asking(&flow, records.clone(), LookUp::new(blocking(1, down)).or_else(instead), &rows);
    engine.run(flow).unwrap();
    assert_eq!(rows.rows(), [(1, 10, 10), (1, 11, 1100)]);

    // The service is well again; another request has no answer yet.
    let (later, rows) = (Flow::new("lenient").version(2), Collect::new());
    let up = LookUp::new(blocking(2, |number: i64| Ok(number as u64)));
    let source = later.source(FromVec::partitions(records));
    source
        .flat_map(|(key, number)| vec![(key, number), (key, -number)])
        .look_up(
            up,
            |(_, number)| number.abs() * number.signum().pow(2) + i64::from(*number < 0),
            |(_, number), answer| (number, answer),
        )
        .sink(rows.clone());
    engine.run(later).unwrap();
    assert_eq!(rows.rows(), [(10, 10), (-10, 11), (11, 1100), (-11, 12)]);
}

#[test]
fn a_call_that_panics_or_hangs_is_a_failed_one() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(1).restart(Restart::Never).state_backend(StateBackend::Memory);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let rows = Collect::new();
    let flow = Flow::new("panics");
    let service = blocking(2, |number: i64| if number == 2 { panic!("out of cheese") } else { Ok(7) });
    let why = |_, reason: BoxError| Ok(reason.to_string().len() as u64);
    asking(&flow, vec![vec![(0, 1), (0, 2), (0, 3)]], LookUp::new(service).or_else(why), &rows);
    engine.run(flow).unwrap();
    let length = "the call panicked: out of cheese".len() as u64;
    assert_eq!(rows.rows(), [(0, 1, 7), (0, 2, length), (0, 3, 7)]);

    let silent = Silent::default();
    let flow = Flow::new("hangs");
    let instead = |number, _| Ok(number as u64);
    let look_up = silent.look_up().time_out(millis(3)).retries(1, millis(2)).or_else(instead);
    let rows = Collect::new();
    asking(&flow, vec![vec![(0, 1), (0, 2)]], look_up, &rows);
    engine.run(flow).unwrap();
    assert_eq!(rows.rows(), [(0, 1, 1), (0, 2, 2)]);
    assert_eq!(silent.held(), 4, "each was asked twice");
}

#[test]
fn a_look_up_where_the_order_of_records_depends_on_the_moment_is_an_error_of_the_plan() {
    let refused = |describe: &dyn Fn(Stream<Record>) -> Stream<Record>| {
        let flow = Flow::new("wrong");
        describe(flow.source(script(0))).sink(Collect::new());
        flow.into_plan().err().unwrap().to_string()
    };
    let look_up = || LookUp::new(|_: i64, reply: Reply<u64>| reply.send(Ok(1)));
    let ask =
        |records: Stream<Record>, look_up| records.look_up(look_up, |record| record.1, |record, _| record);
    let told = |records: Stream<Record>| {
        records.event_time(|record| Timestamp::from_secs(record.1), Watermarks::bounded(secs(1)))
    };
    let behind = refused(&|records| {
        let counts = told(records).key_by(|record| record.0).window(Windows::tumbling(secs(1))).count();
        ask(counts.map(|row| (row.key, row.value as i64)), look_up())
    });
    assert!(
        behind.contains("`look_up-1` comes behind") && behind.contains("before `.key_by(..)`"),
        "{behind}"
    );
    let unordered = refused(&|records| told(ask(records, look_up().unordered())));
    assert!(unordered.contains("`event_time-1` comes behind `look_up-1`, which is unordered"), "{unordered}");
    let none = refused(&|records| ask(records, look_up().capacity(0)));
    assert!(none.contains("nothing could ever be asked"), "{none}");
}

#[test]
fn a_replay_has_the_same_dead_letters_although_the_service_is_well_again() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(2).restart(Restart::Never).state_backend(StateBackend::Memory);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let run = |version: u64, service: fn(i64) -> Result<i64, BoxError>| {
        let (flow, rows, letters) = (Flow::new("prices").version(version), Collect::new(), Collect::new());
        let records = vec![(0..40).collect(), (40..80).collect()];
        let found = flow.source(FromVec::partitions(records)).look_up(
            LookUp::new(blocking(1, service)),
            |number: &i64| *number,
            |number, answer| (number, answer),
        );
        found.dead_letters().sink(letters.clone());
        found.sink(rows.clone());
        engine.run(flow).unwrap();
        let place =
            |letter: DeadLetter| (letter.partition().unwrap().to_owned(), letter.offset(), letter.error);
        let mut letters: Vec<_> = letters.rows().into_iter().map(place).collect();
        // Each partition's are in order; which worker commits first is the moment's.
        letters.sort_by(|a, b| a.0.cmp(&b.0));
        let mut rows = rows.rows();
        rows.sort_unstable();
        (rows, letters)
    };
    let first = run(1, |number| if number % 3 == 0 { Err("503".into()) } else { Ok(number * 2) });
    assert_eq!((first.0.len(), first.1.len()), (53, 27));
    assert_eq!(run(2, |number| Ok(number * 5)), first);
}
