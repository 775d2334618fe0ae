//! `state`: keyed state in a checkpoint or savepoint, by its description.

use super::place::{At, Place};
use crate::exit::{Failure, Result};
use crate::nearest::unknown;
use crate::output::{Output, Table, bytes, cell};
use crate::when::shown;
use clap::{Args, Subcommand};
use rivermark_engine::{DescribedEntry, Savepoint, StateDescription, StateKind, Types};
use rivermark_operators::Result as EngineResult;
use serde_json::{Map, Value, json};
use std::cell::RefCell;

/// The commands about state.
#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Prints what is under a key
    Get(Get),
    /// Prints all entries of a state, in the order of key groups and keys
    Scan(Scan),
    /// Counts entries and bytes, by operator and state, and says how evenly they lie in key groups
    Stats(Stats),
}

impl StateCommand {
    pub(crate) fn run(self, place: &mut Place) -> Result<()> {
        match self {
            StateCommand::Get(get) => get.run(place),
            StateCommand::Scan(scan) => scan.run(place),
            StateCommand::Stats(stats) => stats.run(place),
        }
    }
}

/// What types are made of that the command line cannot know.
#[derive(Debug, Args)]
struct Known {
    /// What a type of yours is made of, as `Order=(String, u64)`: the types of its fields, in their order
    #[arg(long = "type", value_name = "NAME=TYPE")]
    types: Vec<String>,
}

impl Known {
    fn types(&self, place: &Place) -> Result<Types> {
        let mut types = place.types.clone();
        for defined in &self.types {
            let (name, what) = defined.split_once('=').ok_or_else(|| {
                Failure::usage(format!(
                    "reading `--type {defined}`: it is written as NAME=TYPE, `Order=(String, u64)`"
                ))
            })?;
            types
                .define(name.trim(), what)
                .map_err(|problem| Failure::usage(format!("reading `--type {defined}`: {problem}")))?;
        }
        Ok(types)
    }
}

/// The types of this project that occur in states.
pub(crate) fn own_types() -> Types {
    let mut types = Types::new();
    types.know::<rivermark_operators::Timestamp>().know::<rivermark_operators::Window>();
    types
}

/// A state of an operator that somebody has named.
struct Named {
    operator: String,
    state: StateDescription,
}

/// Finds the state that is meant. Without the name of a state an operator must have only one.
fn find(
    attempt: &str,
    savepoint: &Savepoint,
    operator: &str,
    state: Option<&str>,
) -> EngineResult<Result<Named>> {
    let operators: Vec<String> = savepoint.operators().into_iter().map(str::to_owned).collect();
    if !operators.iter().any(|known| known == operator) {
        return Ok(Err(unknown(attempt, "operator with state", operator, &operators)));
    }
    let states = savepoint.states(operator)?;
    let names: Vec<String> = states.iter().map(|state| state.name.clone()).collect();
    let found = match state {
        Some(name) => states
            .into_iter()
            .find(|state| state.name == name)
            .ok_or_else(|| unknown(&format!("{attempt} of operator `{operator}`"), "state", name, &names)),
        None if states.len() == 1 => states.into_iter().next().ok_or_else(|| Failure::missing(attempt)),
        None => Err(Failure::usage(format!(
            "{attempt}: which state of operator `{operator}`? there are `{}`",
            names.join("`, `")
        ))),
    };
    Ok(found.map(|state| Named { operator: operator.to_owned(), state }))
}

/// The columns of a table of entries.
fn table_of(state: &StateDescription) -> Table {
    match state.kind {
        StateKind::Map => Table::new(["group", "key", "map key", "value"]),
        StateKind::Window => Table::new(["group", "slice", "key", "value"]),
        StateKind::Timers => Table::new(["group", "time", "key"]),
        _ => Table::new(["group", "key", "value"]),
    }
}

fn row(kind: StateKind, entry: &DescribedEntry) -> Vec<String> {
    let mut cells = vec![entry.group.to_string()];
    if let Some(time) = entry.times.first() {
        cells.push(shown(*time));
    }
    cells.push(cell(&entry.key));
    cells.extend(entry.map_key.as_ref().map(cell));
    if kind != StateKind::Timers {
        cells.push(cell(&entry.value));
    }
    cells
}

fn document(kind: StateKind, entry: &DescribedEntry) -> Value {
    let mut fields = Map::new();
    fields.insert("group".into(), json!(entry.group));
    if !entry.times.is_empty() {
        fields.insert("times_ms".into(), json!(entry.times));
    }
    fields.insert("key".into(), entry.key.clone());
    if let Some(map_key) = &entry.map_key {
        fields.insert("map_key".into(), map_key.clone());
    }
    if kind != StateKind::Timers {
        fields.insert("value".into(), entry.value.clone());
    }
    fields.insert("bytes".into(), json!(entry.bytes));
    Value::Object(fields)
}

/// Where entries are from, as the beginning of a JSON document.
fn source_of(savepoint: &Savepoint, named: &Named) -> Map<String, Value> {
    let source = json!({
        "flow": savepoint.flow(),
        "version": savepoint.version(),
        "epoch": savepoint.epoch().0,
        "operator": named.operator,
        "state": named.state.name,
        "kind": named.state.kind,
        "types": named.state.schema,
    });
    match source {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The operator
    operator: String,
    /// The state
    state: String,
    /// The key: text or a number as it is, a tuple as a JSON array
    key: String,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    known: Known,
}

/// The ways to understand a key that was typed: as text, and as JSON.
fn readings(key: &str) -> Vec<Value> {
    let text = Value::String(key.to_owned());
    match serde_json::from_str(key) {
        Ok(value) if value != text => vec![text, value],
        _ => vec![text],
    }
}

impl Get {
    fn run(self, place: &mut Place) -> Result<()> {
        let attempt = "getting a key";
        let types = self.known.types(place)?;
        let found = place.read(attempt, &self.at, |savepoint| {
            let named = match find(attempt, savepoint, &self.operator, Some(&self.state))? {
                Ok(named) => named,
                Err(failure) => return Ok(Err(failure)),
            };
            let operator = savepoint.operator(&named.operator)?;
            let mut outcome = Ok(Vec::new());
            for key in readings(&self.key) {
                outcome = operator.described_at(&named.state, &types, &key);
                if outcome.is_ok() {
                    break;
                }
            }
            Ok(Ok((source_of(savepoint, &named), named, outcome?)))
        })?;
        let (mut source, named, entries) = found?;
        if entries.is_empty() {
            return Err(Failure::missing(format!(
                "{attempt}: state `{}` of operator `{}` has nothing under `{}` in epoch {}",
                named.state.name, named.operator, self.key, source["epoch"]
            )));
        }
        if place.output.is_json() {
            let entries = entries.iter().map(|entry| document(named.state.kind, entry)).collect();
            source.insert("entries".into(), Value::Array(entries));
            return place.output.document(&source);
        }
        let mut table = table_of(&named.state);
        entries.iter().for_each(|entry| table.row(row(named.state.kind, entry)));
        place.output.table(table)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// The operator
    operator: String,
    /// The state [default: the only one that the operator has]
    state: Option<String>,
    /// At most so many entries
    #[arg(short = 'n', long)]
    count: Option<u64>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    known: Known,
}

impl Scan {
    fn run(self, place: &mut Place) -> Result<()> {
        let attempt = "scanning state";
        let types = self.known.types(place)?;
        // From the first entry on, a checkpoint that is collected stays readable: nothing is printed twice.
        let opened = place.read(attempt, &self.at, |savepoint| {
            let named = match find(attempt, savepoint, &self.operator, self.state.as_deref())? {
                Ok(named) => named,
                Err(failure) => return Ok(Err(failure)),
            };
            let operator = savepoint.operator(&named.operator)?;
            Ok(Ok((source_of(savepoint, &named), named, operator)))
        })?;
        let (source, named, operator) = opened?;
        let entries = operator.described(&named.state, &types)?;
        let entries =
            entries.take(self.count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX));
        let output = &mut place.output;
        if output.is_json() {
            return stream(&source, named.state.kind, entries, output);
        }
        let mut table = table_of(&named.state);
        for entry in entries {
            table.stream(row(named.state.kind, &entry?), output)?;
        }
        table.finish(output)
    }
}

/// Prints one document, an entry at a time.
fn stream(
    source: &Map<String, Value>,
    kind: StateKind,
    entries: impl Iterator<Item = EngineResult<DescribedEntry>>,
    output: &mut Output,
) -> Result<()> {
    let begun = Value::Object(source.clone()).to_string();
    output.text(begun.trim_end_matches('}'))?;
    output.text(",\"entries\":[")?;
    for (at, entry) in entries.enumerate() {
        output.text(if at > 0 { ",\n" } else { "\n" })?;
        output.text(&document(kind, &entry?).to_string())?;
    }
    output.text("\n]}\n")?;
    output.flush()
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// The operator [default: all]
    operator: Option<String>,
    #[command(flatten)]
    at: At,
}

/// What is counted of a state.
struct Counted {
    operator: String,
    state: StateDescription,
    entries: u64,
    bytes: u64,
    largest: u64,
    largest_key: Value,
    /// Entries of each key group.
    groups: Vec<u64>,
}

impl Counted {
    fn of(operator: &str, state: &StateDescription, groups: u16) -> Counted {
        let (operator, state, groups) = (operator.to_owned(), state.clone(), vec![0; usize::from(groups)]);
        Counted { operator, state, entries: 0, bytes: 0, largest: 0, largest_key: Value::Null, groups }
    }

    fn add(&mut self, entry: DescribedEntry) {
        self.entries += 1;
        self.bytes += entry.bytes;
        if let Some(group) = self.groups.get_mut(usize::from(entry.group)) {
            *group += 1;
        }
        if entry.bytes > self.largest {
            (self.largest, self.largest_key) = (entry.bytes, entry.key);
        }
    }

    /// The fullest key group, its entries, and how many times the average that is.
    fn skew(&self) -> (usize, u64, f64) {
        let (group, fullest) =
            self.groups.iter().copied().enumerate().max_by_key(|(_, n)| *n).unwrap_or_default();
        let average = self.entries as f64 / self.groups.len().max(1) as f64;
        (group, fullest, if self.entries == 0 { 0.0 } else { fullest as f64 / average })
    }
}

impl Stats {
    fn run(self, place: &mut Place) -> Result<()> {
        let attempt = "counting state";
        let types = place.types.clone();
        let source = RefCell::new(Value::Null);
        let counted = place.read(attempt, &self.at, |savepoint| {
            source.replace(json!({
                "flow": savepoint.flow(),
                "version": savepoint.version(),
                "epoch": savepoint.epoch().0,
                "key_groups": savepoint.key_groups(),
                "file_bytes": savepoint.state_bytes(),
            }));
            let mut counted = Vec::new();
            let names: Vec<String> = savepoint.operators().into_iter().map(str::to_owned).collect();
            let wanted = |name: &&String| self.operator.as_ref().is_none_or(|operator| operator == *name);
            if let Some(name) = self.operator.as_ref().filter(|name| !names.contains(name)) {
                return Ok(Err(unknown(attempt, "operator with state", name, &names)));
            }
            for name in names.iter().filter(wanted) {
                let operator = savepoint.operator(name)?;
                for state in operator.states() {
                    let mut of = Counted::of(name, &state, savepoint.key_groups());
                    for entry in operator.described(&state, &types)? {
                        of.add(entry?);
                    }
                    counted.push(of);
                }
            }
            Ok(Ok(counted))
        })??;
        report(source.into_inner(), &counted, place)
    }
}

fn report(mut source: Value, counted: &[Counted], place: &mut Place) -> Result<()> {
    if place.output.is_json() {
        let states: Vec<Value> = counted
            .iter()
            .map(|of| {
                let (group, fullest, skew) = of.skew();
                json!({
                    "operator": of.operator,
                    "state": of.state.name,
                    "kind": of.state.kind,
                    "types": of.state.schema,
                    "entries": of.entries,
                    "bytes": of.bytes,
                    "largest_bytes": of.largest,
                    "largest_key": of.largest_key,
                    "fullest_group": group,
                    "fullest_group_entries": fullest,
                    "skew": skew,
                    "entries_by_group": of.groups,
                })
            })
            .collect();
        source["states"] = Value::Array(states);
        return place.output.document(&source);
    }
    place.output.line(format!(
        "flow `{}`, version {}, epoch {}: files of {}\n",
        source["flow"].as_str().unwrap_or_default(),
        source["version"],
        source["epoch"],
        bytes(source["file_bytes"].as_u64().unwrap_or_default())
    ))?;
    let mut table = Table::new([
        "operator",
        "state",
        "kind",
        "entries",
        "size",
        "largest",
        "of key",
        "fullest group",
        "skew",
    ]);
    for of in counted {
        let (group, fullest, skew) = of.skew();
        table.row([
            of.operator.clone(),
            of.state.name.clone(),
            of.state.kind.to_string(),
            of.entries.to_string(),
            bytes(of.bytes),
            bytes(of.largest),
            if of.entries == 0 { "-".to_owned() } else { cell(&of.largest_key) },
            if of.entries == 0 { "-".to_owned() } else { format!("{group} ({fullest})") },
            format!("{skew:.1}"),
        ]);
    }
    place.output.table(table)
}
