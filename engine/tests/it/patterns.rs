//! Patterns of a flow that goes on: what is kept of one is of use to that one only.

use crate::support::{Rows, Values};
use rivermark_engine::{Engine, Options, Restart, StateBackend};
use rivermark_operators::pattern::Pattern;
use rivermark_operators::{Flow, Result, Timestamp, Watermarks, millis};
use std::sync::Arc;
use std::time::Duration;

type Event = (u8, i64);

fn small() -> Pattern<Event> {
    Pattern::begin("small").where_(|event: &Event| event.1 % 10 == 1).within(millis(1000))
}

fn with_large() -> Pattern<Event> {
    small().followed_by("large").where_(|event: &Event| event.1 % 10 == 9)
}

#[test]
fn a_changed_pattern_is_refused_before_a_record_is_read_and_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    // A refusal is final, however often the job may restart.
    let restart = Restart::FixedDelay { delay: Duration::from_secs(3600), attempts: 1000 };
    let options = Options::new().workers(2).state_backend(StateBackend::Memory).restart(restart);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let rows = Rows::default();
    let run = |version: u64, until: usize, pattern: Pattern<Event>| -> Result<()> {
        let events = [(0, 1), (0, 11), (0, 19), (0, 21), (0, 31), (0, 39)];
        let partitions = Arc::new(vec![events[..until].to_vec()]);
        let flow = Flow::new("orders").version(version);
        flow.source(Values { partitions, live: false, per_poll: 2 })
            .event_time(|event| Timestamp::from_millis(event.1), Watermarks::monotonous())
            .key_by(|event| event.0)
            .pattern(pattern)
            .select(move |_, found| (version, found.all().len()))
            .named("small-then-large")
            .sink(rows.clone());
        engine.run(flow).map(drop)
    };
    run(1, 3, with_large()).unwrap();
    assert_eq!(rows.sorted(), [(1, 2), (1, 2)]);
    let changes = [
        ("renamed", small().followed_by("big").where_(|event: &Event| event.1 % 10 == 9)),
        ("more", with_large().followed_by("small again").where_(|event: &Event| event.1 % 10 == 1)),
        ("less", small()),
        ("otherwise contiguous", small().next("large").where_(|event: &Event| event.1 % 10 == 9)),
        ("longer", with_large().within(millis(2000))),
    ];
    for (what, changed) in changes {
        let error = run(1, 6, changed.clone()).unwrap_err().to_string();
        for says in ["small-then-large", "small", "raise the flow's version", "another name"] {
            assert!(error.contains(says), "{what}: no `{says}` in {error}");
        }
        assert_eq!(rows.len(), 2, "{what}: something was read");
    }
    // The same goes on, and another version begins anew with any.
    run(1, 6, with_large()).unwrap();
    assert_eq!(rows.len(), 4);
    run(2, 6, small()).unwrap();
    assert_eq!(rows.sorted().iter().filter(|row| **row == (2, 1)).count(), 4);
}
