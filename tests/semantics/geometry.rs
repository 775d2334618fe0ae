//! Windows that are changed between two runs of one version of a flow.

use crate::support::{Event, event};
use crate::windows::keyed;
use rivermark::connectors::{Collect, FromVec};
use rivermark::{Engine, Flow, KeyedStream, Options, Restart, Windowed, WindowedStream, Windows, millis};
use tempfile::TempDir;

type Windowing = fn(KeyedStream<u8, Event>) -> WindowedStream<u8, Event>;

fn engine() -> (Engine, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(2).checkpoint_every(None).restart(Restart::Never);
    (Engine::open_with(directory.path(), options).unwrap(), directory)
}

fn flow(windowing: Windowing, rows: &Collect<Windowed<u8, u64>>) -> Flow {
    let flow = Flow::new("windows");
    let events = flow.source(FromVec::new(vec![event(0, 0, 1), event(0, 30, 1)]));
    windowing(keyed(events, 0)).count().sink(rows.clone());
    flow
}

const KINDS: [(Windowing, &str); 8] = [
    (|keyed| keyed.window(Windows::tumbling(millis(10))), "tumbling windows of 10 ms"),
    (|keyed| keyed.window(Windows::tumbling(millis(20))), "tumbling windows of 20 ms"),
    (
        |keyed| keyed.window(Windows::tumbling(millis(20)).starting_at(millis(5))),
        "tumbling windows of 20 ms starting at 5 ms",
    ),
    (
        |keyed| keyed.window(Windows::tumbling(millis(20))).allowed_lateness(millis(5)),
        "tumbling windows of 20 ms with an allowed lateness of 5 ms",
    ),
    (|keyed| keyed.window(Windows::sliding(millis(20), millis(10))), "sliding windows of 20 ms every 10 ms"),
    (|keyed| keyed.window(Windows::sliding(millis(20), millis(5))), "sliding windows of 20 ms every 5 ms"),
    (|keyed| keyed.window(Windows::session(millis(10))), "sessions with a gap of 10 ms"),
    (|keyed| keyed.window(Windows::session(millis(20))), "sessions with a gap of 20 ms"),
];

#[test]
fn state_of_other_windows_is_refused_with_both_named_and_what_to_do() {
    for (before, was) in KINDS {
        let (engine, _directory) = engine();
        let rows = Collect::new();
        engine.run(flow(before, &rows)).unwrap();
        for (after, is) in KINDS {
            let run = engine.run(flow(after, &rows));
            if was == is {
                run.unwrap();
                continue;
            }
            let error = run.unwrap_err().to_string();
            assert!(error.contains("`window-1`"), "{error}");
            assert!(error.contains(&format!("its state is of {was}, but")), "{was} to {is}: {error}");
            assert!(error.contains(&format!("the program has {is};")), "{was} to {is}: {error}");
            assert!(error.contains("raise the flow's version") && error.contains("another name"), "{error}");
        }
        engine.run(flow(KINDS[0].0, &Collect::new()).version(2)).unwrap();
    }
}
