//! Traces: which records a keyed operator was given for one key, and what each row that it emitted came after.
//!
//! For explaining a row. The engine runs the flow twice, on one worker, with a [`Trace`] among the resources; without one nothing here costs more than
//! a look at an empty option a row.
//! 1. *Find*: rows that come out of a keyed operator have the hash of their key where others have their origin, and keep it through all that
//!    changes records one by one. A sink that writes it beside the row says which key made the row; a row with an origin was made of that record
//!    alone.
//! 2. *Follow*: one operator is given the records of one key and no others. All that it is given is written down, record by record and
//!    watermark by watermark, and what it emits has the place in this list where others have their origin.

use crate::batch::{Batch, Origin, Stamp};
use crate::context::TaskContext;
use crate::edge::{Operator, Signal};
use crate::error::{Error, Result};
use crate::exchange::Keyed;
use crate::plan::TaskBuilder;
use crate::time::Timestamp;
use crate::window::Slices;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The header under which a sink that writes the log puts a row's [`Origin::to_bits`], in eight bytes, the highest first, if there is a trace.
pub const ORIGIN_HEADER: &str = "rivermark-origin";

/// What a trace is to find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Which key each row comes of.
    Keys,
    /// What an operator is given for a key, by what [`Origin::mark`] says of its rows.
    Records {
        /// The operator's name.
        operator: String,
        /// The key.
        key: u64,
    },
}

/// What happened to the key of a trace, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The operator was given a record while its event time was `watermark`.
    Record {
        /// The record's stamp.
        stamp: Stamp,
        /// How far event time had come for the operator.
        watermark: Timestamp,
    },
    /// Event time went on.
    Watermark(Timestamp),
    /// It emitted a row.
    Emitted {
        /// The row's stamp, as it would have been.
        stamp: Stamp,
    },
}

/// How a keyed operator makes rows of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Makes {
    /// Of those in a tumbling or sliding window.
    Windows(WindowShape),
    /// Of those in a session.
    Sessions {
        /// In milliseconds.
        gap: i64,
        /// The allowed lateness, in milliseconds.
        lateness: i64,
    },
    /// Of all that it was given of the key before.
    History {
        /// Whether it was given them in order of event time, those that are late left out.
        in_order: bool,
    },
}

/// Tumbling or sliding windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowShape {
    pub(crate) slices: Slices,
    /// The allowed lateness, in milliseconds.
    pub lateness: i64,
}

impl WindowShape {
    /// The window that ends at `end`.
    pub fn window(&self, end: Timestamp) -> crate::Window {
        self.slices.window(end)
    }
}

/// See the module's page. Offered to a flow as the resource `Arc<Trace>`.
#[derive(Debug)]
pub struct Trace {
    wanted: Wanted,
    events: Mutex<Vec<Event>>,
    makes: Mutex<HashMap<String, Makes>>,
    most: usize,
}

impl Trace {
    /// A trace that writes down `most` events at the most.
    pub fn new(wanted: Wanted, most: usize) -> Trace {
        Trace { wanted, events: Mutex::default(), makes: Mutex::default(), most }
    }

    /// How an operator makes its rows. `None` for one that cannot be traced.
    pub fn makes(&self, operator: &str) -> Option<Makes> {
        self.makes.lock().get(operator).copied()
    }

    /// All that happened.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    fn follows(&self, operator: &str) -> Option<u64> {
        match &self.wanted {
            Wanted::Records { operator: wanted, key } if wanted == operator => Some(*key),
            _ => None,
        }
    }

    /// Writes an event down, and says which it is.
    fn add(&self, event: Event) -> Result<u64> {
        let mut events = self.events.lock();
        if events.len() >= self.most {
            let problem = format!(
                "more than {} records and watermarks came to the operator for this key; explain a row of a savepoint's range",
                self.most
            );
            return Err(Error::engine("tracing the records of a key", problem));
        }
        events.push(event);
        Ok(events.len() as u64 - 1)
    }
}

/// What an operator marks its rows with, where there is a trace.
#[derive(Clone, Default)]
pub(crate) struct Marks(Option<(Arc<Trace>, Arc<str>)>);

impl Marks {
    /// Of the node that is being built.
    pub(crate) fn of(builder: &TaskBuilder<'_>) -> Marks {
        let trace = builder.environment().resources.get::<Arc<Trace>>();
        Marks(trace.map(|trace| (Arc::clone(trace), builder.name())))
    }

    /// The stamp of a row, marked if it is to be.
    #[inline]
    pub(crate) fn on(&self, stamp: Stamp, hash: impl FnOnce() -> u64) -> Stamp {
        match &self.0 {
            None => stamp,
            Some((trace, operator)) => mark(trace, operator, stamp, hash()),
        }
    }
}

#[cold]
fn mark(trace: &Trace, operator: &str, stamp: Stamp, hash: u64) -> Stamp {
    let mark = match &trace.wanted {
        Wanted::Keys => Some(hash),
        Wanted::Records { .. } => {
            let event = trace.follows(operator).map(|_| trace.add(Event::Emitted { stamp }));
            // One that does not fit any more fails with the next record or watermark.
            event.and_then(Result::ok)
        }
    };
    mark.map_or(stamp, |mark| Stamp { origin: Origin::of_mark(mark), ..stamp })
}

/// Attaches a keyed operator, with what a trace needs of it.
pub(crate) fn attach<K: 'static, V: 'static>(
    builder: &mut TaskBuilder<'_>,
    makes: Makes,
    operator: impl Operator<Keyed<K, V>> + 'static,
) {
    let Some(trace) = builder.environment().resources.get::<Arc<Trace>>().cloned() else {
        return builder.attach::<Keyed<K, V>>(0, operator);
    };
    let name = builder.name();
    trace.makes.lock().insert(name.to_string(), makes);
    match trace.follows(&name) {
        None => builder.attach::<Keyed<K, V>>(0, operator),
        Some(key) => {
            let watermark = builder.restored_watermark();
            builder.attach::<Keyed<K, V>>(0, Followed { operator, trace, key, watermark });
        }
    }
}

/// An operator that is given the records of one key.
struct Followed<O> {
    operator: O,
    trace: Arc<Trace>,
    key: u64,
    watermark: Timestamp,
}

impl<K, V, O: Operator<Keyed<K, V>>> Operator<Keyed<K, V>> for Followed<O> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        let mut one = Batch::with_capacity(1);
        for (stamp, record) in batch.drain() {
            if Origin::of_mark(record.hash).mark() != Some(self.key) {
                continue;
            }
            self.trace.add(Event::Record { stamp, watermark: self.watermark })?;
            one.push(stamp, record);
            self.operator.on_batch(&mut one, cx)?;
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        if let Signal::Watermark(watermark) = signal
            && watermark > self.watermark
        {
            self.watermark = watermark;
            // Of those with nothing in between the last will do.
            let mut events = self.trace.events.lock();
            match events.last_mut() {
                Some(Event::Watermark(last)) => *last = watermark,
                _ => {
                    drop(events);
                    self.trace.add(Event::Watermark(watermark))?;
                }
            }
        }
        self.operator.on_signal(signal, cx)
    }

    fn go_on(&mut self, cx: &mut TaskContext<'_>) -> Result<bool> {
        self.operator.go_on(cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.operator.flush(cx)
    }
}
