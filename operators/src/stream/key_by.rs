//! `key_by`, `into_keyed`: give each record a key, by which everything downstream is told apart.

use super::Stream;
use crate::batch::Batch;
use crate::context::{BlameCell, TaskContext};
use crate::edge::{Operator, Output, Signal};
use crate::error::Result;
use crate::exchange::{self, Keyed};
use crate::plan::{NodeKind, NodeSpec};
use crate::process::EventTimeOrder;
use rivermark_state::{Key, hash_key};
use std::sync::Arc;

impl<V: Send + 'static> Stream<V> {
    /// Gives each record a key. What follows sees all records of one key on one worker, those of each source partition in order.
    ///
    /// The key's `Hash` decides which worker and which part of a checkpoint it belongs to, so it must not change between
    /// versions of a program that share a checkpoint; derived implementations do not.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// testing::check(|it| {
    ///     let (words, stream) = it.input::<&str>();
    ///     // By their length.
    ///     let counts = stream.key_by(|word| word.len()).window(Windows::tumbling(millis(10))).count();
    ///     let rows = it.output(counts.map(|row| (row.key, row.value)));
    ///     ["to", "be", "or", "not"].into_iter().for_each(|word| it.push(&words, Timestamp::from_millis(3), word));
    ///     it.end(&words);
    ///     let mut rows = it.take(&rows);
    ///     rows.sort();
    ///     assert_eq!(rows, [(2, 3), (3, 1)]);
    /// });
    /// ```
    pub fn key_by<K: Key>(self, key: impl Fn(&V) -> K + Clone + Send + Sync + 'static) -> KeyedStream<K, V> {
        self.pairing("key_by", move |value| Some((key(&value), value)))
    }

    /// Replaces each record by the key and the value that `pair` makes of it, where it makes something: `filter_map` and [`key_by`](Self::key_by) in
    /// one pass, and what is the key need not be in the value again. The pair has the record's time and provenance.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// testing::check(|it| {
    ///     let (lines, stream) = it.input::<&str>();
    ///     let settings = stream.into_keyed(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value)));
    ///     let counts = settings.window(Windows::tumbling(millis(10))).count();
    ///     let rows = it.output(counts.map(|row| (row.key, row.value)));
    ///     ["a=1", "# no pair", "b=2", "a=3"].into_iter().for_each(|line| it.push(&lines, Timestamp::from_millis(3), line));
    ///     it.end(&lines);
    ///     let mut rows = it.take(&rows);
    ///     rows.sort();
    ///     assert_eq!(rows, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    /// });
    /// ```
    pub fn into_keyed<K: Key, U: Send + 'static>(
        self,
        pair: impl Fn(V) -> Option<(K, U)> + Clone + Send + Sync + 'static,
    ) -> KeyedStream<K, U> {
        self.pairing("into_keyed", pair)
    }

    fn pairing<K: Key, U: Send + 'static>(
        self,
        label: &'static str,
        pair: impl Fn(V) -> Option<(K, U)> + Clone + Send + Sync + 'static,
    ) -> KeyedStream<K, U> {
        let spec = NodeSpec::new(label, NodeKind::Transform, vec![], 1);
        let keyed = self.then(spec, move |builder, port| {
            let out = builder.output::<Keyed<K, U>>(port);
            let (name, blame) = (builder.name(), builder.blame());
            builder.attach(0, Pairing { name, blame, pair: pair.clone(), out });
            Ok(())
        });
        KeyedStream { keyed, order: None }
    }
}

/// A stream whose records have a key. The records are still where they were read; what needs them by key moves them.
pub struct KeyedStream<K, V> {
    pub(crate) keyed: Stream<Keyed<K, V>>,
    /// Whether order matters to what follows.
    pub(crate) order: Option<EventTimeOrder<K, V>>,
}

impl<K: Key, V: Send + 'static> KeyedStream<K, V> {
    /// Adds the exchange: the stream of records on the workers that own their keys.
    pub(crate) fn exchanged(self) -> Stream<Keyed<K, V>> {
        let id = self.keyed.graph().borrow_mut().next_exchange();
        let spec = NodeSpec::new("exchange", NodeKind::Exchange(id), vec![], 1);
        self.keyed.then(spec, move |builder, port| {
            exchange::build::<Keyed<K, V>>(builder, id, port, |keyed| keyed.hash);
            Ok(())
        })
    }
}

/// A key and a value, with the key's hash.
#[inline]
fn keyed<K: Key, V>(key: K, value: V) -> Keyed<K, V> {
    Keyed { hash: hash_key(&key), key, value }
}

/// Makes a key and a value of each record, or nothing.
struct Pairing<F, K, V> {
    name: Arc<str>,
    blame: BlameCell,
    pair: F,
    out: Output<Keyed<K, V>>,
}

impl<T, K: Key, V: Send + 'static, F: Fn(T) -> Option<(K, V)>> Operator<T> for Pairing<F, K, V> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        if let Some(router) = self.out.router() {
            let mut pairs = 0;
            batch.try_drain(|stamp, value| {
                watch.at(stamp);
                if let Some((key, value)) = (self.pair)(value) {
                    pairs += 1;
                    let record = keyed(key, value);
                    router.push(record.hash, *stamp, record, cx);
                }
                Ok(())
            })?;
            self.out.count(pairs);
            return Ok(());
        }
        batch.try_drain(|stamp, value| {
            watch.at(stamp);
            if let Some((key, value)) = (self.pair)(value) {
                self.out.push(*stamp, keyed(key, value));
            }
            Ok(())
        })?;
        drop(watch);
        self.out.send(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }
}
