//! The same models through crashes: cases run under simulation, where the process dies between and within steps, the checkpoint store loses
//! replies, and each life has another number of workers.

use crate::case::Case;
use crate::model;
use crate::operators::{remember, remembered, sorted, to_remember};
use crate::support::Script;
use crate::windows::{config, lateness, partitions, sessions, sliding};
use proptest::prelude::*;
use rivermark::connectors::Collect;
use rivermark::simulation::{Report, Simulation};
use rivermark::{Flow, Options, Timestamp, WatermarkGenerator, Watermarks, millis};
use std::cell::Cell;

pub fn simulate(seed: u64, flow: impl Fn() -> Flow) -> Report {
    let options = Options::new().checkpoint_every(millis(5));
    let simulation = Simulation::seed(seed).crashes(6).options(options);
    simulation.run(|_| Ok(()), flow).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

/// A watermark that has a memory: the greatest time but one.
#[derive(Default)]
struct GreatestButOne {
    greatest: Option<Timestamp>,
}

impl WatermarkGenerator for GreatestButOne {
    fn on_record(&mut self, time: Timestamp) -> Option<Timestamp> {
        let before = self.greatest;
        self.greatest = before.max(Some(time));
        before.map(|before| before.min(time))
    }

    fn save(&self) -> Vec<u8> {
        self.greatest.map_or(Vec::new(), |time| time.millis().to_le_bytes().to_vec())
    }

    fn restore(&mut self, saved: &[u8]) {
        self.greatest = saved.try_into().ok().map(|bytes| Timestamp::from_millis(i64::from_le_bytes(bytes)));
    }
}

fn greatest_but_one(times: &[i64]) -> i64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.iter().rev().nth(1).copied().unwrap_or(i64::MIN)
}

#[test]
fn windows_and_sessions_hold_what_the_definition_says_through_every_crash() {
    let shapes = prop_oneof![sliding(), sessions()];
    let case = (partitions(), shapes, lateness());
    let lives = Cell::new(0);
    proptest!(config(200), |((partitions, shape, lateness) in case, seed in any::<u64>())| {
        let case = Case { partitions, bound: 0, shape, lateness };
        let stamped = model::stamped(&case.partitions, greatest_but_one);
        let expected = model::expected(&stamped, shape, lateness);
        let outputs = Default::default();
        let report = simulate(seed, || {
            let flow = Flow::new("case");
            let events = flow.source(Script::of(&case.partitions));
            let watermarks = Watermarks::generator(GreatestButOne::default);
            case.aggregate(events.event_time(crate::case::time, watermarks), &outputs);
            flow
        });
        case.judge(&outputs, &expected, &format!("seed {seed}"));
        lives.set(lives.get() + report.attempts);
    });
    let lives = lives.get();
    assert!(lives > 250, "{lives} lives of 200 cases: too few to get wrong");
}

#[test]
fn state_and_timers_go_on_where_they_were_through_every_crash() {
    let (partitions, expected) = (to_remember(), remembered());
    let (mut crashes, mut checkpoints) = (0, 0);
    for seed in 0..100 {
        let rows = Collect::new();
        let report = simulate(seed, || {
            let flow = Flow::new("memory");
            remember(flow.source(Script::of(&partitions))).sink(rows.clone());
            flow
        });
        assert_eq!(sorted(rows.rows()), expected, "seed {seed}");
        crashes += report.crashes;
        checkpoints += report.checkpoints;
    }
    assert!(crashes > 50 && checkpoints > 500, "{crashes} crashes, {checkpoints} checkpoints");
}
