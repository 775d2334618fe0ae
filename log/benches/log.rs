//! The log against what its medium alone allows.
//!
//! `speed_of_light` is the floor: the same bytes, in the same pieces, written to a fresh file, or read from the page cache and checksummed. Compare
//! within one run only; the targets are a third of the raw write for appending, half of the raw read and checksum for reading.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rivermark_log::Disk;
use rivermark_log::{
    Compression, Durability, FileDisk, Isolation, Log, LogOptions, Position, RecordBatch, Sequence, Topic,
    TopicOptions,
};
use std::hint::black_box;
use std::time::Duration;
use tempfile::TempDir;

const RECORDS_A_BATCH: usize = 1_000;
const BATCHES: usize = 640;
const VALUE_BYTES: usize = 100;
const READ_AHEAD: usize = 256 << 10;

fn fresh(compression: Compression) -> (TempDir, Log, Topic) {
    let folder = tempfile::tempdir().unwrap();
    let log =
        Log::open(folder.path().join("log"), LogOptions::new().durability(Durability::OsBuffered)).unwrap();
    let topic = log.create_topic("t", TopicOptions::new(1).compression(compression)).unwrap();
    (folder, log, topic)
}

/// Values that compress by about half, as events do.
fn values() -> Vec<Vec<u8>> {
    let mut state = 7_u64;
    let mut byte = |i: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if i.is_multiple_of(2) { b'x' } else { (state >> 56) as u8 }
    };
    (0..RECORDS_A_BATCH).map(|_| (0..VALUE_BYTES).map(&mut byte).collect()).collect()
}

fn fill(batch: &mut RecordBatch, values: &[Vec<u8>]) {
    values.iter().enumerate().for_each(|(i, value)| batch.push(None, Some(value), i as i64));
}

fn append_all(topic: &Topic, batch: &mut RecordBatch, values: &[Vec<u8>]) {
    for _ in 0..BATCHES {
        fill(batch, values);
        topic.append(0, batch).unwrap();
    }
}

fn append(c: &mut Criterion) {
    let values = values();
    let mut group = c.benchmark_group("append");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    group.throughput(Throughput::Elements((BATCHES * RECORDS_A_BATCH) as u64));
    let piece = vec![b'x'; RECORDS_A_BATCH * (VALUE_BYTES + 5) + 84];
    group.bench_function("speed_of_light", |b| {
        b.iter_batched(
            || {
                let folder = tempfile::tempdir().unwrap();
                let file = FileDisk.create(&folder.path().join("raw")).unwrap();
                (folder, file)
            },
            |(folder, file)| {
                for i in 0..BATCHES {
                    file.write_at(&piece, (i * piece.len()) as u64).unwrap();
                }
                folder
            },
            BatchSize::PerIteration,
        );
    });
    for (name, compression) in
        [("plain", Compression::None), ("lz4", Compression::Lz4), ("zstd_1", Compression::Zstd(1))]
    {
        group.bench_function(name, |b| {
            let mut batch = RecordBatch::new();
            b.iter_batched(
                || fresh(compression),
                |log| {
                    append_all(&log.2, &mut batch, &values);
                    log
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn append_one(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_one_record");
    group.throughput(Throughput::Elements(1));
    let value = [b'x'; VALUE_BYTES];
    let (_folder, _log, topic) = fresh(Compression::None);
    let mut batch = RecordBatch::new();
    group.bench_function("plain", |b| {
        b.iter(|| {
            batch.push(None, Some(&value), 0);
            topic.append(0, &mut batch).unwrap()
        });
    });
    let mut sequence = 0;
    group.bench_function("idempotent", |b| {
        b.iter(|| {
            batch.push(None, Some(&value), 0);
            let appended = topic.append_once(0, &mut batch, Sequence { producer: 1, sequence }).unwrap();
            sequence += 1;
            appended
        });
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    let values = values();
    let mut group = c.benchmark_group("read");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    group.throughput(Throughput::Elements((BATCHES * RECORDS_A_BATCH) as u64));
    for (name, compression) in
        [("plain", Compression::None), ("lz4", Compression::Lz4), ("zstd_1", Compression::Zstd(1))]
    {
        let (folder, _log, topic) = fresh(compression);
        append_all(&topic, &mut RecordBatch::new(), &values);
        if compression == Compression::None {
            let path = folder.path().join("log/topics/t/0/00000000000000000000.log");
            let file = FileDisk.open(&path).unwrap();
            let mut buffer = vec![0; READ_AHEAD];
            group.bench_function("speed_of_light", |b| {
                b.iter(|| {
                    let (mut position, mut sum) = (0, 0_u32);
                    loop {
                        let read = file.read_at(&mut buffer, position).unwrap();
                        if read == 0 {
                            return sum;
                        }
                        sum ^= crc32c::crc32c(&buffer[..read]);
                        position += read as u64;
                    }
                });
            });
        }
        group.bench_function(name, |b| {
            let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
            b.iter(|| {
                reader.seek(Position::Earliest).unwrap();
                let mut bytes = 0;
                while let Some(records) = reader.next_batch().unwrap() {
                    for record in records {
                        bytes += black_box(record).value.map_or(0, <[u8]>::len);
                    }
                }
                assert_eq!(bytes, BATCHES * RECORDS_A_BATCH * VALUE_BYTES);
            });
        });
    }
    group.finish();
}

fn transactions(c: &mut Criterion) {
    let values = values();
    let mut group = c.benchmark_group("transaction");
    group.sample_size(10);
    group.throughput(Throughput::Elements((100 * RECORDS_A_BATCH) as u64));
    let (_folder, log, topic) = fresh(Compression::None);
    let sink = log.transactional("sink", 1).unwrap();
    let mut batch = RecordBatch::new();
    let mut epoch = 0;
    group.bench_function("begin_append_10_MB_prepare_commit", |b| {
        b.iter(|| {
            epoch += 1;
            sink.begin(epoch).unwrap();
            for _ in 0..100 {
                fill(&mut batch, &values);
                sink.append(epoch, &topic, 0, &mut batch).unwrap();
            }
            sink.prepare(epoch).unwrap();
            sink.commit(epoch).unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, append, append_one, read, transactions);
criterion_main!(benches);
