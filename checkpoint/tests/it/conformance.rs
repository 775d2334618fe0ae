//! What every store promises, held against every store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rivermark_checkpoint::store::{FaultyStore, Listed, LocalStore, MemoryStore, Odds};
use rivermark_checkpoint::{Certainty, Put, Store};

/// Runs `claim` on every kind of store, each new, with a folder for files.
fn every_store(claim: impl Fn(Arc<dyn Store>, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn Store>; 3] = [
        Arc::new(MemoryStore::new()),
        Arc::new(LocalStore::open(folder.path().join("store")).unwrap()),
        Arc::new(FaultyStore::new(MemoryStore::new(), Odds::default(), 1)),
    ];
    for (number, store) in stores.into_iter().enumerate() {
        let files = folder.path().join(number.to_string());
        std::fs::create_dir(&files).unwrap();
        claim(store, &files);
    }
}

fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).unwrap().into_iter().map(|object| object.name).collect()
}

#[test]
fn the_first_put_creates_and_the_second_changes_nothing() {
    every_store(|store, _| {
        assert_eq!(store.get("a/b").unwrap(), None);
        assert_eq!(store.put("a/b", b"first").unwrap(), Put::Created);
        assert_eq!(store.put("a/b", b"second").unwrap(), Put::AlreadyExists);
        assert_eq!(store.get("a/b").unwrap().unwrap(), b"first");
    });
}

#[test]
fn of_racing_puts_one_creates_and_its_bytes_stay() {
    every_store(|store, _| {
        for round in 0..20 {
            let (name, created) = (format!("race/{round}"), AtomicUsize::new(usize::MAX));
            std::thread::scope(|scope| {
                for racer in 0..4_usize {
                    let (store, name, created) = (&store, &name, &created);
                    scope.spawn(move || {
                        if store.put(name, &[racer as u8; 1000]).unwrap() == Put::Created {
                            let before = created.swap(racer, Ordering::SeqCst);
                            assert_eq!(before, usize::MAX, "two puts created {name}");
                        }
                    });
                }
            });
            let winner = created.into_inner();
            assert_eq!(store.get(&name).unwrap().unwrap(), [winner as u8; 1000]);
        }
    });
}

#[test]
fn a_list_finds_what_begins_with_the_prefix_in_order_and_with_sizes() {
    every_store(|store, _| {
        for name in ["b/2", "b/10", "a", "b/sub/1", "bc", "b/1"] {
            store.put(name, name.as_bytes()).unwrap();
        }
        assert_eq!(names(&*store, "b/"), ["b/1", "b/10", "b/2", "b/sub/1"]);
        assert_eq!(names(&*store, "b/1"), ["b/1", "b/10"]);
        assert_eq!(names(&*store, "b"), ["b/1", "b/10", "b/2", "b/sub/1", "bc"]);
        assert_eq!(names(&*store, "").len(), 6);
        assert_eq!(names(&*store, "nothing/"), Vec::<String>::new());
        assert_eq!(store.list("b/sub/").unwrap(), [Listed { name: "b/sub/1".to_owned(), bytes: 7 }]);
    });
}

#[test]
fn what_is_deleted_is_gone_and_may_be_created_again() {
    every_store(|store, _| {
        store.delete("a/b").unwrap();
        store.put("a/b", b"first").unwrap();
        store.delete("a/b").unwrap();
        assert_eq!(store.get("a/b").unwrap(), None);
        assert_eq!(names(&*store, ""), Vec::<String>::new());
        assert_eq!(store.put("a/b", b"second").unwrap(), Put::Created);
    });
}

#[test]
fn a_file_comes_back_linked_or_copied_and_never_over_another() {
    every_store(|store, folder| {
        let (from, to) = (folder.join("from"), folder.join("to"));
        std::fs::write(&from, b"content").unwrap();
        assert_eq!(store.put_file("files/x", &from).unwrap(), Put::Created);
        assert_eq!(store.put_file("files/x", &from).unwrap(), Put::AlreadyExists);
        std::fs::remove_file(&from).unwrap();
        assert!(!store.fetch_file("files/y", &to, true).unwrap());
        assert!(!to.exists());
        for link in [true, false] {
            assert!(store.fetch_file("files/x", &to, link).unwrap());
            assert_eq!(std::fs::read(&to).unwrap(), b"content");
            store.fetch_file("files/x", &to, link).unwrap_err();
            std::fs::remove_file(&to).unwrap();
        }
        assert_eq!(store.get("files/x").unwrap().unwrap(), b"content");
    });
}

#[test]
fn names_that_a_directory_could_misread_are_refused() {
    every_store(|store, _| {
        for name in ["", "/a", "a/", "a//b", "../a", "a/..", ".tmp/a", "a b", "a\\b", "ä"] {
            let error = store.put(name, b"").unwrap_err();
            assert_eq!(error.certainty, Certainty::Determinate, "{name}");
        }
        assert_eq!(names(&*store, ""), Vec::<String>::new());
    });
}

#[test]
fn a_directory_opened_again_has_what_was_put_and_no_leftovers() {
    let folder = tempfile::tempdir().unwrap();
    LocalStore::open(folder.path()).unwrap().put("a/b/c", b"x").unwrap();
    // A put whose process died before its link.
    std::fs::write(folder.path().join(".tmp/4294967295-0-0"), b"half").unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    assert_eq!(names(&store, ""), ["a/b/c"]);
    assert_eq!(std::fs::read_dir(folder.path().join(".tmp")).unwrap().count(), 0);
}

#[test]
#[cfg(unix)]
fn a_directory_links_files_of_its_own_file_system() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path().join("store")).unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::write(&from, b"content").unwrap();
    store.put_file("x", &from).unwrap();
    store.fetch_file("x", &to, true).unwrap();
    assert_eq!(std::fs::metadata(&to).unwrap().ino(), std::fs::metadata(&from).unwrap().ino());
}

#[test]
#[cfg(target_os = "linux")]
fn a_directory_copies_files_of_another_file_system() {
    use std::os::unix::fs::MetadataExt as _;
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    assert_ne!(device(folder.path()), device(other.path()), "this test needs two file systems");
    let store = LocalStore::open(folder.path().join("store")).unwrap();
    let (from, to) = (other.path().join("from"), other.path().join("to"));
    std::fs::write(&from, b"content").unwrap();
    assert_eq!(store.put_file("x", &from).unwrap(), Put::Created);
    assert!(store.fetch_file("x", &to, true).unwrap());
    assert_eq!(std::fs::read(&to).unwrap(), b"content");
}

#[test]
fn a_faulty_store_tells_a_put_that_did_not_happen_from_one_that_may_have() {
    let odds = Odds { refuse: 200, lose_request: 200, lose_reply: 200, delay: 200, slow: 100 };
    let slow = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&slow);
    let store = FaultyStore::new(MemoryStore::new(), odds, 7).on_slow(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let (mut refused, mut doubtful) = (Vec::new(), 0);
    for number in 0..500 {
        let name = number.to_string();
        match store.put(&name, name.as_bytes()) {
            Ok(put) => assert_eq!(put, Put::Created),
            Err(error) if error.certainty == Certainty::Determinate => refused.push(name),
            Err(_) => doubtful += 1,
        }
    }
    let before = store.inner().list("").unwrap().len();
    let landed = store.land().unwrap();
    assert_eq!(store.inner().list("").unwrap().len(), before + landed);
    assert!(landed > 0 && doubtful > 200 && slow.load(Ordering::Relaxed) > 0);
    assert!(refused.len() > 50 && refused.iter().all(|name| store.inner().get(name).unwrap().is_none()));
}
