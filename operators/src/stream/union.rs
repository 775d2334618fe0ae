//! `union`: several streams of one type become one.

use super::Stream;
use crate::batch::Batch;
use crate::context::TaskContext;
use crate::edge::{Operator, Output, Signal};
use crate::error::Result;
use crate::frontier::Frontier;
use crate::plan::{NodeKind, NodeSpec};
use rivermark_checkpoint::Epoch;
use std::cell::RefCell;
use std::rc::Rc;

impl<T: Send + 'static> Stream<T> {
    /// All records of this stream and of `other`. The watermark is the lower of the two. Order is kept within each, not between
    /// them.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// testing::check(|it| {
    ///     let ((web, web_orders), (shop, shop_orders)) = (it.input::<u32>(), it.input::<u32>());
    ///     let orders = it.output(web_orders.union(shop_orders));
    ///     it.push(&web, Timestamp::MIN, 1);
    ///     it.push(&shop, Timestamp::MIN, 2);
    ///     let mut orders = it.take(&orders);
    ///     orders.sort();
    ///     assert_eq!(orders, [1, 2]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If the streams belong to different flows.
    pub fn union(self, other: Stream<T>) -> Stream<T> {
        assert!(self.same_flow(&other), "union of streams of different flows");
        let spec = NodeSpec::new("union", NodeKind::Transform, vec![other.port()], 1);
        self.then(spec, move |builder, port| {
            let out = builder.output::<T>(port);
            let merge = Rc::new(RefCell::new(Merge::new(out)));
            for input in 0..2 {
                builder.attach(input, MergeInput { merge: Rc::clone(&merge), input });
            }
            Ok(())
        })
    }
}

/// Merges two inputs of one task.
///
/// The inputs may have come different ways (one through an exchange, one not), so a barrier may reach one before the other:
/// 1. an input that has the barrier is held until the other has it too;
/// 2. then the barrier goes on, and after it what was held;
/// 3. a newer barrier on a held input means that the older epoch was given up: what is held is let go.
struct Merge<T> {
    out: Output<T>,
    frontier: Frontier,
    inputs: [Input<T>; 2],
}

struct Input<T> {
    barrier: Option<Epoch>,
    held: Vec<Held<T>>,
    ended: bool,
}

enum Held<T> {
    Batch(Batch<T>),
    Signal(Signal),
}

impl<T> Merge<T> {
    fn new(out: Output<T>) -> Self {
        let input = || Input { barrier: None, held: Vec::new(), ended: false };
        Merge { out, frontier: Frontier::new(2), inputs: [input(), input()] }
    }

    fn batch(&mut self, at: usize, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        if self.inputs[at].barrier.is_some() {
            self.inputs[at].held.push(Held::Batch(std::mem::take(batch)));
            return Ok(());
        }
        self.out.forward(batch, cx)
    }

    fn signal(&mut self, at: usize, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            Signal::Barrier(epoch) => return self.barrier(at, epoch, cx),
            signal if self.inputs[at].barrier.is_some() => {
                self.inputs[at].held.push(Held::Signal(signal));
                return Ok(());
            }
            Signal::Partition(_) => return self.out.signal(signal, cx),
            _ => {}
        }
        self.frontier.hear(at, signal).signals().try_for_each(|moved| self.out.signal(moved, cx))?;
        if signal != Signal::End {
            return Ok(());
        }
        self.inputs[at].ended = true;
        if self.inputs[1 - at].ended { self.out.signal(Signal::End, cx) } else { self.release(cx) }
    }

    fn barrier(&mut self, at: usize, epoch: Epoch, cx: &mut TaskContext<'_>) -> Result<()> {
        if self.inputs[at].barrier.is_some() {
            self.let_go(at, cx)?;
        }
        self.inputs[at].barrier = Some(epoch);
        self.release(cx)
    }

    /// Passes the barrier on if both inputs have it, then what was held behind it.
    fn release(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        let waiting: Vec<Epoch> = self.inputs.iter().filter_map(|input| input.barrier).collect();
        let ready = self.inputs.iter().all(|input| input.barrier.is_some() || input.ended);
        let Some(&epoch) = waiting.iter().max() else { return Ok(()) };
        if !ready || waiting.iter().any(|&other| other != epoch) {
            return Ok(());
        }
        self.out.signal(Signal::Barrier(epoch), cx)?;
        self.let_go(0, cx)?;
        self.let_go(1, cx)
    }

    fn let_go(&mut self, at: usize, cx: &mut TaskContext<'_>) -> Result<()> {
        self.inputs[at].barrier = None;
        for held in std::mem::take(&mut self.inputs[at].held) {
            match held {
                Held::Batch(mut batch) => self.batch(at, &mut batch, cx)?,
                Held::Signal(signal) => self.signal(at, signal, cx)?,
            }
        }
        Ok(())
    }
}

struct MergeInput<T> {
    merge: Rc<RefCell<Merge<T>>>,
    input: usize,
}

impl<T> Operator<T> for MergeInput<T> {
    fn on_batch(&mut self, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        self.merge.borrow_mut().batch(self.input, batch, cx)
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        self.merge.borrow_mut().signal(self.input, signal, cx)
    }

    fn flush(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        self.merge.borrow_mut().out.flush(cx)
    }
}
