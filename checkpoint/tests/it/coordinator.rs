//! The coordinator on its own, and with a store.

use rivermark_checkpoint::store::{LocalStore, MemoryStore};
use rivermark_checkpoint::{
    Action, BarrierKind, Coordinator, Epoch, Event, Failure, Generation, Manifest, Options, Outcome,
    StoreReply, TaskId,
};
use std::time::Duration;

use crate::driver::{Process, checkpoints, job, options, parts, secs, token};

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

/// A running job of so many tasks that has no checkpoint, whose tasks and store wait for us.
fn running(workers: u32) -> Coordinator {
    running_with(workers, options())
}

fn running_with(workers: u32, options: Options) -> Coordinator {
    let mut coordinator = Coordinator::new(job(workers), options);
    let mut hear = |event| coordinator.step(secs(0), event);
    assert_eq!(hear(Event::Start), [Action::Fence]);
    assert_eq!(hear(Event::Fenced { generation: Generation(1) }), [Action::Read]);
    hear(Event::Recovered { checkpoint: None, next_epoch: Epoch(1) });
    let restored: Vec<Action> =
        (0..workers).flat_map(|task| hear(Event::Restored { task: TaskId(task) })).collect();
    assert_eq!(restored, [Action::Run]);
    coordinator
}

fn acknowledge(coordinator: &mut Coordinator, now: u64, task: u32, epoch: u64) -> Vec<Action> {
    let parts = parts(task, Epoch(epoch));
    coordinator.step(secs(now), Event::Acknowledged { task: TaskId(task), epoch: Epoch(epoch), parts })
}

fn reply(coordinator: &mut Coordinator, now: u64, epoch: u64, reply: StoreReply) -> Vec<Action> {
    coordinator.step(secs(now), Event::StoreReplied { epoch: Epoch(epoch), reply })
}

fn committed(coordinator: &mut Coordinator, now: u64, task: u32, epoch: u64) -> Vec<Action> {
    coordinator.step(secs(now), Event::Committed { task: TaskId(task), epoch: Epoch(epoch) })
}

fn request(coordinator: &mut Coordinator, now: u64, request: u64) -> Vec<Action> {
    coordinator.step(secs(now), Event::CheckpointRequested { request })
}

fn tick(coordinator: &mut Coordinator, now: u64) -> Vec<Action> {
    coordinator.step(secs(now), Event::Tick)
}

fn inject(epoch: u64) -> Action {
    Action::Inject { epoch: Epoch(epoch), kind: BarrierKind::Checkpoint }
}

fn unknown() -> StoreReply {
    StoreReply::Unknown { reason: "time-out".to_owned() }
}

fn refused() -> StoreReply {
    StoreReply::Refused { reason: "full".to_owned() }
}

fn stored_manifest(actions: &[Action]) -> &Manifest {
    let manifest = actions.iter().find_map(|action| match action {
        Action::Store { manifest } => Some(&**manifest),
        _ => None,
    });
    manifest.unwrap_or_else(|| panic!("nothing to store in {actions:?}"))
}

#[test]
fn epochs_follow_the_interval_and_pause_after_a_slow_one() {
    let options = Options { interval: Some(secs(10)), min_pause: secs(5), ..options() };
    let mut it = running_with(1, options);
    assert_eq!(it.wake_at(), Some(secs(10)));
    assert_eq!(tick(&mut it, 9), []);
    assert_eq!(tick(&mut it, 10), [inject(1)]);
    acknowledge(&mut it, 11, 0, 1);
    reply(&mut it, 11, 1, StoreReply::Stored);
    committed(&mut it, 12, 0, 1);
    assert_eq!(it.wake_at(), Some(secs(20)));
    assert_eq!(tick(&mut it, 20), [inject(2)]);
    acknowledge(&mut it, 29, 0, 2);
    reply(&mut it, 29, 2, StoreReply::Stored);
    committed(&mut it, 29, 0, 2);
    assert_eq!(tick(&mut it, 33), []);
    assert_eq!(tick(&mut it, 34), [inject(3)]);
}

#[test]
fn a_request_during_an_epoch_gets_the_next_one() {
    let mut it = running(1);
    assert_eq!(request(&mut it, 0, 7), [inject(1)]);
    assert_eq!(request(&mut it, 1, 8), []);
    acknowledge(&mut it, 2, 0, 1);
    let actions = reply(&mut it, 2, 1, StoreReply::Stored);
    assert!(actions.contains(&inject(2)), "taken while the first one commits: {actions:?}");
    let actions = committed(&mut it, 3, 0, 1);
    assert_eq!(
        actions,
        [Action::Completed { epoch: Epoch(1) }, Action::Answer { request: 7, outcome: Ok(Epoch(1)) }]
    );
}

#[test]
fn the_next_epoch_is_not_stored_before_the_last_one_is_committed() {
    let mut it = running(2);
    request(&mut it, 0, 1);
    acknowledge(&mut it, 0, 0, 1);
    acknowledge(&mut it, 0, 1, 1);
    reply(&mut it, 0, 1, StoreReply::Stored);
    request(&mut it, 1, 2);
    acknowledge(&mut it, 1, 0, 2);
    assert_eq!(acknowledge(&mut it, 1, 1, 2), []);
    assert_eq!(committed(&mut it, 2, 0, 1), []);
    let actions = committed(&mut it, 3, 1, 1);
    assert_eq!(stored_manifest(&actions).parent, Some(Epoch(1)));
}

fn cancelled(action: &Action) -> (u64, &str) {
    let Action::Cancel { epoch, reason } = action else { panic!("{action:?}") };
    (epoch.0, reason)
}

#[test]
fn an_epoch_that_times_out_is_cancelled_and_its_output_owed_with_the_next() {
    let mut it = running(2);
    request(&mut it, 0, 1);
    acknowledge(&mut it, 1, 0, 1);
    assert_eq!(it.wake_at(), Some(secs(100)));
    let actions = tick(&mut it, 100);
    assert_eq!(cancelled(&actions[0]).0, 1);
    let Action::Answer { request: 1, outcome: Err(reason) } = &actions[1] else { panic!("{actions:?}") };
    assert!(reason.contains("no acknowledgement from task 1"), "{reason}");
    // The pause after a failure holds for requests too.
    assert_eq!(request(&mut it, 100, 2), []);
    assert_eq!(tick(&mut it, 101), [inject(2)]);
    // Task 1 had taken the first barrier before it heard of the cancel.
    assert_eq!(acknowledge(&mut it, 102, 1, 1), []);
    acknowledge(&mut it, 102, 0, 2);
    let actions = acknowledge(&mut it, 102, 1, 2);
    let mut tokens = stored_manifest(&actions).sinks["sink"].clone();
    tokens.sort_unstable();
    assert_eq!(tokens, [token(0, Epoch(1)), token(0, Epoch(2)), token(1, Epoch(1)), token(1, Epoch(2))]);
}

#[test]
fn a_refused_store_keeps_all_it_owes_until_one_succeeds() {
    let mut it = running(1);
    for (now, epoch) in [(0, 1), (10, 2)] {
        request(&mut it, now, epoch);
        acknowledge(&mut it, now, 0, epoch);
        if epoch == 1 {
            let actions = reply(&mut it, now, epoch, refused());
            let (epoch, reason) = cancelled(&actions[0]);
            assert!(epoch == 1 && reason.contains("the store refused it"), "{reason}");
        }
    }
    let actions = reply(&mut it, 11, 2, StoreReply::Stored);
    let Action::Commit { tokens, .. } = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(tokens.len(), 2);
    committed(&mut it, 11, 0, 2);
    request(&mut it, 20, 3);
    let actions = acknowledge(&mut it, 20, 0, 3);
    assert_eq!(stored_manifest(&actions).sinks["sink"], [token(0, Epoch(3))], "nothing is owed twice");
}

#[test]
fn one_failure_more_than_tolerated_fails_the_job_and_a_success_forgives() {
    let mut it = running(1);
    for (epoch, outcome) in [(1, refused()), (2, StoreReply::Stored), (3, refused()), (4, refused())] {
        let now = epoch * 10;
        request(&mut it, now, epoch);
        acknowledge(&mut it, now, 0, epoch);
        assert!(!it.is_over());
        let actions = reply(&mut it, now, epoch, outcome);
        if epoch == 2 {
            committed(&mut it, now, 0, epoch);
        } else if epoch == 4 {
            let Some(Action::Fail { failure }) = actions.last() else { panic!("{actions:?}") };
            assert!(matches!(
                failure,
                Failure::TooManyFailedCheckpoints { failures: 2, epoch: Epoch(4), .. }
            ));
        }
    }
    assert!(it.is_over());
}

#[test]
fn an_epoch_in_doubt_is_repeated_and_not_given_up_also_when_a_repetition_is_refused() {
    let mut it = running(1);
    request(&mut it, 0, 1);
    let first = acknowledge(&mut it, 0, 0, 1);
    assert_eq!(reply(&mut it, 0, 1, unknown()), []);
    assert_eq!(it.wake_at(), Some(secs(1)));
    assert_eq!(tick(&mut it, 1), first, "the same put");
    assert_eq!(reply(&mut it, 1, 1, refused()), []);
    assert_eq!(tick(&mut it, 2), []);
    assert_eq!(tick(&mut it, 3), first, "after a pause twice as long");
    assert!(matches!(reply(&mut it, 3, 1, StoreReply::Stored)[0], Action::Commit { epoch: Epoch(1), .. }));
}

#[test]
fn a_store_that_stays_in_doubt_fails_the_job_without_a_cancel() {
    let mut it = running(1);
    request(&mut it, 0, 1);
    acknowledge(&mut it, 0, 0, 1);
    reply(&mut it, 59, 1, unknown());
    let actions = tick(&mut it, 60);
    let [Action::Answer { outcome: Err(_), .. }, Action::Fail { failure: Failure::StoreInDoubt { .. } }] =
        &actions[..]
    else {
        panic!("{actions:?}")
    };
}

#[test]
fn a_commit_that_fails_is_repeated_and_fails_the_job_in_the_end() {
    let mut it = running(2);
    request(&mut it, 0, 1);
    acknowledge(&mut it, 0, 0, 1);
    acknowledge(&mut it, 0, 1, 1);
    let commits = reply(&mut it, 0, 1, StoreReply::Stored);
    committed(&mut it, 0, 0, 1);
    let failed = Event::CommitFailed { task: TaskId(1), epoch: Epoch(1), reason: "locked".to_owned() };
    assert_eq!(it.step(secs(1), failed.clone()), []);
    assert_eq!(tick(&mut it, 2), commits[1..]);
    assert_eq!(it.step(secs(59), failed), []);
    let actions = tick(&mut it, 60);
    let Some(Action::Fail { failure }) = actions.last() else { panic!("{actions:?}") };
    assert!(failure.to_string().contains("task 1") && failure.to_string().contains("locked"), "{failure}");
}

#[test]
fn a_commit_that_is_refused_fails_the_job_at_once() {
    let mut it = running(1);
    request(&mut it, 0, 1);
    acknowledge(&mut it, 0, 0, 1);
    reply(&mut it, 0, 1, StoreReply::Stored);
    let refused = Event::CommitRefused { task: TaskId(0), epoch: Epoch(1), reason: "it is gone".to_owned() };
    let actions = it.step(secs(0), refused);
    let [Action::Answer { outcome: Err(_), .. }, Action::Fail { failure }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(failure.to_string().contains("it is gone"), "{failure}");
}

#[test]
fn options_without_end_mean_never() {
    let never = Duration::MAX;
    let options = Options {
        interval: Some(never),
        min_pause: never,
        timeout: never,
        store_timeout: never,
        commit_timeout: never,
        min_retry: never,
        max_retry: never,
        ..Options::default()
    };
    let mut it = running_with(1, options);
    assert_eq!(it.wake_at(), Some(never));
    request(&mut it, 2, 1);
    acknowledge(&mut it, 3, 0, 1);
    assert_eq!(reply(&mut it, 4, 1, unknown()), []);
    assert_eq!(it.wake_at(), Some(never), "no repetition, no time-out");
}

#[test]
fn stopping_tries_again_until_a_checkpoint_is_committed() {
    let mut it = running(1);
    let stop = |epoch| Action::Inject { epoch: Epoch(epoch), kind: BarrierKind::Stop };
    request(&mut it, 0, 1);
    assert_eq!(it.step(secs(0), Event::StopRequested { request: 2 }), []);
    acknowledge(&mut it, 1, 0, 1);
    assert!(reply(&mut it, 1, 1, StoreReply::Stored).contains(&stop(2)));
    committed(&mut it, 1, 0, 1);
    let declined = Event::Declined { task: TaskId(0), epoch: Epoch(2), reason: "full".to_owned() };
    let actions = it.step(secs(2), declined);
    let [cancel] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(cancelled(cancel), (2, "task 0 declined it: full"));
    assert_eq!(tick(&mut it, 3), [stop(3)]);
    acknowledge(&mut it, 3, 0, 3);
    reply(&mut it, 3, 3, StoreReply::Stored);
    let actions = committed(&mut it, 3, 0, 3);
    let answer = Action::Answer { request: 2, outcome: Ok(Epoch(3)) };
    assert_eq!(
        actions,
        [Action::Completed { epoch: Epoch(3) }, answer, Action::Done { outcome: Outcome::Stopped }]
    );
    let late = Action::Answer { request: 9, outcome: Err("the job is over".to_owned()) };
    assert_eq!(request(&mut it, 4, 9), [late]);
}

#[test]
fn an_epoch_begun_before_the_last_task_finished_is_followed_by_a_final_one() {
    let mut it = running(1);
    request(&mut it, 0, 1);
    acknowledge(&mut it, 0, 0, 1);
    assert_eq!(it.step(secs(0), Event::Finished { task: TaskId(0) }), []);
    let actions = reply(&mut it, 1, 1, StoreReply::Stored);
    assert!(actions.contains(&Action::Inject { epoch: Epoch(2), kind: BarrierKind::Final }));
    committed(&mut it, 1, 0, 1);
    assert!(!it.is_over());
}

#[test]
fn a_failed_task_fails_the_job_in_every_phase() {
    let failed = Event::Failed { task: TaskId(0), reason: "panicked".to_owned() };
    let mut it = running(1);
    for phase in 0..4 {
        let mut fork = it.clone();
        let actions = fork.step(secs(5), failed.clone());
        assert!(
            matches!(actions.last(), Some(Action::Fail { failure: Failure::Task { .. } })),
            "{actions:?}"
        );
        assert!(!actions.iter().any(|action| matches!(action, Action::Cancel { .. })), "{actions:?}");
        assert_eq!(fork.wake_at(), None);
        match phase {
            0 => drop(request(&mut it, 1, 1)),
            1 => drop(acknowledge(&mut it, 1, 0, 1)),
            _ => drop(reply(&mut it, 1, 1, StoreReply::Stored)),
        }
    }
}

#[test]
fn tasks_that_contradict_each_other_fail_the_job() {
    let mut it = running(2);
    request(&mut it, 0, 1);
    acknowledge(&mut it, 0, 0, 1);
    let twice = Event::Acknowledged { task: TaskId(1), epoch: Epoch(1), parts: parts(0, Epoch(1)) };
    let actions = it.step(secs(0), twice);
    let Some(Action::Fail { failure }) = actions.last() else { panic!("{actions:?}") };
    assert!(failure.to_string().contains("partition `0` of source `source`"), "{failure}");
}
