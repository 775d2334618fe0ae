//! A harness for testing operators: records, watermarks and time are advanced by hand, on one thread, in memory.
//!
//! ```
//! use rivermark_operators::{Timestamp, Windows, secs, testing};
//!
//! let at = Timestamp::from_secs;
//! testing::check(|it| {
//!     let (clicks, stream) = it.input();
//!     let counts = stream.key_by(|page: &&str| page.to_string()).window(Windows::tumbling(secs(60))).count();
//!     let rows = it.output(counts.map(|row| (row.key, row.value)));
//!
//!     it.push(&clicks, at(10), "/");
//!     it.push(&clicks, at(20), "/");
//!     it.watermark(&clicks, at(59));
//!     it.expect(&rows, []);
//!     it.watermark(&clicks, at(60));
//!     it.expect(&rows, [("/".to_string(), 2)]);
//! });
//! ```
//!
//! [`check`] runs the same script in every [`Mode`]: the records one at a time and as many at a time as there are; with a snapshot and a
//! new instance restored from it before every step; with outputs that hold one record. What a script expects must hold in all of them.
//! [`Harness::new`] alone runs it once.
//!
//! What runs is the plan that an engine would run, with one worker. What only several workers show (rescaling, alignment of barriers
//! between them) is for the engine: see the simulation of the crate `rivermark`.

mod difference;
mod instance;

use crate::error::{Error, Result};
use crate::plan::{NodeKind, NodeSpec, Plan};
use crate::stream::{Flow, Stream};
use crate::time::Timestamp;
use difference::difference;
use instance::{Feeding, Instance, Kept, Noting};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::sync::Arc;

/// How a harness runs its script.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each record is processed when it is pushed, by itself.
    OneByOne,
    /// Records are processed in batches, up to the next thing that is not a record of the same input.
    AllAtOnce,
    /// Before each step a snapshot is taken and a new instance restored from it.
    Restoring,
    /// As [`Mode::OneByOne`], with outputs that pass every record on by itself.
    OneOut,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 4] = [Mode::OneByOne, Mode::AllAtOnce, Mode::Restoring, Mode::OneOut];
}

/// Runs a script in every [`Mode`].
///
/// # Panics
/// As the script does; the mode is printed before.
pub fn check(mut script: impl FnMut(&mut Harness)) {
    for mode in Mode::ALL {
        let mut harness = Harness::in_mode(mode);
        let told = Told(mode);
        script(&mut harness);
        std::mem::forget(told);
    }
}

/// Says in which mode a script panicked.
struct Told(Mode);

impl Drop for Told {
    #[expect(clippy::print_stderr, reason = "tests read it there")]
    fn drop(&mut self) {
        eprintln!("testing::check: the script failed in Mode::{:?}", self.0);
    }
}

/// What is fed to an input and not processed yet.
enum Fed<T> {
    Record(Timestamp, T),
    Watermark(Timestamp),
    Idle,
    Active,
    End,
}

/// The state of an input, which outlives instances.
struct Fill<T> {
    fed: Vec<Fed<T>>,
    offset: u64,
    watermark: Timestamp,
    idle: bool,
    ended: bool,
}

/// An input of the stream under test: one source partition, whose watermark is moved by hand.
pub struct Input<T> {
    number: usize,
    fill: Arc<Mutex<Fill<T>>>,
}

/// What came out of a stream under test.
pub struct Rows<T> {
    rows: Arc<Mutex<Vec<(Timestamp, T)>>>,
}

/// Runs streams under test; see the module's page.
pub struct Harness {
    mode: Mode,
    flow: Option<Flow>,
    inputs: usize,
    plan: Option<Arc<Plan>>,
    instance: Option<Instance>,
    kept: Kept,
    /// The input whose records are waiting, in [`Mode::AllAtOnce`].
    waiting: Option<usize>,
    now: Timestamp,
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

impl Harness {
    /// A harness that processes one record at a time.
    pub fn new() -> Harness {
        Self::in_mode(Mode::OneByOne)
    }

    /// A harness of this mode.
    pub fn in_mode(mode: Mode) -> Harness {
        Harness {
            mode,
            flow: Some(Flow::new("test")),
            inputs: 0,
            plan: None,
            instance: None,
            kept: Kept::default(),
            waiting: None,
            now: Timestamp::from_millis(0),
        }
    }

    /// Adds an input, and gives the stream of what will be pushed to it. The stream has event time: that of the push.
    ///
    /// # Panics
    /// After the first record: then the flow is fixed.
    pub fn input<T: Send + 'static>(&mut self) -> (Input<T>, Stream<T>) {
        let flow = self.flow.as_ref().expect("inputs are added before the first record");
        let fill = Fill { fed: Vec::new(), offset: 0, watermark: Timestamp::MIN, idle: false, ended: false };
        let fill = Arc::new(Mutex::new(fill));
        let number = self.inputs;
        self.inputs += 1;
        let filled = Arc::clone(&fill);
        let spec = NodeSpec { gives_event_time: true, ..NodeSpec::new("input", NodeKind::Source, vec![], 1) };
        let stream = flow.add(spec, move |builder, port| {
            let out = builder.output::<T>(port);
            builder.add_source(Feeding::new(builder.name(), Arc::clone(&filled), out));
            Ok(())
        });
        (Input { number, fill }, stream)
    }

    /// Notes what comes out of a stream.
    ///
    /// # Panics
    /// After the first record.
    pub fn output<T: Send + 'static>(&mut self, stream: Stream<T>) -> Rows<T> {
        assert!(self.flow.is_some(), "outputs are added before the first record");
        let rows: Arc<Mutex<Vec<(Timestamp, T)>>> = Arc::default();
        let noted = Arc::clone(&rows);
        stream.end_in(NodeSpec::new("output", NodeKind::Sink, vec![], 0), move |builder| {
            builder.add_end();
            builder.attach::<T>(0, Noting { rows: Arc::clone(&noted) });
            Ok(())
        });
        Rows { rows }
    }

    /// Pushes a record of that event time. Its partition's watermark is what [`Harness::watermark`] last said.
    ///
    /// # Panics
    /// If the stream fails.
    #[track_caller]
    pub fn push<T: Send + 'static>(&mut self, input: &Input<T>, time: Timestamp, record: T) {
        self.try_push(input, time, record).unwrap_or_else(|error| panic!("{error}"));
    }

    /// As [`Harness::push`], for records that are expected to fail.
    ///
    /// # Errors
    /// What the stream failed with. It cannot be used any more.
    pub fn try_push<T: Send + 'static>(
        &mut self,
        input: &Input<T>,
        time: Timestamp,
        record: T,
    ) -> Result<()> {
        if self.waiting.is_some_and(|waiting| waiting != input.number) {
            self.settle()?;
        }
        self.before_step()?;
        input.fill.lock().fed.push(Fed::Record(time, record));
        self.waiting = Some(input.number);
        if self.mode == Mode::AllAtOnce { Ok(()) } else { self.settle() }
    }

    /// Moves an input's watermark: no record below it follows but late ones. Moving it back is ignored, as a source would.
    ///
    /// # Panics
    /// If the stream fails.
    #[track_caller]
    pub fn watermark<T: Send + 'static>(&mut self, input: &Input<T>, to: Timestamp) {
        self.feed(input, Fed::Watermark(to));
    }

    /// Says that an input is silent: nothing waits for it.
    ///
    /// # Panics
    /// If the stream fails.
    #[track_caller]
    pub fn idle<T: Send + 'static>(&mut self, input: &Input<T>) {
        self.feed(input, Fed::Idle);
    }

    /// Says that an input is no longer silent.
    ///
    /// # Panics
    /// If the stream fails.
    #[track_caller]
    pub fn active<T: Send + 'static>(&mut self, input: &Input<T>) {
        self.feed(input, Fed::Active);
    }

    /// Ends an input: its watermark moves to the end of time, and no record follows.
    ///
    /// # Panics
    /// If the stream fails.
    #[track_caller]
    pub fn end<T: Send + 'static>(&mut self, input: &Input<T>) {
        self.feed(input, Fed::End);
    }

    /// Moves processing time, which begins at zero.
    ///
    /// # Panics
    /// If the stream fails, or time goes back.
    #[track_caller]
    pub fn advance_to(&mut self, now: Timestamp) {
        assert!(now >= self.now, "processing time goes from {} back to {now}", self.now);
        self.step_to(now).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Takes a snapshot, throws the instance away and restores a new one from the snapshot, as a restart does.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn restore(&mut self) {
        self.settle().and_then(|()| self.replace()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Expects exactly these rows, in this order, since the last look, and takes them.
    ///
    /// # Panics
    /// If there are others: the message shows which.
    #[track_caller]
    pub fn expect<T: PartialEq + Debug>(&mut self, rows: &Rows<T>, expected: impl IntoIterator<Item = T>) {
        let (expected, got) = (expected.into_iter().collect::<Vec<_>>(), self.take(rows));
        if let Some(difference) = difference(&expected, &got) {
            panic!("{difference}");
        }
    }

    /// As [`Harness::expect`], with the rows' event times.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn expect_at<T: PartialEq + Debug>(
        &mut self,
        rows: &Rows<T>,
        expected: impl IntoIterator<Item = (Timestamp, T)>,
    ) {
        let (expected, got) = (expected.into_iter().collect::<Vec<_>>(), self.take_at(rows));
        if let Some(difference) = difference(&expected, &got) {
            panic!("{difference}");
        }
    }

    /// Takes the rows since the last look.
    ///
    /// # Panics
    /// If the stream fails.
    #[track_caller]
    pub fn take<T>(&mut self, rows: &Rows<T>) -> Vec<T> {
        self.take_at(rows).into_iter().map(|(_, row)| row).collect()
    }

    /// As [`Harness::take`], with their event times.
    ///
    /// # Panics
    /// If the stream fails.
    #[track_caller]
    pub fn take_at<T>(&mut self, rows: &Rows<T>) -> Vec<(Timestamp, T)> {
        self.settle().unwrap_or_else(|error| panic!("{error}"));
        std::mem::take(&mut *rows.rows.lock())
    }

    /// How many records were late for at least one of their windows, over all operators.
    ///
    /// # Panics
    /// If the stream fails.
    #[track_caller]
    pub fn late_records(&mut self) -> u64 {
        self.settle().unwrap_or_else(|error| panic!("{error}"));
        self.kept.metrics.values().map(|operator| operator.late()).sum()
    }

    #[track_caller]
    fn feed<T>(&mut self, input: &Input<T>, fed: Fed<T>) {
        let done = self.settle().and_then(|()| self.before_step()).and_then(|()| {
            input.fill.lock().fed.push(fed);
            self.settle()
        });
        done.unwrap_or_else(|error| panic!("{error}"));
    }

    fn step_to(&mut self, now: Timestamp) -> Result<()> {
        self.settle()?;
        self.before_step()?;
        self.now = now;
        self.settle()
    }

    fn before_step(&mut self) -> Result<()> {
        if self.mode == Mode::Restoring && self.instance.is_some() { self.replace() } else { Ok(()) }
    }

    /// Processes everything that was fed.
    fn settle(&mut self) -> Result<()> {
        self.waiting = None;
        let now = self.now;
        let result = self.instance()?.settle(now);
        if result.is_err() {
            self.instance = None;
        }
        result
    }

    fn instance(&mut self) -> Result<&mut Instance> {
        let plan = self.plan()?;
        if self.instance.is_none() {
            self.instance = Some(Instance::build(&plan, &self.kept, self.inputs, self.mode, self.now)?);
        }
        self.instance.as_mut().ok_or_else(|| Error::engine("running the harness", "there is no instance"))
    }

    fn plan(&mut self) -> Result<Arc<Plan>> {
        if let Some(flow) = self.flow.take() {
            let plan = Arc::new(flow.into_plan()?);
            self.kept.begin(&plan);
            self.plan = Some(plan);
        }
        self.plan.clone().ok_or_else(|| Error::engine("running the harness", "the flow was not valid"))
    }

    fn replace(&mut self) -> Result<()> {
        let now = self.now;
        let epoch = self.kept.next_epoch();
        let parts = self.instance()?.snapshot(epoch, now)?;
        self.kept.keep(parts);
        self.instance = None;
        self.instance().map(|_| ())
    }
}
