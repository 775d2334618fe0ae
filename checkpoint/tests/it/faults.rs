//! Whole processes on a store that fails: seeds for what the exploration is too small for.

use rivermark_checkpoint::store::{FaultyStore, MemoryStore, Odds};
use rivermark_checkpoint::{Checkpoints, Epoch, Event, RestoreFrom, Source, StoreReply, Writer};
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::driver::{Process, flow, job, manifest};

/// Repeats what failed: fencing and reading may always be repeated.
fn insist<T, E: std::fmt::Display>(mut call: impl FnMut() -> Result<T, E>) -> T {
    let mut last = String::new();
    for _ in 0..200 {
        match call() {
            Ok(done) => return done,
            Err(error) => last = error.to_string(),
        }
    }
    panic!("it failed 200 times, last because {last}");
}

fn start(checkpoints: &Checkpoints, owner: &str) -> (Writer, Option<Epoch>, Epoch) {
    let retained = NonZeroUsize::new(2).unwrap();
    let writer = insist(|| checkpoints.fence(owner, 0, retained));
    let recovered = insist(|| writer.read(RestoreFrom::Latest));
    let epoch = recovered.checkpoint.map(|manifest| manifest.epoch);
    (writer, epoch, recovered.next_epoch)
}

#[test]
fn on_any_seed_what_was_stored_is_restored_and_no_needed_file_is_collected() {
    for seed in 0..60 {
        let odds = Odds { refuse: 60, lose_request: 60, lose_reply: 60, delay: 60, slow: 0 };
        let store = Arc::new(FaultyStore::new(MemoryStore::new(), odds, seed));
        let checkpoints = Checkpoints::new(Arc::clone(&store) as Arc<_>, flow()).unwrap();
        let (mut newest, mut zombie): (Option<Epoch>, Option<(Writer, Epoch)>) = (None, None);
        for attempt in 0..4 {
            let (writer, restored, mut epoch) = start(&checkpoints, &format!("{seed}/{attempt}"));
            assert!(restored >= newest, "seed {seed}: restored {restored:?}, stored {newest:?}");
            newest = restored;
            // What the one before had on its way is as good as never sent.
            if let Some((zombie, epoch)) = zombie.take() {
                let reply = zombie.store(&manifest(zombie.generation(), epoch, Vec::new()));
                assert!(reply != StoreReply::Stored, "seed {seed}: a fenced generation stored {epoch}");
                let _ = zombie.collect();
            }
            for round in 0..5_u8 {
                let content = [seed as u8, attempt, round / 2];
                let file = insist(|| writer.upload(epoch, Source::Bytes(&content)));
                let manifest = manifest(writer.generation(), epoch, vec![file]);
                // Refused the first time, an epoch may be given up; in doubt it may not.
                let mut reply = writer.store(&manifest);
                while matches!(reply, StoreReply::Unknown { .. }) {
                    reply = match writer.store(&manifest) {
                        StoreReply::Refused { reason } => StoreReply::Unknown { reason },
                        reply => reply,
                    };
                }
                assert!(!matches!(reply, StoreReply::Fenced { .. }), "seed {seed}: fenced by nobody");
                if reply == StoreReply::Stored {
                    newest = Some(epoch);
                }
                epoch = epoch.next();
                let _ = writer.collect();
            }
            zombie = Some((writer, epoch));
        }
        store.set_odds(Odds::default());
        store.land().unwrap();
        let (writer, restored, _) = start(&checkpoints, "last");
        assert_eq!(restored, newest, "seed {seed}");
        writer.collect().unwrap();
        let kept = checkpoints.list().unwrap();
        assert_eq!(kept.len(), 2, "seed {seed}");
        for summary in kept {
            let manifest = checkpoints.inspect(summary.epoch).unwrap();
            manifest.files().for_each(|file| assert_eq!(checkpoints.fetch_bytes(file).unwrap().len(), 3));
        }
    }
}

#[test]
fn a_lost_reply_is_resolved_by_the_same_put() {
    let store = Arc::new(FaultyStore::new(MemoryStore::new(), Odds::default(), 1));
    let checkpoints = Checkpoints::new(Arc::clone(&store) as Arc<_>, flow()).unwrap();
    let mut process = Process::start(checkpoints, 1, "it");
    store.set_odds(Odds { lose_reply: 1000, ..Odds::default() });
    process.hear(Event::CheckpointRequested { request: 1 });
    assert!(process.committed.is_empty());
    store.set_odds(Odds::default());
    process.now = process.coordinator.wake_at().unwrap();
    process.hear(Event::Tick);
    assert_eq!(process.coordinator.newest_stored(), Some(Epoch(1)));
    assert_eq!(process.committed.len(), job(1).workers.get() as usize);
}
