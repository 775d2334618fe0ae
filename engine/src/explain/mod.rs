//! Which records a published row was made of.
//!
//! 1. The flow is run from the log once more, as an audit does ([`crate::audit`]): up to a checkpoint, in a data directory of its own, with what was
//!    decided at the moment repeated. It has one worker, and a trace ([`rivermark_operators::trace`]): each row is written with what it came of, a
//!    record or a key. So the key of the row is found without asking the program for it.
//! 2. It is run a second time, and the operator that made the row is given the records of that key alone. All of these are written down, with the
//!    watermarks in between, and the row's place among them.
//! 3. From that follows which records the row holds, and which were left out of it as late ([`reasons`]). Their bytes are read from the source.
//!
//! Windows and sessions say exactly which records a row holds. A function may remember everything that it was given of its key before; so do joins,
//! tables, patterns, `reduce` and `distinct`, which are functions in this sense. For their rows these records are the explanation: an upper bound.
//! Rows of windows with triggers and by count are not explained.

mod reasons;

use crate::audit::prepare::{Prepared, prepare};
use crate::audit::replay::replay;
use crate::audit::rows::{Hash, Rows, hash_of};
use crate::audit::{Audit, RowText, Shared};
use crate::engine::Engine;
use crate::environment::written_topics;
use crate::savepoint::Savepoint;
use reasons::{Given, Reasons};
use rivermark_log::{Isolation, Log, Position};
use rivermark_operators::batch::Origin;
use rivermark_operators::partitions::PartitionEntry;
use rivermark_operators::plan::{NodeKind, Plan};
use rivermark_operators::source::ConnectorContext;
use rivermark_operators::trace::{ORIGIN_HEADER, Trace, Wanted};
use rivermark_operators::{Error, Flow, RawRecord, Result, Timestamp};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// Records and watermarks of a key that are written down at the most: some 64 bytes each.
const EVENTS: usize = 1 << 22;

/// The row that is to be explained.
#[derive(Clone, Debug)]
pub struct Explain {
    topic: String,
    partition: u32,
    offset: u64,
    from: Option<Savepoint>,
    until: Option<Savepoint>,
    listed: usize,
}

impl Explain {
    /// The row at an offset of a topic that the flow has written.
    pub fn row(topic: impl Into<String>, partition: u32, offset: u64) -> Explain {
        Explain { topic: topic.into(), partition, offset, from: None, until: None, listed: 1000 }
    }

    /// Runs from a savepoint on, as [`Audit::from_savepoint`]. Records from before it are in its state, and are not named.
    pub fn from_savepoint(self, savepoint: Savepoint) -> Explain {
        Explain { from: Some(savepoint), ..self }
    }

    /// Runs up to a savepoint behind the row, as [`Audit::up_to`]. Records that were late after it are not named.
    pub fn up_to(self, savepoint: Savepoint) -> Explain {
        Explain { until: Some(savepoint), ..self }
    }

    /// How many records are listed of each sort; how many there are is said in any case. Default: the last 1000.
    pub fn at_most(self, records: usize) -> Explain {
        Explain { listed: records, ..self }
    }

    fn range(&self) -> Audit {
        let mut range = Audit::from_earliest().workers(1);
        (range.from, range.until) = (self.from.clone(), self.until.clone());
        range
    }
}

/// Why a row is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The flow.
    pub flow: String,
    /// The version that has computed the row.
    pub version: u64,
    /// The row's topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// The row.
    pub row: RowText,
    /// The operator that made it. `None` where all operators changed one record after the other.
    pub operator: Option<String>,
    /// How it was made.
    pub made: Made,
    /// How far event time had come for the operator when it made the row, in the replay. Live it may have been another; what the row holds does not
    /// depend on it.
    pub watermark: Option<Timestamp>,
    /// The records that it was made of, the last ones if there are many: in the order in which they were read, or in which the function was given
    /// them.
    pub contributing: Vec<Contribution>,
    /// How many they are.
    pub contributing_records: u64,
    /// Records of the key that would have been part of it, and were late.
    pub left_out: Vec<Contribution>,
    /// How many they are.
    pub left_out_records: u64,
}

/// How a row was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Made {
    /// Of one record, which was changed, and of nothing else.
    Record,
    /// Of the records in a window.
    Window {
        /// The window's first moment.
        start: Timestamp,
        /// The moment behind its last.
        end: Timestamp,
    },
    /// Of the records in a session.
    Session {
        /// The time of its first record.
        start: Timestamp,
        /// A gap behind its last.
        end: Timestamp,
    },
    /// By a function that may have remembered all records of the key that it had been given: these are the contributing ones.
    Function {
        /// Whether it was given them in order of event time.
        in_order: bool,
    },
}

/// A record that a row was made of, or that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Contribution {
    /// Where it lies. `None` for a record that another keyed operator has made.
    pub place: Option<Place>,
    /// Its event time.
    pub time: Timestamp,
    /// The watermark of its partition just before it, by which it is late or not.
    pub partition_watermark: Timestamp,
    /// Its bytes as text, if the source can give them again.
    pub record: Option<RowText>,
}

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Place {
    /// The source.
    pub source: String,
    /// The partition in the source's words, such as `clicks[3]`.
    pub partition: String,
    /// The offset there.
    pub offset: u64,
}

impl Engine {
    /// Explains a row that a version of a flow has published: the records that it was made of, those that were left out as late, and what made it.
    /// `flow` must be the program that has computed it. Waits until it is done: the flow is run twice from the log, on one worker, beside the job
    /// if that runs.
    ///
    /// # Errors
    /// There is no such row; the replay does not compute it (an audit says more); what would have to be read is not there any more; or an
    /// operator made it that cannot be traced, which the error names.
    pub fn explain(&self, flow: Flow, explain: Explain) -> Result<Explanation> {
        let plan = Arc::new(flow.into_plan()?);
        let shared = Shared::of(plan.flow(), plan.version(), 0);
        let explaining = Explaining { engine: self, plan, explain, shared };
        explaining.explain()
    }
}

struct Explaining<'a> {
    engine: &'a Engine,
    plan: Arc<Plan>,
    explain: Explain,
    shared: Shared,
}

/// A row of the replay that is equal to the one to be explained.
type Equal = Vec<Origin>;

impl Explaining<'_> {
    fn error(&self, problem: impl Into<String>) -> Error {
        let Explain { topic, partition, offset, .. } = &self.explain;
        let attempt = format!(
            "explaining {topic}[{partition}] offset {offset}, flow `{}`, version {}",
            self.plan.flow(),
            self.plan.version()
        );
        Error::engine(attempt, problem.into())
    }

    fn explain(&self) -> Result<Explanation> {
        let operators = self.operators()?;
        let (row, hash) = self.published()?;
        let keys = Arc::new(Trace::new(Wanted::Keys, EVENTS));
        let prepared = prepare(self.engine, Arc::clone(&self.plan), &self.explain.range(), Some(&keys))?;
        let place = self.place_among_equals(&prepared, hash)?;
        let found = self.replayed(prepared, hash)?;
        let Some(origin) = found.get(place).copied() else {
            return Err(self.error(
                "the replay does not compute this row; audit the flow, which shows where it departs",
            ));
        };
        let Some(key) = origin.mark() else {
            return self.of_one_record(row, origin);
        };
        // Of rows that are equal, the one of the same key at the same place.
        let place = found[..place].iter().filter(|other| **other == origin).count();
        for operator in operators {
            let wanted = Wanted::Records { operator: operator.clone(), key };
            let trace = Arc::new(Trace::new(wanted, EVENTS));
            let prepared = prepare(self.engine, Arc::clone(&self.plan), &self.explain.range(), Some(&trace))?;
            let found = self.replayed(prepared, hash)?;
            let Some(makes) = trace.makes(&operator) else { continue };
            let marked: Vec<u64> = found.into_iter().filter_map(Origin::mark).collect();
            let Some(at) = marked.get(place) else { continue };
            if let Some(reasons) = reasons::reasons(makes, &trace.events(), *at as usize) {
                return self.explanation(row, Some(operator), reasons);
            }
        }
        Err(self.error(
            "it was made by an operator that cannot be traced: windows with triggers or by count, or a row whose time was told anew behind its \
             window",
        ))
    }

    /// The keyed operators that the topic's rows may come out of, those that are nearest.
    fn operators(&self) -> Result<BTreeSet<String>> {
        let written = written_topics(&self.plan, &self.engine.resources());
        let nodes = self.plan.nodes();
        let writes =
            |name: &str| written.get(name).is_some_and(|written| written.topic == self.explain.topic);
        let sinks =
            (0..nodes.len()).filter(|at| nodes[*at].kind == NodeKind::Sink && writes(&nodes[*at].name));
        let mut upstream: Vec<usize> = sinks.flat_map(|at| nodes[at].upstream.clone()).collect();
        if upstream.is_empty() {
            return Err(self.error("the flow has no sink that writes this topic"));
        }
        let mut operators = BTreeSet::new();
        while let Some(at) = upstream.pop() {
            match nodes[at].kind {
                NodeKind::Stateful => drop(operators.insert(nodes[at].name.to_string())),
                _ => upstream.extend(&nodes[at].upstream),
            }
        }
        Ok(operators)
    }

    /// The row as it was published.
    fn published(&self) -> Result<(RowText, Hash)> {
        let Explain { topic, partition, offset, .. } = &self.explain;
        let failed = |e: rivermark_log::Error| self.error(e.to_string());
        let found = self.engine.log().topic(topic).map_err(failed)?;
        let start = Position::Offset(*offset);
        let mut reader = found.reader(*partition, start, Isolation::ReadCommitted).map_err(failed)?;
        let batch = reader.next_batch().map_err(failed)?;
        let row = batch.into_iter().flatten().next().filter(|row| row.offset == *offset);
        let row = row.ok_or_else(|| self.error("there is no row at this offset"))?;
        Ok((RowText::of(&row), hash_of(*partition, &row)))
    }

    /// How many rows before it in its partition are equal to it.
    fn place_among_equals(&self, prepared: &Prepared, hash: Hash) -> Result<usize> {
        let Explain { topic, partition, offset, .. } = &self.explain;
        let output = prepared.outputs.iter().find(|output| output.topic == *topic);
        let output = output.ok_or_else(|| self.error("the flow has no sink that writes this topic"))?;
        let mut parts = output.parts.clone();
        let Some(part) = parts.get(*partition as usize).copied() else {
            return Err(self.error("the topic has no such partition"));
        };
        if !(part.from..part.sure).contains(offset) {
            let problem = format!(
                "the replay covers offsets {} to {}; choose its range by savepoints, or wait for a checkpoint",
                part.from, part.sure
            );
            return Err(self.error(problem));
        }
        for (number, part) in (0..).zip(&mut parts) {
            part.until = if number == *partition { *offset } else { part.from };
        }
        let rows = Rows { log: self.engine.log(), topic, parts };
        let mut equal = 0;
        let counted = rows.read(false, |row| {
            equal += usize::from(row.hash == hash);
            Ok(())
        });
        counted.map_err(|e| self.error(e))?;
        Ok(equal)
    }

    /// Runs the flow, and answers what rows that are equal to the one to be explained came of.
    fn replayed(&self, prepared: Prepared, hash: Hash) -> Result<Equal> {
        let (replayed, scratch, _) = replay(prepared, &self.shared)?;
        let ends = &replayed.all[&self.explain.topic];
        self.equal(&scratch.log, ends, hash)
    }

    fn equal(&self, log: &Log, ends: &[u64], hash: Hash) -> Result<Equal> {
        let Explain { topic, partition, .. } = &self.explain;
        let part = |(number, end): (u32, &u64)| {
            let until = if number == *partition { *end } else { 0 };
            crate::audit::rows::Part { from: 0, sure: until, until }
        };
        let rows = Rows { log, topic, parts: (0..).zip(ends).map(part).collect() };
        let mut equal = Equal::new();
        let read = rows.read(false, |row| {
            if row.hash == hash {
                let bits = row.view.header(ORIGIN_HEADER).flatten().and_then(|bits| bits.try_into().ok());
                let bits = bits.ok_or("the sink does not say what rows came of")?;
                equal.push(Origin::from_bits(u64::from_be_bytes(bits)));
            }
            Ok(())
        });
        read.map_err(|e| self.error(e))?;
        Ok(equal)
    }

    /// A row that no keyed operator has made.
    fn of_one_record(&self, row: RowText, origin: Origin) -> Result<Explanation> {
        if origin.partition().is_none() {
            return Err(self.error("it came of no single record, and of no operator that can be traced"));
        }
        let stamp =
            rivermark_operators::Stamp { origin, ..rivermark_operators::Stamp::derived(Timestamp::MIN) };
        let given = Given { stamp, watermark: Timestamp::MIN };
        let reasons = Reasons {
            made: Made::Record,
            watermark: Timestamp::MIN,
            contributing: vec![given],
            left_out: Vec::new(),
        };
        let mut explanation = self.explanation(row, None, reasons)?;
        // It has its record's.
        let time = Timestamp::from_millis(explanation.row.timestamp);
        explanation.contributing.iter_mut().for_each(|record| record.time = time);
        Ok(explanation)
    }

    fn explanation(&self, row: RowText, operator: Option<String>, reasons: Reasons) -> Result<Explanation> {
        let Explain { topic, partition, offset, .. } = self.explain.clone();
        let Reasons { made, watermark, contributing, left_out } = reasons;
        Ok(Explanation {
            flow: self.plan.flow().to_owned(),
            version: self.plan.version(),
            topic,
            partition,
            offset,
            row,
            watermark: operator.is_some().then_some(watermark),
            operator,
            made,
            contributing_records: contributing.len() as u64,
            left_out_records: left_out.len() as u64,
            contributing: self.contributions(&contributing)?,
            left_out: self.contributions(&left_out)?,
        })
    }

    fn contributions(&self, given: &[Given]) -> Result<Vec<Contribution>> {
        let last = given.len().saturating_sub(self.explain.listed);
        given[last..].iter().map(|given| self.contribution(given)).collect()
    }

    fn contribution(&self, given: &Given) -> Result<Contribution> {
        let job = self.shared.job.lock().clone();
        let origin = given.stamp.origin;
        let entry = job.zip(origin.partition()).and_then(|(job, index)| job.partitions().get(index));
        let place = entry.as_ref().zip(origin.offset()).map(|(entry, offset)| Place {
            source: entry.source.to_string(),
            partition: entry.name.clone(),
            offset,
        });
        let raw = entry.zip(origin.offset()).map(|(entry, offset)| self.raw(&entry, offset)).transpose()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let record = raw.flatten().map(|RawRecord { key, value }| RowText {
            timestamp: given.stamp.time.millis(),
            key: key.map(text),
            value: value.map(text),
        });
        Ok(Contribution { place, time: given.stamp.time, partition_watermark: given.stamp.watermark, record })
    }

    /// The bytes of a record, if its source can give them again.
    fn raw(&self, entry: &PartitionEntry, offset: u64) -> Result<Option<RawRecord>> {
        let Some((name, source)) = self.plan.sources().find(|(name, _)| **name == entry.source) else {
            return Ok(None);
        };
        let resources = self.engine.resources();
        let (flow, version) = (self.plan.flow(), self.plan.version());
        let context = ConnectorContext { flow, version, name, resources: &resources };
        let raw = source.raw_records(entry.number, &[offset], &context);
        let raw =
            raw.map_err(|e| Error::source(name, format!("reading offset {offset} of {}", entry.name), e))?;
        Ok(raw.into_iter().next().flatten())
    }
}

impl fmt::Display for Contribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(Place { partition, offset, .. }) => write!(f, "{partition} offset {offset}")?,
            None => f.write_str("a record of another operator")?,
        }
        if self.time != Timestamp::MIN {
            write!(f, ", {}", self.time)?;
        }
        match self.record.as_ref().and_then(|record| record.value.as_deref()) {
            Some(value) => write!(f, ": {value}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { flow, version, topic, partition, offset, row, .. } = self;
        writeln!(
            f,
            "{topic}[{partition}] offset {offset}: {}",
            row.value.as_deref().unwrap_or("(tombstone)")
        )?;
        write!(f, "flow `{flow}`, version {version}")?;
        if let Some(operator) = &self.operator {
            write!(f, ", operator `{operator}`")?;
        }
        match self.made {
            Made::Record => write!(f, ": of one record")?,
            Made::Window { start, end } => write!(f, ": the window from {start} to {end}")?,
            Made::Session { start, end } => write!(f, ": the session from {start} to {end}")?,
            Made::Function { .. } => write!(f, ": by a function, after these records of its key")?,
        }
        match self.watermark {
            Some(watermark) => writeln!(f, ", made at watermark {watermark}")?,
            None => writeln!(f)?,
        }
        writeln!(f, "{} records contributed", self.contributing_records)?;
        self.contributing.iter().try_for_each(|record| writeln!(f, "  {record}"))?;
        if self.left_out_records > 0 {
            writeln!(f, "{} records were late and left out", self.left_out_records)?;
        }
        self.left_out.iter().try_for_each(|record| {
            writeln!(f, "  {record}, when its partition was at {}", record.partition_watermark)
        })
    }
}
