//! The coordinator on its own, and with a store.

use rivermark_checkpoint::store::{LocalStore, MemoryStore};
use rivermark_checkpoint::{Action, BarrierKind, Epoch, Event, Failure, Generation, Outcome, TaskId};

use crate::driver::{Process, checkpoints, token};

#[test]
fn a_flow_continues_from_the_newest_checkpoint_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let open = || checkpoints(LocalStore::open(folder.path()).unwrap());
    let mut first = Process::start(open(), 2, "first");
    assert_eq!(first.restored, None);
    first.hear(Event::CheckpointRequested { request: 7 });
    first.hear(Event::CheckpointRequested { request: 8 });
    assert!(first.log.contains(&Action::Answer { request: 8, outcome: Ok(Epoch(2)) }));
    drop(first);

    let second = Process::start(open(), 3, "second");
    let restored = second.restored.unwrap();
    assert_eq!(
        (restored.epoch, restored.generation, restored.parent),
        (Epoch(2), Generation(1), Some(Epoch(1)))
    );
    assert_eq!(second.committed, [token(0, Epoch(2)), token(1, Epoch(2))].into());
}

#[test]
fn a_process_that_was_replaced_learns_it_from_its_next_store() {
    let checkpoints = checkpoints(MemoryStore::new());
    let mut old = Process::start(checkpoints.clone(), 1, "old");
    let mut new = Process::start(checkpoints, 1, "new");
    old.hear(Event::CheckpointRequested { request: 1 });
    let fenced = Failure::Fenced { by: Some(Generation(2)) };
    assert_eq!(old.log.last(), Some(&Action::Fail { failure: fenced }));
    assert!(old.committed.is_empty());
    new.hear(Event::CheckpointRequested { request: 1 });
    assert_eq!(new.committed, [token(0, Epoch(1))].into());
}

#[test]
fn a_job_whose_tasks_have_finished_commits_their_last_results_and_is_done() {
    let mut process = Process::start(checkpoints(MemoryStore::new()), 2, "it");
    process.hear(Event::Finished { task: TaskId(1) });
    assert!(!process.coordinator.is_over());
    process.hear(Event::Finished { task: TaskId(0) });
    assert!(process.log.contains(&Action::Inject { epoch: Epoch(1), kind: BarrierKind::Final }));
    assert_eq!(process.log.last(), Some(&Action::Done { outcome: Outcome::Finished }));
    assert_eq!(process.committed, [token(0, Epoch(1)), token(1, Epoch(1))].into());
}
