//! The engine, against the floor and what ANSWERS says.

use crate::specification::{answers, floor_answer};
use nexmark::event::Lean;
use nexmark::generator::Generator;
use nexmark::queries::Query;
use nexmark::run::{EngineSetup, Form, From, Resources, Setup};
use rivermark::{StateBackend, millis};

/// Rows and digest, with a checkpoint every few milliseconds.
fn engine_answer(
    query: Query,
    (events, form, source): (u64, Form, From),
    workers: usize,
    state: StateBackend,
) -> (u64, u64) {
    let setup = Setup { query, generator: Generator::default(), events, form, digest: true };
    let checkpoint = Some(millis(20));
    let resources = Resources { workers, state, state_budget: None, checkpoint };
    let engine = EngineSetup { resources, source, log: None };
    let report = setup.engine(&engine).unwrap();
    assert!(report.seconds <= report.total_seconds && report.checkpoints > 0, "{query}: {report:?}");
    (report.rows, u64::from_str_radix(&report.digest.unwrap(), 16).unwrap())
}

#[test]
fn the_engine_gives_the_answers_of_the_specification() {
    for (query, rows, digest) in answers() {
        let (workers, backend) = match query as u32 % 2 {
            0 => (1, StateBackend::Memory),
            _ => (3, StateBackend::RocksDb),
        };
        assert_eq!(
            engine_answer(query, (1_000_000, Form::Full, From::Generator), workers, backend),
            (rows, digest),
            "{query}"
        );
    }
}

#[test]
fn the_engine_gives_the_answers_of_the_floor_on_any_backend_with_any_number_of_workers() {
    for query in Query::ALL {
        let expected = floor_answer::<Lean>(query, 100_000);
        for backend in [StateBackend::Memory, StateBackend::RocksDb] {
            for workers in [1, 3] {
                let found = engine_answer(query, (100_000, Form::Lean, From::Generator), workers, backend);
                assert_eq!(found, expected, "{query}, {workers} workers, {backend:?}");
            }
        }
    }
}

#[test]
fn events_from_the_log_give_the_same_answers_in_both_forms() {
    for (query, form) in [(Query::Q1, Form::Full), (Query::Q9, Form::Lean), (Query::Q8, Form::Full)] {
        let expected = floor_answer::<Lean>(query, 100_000);
        let found = engine_answer(query, (100_000, form, From::Log), 2, StateBackend::RocksDb);
        assert_eq!(found, expected, "{query}, {form:?}");
    }
}
