//! A source that gives a few records at a time, so that much can happen between.

use rivermark::BoxError;
use rivermark::source::{
    ConnectorContext, Polled, RawRecord, Records, Source, SourcePartition, SourceReader, Waker,
};

/// `source`, at most `most` records a poll.
pub struct Sips<S> {
    pub source: S,
    pub most: usize,
}

pub struct Sipping<R> {
    reader: R,
    most: usize,
}

impl<S: Source> Source for Sips<S> {
    type Item = S::Item;
    type Reader = Sipping<S::Reader>;

    fn partitions(&self, cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        self.source.partitions(cx)
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        waker: Waker,
        cx: &ConnectorContext<'_>,
    ) -> Result<Self::Reader, BoxError> {
        Ok(Sipping { reader: self.source.reader(partition, position, waker, cx)?, most: self.most })
    }

    fn raw_records(
        &self,
        partition: u32,
        offsets: &[u64],
        cx: &ConnectorContext<'_>,
    ) -> Result<Vec<Option<RawRecord>>, BoxError> {
        self.source.raw_records(partition, offsets, cx)
    }
}

impl<T, R: SourceReader<T>> SourceReader<T> for Sipping<R> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        self.reader.poll(max.min(self.most), records)
    }

    fn position(&self) -> Vec<u8> {
        self.reader.position()
    }
}
