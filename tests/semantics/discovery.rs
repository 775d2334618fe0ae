//! Partitions that appear while the job runs, as those of Kafka do.

use crate::support::values;
use rivermark::connectors::LogSink;
use rivermark::simulation::Simulation;
use rivermark::source::{ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker};
use rivermark::{BoxError, Flow, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SEEDS: u64 = 20;
const RECORDS: u64 = 50;

/// One partition for who asks first, and another for all later. The first ends only when the second has been read.
#[derive(Clone, Default)]
struct Growing {
    asked: Arc<AtomicU64>,
    second_read: Arc<AtomicBool>,
}

struct GrowingReader {
    source: Growing,
    partition: u32,
    next: u64,
}

impl Source for Growing {
    type Item = u64;
    type Reader = GrowingReader;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let there = if self.asked.fetch_add(1, Ordering::Relaxed) == 0 { 1 } else { 2 };
        Ok((0..there).map(|number| SourcePartition { number, name: format!("growing[{number}]") }).collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<GrowingReader, BoxError> {
        let next = position.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        Ok(GrowingReader { source: self.clone(), partition, next })
    }
}

impl SourceReader<u64> for GrowingReader {
    fn poll(&mut self, _max: usize, records: &mut Records<'_, u64>) -> Result<Polled, BoxError> {
        if self.next < RECORDS {
            let value = u64::from(self.partition) * 1000 + self.next;
            records.push(self.next, Timestamp::MIN, value);
            self.next += 1;
            return Ok(Polled::Ready);
        }
        if self.partition == 1 {
            self.source.second_read.store(true, Ordering::Relaxed);
        }
        let may_end = self.source.second_read.load(Ordering::Relaxed);
        Ok(if may_end { Polled::Ended } else { Polled::Pending })
    }

    fn position(&self) -> Vec<u8> {
        self.next.to_le_bytes().to_vec()
    }
}

#[test]
fn a_partition_that_appears_later_is_read_from_its_beginning_and_once() {
    let expected: Vec<u64> = (0..RECORDS).chain(1000..1000 + RECORDS).collect();
    let mut while_running = 0;
    for seed in 0..SEEDS {
        let source = Growing::default();
        let flow = || {
            let flow = Flow::new("growing");
            flow.source(source.clone()).key_by(|n| n % 7).process(Passing).sink(LogSink::topic("out"));
            flow
        };
        let run = Simulation::seed(seed).crashes(2).run(|_| Ok(()), flow);
        let report = run.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let rows = values(&report.log, "out");
        let mut rows: Vec<u64> = rows.iter().map(|value| serde_json::from_slice(value).unwrap()).collect();
        rows.sort_unstable();
        assert_eq!(rows, expected, "seed {seed}");
        while_running += u64::from(report.attempts == 1);
    }
    assert!(while_running > 0, "each time a restart found it, not the running job");
}

/// Passes records on, behind an exchange.
#[derive(Clone)]
struct Passing;

impl rivermark::ProcessFunction<u64, u64> for Passing {
    type Out = u64;

    fn on_record(
        &mut self,
        _key: &u64,
        record: u64,
        cx: &mut rivermark::Context<'_, u64, u64>,
    ) -> Result<(), BoxError> {
        cx.emit(record);
        Ok(())
    }
}
