//! The operator that runs a [`ProcessFunction`].

use super::order::{Due, Waiting};
use super::settling::Settling;
use super::{Context, ProcessFunction, Sides, States};
use crate::batch::{Batch, Stamp};
use crate::context::{BlameCell, OperatorMetrics, TaskContext, Watch};
use crate::dead_letters::Failures;
use crate::edge::{Operator, Output, Signal};
use crate::error::{BoxError, Error, Result};
use crate::exchange::{Ahead, Keyed};
use crate::plan::{NodeKind, NodeSpec, TaskBuilder};
use crate::reached::Reached;
use crate::stream::{KeyedStream, Stream};
use crate::time::Timestamp;
use crate::trace::{self, Makes, Marks};
use crate::window::{Late, LateCount, LateRecords};
use rivermark_state::{Key, KeyedStore, StateError, TableId, Timers as TimerTable};
use std::sync::Arc;

impl<K: Key, V: Send + 'static> KeyedStream<K, V> {
    /// Runs a function over each key's records and timers, with state of its own.
    ///
    /// ```
    /// use rivermark_operators::process::{Context, ProcessFunction};
    /// use rivermark_operators::{BoxError, Timestamp, Value, testing};
    ///
    /// const LAST: Value<i64> = Value::new("last");
    ///
    /// /// By how much each number is above the one before it.
    /// #[derive(Clone)]
    /// struct Rise;
    ///
    /// impl ProcessFunction<u8, i64> for Rise {
    ///     type Out = i64;
    ///
    ///     fn on_record(&mut self, _: &u8, number: i64, cx: &mut Context<'_, u8, i64>) -> Result<(), BoxError> {
    ///         if let Some(last) = cx.state(LAST).get()? {
    ///             cx.emit(number - last);
    ///         }
    ///         cx.state(LAST).set(number)
    ///     }
    /// }
    ///
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<i64>();
    ///     let rises = it.output(stream.key_by(|_| 0_u8).process(Rise));
    ///     [7, 9, 4].into_iter().for_each(|number| it.push(&numbers, Timestamp::MIN, number));
    ///     it.expect(&rises, [2, -5]);
    /// });
    /// ```
    pub fn process<P: ProcessFunction<K, V>>(self, function: P) -> Stream<P::Out> {
        self.process_failing("process", false, function)
    }

    /// As [`KeyedStream::process`], for operators that are made of one: `label` names them in metrics and errors.
    pub(crate) fn process_as<P: ProcessFunction<K, V>>(
        self,
        label: &'static str,
        needs_event_time: bool,
        function: P,
    ) -> Stream<P::Out> {
        let mut spec = NodeSpec::new(label, NodeKind::Stateful, vec![], 2);
        spec.needs_event_time = needs_event_time;
        self.process_with(spec, None, Timers::Passing, move || Ok(function.clone()))
    }

    /// As [`KeyedStream::process_as`], where each timer is the end of something that nothing can be added to afterwards.
    pub(crate) fn process_ending<P: ProcessFunction<K, V>>(
        self,
        label: &'static str,
        function: P,
    ) -> Stream<P::Out> {
        let spec = NodeSpec::new(label, NodeKind::Stateful, vec![], 2);
        let spec = NodeSpec { needs_event_time: true, ..spec };
        self.process_with(spec, None, Timers::Final, move || Ok(function.clone()))
    }

    /// As [`KeyedStream::process_as`], for a user's own function, which may fail.
    pub(crate) fn process_failing<P: ProcessFunction<K, V>>(
        self,
        label: &'static str,
        needs_event_time: bool,
        function: P,
    ) -> Stream<P::Out> {
        let spec = NodeSpec::new(label, NodeKind::Stateful, vec![], 2);
        let spec = NodeSpec { needs_event_time, can_fail: true, ..spec };
        self.process_with(spec, None, Timers::Passing, move || Ok(function.clone()))
    }

    /// As [`KeyedStream::process_as`], for an operator whose state is of use only to what `layout` describes, and whose description may be
    /// wrong: then the flow cannot be started, and the error says why.
    pub(crate) fn process_checked<P: ProcessFunction<K, V>>(
        self,
        label: &'static str,
        layout: String,
        function: Result<P, String>,
    ) -> Stream<P::Out> {
        let mut spec = NodeSpec::new(label, NodeKind::Stateful, vec![], 2);
        spec.needs_event_time = true;
        spec.problem = function.as_ref().err().cloned();
        let checked =
            move || function.clone().map_err(|problem| Error::engine(format!("building `{label}`"), problem));
        self.process_with(spec, Some(layout), Timers::Passing, checked)
    }

    fn process_with<P: ProcessFunction<K, V>>(
        mut self,
        mut spec: NodeSpec,
        layout: Option<String>,
        timers: Timers,
        function: impl Fn() -> Result<P> + Send + Sync + 'static,
    ) -> Stream<P::Out> {
        let order = self.order.take();
        let (open, late) = order.map_or((None, None), |order| (Some(order.open), order.late));
        spec.needs_event_time |= open.is_some();
        spec.has_sides = true;
        let has_late = late.is_some();
        let out = self.exchanged().then(spec, move |builder, port| {
            let late = builder.output::<Late<K, V>>(port + 1);
            let late = LateRecords::new(has_late.then_some(late), builder.metrics());
            let mut processing = Processing::open(builder, port, function()?)?;
            processing.timers = timers;
            if let Some(layout) = &layout {
                let declared = processing.core.store.declare_layout(layout);
                declared.map_err(processing.core.failed("restoring its state"))?;
            }
            if let Some(open) = &open {
                let waiting = open(&mut processing.core.store);
                let waiting = waiting.map_err(processing.core.failed("opening the records that wait"))?;
                processing.order = Some(Ordering { waiting, running: Vec::new(), late });
            }
            processing.core.open_states::<V>(builder)?;
            trace::attach(builder, Makes::History { in_order: open.is_some() }, processing);
            Ok(())
        });
        if let Some(late) = late {
            late(out.at_port(out.port() + 1));
        }
        out
    }
}

/// What the end of a stream brings about.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Timers {
    /// They say nothing of time: a function may set them as far ahead as it likes.
    Passing,
    /// What has ended with one is final for the next run too.
    Final,
}

struct Processing<K: Key, V, P: ProcessFunction<K, V>> {
    core: Core<K, P, P::Out>,
    /// In event-time order.
    order: Option<Ordering<K, V>>,
    /// The last watermark, as long as not all that is due at it has run.
    due: Option<Timestamp>,
    timers: Timers,
    /// The last that has run because of it, as far as the next run cannot come back to that; see [`Reached::advance`].
    last: Option<Timestamp>,
}

struct Ordering<K, V> {
    waiting: Box<dyn Waiting<K, V>>,
    /// What was taken out to run; empty between two calls.
    running: Due<K, V>,
    late: LateRecords<K, V>,
}

/// The function and what it uses.
struct Core<K: Key, P, Out> {
    name: Arc<str>,
    blame: BlameCell,
    metrics: Arc<OperatorMetrics>,
    function: P,
    store: KeyedStore,
    ahead: Ahead,
    timers: TableId<TimerTable<K>>,
    settling: Settling<K>,
    has_event_time: bool,
    key_groups: u16,
    reached: Reached,
    /// The greatest time of what has run: a timer that is set in the past runs then.
    latest: Timestamp,
    out: Output<Out>,
    sides: Sides,
    late: LateCount,
    marks: Marks,
    failures: Failures,
}

impl<K: Key, P, Out: 'static> Core<K, P, Out> {
    /// Names the operator in an error. For what runs once a batch or less: it takes a reference to the name, and workers who do that for each record
    /// fight for its counter.
    fn failed(&self, attempt: &'static str) -> impl Fn(StateError) -> Error + use<K, P, Out> {
        let name = Arc::clone(&self.name);
        move |e| Error::state(&name, attempt, e)
    }

    /// Opens the states that the function says it has.
    fn open_states<V>(&mut self, builder: &TaskBuilder<'_>) -> Result<()>
    where
        P: ProcessFunction<K, V, Out = Out>,
    {
        let mut states = States::new(&mut self.store);
        self.function.states(&mut states);
        states.finish(builder.dropped_states()).map_err(|e| {
            let attempt =
                format!("opening its state in flow `{}`, version {}", builder.flow(), builder.version());
            Error::state(&self.name, attempt, e)
        })
    }

    /// Calls the function on a record at the operator's watermark.
    #[inline(always)]
    fn run<V>(
        &mut self,
        stamp: &Stamp,
        watermark: Timestamp,
        record: Keyed<K, V>,
        watch: &mut Watch<'_>,
        cx: &mut TaskContext<'_>,
    ) -> Result<()>
    where
        P: ProcessFunction<K, V, Out = Out>,
    {
        watch.at(stamp);
        self.mark();
        let Keyed { hash, key, value } = record;
        self.set_time(stamp.time.max(stamp.watermark));
        let mut context = Context {
            stamp: *stamp,
            watermark,
            hash,
            key: &key,
            store: &mut self.store,
            timers: self.timers,
            settling: &mut self.settling,
            has_event_time: self.has_event_time,
            key_groups: self.key_groups,
            out: &mut self.out,
            sides: &mut self.sides,
            late: &self.late,
            marks: &self.marks,
        };
        let called = self.function.on_record(&key, value, &mut context);
        self.settle(called, stamp, watch)?;
        self.send_if_full(cx)
    }

    /// Takes the earliest timer up to `until` and calls the function on it. Answers its time, if there was one.
    fn fire<V>(
        &mut self,
        until: Timestamp,
        watermark: Option<Timestamp>,
        watch: &mut Watch<'_>,
        cx: &mut TaskContext<'_>,
    ) -> Result<Option<Timestamp>>
    where
        P: ProcessFunction<K, V, Out = Out>,
    {
        let due = self.store.table(self.timers).pop(until.millis());
        let due = due.map_err(|e| Error::state(&self.name, "taking the timers that are due", e))?;
        let Some((time, hash, key)) = due else { return Ok(None) };
        let time = Timestamp::from_millis(time);
        self.call_on_timer(time, (hash, key), watermark, watch, cx)?;
        Ok(Some(time))
    }

    /// Calls the function for the keys that wanted it once all records of `time` had run.
    fn settle_keys<V>(
        &mut self,
        time: Timestamp,
        watch: &mut Watch<'_>,
        cx: &mut TaskContext<'_>,
    ) -> Result<()>
    where
        P: ProcessFunction<K, V, Out = Out>,
    {
        if self.settling.is_empty() {
            return Ok(());
        }
        let keys = self.settling.take(&self.name)?;
        let at = time.plus_millis(1);
        keys.into_iter().try_for_each(|pair| self.call_on_timer(at, pair, None, watch, cx))
    }

    /// Calls the function on a timer at `time`, which is one of event-time order if no watermark is given.
    fn call_on_timer<V>(
        &mut self,
        time: Timestamp,
        (hash, key): (u64, K),
        watermark: Option<Timestamp>,
        watch: &mut Watch<'_>,
        cx: &mut TaskContext<'_>,
    ) -> Result<()>
    where
        P: ProcessFunction<K, V, Out = Out>,
    {
        let stamp = Stamp::derived(time);
        watch.at(&stamp);
        self.mark();
        self.set_time(if watermark.is_none() { stamp.time.max(self.latest) } else { stamp.time });
        let mut context = Context {
            stamp,
            watermark: watermark.unwrap_or(stamp.time),
            hash,
            key: &key,
            store: &mut self.store,
            timers: self.timers,
            settling: &mut self.settling,
            has_event_time: self.has_event_time,
            key_groups: self.key_groups,
            out: &mut self.out,
            sides: &mut self.sides,
            late: &self.late,
            marks: &self.marks,
        };
        let called = self.function.on_timer(&key, stamp.time, &mut context);
        self.settle(called, &stamp, watch)?;
        self.send_if_full(cx)
    }

    /// The time at which states with a time to live are looked at.
    #[inline]
    fn set_time(&mut self, time: Timestamp) {
        self.latest = self.latest.max(time);
        self.store.set_time(time.millis());
    }

    /// Where failures stop the job, nothing is ever taken back.
    #[inline]
    fn mark(&mut self) {
        if self.failures.are_kept() {
            self.store.mark();
            self.out.mark();
            self.sides.mark();
        }
    }

    /// Takes back what a call did that failed, if the job goes on.
    #[inline]
    fn settle(&mut self, called: Result<(), BoxError>, stamp: &Stamp, watch: &Watch<'_>) -> Result<()> {
        let Err(error) = called else { return Ok(()) };
        self.failures.take(stamp, error, watch)?;
        self.store
            .undo()
            .map_err(|e| Error::state(&self.name, "taking back what a failed call changed", e))?;
        self.out.undo();
        self.sides.undo();
        Ok(())
    }

    #[inline]
    fn send_if_full(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        if self.out.is_full() || self.failures.are_many() { self.send(cx) } else { Ok(()) }
    }

    fn send(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.failures.send(cx)?;
        self.sides.send(cx)?;
        self.out.send(cx)
    }
}

impl<K: Key, V: Send + 'static, P: ProcessFunction<K, V>> Processing<K, V, P> {
    fn open(builder: &mut TaskBuilder<'_>, port: usize, function: P) -> Result<Self> {
        let name = builder.name();
        let mut store = builder.open_store()?;
        let failures = Failures::open(builder);
        if failures.are_kept() {
            store.make_undoable();
        }
        let timers = store.timers("timers").map_err(|e| Error::state(&name, "opening the timers", e))?;
        if builder.has_event_time() {
            store.expire_until(builder.restored_watermark().millis());
        }
        let core = Core {
            name,
            blame: builder.blame(),
            metrics: builder.metrics(),
            function,
            store,
            ahead: Ahead::default(),
            timers,
            settling: Settling::default(),
            has_event_time: builder.has_event_time(),
            key_groups: builder.environment().key_groups,
            reached: Reached::restored(builder.restored_watermark()),
            latest: Timestamp::MIN,
            out: builder.output::<P::Out>(port),
            sides: builder.sides(),
            late: LateCount::new(builder.metrics()),
            marks: Marks::of(builder),
            failures,
        };
        Ok(Processing { core, order: None, due: None, timers: Timers::Passing, last: None })
    }

    fn pass_on(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        if let Some(order) = &mut self.order {
            order.late.signal(signal, cx)?;
        }
        self.core.failures.signal(signal, cx)?;
        self.core.sides.signal(signal, cx)?;
        self.core.out.signal(signal, cx)
    }

    /// Runs what is due at `watermark`, up to a few batches of records and timers. Answers whether all of it has run.
    fn advance(&mut self, watermark: Timestamp, cx: &mut TaskContext<'_>) -> Result<bool> {
        let core = &mut self.core;
        let (blame, name) = (core.blame.clone(), Arc::clone(&core.name));
        let mut watch = blame.watch(&name);
        let mut left = core.out.in_one_go();
        while left > 0 {
            let ran = match &mut self.order {
                None => {
                    let fired = core.fire::<V>(watermark, Some(watermark), &mut watch, cx)?;
                    // The end of time is nobody's end.
                    let ended = fired.filter(|at| self.timers == Timers::Final && *at < Timestamp::MAX);
                    self.last = self.last.max(ended);
                    usize::from(fired.is_some())
                }
                Some(order) => run_next(core, order, watermark, &mut self.last, &mut watch, cx)?,
            };
            if ran == 0 {
                return Ok(true);
            }
            left = left.saturating_sub(ran);
        }
        Ok(false)
    }
}

/// Runs the timers or records that are next in order of time, of records below the watermark and timers up to it; timers first. Answers how
/// many there were, and notes the last time of records that are from a source: what was computed is never late.
fn run_next<K: Key, V, P: ProcessFunction<K, V>>(
    core: &mut Core<K, P, P::Out>,
    order: &mut Ordering<K, V>,
    watermark: Timestamp,
    last: &mut Option<Timestamp>,
    watch: &mut Watch<'_>,
    cx: &mut TaskContext<'_>,
) -> Result<usize> {
    // At the end of time nothing more can come: its own records run too.
    let until = if watermark == Timestamp::MAX { watermark } else { watermark.minus_millis(1) };
    let next = order.waiting.next_time(&mut core.store, until);
    let next = next.map_err(|e| Error::state(&core.name, "taking the records that are due", e))?;
    if core.fire::<V>(next.unwrap_or(watermark), None, watch, cx)?.is_some() {
        return Ok(1);
    }
    let Some(time) = next else { return Ok(0) };
    let mut records = std::mem::take(&mut order.running);
    order.waiting.take(&mut core.store, time, &mut records);
    let count = records.len();
    for (stamp, record) in records.drain(..) {
        if stamp.origin.partition().is_some() && time < Timestamp::MAX {
            *last = (*last).max(Some(time));
        }
        core.run(&stamp, time, record, watch, cx)?;
    }
    order.running = records;
    core.settle_keys(time, watch, cx)?;
    Ok(count)
}

/// Whether a record is late for event-time order: it is below the watermark of its own partition. Behind the end of an earlier run, what ran
/// then has run too.
fn is_late(stamp: &Stamp, reached: Timestamp) -> bool {
    let is_from_source = stamp.origin.partition().is_some();
    stamp.time < stamp.watermark || is_from_source && stamp.time < reached
}

impl<K: Key, V: Send + 'static, P: ProcessFunction<K, V>> Operator<Keyed<K, V>> for Processing<K, V, P> {
    fn on_batch(&mut self, batch: &mut Batch<Keyed<K, V>>, cx: &mut TaskContext<'_>) -> Result<()> {
        let core = &mut self.core;
        core.ahead.begin(batch, &core.store);
        let (blame, name) = (core.blame.clone(), Arc::clone(&core.name));
        let mut watch = blame.watch(&name);
        match &mut self.order {
            None => batch.try_drain(|stamp, record| {
                core.ahead.step(&core.store);
                core.run(stamp, core.reached.watermark, record, &mut watch, cx)
            })?,
            Some(Ordering { waiting, late, .. }) => {
                let failed = core.failed("letting a record wait for its time");
                let reached = core.reached.watermark;
                batch.try_drain(|stamp, record| {
                    if is_late(stamp, reached) {
                        late.take(*stamp, record.key, record.value, 1);
                        return Ok(());
                    }
                    waiting.push(&mut core.store, stamp, record).map_err(&failed)
                })?;
                late.send(cx)?;
            }
        }
        drop(watch);
        core.store.maintain().map_err(|e| Error::state(&core.name, "keeping to the memory budget", e))?;
        core.send(cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            // After a restart the first watermarks may be older than the restored one.
            Signal::Watermark(watermark) if watermark <= self.core.reached.watermark => return Ok(()),
            // It goes on its way when all that is due has run.
            Signal::Watermark(watermark) => {
                self.due = Some(watermark);
                return Ok(());
            }
            Signal::Barrier(epoch) => {
                let core = &mut self.core;
                cx.parts.add_state(&core.name, &mut core.store, epoch, core.reached.watermark)?;
                core.reached.save(&core.name, cx.parts);
                core.late.save(cx.parts);
                if let Some(order) = &self.order {
                    order.late.save(cx.parts);
                }
            }
            Signal::Idle | Signal::Active | Signal::Partition(_) | Signal::End => {}
        }
        self.pass_on(signal, cx)
    }

    fn go_on(&mut self, cx: &mut TaskContext<'_>) -> Result<bool> {
        let Some(watermark) = self.due else { return Ok(true) };
        if !self.advance(watermark, cx)? {
            return Ok(false);
        }
        self.due = None;
        self.core.reached.advance(watermark, self.last.take());
        // The end of time is only this run's: what is read later may be earlier.
        if watermark < Timestamp::MAX {
            self.core.store.expire_until(watermark.millis());
        }
        self.core.metrics.set_watermark(watermark);
        self.pass_on(Signal::Watermark(watermark), cx)?;
        Ok(true)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        // Where no records come, timers and other stores may still exceed the budget.
        let core = &mut self.core;
        core.store.maintain().map_err(|e| Error::state(&core.name, "keeping to the memory budget", e))?;
        if let Some(order) = &mut self.order {
            order.late.flush(cx)?;
        }
        self.core.failures.flush(cx)?;
        self.core.sides.flush(cx)?;
        self.core.out.flush(cx)
    }
}
