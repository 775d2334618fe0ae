//! Records behind the watermark: allowed, dropped, corrected and counted.

use crate::case::{Case, time};
use crate::model::Shape;
use crate::support::{Event, event, labs};
use crate::windows::{config, partitions, sliding};
use proptest::prelude::*;
use rivermark::connectors::{Collect, FromVec};
use rivermark::{Stream, Watermarks, Windowed, Windows, millis};

const TENS: Shape = Shape::Sliding { size: 10, slide: 10, offset: 0 };

fn rows(rows: &[Windowed<u8, u64>]) -> Vec<(i64, u64)> {
    rows.iter().map(|row| (row.window.start.millis(), row.value)).collect()
}

#[test]
fn each_allowed_late_record_corrects_its_window_until_the_lateness_is_over() {
    // A watermark that is at the record's time; the first window is over at 10 and gone at 25.
    let events = [1, 2, 10, 3, 24, 4, 25, 5, 30].map(|time| event(0, time, 1)).to_vec();
    for lab in labs() {
        let late = Collect::new();
        let late_rows = late.clone();
        let describe = |events: Stream<Event>| {
            events
                .event_time(time, Watermarks::monotonous())
                .key_by(|event| event.key)
                .window(Windows::tumbling(millis(10)))
                .allowed_lateness(millis(15))
                .late_output(|late| late.sink(late_rows))
                .count()
        };
        let (found, metrics) = lab.run(std::slice::from_ref(&events), describe);
        let of_first: Vec<u64> = rows(&found).into_iter().filter(|row| row.0 == 0).map(|row| row.1).collect();
        // The first row holds what was on time. How many corrections there are depends on when it fires, but not what they end with.
        assert_eq!((of_first[0], of_first[of_first.len() - 1]), (2, 4), "{}: {of_first:?}", lab.name);
        assert!(of_first.is_sorted(), "{}: {of_first:?}", lab.name);
        let late = late.rows();
        assert_eq!(late.len(), 1, "{}: {late:?}", lab.name);
        assert_eq!((late[0].value.time, late[0].windows_missed), (5, 1), "{}", lab.name);
        assert_eq!(metrics.late_records, 1, "{}", lab.name);
    }
}

#[test]
fn a_record_that_misses_some_of_its_windows_counts_in_the_others() {
    // Windows of 20 every 10: the record at 5 has missed [-10, 10) but not [0, 20).
    let case = Case {
        partitions: vec![[12, 5, 40].map(|time| event(0, time, time)).to_vec()],
        bound: 0,
        shape: Shape::Sliding { size: 20, slide: 10, offset: 0 },
        lateness: 0,
    };
    let expected = case.expected();
    assert_eq!(expected.late, [(event(0, 5, 5), 1)], "what the model says");
    assert_eq!(expected.rows[&(0, 0, 20)].all, [5, 12], "what the model says");
    labs().iter().for_each(|lab| case.check(lab, &expected));
}

#[test]
fn a_late_record_that_joins_two_sessions_gives_the_row_of_both() {
    // With a gap of 10, sessions at 0 and at 18 are apart until 9 comes, when both have been final for long.
    let case = Case {
        partitions: vec![[0, 18, 60, 9, 200].map(|time| event(0, time, time)).to_vec()],
        bound: 0,
        shape: Shape::Session { gap: 10 },
        lateness: 1000,
    };
    let expected = case.expected();
    assert_eq!(expected.rows[&(0, 0, 28)].all, [0, 9, 18], "what the model says");
    labs().iter().for_each(|lab| case.check(lab, &expected));
}

#[test]
fn without_lateness_what_is_in_windows_and_what_is_late_are_all_records() {
    let labs = labs();
    proptest!(config(20), |(partitions in partitions(), bound in 0..100_i64)| {
        let all: usize = partitions.iter().map(Vec::len).sum();
        for lab in &labs {
            let (flow, counts, late) = (lab.flow(), Collect::new(), Collect::new());
            let late_rows = late.clone();
            flow.source(FromVec::partitions(partitions.clone()))
                .event_time(time, Watermarks::bounded(millis(bound as u64)))
                .key_by(|event| event.key)
                .window(TENS.windows())
                .late_output(|late| late.sink(late_rows))
                .count()
                .sink(counts.clone());
            lab.engine().run(flow).unwrap();
            let on_time: u64 = counts.rows().iter().map(|row| row.value).sum();
            prop_assert_eq!(on_time as usize + late.rows().len(), all, "{}", lab.name);
        }
    });
}

#[test]
fn endless_lateness_drops_nothing() {
    let labs = labs();
    proptest!(config(20), |(partitions in partitions(), shape in sliding())| {
        let case = Case { partitions, bound: 0, shape, lateness: i64::MAX };
        let expected = case.expected();
        prop_assert!(expected.late.is_empty());
        labs.iter().for_each(|lab| case.check(lab, &expected));
    });
}
