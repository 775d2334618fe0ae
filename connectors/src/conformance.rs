//! What every source and sink must do, as tests that anyone can run on theirs.
//!
//! They panic with what was expected and what was found, so they are called from a `#[test]`. Every connector of this crate passes
//! them (`tests/it/main.rs`).

use rivermark_operators::plan::Resources;
use rivermark_operators::sink::{Batch, Committer, Epoch, Sink, SinkContext, SinkWriter};
use rivermark_operators::source::{ConnectorContext, Polled, Records, Source, SourceReader, Waker};
use rivermark_operators::{Stamp, Timestamp};
use std::fmt::Debug;

fn context(resources: &Resources) -> ConnectorContext<'_> {
    ConnectorContext { flow: "conformance", version: 1, name: "tested", resources }
}

/// Polls until the end or the tail, up to `most` records. Answers offsets and values.
fn read<T>(reader: &mut impl SourceReader<T>, per_poll: usize, most: usize) -> (Vec<(u64, T)>, Polled) {
    let mut read = Vec::new();
    let mut polled = Polled::Ready;
    while polled == Polled::Ready && read.len() < most {
        let mut batch = Batch::new();
        let wanted = per_poll.min(most - read.len());
        polled = reader.poll(wanted, &mut Records::into_batch(&mut batch)).expect("polling");
        assert!(batch.len() <= wanted, "a poll for at most {wanted} records gave {}", batch.len());
        read.extend(
            batch.drain().map(|(stamp, value)| (stamp.origin.offset().expect("it has an offset"), value)),
        );
    }
    (read, polled)
}

/// Checks a source that ends or comes to a tail, without errors: partitions are stable; offsets rise; reading on from the position after any record
/// gives the rest; how many are asked for at once changes nothing; an end is an end for ever; records that are read again by offset are the same
/// alone and together.
///
/// # Panics
/// If the source does otherwise.
pub fn check_source<S: Source>(source: &S, resources: &Resources)
where
    S::Item: PartialEq + Debug + Clone,
{
    let cx = context(resources);
    let partitions = source.partitions(&cx).expect("listing partitions");
    assert!(!partitions.is_empty(), "a source to be checked needs a partition");
    assert_eq!(
        source.partitions(&cx).expect("listing partitions"),
        partitions,
        "partitions change for no reason"
    );
    for partition in partitions {
        let open = |position: Option<&[u8]>| {
            source.reader(partition.number, position, Waker::none(), &cx).expect("opening a reader")
        };
        let mut reader = open(None);
        let (all, end) = read(&mut reader, usize::MAX, usize::MAX);
        let rising = all.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(rising, "{}: offsets do not rise", partition.name);
        let (more, again) = read(&mut reader, 10, 10);
        assert_eq!((more.len(), again), (0, end), "{}: after the end", partition.name);
        for per_poll in [1, 3] {
            let (slowly, end_slowly) = read(&mut open(None), per_poll, usize::MAX);
            assert_eq!(
                (&slowly, end_slowly),
                (&all, end),
                "{}: {per_poll} records at a time",
                partition.name
            );
        }
        for taken in 0..=all.len() {
            let mut reader = open(None);
            let (first, _) = read(&mut reader, 2, taken);
            assert_eq!(first, all[..taken], "{}: the first {taken}", partition.name);
            let position = reader.position();
            drop(reader);
            let (rest, _) = read(&mut open(Some(&position)), 2, usize::MAX);
            assert_eq!(rest, all[taken..], "{}: the rest after {taken}", partition.name);
        }
        let offsets: Vec<u64> = all.iter().map(|(offset, _)| *offset).collect();
        let raw =
            |offsets: &[u64]| source.raw_records(partition.number, offsets, &cx).expect("reading again");
        let together = raw(&offsets);
        assert_eq!(together.len(), all.len(), "{}: an answer for each record read again", partition.name);
        for (offset, expected) in offsets.iter().zip(&together) {
            let alone = raw(&[*offset]);
            assert_eq!(alone.first(), Some(expected), "{}: offset {offset} read again", partition.name);
        }
    }
}

struct Opened<W> {
    writers: Vec<W>,
    committer: Box<dyn Committer>,
}

fn open_sink<T, S: Sink<T>>(
    sink: &S,
    resources: &Resources,
    generation: u64,
    workers: usize,
    tokens: &[Vec<u8>],
) -> Opened<S::Writer> {
    let sink_context = |worker| SinkContext { connector: context(resources), worker, generation };
    let mut committer = sink.committer(&sink_context(0)).expect("opening the committer");
    committer.recover(tokens).expect("recovering");
    let writers = (0..workers).map(|worker| sink.writer(&sink_context(worker)).expect("opening a writer"));
    Opened { writers: writers.collect(), committer }
}

fn write<T>(writer: &mut impl SinkWriter<T>, row: T) {
    let mut batch: Batch<T> = [(Stamp::derived(Timestamp::from_millis(0)), row)].into_iter().collect();
    writer.write(&mut batch).expect("writing");
    assert!(batch.is_empty(), "a writer takes all records out of the batch");
}

/// Checks a sink: nothing is visible before its commit; committing is idempotent, also in a new attempt; recovering commits what it is told to,
/// throws away the rest and fences older attempts; epochs may be committed while the next is being written; an epoch without rows is
/// nothing. `make` gives a fresh sink and what it needs, `row` makes the n-th row, and `visible` reads what can be seen.
///
/// # Panics
/// If the sink does otherwise.
pub fn check_sink<T: PartialEq + Debug + Ord + Clone, S: Sink<T>>(
    mut make: impl FnMut() -> (S, Resources),
    row: impl Fn(u64) -> T,
    visible: impl Fn(&S, &Resources) -> Vec<T>,
) {
    let rows = |numbers: &[u64]| {
        let mut rows: Vec<T> = numbers.iter().map(|n| row(*n)).collect();
        rows.sort();
        rows
    };
    let seen = |sink: &S, resources: &Resources| {
        let mut seen = visible(sink, resources);
        seen.sort();
        seen
    };

    // One attempt: two workers, two overlapping epochs, every commit twice.
    let (sink, resources) = make();
    let mut first = open_sink(&sink, &resources, 1, 2, &[]);
    write(&mut first.writers[0], row(1));
    write(&mut first.writers[1], row(2));
    assert_eq!(seen(&sink, &resources), rows(&[]), "written, and not prepared");
    let mut prepare = |epoch| -> Vec<Vec<u8>> {
        let tokens = first.writers.iter_mut().map(|writer| writer.prepare(Epoch(epoch)).expect("preparing"));
        tokens.flatten().collect()
    };
    let one = prepare(1);
    assert_eq!(one.len(), 2, "each worker with rows has a token");
    assert_eq!(prepare(2), Vec::<Vec<u8>>::new(), "an epoch without rows has no token");
    assert_eq!(seen(&sink, &resources), rows(&[]), "prepared, and not committed");
    write(&mut first.writers[0], row(3));
    for _ in 0..2 {
        first.committer.sync(&one).expect("syncing");
    }
    assert_eq!(seen(&sink, &resources), rows(&[]), "durable, and not committed");
    for _ in 0..2 {
        first.committer.commit(Epoch(1), &one).expect("committing");
        assert_eq!(seen(&sink, &resources), rows(&[1, 2]), "committed, with the next epoch open");
    }
    let three: Vec<Vec<u8>> = first.writers[0].prepare(Epoch(3)).expect("preparing").into_iter().collect();
    first.committer.sync(&three).expect("syncing");
    write(&mut first.writers[0], row(4));
    let four: Vec<Vec<u8>> = first.writers[0].prepare(Epoch(4)).expect("preparing").into_iter().collect();
    write(&mut first.writers[1], row(5));

    // The process dies: epoch 3 was stored, 4 was not, 5 is half written. The new attempt has another number of workers.
    let mut second = open_sink(&sink, &resources, 2, 1, &three);
    assert_eq!(
        seen(&sink, &resources),
        rows(&[1, 2, 3]),
        "recovering commits what was stored, and only that"
    );
    // The old process wakes.
    let late = first.writers[1].prepare(Epoch(4)).ok().flatten();
    let tokens: Vec<Vec<u8>> = four.into_iter().chain(late).collect();
    for token in tokens {
        let token = [token];
        let committed = first.committer.sync(&token).and_then(|()| first.committer.commit(Epoch(4), &token));
        assert!(committed.is_err(), "a fenced attempt commits");
    }
    assert_eq!(seen(&sink, &resources), rows(&[1, 2, 3]), "after a fenced attempt woke");
    // Its rows come again in the new one, and what was committed long ago may be committed again.
    write(&mut second.writers[0], row(4));
    write(&mut second.writers[0], row(5));
    let again: Vec<Vec<u8>> = second.writers[0].prepare(Epoch(4)).expect("preparing").into_iter().collect();
    second.committer.commit(Epoch(3), &three).expect("committing again");
    second.committer.sync(&again).expect("syncing");
    second.committer.commit(Epoch(4), &again).expect("committing");
    assert_eq!(seen(&sink, &resources), rows(&[1, 2, 3, 4, 5]), "every row once");

    // What was prepared and not stored is thrown away by the next attempt.
    write(&mut second.writers[0], row(6));
    let six: Vec<Vec<u8>> = second.writers[0].prepare(Epoch(5)).expect("preparing").into_iter().collect();
    let mut third = open_sink(&sink, &resources, 3, 3, &again);
    let committed = third.committer.sync(&six).and_then(|()| third.committer.commit(Epoch(5), &six));
    assert!(committed.is_err(), "what was thrown away is committed");
    assert_eq!(
        seen(&sink, &resources),
        rows(&[1, 2, 3, 4, 5]),
        "after another recovery from the same checkpoint"
    );
}
