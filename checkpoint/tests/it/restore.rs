//! Recovery from a flow's checkpoints: which one, and what if it or its files are damaged.

use std::num::NonZeroUsize;
use std::sync::Arc;

use rivermark_checkpoint::store::{LocalStore, MemoryStore};
use rivermark_checkpoint::{
    Checkpoints, Epoch, Error, Fetch, FlowId, Generation, Recovered, RestoreFrom, Source, Store, StoreReply,
    Writer,
};

use crate::driver::{checkpoints, flow, manifest, writer};

/// A store with epochs 1 to `epochs`, each with a file of its own, of which all are retained.
fn stored(epochs: u64) -> (MemoryStore, Checkpoints) {
    let store = MemoryStore::new();
    let checkpoints = checkpoints(store.clone());
    let writer = checkpoints.fence("first", 0, NonZeroUsize::new(9).unwrap()).unwrap();
    writer.read(RestoreFrom::Latest).unwrap();
    (1..=epochs).for_each(|epoch| store_epoch(&writer, epoch));
    (store, checkpoints)
}

fn store_epoch(writer: &Writer, epoch: u64) {
    let file = writer.upload(Epoch(epoch), Source::Bytes(format!("state {epoch}").as_bytes())).unwrap();
    assert_eq!(writer.store(&manifest(writer.generation(), Epoch(epoch), vec![file])), StoreReply::Stored);
}

fn recover(checkpoints: &Checkpoints, from: RestoreFrom) -> Result<(Writer, Recovered), Error> {
    let writer = writer(checkpoints, "next");
    let recovered = writer.read(from)?;
    Ok((writer, recovered))
}

fn epoch(recovered: &Recovered) -> Option<u64> {
    recovered.checkpoint.as_ref().map(|manifest| manifest.epoch.0)
}

fn damage(store: &MemoryStore, checkpoints: &Checkpoints, epoch: u64) -> String {
    let object = checkpoints.list().unwrap().into_iter().find(|it| it.epoch == Epoch(epoch)).unwrap().object;
    let mut bytes = store.get(&object).unwrap().unwrap();
    bytes[20] ^= 1;
    store.damage(&object, &bytes);
    object
}

#[test]
fn a_flow_without_checkpoints_starts_from_nothing() {
    let (_, recovered) = recover(&checkpoints(MemoryStore::new()), RestoreFrom::Latest).unwrap();
    let expected = Recovered { checkpoint: None, next_epoch: Epoch(1), rewound: false, damaged: Vec::new() };
    assert_eq!(recovered, expected);
}

#[test]
fn a_damaged_newest_checkpoint_is_an_error_that_names_it() {
    let (store, checkpoints) = stored(2);
    let object = damage(&store, &checkpoints, 2);
    let error = recover(&checkpoints, RestoreFrom::Latest).unwrap_err().to_string();
    assert!(error.contains(&object) && error.contains("LatestValid"), "{error}");
    // An older one is none of its business.
    let (store, checkpoints) = stored(2);
    damage(&store, &checkpoints, 1);
    assert_eq!(epoch(&recover(&checkpoints, RestoreFrom::Latest).unwrap().1), Some(2));
}

#[test]
fn an_older_checkpoint_is_used_when_asked_for_and_says_so() {
    let (store, checkpoints) = stored(3);
    let object = damage(&store, &checkpoints, 3);
    let (_, recovered) = recover(&checkpoints, RestoreFrom::LatestValid).unwrap();
    assert_eq!((epoch(&recovered), recovered.rewound), (Some(2), true));
    assert_eq!(recovered.damaged[0].0, object);
    // The damaged one may have been epoch 3: its number is not used again.
    assert_eq!(recovered.next_epoch, Epoch(4));
}

#[test]
fn nothing_intact_is_an_error_and_not_a_fresh_start() {
    let (store, checkpoints) = stored(1);
    let object = damage(&store, &checkpoints, 1);
    let error = recover(&checkpoints, RestoreFrom::LatestValid).unwrap_err().to_string();
    assert!(error.contains(&object), "{error}");
}

#[test]
fn a_rewind_is_remembered_until_the_next_checkpoint_is_stored() {
    let (_, checkpoints) = stored(3);
    let (_, recovered) = recover(&checkpoints, RestoreFrom::Epoch(Epoch(1))).unwrap();
    assert_eq!((epoch(&recovered), recovered.rewound, recovered.next_epoch), (Some(1), true, Epoch(4)));
    // The process dies before it stores anything: the newest of the line of history is epoch 1.
    let (writer, recovered) = recover(&checkpoints, RestoreFrom::Latest).unwrap();
    assert_eq!((epoch(&recovered), recovered.rewound), (Some(1), true));
    writer.collect().unwrap();
    let (writer, recovered) = recover(&checkpoints, RestoreFrom::Latest).unwrap();
    assert_eq!(epoch(&recovered), Some(1), "collected");
    store_epoch(&writer, 4);
    let (_, recovered) = recover(&checkpoints, RestoreFrom::Latest).unwrap();
    assert_eq!((epoch(&recovered), recovered.rewound), (Some(4), false));
}

#[test]
fn an_epoch_that_is_not_there_is_an_error_and_leaves_no_trace() {
    let (_, checkpoints) = stored(2);
    let error = recover(&checkpoints, RestoreFrom::Epoch(Epoch(9))).unwrap_err();
    assert!(matches!(error, Error::NoSuchEpoch { epoch: Epoch(9), .. }), "{error}");
    assert_eq!(epoch(&recover(&checkpoints, RestoreFrom::Latest).unwrap().1), Some(2));
}

#[test]
fn a_checkpoint_of_another_flow_is_refused() {
    let (store, _) = stored(1);
    let moved = store.list("flow/1/").unwrap();
    for object in moved {
        let bytes = store.get(&object.name).unwrap().unwrap();
        store.put(&object.name.replace("flow/1/", "flow/2/"), &bytes).unwrap();
    }
    let second = Checkpoints::new(Arc::new(store), FlowId { version: 2, ..flow() }).unwrap();
    let error = recover(&second, RestoreFrom::Latest).unwrap_err();
    assert!(matches!(error, Error::OtherFlow { version: 1, .. }), "{error}");
}

#[test]
fn a_newer_format_is_a_clear_error() {
    let (store, checkpoints) = stored(1);
    let object = checkpoints.list().unwrap()[0].object.clone();
    let text = String::from_utf8(store.get(&object).unwrap().unwrap()).unwrap();
    let (body, _) = text.trim_end().rsplit_once('\n').unwrap();
    let body = format!("{body}\n").replace("\"format_version\": 1", "\"format_version\": 7");
    let digest = rivermark_checkpoint::Digest::of(body.as_bytes());
    store.damage(&object, format!("{body}{{\"sha256\":\"{digest}\"}}\n").as_bytes());
    let error = recover(&checkpoints, RestoreFrom::Latest).unwrap_err().to_string();
    assert!(error.contains("version 7 is newer") && error.contains("upgrade"), "{error}");
}

#[test]
fn a_file_of_the_same_content_is_uploaded_once_also_by_the_next_generation() {
    let (store, checkpoints) = stored(1);
    let files = |store: &MemoryStore| store.list("flow/1/files/").unwrap().len();
    assert_eq!(files(&store), 1);
    let (writer, recovered) = recover(&checkpoints, RestoreFrom::Latest).unwrap();
    let old = recovered.checkpoint.unwrap().files().next().unwrap().content;
    assert!(writer.keep(Epoch(2), &old));
    assert_eq!(writer.upload(Epoch(2), Source::Bytes(b"state 1")).unwrap(), old);
    assert_eq!(files(&store), 1);
    // After a rewind nothing is built upon: an older process may just be deleting it.
    let (writer, recovered) = recover(&checkpoints, RestoreFrom::Latest).unwrap();
    store_epoch(&writer, recovered.next_epoch.0);
    let (writer, _) = recover(&checkpoints, RestoreFrom::Epoch(Epoch(1))).unwrap();
    assert!(!writer.keep(Epoch(9), &old));
    assert_ne!(writer.upload(Epoch(9), Source::Bytes(b"state 1")).unwrap(), old);
}

#[test]
fn a_damaged_state_file_is_an_error_with_its_name_and_both_digests() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let checkpoints = checkpoints(LocalStore::open(&store).unwrap());
    let writer = writer(&checkpoints, "it");
    let (from, to) = (folder.path().join("000007.sst"), folder.path().join("to"));
    std::fs::write(&from, vec![7; 100_000]).unwrap();
    let content = writer.upload(Epoch(1), Source::Path(&from)).unwrap();
    let manifest = manifest(Generation(1), Epoch(1), vec![content]);
    let file = manifest.files().next().unwrap();
    for how in [Fetch::Link, Fetch::Copy] {
        checkpoints.fetch(file, &to, how).unwrap();
        assert_eq!(std::fs::read(&to).unwrap().len(), 100_000);
        std::fs::remove_file(&to).unwrap();
    }
    let object = store.join("flow/1").join(content.object());
    std::fs::remove_file(&from).unwrap();
    std::fs::write(&object, vec![8; 100_000]).unwrap();
    let error = checkpoints.fetch(file, &to, Fetch::Link).unwrap_err().to_string();
    let found = rivermark_checkpoint::Digest::of(&vec![8; 100_000]).to_string();
    for part in [&file.name, &content.object(), &content.digest.to_string(), &found] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!to.exists(), "a damaged file must not be left where state is read from");
    std::fs::remove_file(&object).unwrap();
    assert!(matches!(checkpoints.fetch(file, &to, Fetch::Copy), Err(Error::MissingFile { .. })));
}

#[test]
fn only_the_newest_checkpoints_and_their_files_are_retained() {
    let (store, checkpoints) = stored(4);
    let (writer, recovered) = recover(&checkpoints, RestoreFrom::Latest).unwrap();
    let collected = writer.collect().unwrap();
    assert_eq!((collected.entries, collected.files, collected.bytes), (2, 2, 14));
    store_epoch(&writer, recovered.next_epoch.0);
    writer.collect().unwrap();
    let epochs: Vec<u64> = checkpoints.list().unwrap().iter().map(|summary| summary.epoch.0).collect();
    assert_eq!(epochs, [4, 5]);
    assert_eq!(store.list("flow/1/files/").unwrap().len(), 2);
    assert_eq!(writer.collect().unwrap(), Default::default());
}

#[test]
fn an_epoch_of_another_generation_is_not_stored() {
    let checkpoints = checkpoints(MemoryStore::new());
    let writer = writer(&checkpoints, "it");
    let reply = writer.store(&manifest(Generation(9), Epoch(1), Vec::new()));
    assert!(matches!(reply, StoreReply::Refused { .. }));
}
