//! `key_by`: gives each record a key, by which everything downstream is told apart.

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
        let spec = NodeSpec::new("key_by", NodeKind::Transform, vec![], 1);
        let keyed = self.then(spec, move |builder, port| {
            let out = builder.output::<Keyed<K, V>>(port);
            builder.attach(0, Keying { name: builder.name(), blame: builder.blame(), key: key.clone(), out });
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

struct Keying<F, K, V> {
    name: Arc<str>,
    blame: BlameCell,
    key: F,
    out: Output<Keyed<K, V>>,
}

impl<K: Key, V, F: Fn(&V) -> K> Operator<V> for Keying<F, K, V> {
    fn on_batch(&mut self, batch: &mut Batch<V>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut watch = self.blame.watch(&self.name);
        batch.try_drain(|stamp, value| {
            watch.at(stamp);
            let key = (self.key)(&value);
            self.out.push(*stamp, Keyed { hash: hash_key(&key), key, value });
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
