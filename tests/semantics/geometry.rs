//! State of windows belongs to windows of one shape.

use crate::support::{backends, deadline};
use rivermark::connectors::{Collect, FromVec};
use rivermark::{Engine, Flow, Options, Restart, Timestamp, Watermarks, Windows, hours, millis, secs};

#[test]
fn a_flow_whose_windows_have_changed_is_refused_until_its_version_is_raised() {
    let shapes = [
        ("windows of 1000 ms every 1000 ms from 0 ms on", Windows::tumbling(secs(1))),
        ("windows of 2000 ms every 2000 ms from 0 ms on", Windows::tumbling(secs(2))),
        ("windows of 2000 ms every 1000 ms from 0 ms on", Windows::sliding(secs(2), secs(1))),
        (
            "windows of 1000 ms every 1000 ms from 500 ms on",
            Windows::tumbling(secs(1)).starting_at(millis(500)),
        ),
        ("windows of sessions with a gap of 1000 ms", Windows::session(secs(1))),
        ("windows of sessions with a gap of 500 ms", Windows::session(millis(500))),
    ];
    for backend in backends() {
        for (name, windows) in shapes {
            let directory = tempfile::tempdir().unwrap();
            let options = Options::new().workers(2).state_backend(backend);
            let restart = Restart::FixedDelay { delay: hours(1000), attempts: 1 };
            let engine = Engine::open_with(directory.path(), options.restart(restart)).unwrap();
            // A sink belongs to one version.
            let rows = [Collect::new(), Collect::new()];
            let run = |version: u64, windows| {
                let flow = Flow::new("changing").version(version);
                flow.source(FromVec::new(vec![1_i64, 2, 3]))
                    .event_time(|time| Timestamp::from_millis(*time), Watermarks::monotonous())
                    .key_by(|_| 0_u8)
                    .window(windows)
                    .count()
                    .named("counts")
                    .sink(rows[version as usize - 1].clone());
                // A failure that is tried again would be so in a thousand hours.
                let (job, is_late) = (engine.start(flow).unwrap(), deadline());
                let over = job.wait_until(|job| job.status().is_over() || is_late());
                assert!(over && !is_late(), "{:?}", job.status());
                job.wait()
            };
            run(1, windows).unwrap();
            run(1, windows).unwrap();
            for (other_name, other) in shapes.into_iter().filter(|(other, _)| *other != name) {
                let error = run(1, other).unwrap_err().to_string();
                let expected = format!("`counts` has {other_name}, and its checkpoint holds those of {name}");
                assert!(error.contains(&expected), "{error}");
            }
            run(1, windows).unwrap();
            run(2, shapes[1].1).unwrap();
        }
    }
}

#[test]
fn a_window_that_the_end_has_fired_fires_again_with_later_records_alone() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::open_with(directory.path(), Options::new().workers(2)).unwrap();
    let rows = Collect::new();
    let run = |times: &[i64]| {
        let flow = Flow::new("twice");
        flow.source(FromVec::new(times.to_vec()))
            .event_time(|time| Timestamp::from_millis(*time), Watermarks::bounded(millis(5)))
            .key_by(|_| 0_u8)
            .window(Windows::tumbling(millis(10)))
            .count()
            .map(|row| (row.window.start.millis(), row.value))
            .sink(rows.clone());
        engine.run(flow).unwrap().late_records
    };
    assert_eq!(run(&[1, 2, 12]), 0);
    assert_eq!(rows.rows(), [(0, 2), (10, 1)]);
    // 3 is on time for the first window by the watermark of its partition, 7; 19 ends that window, for which 4 is late.
    assert_eq!(run(&[1, 2, 12, 3, 19, 4]), 1);
    assert_eq!(rows.rows(), [(0, 2), (10, 1), (0, 1), (10, 1)]);
}
