//! The source of every case: records of a few partitions, at a pace that is counted in polls.

use rivermark::BoxError;
use rivermark::connectors::Collect;
use rivermark::source::{
    ConnectorContext, Polled, RawRecord, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark::{Timestamp, Watermarks, millis};
use std::sync::Arc;

/// Key, time in milliseconds, and value.
pub type Record = (u8, i64, i64);

/// How long a partition is silent before nobody waits for it any more, where one is. Under simulation, that is twice as long as any of the
/// others waits for its turn among eight workers, and half as long as they take together with one.
const SILENCE_MS: u64 = 400;

/// How a case is fed.
#[derive(Clone)]
pub enum Pace {
    /// As many records a poll as are wanted.
    Full,
    /// One record in ten polls.
    Tenth,
    /// One record in forty polls, and another partition that is silent until a row has come out: if everybody waited for it, none would.
    Idle(Collect<String>),
}

impl Pace {
    pub fn watermarks(&self) -> Watermarks {
        // Less than the greatest delay, so that some records are late.
        let watermarks = Watermarks::bounded(millis(15));
        if matches!(self, Pace::Idle(_)) { watermarks.idle_after(millis(SILENCE_MS)) } else { watermarks }
    }
}

/// Partitions of records out of order, some of them late; another `seed` gives others.
pub fn records(seed: i64) -> Vec<Vec<Record>> {
    let record = |partition: i64, n: i64| {
        let delay = if n % 17 == 16 { 60 } else { (n * 37 + partition * 11 + seed) % 15 };
        let key = (n * 5 + partition + seed) % 6;
        (key as u8, 5 * n - delay, (n * 31 + partition * 7 + seed) % 23)
    };
    (0..3).map(|partition| (0..80).map(|n| record(partition, n)).collect()).collect()
}

#[derive(Clone)]
pub struct Feed {
    partitions: Arc<Vec<Vec<Record>>>,
    pace: Pace,
    /// A value that is given as if it could not be decoded.
    undecodable: Option<i64>,
}

impl Feed {
    pub fn new(mut partitions: Vec<Vec<Record>>, pace: &Pace) -> Feed {
        if matches!(pace, Pace::Idle(_)) {
            partitions.push(Vec::new());
        }
        Feed { partitions: Arc::new(partitions), pace: pace.clone(), undecodable: None }
    }

    pub fn undecodable(self, value: i64) -> Feed {
        Feed { undecodable: Some(value), ..self }
    }
}

pub struct FeedReader {
    feed: Feed,
    partition: usize,
    next: usize,
    polls: u32,
}

impl Source for Feed {
    type Item = Record;
    type Reader = FeedReader;

    fn partitions(&self, _cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let partition = |number| SourcePartition { number, name: format!("feed[{number}]") };
        Ok((0..self.partitions.len() as u32).map(partition).collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        _waker: Waker,
        _cx: &ConnectorContext<'_>,
    ) -> Result<FeedReader, BoxError> {
        let next = position.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_le_bytes))?;
        Ok(FeedReader { feed: self.clone(), partition: partition as usize, next: next as usize, polls: 0 })
    }

    fn raw_records(
        &self,
        partition: u32,
        offsets: &[u64],
        _cx: &ConnectorContext<'_>,
    ) -> Result<Vec<Option<RawRecord>>, BoxError> {
        let raw = |offset: &u64| {
            let value = format!("{:?}", self.partitions[partition as usize][*offset as usize]);
            Some(RawRecord { key: None, value: Some(value.into_bytes()) })
        };
        Ok(offsets.iter().map(raw).collect())
    }
}

impl SourceReader<Record> for FeedReader {
    fn poll(&mut self, max: usize, records: &mut Records<'_, Record>) -> Result<Polled, BoxError> {
        self.polls += 1;
        let left = &self.feed.partitions[self.partition][self.next..];
        let is_held = match &self.feed.pace {
            Pace::Full => false,
            Pace::Idle(rows) if left.is_empty() => rows.rows().is_empty(),
            Pace::Idle(_) => !self.polls.is_multiple_of(40),
            Pace::Tenth => !self.polls.is_multiple_of(10),
        };
        if is_held {
            return Ok(Polled::Pending);
        }
        let most = if matches!(self.feed.pace, Pace::Full) { max } else { 1 };
        for record in left.iter().take(most) {
            if self.feed.undecodable == Some(record.2) {
                records.undecodable(self.next as u64, None, Some(&[record.2 as u8]), "it is that value")?;
            } else {
                records.push(self.next as u64, Timestamp::MIN, *record);
            }
            self.next += 1;
        }
        Ok(if left.len() <= most { Polled::Ended } else { Polled::Ready })
    }

    fn position(&self) -> Vec<u8> {
        (self.next as u64).to_le_bytes().to_vec()
    }
}
