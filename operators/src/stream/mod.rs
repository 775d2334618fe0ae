//! Streams: what a flow is described with, one file an operator.

mod deduplicate;
mod distinct;
mod event_time;
mod filter;
mod flat_map;
mod key_by;
mod map;
mod processing_time;
mod reduce;
mod telling;
mod union;

pub use deduplicate::Keep;
pub use key_by::KeyedStream;

use crate::dead_letters::{DeadLetter, Failures, write_letters};
use crate::error::Result;
use crate::plan::{Dropped, Graph, NodeKind, NodeSpec, Plan, TaskBuilder};
use crate::process::Side;
use crate::rate_limit::RateLimit;
use crate::sink::{CommitterOf, Sink, Writing};
use crate::source::{Reading, Source};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The description of a pipeline: sources, operators, sinks. It does nothing until an engine runs it.
///
/// Its name is its identity: checkpoints are found by it.
pub struct Flow {
    name: String,
    version: u64,
    graph: Rc<RefCell<Graph>>,
    dead_letters: RefCell<Option<UseDeadLetters>>,
}

/// What is made of the dead letters of a flow.
type UseDeadLetters = Box<dyn FnOnce(Stream<DeadLetter>)>;

impl Flow {
    /// An empty flow. The name is part of file names: letters, digits, `-`, `_` and `.`.
    pub fn new(name: impl Into<String>) -> Flow {
        Flow { name: name.into(), version: 1, graph: Rc::default(), dead_letters: RefCell::default() }
    }

    /// Says which version of the flow this is; each has its own state and checkpoints. Default: 1.
    pub fn version(mut self, version: u64) -> Flow {
        self.version = version;
        self
    }

    /// The flow's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says that the state `state` of the function named `operator` is not wanted any more: what a checkpoint has of it is removed at the next
    /// start. Without this, a state that the function does not declare any more is an error then, so that none is lost by mistake. Where no
    /// checkpoint has it, it changes nothing, so it may stay in the program.
    ///
    /// An operator that the flow does not have, or a state that it declares, is an error.
    pub fn drop_state(&self, operator: impl Into<String>, state: impl Into<String>) {
        let dropped = Dropped { operator: operator.into(), state: Some(state.into()), is_source: false };
        self.graph.borrow_mut().drop_state(dropped);
    }

    /// Says that the operator named `operator`, which the flow does not have any more, left no state that is wanted. Without this, a checkpoint
    /// with state of an operator that the flow does not have is an error. It goes for keyed state; for a source there is [`Flow::drop_source`], and
    /// what a sink left is never dropped.
    pub fn drop_operator(&self, operator: impl Into<String>) {
        self.graph.borrow_mut().drop_state(Dropped {
            operator: operator.into(),
            state: None,
            is_source: false,
        });
    }

    /// Says that the flow does not read the source named `source` any more, which it had. Without this, a checkpoint or savepoint with positions of
    /// a source that the flow does not have is an error, so that no input is lost by mistake. What was made of its records stays.
    ///
    /// Its positions stay in the checkpoints too, so leave this in the program. A flow that has the source again goes on where it was left; one
    /// that is to read it anew gives it another name. A source that the flow has is an error of [`Flow::into_plan`].
    pub fn drop_source(&self, source: impl Into<String>) {
        self.graph.borrow_mut().drop_state(Dropped { operator: source.into(), state: None, is_source: true });
    }

    /// Begins a stream with the records of a source. An undecodable record stops the job, with an error that says where it is, unless
    /// [`Stream::on_error`] or [`Stream::dead_letters`] say otherwise.
    ///
    /// ```
    /// use rivermark_operators::source::Source;
    /// use rivermark_operators::{Flow, Stream};
    ///
    /// /// What two sources have in common: the type of their records.
    /// fn orders(flow: &Flow, web: impl Source<Item = u64>, shop: impl Source<Item = u64>) -> Stream<u64> {
    ///     flow.source(web).named("web").union(flow.source(shop).named("shop"))
    /// }
    /// ```
    pub fn source<S: Source>(&self, source: S) -> Stream<S::Item> {
        let source = Arc::new(source);
        let reads = Arc::clone(&source);
        let spec = NodeSpec { can_fail: true, ..NodeSpec::new("source", NodeKind::Source, vec![], 1) };
        let mut graph = self.graph.borrow_mut();
        let flow = self.name.clone();
        // The first port's index is the number of ports before: it is needed inside the factory, before `add` returns it.
        let first = graph.next_port();
        let (node, port) = graph.add(spec, move |builder| {
            let out = builder.output::<S::Item>(first);
            let failures = Failures::open(builder);
            let environment = builder.environment();
            let reading = Reading::new(
                builder.name(),
                flow.clone(),
                builder.version(),
                Arc::clone(&reads),
                Arc::clone(&environment.resources),
                Arc::clone(&environment.partitions),
                builder.metrics(),
                out,
                failures,
                builder.idle_after(),
                builder.throttle(),
            );
            builder.add_source(reading);
            Ok(())
        });
        graph.set_source(node, source);
        drop(graph);
        self.stream(port)
    }

    /// As [`Flow::source`], but undecodable records go to the second stream, with their bytes: its [`Stream::dead_letters`].
    ///
    /// ```
    /// use rivermark_operators::sink::Sink;
    /// use rivermark_operators::source::Source;
    /// use rivermark_operators::{DeadLetter, Flow, Stream};
    ///
    /// fn decoded<T: Send + 'static>(flow: &Flow, source: impl Source<Item = T>, undecodable: impl Sink<DeadLetter>) -> Stream<T> {
    ///     let (records, letters) = flow.source_with_dead_letters(source);
    ///     letters.sink(undecodable);
    ///     records
    /// }
    /// ```
    pub fn source_with_dead_letters<S: Source>(&self, source: S) -> (Stream<S::Item>, Stream<DeadLetter>) {
        let records = self.source(source);
        let dead_letters = records.dead_letters();
        (records, dead_letters)
    }

    pub(crate) fn set_dead_letters(&self, dead_letters: UseDeadLetters) {
        *self.dead_letters.borrow_mut() = Some(dead_letters);
    }

    /// Adds a node without inputs and gives its first output. The factory gets the index of that output port.
    pub(crate) fn add<T>(
        &self,
        spec: NodeSpec,
        build: impl Fn(&mut TaskBuilder<'_>, usize) -> Result<()> + Send + Sync + 'static,
    ) -> Stream<T> {
        let mut graph = self.graph.borrow_mut();
        let port = graph.next_port();
        graph.add(spec, move |builder| build(builder, port));
        drop(graph);
        self.stream(port)
    }

    fn stream<T>(&self, port: usize) -> Stream<T> {
        Stream { graph: Rc::clone(&self.graph), port, records: PhantomData }
    }

    /// Checks the flow and makes it a plan that an engine can run.
    ///
    /// # Errors
    /// If it has no source or sink, names an operator twice, or asks for event time where there is none.
    pub fn into_plan(self) -> Result<Plan> {
        let unread = self.graph.borrow().unread_failures();
        if let Some(use_letters) = self.dead_letters.take().filter(|_| !unread.is_empty()) {
            // Any port leads to the graph.
            use_letters(write_letters(&self.stream::<()>(0), &unread));
        }
        let graph = std::mem::take(&mut *self.graph.borrow_mut());
        graph.into_plan(self.name, self.version)
    }
}

/// A stream of records of type `T`: the output of an operator, to be used by the next.
///
/// Cloning it (for `T: Clone`) gives a second consumer the same records.
pub struct Stream<T> {
    graph: Rc<RefCell<Graph>>,
    port: usize,
    records: PhantomData<fn() -> T>,
}

impl<T: Clone + 'static> Clone for Stream<T> {
    fn clone(&self) -> Self {
        self.graph.borrow_mut().allow_several::<T>(self.port);
        Stream { graph: Rc::clone(&self.graph), port: self.port, records: PhantomData }
    }
}

impl<T: Send + 'static> Stream<T> {
    /// Names the operator that this stream comes out of: in metrics, in errors, and as what its state is found by after a restart.
    ///
    /// ```
    /// use rivermark_operators::{Flow, Stream, Timestamp, Watermarks, Windows, days};
    ///
    /// fn describe(sales: Stream<(u32, u64)>) {
    ///     let by_shop = sales.key_by(|sale| sale.0);
    ///     // A new version of the flow may have other operators before this one; its windows are found by the name.
    ///     by_shop.window(Windows::tumbling(days(1))).sum(|sale| sale.1).named("revenue");
    /// }
    /// ```
    pub fn named(self, name: &str) -> Self {
        let mut graph = self.graph.borrow_mut();
        let node = graph.node_of(self.port);
        graph.rename(node, name);
        drop(graph);
        self
    }

    /// Limits how fast the source that this stream comes out of is read, over all of its partitions and workers, which share it fairly. Results are
    /// the same as without; see [`rate_limit`](crate::rate_limit). On another stream it is an error of [`Flow::into_plan`].
    pub fn rate_limit(self, limit: RateLimit) -> Self {
        self.graph.borrow_mut().set_rate_limit(self.port, limit);
        self
    }

    /// A side output of the operator that this stream comes out of; see [`Side`]. An operator that has none is an error of
    /// [`Flow::into_plan`].
    ///
    /// ```
    /// use rivermark_operators::process::{Context, ProcessFunction, Side};
    /// use rivermark_operators::{BoxError, Timestamp, testing};
    ///
    /// const DEBTS: Side<i64> = Side::new("debts");
    ///
    /// #[derive(Clone)]
    /// struct Split;
    ///
    /// impl ProcessFunction<u8, i64> for Split {
    ///     type Out = i64;
    ///
    ///     fn on_record(&mut self, _: &u8, amount: i64, cx: &mut Context<'_, u8, i64>) -> Result<(), BoxError> {
    ///         if amount < 0 {
    ///             cx.emit_to(DEBTS, -amount);
    ///         } else {
    ///             cx.emit(amount);
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// testing::check(|it| {
    ///     let (amounts, stream) = it.input::<i64>();
    ///     let split = stream.key_by(|_| 0_u8).process(Split);
    ///     let debts = it.output(split.side_output(DEBTS));
    ///     let assets = it.output(split);
    ///     [7, -3, 2].into_iter().for_each(|amount| it.push(&amounts, Timestamp::MIN, amount));
    ///     it.expect(&assets, [7, 2]);
    ///     it.expect(&debts, [3]);
    /// });
    /// ```
    pub fn side_output<S: Send + 'static>(&self, side: Side<S>) -> Stream<S> {
        let port = self.graph.borrow_mut().side_port(self.port, side);
        self.at_port(port)
    }

    /// Writes the stream to a sink, exactly once if the sink can.
    pub fn sink<S: Sink<T>>(self, sink: S) {
        self.sink_named("sink", sink);
    }

    /// As [`Stream::sink`], under a name of its own instead of `sink-1`.
    pub fn sink_as<S: Sink<T>>(self, name: &str, sink: S) {
        let node = self.sink_named("sink", sink);
        self.graph.borrow_mut().rename(node, name);
    }

    fn sink_named<S: Sink<T>>(&self, label: &'static str, sink: S) -> usize {
        let sink = Arc::new(sink);
        let writes = Arc::clone(&sink);
        let spec = NodeSpec::new(label, NodeKind::Sink, vec![self.port], 0);
        let mut graph = self.graph.borrow_mut();
        let (node, _) = graph.add(spec, move |builder| {
            let writing = Writing::open(builder, &*writes)?;
            builder.add_end();
            builder.attach::<T>(0, writing);
            Ok(())
        });
        graph.set_committer(node, Arc::new(CommitterOf { sink, records: PhantomData }));
        node
    }

    /// Adds a node that consumes this stream (as input 0, before the spec's other inputs) and gives its first output.
    ///
    /// The factory gets the index of that output port.
    pub(crate) fn then<U: 'static>(
        self,
        spec: NodeSpec,
        build: impl Fn(&mut TaskBuilder<'_>, usize) -> Result<()> + Send + Sync + 'static,
    ) -> Stream<U> {
        let mut spec = spec;
        spec.inputs.insert(0, self.port);
        let mut graph = self.graph.borrow_mut();
        let port = graph.next_port();
        graph.add(spec, move |builder| build(builder, port));
        drop(graph);
        self.at_port(port)
    }

    /// Adds a node that consumes this stream and gives none.
    pub(crate) fn end_in(
        self,
        mut spec: NodeSpec,
        build: impl Fn(&mut TaskBuilder<'_>) -> Result<()> + Send + Sync + 'static,
    ) {
        spec.inputs.insert(0, self.port);
        self.graph.borrow_mut().add(spec, build);
    }

    /// Another output of the same flow.
    pub(crate) fn at_port<U>(&self, port: usize) -> Stream<U> {
        Stream { graph: Rc::clone(&self.graph), port, records: PhantomData }
    }

    pub(crate) fn port(&self) -> usize {
        self.port
    }

    pub(crate) fn graph(&self) -> &Rc<RefCell<Graph>> {
        &self.graph
    }

    pub(crate) fn same_flow<U>(&self, other: &Stream<U>) -> bool {
        Rc::ptr_eq(&self.graph, &other.graph)
    }

    fn set_idle_after(&self, idle_after: Option<Duration>) {
        if let Some(idle_after) = idle_after {
            self.graph.borrow_mut().set_idle_after(self.port, idle_after);
        }
    }
}
