//! `group_by(..).aggregate`: aggregates over the rows of a table, which rows leave as they came.
//!
//! 1. A change goes to the group of the row that it takes back, and to that of the row it brings; once where they are the same.
//! 2. The group removes the one from its accumulator and adds the other.
//! 3. When all changes of one time have come, the group tells what has changed. A group without rows has none itself.

use super::{Change, Table, keyed};
use crate::error::BoxError;
use crate::exchange::Keyed;
use crate::process::{Context, ProcessFunction, States};
use crate::stream::KeyedStream;
use crate::time::Timestamp;
use crate::window::Summand;
use rivermark_state::{Key, StateValue, Value};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// An aggregate that rows can be taken out of again: an abelian group of accumulators. `remove` must undo `add`, and the order of both
/// must not matter; so floating-point sums are as exact as their rounding, and nothing but whole numbers is exact.
pub trait Retractable<V>: Clone + Send + Sync + 'static {
    /// What is kept a group.
    type Acc: StateValue;
    /// What a group's row is. Where it is the same as before, nothing is told.
    type Out: StateValue + PartialEq;

    /// The accumulator of no rows.
    fn create(&self) -> Self::Acc;
    /// Adds a row.
    fn add(&self, acc: &mut Self::Acc, row: &V);
    /// Takes a row out that was added.
    fn remove(&self, acc: &mut Self::Acc, row: &V);
    /// The result.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;
}

impl<K: Key, V: StateValue> Table<K, V> {
    /// Groups the rows. The function is called anew for a row that is taken back, and must answer the same.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     // Accounts, with their owners and what is on them.
    ///     let (accounts, stream) = it.input::<(u32, char, i64)>();
    ///     let owners = stream.key_by(|account| account.0).to_table().group_by(|_, account| account.1);
    ///     // What account 1 leaves is taken back from its owner.
    ///     let rows = it.output(owners.count().changes());
    ///     [(1, (1, 'a', 10)), (2, (2, 'a', 5)), (3, (1, 'b', 10))].into_iter().for_each(|(time, row)| it.push(&accounts, at(time), row));
    ///     it.end(&accounts);
    ///     let mut told = it.take(&rows);
    ///     told.sort();
    ///     let mut expected = vec![('a', Change::Insert(1)), ('a', Change::Update { before: 1, after: 2 }), ('a', Change::Update { before: 2, after: 1 }), ('b', Change::Insert(1))];
    ///     expected.sort();
    ///     assert_eq!(told, expected);
    /// });
    /// ```
    pub fn group_by<G: Key>(
        self,
        group: impl Fn(&K, &V) -> G + Clone + Send + Sync + 'static,
    ) -> GroupedTable<G, V> {
        let changes = self.changes.flat_map(move |Keyed { key, value, .. }| {
            let group_of = |row: &V| group(&key, row);
            let same = value.before().map(group_of) == value.after().map(group_of);
            let split = match value {
                Change::Update { before, after } if !same => {
                    [Some(Change::Delete(before)), Some(Change::Insert(after))]
                }
                whole => [Some(whole), None],
            };
            let at_group = |change: Change<V>| {
                let row = change.after().or(change.before());
                let group = row.map(group_of);
                group.map(|group| keyed(&group, change))
            };
            split.into_iter().flatten().filter_map(at_group).collect::<Vec<_>>()
        });
        GroupedTable { changes: KeyedStream { keyed: changes, order: None } }
    }
}

/// The rows of a table in groups, waiting to be told what to compute.
pub struct GroupedTable<G, V> {
    changes: KeyedStream<G, Change<V>>,
}

impl<G: Key, V: StateValue> GroupedTable<G, V> {
    /// How many rows each group has.
    pub fn count(self) -> Table<G, u64> {
        self.fold(0, |count, _| *count += 1, |count, _| *count -= 1)
    }

    /// The sum of what `read` gives for each row. One that overflows stops the job.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     // Accounts, with their owners and what is on them.
    ///     let (accounts, stream) = it.input::<(u32, char, i64)>();
    ///     let owners = stream.key_by(|account| account.0).to_table().group_by(|_, account| account.1);
    ///     let rows = it.output(owners.sum(|account| account.2).changes());
    ///     [(1, (1, 'a', 10)), (2, (2, 'a', 5)), (3, (1, 'b', 10))].into_iter().for_each(|(time, row)| it.push(&accounts, at(time), row));
    ///     it.end(&accounts);
    ///     let mut told = it.take(&rows);
    ///     told.sort();
    ///     let mut expected = vec![('a', Change::Insert(10)), ('a', Change::Update { before: 10, after: 15 }), ('a', Change::Update { before: 15, after: 5 }), ('b', Change::Insert(10))];
    ///     expected.sort();
    ///     assert_eq!(told, expected);
    /// });
    /// ```
    pub fn sum<N: StateValue + Sync + PartialEq + Default + Summand + std::ops::Sub<Output = N>>(
        self,
        read: impl Fn(&V) -> N + Clone + Send + Sync + 'static,
    ) -> Table<G, N> {
        let (add, remove) = (read.clone(), read);
        let overflows = "the sum overflows: let `sum` read a wider type, such as i128";
        self.fold(
            N::default(),
            move |sum, row| *sum = sum.clone().checked_sum(add(row)).expect(overflows),
            move |sum, row| *sum = sum.clone() - remove(row),
        )
    }

    /// Folds rows in and out of an accumulator. `remove` must undo `add`, in any order.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     // Accounts, with their owners and what is on them.
    ///     let (accounts, stream) = it.input::<(u32, char, i64)>();
    ///     let owners = stream.key_by(|account| account.0).to_table().group_by(|_, account| account.1);
    ///     let product = owners.fold(1, |all, account| *all *= account.2, |all, account| *all /= account.2);
    ///     let rows = it.output(product.changes());
    ///     [(1, (1, 'a', 10)), (2, (2, 'a', 5)), (3, (1, 'b', 10))].into_iter().for_each(|(time, row)| it.push(&accounts, at(time), row));
    ///     it.end(&accounts);
    ///     let mut told = it.take(&rows);
    ///     told.sort();
    ///     let mut expected = vec![('a', Change::Insert(10)), ('a', Change::Update { before: 10, after: 50 }), ('a', Change::Update { before: 50, after: 5 }), ('b', Change::Insert(10))];
    ///     expected.sort();
    ///     assert_eq!(told, expected);
    /// });
    /// ```
    pub fn fold<A: StateValue + Sync + PartialEq>(
        self,
        initial: A,
        add: impl Fn(&mut A, &V) + Clone + Send + Sync + 'static,
        remove: impl Fn(&mut A, &V) + Clone + Send + Sync + 'static,
    ) -> Table<G, A> {
        self.aggregate(Fold { initial, add, remove })
    }

    /// Computes an aggregate of the user's over each group's rows.
    pub fn aggregate<A: Retractable<V>>(self, aggregate: A) -> Table<G, A::Out> {
        let function = Aggregating { aggregate, rows: PhantomData };
        Table::of(self.changes.in_event_time_order().process_as("group", true, function))
    }
}

#[derive(Clone)]
struct Fold<A, F, R> {
    initial: A,
    add: F,
    remove: R,
}

impl<V, A, F, R> Retractable<V> for Fold<A, F, R>
where
    A: StateValue + Sync + PartialEq,
    F: Fn(&mut A, &V) + Clone + Send + Sync + 'static,
    R: Fn(&mut A, &V) + Clone + Send + Sync + 'static,
{
    type Acc = A;
    type Out = A;

    fn create(&self) -> A {
        self.initial.clone()
    }

    fn add(&self, acc: &mut A, row: &V) {
        (self.add)(acc, row);
    }

    fn remove(&self, acc: &mut A, row: &V) {
        (self.remove)(acc, row);
    }

    fn finish(&self, acc: &A) -> A {
        acc.clone()
    }
}

/// A group of rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Group<A, R> {
    rows: u64,
    acc: A,
    /// What was told of it last.
    told: Option<R>,
}

struct Aggregating<A, V> {
    aggregate: A,
    rows: PhantomData<fn(V)>,
}

impl<A: Clone, V> Clone for Aggregating<A, V> {
    fn clone(&self) -> Self {
        Aggregating { aggregate: self.aggregate.clone(), rows: PhantomData }
    }
}

impl<A: Retractable<V>, V: StateValue> Aggregating<A, V> {
    const GROUP: Value<Group<A::Acc, A::Out>> = Value::new("group");
}

impl<G: Key, V: StateValue, A: Retractable<V>> ProcessFunction<G, Change<V>> for Aggregating<A, V> {
    type Out = Keyed<G, Change<A::Out>>;

    fn states(&self, states: &mut States<'_, G>) {
        states.has(Self::GROUP);
    }

    fn on_record(
        &mut self,
        _key: &G,
        change: Change<V>,
        cx: &mut Context<'_, G, Self::Out>,
    ) -> Result<(), BoxError> {
        let aggregate = &self.aggregate;
        let empty = || Group { rows: 0, acc: aggregate.create(), told: None };
        let found = cx.state(Self::GROUP).update(empty, |group| {
            // Added first, so that an unsigned sum does not go below zero on the way.
            if let Some(row) = change.after() {
                aggregate.add(&mut group.acc, row);
                group.rows += 1;
            }
            let Some(row) = change.before() else { return true };
            let found = group.rows > 0;
            if found {
                aggregate.remove(&mut group.acc, row);
                group.rows -= 1;
            }
            found
        })?;
        if !found {
            return Err("a row is taken back from a group that has none: the function of `group_by` answered otherwise before".into());
        }
        cx.settle_later();
        Ok(())
    }

    fn on_timer(
        &mut self,
        key: &G,
        _time: Timestamp,
        cx: &mut Context<'_, G, Self::Out>,
    ) -> Result<(), BoxError> {
        let aggregate = &self.aggregate;
        let told = cx.state(Self::GROUP).change(|group| {
            let now = (group.rows > 0).then(|| aggregate.finish(&group.acc));
            if now == group.told {
                return (None, group.rows > 0);
            }
            let before = std::mem::replace(&mut group.told, now.clone());
            (Change::between(before, now), group.rows > 0)
        })?;
        let Some((change, has_rows)) = told else { return Ok(()) };
        if !has_rows {
            cx.state(Self::GROUP).clear()?;
        }
        if let Some(change) = change {
            cx.emit_settled(keyed(key, change));
        }
        Ok(())
    }
}
