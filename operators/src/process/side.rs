//! Side outputs: streams beside an operator's main one, found by a typed name.
//!
//! ```
//! use rivermark_operators::process::{Context, ProcessFunction, Side};
//! use rivermark_operators::{BoxError, Timestamp, testing};
//!
//! const ODD: Side<u64> = Side::new("odd");
//!
//! #[derive(Clone)]
//! struct Halve;
//!
//! impl ProcessFunction<u64, u64> for Halve {
//!     type Out = u64;
//!
//!     fn on_record(&mut self, _: &u64, n: u64, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
//!         match n % 2 {
//!             0 => cx.emit(n / 2),
//!             _ => cx.emit_to(ODD, n),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! testing::check(|it| {
//!     let (numbers, stream) = it.input();
//!     let halves = stream.key_by(|n: &u64| n % 10).process(Halve);
//!     let odd = halves.side_output(ODD);
//!     let (halves, odd) = (it.output(halves), it.output(odd));
//!     (4..8).for_each(|n| it.push(&numbers, Timestamp::MIN, n));
//!     it.expect(&halves, [2, 3]);
//!     it.expect(&odd, [5, 7]);
//! });
//! ```

use crate::batch::Stamp;
use crate::context::TaskContext;
use crate::edge::{Output, Signal};
use crate::error::Result;
use crate::plan::TaskBuilder;
use std::any::{Any, type_name};
use std::fmt;
use std::marker::PhantomData;

/// The typed name of a side output, a constant: `const REJECTED: Side<Order> = Side::new("rejected");`
pub struct Side<T> {
    name: &'static str,
    records: PhantomData<fn() -> T>,
}

impl<T> Side<T> {
    /// A side output of that name. Names are an operator's own.
    pub const fn new(name: &'static str) -> Self {
        Side { name, records: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T> Clone for Side<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Side<T> {}

impl<T> fmt::Debug for Side<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Side({})", self.name)
    }
}

/// A side output that somebody reads: its port, and how to open that without knowing the type.
pub(crate) struct SidePort {
    pub(crate) name: &'static str,
    pub(crate) port: usize,
    open: fn(&mut TaskBuilder<'_>, usize) -> Box<dyn AnySide>,
}

impl SidePort {
    pub(crate) fn new<T: 'static>(side: Side<T>, port: usize) -> SidePort {
        SidePort { name: side.name, port, open: |builder, port| Box::new(builder.output::<T>(port)) }
    }

    pub(crate) fn open(&self, builder: &mut TaskBuilder<'_>) -> (&'static str, Box<dyn AnySide>) {
        (self.name, (self.open)(builder, self.port))
    }
}

/// An [`Output`] whose type is forgotten.
pub(crate) trait AnySide {
    fn as_any(&mut self) -> &mut dyn Any;
    fn mark(&mut self);
    fn undo(&mut self);
    fn send(&mut self, cx: &mut TaskContext<'_>) -> Result<()>;
    fn signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()>;
    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()>;
}

impl<T: 'static> AnySide for Output<T> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn mark(&mut self) {
        Output::mark(self);
    }

    fn undo(&mut self) {
        Output::undo(self);
    }

    fn send(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        Output::send(self, cx)
    }

    fn signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        Output::signal(self, signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        Output::flush(self, cx)
    }
}

/// The side outputs of one operator that are read.
#[derive(Default)]
pub(crate) struct Sides(pub(crate) Vec<(&'static str, Box<dyn AnySide>)>);

impl Sides {
    pub(super) fn push<T: 'static>(&mut self, side: Side<T>, stamp: Stamp, record: T) {
        let Some((_, output)) = self.0.iter_mut().find(|(name, _)| *name == side.name) else { return };
        let Some(output) = output.as_any().downcast_mut::<Output<T>>() else {
            panic!("side output `{}` is read as another type than {}", side.name, type_name::<T>());
        };
        output.push(stamp, record);
    }

    /// See [`Output::mark`].
    pub(crate) fn mark(&mut self) {
        self.0.iter_mut().for_each(|(_, output)| output.mark());
    }

    /// See [`Output::undo`].
    pub(crate) fn undo(&mut self) {
        self.0.iter_mut().for_each(|(_, output)| output.undo());
    }

    pub(crate) fn send(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|(_, output)| output.send(cx))
    }

    pub(crate) fn signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|(_, output)| output.signal(signal, cx))
    }

    pub(crate) fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|(_, output)| output.flush(cx))
    }
}
