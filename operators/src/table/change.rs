//! What a table tells: changes, each with what it takes back.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A change of one key's row. What was told before is carried along, so that whoever adds up rows can take it back (a *retraction*).
///
/// Flink's changelog has the same as `+I`, `-U` with `+U`, and `-D`; here an update is one record, so that nobody sees half of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Change<V> {
    /// A row of a key that had none.
    Insert(V),
    /// Another row of a key that had one.
    Update {
        /// The row until now.
        before: V,
        /// The row from now on.
        after: V,
    },
    /// The end of a key's row.
    Delete(V),
}

impl<V> Change<V> {
    /// The change from one row to another; none if there is neither.
    pub fn between(before: Option<V>, after: Option<V>) -> Option<Change<V>> {
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(Change::Insert(after)),
            (Some(before), Some(after)) => Some(Change::Update { before, after }),
            (Some(before), None) => Some(Change::Delete(before)),
        }
    }

    /// The row before and the row after.
    pub fn into_rows(self) -> (Option<V>, Option<V>) {
        match self {
            Change::Insert(after) => (None, Some(after)),
            Change::Update { before, after } => (Some(before), Some(after)),
            Change::Delete(before) => (Some(before), None),
        }
    }

    /// The row after the change, by value.
    pub(crate) fn into_after(self) -> Option<V> {
        self.into_rows().1
    }

    /// The row after the change.
    pub fn after(&self) -> Option<&V> {
        match self {
            Change::Insert(after) | Change::Update { after, .. } => Some(after),
            Change::Delete(_) => None,
        }
    }

    /// The row before the change.
    pub fn before(&self) -> Option<&V> {
        match self {
            Change::Update { before, .. } | Change::Delete(before) => Some(before),
            Change::Insert(_) => None,
        }
    }

    /// The change of a row that is computed from this one.
    pub fn map<R>(self, f: impl Fn(V) -> R) -> Change<R> {
        match self {
            Change::Insert(after) => Change::Insert(f(after)),
            Change::Update { before, after } => Change::Update { before: f(before), after: f(after) },
            Change::Delete(before) => Change::Delete(f(before)),
        }
    }

    /// The change of a table that has only the rows for which `keep` answers true; none if it has neither.
    pub fn filter(self, keep: impl Fn(&V) -> bool) -> Option<Change<V>> {
        let (before, after) = self.into_rows();
        Change::between(before.filter(&keep), after.filter(&keep))
    }
}

/// A key's row as a log has it: the newest one, or none, which ends the key (a *tombstone*).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Upsert<K, V> {
    /// The key.
    pub key: K,
    /// The row from now on; none deletes it.
    pub value: Option<V>,
    /// Since when, in event time.
    pub time: Timestamp,
}
