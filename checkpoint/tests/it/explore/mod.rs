//! Every short history of the protocol.
//!
//! The real coordinator and the real procedures of the history run in a model of everything around them: an object
//! store (put-if-absent, get, list, delete; puts that are refused, lost, answered too late or land much later), sinks
//! that prepare, commit and abort, tasks with a bounded source each, and processes that crash at any point, fail, pause
//! for ever so long, and are replaced while they still run. [`explore`] visits every state that can be reached within
//! the bounds of a [`Scope`], and in each state it also asks: if everything dies now and one healthy process starts,
//! does every record come out exactly once?
//!
//! What is asserted, and where:
//! - an epoch's output is committed only if its manifest is stored (`Sinks::commit`);
//! - the epoch restored is at least as new as every epoch committed, before or after (`World::restored`,
//!   `World::committing`);
//! - no output of a stored epoch is aborted, and nothing with aborted output is stored (`Sinks::abort`, `World::land`);
//! - a fenced generation stores nothing (`World::land`), and commits nothing but what its successor commits too;
//! - every record is committed once and in order (`Sinks::commit`), and in the end all are (`World::complete`): so every
//!   token of a restored epoch is committed.
//!
//! That the exploration sees anything is shown by [`Draft`]s: plausible drivers with one mistake each, every one of
//! which it must convict.

mod process;
mod sinks;
mod world;

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use world::{Choice, World};

/// How far to explore.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    tasks: u32,
    /// Records in each task's source.
    records: u8,
    /// Processes started in all; at most two are alive at once.
    processes: usize,
    /// Faults in all, crashes not counted.
    faults: u8,
    /// Whether expired manifests are deleted, at any time after they expired.
    deletes: bool,
    draft: Draft,
}

/// A driver: the right one, or one with a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Draft {
    Right,
    /// After a failed task, continues from the checkpoint it remembers, without fencing and reading, while a manifest
    /// may be on its way.
    RestoresTheRememberedEpoch,
    /// Reads the store without fencing it.
    ReadsWithoutFencing,
    /// Reads first, fences then.
    ReadsThenFences,
    /// Aborts what was prepared for an epoch that failed, although the job goes on behind it.
    AbortsOutputOfFailedEpochs,
    /// Reports commits that have yet to happen.
    ReportsCommitsEarly,
    /// Does not look whether its fence has fallen into a hole.
    TrustsItsFence,
    /// Deletes fences along with expired manifests.
    DeletesFences,
}

/// What an exploration found.
struct Explored {
    states: usize,
    /// How many ended with every record committed.
    done: usize,
    violation: Option<String>,
}

/// Visits every state within `scope`, the nearest first, or stops at the first violation.
fn explore(scope: Scope) -> Explored {
    let hasher = BuildHasherDefault::<Fold>::default();
    let mut explored = Explored { states: 0, done: 0, violation: None };
    let (mut seen, mut completed) = (HashSet::new(), HashSet::new());
    // How each state was first reached: from which one, by what.
    let mut trail: Vec<(usize, Choice)> = Vec::new();
    let mut frontier = VecDeque::from([(World::new(scope), usize::MAX)]);
    while let Some((world, reached)) = frontier.pop_front() {
        explored.states += 1;
        explored.done += usize::from(world.is_done());
        // What a recovery sees of the processes is only what they leave behind.
        let dead = world.all_dead();
        if completed.insert(hasher.hash_one(&dead))
            && let Err(violation) = dead.complete()
        {
            explored.violation =
                Some(format!("{violation}, in a recovery after {:?}", path(&trail, reached)));
            return explored;
        }
        for choice in world.choices() {
            let mut next = world.clone();
            trail.push((reached, choice));
            if let Err(violation) = next.apply(choice) {
                explored.violation = Some(format!("{violation}, after {:?}", path(&trail, trail.len() - 1)));
                return explored;
            }
            if seen.insert(hasher.hash_one(&next)) {
                frontier.push_back((next, trail.len() - 1));
            } else {
                trail.pop();
            }
        }
    }
    explored
}

/// A folded multiply of each eight bytes: exploring is hashing for the most part.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        let rest = rest.iter().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte));
        self.write_u64(rest);
    }

    fn write_u64(&mut self, word: u64) {
        let product =
            u128::from(self.0.rotate_left(23) ^ word ^ 0xA076_1D64_78BD_642F) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn path(trail: &[(usize, Choice)], mut reached: usize) -> Vec<Choice> {
    let mut path = Vec::new();
    while let Some((before, choice)) = trail.get(reached) {
        path.push(*choice);
        reached = *before;
    }
    path.reverse();
    path
}

const SMALL: Scope =
    Scope { tasks: 1, records: 2, processes: 2, faults: 2, deletes: false, draft: Draft::Right };
const THREE_PROCESSES: Scope = Scope { records: 1, processes: 3, faults: 1, ..SMALL };
const TWO_TASKS: Scope = Scope { tasks: 2, records: 1, faults: 1, ..SMALL };
const DELETING: Scope = Scope { processes: 3, deletes: true, faults: 0, ..SMALL };

fn passes(scope: Scope, at_least: usize) {
    let began = std::time::Instant::now();
    let explored = explore(scope);
    let Explored { states, done, violation } = &explored;
    eprintln_states(scope, *states, began);
    assert_eq!(*violation, None);
    assert!(
        *states >= at_least && *done > 0,
        "the exploration has shrunk to {states} states, {done} of them done"
    );
}

#[expect(clippy::print_stderr, reason = "the size of an exploration is what one wants to see of it")]
fn eprintln_states(scope: Scope, states: usize, began: std::time::Instant) {
    eprintln!("{states} states in {:?} of {scope:?}", began.elapsed());
}

#[expect(clippy::print_stderr, reason = "a conviction is worth reading")]
fn eprintln_conviction(draft: Draft, states: usize, violation: &str) {
    eprintln!("{draft:?} after {states} states: {violation}");
}

fn is_convicted(scope: Scope, draft: Draft) {
    let explored = explore(Scope { draft, ..scope });
    let violation =
        explored.violation.unwrap_or_else(|| panic!("{draft:?} passed {} states", explored.states));
    eprintln_conviction(draft, explored.states, &violation);
}

#[test]
fn every_short_history_of_one_task_is_right() {
    passes(SMALL, 100_000);
}

#[test]
fn every_short_history_of_three_processes_is_right() {
    passes(THREE_PROCESSES, 200_000);
}

#[test]
fn every_short_history_of_two_tasks_is_right() {
    passes(TWO_TASKS, 40_000);
}

#[test]
fn every_short_history_with_deletes_that_come_late_is_right() {
    passes(DELETING, 150_000);
}

#[test]
#[ignore = "minutes: longer histories of the same kinds"]
fn every_longer_history_is_right() {
    passes(Scope { processes: 3, ..SMALL }, 1_000_000);
    passes(Scope { faults: 2, ..TWO_TASKS }, 100_000);
    passes(Scope { faults: 1, ..DELETING }, 100_000);
}

#[test]
fn restoring_the_remembered_epoch_while_a_manifest_is_in_flight_is_convicted() {
    is_convicted(SMALL, Draft::RestoresTheRememberedEpoch);
}

#[test]
fn reading_without_fencing_is_convicted() {
    is_convicted(SMALL, Draft::ReadsWithoutFencing);
}

#[test]
fn fencing_after_reading_is_convicted() {
    is_convicted(SMALL, Draft::ReadsThenFences);
}

#[test]
fn aborting_the_output_of_a_failed_epoch_is_convicted() {
    is_convicted(SMALL, Draft::AbortsOutputOfFailedEpochs);
}

#[test]
fn storing_the_next_epoch_before_the_commit_is_convicted() {
    is_convicted(SMALL, Draft::ReportsCommitsEarly);
}

#[test]
fn trusting_a_fence_that_may_lie_in_a_hole_is_convicted() {
    is_convicted(DELETING, Draft::TrustsItsFence);
}

#[test]
fn deleting_fences_is_convicted() {
    is_convicted(DELETING, Draft::DeletesFences);
}
