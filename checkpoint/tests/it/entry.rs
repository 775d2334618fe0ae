//! The bytes of history's entries.

use rivermark_checkpoint::history::{Damage, Entry};
use rivermark_checkpoint::{
    Blob, Digest, Epoch, FileRef, FileRole, Generation, KeyGroups, Manifest, PartitionState, StateFile,
    TaskId, TaskState,
};

use crate::driver::token;

fn manifest() -> Manifest {
    let content = FileRef { digest: Digest::of(b"state"), bytes: 5, generation: Generation(2), upload: 1 };
    let file = StateFile { name: "delta-7".to_owned(), role: FileRole::Delta, content };
    let groups = KeyGroups { start: 0, end: 128 };
    let task = TaskState { task: TaskId(0), groups, files: vec![file], meta: Blob(vec![0, 255]) };
    let generator = [("watermarks".to_owned(), Blob(vec![1, 2]))].into();
    let partition =
        PartitionState { position: Blob(vec![9]), operators: generator, ..PartitionState::default() };
    Manifest {
        flow: "clicks".to_owned(),
        version: 1,
        epoch: Epoch(7),
        generation: Generation(3),
        parent: Some(Epoch(5)),
        created_at_ms: 1_700_000_000_000,
        key_groups: 128,
        workers: 1,
        sources: [("source".to_owned(), [("0".to_owned(), partition)].into())].into(),
        operators: [("count".to_owned(), vec![task])].into(),
        sinks: [("sink".to_owned(), vec![token(0, Epoch(7))])].into(),
        watermarks: [("count".to_owned(), i64::MIN)].into(),
        ends: Default::default(),
        is_end: false,
        stops: Vec::new(),
        stops_ahead: Vec::new(),
        counters: [("records".to_owned(), u64::MAX)].into(),
        output_ends: Default::default(),
    }
}

#[test]
fn an_entry_comes_back_as_it_was() {
    let fence = Entry::Fence { generation: Generation(9), owner: "host:1".to_owned(), claimed_at_ms: -1 };
    let rewind = Entry::Rewind { generation: Generation(9), to_slot: 3, to_epoch: Epoch(2) };
    for entry in [Entry::from(manifest()), fence, rewind] {
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }
}

#[test]
fn the_bytes_of_version_1_stay_as_they_are() {
    let rewind = Entry::Rewind { generation: Generation(9), to_slot: 3, to_epoch: Epoch(2) };
    let golden = "{\n  \"format\": \"rivermark-checkpoint\",\n  \"format_version\": 1,\n  \"kind\": \"rewind\",\n  \
                  \"generation\": 9,\n  \"to_slot\": 3,\n  \"to_epoch\": 2\n}\n\
                  {\"sha256\":\"cd9d9b84ca032c33e04d56ced516d88e49d9227f196e1199d2f55263f85e031d\"}\n";
    assert_eq!(String::from_utf8(rewind.encode()).unwrap(), golden);
    let digest = Digest::of(&Entry::from(manifest()).encode()).to_string();
    assert_eq!(digest, "585d2920dcf407ee28e317a69d28723b97b2e4a13e6246267dc4af6e23cfd625");
}

#[test]
fn every_damaged_byte_is_noticed() {
    let bytes = Entry::from(manifest()).encode();
    for at in 0..bytes.len() {
        for flip in [1, 0x20, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            assert!(Entry::decode(&damaged).is_err(), "byte {at} flipped by {flip}");
        }
        assert!(Entry::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}

/// An entry with a right checksum over other text.
fn reworded(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(Entry::from(manifest()).encode()).unwrap();
    let (body, _) = text.trim_end().rsplit_once('\n').unwrap();
    let body = format!("{body}\n").replace(from, to);
    let digest = Digest::of(body.as_bytes());
    format!("{body}{{\"sha256\":\"{digest}\"}}\n").into_bytes()
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let newer = reworded("\"format_version\": 1", "\"format_version\": 2");
    assert_eq!(Entry::decode(&newer), Err(Damage::NewerFormat { found: 2 }));
    let other = reworded("rivermark-checkpoint", "something-else");
    assert!(matches!(Entry::decode(&other), Err(Damage::Malformed(_))));
    let field = reworded("\"epoch\"", "\"epok\"");
    assert!(matches!(Entry::decode(&field), Err(Damage::Malformed(reason)) if reason.contains("epoch")));
}
