//! The plan: the graph behind a flow, and how a worker makes its tasks from it.
//!
//! 1. Describing a flow adds nodes to a graph; a stream is a port of a node. Nodes hold factories, not operators.
//! 2. [`Flow::into_plan`](crate::Flow::into_plan) checks the whole and makes it immutable; all workers share it.
//! 3. Each worker builds its own operators, consumers before producers: a node's factory takes its finished consumers out of
//!    the [`TaskBuilder`] as typed [`Output`](crate::edge::Output)s and attaches itself to the ports of its inputs. So each operator owns what is
//!    downstream of it, and the types are checked once, here, rather than a record at a time.
//!
//! A restart builds again from the same plan.

mod failing;
mod rehearsal;
mod tasks;

pub use tasks::{Inlet, InletTask, OpenStore, Resources, TaskBuilder, TaskEnvironment, Tasks};

use crate::clocks::TimeGroup;
use crate::context::ExchangeId;
use crate::dead_letters::OnError;
use crate::edge::CloneBatch;
use crate::error::{Error, Result};
use crate::process::{Side, SidePort};
use crate::rate_limit::{RateLimit, Throttle};
use crate::sink::{ErasedCommitter, VersionedOutput};
use crate::source::ErasedSource;
use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// What a node is, for pictures and checks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Reads the outside world.
    Source,
    /// Changes records one by one.
    Transform,
    /// Moves records to the worker that owns their key.
    Exchange(ExchangeId),
    /// Keeps state a key.
    Stateful,
    /// Writes the outside world.
    Sink,
}

/// One end of a connection: the consumer's node and which of its inputs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Edge {
    pub(crate) node: usize,
    pub(crate) input: usize,
}

#[derive(Default)]
struct Port {
    consumers: Vec<Edge>,
    /// `CloneBatch<T>`, for ports with several consumers.
    clone: Option<Arc<dyn Any + Send + Sync>>,
}

type Build = dyn Fn(&mut TaskBuilder<'_>) -> Result<()> + Send + Sync;

/// One operator of the plan.
pub struct Node {
    /// The operator's name: unique in the flow, and what its state is found by after a restart.
    pub name: Arc<str>,
    /// What sort of operator it is: what its name begins with as long as the user has not given it one.
    label: &'static str,
    is_named: bool,
    /// What it is.
    pub kind: NodeKind,
    /// Where its inputs come from, by index of the node.
    pub upstream: Vec<usize>,
    /// Whether its records carry event time and watermarks.
    pub(crate) event_time: bool,
    needs_event_time: bool,
    needs_partitions: bool,
    /// Whether it replaces what was known of time.
    pub tells_time: bool,
    keeps_journals: bool,
    mixes_order: bool,
    problem: Option<String>,
    can_fail: bool,
    on_error: OnError,
    /// The port of its failures, if they are read.
    failures: Option<usize>,
    has_sides: bool,
    /// The side outputs that are read.
    sides: Vec<SidePort>,
    idle_after: Option<Duration>,
    /// The rate limit of a source.
    throttle: Option<Arc<Throttle>>,
    build: Box<Build>,
    pub(crate) source: Option<Arc<dyn ErasedSource>>,
    pub(crate) committer: Option<Arc<dyn ErasedCommitter>>,
}

impl Node {
    /// What its name begins with, if the user has not given it one: then a number follows, its place among the operators of the sort.
    pub fn unnamed(&self) -> Option<&'static str> {
        (!self.is_named).then_some(self.label)
    }
}

/// State that a flow does not want any more.
#[derive(Clone, Debug)]
pub(crate) struct Dropped {
    pub(crate) operator: String,
    /// One of its states; all of it if none.
    pub(crate) state: Option<String>,
    /// It is a source, of which positions are left.
    pub(crate) is_source: bool,
}

/// What a new node is, before it has a name and a place.
pub(crate) struct NodeSpec {
    pub(crate) label: &'static str,
    pub(crate) kind: NodeKind,
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: usize,
    pub(crate) needs_event_time: bool,
    /// Whether it must be in the task that reads its sources, and see the records of each partition in their order.
    pub(crate) needs_partitions: bool,
    /// Whether it replaces what was known of time.
    pub(crate) tells_time: bool,
    /// Whether records leave it in another order than that of their partition.
    pub(crate) mixes_order: bool,
    pub(crate) gives_event_time: bool,
    /// Whether it writes down what a replay must repeat.
    pub(crate) keeps_journals: bool,
    /// Whether its function can return an error.
    pub(crate) can_fail: bool,
    /// Whether it can have side outputs.
    pub(crate) has_sides: bool,
    /// Why it cannot be built as it was described, and what to do.
    pub(crate) problem: Option<String>,
}

impl NodeSpec {
    pub(crate) fn new(label: &'static str, kind: NodeKind, inputs: Vec<usize>, outputs: usize) -> Self {
        NodeSpec {
            label,
            kind,
            inputs,
            outputs,
            needs_event_time: false,
            needs_partitions: false,
            tells_time: false,
            mixes_order: false,
            gives_event_time: false,
            keeps_journals: false,
            can_fail: false,
            has_sides: false,
            problem: None,
        }
    }
}

/// The graph of a flow while it is described.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    ports: Vec<Port>,
    /// Which node a port belongs to.
    port_nodes: Vec<usize>,
    labels: HashMap<&'static str, usize>,
    exchanges: u32,
    dropped: Vec<Dropped>,
}

impl Graph {
    /// Adds a node and returns its index and that of its first output port; the others follow.
    pub(crate) fn add(
        &mut self,
        spec: NodeSpec,
        build: impl Fn(&mut TaskBuilder<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> (usize, usize) {
        let index = self.nodes.len();
        let count = self.labels.entry(spec.label).or_insert(0);
        *count += 1;
        for (input, &port) in spec.inputs.iter().enumerate() {
            self.ports[port].consumers.push(Edge { node: index, input });
        }
        let upstream: Vec<usize> = spec.inputs.iter().map(|&port| self.port_nodes[port]).collect();
        let event_time = spec.gives_event_time
            || (!upstream.is_empty() && upstream.iter().all(|&node| self.nodes[node].event_time));
        self.nodes.push(Node {
            name: format!("{}-{count}", spec.label).into(),
            label: spec.label,
            is_named: false,
            kind: spec.kind,
            upstream,
            event_time,
            needs_event_time: spec.needs_event_time,
            needs_partitions: spec.needs_partitions,
            tells_time: spec.tells_time,
            mixes_order: spec.mixes_order,
            keeps_journals: spec.keeps_journals,
            problem: spec.problem,
            can_fail: spec.can_fail,
            on_error: OnError::Stop,
            failures: None,
            has_sides: spec.has_sides,
            sides: Vec::new(),
            idle_after: None,
            throttle: None,
            build: Box::new(build),
            source: None,
            committer: None,
        });
        let first = self.ports.len();
        self.ports.extend((0..spec.outputs).map(|_| Port::default()));
        self.port_nodes.extend((0..spec.outputs).map(|_| index));
        (index, first)
    }

    /// The index that the next node's first output port will have: factories need to know it before they are added.
    pub(crate) fn next_port(&self) -> usize {
        self.ports.len()
    }

    /// Tells every source upstream of `port` after how long a silence its partitions are idle: the shortest time that is asked for.
    pub(crate) fn set_idle_after(&mut self, port: usize, idle_after: Duration) {
        let mut nodes = vec![self.port_nodes[port]];
        while let Some(node) = nodes.pop() {
            let before = self.nodes[node].idle_after.unwrap_or(idle_after);
            self.nodes[node].idle_after = Some(before.min(idle_after));
            nodes.extend(&self.nodes[node].upstream);
        }
    }

    /// Limits how fast the source that `port` comes out of is read.
    pub(crate) fn set_rate_limit(&mut self, port: usize, limit: RateLimit) {
        let node = &mut self.nodes[self.port_nodes[port]];
        match &node.throttle {
            Some(throttle) => throttle.set_limit(Some(limit)),
            None => {
                let problem =
                    "only a source has a rate limit: say it on the stream that `flow.source(..)` gives";
                node.problem.get_or_insert_with(|| problem.into());
            }
        }
    }

    /// The port of a side output of the node that `port` belongs to.
    pub(crate) fn side_port<T: 'static>(&mut self, port: usize, side: Side<T>) -> usize {
        let node = self.port_nodes[port];
        let at = self.ports.len();
        self.ports.push(Port::default());
        self.port_nodes.push(node);
        self.nodes[node].sides.push(SidePort::new(side, at));
        at
    }

    /// Whether the records of each partition come to `node` in their order: through no exchange, and one way only.
    fn check_partitions(&self, node: &Node) -> Result<(), String> {
        let mut upstream = node.upstream.clone();
        let mut sources = HashSet::new();
        while let Some(index) = upstream.pop() {
            let before = &self.nodes[index];
            if let NodeKind::Exchange(_) = before.kind {
                let (what, already) = match node.tells_time {
                    true => (
                        "watermarks it would tell",
                        "; what comes out of windows and functions has event time already",
                    ),
                    false => ("records it would take in their order", ""),
                };
                return Err(format!(
                    "`{}` comes behind `{}`, which mixes the partitions whose {what}: call `.{}(..)` on the stream before \
                     `.key_by(..)`{already}",
                    node.name, before.name, node.label
                ));
            }
            if before.mixes_order {
                return Err(format!(
                    "`{}` comes behind `{}`, which is unordered, and depends on the order of each partition's records: call `.{}(..)` before it, \
                     or leave out `.unordered()`",
                    node.name, before.name, node.label
                ));
            }
            if before.upstream.is_empty() && !sources.insert(index) {
                return Err(format!(
                    "the records of `{}` come to `{}` two ways, and which way is first depends on the moment: call `.{}(..)` on the \
                     stream before it is split",
                    before.name, node.name, node.label
                ));
            }
            upstream.extend(&before.upstream);
        }
        Ok(())
    }

    pub(crate) fn next_exchange(&mut self) -> ExchangeId {
        let id = ExchangeId(self.exchanges);
        self.exchanges += 1;
        id
    }

    pub(crate) fn allow_several<T: Clone + 'static>(&mut self, port: usize) {
        let clone: CloneBatch<T> = Clone::clone;
        self.ports[port].clone = Some(Arc::new(clone));
    }

    pub(crate) fn rename(&mut self, node: usize, name: &str) {
        self.nodes[node].name = name.into();
        self.nodes[node].is_named = true;
    }

    pub(crate) fn drop_state(&mut self, dropped: Dropped) {
        self.dropped.push(dropped);
    }

    /// Whether what is dropped is the flow's to drop.
    fn check_dropped(&self) -> Result<(), String> {
        for Dropped { operator, state, is_source } in &self.dropped {
            let node = self.nodes.iter().find(|node| *node.name == **operator);
            match (node, state) {
                (None, Some(state)) => {
                    return Err(format!(
                        "state `{state}` of `{operator}` is to be dropped, and there is no such operator"
                    ));
                }
                (Some(_), None) => {
                    return Err(format!(
                        "{} `{operator}` is to be dropped, and the flow has it: give it another name",
                        if *is_source { "source" } else { "operator" }
                    ));
                }
                // Only functions open states that a user names.
                (Some(node), Some(state)) if !node.has_sides => {
                    return Err(format!(
                        "state `{state}` of `{operator}` is to be dropped, which is no function with state"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn node_of(&self, port: usize) -> usize {
        self.port_nodes[port]
    }

    pub(crate) fn set_source(&mut self, node: usize, source: Arc<dyn ErasedSource>) {
        self.nodes[node].throttle = Some(Arc::default());
        self.nodes[node].source = Some(source);
    }

    pub(crate) fn set_committer(&mut self, node: usize, committer: Arc<dyn ErasedCommitter>) {
        self.nodes[node].committer = Some(committer);
    }

    /// Checks the flow and makes it a plan.
    pub(crate) fn into_plan(self, flow: String, version: u64) -> Result<Plan> {
        let problem = |problem: String| Error::Flow { flow: flow.clone(), problem };
        if !self.nodes.iter().any(|node| node.kind == NodeKind::Source) {
            return Err(problem("it has no source: begin with `flow.source(..)`".into()));
        }
        if !self.nodes.iter().any(|node| node.kind == NodeKind::Sink) {
            return Err(problem(
                "it has no sink, so nobody would see its results: end with `.sink(..)`".into(),
            ));
        }
        let mut names = HashSet::new();
        for node in &self.nodes {
            if !names.insert(Arc::clone(&node.name)) {
                return Err(problem(format!(
                    "two operators are named `{}`: state is found by name, so give each its own with `.named(..)`",
                    node.name
                )));
            }
            if let Some(wrong) = &node.problem {
                return Err(problem(format!("`{}`: {wrong}", node.name)));
            }
            Self::check_on_error(node).map_err(problem)?;
            let mut sides = HashSet::new();
            if let Some(side) = node.sides.iter().find(|side| !node.has_sides || !sides.insert(side.name)) {
                return Err(problem(match node.has_sides {
                    true => format!(
                        "side output `{}` of `{}` is asked for twice: ask once, and clone the stream",
                        side.name, node.name
                    ),
                    false => format!(
                        "`{}` has no side outputs, and `{}` is asked for: only functions with state have them",
                        node.name, side.name
                    ),
                }));
            }
            if node.needs_partitions {
                self.check_partitions(node).map_err(problem)?;
            }
            if node.needs_event_time && !node.event_time {
                return Err(problem(format!(
                    "`{}` needs event time: call `.event_time(..)` on the stream before `.key_by(..)`",
                    node.name
                )));
            }
        }
        self.check_dropped().map_err(problem)?;
        let Graph { nodes, ports, exchanges, dropped, .. } = self;
        let plan = Plan { flow, version, nodes, ports, exchanges, dropped };
        match plan.check_times() {
            Ok(()) => Ok(plan),
            Err(problem) => Err(Error::Flow { flow: plan.flow, problem }),
        }
    }
}

/// A checked, immutable flow, from which every worker builds its tasks.
pub struct Plan {
    flow: String,
    version: u64,
    nodes: Vec<Node>,
    ports: Vec<Port>,
    exchanges: u32,
    dropped: Vec<Dropped>,
}

impl Plan {
    /// Whether the flow wants nothing more of an operator that it had.
    pub fn drops_operator(&self, name: &str) -> bool {
        let is_it = |dropped: &Dropped| dropped.operator == name && dropped.state.is_none();
        self.dropped.iter().any(|dropped| is_it(dropped) && !dropped.is_source)
    }

    /// Whether the flow wants nothing more of a source that it had.
    pub fn drops_source(&self, name: &str) -> bool {
        self.dropped.iter().any(|dropped| dropped.operator == name && dropped.is_source)
    }

    /// The flow's name.
    pub fn flow(&self) -> &str {
        &self.flow
    }

    /// The flow's version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The operators, producers before consumers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How many exchanges there are; their ids count from zero in the order of the flow.
    pub fn exchanges(&self) -> usize {
        self.exchanges as usize
    }

    /// The sources, by name.
    pub fn sources(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<dyn ErasedSource>)> {
        self.nodes.iter().filter_map(|node| Some((&node.name, node.source.as_ref()?)))
    }

    /// The sources' rate limits, by name.
    pub fn throttles(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Throttle>)> {
        self.nodes.iter().filter_map(|node| Some((&node.name, node.throttle.as_ref()?)))
    }

    /// The sinks' committers, by name.
    pub fn committers(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<dyn ErasedCommitter>)> {
        self.nodes.iter().filter_map(|node| Some((&node.name, node.committer.as_ref()?)))
    }

    /// What the flow's sinks write under names that stay while its versions change.
    pub fn versioned_outputs(&self) -> Vec<VersionedOutput> {
        self.committers().filter_map(|(_, committer)| committer.versioned_output(self.version)).collect()
    }

    /// Whether a silence of the clock lets others go on without a partition.
    pub fn may_be_silent(&self) -> bool {
        self.nodes.iter().any(|node| node.idle_after.is_some())
    }

    /// Builds one worker's tasks.
    pub fn build<'a>(&'a self, environment: TaskEnvironment<'a>) -> Result<Tasks> {
        let mut builder = TaskBuilder::new(self, environment);
        for index in (0..self.nodes.len()).rev() {
            builder.node = index;
            (self.nodes[index].build)(&mut builder)?;
        }
        builder.tasks.inlets.sort_by_key(|inlet| inlet.exchange);
        Ok(builder.tasks)
    }

    /// The operators that tell time for streams which meet that of `node` somewhere, directly or by way of others, with the sources that
    /// each reads.
    fn time_group(&self, node: usize) -> TimeGroup {
        let told: Vec<usize> = (0..self.nodes.len()).filter(|&node| self.nodes[node].tells_time).collect();
        let reach: Vec<HashSet<usize>> = told.iter().map(|&node| self.behind(node)).collect();
        let mut met = self.behind(node);
        let mut members = HashSet::from([node]);
        while let Some(at) =
            (0..told.len()).find(|&at| !members.contains(&told[at]) && !reach[at].is_disjoint(&met))
        {
            members.insert(told[at]);
            met.extend(&reach[at]);
        }
        let in_order = told.into_iter().filter(|node| members.contains(node));
        TimeGroup(in_order.map(|node| (Arc::clone(&self.nodes[node].name), self.sources_of(node))).collect())
    }

    /// Whether streams that meet are of one sort of time.
    fn check_times(&self) -> std::result::Result<(), String> {
        for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.tells_time) {
            let met = self.behind(index);
            let other = |(at, other): &(usize, &Node)| {
                other.tells_time && other.label != node.label && !self.behind(*at).is_disjoint(&met)
            };
            if let Some((_, other)) = self.nodes.iter().enumerate().find(other) {
                return Err(format!(
                    "the stream of `{}` meets that of `{}`: an hour of event time is not an hour of processing time; tell both the same sort",
                    node.name, other.name
                ));
            }
        }
        Ok(())
    }

    /// Whether operators of the flow write journals, so that what an earlier version has written may be of use.
    pub fn keeps_journals(&self) -> bool {
        self.nodes.iter().any(|node| node.keeps_journals)
    }

    /// The nodes that the time told by `from` reaches: all behind it, up to where time is told anew.
    fn behind(&self, from: usize) -> HashSet<usize> {
        let mut reached = HashSet::from([from]);
        for (index, node) in self.nodes.iter().enumerate().skip(from + 1) {
            if !node.tells_time && node.upstream.iter().any(|before| reached.contains(before)) {
                reached.insert(index);
            }
        }
        reached
    }

    /// The sources that records come to `node` from.
    fn sources_of(&self, node: usize) -> Vec<Arc<str>> {
        let (mut before, mut sources) = (vec![node], Vec::new());
        while let Some(index) = before.pop() {
            let node = &self.nodes[index];
            if node.kind == NodeKind::Source {
                sources.push(Arc::clone(&node.name));
            }
            before.extend(&node.upstream);
        }
        sources
    }

    /// The nodes that records come to from the node `from`, itself included, and the exchanges that they go into, without another one in
    /// between.
    fn reached_behind(&self, from: usize) -> (HashSet<usize>, Vec<ExchangeId>) {
        let mut reached = HashSet::from([from]);
        let mut behind = Vec::new();
        // Consumers come after producers.
        for (index, node) in self.nodes.iter().enumerate().skip(from + 1) {
            if !node.upstream.iter().any(|before| reached.contains(before)) {
                continue;
            }
            match node.kind {
                NodeKind::Exchange(id) => behind.push(id),
                _ => drop(reached.insert(index)),
            }
        }
        (reached, behind)
    }
}
