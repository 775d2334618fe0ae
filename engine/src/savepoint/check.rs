//! What a flow would make of a savepoint, before anything is started.

use super::Savepoint;
use crate::compatible;
use rivermark_operators::plan::Plan;
use rivermark_operators::{Error, Flow, Result};
use rivermark_state::{Finding, KeyedStore, Rehearsal, StateKind, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What would become of a savepoint's state if a flow started from it: the answer of [`Savepoint::check`].
///
/// As text it is a table for people, and by serde (in JSON, say) it is for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SavepointCheck {
    /// The savepoint's name.
    pub savepoint: String,
    /// The flow that would start.
    pub flow: String,
    /// Its version.
    pub version: u64,
    /// Whether it could start: there are no problems, and no state is refused.
    pub can_start: bool,
    /// What keeps the flow from starting beside states that are refused: operators that it does not have, say.
    pub problems: Vec<String>,
    /// Every state of the flow's operators, and of the savepoint's.
    pub states: Vec<CheckedState>,
}

/// What would become of one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckedState {
    /// The operator.
    pub operator: String,
    /// The state's name; empty where it is about all of the operator's.
    pub state: String,
    /// Its kind; `None` where it is about all of the operator's.
    pub kind: Option<StateKind>,
    /// The types of its keys and values, as the flow has them if it does.
    pub types: String,
    /// Its version, as the flow has it if it does.
    pub version: u32,
    /// What would become of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Checks a savepoint against a flow.
pub(super) fn check(savepoint: &Savepoint, flow: Flow) -> Result<SavepointCheck> {
    check_plan(savepoint, &flow.into_plan()?)
}

/// As [`check`], for a plan.
pub(crate) fn check_plan(savepoint: &Savepoint, plan: &Plan) -> Result<SavepointCheck> {
    let manifest = savepoint.manifest();
    let found = format!("savepoint {savepoint}");
    let mut problems = compatible::problems(plan, manifest.key_groups, manifest, &found);
    let mut states = Vec::new();
    rehearse(savepoint, plan, &mut problems, &mut states);
    for operator in manifest.operators.keys().filter(|name| plan.drops_operator(name)) {
        for state in savepoint.states(operator)? {
            states.push(CheckedState {
                operator: operator.clone(),
                state: state.name,
                kind: Some(state.kind),
                types: state.schema,
                version: state.version,
                verdict: Verdict::Dropped,
            });
        }
    }
    let is_refused = |state: &CheckedState| matches!(state.verdict, Verdict::Refused { .. });
    Ok(SavepointCheck {
        savepoint: savepoint.name().to_owned(),
        flow: plan.flow().to_owned(),
        version: plan.version(),
        can_start: problems.is_empty() && !states.iter().any(is_refused),
        problems,
        states,
    })
}

/// Lets all operators open their state, on stores without rows.
fn rehearse(savepoint: &Savepoint, plan: &Plan, problems: &mut Vec<String>, states: &mut Vec<CheckedState>) {
    let manifest = savepoint.manifest();
    let mut rehearsals: BTreeMap<String, Rehearsal> = BTreeMap::new();
    let mut open_store = |operator: &Arc<str>| {
        let tasks = manifest.operators.get(&**operator);
        let metas: Vec<&[u8]> = tasks.into_iter().flatten().map(|task| &*task.meta.0).collect();
        let (store, rehearsal) = KeyedStore::rehearse(operator, manifest.key_groups, &metas)
            .map_err(|e| Error::state(operator, format!("checking savepoint {savepoint}"), e))?;
        rehearsals.insert(operator.to_string(), rehearsal);
        Ok(store)
    };
    let built = plan.rehearse(manifest.key_groups, &mut open_store);
    problems.extend(built.into_iter().filter_map(|(_, built)| built.err()).map(|error| error.to_string()));
    for node in plan.nodes() {
        let Some(rehearsal) = rehearsals.get(&*node.name) else { continue };
        states.extend(rehearsal.findings().into_iter().map(|finding| {
            let Finding { state, kind, schema, version, verdict } = finding;
            CheckedState { operator: node.name.to_string(), state, kind, types: schema, version, verdict }
        }));
    }
}

impl fmt::Display for SavepointCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let can = if self.can_start { "can" } else { "cannot" };
        writeln!(
            f,
            "version {} of flow `{}` {can} start from savepoint `{}`",
            self.version, self.flow, self.savepoint
        )?;
        let header = ["operator", "state", "kind", "types", "version", "becomes"].map(str::to_owned);
        let rows: Vec<[String; 6]> =
            [header].into_iter().chain(self.states.iter().map(CheckedState::row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        for row in &rows {
            for (cell, width) in row.iter().zip(widths) {
                write!(f, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", row[5])?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "problem: {problem}"))
    }
}

impl CheckedState {
    fn row(&self) -> [String; 6] {
        let version = match (&self.verdict, self.kind) {
            (_, None) => String::new(),
            (Verdict::Migrated { from }, _) => format!("{from} -> {}", self.version),
            _ => self.version.to_string(),
        };
        let becomes = match &self.verdict {
            Verdict::New => "new".to_owned(),
            Verdict::Same => "the same".to_owned(),
            Verdict::Migrated { .. } => "migrated".to_owned(),
            Verdict::Dropped => "dropped".to_owned(),
            Verdict::OnFirstUse => "checked when it is first used".to_owned(),
            Verdict::Refused { reason } => format!("REFUSED: {reason}"),
        };
        let kind = self.kind.map(|kind| kind.to_string()).unwrap_or_default();
        [self.operator.clone(), self.state.clone(), kind, self.types.clone(), version, becomes]
    }
}
