//! Questions that follow the live version, while versions change.

use crate::support::*;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{
    BoxError, CaughtUp, Context, Engine, Flow, ProcessFunction, Queries, Replay, State, Value, View, millis,
};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// How far each partition had been read.
fn offsets(view: &View) -> Vec<u64> {
    view.offsets().iter().map(|partition| partition.offset.unwrap_or(0)).collect()
}

/// The totals that a version has when so many numbers of each partition are read, of `count` that there are at the most.
fn totals(version: u64, offsets: &[u64], count: u64) -> BTreeMap<u64, u64> {
    let (mut totals, mut read) = (BTreeMap::new(), vec![0; offsets.len()]);
    for number in numbers(0, count) {
        let partition = partition(number) as usize;
        if read[partition] < offsets[partition] {
            *totals.entry(number.1).or_insert(0) += weight(version, number);
        }
        read[partition] += 1;
    }
    totals
}

/// Which version is live, as its operator knows it: an odd number of steps while it changes.
#[derive(Default)]
struct Known {
    steps: AtomicU64,
    live: AtomicU64,
}

impl Known {
    fn change(&self, act: impl FnOnce() -> u64) {
        self.steps.fetch_add(1, Ordering::SeqCst);
        self.live.store(act(), Ordering::SeqCst);
        self.steps.fetch_add(1, Ordering::SeqCst);
    }

    /// What `ask` answers, and the version that is live, if it was so all the time.
    fn while_asking<R>(&self, ask: impl FnOnce() -> R) -> (R, Option<u64>) {
        let (steps, live) = (self.steps.load(Ordering::SeqCst), self.live.load(Ordering::SeqCst));
        let answer = ask();
        let is_still = steps % 2 == 0 && self.steps.load(Ordering::SeqCst) == steps;
        (answer, is_still.then_some(live))
    }
}

/// Asks until it is over; answers which versions answered, in order.
fn ask(queries: &Queries, known: &Known, appended: &AtomicU64, is_over: &AtomicBool) -> Vec<u64> {
    let (mut versions, mut before): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    let mut checked = BTreeMap::new();
    while !is_over.load(Ordering::SeqCst) {
        let (view, live) = known.while_asking(|| queries.view().unwrap());
        let (version, read) = (view.version(), offsets(&view));
        assert!(live.is_none_or(|live| live == version), "version {version} answers while {live:?} is live");
        let is_less = before.iter().zip(&read).any(|(before, now)| now < before);
        assert!(!is_less, "{view} reflects {read:?}, and an answer before it {before:?}");
        before.clone_from(&read);
        if versions.last() != Some(&version) {
            versions.push(version);
        }
        // What is in it is looked at now and then, and behind every switch.
        let looked = checked.entry((versions.len(), version)).or_insert_with(Vec::new);
        if looked.len() < 3 || view.epoch().0 % 16 == 0 {
            looked.push(view.epoch());
            let query = view.query(TOTAL);
            let found: BTreeMap<u64, u64> = query.entries().unwrap().map(Result::unwrap).collect();
            assert_eq!(found, totals(version, &read, appended.load(Ordering::SeqCst)), "{view} at {read:?}");
        }
        let (latest, live) = known.while_asking(|| {
            let latest = queries.latest(TOTAL);
            let asked = latest.version();
            latest.get(&0_u64).map(|total| (asked, total))
        });
        // A worker that was asked may be stopped before it answers: its version was rolled back.
        if let Some(live) = live {
            let (asked, total) = latest.unwrap();
            assert!(asked == Some(live) && total > Some(0), "{asked:?} {total:?}");
        }
    }
    versions
}

#[test]
fn questions_are_answered_by_the_live_version_and_none_reflects_less_than_one_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let queries = engine.queries("sums");
    let error = queries.view().unwrap_err().to_string();
    assert!(error.contains("`sums`") && error.contains("has not been started"), "{error}");
    append(engine.log(), numbers(0, 100));
    let (appended, is_over, known) = (AtomicU64::new(100), AtomicBool::new(false), Known::default());
    let mut live = engine.deploy(flow(1), replay()).unwrap();
    known.change(|| 1);
    wait_for_rows(&engine, 100);
    let asked = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let _end = AtEnd(&is_over);
        scope.spawn(|| append_until(&is_over, &appended, engine.log(), millis(2)));
        for _ in 0..2 {
            let (queries, known, appended, is_over) = (queries.clone(), &known, &appended, &is_over);
            let asked = &asked;
            scope.spawn(move || {
                let versions = ask(&queries, known, appended, is_over);
                asked.lock().unwrap().push(versions);
            });
        }
        for version in 2..6 {
            let next = engine.deploy(flow(version), replay()).unwrap();
            loop {
                wait_for(&next, State::CaughtUp);
                let mut promoted = Ok(());
                known.change(|| match next.promote() {
                    Ok(_) => version,
                    Err(error) => {
                        promoted = Err(error);
                        live.version()
                    }
                });
                match promoted {
                    Ok(()) => break,
                    Err(error) => assert_eq!(next.state(), State::Replaying, "{error}"),
                }
            }
            if version == 3 {
                known.change(|| {
                    next.roll_back("to be seen").unwrap();
                    live.version()
                });
                assert!(next.queries().unwrap_err().to_string().contains("version 3 does not run"));
            } else {
                // The one before is behind it, and can be asked by itself.
                assert_eq!(live.view().unwrap().version(), live.version());
                assert!(live.query(TOTAL).get(&0_u64).unwrap() > Some(0));
                assert!(live.latest(TOTAL).unwrap().get(&0_u64).unwrap() > Some(0));
                live = next;
            }
            // Not before everybody has seen it.
            let until = Instant::now() + DEADLINE;
            let begun = engine.queries("sums").view().unwrap().epoch();
            while queries.view().unwrap().epoch() <= begun {
                assert!(Instant::now() < until);
                std::thread::yield_now();
            }
        }
    });
    assert_eq!(queries.version(), Some(5));
    for versions in asked.into_inner().unwrap() {
        assert_eq!(versions, [1, 2, 3, 2, 4, 5]);
    }
}

#[derive(Clone)]
struct Keep;

impl ProcessFunction<u64, u64> for Keep {
    type Out = u64;

    fn on_record(&mut self, _: &u64, number: u64, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
        cx.state(TOTAL).set(number)?;
        Ok(())
    }
}

#[test]
fn a_version_is_not_asked_before_its_state_at_the_cut_can_be_read() {
    const AT_ONCE: u64 = 100_000;
    let directory = tempfile::tempdir().unwrap();
    // Rare checkpoints, so that much is between two of them, and takes its time to be read.
    let engine = Engine::open_with(directory.path(), options().checkpoint_every(millis(300))).unwrap();
    let append_some = |from: u64| append(engine.log(), (from..from + AT_ONCE).map(|n| (n, n, 0)));
    let keep = |version| {
        let flow = Flow::new("kept").version(version);
        let numbers = flow.source(LogSource::<Number>::topic("numbers"));
        numbers.map(|n| n.0).key_by(|n| *n).process(Keep).sink(LogSink::output("kept"));
        flow
    };
    append_some(0);
    let caught_up = CaughtUp::new().within_records(1_000_000).for_at_least(millis(0));
    let deploy =
        |version| engine.deploy(keep(version), Replay::from_earliest().caught_up(caught_up)).unwrap();
    let _first = deploy(1);
    let (queries, is_over) = (engine.queries("kept"), AtomicBool::new(false));
    let until = Instant::now() + DEADLINE;
    while queries.view().is_err() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        let _end = AtEnd(&is_over);
        let asking = scope.spawn(|| {
            let mut before = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let view = queries.view().unwrap();
                let read = offsets(&view);
                let is_less = before.iter().zip(&read).any(|(before, now)| now < before);
                assert!(!is_less, "{view} reflects {read:?}, and an answer before it {before:?}");
                before = read;
            }
        });
        for version in 2..5 {
            let next = deploy(version);
            wait_for(&next, State::CaughtUp);
            append_some((version - 1) * AT_ONCE);
            promote(&next);
            assert_eq!(queries.view().unwrap().version(), version);
        }
        is_over.store(true, Ordering::SeqCst);
        asking.join().unwrap();
    });
}

#[test]
fn questions_go_on_when_the_versions_are_deployed_again() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    append(engine.log(), numbers(0, 1000));
    let queries = engine.queries("sums");
    let deploy = |engine: &Engine| {
        let first = engine.deploy(flow(1), replay()).unwrap();
        wait_for_rows(engine, 1000);
        first
    };
    let first = deploy(&engine);
    let seen = queries.view().unwrap();
    drop(first);
    // Nothing runs, and what is asked for is what was stored.
    let stopped = queries.view().unwrap();
    assert!(queries.status().is_over() && stopped.epoch() >= seen.epoch());
    assert_eq!(stopped.query(TOTAL).get(&0_u64).unwrap(), totals(1, &[1000; 3], 1000).get(&0).copied());
    let _first = deploy(&engine);
    append(engine.log(), numbers(1000, 1100));
    let until = Instant::now() + DEADLINE;
    while queries.query(TOTAL).get(&0_u64).unwrap() != totals(1, &[1100; 3], 1100).get(&0).copied() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    assert!(queries.view().unwrap().epoch() > stopped.epoch());
    let error = queries.query(Value::<u64>::new("nothing")).get(&0_u64).unwrap_err().to_string();
    assert!(error.contains("version 1 of flow `sums`"), "{error}");
}
