//! What windows compute: an aggregate is a monoid of accumulators with a way in and a way out.

use crate::time::Timestamp;
use rivermark_state::StateValue;
use std::any::TypeId;
use std::marker::PhantomData;
use std::time::Duration;

/// An aggregation over the records of a window.
///
/// Accumulators of slices are merged where a window has several, and those of sessions where a record joins them, in no particular
/// order; so `merge` must be associative and commutative and agree with `add`: adding a record to an accumulator is the same as merging
/// with one that holds only it. A function that panics stops the job, with an error that names the operator and the record or window.
/// (Flink's `AggregateFunction`; Jesus et al., "A Survey of Distributed Data Aggregation Algorithms", 2015.)
pub trait Aggregate<V>: Clone + Send + Sync + 'static {
    /// What is kept a key and slice.
    type Acc: StateValue;
    /// What a window gives.
    type Out: Send + 'static;

    /// The accumulator of no records.
    fn create(&self) -> Self::Acc;
    /// Adds a record.
    fn add(&self, acc: &mut Self::Acc, value: &V);
    /// Adds all that `other` holds.
    fn merge(&self, acc: &mut Self::Acc, other: &Self::Acc);
    /// The result.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;

    /// Whether accumulators come out the very same in whatever order and groups the records are added and merged, to the last bit. Then
    /// tumbling and sliding windows aggregate before the exchange, so that a hot key costs one record a batch. Default: no, since
    /// floating-point sums do not.
    fn is_exact(&self) -> bool {
        false
    }
}

/// Counts records.
#[derive(Copy, Clone, Debug, Default)]
pub struct Count;

impl<V> Aggregate<V> for Count {
    type Acc = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    #[inline]
    fn add(&self, acc: &mut u64, _value: &V) {
        *acc += 1;
    }

    fn merge(&self, acc: &mut u64, other: &u64) {
        *acc += other;
    }

    fn finish(&self, acc: &u64) -> u64 {
        *acc
    }

    fn is_exact(&self) -> bool {
        true
    }
}

/// Adds up, takes the least or greatest of, or averages what a function reads from each record.
#[derive(Clone)]
pub(crate) struct Reading<F, Op> {
    read: F,
    op: PhantomData<fn() -> Op>,
}

impl<F, Op> Reading<F, Op> {
    pub(crate) fn new(read: F) -> Self {
        Reading { read, op: PhantomData }
    }
}

/// A way to combine two numbers into one.
pub(crate) trait Combine<N>: Clone + 'static {
    fn combine(a: N, b: N) -> N;
}

/// What can be summed: integers, which stop the job rather than overflow, floating-point numbers and durations.
///
/// Implement it for a number of your own to use it in [`crate::WindowedStream::sum`]. `checked_sum` must be associative and commutative.
pub trait Summand: Sized {
    /// The sum, or `None` where the type cannot hold it.
    fn checked_sum(self, other: Self) -> Option<Self>;
}

macro_rules! checked_summands {
    ($($summand:ty)*) => {$(
        impl Summand for $summand {
            #[inline]
            fn checked_sum(self, other: Self) -> Option<Self> {
                self.checked_add(other)
            }
        }
    )*};
}
checked_summands!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize Duration);

macro_rules! float_summands {
    ($($summand:ty)*) => {$(
        /// Never fails: a sum too large is infinite.
        impl Summand for $summand {
            #[inline]
            fn checked_sum(self, other: Self) -> Option<Self> {
                Some(self + other)
            }
        }
    )*};
}
float_summands!(f32 f64);

/// The sum; one that overflows panics, which stops the job.
#[derive(Clone)]
pub(crate) struct Sum;
/// The lesser.
#[derive(Clone)]
pub(crate) struct Min;
/// The greater.
#[derive(Clone)]
pub(crate) struct Max;

impl<N: Summand> Combine<N> for Sum {
    #[inline]
    fn combine(a: N, b: N) -> N {
        a.checked_sum(b).unwrap_or_else(|| overflow::<N>())
    }
}

#[cold]
fn overflow<N>() -> ! {
    let summand = std::any::type_name::<N>();
    panic!("the sum overflows `{summand}`: let `sum` read a wider type, such as i128")
}

impl<N: PartialOrd> Combine<N> for Min {
    #[inline]
    fn combine(a: N, b: N) -> N {
        if b < a { b } else { a }
    }
}

impl<N: PartialOrd> Combine<N> for Max {
    #[inline]
    fn combine(a: N, b: N) -> N {
        if b > a { b } else { a }
    }
}

impl<V, N, F, Op> Aggregate<V> for Reading<F, Op>
where
    N: StateValue + Sync,
    F: Fn(&V) -> N + Clone + Send + Sync + 'static,
    Op: Combine<N>,
{
    // None until the first record: the least of no records is not zero.
    type Acc = Option<N>;
    type Out = N;

    fn create(&self) -> Option<N> {
        None
    }

    fn add(&self, acc: &mut Option<N>, value: &V) {
        let read = (self.read)(value);
        *acc = Some(match acc.take() {
            None => read,
            Some(before) => Op::combine(before, read),
        });
    }

    fn merge(&self, acc: &mut Option<N>, other: &Option<N>) {
        if let Some(other) = other.clone() {
            *acc = Some(match acc.take() {
                None => other,
                Some(before) => Op::combine(before, other),
            });
        }
    }

    fn finish(&self, acc: &Option<N>) -> N {
        acc.clone().expect("a window that fires has at least one record")
    }

    fn is_exact(&self) -> bool {
        is_whole::<N>()
    }
}

/// Whether `N` is known to be a whole number: sums, least and greatest of those do not depend on order. Others might be compared or
/// added in a way of their own.
fn is_whole<N: 'static>() -> bool {
    macro_rules! is_one_of {
        ($($number:ty)*) => { [$(TypeId::of::<$number>()),*].contains(&TypeId::of::<N>()) };
    }
    is_one_of!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize Duration Timestamp)
}

/// The mean of what a function reads, kept as sum and count so that merging is exact.
#[derive(Clone)]
pub(crate) struct Average<F>(pub(crate) F);

impl<V, F: Fn(&V) -> f64 + Clone + Send + Sync + 'static> Aggregate<V> for Average<F> {
    type Acc = (f64, u64);
    type Out = f64;

    fn create(&self) -> (f64, u64) {
        (0.0, 0)
    }

    fn add(&self, acc: &mut (f64, u64), value: &V) {
        acc.0 += (self.0)(value);
        acc.1 += 1;
    }

    fn merge(&self, acc: &mut (f64, u64), other: &(f64, u64)) {
        acc.0 += other.0;
        acc.1 += other.1;
    }

    fn finish(&self, acc: &(f64, u64)) -> f64 {
        acc.0 / acc.1 as f64
    }
}

/// An aggregate from three closures; see [`crate::WindowedStream::fold`].
#[derive(Clone)]
pub(crate) struct Fold<A, F, M> {
    pub(crate) initial: A,
    pub(crate) add: F,
    pub(crate) merge: M,
}

impl<V, A, F, M> Aggregate<V> for Fold<A, F, M>
where
    A: StateValue + Sync,
    F: Fn(&mut A, &V) + Clone + Send + Sync + 'static,
    M: Fn(&mut A, &A) + Clone + Send + Sync + 'static,
{
    type Acc = A;
    type Out = A;

    fn create(&self) -> A {
        self.initial.clone()
    }

    fn add(&self, acc: &mut A, value: &V) {
        (self.add)(acc, value);
    }

    fn merge(&self, acc: &mut A, other: &A) {
        (self.merge)(acc, other);
    }

    fn finish(&self, acc: &A) -> A {
        acc.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_at_the_limit_is_one_and_beyond_it_is_none() {
        assert_eq!(i64::MAX.checked_sum(0), Some(i64::MAX));
        assert_eq!(i64::MAX.checked_sum(1), None);
        assert_eq!(i8::MIN.checked_sum(-1), None);
        assert_eq!(u32::MAX.checked_sum(1), None);
        assert_eq!(Duration::MAX.checked_sum(Duration::from_nanos(1)), None);
        assert_eq!(f64::MAX.checked_sum(f64::MAX), Some(f64::INFINITY));
    }
}
