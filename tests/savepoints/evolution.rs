//! Programs that change between two runs: operators around state, and the types of state.

use crate::support::{KEYS, Number, append, backends, numbers, open, rows, wait_for};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{
    BoxError, Context, Engine, Flow, Map, Migrations, ProcessFunction, Savepoint, StartFrom, StateBackend,
    StateKind, States, Stream, Value, Verdict,
};
use serde::{Deserialize, Serialize};

const HALF: u64 = 2_000;
const ALL: u64 = 4_000;

/// The first version counts; the second knows the last time as well.
const TOTAL: Value<u32> = Value::new("total");
const TALLY: Value<Tally> = Value::new("total").version(2);
/// Only the first version has it.
const BY_DIGIT: Map<u8, u64> = Map::new("by-digit");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tally {
    count: u64,
    last: Option<i64>,
}

/// Key, how many numbers it has had, and whether the time of the one before is known.
type Row = (u64, u64, bool);

#[derive(Clone)]
struct Before;

impl ProcessFunction<u64, Number> for Before {
    type Out = Row;

    fn states(&self, states: &mut States<'_, u64>) {
        states.has(TOTAL);
        states.has(BY_DIGIT);
    }

    fn on_record(
        &mut self,
        key: &u64,
        (_, time): Number,
        cx: &mut Context<'_, u64, Row>,
    ) -> Result<(), BoxError> {
        cx.state(BY_DIGIT).put((time / 1000 % 10) as u8, 1)?;
        let total = cx.state(TOTAL).get()?.unwrap_or(0) + 1;
        cx.state(TOTAL).set(total)?;
        cx.emit((*key, u64::from(total), false));
        Ok(())
    }
}

/// With a migration from the first version, or without.
#[derive(Clone)]
struct After {
    migrates: bool,
}

impl ProcessFunction<u64, Number> for After {
    type Out = Row;

    fn states(&self, states: &mut States<'_, u64>) {
        let mut migrations = Migrations::new();
        if self.migrates {
            migrations = migrations.from(1, |count: u32| Tally { count: count.into(), last: None });
        }
        states.has_migrated(TALLY, migrations);
    }

    fn on_record(
        &mut self,
        key: &u64,
        (_, time): Number,
        cx: &mut Context<'_, u64, Row>,
    ) -> Result<(), BoxError> {
        let empty = || Tally { count: 0, last: None };
        let (count, last) = cx.state(TALLY).update(empty, |tally| {
            tally.count += 1;
            (tally.count, tally.last.replace(time))
        })?;
        cx.emit((*key, count, last.is_some()));
        Ok(())
    }
}

fn source(flow: &Flow, live: bool) -> Stream<Number> {
    let source = LogSource::<Number>::topic("numbers");
    flow.source(if live { source } else { source.until_end() })
}

fn before(live: bool) -> Flow {
    let flow = Flow::new("evolving");
    source(&flow, live).key_by(|number| number.0).process(Before).named("count").sink(LogSink::topic("rows"));
    flow
}

fn after(migrates: bool, change: impl FnOnce(&Flow)) -> Flow {
    let flow = Flow::new("evolving");
    let counted = source(&flow, false).key_by(|number| number.0).process(After { migrates }).named("count");
    counted.sink(LogSink::topic("rows"));
    change(&flow);
    flow
}

/// An engine on which the first version has counted half of the numbers; the other half waits.
fn half_way(directory: &std::path::Path, backend: StateBackend) -> (Engine, Savepoint) {
    let engine = open(directory, 2, backend);
    append(engine.log(), numbers(0, HALF));
    let job = engine.start(before(true)).unwrap();
    wait_for(&job, HALF);
    let savepoint = job.stop_with_savepoint("half").unwrap();
    append(engine.log(), numbers(HALF, ALL));
    (engine, savepoint)
}

/// The counts of each key go on by one, and of the second half of its numbers but the first the time of the one before is known.
fn check(engine: &Engine) {
    let each = ALL / KEYS;
    let expected = (0..KEYS).flat_map(|key| (1..=each).map(move |count| (key, count, count > each / 2 + 1)));
    assert_eq!(rows::<Row>(engine.log(), "rows"), expected.collect::<Vec<_>>());
}

/// The states of a savepoint that functions name.
fn states(savepoint: &Savepoint) -> Vec<String> {
    let states = savepoint.states("count").unwrap().into_iter();
    let states = states.filter(|state| !matches!(state.kind, StateKind::Timers | StateKind::Window));
    let mut states: Vec<String> = states
        .map(|state| format!("{} {} {}: {}", state.kind, state.name, state.version, state.schema))
        .collect();
    states.sort();
    states
}

fn says(error: impl ToString, parts: &[&str]) {
    let error = error.to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not in: {error}"));
}

/// What a check of the savepoint refuses, all of it; nothing if the flow could start.
fn check_refuses(savepoint: &Savepoint, flow: Flow) -> String {
    let check = match savepoint.check(flow) {
        Ok(check) => check,
        Err(error) => return error.to_string(),
    };
    let refused = check.states.iter().filter_map(|state| match &state.verdict {
        Verdict::Refused { reason } => Some(reason.as_str()),
        _ => None,
    });
    let refused: Vec<&str> = refused.chain(check.problems.iter().map(String::as_str)).collect();
    assert_eq!(check.can_start, refused.is_empty(), "{check}");
    refused.join("; ")
}

/// What a flow that must not run says, having written nothing.
fn refused(engine: &Engine, flow: Flow) -> String {
    let written = rows::<Row>(engine.log(), "rows").len();
    let error = match engine.start(flow) {
        Err(error) => error.to_string(),
        Ok(job) => {
            job.wait_until(|_| false);
            assert_eq!(job.metrics().records_read, 0);
            job.wait().unwrap_err().to_string()
        }
    };
    assert_eq!(rows::<Row>(engine.log(), "rows").len(), written);
    error
}

#[test]
fn state_of_an_older_version_goes_on_from_checkpoints_and_savepoints_with_any_number_of_workers() {
    for backend in backends() {
        for workers in [1, 2, 3] {
            for from_savepoint in [false, true] {
                let directory = tempfile::tempdir().unwrap();
                let (engine, savepoint) = half_way(directory.path(), backend);
                assert_eq!(
                    states(&savepoint),
                    ["Map by-digit 1: u64 -> u8 -> u64", "Value total 1: u64 -> u32"]
                );
                drop(engine);
                let engine = open(directory.path(), workers, backend);
                let from = if from_savepoint { savepoint.into() } else { StartFrom::default() };
                let flow = || after(true, |flow| flow.drop_state("count", "by-digit"));
                let job = engine.start_from(flow(), from).unwrap();
                assert_eq!(job.wait().unwrap().records_read, ALL - HALF);
                check(&engine);
                // A second start finds the present version, and nothing to drop.
                assert_eq!(engine.run(flow()).unwrap().records_read, 0);
            }
        }
    }
}

#[test]
fn what_a_new_program_does_not_account_for_is_an_error_before_any_record() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, savepoint) = half_way(directory.path(), StateBackend::Memory);
    let dropped = |flow: &Flow| flow.drop_state("count", "by-digit");
    a_check_says_the_same(&savepoint);
    says(
        refused(&engine, after(false, dropped)),
        &[
            "`evolving`",
            "`count`",
            "state total",
            "stored as version 1",
            "has version 2",
            "no migration from version 1",
        ],
    );
    says(
        refused(&engine, after(true, |_| {})),
        &["`evolving`", "`count`", "Map by-digit", "does not declare", "flow.drop_state(\"count\""],
    );
    let nobody = |flow: &Flow| flow.drop_state("nobody", "total");
    says(
        refused(&engine, after(true, nobody)),
        &["`evolving`", "state `total` of `nobody`", "no such operator"],
    );
    let twice = |flow: &Flow| {
        dropped(flow);
        flow.drop_state("count", "total");
    };
    says(refused(&engine, after(true, twice)), &["`count`", "state total is to be dropped", "declares it"]);
    // And the state is still there for a program that does.
    engine.run(after(true, dropped)).unwrap();
    check(&engine);
    says(refused(&engine, before(false)), &["state total", "stored as version 2", "has version 1"]);
}

/// As the starts of the test above.
fn a_check_says_the_same(savepoint: &Savepoint) {
    let dropped = |flow: &Flow| flow.drop_state("count", "by-digit");
    let refused = |flow| check_refuses(savepoint, flow);
    let version = ["state total", "stored as version 1", "has version 2", "no migration from version 1"];
    says(refused(after(false, dropped)), &version);
    says(refused(after(true, |_| {})), &["Map by-digit", "does not declare", "flow.drop_state(\"count\""]);
    // Both at once, where a start stops at the first.
    says(refused(after(false, |_| {})), &[&version[..], &["Map by-digit"]].concat());
    says(refused(after(true, |flow| flow.drop_state("nobody", "total"))), &["no such operator"]);
    let twice = |flow: &Flow| {
        dropped(flow);
        flow.drop_state("count", "total");
    };
    says(refused(after(true, twice)), &["state total is to be dropped", "declares it"]);
    assert_eq!(refused(after(true, dropped)), "");
    let check = savepoint.check(after(true, dropped)).unwrap();
    let verdict = |name: &str| {
        let found = check.states.iter().find(|state| state.state == name);
        found.unwrap_or_else(|| panic!("{name} is not in {check}")).verdict.clone()
    };
    assert_eq!((verdict("total"), verdict("by-digit")), (Verdict::Migrated { from: 1 }, Verdict::Dropped));
    assert!(check.to_string().contains("1 -> 2"), "{check}");
}

#[test]
fn an_operator_is_dropped_when_the_flow_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = half_way(directory.path(), StateBackend::Memory);
    let renamed = || {
        let flow = Flow::new("evolving");
        let counted = source(&flow, false).key_by(|number| number.0).process(Before).named("count anew");
        counted.sink(LogSink::topic("rows"));
        flow
    };
    says(refused(&engine, renamed()), &["holds state of `count`", "flow.drop_operator(\"count\")"]);
    let flow = after(true, |flow| flow.drop_operator("count"));
    says(refused(&engine, flow), &["operator `count` is to be dropped", "the flow has it"]);
    let flow = renamed();
    flow.drop_operator("count");
    assert_eq!(engine.run(flow).unwrap().records_read, ALL - HALF);
    let counts: Vec<u64> = rows::<Row>(engine.log(), "rows").iter().map(|row| row.1).collect();
    assert_eq!(counts.iter().max(), Some(&(ALL / KEYS / 2)), "it begins with nothing");
    assert_eq!(engine.run(renamed()).unwrap().records_read, 0, "the next checkpoint is without it");
}

/// Filters and maps before and after the operator with state: it is found by its name.
#[test]
fn operators_around_a_named_one_come_and_go_and_its_state_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, _) = half_way(directory.path(), StateBackend::Memory);
    let flow = Flow::new("evolving");
    source(&flow, false)
        .filter(|_| true)
        .map(|number| number)
        .key_by(|number| number.0)
        .process(Before)
        .named("count")
        .filter(|_| true)
        .map(|(key, count, known)| (key, count, known))
        .sink(LogSink::topic("rows"));
    assert_eq!(engine.run(flow).unwrap().records_read, ALL - HALF);
    let each = ALL / KEYS;
    let expected = (0..KEYS).flat_map(|key| (1..=each).map(move |count| (key, count, false)));
    assert_eq!(rows::<Row>(engine.log(), "rows"), expected.collect::<Vec<_>>());
}

/// Two functions without names are told apart by their numbers alone, so a third must not take the number of one of them.
#[test]
fn a_function_without_a_name_does_not_take_the_state_of_another() {
    let unnamed = |functions: usize, names: &[&str]| {
        let flow = Flow::new("unnamed");
        let numbers = source(&flow, false);
        for n in 0..functions {
            let counted = numbers.clone().filter(|_| true).key_by(|number| number.0).process(Before);
            let counted = match names.get(n) {
                Some(name) => counted.named(name),
                None => counted,
            };
            counted.sink(LogSink::topic(format!("rows-{n}")));
        }
        flow
    };
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), 2, StateBackend::Memory);
    append(engine.log(), numbers(0, HALF));
    engine.run(unnamed(1, &[])).unwrap();
    assert_eq!(engine.run(unnamed(1, &[])).unwrap().records_read, 0);
    says(refused(&engine, unnamed(2, &[])), &["`unnamed`", "does not know `process-2`", "`.named(..)`"]);
    engine.run(unnamed(2, &["process-1", "second"])).unwrap();
    // One that is named cannot be confused with any.
    engine.run(unnamed(3, &["process-1", "second", "third"])).unwrap();
}
