//! Partitions that are silent, and partitions that run ahead.

use crate::support::{Event, Lab, deadline, event};
use rivermark::connectors::Collect;
use rivermark::source::{ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker};
use rivermark::{
    BoxError, Engine, Flow, Job, Options, StateBackend, Timestamp, Watermarks, Windowed, Windows, millis,
};
use std::sync::{Arc, Mutex};

/// Vectors, one record a poll, that note what was polled; live ones never end.
#[derive(Clone)]
struct Noting {
    partitions: Arc<Vec<Vec<Event>>>,
    polled: Arc<Mutex<Vec<(u32, i64)>>>,
    live: bool,
}

impl Noting {
    fn new(partitions: Vec<Vec<Event>>, live: bool) -> Noting {
        Noting { partitions: Arc::new(partitions), polled: Arc::default(), live }
    }
}

struct NotingReader {
    source: Noting,
    partition: u32,
    next: usize,
}

impl Source for Noting {
    type Item = Event;
    type Reader = NotingReader;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let partition = |number| SourcePartition { number, name: format!("noting[{number}]") };
        Ok((0..self.partitions.len() as u32).map(partition).collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<NotingReader, BoxError> {
        let next = position.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        Ok(NotingReader { source: self.clone(), partition, next: next as usize })
    }
}

impl SourceReader<Event> for NotingReader {
    fn poll(&mut self, _max: usize, records: &mut Records<'_, Event>) -> Result<Polled, BoxError> {
        let end = if self.source.live { Polled::Pending } else { Polled::Ended };
        let Some(event) = self.source.partitions[self.partition as usize].get(self.next) else {
            return Ok(end);
        };
        self.source.polled.lock().unwrap().push((self.partition, event.time));
        records.push(self.next as u64, Timestamp::MIN, event.clone());
        self.next += 1;
        Ok(Polled::Ready)
    }

    fn position(&self) -> Vec<u8> {
        (self.next as u64).to_le_bytes().to_vec()
    }
}

fn time(event: &Event) -> Timestamp {
    Timestamp::from_millis(event.time)
}

/// Starts a live job over one busy partition and one without a record: windows of 10 ms.
fn with_a_silent_partition(watermarks: Watermarks) -> (tempfile::TempDir, Job, Collect<Windowed<u8, u64>>) {
    let busy = (0..100).map(|n| event(0, n, 1)).collect();
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(2).state_backend(StateBackend::Memory).checkpoint_every(millis(5));
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let (flow, rows) = (Flow::new("silent"), Collect::new());
    flow.source(Noting::new(vec![busy, Vec::new()], true))
        .event_time(time, watermarks)
        .key_by(|e| e.key)
        .window(Windows::tumbling(millis(10)))
        .count()
        .sink(rows.clone());
    (directory, engine.start(flow).unwrap(), rows)
}

#[test]
fn a_silent_partition_holds_windows_until_it_is_declared_idle() {
    let is_late = deadline();
    let (_directory, job, rows) = with_a_silent_partition(Watermarks::monotonous());
    // All is read, and three checkpoints later nothing has been published.
    assert!(job.wait_until(|job| job.metrics().records_read == 100 || is_late()));
    let then = job.metrics().checkpoints_completed;
    assert!(job.wait_until(|job| job.metrics().checkpoints_completed >= then + 3 || is_late()));
    assert!(!is_late(), "it hangs: {:?}", job.status());
    assert_eq!(rows.rows(), []);
    job.stop();
    job.wait().unwrap();

    let (_directory, job, rows) = with_a_silent_partition(Watermarks::monotonous().idle_after(millis(20)));
    // The last window is still open.
    assert!(job.wait_until(|_| rows.rows().len() >= 9 || is_late()));
    assert!(!is_late(), "it hangs: {:?}", job.status());
    let counts: Vec<u64> = rows.rows().iter().map(|row| row.value).collect();
    assert_eq!(counts, [10; 9]);
    job.stop();
    job.wait().unwrap();
}

/// How far ahead of the slowest partition a record was that was read, at the most.
fn greatest_drift(workers: usize, watermarks: Watermarks) -> i64 {
    let partitions = [1, 7, 40].map(|step| (0..300).map(|n| event(0, n * step, 1)).collect::<Vec<_>>());
    let lengths = partitions.clone().map(|partition| partition.len());
    let source = Noting::new(partitions.to_vec(), false);
    let polled = Arc::clone(&source.polled);
    let (lab, rows) = (Lab::new(workers, StateBackend::Memory), Collect::new());
    let flow = lab.flow();
    flow.source(source)
        .event_time(time, watermarks)
        .key_by(|e| e.key)
        .window(Windows::tumbling(millis(1000)))
        .count()
        .sink(rows.clone());
    lab.engine().run(flow).unwrap();
    assert_eq!(rows.rows().iter().map(|row| row.value).sum::<u64>(), 900, "alignment changes no result");
    let (mut reached, mut read, mut greatest) = ([i64::MIN; 3], [0; 3], 0);
    for (partition, time) in polled.lock().unwrap().iter() {
        let at = *partition as usize;
        let others = (0..3).filter(|other| *other != at && read[*other] < lengths[*other]);
        if let Some(slowest) = others.map(|other| reached[other]).min().filter(|slowest| *slowest > i64::MIN)
        {
            // Whether a partition may be read is decided by where it was before.
            greatest = greatest.max(reached[at].saturating_sub(slowest));
        }
        (reached[at], read[at]) = (*time, read[at] + 1);
    }
    greatest
}

#[test]
fn aligned_partitions_stay_within_their_drift() {
    for workers in [1, 3] {
        let free = greatest_drift(workers, Watermarks::monotonous());
        assert!(free > 2000, "{workers} workers: nothing runs ahead by itself, only {free} ms");
        let aligned = greatest_drift(workers, Watermarks::monotonous().align_within(millis(100)));
        assert!(aligned <= 100, "{workers} workers: {aligned} ms");
    }
}
