//! Partitions that are silent, partitions that end, and partitions that run ahead. How long a silence is depends on processing time, so
//! most of this runs under simulation, where time passes with the steps.

use crate::case::{Case, time};
use crate::model::Shape;
use crate::support::{Event, Lab, Say, Script, deadline, event, say};
use rivermark::connectors::{Collect, FromVec};
use rivermark::simulation::Simulation;
use rivermark::{
    Engine, Flow, Job, Options, StateBackend, Stream, Watermarks, Windowed, Windows, millis, secs,
};
use std::sync::Arc;

const TENS: Shape = Shape::Sliding { size: 10, slide: 10, offset: 0 };
/// Seeds for each claim: orders of steps.
const SEEDS: u64 = 20;
/// Polls that take about twice as long in a simulation as a partition may be silent before it counts as idle, which is ten times as long as
/// the records take.
const LONG: u32 = 3000;

pub fn idle() -> Watermarks {
    Watermarks::monotonous().idle_after(millis(400))
}

pub fn at(times: std::ops::Range<i64>) -> Vec<Event> {
    times.map(|time| event(0, time, time)).collect()
}

/// Counts in windows of 10 ms what `describe` makes of a flow, in simulations without crashes, and gives the rows and late records of each.
pub fn simulate(
    describe: impl Fn(&Flow) -> Stream<Event>,
    check: impl Fn(&str, Vec<(i64, u64)>, Vec<Event>),
) {
    for seed in 0..SEEDS {
        for workers in [1, 2, 3] {
            let (rows, late) = (Collect::<Windowed<u8, u64>>::new(), Collect::new());
            let flow = || {
                let flow = Flow::new("silence");
                let late = late.clone();
                describe(&flow)
                    .key_by(|event| event.key)
                    .window(TENS.windows())
                    .late_output(|stream| stream.map(|late| late.value).sink(late))
                    .count()
                    .sink(rows.clone());
                flow
            };
            let name = format!("seed {seed}, {workers} workers");
            let simulation = Simulation::seed(seed).crashes(0).faulty_store(false).workers(&[workers]);
            simulation.run(|_| Ok(()), flow).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut rows: Vec<_> =
                rows.rows().iter().map(|row| (row.window.start.millis(), row.value)).collect();
            rows.sort_unstable();
            let mut late = late.rows();
            late.sort();
            check(&name, rows, late);
        }
    }
}

pub fn tens(windows: std::ops::Range<i64>, count: u64) -> Vec<(i64, u64)> {
    windows.map(|window| (window * 10, count)).collect()
}

/// Starts a live job over one busy partition and one without a record: windows of 10 ms.
fn with_a_silent_partition(watermarks: Watermarks) -> (tempfile::TempDir, Job, Collect<Windowed<u8, u64>>) {
    let busy = [say(&at(0..100)), vec![Say::Nothing(u32::MAX)]].concat();
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(2).state_backend(StateBackend::Memory).checkpoint_every(millis(5));
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let (flow, rows) = (Flow::new("silent"), Collect::new());
    flow.source(Script::new(vec![busy, vec![Say::Nothing(u32::MAX)]]))
        .event_time(time, watermarks)
        .key_by(|event| event.key)
        .window(TENS.windows())
        .count()
        .sink(rows.clone());
    (directory, engine.start(flow).unwrap(), rows)
}

#[test]
fn a_silent_partition_holds_windows_until_it_is_declared_idle() {
    let is_late = deadline();
    let (_directory, job, rows) = with_a_silent_partition(Watermarks::monotonous());
    // All is read, and three checkpoints later nothing has been published.
    assert!(job.wait_until(|job| job.metrics().records_read == 100 || is_late()));
    let then = job.metrics().checkpoints_completed;
    assert!(job.wait_until(|job| job.metrics().checkpoints_completed >= then + 3 || is_late()));
    assert!(!is_late(), "it hangs: {:?}", job.status());
    assert_eq!(rows.rows(), []);
    job.stop();
    job.wait().unwrap();

    let (_directory, job, rows) = with_a_silent_partition(idle());
    // The last window is still open.
    assert!(job.wait_until(|_| rows.rows().len() >= 9 || is_late()));
    assert!(!is_late(), "it hangs: {:?}", job.status());
    let counts: Vec<u64> = rows.rows().iter().map(|row| row.value).collect();
    assert_eq!(counts, [10; 9]);
    job.stop();
    job.wait().unwrap();
}

#[test]
fn what_an_idle_partition_brings_for_windows_that_fired_without_it_is_late() {
    // The second partition begins when the first has been through all windows but the last, and been silent for long.
    let busy = [say(&at(0..100)), vec![Say::Nothing(2 * LONG)]].concat();
    let source = Script::new(vec![busy, [vec![Say::Nothing(LONG)], say(&at(50..110))].concat()]);
    let describe = |flow: &Flow| flow.source(source.clone()).event_time(time, idle());
    simulate(describe, |name, rows, late| {
        let fired = [tens(0..9, 10), tens(9..10, 20), tens(10..11, 10)].concat();
        assert_eq!(rows, fired, "{name}");
        assert_eq!(late, at(50..90), "{name}");
    });
}

#[test]
fn a_partition_that_has_ended_does_not_end_time_for_those_that_are_silent() {
    let ended = say(&at(0..100));
    let silent = [say(&at(0..50)), vec![Say::Nothing(LONG)], say(&at(50..100))].concat();
    let source = Script::new(vec![ended, silent]);
    let describe = |flow: &Flow| flow.source(source.clone()).event_time(time, idle());
    simulate(describe, |name, rows, late| {
        assert_eq!(late, [], "{name}");
        assert_eq!(rows, tens(0..10, 20), "{name}");
    });
}

#[test]
fn a_source_that_has_ended_does_not_end_time_for_one_that_is_silent() {
    let silent = Script::new(vec![[say(&at(0..50)), vec![Say::Nothing(LONG)], say(&at(50..100))].concat()]);
    let describe = |flow: &Flow| {
        let ended = flow.source(FromVec::new(at(0..100))).event_time(time, Watermarks::monotonous());
        ended.union(flow.source(silent.clone()).event_time(time, idle()))
    };
    simulate(describe, |name, rows, late| {
        assert_eq!(late, [], "{name}");
        assert_eq!(rows, tens(0..10, 20), "{name}");
    });
}

#[test]
fn a_silence_shorter_than_the_time_out_changes_nothing() {
    let short = [say(&at(0..50)), vec![Say::Nothing(100)], say(&at(50..100))].concat();
    let source = Script::new(vec![say(&at(0..100)), short]);
    let watermarks = || Watermarks::monotonous().idle_after(secs(3600));
    let describe = |flow: &Flow| flow.source(source.clone()).event_time(time, watermarks());
    simulate(describe, |name, rows, late| {
        assert_eq!(late, [], "{name}");
        assert_eq!(rows, tens(0..10, 20), "{name}");
    });
}

/// How far ahead of the slowest of the other partitions a partition was when it was read on, at the most.
fn greatest_drift(partitions: &[Vec<Event>], read: &[(u32, Event)]) -> i64 {
    let mut reached = vec![i64::MIN; partitions.len()];
    let (mut counts, mut greatest) = (vec![0; partitions.len()], 0);
    for (partition, event) in read {
        let at = *partition as usize;
        let others = (0..partitions.len()).filter(|o| *o != at && counts[*o] < partitions[*o].len());
        let slowest = others.map(|other| reached[other]).min().filter(|slowest| *slowest > i64::MIN);
        if let Some(slowest) = slowest {
            // Whether a partition may be read is decided by where it was before.
            greatest = greatest.max(reached[at].saturating_sub(slowest));
        }
        (reached[at], counts[at]) = (event.time, counts[at] + 1);
    }
    greatest
}

#[test]
fn aligned_partitions_stay_within_their_drift_and_give_the_same_rows() {
    let partitions = [1, 7, 40].map(|step| (0..300).map(|n| event(0, n * step, n)).collect::<Vec<_>>());
    let case = Case { partitions: partitions.to_vec(), bound: 0, shape: TENS, lateness: 0 };
    let expected = case.expected();
    for workers in [1, 3] {
        let lab = Lab::new(workers, StateBackend::Memory);
        let drift = |watermarks: Watermarks| {
            let (flow, source) = (lab.flow(), Script::of(&partitions));
            let read = Arc::clone(&source.read);
            let outputs = case.describe_as(&flow, source, watermarks);
            lab.engine().run(flow).unwrap();
            case.judge(&outputs, &expected, &lab.name);
            greatest_drift(&partitions, &read.lock().unwrap())
        };
        let free = drift(Watermarks::monotonous());
        // Threads may happen to read in step; one worker takes turns, and then the largest steps run ahead.
        assert!(free > 2000 || workers > 1, "nothing runs ahead by itself, only {free} ms");
        let aligned = drift(Watermarks::monotonous().align_within(millis(100)));
        assert!(aligned <= 100, "{workers} workers: {aligned} ms");
    }
}

#[test]
fn an_aligned_partition_does_not_wait_for_one_that_is_idle() {
    let silent = vec![Say::NothingUntil(100)];
    let source = Script::new(vec![say(&at(0..100)), silent]);
    let watermarks = || idle().align_within(millis(10));
    let describe = |flow: &Flow| flow.source(source.clone()).event_time(time, watermarks());
    simulate(describe, |name, rows, _| assert_eq!(rows, tens(0..10, 10), "{name}"));
}

#[test]
fn alignment_does_not_wait_for_a_source_that_tells_no_time() {
    let timeless = |read: &Script<Event>| {
        let mut timeless = Script::new(vec![vec![Say::NothingUntil(100)]]);
        timeless.read = Arc::clone(&read.read);
        timeless
    };
    let describe = |flow: &Flow| {
        let source = Script::of(&[at(0..50), at(0..50)]);
        flow.source(timeless(&source)).sink(Collect::new());
        flow.source(source).event_time(time, Watermarks::monotonous().align_within(millis(10)))
    };
    simulate(describe, |name, rows, _| assert_eq!(rows, tens(0..5, 20), "{name}"));
}

#[test]
fn a_second_reading_of_time_does_not_undo_an_alignment() {
    let partitions = [at(0..300), (0..300).map(|n| event(0, n * 40, n)).collect()];
    let lab = Lab::new(2, StateBackend::Memory);
    for aligned_first in [true, false] {
        let (flow, source) = (lab.flow(), Script::of(&partitions));
        let read = Arc::clone(&source.read);
        let events = flow.source(source);
        for aligned in [aligned_first, !aligned_first] {
            let free = Watermarks::monotonous();
            let watermarks = if aligned { free.align_within(millis(100)) } else { free };
            let keyed = events.clone().event_time(time, watermarks).key_by(|event| event.key);
            keyed.window(Windows::tumbling(millis(10))).count().sink(Collect::new());
        }
        lab.engine().run(flow).unwrap();
        let drift = greatest_drift(&partitions, &read.lock().unwrap());
        assert!(drift <= 100, "aligned first: {aligned_first}: {drift} ms");
    }
}

/// Counts in windows of 10 ms, as a version of a flow on a data directory: what has been published so far, and what was late.
struct Deployed {
    version: u64,
    rows: Collect<Windowed<u8, u64>>,
    late: Collect<Event>,
}

impl Deployed {
    fn new(version: u64) -> Deployed {
        Deployed { version, rows: Collect::new(), late: Collect::new() }
    }

    fn start(&self, directory: &tempfile::TempDir, workers: usize, source: Script<Event>) -> (Engine, Job) {
        let options =
            Options::new().workers(workers).state_backend(StateBackend::Memory).checkpoint_every(millis(5));
        let engine = Engine::open_with(directory.path(), options).unwrap();
        let (flow, late) = (Flow::new("deployed").version(self.version), self.late.clone());
        flow.source(source)
            .event_time(time, Watermarks::monotonous().idle_after(millis(5)))
            .key_by(|event| event.key)
            .window(TENS.windows())
            .late_output(|stream| stream.map(|late| late.value).sink(late))
            .count()
            .sink(self.rows.clone());
        let job = engine.start(flow).unwrap();
        (engine, job)
    }

    fn published(&self) -> (Vec<(i64, u64)>, Vec<Event>) {
        let mut rows: Vec<_> =
            self.rows.rows().iter().map(|row| (row.window.start.millis(), row.value)).collect();
        rows.sort_unstable();
        let mut late = self.late.rows();
        late.sort();
        (rows, late)
    }
}

#[test]
fn a_replay_repeats_what_silences_have_made_late_and_so_does_a_replay_of_the_replay() {
    // The second partition is silent until all of the first has been read and been idle for long, and is behind then. The third appears to
    // be silent from the beginning.
    let script = |until: usize, polls: u32| {
        let pause = [Say::NothingUntil(until), Say::Nothing(polls)].to_vec();
        let first = [say(&at(0..100)), vec![Say::NothingUntil(until), Say::Nothing(2 * polls)]].concat();
        let second = [say(&at(0..30)), pause.clone(), say(&at(20..120))].concat();
        Script::new(vec![first, second, [pause, say(&at(95..99)), say(&at(60..65))].concat()])
    };
    let is_late = deadline();
    for (live, restarted, replayed) in [(2, None, 1), (1, None, 3), (3, Some(2), 2), (2, Some(3), 4)] {
        let directory = tempfile::tempdir().unwrap();
        let first = Deployed::new(1);
        if let Some(restarted) = restarted {
            // It is stopped while the others go on without the silent ones: what it did not wait for counts afterwards too.
            let held = Script::new(vec![
                [say(&at(0..100)), vec![Say::Nothing(u32::MAX)]].concat(),
                [say(&at(0..30)), vec![Say::Nothing(u32::MAX)]].concat(),
                vec![Say::Nothing(u32::MAX)],
            ]);
            let (engine, job) = first.start(&directory, live, held);
            assert!(job.wait_until(|_| first.rows.rows().len() >= 9 || is_late()));
            job.stop();
            job.wait().unwrap();
            drop(engine);
            first.start(&directory, restarted, script(0, 0)).1.wait().unwrap();
        } else {
            first.start(&directory, live, script(130, 40)).1.wait().unwrap();
        }
        let (rows, late) = first.published();
        let name = format!("{live} workers, {restarted:?} after a restart, {replayed} for the replay");
        assert!(late.iter().any(|event| (60..65).contains(&event.time)), "{name}: {late:?}");
        assert!(late.iter().any(|event| (30..60).contains(&event.time)), "{name}: {late:?}");
        assert_eq!(rows.iter().map(|row| row.1 as usize).sum::<usize>() + late.len(), 239, "{name}");

        for version in [2, 3] {
            let again = Deployed::new(version);
            again.start(&directory, replayed, script(0, 0)).1.wait().unwrap();
            assert_eq!(again.published(), (rows.clone(), late.clone()), "{name}: version {version}");
        }
    }
}
