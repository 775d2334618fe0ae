//! What a deployment would do, before anything is started.
//!
//! What becomes of the operators' state, and from which offsets on the log would be read again; whether it can: whether what would be read is still
//! there, and the first of it can be decoded. Nothing is started and nothing is written; of the log only the beginnings are read.

use crate::compatible;
use crate::environment::Environment;
use crate::parts;
use crate::savepoint::check_plan;
use rivermark_checkpoint::Manifest;
use rivermark_operators::Result;
use rivermark_operators::plan::NodeKind;
use rivermark_operators::source::Survey;
use rivermark_state::Verdict;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// What a deployment would do: the answer of [`Engine::plan`](crate::Engine::plan). As text it is a table for people, by serde it is for
/// programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DeploymentPlan {
    /// The flow.
    pub flow: String,
    /// The version that would be deployed.
    pub version: u64,
    /// The version that is live.
    pub live: Option<u64>,
    /// Where it would begin: its own checkpoint, a savepoint, or where its sources do.
    pub begins: String,
    /// Whether it could start: there are no problems.
    pub can_start: bool,
    /// What keeps it from starting.
    pub problems: Vec<String>,
    /// What does not keep it from starting, and should be known.
    pub warnings: Vec<String>,
    /// What becomes of state, operator by operator.
    pub states: Vec<PlannedState>,
    /// What would be read again, partition by partition.
    pub partitions: Vec<PlannedPartition>,
    /// About how many records that is.
    pub records: u64,
    /// About how many bytes.
    pub bytes: u64,
    /// About how much disk the version would need besides the log: as much as the live version's state and output have, if there is one.
    pub disk_bytes: Option<u64>,
    /// About how long the replay would take, by its rate limit or else at the rate of the live version so far. `None` if nothing is known.
    pub takes: Option<Duration>,
}

/// What becomes of the state of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedState {
    /// The operator.
    pub operator: String,
    /// The state's name; empty where it is about all of the operator's.
    pub state: String,
    /// What becomes of it.
    pub becomes: Becomes,
}

/// What becomes of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Becomes {
    /// It is taken over as it is.
    Kept,
    /// It is taken over, and changed as the flow's migrations say.
    Migrated,
    /// It is computed again from the records that are read.
    Rebuilt,
    /// It begins empty, from where the version begins on.
    New,
    /// It is given up.
    Dropped,
    /// It is found out when it is first used.
    CheckedOnUse,
    /// It cannot be taken over.
    Refused,
}

/// What would be read again of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedPartition {
    /// The source.
    pub source: String,
    /// What the partition is called.
    pub partition: String,
    /// The first offset that would be read.
    pub from: u64,
    /// One past the last that there is now.
    pub end: u64,
    /// About how many records that is.
    pub records: u64,
    /// About how many bytes.
    pub bytes: u64,
}

/// Where a version would begin.
pub(crate) enum Beginning<'a> {
    /// Where its sources do.
    Sources,
    /// Its own newest checkpoint.
    Own(&'a Manifest),
    /// A savepoint.
    Savepoint(&'a crate::savepoint::Savepoint),
}

/// What the plan of a version is made of.
pub(crate) fn plan(
    environment: &Environment,
    live: Option<u64>,
    beginning: &Beginning<'_>,
) -> Result<DeploymentPlan> {
    let (begins, manifest) = match beginning {
        Beginning::Sources => ("where its sources begin".to_owned(), None),
        Beginning::Own(manifest) => (format!("its own checkpoint {}", manifest.epoch), Some(*manifest)),
        Beginning::Savepoint(savepoint) => (format!("savepoint {savepoint}"), Some(savepoint.manifest())),
    };
    let mut plan = DeploymentPlan {
        flow: environment.flow().to_owned(),
        version: environment.plan.version(),
        live,
        begins,
        can_start: true,
        problems: Vec::new(),
        warnings: Vec::new(),
        states: Vec::new(),
        partitions: Vec::new(),
        records: 0,
        bytes: 0,
        disk_bytes: None,
        takes: None,
    };
    plan.foresee_states(environment, beginning)?;
    plan.foresee_reading(environment, manifest)?;
    plan.can_start = plan.problems.is_empty();
    Ok(plan)
}

impl DeploymentPlan {
    fn foresee_states(&mut self, environment: &Environment, beginning: &Beginning<'_>) -> Result<()> {
        match beginning {
            Beginning::Sources | Beginning::Own(_) => {
                let becomes = if let Beginning::Own(manifest) = beginning {
                    let groups = environment.options.key_groups;
                    let found = compatible::problems(&environment.plan, groups, manifest, &self.begins);
                    self.problems.extend(found);
                    Becomes::Kept
                } else {
                    Becomes::Rebuilt
                };
                let nodes = environment.plan.nodes().iter();
                self.states = nodes
                    .filter(|node| node.kind == NodeKind::Stateful)
                    .map(|node| PlannedState {
                        operator: node.name.to_string(),
                        state: String::new(),
                        becomes: becomes.clone(),
                    })
                    .collect();
            }
            Beginning::Savepoint(savepoint) => {
                let checked = check_plan(savepoint, &environment.plan)?;
                self.problems.extend(checked.problems);
                for state in checked.states {
                    if let Verdict::Refused { reason } = &state.verdict {
                        self.problems
                            .push(format!("state `{}` of `{}`: {reason}", state.state, state.operator));
                    }
                    let becomes = match state.verdict {
                        Verdict::New => Becomes::New,
                        Verdict::Same => Becomes::Kept,
                        Verdict::Migrated { .. } => Becomes::Migrated,
                        Verdict::Dropped => Becomes::Dropped,
                        Verdict::OnFirstUse => Becomes::CheckedOnUse,
                        Verdict::Refused { .. } => Becomes::Refused,
                    };
                    self.states.push(PlannedState { operator: state.operator, state: state.state, becomes });
                }
            }
        }
        Ok(())
    }

    /// Asks each source what would be read of its partitions.
    fn foresee_reading(&mut self, environment: &Environment, manifest: Option<&Manifest>) -> Result<()> {
        let mut positions = HashMap::new();
        if let Some(manifest) = manifest {
            for partition in parts::positions_of(manifest)? {
                positions.insert((partition.source.to_string(), partition.number), partition.position);
            }
        }
        for (name, source) in environment.plan.sources() {
            let context = environment.connector(name);
            let partitions = match source.partitions(&context) {
                Ok(partitions) => partitions,
                Err(error) => {
                    self.problems.push(format!("source `{name}`: {error}"));
                    continue;
                }
            };
            for partition in partitions {
                let position = positions.get(&(name.to_string(), partition.number));
                match source.survey(partition.number, position.map(Vec::as_slice), &context) {
                    Ok(Some(survey)) => self.add(name, partition.name, survey),
                    Ok(None) => self.warnings.push(format!(
                        "source `{name}` does not say what would be read of {}",
                        partition.name
                    )),
                    Err(error) => self.problems.push(format!("{}: {error}", partition.name)),
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, source: &str, partition: String, survey: Survey) {
        let Survey { from, end, earliest, records, bytes, is_compacted, undecodable, position: _ } = survey;
        if from < earliest {
            self.problems.push(format!(
                "{partition}: it would begin at offset {from}, and the first that is still there is {earliest}; begin from the earliest, or from \
                 a savepoint that is newer"
            ));
        } else if from == earliest && earliest > 0 {
            self.warnings.push(format!(
                "{partition}: the log begins at offset {earliest}; what the live version has read before that is not there any more"
            ));
        }
        if is_compacted {
            self.warnings.push(format!(
                "{partition}: it is compacted, so older rows of a key may not be there any more"
            ));
        }
        if let Some(undecodable) = undecodable {
            self.warnings.push(format!("{partition}: {undecodable}"));
        }
        self.records += records;
        self.bytes += bytes;
        let source = source.to_owned();
        self.partitions.push(PlannedPartition { source, partition, from, end, records, bytes });
    }
}

impl fmt::Display for DeploymentPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeploymentPlan { flow, version, begins, records, bytes, .. } = self;
        let can = if self.can_start { "can" } else { "cannot" };
        write!(f, "version {version} of flow `{flow}` {can} start, from {begins}")?;
        match self.live {
            Some(live) => writeln!(f, ", beside version {live}")?,
            None => writeln!(f, ", as the first that is live")?,
        }
        write!(f, "reads about {records} records, {bytes} bytes")?;
        if let Some(disk) = self.disk_bytes {
            write!(f, "; needs about {disk} bytes of disk")?;
        }
        match self.takes {
            Some(takes) => writeln!(f, "; takes about {:.1} s", takes.as_secs_f64())?,
            None => writeln!(f)?,
        }
        let width = |texts: Vec<&str>| texts.into_iter().map(|text| text.chars().count()).max().unwrap_or(0);
        let names = width(self.partitions.iter().map(|p| p.partition.as_str()).collect());
        for p in &self.partitions {
            writeln!(f, "  {:names$}  offsets {} to {}, {} records", p.partition, p.from, p.end, p.records)?;
        }
        let names = width(self.states.iter().map(|s| s.operator.as_str()).collect());
        for state in &self.states {
            let becomes = format!("{:?}", state.becomes).to_lowercase();
            writeln!(f, "  state of {:names$}  {}  {becomes}", state.operator, state.state)?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        self.problems.iter().try_for_each(|problem| writeln!(f, "problem: {problem}"))
    }
}
