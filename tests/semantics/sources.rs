//! Several sources: kept abreast by name, appearing while the job runs, taken away; and watermarks that the records carry.

use crate::case::time;
use crate::partitions::{at, idle, simulate, tens};
use crate::support::{Event, Lab, Say, Script, deadline, event, labs, say};
use rivermark::connectors::{Collect, FromVec, LogSource};
use rivermark::log::{RecordBatch, TopicOptions};
use rivermark::{
    BoxError, Context, Engine, Flow, Interval, Job, Options, ProcessFunction, Punctuation, Restart,
    StateBackend, Timestamp, Watermarks, Windows, millis,
};
use std::sync::Arc;

/// The most records of the second source that were ahead of all that had been read of the first, as long as that had more.
fn most_ahead(read: &[(u32, Event)], all_of_first: usize) -> usize {
    let (mut first, mut count, mut second, mut most) = (i64::MIN, 0, Vec::new(), 0);
    for (_, event) in read {
        if event.key == 0 {
            (first, count) = (event.time, count + 1);
        } else {
            second.push(event.time);
        }
        if count < all_of_first {
            most = most.max(second.iter().filter(|time| **time > first).count());
        }
    }
    most
}

#[test]
fn a_group_bounds_what_a_join_keeps_of_the_source_that_is_ahead_and_changes_no_row() {
    let near: Vec<Event> = (0..300).map(|n| event(0, n, n)).collect();
    let far: Vec<Event> = (0..300).map(|n| event(1, n * 40, n)).collect();
    let run = |lab: &Lab, watermarks: &dyn Fn() -> Watermarks| {
        let (flow, rows) = (lab.flow(), Collect::new());
        let first = Script::of(std::slice::from_ref(&near));
        let mut second = Script::of(std::slice::from_ref(&far));
        second.read = Arc::clone(&first.read);
        let read = Arc::clone(&first.read);
        let keyed = |source: Script<Event>| {
            let timed = flow.source(source).event_time(time, watermarks());
            timed.map(|event| event.time).key_by(|time| (time / 1000) as u8)
        };
        let (first, second) = (keyed(first), keyed(second));
        let joined = first.interval_join(second, Interval::around(millis(3), millis(3)));
        joined.inner(|_, first, second| (*first, *second)).sink(rows.clone());
        lab.engine().run(flow).unwrap();
        let mut rows: Vec<(i64, i64)> = rows.rows();
        rows.sort_unstable();
        (most_ahead(&read.lock().unwrap(), near.len()), rows)
    };
    let expected: Vec<(i64, i64)> = (0..300_i64)
        .flat_map(|first| (0..300_i64).map(move |n| (first, n * 40)))
        .filter(|(first, second)| (first - second).abs() <= 3)
        .collect();
    for lab in [Lab::new(1, StateBackend::Memory), Lab::new(3, StateBackend::Memory)] {
        let (free, rows) = run(&lab, &Watermarks::monotonous);
        assert_eq!(rows, expected, "{}", lab.name);
        // Threads may happen to read in step; one worker takes turns.
        assert!(free > 200 || lab.name.starts_with('3'), "{}: nothing runs ahead: {free}", lab.name);
        let group = || Watermarks::monotonous().align_group("join", millis(100));
        let (bound, rows) = run(&lab, &group);
        assert_eq!(rows, expected, "{}", lab.name);
        assert!(bound <= 5, "{}: {bound} records ahead", lab.name);
    }
}

#[test]
fn a_group_waits_neither_for_a_source_that_is_idle_nor_for_one_that_has_ended() {
    let watermarks = || idle().align_group("all", millis(10));
    simulate(
        |flow| {
            let busy = Script::new(vec![say(&at(0..100))]);
            let mut silent = Script::new(vec![vec![Say::NothingUntil(100)]]);
            silent.read = Arc::clone(&busy.read);
            let ended = flow.source(FromVec::new(at(0..10))).event_time(time, watermarks());
            let silent = flow.source(silent).event_time(time, watermarks());
            flow.source(busy).event_time(time, watermarks()).union(silent).union(ended)
        },
        |name, rows, late| {
            assert_eq!(late, [], "{name}");
            assert_eq!(rows, [tens(0..1, 20), tens(1..10, 10)].concat(), "{name}");
        },
    );
}

#[test]
fn records_that_carry_watermarks_close_windows_and_make_late_what_breaks_their_word() {
    // Values say what a record is: 0 data, 1 data with a promise, 2 nothing but a promise, up to ten ahead of its time.
    let events = [(3, 0), (14, 1), (23, 0), (5, 2), (21, 0), (30, 2), (41, 0), (39, 0), (52, 1), (58, 0)];
    let events: Vec<Event> = events.iter().map(|(time, value)| event(0, *time, *value)).collect();
    let says = |event: &Event| {
        let to = Timestamp::from_millis(event.time + 10);
        [Punctuation::None, Punctuation::Promise(to), Punctuation::Heartbeat(to)][event.value as usize]
    };
    for lab in labs() {
        let late = Collect::new();
        let late_rows = late.clone();
        let (mut rows, _) = lab.run(std::slice::from_ref(&events), |stream| {
            stream
                .event_time_punctuated(time, Watermarks::punctuated(), says)
                .key_by(|event| event.key)
                .window(Windows::tumbling(millis(10)))
                .late_output(|stream| stream.map(|late| late.value.time).sink(late_rows))
                .count()
        });
        rows.sort_by_key(|row| row.window.start);
        let rows: Vec<_> = rows.iter().map(|row| (row.window.start.millis(), row.value)).collect();
        // 23 follows the promise of 24, and its window ends at 30: on time. 39 comes behind the heartbeat of 40, 58 behind 62.
        assert_eq!(rows, [(0, 1), (10, 1), (20, 2), (40, 1), (50, 1)], "{}", lab.name);
        let mut late = late.rows();
        late.sort_unstable();
        assert_eq!(late, [39, 58], "{}", lab.name);
    }
}

#[test]
fn punctuated_watermarks_without_punctuation_are_an_error_of_the_flow() {
    let flow = Flow::new("stuck");
    let stream = flow.source(FromVec::new(at(0..1))).event_time(time, Watermarks::punctuated());
    stream.sink(Collect::new());
    let error = flow.into_plan().err().unwrap().to_string();
    assert!(error.contains(".event_time_punctuated(..)"), "{error}");
}

/// A shop's name, and when.
type Sale = (String, i64);

fn append(engine: &Engine, topic: &str, times: impl IntoIterator<Item = i64>) {
    let topic_of = engine.log().ensure_topic(topic, TopicOptions::new(1)).unwrap();
    let mut batch = RecordBatch::new();
    for time in times {
        batch.push(None, Some(&serde_json::to_vec(&(topic, time)).unwrap()), 0);
    }
    topic_of.append(0, &mut batch).unwrap();
}

fn open(directory: &tempfile::TempDir, workers: usize) -> Engine {
    let options = Options::new().workers(workers).state_backend(StateBackend::Memory);
    let options = options.checkpoint_every(millis(5)).discover_every(millis(5)).restart(Restart::Never);
    Engine::open_with(directory.path(), options).unwrap()
}

/// What a version of the flow has published: windows with their counts, late records, and all that were on time in order of time.
#[derive(Default)]
struct Published {
    counts: Collect<(i64, u64)>,
    late: Collect<Sale>,
    in_order: Collect<Sale>,
}

impl Published {
    fn start(&self, engine: &Engine, version: u64, source: LogSource<Sale>) -> Job {
        let flow = Flow::new("shops").version(version);
        let at = |sale: &Sale| Timestamp::from_millis(sale.1);
        let timed = flow.source(source).event_time(at, Watermarks::monotonous());
        let sales = timed.clone().key_by(|_| 0_u8);
        let late = self.late.clone();
        let in_order = timed.key_by(|_| 0_u8).in_event_time_order();
        in_order.process(Passing).sink(self.in_order.clone());
        let counts = sales.window(Windows::tumbling(millis(10)));
        let counts = counts.late_output(|stream| stream.map(|late| late.value).sink(late)).count();
        counts.map(|row| (row.window.start.millis(), row.value)).sink(self.counts.clone());
        engine.start(flow).unwrap()
    }

    fn rows(&self) -> (Vec<(i64, u64)>, Vec<Sale>, Vec<Sale>) {
        let (mut counts, mut late) = (self.counts.rows(), self.late.rows());
        counts.sort_unstable();
        late.sort();
        (counts, late, self.in_order.rows())
    }
}

#[test]
fn a_replay_repeats_what_a_topic_that_appeared_later_has_made_late_and_the_order_of_ties() {
    for (live, replayed) in [(1, 2), (2, 1), (3, 3)] {
        let name = format!("{live} workers, {replayed} for the replay");
        let directory = tempfile::tempdir().unwrap();
        let first = Published::default();
        {
            let engine = open(&directory, live);
            let is_late = deadline();
            append(&engine, "other", [0]);
            append(&engine, "shop-b", 0..50);
            let job = first.start(&engine, 1, LogSource::topics_matching("shop-*"));
            // A topic that is not there yet holds nobody back.
            assert!(job.wait_until(|_| first.counts.rows().len() >= 4 || is_late()), "{name}: it hangs");
            // By name it comes before the other, by discovery after it.
            append(&engine, "shop-a", (10..20).chain([49, 49, 55, 60]));
            assert!(job.wait_until(|job| job.metrics().records_read == 64 || is_late()), "{name}");
            append(&engine, "shop-b", 50..70);
            assert!(job.wait_until(|job| job.metrics().records_read == 84 || is_late()), "{name}");
            assert!(!is_late(), "{name}: it hangs: {:?}", job.status());
            job.drain();
            job.wait().unwrap();
        }
        let (counts, late, in_order) = first.rows();
        assert!(late.contains(&("shop-a".into(), 10)), "{name}: {late:?}");
        assert_eq!(
            counts.iter().map(|row| row.1 as usize).sum::<usize>() + late.len(),
            84,
            "{name}: {counts:?}, late {late:?}"
        );
        let ties: Vec<&str> = in_order.iter().filter(|row| row.1 == 55).map(|row| &*row.0).collect();
        assert_eq!(ties, ["shop-b", "shop-a"], "{name}");
        for version in [2, 3] {
            let (engine, again) = (open(&directory, replayed), Published::default());
            let source = LogSource::topics_matching("shop-*").until_end();
            again.start(&engine, version, source).wait().unwrap();
            assert_eq!(again.rows(), (counts.clone(), late.clone(), in_order.clone()), "{name}: {version}");
        }
    }
}

#[test]
fn a_job_waits_for_its_topic_and_can_be_drained_meanwhile() {
    for workers in [1, 3] {
        for appears in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let (engine, is_late) = (open(&directory, workers), deadline());
            let (flow, rows) = (Flow::new("waiting"), Collect::new());
            flow.source(LogSource::<Sale>::topic("later").wait_for_topic()).sink(rows.clone());
            let job = engine.start(flow).unwrap();
            assert!(job.wait_until(|job| job.metrics().checkpoints_completed > 3 || is_late()));
            if appears {
                append(&engine, "later", 0..5);
                assert!(job.wait_until(|_| rows.rows().len() == 5 || is_late()));
            }
            assert!(!is_late(), "it hangs: {:?}", job.status());
            job.drain();
            assert_eq!(job.wait().unwrap().records_read, if appears { 5 } else { 0 });
        }
    }
}

/// Reads these topics to their ends, each as a source of its name.
fn reading(topics: &[&str], rows: &Collect<Sale>) -> Flow {
    let flow = Flow::new("changing");
    let sources = topics.iter().map(|topic| {
        let source = flow.source(LogSource::<Sale>::topic(*topic).until_end()).named(topic);
        source
            .event_time(|sale| Timestamp::from_millis(sale.1), Watermarks::monotonous())
            .named(&format!("time of {topic}"))
    });
    let all = sources.reduce(|all, stream| all.union(stream)).unwrap();
    all.key_by(|sale| sale.0.clone()).process(Passing).named("passing").sink(rows.clone());
    flow
}

#[test]
fn sources_come_and_go_between_starts_and_each_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, rows) = (open(&directory, 2), Collect::new());
    for topic in ["a", "b", "c"] {
        append(&engine, topic, 0..10);
    }
    let read = |flow: Flow| engine.run(flow).unwrap().records_read;
    assert_eq!(read(reading(&["a", "b"], &rows)), 20);
    // A new one is read from its beginning, first in the flow or not.
    assert_eq!(read(reading(&["c", "a", "b"], &rows)), 10);
    let error = engine.run(reading(&["a", "c"], &rows)).unwrap_err().to_string();
    assert!(error.contains("source `b`") && error.contains("flow.drop_source(\"b\")"), "{error}");
    let without = || {
        let flow = reading(&["a", "c"], &rows);
        flow.drop_source("b");
        flow
    };
    append(&engine, "b", 10..15);
    // Several times: checkpoints carry its position on, and what comes later does not take its place.
    append(&engine, "d", 0..3);
    assert_eq!((read(without()), read(without())), (0, 0));
    let another = reading(&["d", "a", "c"], &rows);
    another.drop_source("b");
    assert_eq!(read(another), 3);
    let wrong = reading(&["a", "b", "c", "d"], &rows);
    wrong.drop_source("b");
    let error = engine.run(wrong).unwrap_err().to_string();
    assert!(error.contains("source `b` is to be dropped, and the flow has it"), "{error}");
    assert_eq!(read(reading(&["a", "b", "c", "d"], &rows)), 5, "it goes on where it was left");
    let mut rows = rows.rows();
    rows.sort();
    let expected = [("a", 10), ("b", 15), ("c", 10), ("d", 3)];
    let expected =
        expected.iter().flat_map(|(topic, count)| (0..*count).map(move |n| (topic.to_string(), n)));
    assert_eq!(rows, expected.collect::<Vec<Sale>>());
}

#[derive(Clone)]
struct Passing;

impl<K: rivermark::Key> ProcessFunction<K, Sale> for Passing {
    type Out = Sale;

    fn on_record(&mut self, _: &K, sale: Sale, cx: &mut Context<'_, K, Sale>) -> Result<(), BoxError> {
        cx.emit(sale);
        Ok(())
    }
}
