//! Flows whose sources end, run again when more has been appended.

use crate::case::Case;
use crate::model::{self, Shape};
use crate::support::{Event, event};
use crate::windows::{config, keyed, lateness, partitions, sessions, sliding};
use proptest::prelude::*;
use rivermark::connectors::{Collect, FromVec};
use rivermark::{Engine, Flow, Options, Restart, Trigger, Watermarks, Windowed, Windows, millis};
use tempfile::TempDir;

fn engine(workers: usize, directory: &TempDir) -> Engine {
    let options = Options::new().workers(workers).checkpoint_every(None).restart(Restart::Never);
    Engine::open_with(directory.path(), options).unwrap()
}

#[test]
fn a_window_that_the_end_has_closed_has_no_second_row() {
    let directory = tempfile::tempdir().unwrap();
    let (rows, late) = (Collect::new(), Collect::new());
    // The first run ends in the middle of [10, 20). Of what comes then, 17 belongs to that window; 12, of another key, too.
    let events = [event(0, 3, 1), event(0, 14, 1), event(0, 17, 1), event(1, 12, 1), event(0, 21, 1)];
    for (until, workers) in [(2, 1), (2, 2), (5, 2), (5, 1)] {
        let flow = Flow::new("ends");
        let late = late.clone();
        keyed(flow.source(FromVec::new(events[..until].to_vec())), 5)
            .window(Windows::tumbling(millis(10)))
            .late_output(|stream| stream.map(|late| late.value.time).sink(late))
            .count()
            .sink(rows.clone());
        engine(workers, &directory).run(flow).unwrap();
    }
    let rows: Vec<_> =
        rows.rows().iter().map(|row: &Windowed<u8, u64>| (row.window.start.millis(), row.value)).collect();
    assert_eq!(rows, [(0, 1), (10, 1), (20, 1)]);
    let mut late = late.rows();
    late.sort_unstable();
    assert_eq!(late, [12, 17]);
}

/// Where a first run ends in each partition, in parts of a thousand.
fn ends() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..=1000_usize, 4)
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn what_the_end_has_closed_is_final_and_the_rest_goes_on(
        partitions in partitions(),
        ends in ends(),
        shape in prop_oneof![sliding(), sessions()],
        lateness in lateness(),
        bound in 0..100_i64,
        workers in (1..4_usize, 1..4_usize),
    ) {
        let first: Vec<Vec<Event>> =
            partitions.iter().zip(&ends).map(|(events, end)| events[..events.len() * end / 1000].to_vec()).collect();
        // What a run of the first part gives, and how far it comes: to the end of its last window.
        let of_first = model::expected(&model::stamped(&first, model::bounded(bound)), shape, lateness);
        let closed = of_first.rows.keys().map(|(_, _, end)| i128::from(*end)).max().unwrap_or(i128::MIN);
        let closed = match shape {
            Shape::Sliding { .. } => closed,
            Shape::Session { gap } => closed.saturating_add(gap.into()),
        };
        // The second run judges what it reads by that, or by the watermark of the partition, if it is higher.
        let mut stamped = model::stamped(&partitions, model::bounded(bound));
        let mut at = 0;
        for (all, first) in partitions.iter().zip(&first) {
            for stamp in &mut stamped[at + first.len()..at + all.len()] {
                stamp.0 = stamp.0.max(closed);
            }
            at += all.len();
        }
        let expected = model::expected(&stamped, shape, lateness);

        let directory = tempfile::tempdir().unwrap();
        let case = Case { partitions: partitions.clone(), bound, shape, lateness };
        let (outputs, triggered) = Default::default();
        for (partitions, workers) in [(first, workers.0), (partitions, workers.1)] {
            let flow = Flow::new("ends");
            let watermarks = Watermarks::bounded(millis(bound as u64));
            let events = flow.source(FromVec::partitions(partitions)).event_time(crate::case::time, watermarks);
            case.aggregate(events.clone(), &outputs);
            case.aggregate_with_trigger(events, &triggered);
            engine(workers, &directory).run(flow).unwrap();
        }
        case.judge(&outputs, &expected, "two runs");
        case.judge(&triggered, &expected, "two runs, with a trigger");
    }
}

#[test]
fn windows_by_count_and_global_ones_go_on_where_the_end_of_a_run_found_them() {
    let directory = tempfile::tempdir().unwrap();
    let (counts, totals) = (Collect::new(), Collect::new());
    for (until, workers) in [(2, 1), (5, 2), (5, 1), (7, 3)] {
        let flow = Flow::new("ends");
        let events = keyed(flow.source(FromVec::new(events_of(until))), 5).count_windows(3);
        events.sum(|event| event.value).map(|row| row.value).sink(counts.clone());
        let all = keyed(flow.source(FromVec::new(events_of(until))), 5).window(Windows::global());
        let sums = all.trigger(Trigger::on_watermark()).sum(|event| event.value);
        sums.map(|row| (row.pane.index, row.value)).sink(totals.clone());
        engine(workers, &directory).run(flow).unwrap();
    }
    assert_eq!(counts.rows(), [1 + 2 + 3, 4 + 5 + 6]);
    // A run that reads nothing says nothing.
    assert_eq!(totals.rows(), [(0, 3), (1, 15), (2, 28)]);
}

fn events_of(until: usize) -> Vec<Event> {
    (1..=until as i64).map(|n| event(0, n * 10, n)).collect()
}
