//! A start without rows: what would become of each state of a snapshot if a program started from it.
//!
//! 1. A store is opened that has the snapshot's tables, and nothing in them. No file is read.
//! 2. The program opens, migrates and drops its states on it as it does at every start, through the same functions. What these decide is
//!    noted, refusals too: where a start would end with the first, a rehearsal goes on as if that state were new.
//!
//! So what a rehearsal says and what a start does cannot differ: there is one decision, and two who hear of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::opening::Asked;
use super::{KeyedStore, StoreSpec};
use crate::backend::memory::MemoryBackends;
use crate::error::{Result, StateError};
use crate::handle::StateKind;
use crate::key::KeyGroupRange;
use crate::snapshot::TableMeta;
use crate::snapshot::restore::{Restored, check_overlaps, layout_of, read_meta, union};

/// What would become of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The snapshot does not have it: it begins empty.
    New,
    /// It is what it was.
    Same,
    /// It goes through migrations, from this version.
    Migrated {
        /// The version that is stored.
        from: u32,
    },
    /// It is dropped, because the program says so.
    Dropped,
    /// The program does not say whether it has it: it is kept, and looked at when it is first used.
    OnFirstUse,
    /// The program cannot start from it.
    Refused {
        /// What the start would say.
        reason: String,
    },
}

/// What would become of one state, or, refused, of all of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The state's name; empty where it is about all of an operator.
    pub state: String,
    /// Its kind, as the program has it if it does.
    pub kind: Option<StateKind>,
    /// Its types, as the program has them if it does.
    pub schema: String,
    /// Its version, as the program has it if it does.
    pub version: u32,
    /// What would become of it.
    pub verdict: Verdict,
}

/// What a rehearsal has found so far, in order. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Rehearsal(Arc<Mutex<Findings>>);

#[derive(Debug, Default)]
struct Findings {
    order: Vec<Finding>,
    /// Where in `order` a state is, by name and whether a handle names it.
    by_name: BTreeMap<(String, bool), usize>,
}

impl Rehearsal {
    /// What was found.
    pub fn findings(&self) -> Vec<Finding> {
        self.0.lock().order.clone()
    }

    /// Notes a state; the first verdict that is not good stays.
    fn note(&self, finding: Finding) {
        let mut findings = self.0.lock();
        let name = (finding.state.clone(), finding.kind.is_none_or(StateKind::has_handle));
        match findings.by_name.get(&name).copied().filter(|_| finding.kind.is_some()) {
            None => {
                let at = findings.order.len();
                findings.by_name.insert(name, at);
                findings.order.push(finding);
            }
            Some(at) if matches!(finding.verdict, Verdict::Refused { .. }) => findings.order[at] = finding,
            Some(_) => {}
        }
    }

    fn refuse(&self, error: &StateError) {
        let verdict = Verdict::Refused { reason: error.to_string() };
        self.note(Finding { state: String::new(), kind: None, schema: String::new(), version: 0, verdict });
    }

    fn stored(&self, table: &TableMeta, verdict: Verdict) {
        self.note(Finding {
            state: table.name.clone(),
            kind: Some(table.kind),
            schema: table.schema.clone(),
            version: table.schema_version,
            verdict,
        });
    }
}

impl KeyedStore {
    /// A store for a rehearsal of `operator`'s start from snapshots that describe themselves so ([`Snapshot::meta`](crate::Snapshot::meta)),
    /// in a flow of so many key groups, and what will be found. It must not be used for anything else.
    ///
    /// # Errors
    /// The descriptions cannot be read, or contradict each other: the start would say the same.
    pub fn rehearse(operator: &str, groups: u16, metas: &[&[u8]]) -> Result<(Self, Rehearsal)> {
        let spec = StoreSpec { groups, range: KeyGroupRange::all(groups), ..StoreSpec::new(operator) };
        let operator: Arc<str> = operator.into();
        let metas = metas.iter().map(|bytes| read_meta(groups, &operator, bytes));
        let metas = metas.collect::<Result<Vec<_>>>()?;
        check_overlaps(&operator, &metas.iter().map(|meta| meta.range).collect::<Vec<_>>())?;
        let mut store = Self::open(spec, &MemoryBackends, Vec::new())?;
        store.layout = layout_of(&operator, metas.iter())?;
        store.known = union(&operator, metas.iter())?;
        store.restored = Restored::without_rows(&store.known);
        let rehearsal = Rehearsal::default();
        store.rehearsal = Some(rehearsal.clone());
        Ok((store, rehearsal))
    }

    /// The directory entry of a table that is opened, which in a rehearsal may be refused and is opened all the same.
    pub(super) fn admit<V: 'static>(&mut self, asked: &Asked<'_>) -> Result<TableMeta> {
        let Some(rehearsal) = self.rehearsal.clone() else { return self.declare(asked) };
        let found = self.known.iter().find(|known| known.is_called(asked.name, asked.kind)).cloned();
        let admitted = self.declare(asked).and_then(|meta| {
            if meta.schema_version != asked.version {
                asked.path::<V>(&self.operator, &self.migrations, meta.schema_version)?;
            }
            Ok(meta)
        });
        let verdict = match (&admitted, &found) {
            (Err(error), _) => Verdict::Refused { reason: error.to_string() },
            (Ok(_), None) => Verdict::New,
            (Ok(meta), Some(_)) if meta.schema_version == asked.version => Verdict::Same,
            (Ok(meta), Some(_)) => Verdict::Migrated { from: meta.schema_version },
        };
        let (state, schema) = (asked.name.to_owned(), asked.schema());
        rehearsal.note(Finding { state, kind: Some(asked.kind), schema, version: asked.version, verdict });
        if let (Err(_), Some(found)) = (&admitted, found) {
            self.known.retain(|known| known.id != found.id);
            self.restored.forget(found.id);
            return self.declare(asked);
        }
        admitted
    }

    /// Refuses, or notes in a rehearsal that it would.
    pub(super) fn refuse(&self, error: StateError) -> Result<()> {
        match &self.rehearsal {
            None => Err(error),
            Some(rehearsal) => {
                rehearsal.refuse(&error);
                Ok(())
            }
        }
    }

    /// Notes that a state is dropped.
    pub(super) fn note_dropped(&self, table: &TableMeta) {
        if let Some(rehearsal) = &self.rehearsal {
            rehearsal.stored(table, Verdict::Dropped);
        }
    }

    /// Notes the states of handles that were stored and that nobody has opened, at the end of the start. Answers whether it is a rehearsal.
    pub(super) fn note_unopened(&self, gone: Option<&StateError>) -> bool {
        let Some(rehearsal) = &self.rehearsal else { return false };
        for table in self.unopened() {
            let verdict = match gone {
                Some(error) => Verdict::Refused { reason: error.to_string() },
                None => Verdict::OnFirstUse,
            };
            rehearsal.stored(table, verdict);
        }
        true
    }

    /// The states of handles that were restored and have not been opened.
    pub(super) fn unopened(&self) -> impl Iterator<Item = &TableMeta> {
        self.known.iter().filter(|known| known.kind.has_handle() && self.restored.is_unopened(known.id))
    }
}
