//! `union`: several streams of one type become one.

use super::Stream;
use crate::batch::Batch;
use crate::context::TaskContext;
use crate::edge::{Operator, Output, Signal};
use crate::error::Result;
use crate::frontier::Frontier;
use crate::holding::{Hold, Holding};
use crate::plan::{NodeKind, NodeSpec};
use crate::time::Timestamp;
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
            let merge = Merge::new(out, [builder.hold(0), builder.hold(1)]);
            let merge = Rc::new(RefCell::new(merge));
            builder.add_holding(Held(Rc::clone(&merge)));
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
/// 3. when the epoch is given up, what is held is let go, and its barrier is passed over where it still comes. So it is for a newer barrier on
///    a held input.
///
/// How much is held is bounded by who feeds it: [`crate::holding`].
struct Merge<T> {
    out: Output<T>,
    frontier: Frontier,
    inputs: [Input<T>; 2],
    /// Epochs up to this one are given up.
    cancelled: Epoch,
}

struct Input<T> {
    barrier: Option<Epoch>,
    held: Vec<Item<T>>,
    hold: Hold,
    ended: bool,
}

impl<T> Input<T> {
    fn hold(&mut self, item: Item<T>) {
        match (&item, self.held.last_mut()) {
            // Who follows others tells of time even while it reads nothing.
            (Item::Signal(Signal::Watermark(to)), Some(Item::Signal(Signal::Watermark(last))))
                if *to < Timestamp::MAX =>
            {
                *last = *to;
                return;
            }
            _ => self.held.push(item),
        }
        self.hold.set(self.held.len());
    }
}

enum Item<T> {
    Batch(Batch<T>),
    Signal(Signal),
}

impl<T> Merge<T> {
    fn new(out: Output<T>, holds: [Hold; 2]) -> Self {
        let inputs = holds.map(|hold| Input { barrier: None, held: Vec::new(), hold, ended: false });
        Merge { out, frontier: Frontier::new(2), inputs, cancelled: Epoch::default() }
    }

    fn batch(&mut self, at: usize, batch: &mut Batch<T>, cx: &mut TaskContext<'_>) -> Result<()> {
        if self.inputs[at].barrier.is_some() {
            self.inputs[at].hold(Item::Batch(std::mem::take(batch)));
            return Ok(());
        }
        self.out.forward(batch, cx)
    }

    fn signal(&mut self, at: usize, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            Signal::Barrier(epoch) => return self.barrier(at, epoch, cx),
            signal if self.inputs[at].barrier.is_some() => {
                self.inputs[at].hold(Item::Signal(signal));
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
        if epoch <= self.cancelled {
            return Ok(());
        }
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
        self.inputs[at].hold.set(0);
        for item in std::mem::take(&mut self.inputs[at].held) {
            match item {
                Item::Batch(mut batch) => self.batch(at, &mut batch, cx)?,
                Item::Signal(signal) => self.signal(at, signal, cx)?,
            }
        }
        Ok(())
    }

    fn cancel(&mut self, epoch: Epoch, cx: &mut TaskContext<'_>) -> Result<()> {
        self.cancelled = self.cancelled.max(epoch);
        for at in 0..2 {
            if self.inputs[at].barrier.is_some_and(|held| held <= epoch) {
                self.let_go(at, cx)?;
            }
        }
        Ok(())
    }
}

/// The union, for the worker.
struct Held<T>(Rc<RefCell<Merge<T>>>);

impl<T> Holding for Held<T> {
    fn cancel(&mut self, epoch: Epoch, cx: &mut TaskContext<'_>) -> Result<()> {
        self.0.borrow_mut().cancel(epoch, cx)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Stamp;
    use crate::context::{CheckpointParts, ExchangeId, OperatorMetrics, Payload, Transport};
    use std::sync::Arc;

    struct Nowhere;

    impl Transport for Nowhere {
        fn send(&mut self, _: ExchangeId, _: usize, _: Payload) {}
    }

    /// What comes, in order.
    struct Noting(Rc<RefCell<Vec<String>>>);

    impl Operator<u8> for Noting {
        fn on_batch(&mut self, batch: &mut Batch<u8>, _cx: &mut TaskContext<'_>) -> Result<()> {
            self.0.borrow_mut().extend(batch.drain().map(|(_, n)| n.to_string()));
            Ok(())
        }

        fn on_signal(&mut self, signal: Signal, _cx: &mut TaskContext<'_>) -> Result<()> {
            self.0.borrow_mut().push(format!("{signal:?}"));
            Ok(())
        }

        fn flush(&mut self, _cx: &mut TaskContext<'_>) -> Result<()> {
            Ok(())
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn what_is_held_for_a_checkpoint_that_is_given_up_goes_on_and_its_barrier_is_passed_over() {
        let noted = Rc::new(RefCell::new(Vec::new()));
        let metrics = || Arc::new(OperatorMetrics::new("union".into()));
        let noting: Box<dyn Operator<u8>> = Box::new(Noting(Rc::clone(&noted)));
        let out = Output::new(vec![(noting, metrics())], metrics(), None, 10);
        let holds = [Hold::of(2), Hold::of(2)];
        let mut merge = Merge::new(out, holds.clone());
        let (mut transport, mut parts) = (Nowhere, CheckpointParts::default());
        let mut cx = TaskContext { transport: &mut transport, now: at(0), parts: &mut parts };
        let batch = |merge: &mut Merge<u8>, input, n, cx: &mut TaskContext<'_>| {
            merge.batch(input, &mut [(Stamp::derived(at(0)), n)].into_iter().collect(), cx).unwrap();
        };
        let barrier = |epoch| Signal::Barrier(Epoch(epoch));
        merge.signal(0, barrier(1), &mut cx).unwrap();
        batch(&mut merge, 0, 1, &mut cx);
        assert!(!holds[0].is_full());
        batch(&mut merge, 0, 2, &mut cx);
        batch(&mut merge, 1, 3, &mut cx);
        assert!(holds[0].is_full() && !holds[1].is_full());
        assert_eq!(*noted.borrow(), ["3"]);
        merge.cancel(Epoch(1), &mut cx).unwrap();
        assert!(!holds[0].is_full());
        // It comes late to the other input, and holds nothing there.
        merge.signal(1, barrier(1), &mut cx).unwrap();
        batch(&mut merge, 1, 4, &mut cx);
        assert_eq!(*noted.borrow(), ["3", "1", "2", "4"]);
        noted.borrow_mut().clear();

        // The next one is aligned as if that had never been. Of many watermarks the last is held, and the one before the end of time.
        merge.signal(1, barrier(2), &mut cx).unwrap();
        for to in [at(1), at(2), at(3), Timestamp::MAX] {
            merge.signal(1, Signal::Watermark(to), &mut cx).unwrap();
        }
        assert_eq!(merge.inputs[1].held.len(), 2);
        merge.signal(0, Signal::Watermark(Timestamp::MAX), &mut cx).unwrap();
        merge.signal(0, barrier(2), &mut cx).unwrap();
        let watermark = |to| format!("{:?}", Signal::Watermark(to));
        let passed = [format!("{:?}", barrier(2)), watermark(at(3)), watermark(Timestamp::MAX)];
        assert_eq!(*noted.borrow(), passed);
    }
}
