//! Event times over the whole range of `i64`.

use crate::case::{Case, time};
use crate::model::Shape;
use crate::support::{Event, event, labs};
use crate::windows::config;
use proptest::prelude::*;
use rivermark::{Stream, Timestamp, Watermarks, Window, Windows, hours, millis};

/// The least and the greatest times there are, and those around zero.
const TIMES: [i64; 9] = [i64::MIN, i64::MIN + 1, -3_600_001, -1, 0, 1, 3_600_000, i64::MAX - 1, i64::MAX];

#[test]
fn every_time_is_in_its_hour_also_before_the_epoch_and_at_the_ends() {
    let events: Vec<Event> = TIMES.into_iter().map(|time| event(0, time, 1)).collect();
    let at = Timestamp::from_millis;
    // The first hour that there is begins before time does, and the last one ends after it.
    let (first_end, last_start) = (
        i64::MIN + i64::MIN.rem_euclid(3_600_000).abs_diff(3_600_000) as i64,
        i64::MAX - i64::MAX % 3_600_000,
    );
    let expected = [
        (Timestamp::MIN, at(first_end), 2),
        (at(-7_200_000), at(-3_600_000), 1),
        (at(-3_600_000), at(0), 1),
        (at(0), at(3_600_000), 2),
        (at(3_600_000), at(7_200_000), 1),
        (at(last_start), Timestamp::MAX, 2),
    ]
    .map(|(start, end, count)| (Window { start, end }, count));
    for lab in labs() {
        // The records rise, so nothing is late, whatever the bound.
        for bound in [0, 1, u64::MAX / 2_000_000, u64::MAX] {
            let describe = |events: Stream<Event>| {
                let keyed = events.event_time(time, Watermarks::bounded(millis(bound))).key_by(|e| e.key);
                keyed.window(Windows::tumbling(hours(1))).count()
            };
            let (rows, metrics) = lab.run(std::slice::from_ref(&events), describe);
            let mut found: Vec<(Window, u64)> = rows.iter().map(|row| (row.window, row.value)).collect();
            found.sort();
            assert_eq!(found, expected, "{}, bound {bound}", lab.name);
            assert_eq!(metrics.late_records, 0, "{}", lab.name);
        }
    }
}

/// Times close to the ends, and to zero, in any order.
fn partitions() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let time = prop_oneof![
        (0..250_i64).prop_map(|n| i64::MIN + n),
        -120..120_i64,
        (0..250_i64).prop_map(|n| i64::MAX - n),
        any::<i64>(),
    ];
    // Half of the partitions rise, so that not nearly all is late.
    let partition = (prop::collection::vec((0..2_u8, time), 0..30), any::<bool>());
    let partition = partition.prop_map(|(mut events, rises)| {
        if rises {
            events.sort_by_key(|event| event.1);
        }
        let numbered = events.into_iter().zip(0..);
        numbered.map(|((key, time), value)| event(key, time, value)).collect::<Vec<_>>()
    });
    prop::collection::vec(partition, 1..4)
}

/// Windows short and as long as time itself.
fn shapes() -> impl Strategy<Value = Shape> {
    const HALF: i64 = i64::MAX / 2;
    let shape = |(size, slide, offset)| Shape::Sliding { size, slide, offset };
    let shapes = [
        (100, 100, 0),
        (100, 30, 7),
        (1, 1, 0),
        (HALF, HALF, 0),
        (i64::MAX, i64::MAX, 5),
        (i64::MAX, HALF, 0),
    ];
    let sliding = prop::sample::select(shapes.map(shape).to_vec());
    let gap = prop_oneof![1..100_i64, Just(i64::MAX)];
    prop_oneof![2 => sliding, 1 => gap.prop_map(|gap| Shape::Session { gap })]
}

#[test]
fn windows_at_the_ends_of_time_hold_what_the_definition_says() {
    let labs = labs();
    let bound = prop_oneof![Just(0_i64), 1..300_i64, Just(i64::MAX)];
    let lateness = prop_oneof![Just(0_i64), Just(50), Just(i64::MAX)];
    proptest!(config(100), |(partitions in partitions(), bound in bound, shape in shapes(), lateness in lateness)| {
        let case = Case { partitions, bound, shape, lateness };
        let expected = case.expected();
        labs.iter().for_each(|lab| case.check(lab, &expected));
    });
}
