//! Tables in topics of the embedded log: the newest record of a key is its row, and a tombstone ends it.
//!
//! A topic that is compacted keeps the newest record of each key, so reading it from the beginning gives the table. The log's timestamp is a
//! row's event time.

use crate::format::{Format, Json};
use crate::log_sink::LogSink;
use crate::log_source::LogSource;
use rivermark_log::{Compaction, TopicOptions};
use rivermark_operators::{BoxError, Timestamp, Upsert};
use serde::{Serialize, de::DeserializeOwned};

/// Makes records of what the log has. A [`Format`] does so from the value alone.
pub trait DecodeRecord<T>: Clone + Send + Sync + 'static {
    /// The record of a key, a value and a timestamp.
    ///
    /// # Errors
    /// If the bytes are not the encoding of one.
    fn decode_record(&self, key: Option<&[u8]>, value: Option<&[u8]>, time: Timestamp)
    -> Result<T, BoxError>;
}

impl<T, F: Format<T>> DecodeRecord<T> for F {
    #[inline]
    fn decode_record(
        &self,
        _key: Option<&[u8]>,
        value: Option<&[u8]>,
        _time: Timestamp,
    ) -> Result<T, BoxError> {
        self.decode(value.unwrap_or_default())
    }
}

/// Reads keys and values by a format, and a record without a value as a delete.
#[derive(Copy, Clone, Debug, Default)]
pub struct Upserts<F>(pub F);

impl<K, V, F: Format<K> + Format<V>> DecodeRecord<Upsert<K, V>> for Upserts<F> {
    fn decode_record(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        time: Timestamp,
    ) -> Result<Upsert<K, V>, BoxError> {
        let key = key.ok_or("a record of a table has no key")?;
        let value = value.map(|bytes| self.0.decode(bytes)).transpose()?;
        Ok(Upsert { key: self.0.decode(key)?, value, time })
    }
}

impl<K, V> LogSource<Upsert<K, V>, Json> {
    /// Reads a topic of keys and values, both JSON, as upserts and deletes; `.event_time(|row| row.time, ..).to_table()` makes them a table. A
    /// record without a key cannot be decoded. For another format: `.format(Upserts(Bincode))`.
    pub fn table(topic: impl Into<String>) -> LogSource<Upsert<K, V>, Upserts<Json>> {
        LogSource::topic(topic).format(Upserts(Json))
    }
}

impl<K, V> LogSink<Upsert<K, V>>
where
    K: Serialize + DeserializeOwned + 'static,
    V: Serialize + DeserializeOwned + 'static,
{
    /// Writes a table's upserts to a topic, keys and values as JSON, and deletes as tombstones. The topic is compacted, and has one partition, if
    /// it is not there; if it is, it is taken as it is. The rows of a key are in one partition, in order.
    pub fn table(topic: impl Into<String>) -> Self {
        Self::table_in(topic, Json)
    }

    /// Writes a table's upserts as the output `alias` of the flow: each version has a topic of its own, and readers of the alias
    /// ([`AliasSource::table`](crate::AliasSource::table)) follow the version that is live; when that changes they are given the rows in which the
    /// new version's table differs, and tombstones of those that it does not have. Otherwise as [`LogSink::table`].
    pub fn output_table(alias: impl Into<String>) -> Self {
        Self::table(alias).upserts_of_alias()
    }

    /// As [`LogSink::table`], with keys and values in another format. The same key must always have the same encoding.
    pub fn table_in<F: Format<K> + Format<V>>(topic: impl Into<String>, format: F) -> Self {
        let keys = format.clone();
        let encode = move |row: &Upsert<K, V>, bytes: &mut Vec<u8>| match &row.value {
            Some(value) => format.encode(value, bytes).map(|()| true),
            None => Ok(false),
        };
        let key = move |row: &Upsert<K, V>| {
            let mut bytes = Vec::new();
            keys.encode(&row.key, &mut bytes)?;
            Ok(bytes)
        };
        let compacted = TopicOptions::new(1).compaction(Compaction::default());
        LogSink::encoded(topic.into(), encode, compacted).try_key(key)
    }
}
