//! A job's state at one epoch.

use super::reader::Scratch;
use super::{Query, WindowQuery};
use rivermark_checkpoint::{Epoch, Manifest};
use rivermark_operators::{Error, Result, Timestamp};
use rivermark_state::{StateDescription, StateView};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The state of a job at one epoch, of all operators on all workers: what every question asked of it sees, whatever the job does meanwhile.
/// Cheap to clone.
///
/// It is the state at the barrier of a checkpoint that is stored: it reflects all records before its [`offsets`](View::offsets) and none behind
/// them. To hold one keeps files and memory that later epochs may not need any more.
#[derive(Clone)]
pub struct View {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    // Before the scratch that they are in.
    pub(super) states: BTreeMap<String, Arc<StateView>>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) _scratch: Arc<Scratch>,
}

/// Up to where a partition of a source had been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The source's name in the flow.
    pub source: String,
    /// The partition's name, such as `clicks/0` of a topic.
    pub partition: String,
    /// The offset behind the last record that was read; `None` if none was.
    pub offset: Option<u64>,
}

impl View {
    pub(super) fn new(inner: Inner) -> View {
        View { inner: Arc::new(inner) }
    }

    /// The flow.
    pub fn flow(&self) -> &str {
        &self.inner.manifest.flow
    }

    /// The version of the flow.
    pub fn version(&self) -> u64 {
        self.inner.manifest.version
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.inner.manifest.epoch
    }

    /// When its barrier began, by the clock of the process.
    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_millis(self.inner.manifest.created_at_ms)
    }

    /// Up to where each partition had been read: by source, and in the order of its partitions.
    pub fn offsets(&self) -> Vec<PartitionOffset> {
        let sources = self.inner.manifest.sources.iter();
        let offsets = sources.flat_map(|(source, partitions)| {
            partitions.iter().map(|(key, state)| PartitionOffset {
                source: source.clone(),
                // The partition's number stands before it.
                partition: key.split_once(':').map_or(&**key, |(_, name)| name).to_owned(),
                offset: state.read_to,
            })
        });
        offsets.collect()
    }

    /// How far event time had come: the lowest watermark of an operator with state. `None` if there is none that is told time.
    pub fn watermark(&self) -> Option<Timestamp> {
        let operators = self.inner.manifest.watermarks.keys();
        operators.filter_map(|operator| self.watermark_of(operator)).min()
    }

    /// How far event time had come at an operator with state; behind the end of its input, how far it had come there.
    pub fn watermark_of(&self, operator: &str) -> Option<Timestamp> {
        let Manifest { watermarks, ends, .. } = &*self.inner.manifest;
        ends.get(operator).or_else(|| watermarks.get(operator)).map(|at| Timestamp::from_millis(*at))
    }

    /// The operators that have state, by name.
    pub fn operators(&self) -> Vec<&str> {
        self.inner.states.keys().map(String::as_str).collect()
    }

    /// The states of an operator, those that it keeps beside its handles' included; none of an operator that has none.
    pub fn states(&self, operator: &str) -> Vec<StateDescription> {
        self.inner.states.get(operator).map_or_else(Vec::new, |state| state.states())
    }

    /// Asks for a state by its handle. Where several operators have a state of that name, [`Query::of`] says which.
    pub fn query<H: Copy>(&self, handle: H) -> Query<H> {
        Query::new(Ok(self.clone()), handle)
    }

    /// Asks for the windows of an operator.
    pub fn windows(&self, operator: &str) -> WindowQuery {
        WindowQuery::new(Ok(self.clone()), operator)
    }

    /// Bytes of memory that the changes since the last base take, those shared with other views included.
    pub fn memory(&self) -> usize {
        self.inner.states.values().map(|state| state.memory()).sum()
    }

    /// The state of an operator.
    pub(super) fn state(&self, operator: &str) -> Result<&StateView> {
        let state = self.inner.states.get(operator).map(Arc::as_ref);
        state.ok_or_else(|| {
            let problem = match self.operators().join("`, `") {
                none if none.is_empty() => "no operator of the flow has state".to_owned(),
                names => format!("there is no operator of that name with state, but `{names}`"),
            };
            Error::state(operator, format!("querying {self}"), problem)
        })
    }

    /// The operator that has a state that a handle of this name opens.
    pub(super) fn operator_with(&self, name: &str) -> Result<&str> {
        let has = |state: &StateDescription| state.name == name && is_of_a_handle(state);
        let having: Vec<&str> =
            self.operators().into_iter().filter(|operator| self.states(operator).iter().any(has)).collect();
        let attempt = || format!("querying state `{name}` of {self}");
        match having.as_slice() {
            [operator] => Ok(operator),
            [] => Err(Error::engine(attempt(), self.what_there_is())),
            several => {
                let operators = several.join("`, `");
                let problem = format!("operators `{operators}` have it; say which by `.of(..)`");
                Err(Error::engine(attempt(), problem))
            }
        }
    }

    /// The states that handles could ask for.
    fn what_there_is(&self) -> String {
        let of_operator = |operator: &&str| {
            let states = self.states(operator).into_iter().filter(is_of_a_handle);
            let states: Vec<String> =
                states.map(|state| format!("{} `{}` of {}", state.kind, state.name, state.schema)).collect();
            (!states.is_empty()).then(|| format!("operator `{operator}` has {}", states.join(", ")))
        };
        let all: Vec<String> = self.operators().iter().filter_map(of_operator).collect();
        match all.is_empty() {
            true => "there is no such state, and no other that a handle names".to_owned(),
            false => format!("there is no such state; {}", all.join("; ")),
        }
    }
}

/// Whether a user names the state, by a handle.
fn is_of_a_handle(state: &StateDescription) -> bool {
    use rivermark_state::StateKind::{List, Map, Reducing, Value};
    matches!(state.kind, Value | Reducing | List | Map)
}

/// The flow, its version and the epoch.
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} of flow `{}` at epoch {}", self.version(), self.flow(), self.epoch())
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("flow", &self.flow())
            .field("epoch", &self.epoch())
            .field("operators", &self.operators())
            .finish_non_exhaustive()
    }
}
