//! Processing time, and that a replay repeats it: whatever windows and timers the clock happened to give, a later version of the flow gives
//! the same from the log and the journal, at full speed, with any number of workers, and after crashes of either.

use crate::support::{
    Event, Say, Script, deadline, event, in_pieces, replay_through_cancels, run_through_cancels, say,
    start_with_checkpoints,
};
use rivermark::connectors::Collect;
use rivermark::simulation::Simulation;
use rivermark::{
    BoxError, Context, Engine, Expiring, Flow, Job, ProcessFunction, Reducing, Stream, Timestamp, Ttl, Value,
    Watermarks, Windowed, Windows, millis, secs,
};
use std::collections::BTreeMap;
use tempfile::TempDir;

/// Tells when a key has been silent for 4 ms of processing time, and how many records it had in a row, none more than 6 ms after the last.
#[derive(Clone)]
struct Silence;

const COUNT: Expiring<Reducing<u64>> = Reducing::new("count").expiring(Ttl::after_write(millis(6)));
const DUE: Value<Timestamp> = Value::new("due");

impl ProcessFunction<u8, (u8, i64)> for Silence {
    type Out = SilentKey;

    fn on_record(
        &mut self,
        _: &u8,
        _: (u8, i64),
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        if let Some(due) = cx.state(DUE).get()? {
            cx.delete_timer(due)?;
        }
        let due = cx.time() + millis(4);
        cx.state(COUNT).add(1, |sum, one| *sum += one)?;
        cx.state(DUE).set(due)?;
        cx.timer(due)
    }

    fn on_timer(
        &mut self,
        key: &u8,
        time: Timestamp,
        cx: &mut Context<'_, u8, Self::Out>,
    ) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?.unwrap_or_default();
        cx.emit((*key, time, count));
        Ok(())
    }
}

/// A key, when it had been silent for long, and its records in a row by then.
type SilentKey = (u8, Timestamp, u64);

/// A version of a flow on a data directory, and what it has published.
struct Deployed {
    version: u64,
    windows: Collect<Windowed<u8, u64>>,
    silences: Collect<SilentKey>,
}

impl Deployed {
    fn new(version: u64) -> Deployed {
        Deployed { version, windows: Collect::new(), silences: Collect::new() }
    }

    fn flow(&self, source: Script<Event>) -> Flow {
        let flow = Flow::new("told").version(self.version);
        let events = flow.source(source).processing_time(millis(2)).map(|event| (event.key, event.value));
        let keyed = events.clone().key_by(|(key, _)| *key);
        keyed.window(Windows::tumbling(millis(6))).count().sink(self.windows.clone());
        events.key_by(|(key, _)| *key).in_event_time_order().process(Silence).sink(self.silences.clone());
        flow
    }

    fn start(&self, directory: &TempDir, workers: usize, source: Script<Event>) -> (Engine, Job) {
        start_with_checkpoints(directory, workers, self.flow(source))
    }

    fn published(&self) -> (Vec<(i64, u8, u64)>, Vec<SilentKey>) {
        let row = |row: Windowed<u8, u64>| (row.window.start.millis(), row.key, row.value);
        let mut windows: Vec<_> = self.windows.rows().into_iter().map(row).collect();
        windows.sort_unstable();
        let mut silences = self.silences.rows();
        silences.sort_unstable();
        (windows, silences)
    }
}

fn records(numbers: std::ops::Range<i64>) -> Vec<Say<Event>> {
    say(&numbers.map(|n| event((n % 3) as u8, 0, n)).collect::<Vec<_>>())
}

/// 260 records of three partitions, with pauses of so many polls, of which the engine makes one in ten milliseconds.
fn script(polls: u32) -> Script<Event> {
    in_pieces(polls, records)
}

#[test]
fn a_replay_repeats_windows_and_timers_of_processing_time_and_so_does_a_replay_of_the_replay() {
    for (live, replayed) in [(1, 3), (2, 1), (3, 2), (2, 4)] {
        let directory = tempfile::tempdir().unwrap();
        let first = Deployed::new(1);
        first.start(&directory, live, script(60)).1.wait().unwrap();
        let published = first.published();
        let name = format!("{live} workers, {replayed} for the replay");
        assert_eq!(published.0.iter().map(|row| row.2).sum::<u64>(), 260, "{name}");
        let starts: std::collections::BTreeSet<i64> = published.0.iter().map(|row| row.0).collect();
        assert!(starts.len() > 1, "{name}: all of it in one moment: {published:?}");
        for version in [2, 3] {
            let again = Deployed::new(version);
            again.start(&directory, replayed, script(0)).1.wait().unwrap();
            assert_eq!(again.published(), published, "{name}: version {version}");
        }
    }
}

#[test]
fn what_crashes_and_restarts_made_of_processing_time_is_repeated_too_also_by_a_replay_that_crashes() {
    let is_late = deadline();
    for (live, replayed) in [([2, 1, 3], [1, 2, 2]), ([1, 3, 2], [3, 1, 4])] {
        let directory = tempfile::tempdir().unwrap();
        let first = Deployed::new(1);
        let counted = || first.windows.rows().iter().map(|row| row.value).sum::<u64>();
        run_through_cancels(live, counted, &is_late, |workers| first.start(&directory, workers, script(4)));
        let published = first.published();
        assert_eq!(published.0.iter().map(|row| row.2).sum::<u64>(), 260);

        let second = Deployed::new(2);
        replay_through_cancels(replayed, &is_late, |workers, polls| {
            second.start(&directory, workers, script(polls))
        });
        assert_eq!(second.published(), published);
        assert!(!is_late());
    }
}

#[test]
fn windows_of_processing_time_end_while_nothing_comes() {
    let is_late = deadline();
    for workers in [1, 3] {
        let directory = tempfile::tempdir().unwrap();
        let deployed = Deployed::new(1);
        let silent = [records(0..30), vec![Say::Nothing(u32::MAX)]].concat();
        let (_engine, job) =
            deployed.start(&directory, workers, Script::new(vec![silent, vec![Say::Nothing(u32::MAX)]]));
        let counted = || deployed.windows.rows().iter().map(|row| row.value).sum::<u64>();
        job.wait_until(|_| counted() == 30 && deployed.silences.rows().len() >= 3 || is_late());
        assert_eq!(counted(), 30);
        assert!(!is_late());
        job.stop();
        job.wait().unwrap();
    }
}

#[test]
fn behind_what_an_earlier_version_has_read_a_replay_asks_the_clock() {
    let is_late = deadline();
    let directory = tempfile::tempdir().unwrap();
    let first = Deployed::new(1);
    let more = |records: Vec<Say<Event>>| Script::new(vec![[records, vec![Say::Nothing(u32::MAX)]].concat()]);
    let (engine, job) = first.start(&directory, 2, more(records(0..30)));
    job.wait_until(|_| first.published().0.iter().map(|row| row.2).sum::<u64>() == 30 || is_late());
    job.stop();
    job.wait().unwrap();
    drop(engine);
    let second = Deployed::new(2);
    let (_engine, job) = second.start(&directory, 1, more(records(0..60)));
    job.wait_until(|_| second.published().0.iter().map(|row| row.2).sum::<u64>() == 60 || is_late());
    assert!(!is_late());
    job.stop();
    job.wait().unwrap();
    let (before, after) = (first.published().0, second.published().0);
    assert_eq!(after[..before.len()], before);
}

#[test]
fn in_simulated_crashes_every_record_is_in_one_window_and_no_window_fires_twice() {
    for seed in 0..60 {
        let deployed = Deployed::new(1);
        let flow = || deployed.flow(script(30));
        let report = Simulation::seed(seed)
            .run(|_| Ok(()), flow)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let mut windows = BTreeMap::new();
        for (start, key, count) in deployed.published().0 {
            assert_eq!(windows.insert((start, key), count), None, "seed {seed}: a window fired twice");
        }
        assert_eq!(windows.values().sum::<u64>(), 260, "seed {seed}, {} crashes", report.crashes);
    }
}

#[test]
fn the_two_sorts_of_time_do_not_meet_and_a_resolution_has_to_be_one() {
    let refused = |describe: &dyn Fn(Stream<Event>) -> Stream<Event>| {
        let flow = Flow::new("wrong");
        describe(flow.source(script(0))).sink(Collect::new());
        flow.into_plan().err().unwrap().to_string()
    };
    let mixed = refused(&|events| {
        let told = events.clone().processing_time(secs(1));
        events.event_time(|event| Timestamp::from_millis(event.time), Watermarks::monotonous()).union(told)
    });
    assert!(mixed.contains("`event_time-1`") && mixed.contains("`processing_time-1`"), "{mixed}");
    let none = refused(&|events| events.processing_time(std::time::Duration::ZERO));
    assert!(none.contains("give a millisecond or more"), "{none}");
}
