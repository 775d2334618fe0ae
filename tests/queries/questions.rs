//! What can be asked, and what the answer says when it cannot be given.

use crate::support::*;
use rivermark::connectors::{Collect, LogSource};
use rivermark::log::{RecordBatch, TopicOptions};
use rivermark::{
    BoxError, Context, Engine, Epoch, Expiring, Flow, Job, List, Map, Options, ProcessFunction, StateBackend,
    Timestamp, Ttl, Value, Watermarks, Windows, secs,
};
use std::time::Duration;

const COUNT: Value<u64> = Value::new("count");
const TIMES: List<i64> = List::new("times");
const PER_PAGE: Map<String, u64> = Map::new("per-page");
const RECENT: Expiring<Value<String>> = Value::new("recent").expiring(Ttl::after_write(secs(10)));

/// User, page, second.
type Click = (String, String, i64);

#[derive(Clone)]
struct Clicks;

impl ProcessFunction<String, Click> for Clicks {
    type Out = ();

    fn on_record(
        &mut self,
        _: &String,
        (_, page, second): Click,
        cx: &mut Context<'_, String, ()>,
    ) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?.unwrap_or(0) + 1;
        cx.state(COUNT).set(count)?;
        cx.state(TIMES).push(second)?;
        let of_page = cx.state(PER_PAGE).get(&page)?.unwrap_or(0) + 1;
        cx.state(PER_PAGE).put(page.clone(), of_page)?;
        cx.state(RECENT).set(page)
    }
}

fn flow() -> Flow {
    let flow = Flow::new("clicks");
    let clicks = flow
        .source(LogSource::<Click>::topic("clicks"))
        .event_time(|click| Timestamp::from_secs(click.2), Watermarks::monotonous());
    clicks.clone().key_by(|click| click.0.clone()).process(Clicks).named("users").sink(Collect::new());
    let by_user = clicks.clone().key_by(|click| click.0.clone());
    by_user.window(Windows::tumbling(secs(10))).count().named("per-10s").sink(Collect::new());
    clicks.key_by(|click| click.1.clone()).process(Clicks).named("pages").sink(Collect::new());
    flow
}

fn append_clicks(engine: &Engine, clicks: &[(&str, &str, i64)]) {
    let mut batch = RecordBatch::new();
    for click in clicks {
        batch.push(None, Some(&serde_json::to_vec(click).unwrap()), 0);
    }
    engine.log().topic("clicks").unwrap().append(0, &mut batch).unwrap();
}

/// Runs the flow over some clicks, until an epoch has seen them all.
fn run(engine: &Engine, clicks: &[(&str, &str, i64)]) -> Job {
    engine.log().create_topic("clicks", TopicOptions::new(1)).unwrap();
    append_clicks(engine, clicks);
    let job = engine.start(flow()).unwrap();
    wait(&job, |job| job.metrics().records_read == clicks.len() as u64);
    let epoch = job.checkpoint().unwrap();
    job.queries().view_from(epoch, DEADLINE).unwrap();
    job
}

const CLICKS: &[(&str, &str, i64)] =
    &[("ann", "/", 1), ("bob", "/", 2), ("ann", "/a", 12), ("ann", "/", 13), ("andy", "/b", 25)];

fn engine_in(directory: &tempfile::TempDir) -> Engine {
    let options = Options::new().workers(2).checkpoint_every(None);
    Engine::open_with(directory.path(), options).unwrap()
}

#[test]
fn every_kind_of_state_is_answered_by_its_handle() {
    let directory = tempfile::tempdir().unwrap();
    let job = run(&engine_in(&directory), CLICKS);
    let view = job.view().unwrap();
    let ann = "ann".to_owned();

    let count = view.query(COUNT).of("users");
    assert_eq!(count.get(&ann).unwrap(), Some(3));
    assert_eq!(count.get(&"nobody".to_owned()).unwrap(), None);
    let mut all: Vec<(String, u64)> = count.entries().unwrap().map(Result::unwrap).collect();
    all.sort();
    let all: Vec<(&str, u64)> = all.iter().map(|(user, count)| (&**user, *count)).collect();
    assert_eq!(all, [("andy", 1), ("ann", 3), ("bob", 1)]);
    let some = count.prefix::<String>("an").unwrap();
    assert_eq!(some, [("andy".to_owned(), 1), ("ann".to_owned(), 3)]);
    let some = count.range("ann".to_owned()..).unwrap();
    assert_eq!(some, [("ann".to_owned(), 3), ("bob".to_owned(), 1)]);

    assert_eq!(view.query(TIMES).of("users").get(&ann).unwrap(), Some(vec![1, 12, 13]));
    let per_page = view.query(PER_PAGE).of("users");
    assert_eq!(per_page.get(&(ann.clone(), "/".to_owned())).unwrap(), Some(2));
    assert_eq!(per_page.entries_of(&ann).unwrap(), [("/".to_owned(), 2), ("/a".to_owned(), 1)]);
    assert_eq!(job.query(COUNT).of("pages").get(&"/".to_owned()).unwrap(), Some(3));
}

#[test]
fn a_reader_that_rests_while_nobody_asks_answers_of_the_newest_epoch_again() {
    let directory = tempfile::tempdir().unwrap();
    // It rests whenever two checkpoints pass without a question.
    let options = Options::new().workers(2).checkpoint_every(None).queries_rest_after(Duration::ZERO);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let job = run(&engine, CLICKS);
    let held = job.view().unwrap();
    let mut last = held.epoch();
    for click in 0..20 {
        append_clicks(&engine, &[("ann", "/", 30 + click)]);
        let expected = 4 + click as u64;
        wait(&job, |job| job.metrics().records_read == CLICKS.len() as u64 + 1 + click as u64);
        for _ in 0..click % 4 {
            job.checkpoint().unwrap();
        }
        let epoch = job.checkpoint().unwrap();
        let view = job.queries().view_from(epoch, DEADLINE).unwrap();
        assert!(view.epoch() >= epoch && epoch > last);
        last = epoch;
        assert_eq!(view.query(COUNT).of("users").get(&"ann".to_owned()).unwrap(), Some(expected));
        assert_eq!(job.query(COUNT).of("users").get(&"ann".to_owned()).unwrap(), Some(expected));
    }
    assert_eq!(held.query(COUNT).of("users").get(&"ann".to_owned()).unwrap(), Some(3));
}

#[test]
fn what_has_expired_by_the_watermark_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let job = run(&engine_in(&directory), CLICKS);
    let view = job.view().unwrap();
    let recent = view.query(RECENT).of("users");
    // The last click was at 25.
    assert_eq!(view.watermark_of("users").unwrap().millis(), 25_000);
    assert_eq!(recent.get(&"bob".to_owned()).unwrap(), None);
    assert_eq!(recent.get(&"andy".to_owned()).unwrap(), Some("/b".to_owned()));
    assert_eq!(recent.entries::<String>().unwrap().count(), 1);
    let at = |time| view.query(RECENT).of("users").at(Timestamp::from_millis(time));
    let andy = "andy".to_owned();
    assert_eq!(at(34_999).get(&andy).unwrap(), Some("/b".to_owned()));
    assert_eq!(at(35_000).get(&andy).unwrap(), None);
    // Before the watermark some of what has expired is gone, so that none of it is seen.
    assert_eq!(at(12_000).get(&"ann".to_owned()).unwrap(), None);
}

#[test]
fn open_windows_of_a_key_are_answered_between_two_times() {
    let directory = tempfile::tempdir().unwrap();
    let clicks = &[("ann", "/", 1), ("ann", "/", 2), ("bob", "/", 3)];
    let job = run(&engine_in(&directory), clicks);
    let windows = job.windows("per-10s");
    let (first, second) = (Timestamp::from_secs(0), Timestamp::from_secs(10));
    assert_eq!(windows.get::<_, u64>(&"ann".to_owned(), first, second).unwrap(), [(first, 2)]);
    assert_eq!(windows.get::<_, u64>(&"ann".to_owned(), second, Timestamp::MAX).unwrap(), []);
    let mut all: Vec<_> = windows.entries::<String, u64>().unwrap().map(Result::unwrap).collect();
    all.sort();
    assert_eq!(all, [(first, "ann".to_owned(), 2), (first, "bob".to_owned(), 1)]);
    let error = windows.get::<u32, u64>(&1, first, second).unwrap_err().to_string();
    assert!(error.contains("String") && error.contains("u32") && error.contains("per-10s"), "{error}");
}

#[test]
fn an_answer_says_which_epoch_and_which_offsets_it_reflects() {
    let directory = tempfile::tempdir().unwrap();
    let engine = engine_in(&directory);
    let job = run(&engine, CLICKS);
    let query = job.query(COUNT).of("users");
    let view = query.view().unwrap();
    let (epoch, offsets) = (view.epoch(), view.offsets());
    assert_eq!(offsets.len(), 1);
    assert_eq!((offsets[0].offset, offsets[0].partition.contains("clicks")), (Some(5), true), "{offsets:?}");
    assert_eq!(view.watermark().unwrap().millis(), 25_000);

    // What comes later is in the next epoch and not in this one.
    let mut batch = RecordBatch::new();
    batch.push(None, Some(&serde_json::to_vec(&("ann", "/", 26)).unwrap()), 0);
    engine.log().topic("clicks").unwrap().append(0, &mut batch).unwrap();
    wait(&job, |job| job.metrics().records_read == 6);
    let next = job.checkpoint().unwrap();
    let view = job.queries().view_from(next, DEADLINE).unwrap();
    assert!(view.epoch() >= next && next > epoch);
    assert_eq!(view.offsets()[0].offset, Some(6));
    let ann = "ann".to_owned();
    assert_eq!(view.query(COUNT).of("users").get(&ann).unwrap(), Some(4));
    assert_eq!(query.get(&ann).unwrap(), Some(3));
}

#[test]
fn a_question_that_fits_nothing_is_told_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let job = run(&engine_in(&directory), CLICKS);
    let ann = "ann".to_owned();
    let says = |error: rivermark::Error, words: &[&str]| {
        let error = error.to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "`{word}` is not in: {error}"));
    };
    const NONE: Value<u64> = Value::new("cuont");
    says(job.query(NONE).get(&ann).unwrap_err(), &["cuont", "count", "per-page", "users", "String", "epoch"]);
    says(job.query(COUNT).get(&ann).unwrap_err(), &["`users`", "`pages`", ".of("]);
    says(job.query(COUNT).of("user").get(&ann).unwrap_err(), &["user", "`users`", "`per-10s`"]);
    const OF_STRING: Value<String> = Value::new("count");
    says(job.query(OF_STRING).of("users").get(&ann).unwrap_err(), &["count", "u64", "String"]);
    says(job.query(COUNT).of("users").get(&7u32).unwrap_err(), &["count", "u32", "String -> u64"]);
    const LIST: List<u64> = List::new("count");
    says(job.query(LIST).of("users").get(&ann).unwrap_err(), &["List", "Value"]);
    const LATER: Value<u64> = Value::new("count").version(2);
    says(job.query(LATER).of("users").get(&ann).unwrap_err(), &["version"]);
    says(job.queries().view_from(Epoch(1000), Duration::ZERO).unwrap_err(), &["1000", "clicks"]);
}

#[test]
fn a_job_without_an_epoch_says_so_and_one_that_is_over_answers_still() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(1).checkpoint_every(None).state_backend(StateBackend::Memory);
    let engine = Engine::open_with(directory.path(), options).unwrap();
    append(engine.log(), 0, 100);
    let job = engine.start(bank(&Book::default())).unwrap();
    let error = job.query(TAKEN).get(&1u64).unwrap_err().to_string();
    assert!(error.contains("bank") && error.contains("no epoch"), "{error}");
    wait(&job, |job| job.metrics().records_read == 100);
    let queries = job.queries();
    job.stop();
    job.wait().unwrap();
    let view = queries.view_from(Epoch(1), DEADLINE).unwrap();
    assert_eq!(read(&view), 100);
    drop(engine);
    let taken = view.query(TAKEN);
    assert_eq!(taken.entries::<u64>().unwrap().map(|entry| entry.unwrap().1).sum::<u64>(), 100);
}
