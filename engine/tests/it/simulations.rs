use crate::jobs::{counting, events_of, expected_counts};
use crate::support::Rows;
use crate::support::Values;
use rivermark_engine::simulation::Simulation;

/// How many seeds a run tries.
const SEEDS: u64 = 500;

#[test]
fn every_seed_gives_every_row_once() {
    let events = Values { per_poll: 10, ..events_of(400) };
    let expected = expected_counts(&events, 1000);
    let (mut crashes, mut attempts, mut checkpoints) = (0, 0, 0);
    for seed in 0..SEEDS {
        let rows = Rows::default();
        let report = Simulation::seed(seed)
            .crashes(6)
            .run(|_| Ok(()), || counting(events.clone(), &rows))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(rows.sorted(), expected, "seed {seed}");
        crashes += report.crashes;
        attempts += report.attempts;
        checkpoints += report.checkpoints;
    }
    // What is tested is worth something only if there was something to survive.
    assert!(
        crashes > SEEDS as u32 / 2,
        "{crashes} crashes in {attempts} attempts, {checkpoints} checkpoints"
    );
    assert!(checkpoints > SEEDS, "{checkpoints} checkpoints");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let events = Values { per_poll: 10, ..events_of(200) };
    for seed in 0..20 {
        let trace = || {
            let rows = Rows::default();
            let run = Simulation::seed(seed).run(|_| Ok(()), || counting(events.clone(), &rows));
            let report = run.unwrap();
            (report.trace, report.steps, report.crashes, report.attempts)
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
