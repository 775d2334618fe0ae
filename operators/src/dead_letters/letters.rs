//! Making letters of failures: in order, with the bytes of their records.

use super::failures::{Failed, Failure};
use super::{DeadLetter, RawRecord, SourceRecord};
use crate::batch::{Batch, Stamp};
use crate::context::TaskContext;
use crate::edge::{Operator, Output, Signal};
use crate::error::{Error, Result};
use crate::exchange::Keyed;
use crate::partitions::Partitions;
use crate::plan::{NodeKind, NodeSpec, Resources, TaskBuilder};
use crate::source::{ConnectorContext, ErasedSource};
use crate::stream::{KeyedStream, Stream};
use crate::time::Timestamp;
use rivermark_state::hash_key;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Puts a failure under its record's source partition; what has none, under one of their own.
pub(super) fn keyed(stamp: &Stamp, failure: Failure) -> Failed {
    let key = stamp.origin.partition().unwrap_or(u16::MAX);
    Keyed { hash: hash_key(&key), key, value: failure }
}

/// The letters of these operators of the flow of `stream`, of which there is one at least.
pub(crate) fn write_letters<T: Send + 'static>(stream: &Stream<T>, nodes: &[usize]) -> Stream<DeadLetter> {
    let mut graph = stream.graph().borrow_mut();
    let moved = nodes.len() > 1 || nodes.iter().any(|&node| graph.is_behind_exchange(node));
    let by_time = nodes.iter().any(|&node| graph.lets_records_wait(node));
    let ports: Vec<usize> = nodes.iter().map(|&node| graph.add_failures_port(node)).collect();
    drop(graph);
    let failures = ports.into_iter().map(|port| stream.at_port::<Failed>(port));
    let failures = failures.reduce(Stream::union).expect("there is an operator");
    let failures = match moved {
        true => KeyedStream { keyed: failures, order: None }.exchanged(),
        false => failures,
    };
    let several = nodes.len() > 1;
    failures.then(NodeSpec::new("dead_letters", NodeKind::Transform, vec![], 1), move |builder, port| {
        let letters = Letters::open(builder, port);
        // What one worker has of one operator is in order already.
        match several || (moved && builder.environment().workers > 1) {
            true => {
                let (failures, signals) = (Vec::new(), Vec::new());
                builder.attach(0, Sorting { letters, by_time, failures, signals, most: MOST_HELD })
            }
            false => builder.attach(0, letters),
        }
        Ok(())
    })
}

/// Writes letters, in the order of their failures.
struct Letters {
    name: Arc<str>,
    flow: String,
    version: u64,
    partitions: Arc<Partitions>,
    sources: HashMap<Arc<str>, Arc<dyn ErasedSource>>,
    resources: Arc<Resources>,
    out: Output<DeadLetter>,
}

/// A source partition's index, and an offset there.
type Place = (u16, u64);

fn place(stamp: &Stamp) -> Option<Place> {
    stamp.origin.partition().zip(stamp.origin.offset())
}

impl Letters {
    fn open(builder: &mut TaskBuilder<'_>, port: usize) -> Letters {
        let out = builder.output(port);
        let environment = builder.environment();
        Letters {
            name: builder.name(),
            flow: builder.flow().to_owned(),
            version: builder.version(),
            partitions: Arc::clone(&environment.partitions),
            resources: Arc::clone(&environment.resources),
            sources: builder.all_sources(),
            out,
        }
    }

    fn write(
        &mut self,
        failures: impl Iterator<Item = (Stamp, Failure)>,
        cx: &mut TaskContext<'_>,
    ) -> Result<()> {
        let mut failures = failures.peekable();
        while failures.peek().is_some() {
            let some: Vec<_> = failures.by_ref().take(Batch::<DeadLetter>::CAPACITY).collect();
            let mut raw = self.read_again(&some)?;
            for (stamp, failure) in some {
                let letter = self.letter(&stamp, failure, &mut raw);
                self.out.push(stamp, letter);
            }
            self.out.send(cx)?;
        }
        Ok(())
    }

    /// Reads the bytes of records that are not at hand.
    fn read_again(&self, failures: &[(Stamp, Failure)]) -> Result<BTreeMap<Place, RawRecord>> {
        let mut wanted: BTreeMap<u16, BTreeSet<u64>> = BTreeMap::new();
        for (stamp, _) in failures.iter().filter(|(_, failure)| failure.raw.is_none()) {
            if let Some((partition, offset)) = place(stamp) {
                wanted.entry(partition).or_default().insert(offset);
            }
        }
        let mut found = BTreeMap::new();
        for (partition, offsets) in wanted {
            let Some(entry) = self.partitions.get(partition) else { continue };
            let Some(source) = self.sources.get(&entry.source) else { continue };
            let context = ConnectorContext {
                flow: &self.flow,
                version: self.version,
                name: &entry.source,
                resources: &self.resources,
            };
            let offsets: Vec<u64> = offsets.into_iter().collect();
            let raw = source.raw_records(entry.number, &offsets, &context).map_err(|e| {
                let attempt =
                    format!("reading {} of {} again for `{}`", count(offsets.len()), entry.name, self.name);
                Error::source(&entry.source, attempt, e)
            })?;
            let places = offsets.into_iter().map(|offset| (partition, offset));
            found.extend(places.zip(raw).filter_map(|(place, raw)| Some((place, raw?))));
        }
        Ok(found)
    }

    fn letter(&self, stamp: &Stamp, failure: Failure, raw: &mut BTreeMap<Place, RawRecord>) -> DeadLetter {
        let record = place(stamp).and_then(|(partition, offset)| {
            let entry = self.partitions.get(partition)?;
            // Several may have failed on one record, or on what was made of it.
            let raw = failure.raw.or_else(|| raw.get(&(partition, offset)).cloned());
            Some(SourceRecord {
                source: entry.source.to_string(),
                partition: entry.number,
                name: entry.name.clone(),
                offset,
                raw,
            })
        });
        DeadLetter {
            flow: self.flow.clone(),
            version: self.version,
            operator: failure.operator.to_string(),
            error: failure.error,
            time: (stamp.time != Timestamp::MIN).then_some(stamp.time),
            record,
        }
    }
}

fn count(records: usize) -> String {
    if records == 1 { "a record".into() } else { format!("{records} records") }
}

impl Operator<Failed> for Letters {
    fn on_batch(&mut self, batch: &mut Batch<Failed>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.write(batch.drain().map(|(stamp, failed)| (stamp, failed.value)), cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.signal(signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.out.flush(cx)
    }
}

/// Failures that a worker holds until the next barrier: some tens of MiB.
const MOST_HELD: usize = 1 << 17;

/// Holds failures until a barrier and sorts them: which worker was faster does not show.
///
/// Between two barriers lie, of each source partition, all failures of a range of offsets; or, where records wait for their time, of a range of
/// event time. So what is sorted in parts is sorted as a whole.
///
/// There may be no barrier for long, or none but the last where checkpoints are off. So there is a bound: what is held goes on, sorted, when there
/// is so much of it. Then it shows which worker was faster, in the order of letters and in nothing else.
struct Sorting {
    letters: Letters,
    by_time: bool,
    failures: Vec<(Stamp, Failure)>,
    /// How many failures are held at the most.
    most: usize,
    /// What has come since the last barrier and must not overtake failures.
    signals: Vec<Signal>,
}

impl Sorting {
    fn let_go(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut failures = std::mem::take(&mut self.failures);
        let by_time = self.by_time;
        let time = |stamp: &Stamp| if by_time { stamp.time } else { Timestamp::MIN };
        failures.sort_by(|(a, of_a), (b, of_b)| {
            let places = (time(a), a.origin).cmp(&(time(b), b.origin));
            // Several that were made of one record may have failed, each on a worker of its own.
            let times = || a.time.cmp(&b.time);
            let operators = places.then_with(|| of_a.operator.cmp(&of_b.operator));
            operators.then_with(times).then_with(|| of_a.error.cmp(&of_b.error))
        });
        self.letters.write(failures.into_iter(), cx)?;
        let mut signals = std::mem::take(&mut self.signals).into_iter();
        signals.try_for_each(|signal| self.letters.on_signal(signal, cx))
    }
}

impl Operator<Failed> for Sorting {
    fn on_batch(&mut self, batch: &mut Batch<Failed>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.failures.extend(batch.drain().map(|(stamp, failed)| (stamp, failed.value)));
        if self.failures.len() >= self.most { self.let_go(cx) } else { Ok(()) }
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match (signal, self.signals.last_mut()) {
            (Signal::Barrier(_) | Signal::End, _) => {
                self.let_go(cx)?;
                self.letters.on_signal(signal, cx)?;
            }
            (Signal::Watermark(_), Some(last @ Signal::Watermark(_))) => *last = signal,
            _ => self.signals.push(signal),
        }
        Ok(())
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.letters.flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Origin;
    use crate::context::{CheckpointParts, ExchangeId, OperatorMetrics, Payload, Transport};
    use parking_lot::Mutex;

    struct Nowhere;

    impl Transport for Nowhere {
        fn send(&mut self, _: ExchangeId, _: usize, _: Payload) {}
    }

    /// Offsets and errors of letters, and signals.
    struct Noting(Arc<Mutex<Vec<String>>>);

    impl Operator<DeadLetter> for Noting {
        fn on_batch(&mut self, batch: &mut Batch<DeadLetter>, _cx: &mut TaskContext<'_>) -> Result<()> {
            let letter = |(stamp, letter): (Stamp, DeadLetter)| {
                format!("{}: {}", stamp.origin.offset().unwrap(), letter.error)
            };
            self.0.lock().extend(batch.drain().map(letter));
            Ok(())
        }

        fn on_signal(&mut self, signal: Signal, _cx: &mut TaskContext<'_>) -> Result<()> {
            self.0.lock().push(format!("{signal:?}"));
            Ok(())
        }

        fn flush(&mut self, _cx: &mut TaskContext<'_>) -> Result<()> {
            Ok(())
        }
    }

    fn sorting(noted: &Arc<Mutex<Vec<String>>>, most: usize) -> Sorting {
        let metrics = || Arc::new(OperatorMetrics::new("letters".into()));
        let noting: Box<dyn Operator<DeadLetter>> = Box::new(Noting(Arc::clone(noted)));
        let letters = Letters {
            name: "letters".into(),
            flow: "flow".into(),
            version: 1,
            partitions: Arc::default(),
            sources: HashMap::new(),
            resources: Arc::default(),
            out: Output::new(vec![(noting, metrics())], metrics(), None, 10),
        };
        Sorting { letters, by_time: false, failures: Vec::new(), signals: Vec::new(), most }
    }

    /// Failures at these offsets, each with an error's text.
    fn fail(sorting: &mut Sorting, failures: &[(u64, &str)]) {
        let (mut transport, mut parts) = (Nowhere, CheckpointParts::default());
        let now = Timestamp::from_millis(0);
        let mut cx = TaskContext { transport: &mut transport, now, parts: &mut parts };
        let failed = failures.iter().map(|(offset, error)| {
            let stamp = Stamp { origin: Origin::new(0, *offset), ..Stamp::derived(now) };
            let failure = Failure { operator: "parse".into(), error: error.to_string(), raw: None };
            (stamp, keyed(&stamp, failure))
        });
        sorting.on_batch(&mut failed.collect(), &mut cx).unwrap();
    }

    #[test]
    fn failures_are_held_up_to_a_bound_and_go_on_sorted_behind_no_signal_that_came_before_them() {
        let noted = Arc::default();
        let mut sorting = sorting(&noted, 4);
        let taken = || std::mem::take(&mut *noted.lock());
        fail(&mut sorting, &[(5, "no"), (3, "no")]);
        let watermark = Signal::Watermark(Timestamp::from_millis(0));
        sorting.signals.push(watermark);
        fail(&mut sorting, &[(4, "no")]);
        assert!(taken().is_empty());
        fail(&mut sorting, &[(9, "no"), (1, "no")]);
        assert_eq!(taken(), ["1: no", "3: no", "4: no", "5: no", "9: no", &format!("{watermark:?}")]);
        fail(&mut sorting, &[(2, "no")]);
        assert!(taken().is_empty() && sorting.failures.len() == 1);
    }

    #[test]
    fn failures_on_what_was_made_of_one_record_have_an_order_too() {
        let come = |failures: [(u64, &str); 3]| {
            let noted = Arc::default();
            fail(&mut sorting(&noted, 3), &failures);
            std::mem::take(&mut *noted.lock())
        };
        let expected = ["1: a", "1: b", "1: c"];
        assert_eq!(come([(1, "a"), (1, "b"), (1, "c")]), expected);
        assert_eq!(come([(1, "c"), (1, "a"), (1, "b")]), expected);
    }
}
