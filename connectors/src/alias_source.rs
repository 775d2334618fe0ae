//! Reading what a flow writes, whichever of its versions is live.

use crate::format::Json;
use crate::log_source::{log_of, start_of};
use crate::log_table::{DecodeRecord, Upserts};
use rivermark_log::{AliasReader, Aliases, Position};
use rivermark_operators::source::{
    ConnectorContext, Polled, Records, Source, SourcePartition, SourceReader, Waker,
};
use rivermark_operators::{BoxError, Timestamp, Upsert};
use std::collections::VecDeque;
use std::marker::PhantomData;

/// An output of a flow as a source: what [`LogSink::output`](crate::LogSink::output) names, of the version that is live. When another version
/// becomes live it goes on there, with no gap and no duplicate.
///
/// The offsets of its records are those of the alias, which do not begin anew when versions change, so checkpoints and lateness are as with a
/// topic. It never ends.
pub struct AliasSource<T, F = Json> {
    alias: String,
    format: F,
    start: Position,
    records: PhantomData<fn() -> T>,
}

impl<T> AliasSource<T, Json> {
    /// Reads the output `alias` from the earliest record that there is, as JSON.
    pub fn of(alias: impl Into<String>) -> Self {
        AliasSource { alias: alias.into(), format: Json, start: Position::Earliest, records: PhantomData }
    }
}

impl<K, V> AliasSource<Upsert<K, V>, Json> {
    /// As [`LogSource::table`](crate::LogSource::table), of an output of upserts.
    pub fn table(alias: impl Into<String>) -> AliasSource<Upsert<K, V>, Upserts<Json>> {
        AliasSource::of(alias).format(Upserts(Json))
    }
}

impl<T, F> AliasSource<T, F> {
    /// Where a partition begins that no checkpoint has a position for. Default: the earliest record.
    pub fn starting_from(mut self, start: Position) -> Self {
        self.start = start;
        self
    }

    /// Decodes values by another format.
    pub fn format<G>(self, format: G) -> AliasSource<T, G> {
        AliasSource { alias: self.alias, format, start: self.start, records: PhantomData }
    }
}

impl<T: Send + 'static, F: DecodeRecord<T>> Source for AliasSource<T, F> {
    type Item = T;
    type Reader = AliasSourceReader<T, F>;

    fn partitions(&self, cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let segments = aliases_of(cx)?.get(&self.alias).ok_or_else(|| {
            format!(
                "no flow that is deployed in this engine writes output `{}`; deploy it first, or correct the name",
                self.alias
            )
        })?;
        let Some(last) = segments.last() else { return Ok(Vec::new()) };
        let partitions = log_of(cx)?.topic(&last.topic)?.partitions();
        let partition = |number| SourcePartition { number, name: format!("{}[{number}]", self.alias) };
        Ok((0..partitions).map(partition).collect())
    }

    fn reader(
        &self,
        partition: u32,
        position: Option<&[u8]>,
        waker: Waker,
        cx: &ConnectorContext<'_>,
    ) -> Result<AliasSourceReader<T, F>, BoxError> {
        let start = start_of(position, self.start, "an output")?;
        let mut reader = aliases_of(cx)?.reader(log_of(cx)?, &self.alias, partition, start)?;
        reader.wake_with(move || waker.wake());
        Ok(AliasSourceReader {
            next: reader.position(),
            reader,
            format: self.format.clone(),
            ahead: VecDeque::new(),
            records: PhantomData,
        })
    }
}

fn aliases_of<'a>(cx: &ConnectorContext<'a>) -> Result<&'a Aliases, BoxError> {
    cx.resources.get::<Aliases>().ok_or_else(|| {
        format!("`{}` needs the outputs of deployed flows, which this engine does not offer", cx.name).into()
    })
}

/// A record that was read and not yet given out: offset, time, key, value.
type Ahead = (u64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// Reads one partition of an [`AliasSource`].
pub struct AliasSourceReader<T, F> {
    reader: AliasReader,
    format: F,
    /// The offset after the last record that was given out.
    next: u64,
    ahead: VecDeque<Ahead>,
    records: PhantomData<fn() -> T>,
}

impl<T, F: DecodeRecord<T>> SourceReader<T> for AliasSourceReader<T, F> {
    fn poll(&mut self, max: usize, records: &mut Records<'_, T>) -> Result<Polled, BoxError> {
        let mut given = 0;
        loop {
            while given < max {
                let Some((offset, time, key, value)) = self.ahead.front() else { break };
                let bytes = value.as_ref().map_or(0, Vec::len) + key.as_ref().map_or(0, Vec::len);
                let at = Timestamp::from_millis(*time);
                match self.format.decode_record(key.as_deref(), value.as_deref(), at) {
                    Ok(row) => records.push(*offset, at, row),
                    // On an error it stays in front, and is an error again.
                    Err(error) => records.undecodable(*offset, key.as_deref(), value.as_deref(), error)?,
                }
                records.add_bytes(bytes as u64);
                (self.next, given) = (*offset + 1, given + 1);
                self.ahead.pop_front();
            }
            if given == max {
                return Ok(Polled::Ready);
            }
            let Some(batch) = self.reader.next_batch()? else {
                return Ok(if given > 0 { Polled::Ready } else { Polled::Pending });
            };
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let read = batch.map(|row| (row.offset, row.timestamp, owned(row.key), owned(row.value)));
            self.ahead.extend(read);
        }
    }

    fn position(&self) -> Vec<u8> {
        self.next.to_le_bytes().to_vec()
    }
}
