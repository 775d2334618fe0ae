//! Building one worker's tasks from a plan: what the engine gives for it, and what it gets.

use super::{Edge, Plan};
use crate::clocks::TimeGroup;
use crate::context::{BlameCell, ExchangeId, OperatorMetrics, TaskContext};
use crate::edge::{CloneBatch, Operator, Output, Signal};
use crate::error::Result;
use crate::holding::{Hold, Holding};
use crate::outstanding::Outstanding;
use crate::partitions::Partitions;
use crate::process::Sides;
use crate::rate_limit::Throttle;
use crate::source::{SourceTask, Waker};
use crate::time::Timestamp;
use rivermark_state::KeyedStore;
use std::any::{Any, type_name};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Opens the keyed state of one operator's task.
pub type OpenStore<'a> = dyn FnMut(&Arc<str>) -> Result<KeyedStore> + 'a;

/// What the engine gives for building one worker's tasks.
pub struct TaskEnvironment<'a> {
    /// Which worker this is, from 0.
    pub worker: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Number of key groups of the flow.
    pub key_groups: u16,
    /// Which attempt of the job this is: fences older ones at sinks.
    pub generation: u64,
    /// The job's partitions.
    pub partitions: Arc<Partitions>,
    /// Counters, by operator name, shared by all workers.
    pub metrics: &'a HashMap<Arc<str>, Arc<OperatorMetrics>>,
    /// The watermarks of operators in the checkpoint, by name.
    pub watermarks: &'a std::collections::BTreeMap<String, i64>,
    /// How far the operators' event time had come when their streams ended, by name.
    pub ends: &'a std::collections::BTreeMap<String, i64>,
    /// Resources that sources and sinks look up, such as the embedded log.
    pub resources: Arc<Resources>,
    /// How many records an operator collects before it passes them on: [`Batch::CAPACITY`](crate::Batch::CAPACITY) but for tests.
    pub batch_capacity: usize,
    /// How many batches an input of a union holds back for a barrier before what feeds it stops.
    pub held_batches: usize,
    /// Wakes this worker, for replies from outside.
    pub waker: Waker,
    /// Opens an operator's state, restored where there is a checkpoint.
    pub open_store: &'a mut OpenStore<'a>,
}

/// Things that the embedding engine offers to sources and sinks, by type: the log, a clock.
#[derive(Default)]
pub struct Resources {
    offered: HashMap<std::any::TypeId, Box<dyn Any + Send + Sync>>,
    diverted: Option<Diverted>,
}

/// Where sinks write in a run whose output is nobody's business outside.
struct Diverted {
    to: Box<Resources>,
    sinks: HashSet<String>,
}

impl Resources {
    /// Offers `resource`; one of each type.
    pub fn insert<R: Send + Sync + 'static>(&mut self, resource: R) {
        self.offered.insert(std::any::TypeId::of::<R>(), Box::new(resource));
    }

    /// The resource of that type, if the engine offers one.
    pub fn get<R: Send + Sync + 'static>(&self) -> Option<&R> {
        self.offered.get(&std::any::TypeId::of::<R>())?.downcast_ref()
    }

    /// Lets the named sinks look up `to` instead, and no other sink be opened at all: what comes to those is thrown away.
    pub fn divert_sinks(&mut self, sinks: impl IntoIterator<Item = String>, to: Resources) {
        self.diverted = Some(Diverted { to: Box::new(to), sinks: sinks.into_iter().collect() });
    }

    /// What a sink looks up. `None` if it is not to be opened.
    pub fn of_sink(&self, name: &str) -> Option<&Resources> {
        match &self.diverted {
            None => Some(self),
            Some(diverted) => diverted.sinks.contains(name).then_some(&*diverted.to),
        }
    }
}

/// The receiving end of an exchange on one worker: knows the type of its batches.
pub trait Inlet {
    /// Takes a batch that came through the exchange.
    fn on_batch(&mut self, batch: Box<dyn Any + Send>, cx: &mut TaskContext<'_>) -> Result<()>;
    /// Takes a signal, already combined over all senders.
    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()>;
    /// See [`Operator::go_on`]: called after a signal until it answers that all is done, before anything else is taken.
    fn go_on(&mut self, cx: &mut TaskContext<'_>) -> Result<bool>;
    /// See [`Operator::flush`].
    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()>;
}

/// The receiving end of an exchange, and where in the plan it is.
pub struct InletTask {
    /// The exchange.
    pub exchange: ExchangeId,
    /// The exchanges that it feeds, through no other one: what it takes may need room there.
    pub feeds: Vec<ExchangeId>,
    /// The inputs of unions that it feeds, through no other exchange: what they hold must not grow.
    pub holds: Vec<Hold>,
    /// The end itself.
    pub inlet: Box<dyn Inlet>,
}

/// One worker's operators, ready to run.
pub struct Tasks {
    /// The sources that this worker may be given partitions of, by name.
    pub sources: Vec<Box<dyn SourceTask>>,
    /// The receiving ends of exchanges, in order of the flow.
    pub inlets: Vec<InletTask>,
    /// How many ends (sinks) a barrier has to reach on this worker.
    pub ends: usize,
    /// Which record a panic was about.
    pub blame: BlameCell,
    /// What the operators wait for from outside.
    pub outstanding: Outstanding,
    /// What each input of a union holds.
    pub holds: Vec<Hold>,
    /// The unions, to be told of checkpoints that are given up.
    pub holding: Vec<Box<dyn Holding>>,
}

/// Hands a node's factory what it needs, and takes what it makes.
pub struct TaskBuilder<'a> {
    pub(super) plan: &'a Plan,
    pub(super) node: usize,
    environment: TaskEnvironment<'a>,
    attached: HashMap<Edge, Box<dyn Any>>,
    /// What inputs of unions hold.
    holds: HashMap<Edge, Hold>,
    /// Whether the operators are built without what is downstream of them.
    pub(super) alone: bool,
    pub(super) tasks: Tasks,
}

impl<'a> TaskBuilder<'a> {
    pub(super) fn new(plan: &'a Plan, environment: TaskEnvironment<'a>) -> Self {
        let tasks = Tasks {
            sources: Vec::new(),
            inlets: Vec::new(),
            ends: 0,
            blame: BlameCell::default(),
            outstanding: Outstanding::default(),
            holds: Vec::new(),
            holding: Vec::new(),
        };
        TaskBuilder {
            plan,
            node: 0,
            environment,
            attached: HashMap::new(),
            holds: HashMap::new(),
            alone: false,
            tasks,
        }
    }

    /// The environment.
    pub(crate) fn environment(&self) -> &TaskEnvironment<'a> {
        &self.environment
    }

    /// The name of the node being built.
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.plan.nodes[self.node].name)
    }

    /// The counters of the node being built.
    pub(crate) fn metrics(&self) -> Arc<OperatorMetrics> {
        self.metrics_of(self.node)
    }

    fn metrics_of(&self, node: usize) -> Arc<OperatorMetrics> {
        let name = &self.plan.nodes[node].name;
        self.environment
            .metrics
            .get(name)
            .cloned()
            .unwrap_or_else(|| Arc::new(OperatorMetrics::new(name.clone())))
    }

    /// The watermark that the node being built had in the checkpoint. A stream that had ended goes on with what was appended since: from
    /// where the node says its time had come, or as if no time had passed where it says nothing.
    pub(crate) fn restored_watermark(&self) -> Timestamp {
        self.restored_watermark_of(self.node)
    }

    /// The watermark that the one consumer of `port` had in the checkpoint.
    pub(crate) fn restored_watermark_behind(&self, port: usize) -> Timestamp {
        let [consumer] = self.plan.ports[port].consumers[..] else { panic!("port {port} has one consumer") };
        self.restored_watermark_of(consumer.node)
    }

    fn restored_watermark_of(&self, node: usize) -> Timestamp {
        let name = &*self.plan.nodes[node].name;
        let at = |times: &std::collections::BTreeMap<String, i64>| times.get(name).copied();
        let restored = at(self.environment.watermarks).filter(|millis| *millis != i64::MAX);
        restored.or(at(self.environment.ends)).map_or(Timestamp::MIN, Timestamp::from_millis)
    }

    /// The operators that tell time for streams which meet that of the node being built, which is one of them.
    pub(crate) fn time_group(&self) -> TimeGroup {
        self.plan.time_group(self.node)
    }

    /// The sources that records come from to the node being built.
    pub(crate) fn sources(&self) -> Vec<Arc<str>> {
        self.plan.sources_of(self.node)
    }

    /// Whether the records of the node being built carry event time.
    pub(crate) fn has_event_time(&self) -> bool {
        self.plan.nodes[self.node].event_time
    }

    /// The flow's name.
    pub(crate) fn flow(&self) -> &str {
        &self.plan.flow
    }

    /// The states of the node being built that the flow drops.
    pub(crate) fn dropped_states(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (plan, node) = (self.plan, self.node);
        let of_node = plan.dropped.iter().filter(move |dropped| *dropped.operator == *plan.nodes[node].name);
        of_node.filter_map(|dropped| dropped.state.as_deref())
    }

    /// The flow's version.
    pub(crate) fn version(&self) -> u64 {
        self.plan.version
    }

    /// After how long a silence the partitions of the source being built are idle.
    pub(crate) fn idle_after(&self) -> Option<Duration> {
        self.plan.nodes[self.node].idle_after
    }

    /// The rate limit of the source being built.
    pub(crate) fn throttle(&self) -> Arc<Throttle> {
        self.plan.nodes[self.node].throttle.clone().unwrap_or_default()
    }

    pub(crate) fn blame(&self) -> BlameCell {
        self.tasks.blame.clone()
    }

    /// What the worker's operators wait for from outside.
    pub(crate) fn outstanding(&self) -> &Outstanding {
        &self.tasks.outstanding
    }

    /// Opens the keyed state of the node being built.
    pub(crate) fn open_store(&mut self) -> Result<KeyedStore> {
        let name = self.name();
        (self.environment.open_store)(&name)
    }

    /// The sending end of the port `port`, with its consumers, which were built before.
    pub(crate) fn output<T: 'static>(&mut self, port: usize) -> Output<T> {
        let port = &self.plan.ports[port];
        if self.alone {
            return Output::new(Vec::new(), self.metrics(), None, self.environment.batch_capacity);
        }
        let metrics: Vec<_> = port.consumers.iter().map(|edge| self.metrics_of(edge.node)).collect();
        let take = |(edge, metrics): (&Edge, Arc<OperatorMetrics>)| {
            let attached = self.attached.remove(edge).expect("consumers are built before producers");
            let operator = *attached.downcast::<Box<dyn Operator<T>>>().unwrap_or_else(|_| {
                panic!(
                    "a consumer of `{}` is not one of {}",
                    self.plan.nodes[self.node].name,
                    type_name::<T>()
                )
            });
            (operator, metrics)
        };
        let consumers = port.consumers.iter().zip(metrics).map(take).collect();
        let clone = port.clone.as_ref().and_then(|clone| clone.downcast_ref::<CloneBatch<T>>().copied());
        Output::new(consumers, self.metrics(), clone, self.environment.batch_capacity)
    }

    /// Attaches an operator as the consumer of input `input` of the node being built.
    pub(crate) fn attach<T: 'static>(&mut self, input: usize, operator: impl Operator<T> + 'static) {
        let operator: Box<dyn Operator<T>> = Box::new(operator);
        self.attached.insert(Edge { node: self.node, input }, Box::new(operator));
    }

    pub(crate) fn add_source(&mut self, source: impl SourceTask + 'static) {
        self.tasks.sources.push(Box::new(source));
    }

    pub(crate) fn add_inlet(&mut self, exchange: ExchangeId, inlet: impl Inlet + 'static) {
        let (reached, feeds) = self.plan.reached_behind(self.node);
        let is_fed = |edge: &Edge| reached.contains(&self.plan.nodes[edge.node].upstream[edge.input]);
        let holds =
            self.holds.iter().filter(|(edge, _)| is_fed(edge)).map(|(_, hold)| hold.clone()).collect();
        self.tasks.inlets.push(InletTask { exchange, feeds, holds, inlet: Box::new(inlet) });
    }

    /// What the input `input` of the union being built holds.
    pub(crate) fn hold(&mut self, input: usize) -> Hold {
        let hold = Hold::of(self.environment.held_batches);
        self.holds.insert(Edge { node: self.node, input }, hold.clone());
        self.tasks.holds.push(hold.clone());
        hold
    }

    /// Adds an operator that has to be told of checkpoints that are given up.
    pub(crate) fn add_holding(&mut self, holding: impl Holding + 'static) {
        self.tasks.holding.push(Box::new(holding));
    }

    /// The side outputs of the node being built.
    pub(crate) fn sides(&mut self) -> Sides {
        let plan = self.plan;
        Sides(plan.nodes[self.node].sides.iter().map(|side| side.open(self)).collect())
    }

    pub(crate) fn add_end(&mut self) {
        self.tasks.ends += 1;
    }
}
