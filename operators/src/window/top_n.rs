//! `top_n`: the greatest records of each key and window, and the greatest rows of each window.
//!
//! Records are ordered by a score, the greatest first. Those of the same score are ordered by their encoded bytes: an order without meaning, but the
//! same in every replay, so that ties are no matter of chance. A list of at most n is kept a key and slice; it is the same in whatever order
//! records come, so lists are combined before the exchange, as counts are.

use super::{Aggregate, Window, Windowed, WindowedStream};
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction, States};
use crate::stream::Stream;
use crate::time::Timestamp;
use rivermark_state::{Key, StateValue, Value, encode_into};
use std::cmp::Ordering;
use std::marker::PhantomData;

impl<K: Key, V: StateValue + Sync> WindowedStream<K, V> {
    /// The `n` records of each key and window that have the greatest score, those first. Least first is `top_n(n, |v| Reverse(v.score))`; what is to
    /// decide between records of the same score can be part of it: `|v| (v.score, Reverse(v.name.clone()))`.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (bids, stream) = it.input::<(&str, u32)>();
    ///     let by_item = stream.map(|(item, bid)| (item.to_string(), bid)).key_by(|(item, _)| item.clone());
    ///     let best = by_item.window(Windows::tumbling(millis(10))).top_n(2, |(_, bid)| *bid);
    ///     let rows = it.output(best.map(|row| row.value.into_iter().map(|(_, bid)| bid).collect::<Vec<_>>()));
    ///     [5, 9, 7, 1].into_iter().for_each(|bid| it.push(&bids, at(3), ("lamp", bid)));
    ///     it.end(&bids);
    ///     it.expect(&rows, [vec![9, 7]]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn top_n<S: Ord>(
        self,
        n: usize,
        score: impl Fn(&V) -> S + Clone + Send + Sync + 'static,
    ) -> Stream<Windowed<K, Vec<V>>> {
        self.aggregate(TopN::new(n, score))
    }

    /// As [`WindowedStream::top_n`], and every record that has the same score as the n-th (`FETCH FIRST n ROWS WITH TIES` of SQL): `1` gives all
    /// records with the greatest score. As many as tie are kept, so the score should tell records apart.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (bids, stream) = it.input::<(u32, u32)>();
    ///     let highest = stream.key_by(|_| ()).window(Windows::tumbling(millis(10))).top_n_with_ties(1, |(_, bid)| *bid);
    ///     let rows = it.output(highest.map(|row| row.value));
    ///     [(1, 5), (2, 9), (3, 7), (4, 9)].into_iter().for_each(|bid| it.push(&bids, at(3), bid));
    ///     it.end(&bids);
    ///     it.expect(&rows, [vec![(2, 9), (4, 9)]]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn top_n_with_ties<S: Ord>(
        self,
        n: usize,
        score: impl Fn(&V) -> S + Clone + Send + Sync + 'static,
    ) -> Stream<Windowed<K, Vec<V>>> {
        self.aggregate(TopN::new(n, score).with_ties())
    }
}

impl<K: Key, R: StateValue> Stream<Windowed<K, R>> {
    /// The `n` rows of each window that have the greatest score, those first: what is greatest of all keys. There is one list a window, with the
    /// window's last moment as its time; it is made on one worker, which takes in all rows of the window and keeps n of them.
    ///
    /// ```
    /// use rivermark_operators::{Timestamp, Windows, millis, testing};
    /// use std::cmp::Reverse;
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (visits, stream) = it.input::<&str>();
    ///     let pages = stream.map(str::to_string).key_by(String::clone).window(Windows::tumbling(millis(10))).count();
    ///     // Of pages with as many visits, the one that is earlier in the alphabet.
    ///     let most_visited = pages.top_n(2, |page, visits| (*visits, Reverse(page.clone())));
    ///     let rows = it.output(most_visited.map(|(window, pages)| (window.end, pages)));
    ///     ["/b", "/", "/c", "/a", "/"].into_iter().for_each(|page| it.push(&visits, at(3), page));
    ///     it.end(&visits);
    ///     it.expect(&rows, [(at(10), vec![("/".to_string(), 2), ("/a".to_string(), 1)])]);
    /// });
    /// ```
    ///
    /// The rows are taken to be final. Windows with allowed lateness correct rows: one that comes after the window's list was made is late here,
    /// counted and left out. Lists that follow corrections are those of a table:
    /// `rows.key_by(|row| (row.key, row.window)).to_table().group_by(|_, row| row.window).top_n(..)`.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn top_n<S: Ord>(
        self,
        n: usize,
        score: impl Fn(&K, &R) -> S + Clone + Send + Sync + 'static,
    ) -> Stream<(Window, Vec<(K, R)>)> {
        let top = TopN::new(n, move |(key, value): &(K, R)| score(key, value));
        let by_window = self.key_by(|row| row.window);
        by_window.process_as("top_n", true, OfRows { top, rows: PhantomData })
    }
}

/// An order of records: by score, the greatest first, then by encoding.
#[derive(Clone)]
pub(crate) struct Ranking<F>(pub(crate) F);

impl<F> Ranking<F> {
    fn order<V: StateValue, S: Ord>(&self, a: &V, b: &V) -> Ordering
    where
        F: Fn(&V) -> S,
    {
        let score = &self.0;
        score(b).cmp(&score(a)).then_with(|| encoded(a).cmp(&encoded(b)))
    }

    /// Where `row` belongs among rows in order: before or at the first that is not before it.
    pub(crate) fn place<V: StateValue, S: Ord>(&self, rows: &[V], row: &V) -> usize
    where
        F: Fn(&V) -> S,
    {
        rows.partition_point(|other| self.order(other, row).is_lt())
    }

    /// Where a row equal to `row` is among rows in order.
    pub(crate) fn find<V: StateValue, S: Ord>(&self, rows: &[V], row: &V) -> Option<usize>
    where
        F: Fn(&V) -> S,
    {
        let at = self.place(rows, row);
        rows.get(at).filter(|found| self.order(found, row).is_eq()).map(|_| at)
    }
}

fn encoded<V: StateValue>(value: &V) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes).expect("what is kept in state can be encoded");
    bytes
}

/// The aggregate: the first `n` in order, and those with the score of the n-th where ties count.
#[derive(Clone)]
pub(super) struct TopN<F> {
    n: usize,
    ties: bool,
    ranking: Ranking<F>,
}

impl<F> TopN<F> {
    pub(super) fn new(n: usize, score: F) -> Self {
        assert!(n > 0, "the top 0 of records are none");
        TopN { n, ties: false, ranking: Ranking(score) }
    }

    fn with_ties(self) -> Self {
        TopN { ties: true, ..self }
    }

    /// Adds a row that is cloned only if it is among the first `n`.
    fn insert<V: StateValue, S: Ord>(&self, rows: &mut Vec<V>, row: &V)
    where
        F: Fn(&V) -> S,
    {
        if self.ties {
            return self.insert_with_ties(rows, row);
        }
        let place = self.ranking.place(rows, row);
        if place < self.n {
            rows.truncate(self.n - 1);
            rows.insert(place, row.clone());
        }
    }

    fn insert_with_ties<V: StateValue, S: Ord>(&self, rows: &mut Vec<V>, row: &V)
    where
        F: Fn(&V) -> S,
    {
        let score = &self.ranking.0;
        // Most rows have not the score that it takes, which is known before any order among equals is.
        if rows.get(self.n - 1).is_some_and(|last| score(row) < score(last)) {
            return;
        }
        let place = self.ranking.place(rows, row);
        rows.insert(place, row.clone());
        let last = score(&rows[self.n.min(rows.len()) - 1]);
        while rows.len() > self.n && score(&rows[rows.len() - 1]) < last {
            rows.pop();
        }
    }
}

impl<V: StateValue + Sync, S: Ord, F: Fn(&V) -> S + Clone + Send + Sync + 'static> Aggregate<V> for TopN<F> {
    type Acc = Vec<V>;
    type Out = Vec<V>;

    fn create(&self) -> Vec<V> {
        Vec::new()
    }

    fn add(&self, acc: &mut Vec<V>, value: &V) {
        self.insert(acc, value);
    }

    fn merge(&self, acc: &mut Vec<V>, other: &Vec<V>) {
        other.iter().for_each(|row| self.insert(acc, row));
    }

    fn finish(&self, acc: &Vec<V>) -> Vec<V> {
        acc.clone()
    }

    fn is_exact(&self) -> bool {
        true
    }
}

/// The greatest rows of each window.
struct OfRows<F, K, R> {
    top: TopN<F>,
    rows: PhantomData<fn(K, R)>,
}

impl<F: Clone, K, R> Clone for OfRows<F, K, R> {
    fn clone(&self) -> Self {
        OfRows { top: self.top.clone(), rows: PhantomData }
    }
}

impl<F, K: Key, R: StateValue> OfRows<F, K, R> {
    const ROWS: Value<Vec<(K, R)>> = Value::new("rows");
}

impl<K, R, S, F> ProcessFunction<Window, Windowed<K, R>> for OfRows<F, K, R>
where
    K: Key,
    R: StateValue,
    S: Ord,
    F: Fn(&(K, R)) -> S + Clone + Send + Sync + 'static,
{
    type Out = (Window, Vec<(K, R)>);

    fn states(&self, states: &mut States<'_, Window>) {
        states.has(Self::ROWS);
    }

    fn on_record(
        &mut self,
        window: &Window,
        row: Windowed<K, R>,
        cx: &mut Context<'_, Window, Self::Out>,
    ) -> Result<(), BoxError> {
        // A row that corrects another one has the stamp of the late record that it is made for.
        if cx.is_late() {
            cx.count_late();
            return Ok(());
        }
        cx.state(Self::ROWS).update(Vec::new, |rows| {
            // A window that fires and is corrected at once tells a key twice.
            rows.retain(|(key, _)| *key != row.key);
            self.top.insert(rows, &(row.key, row.value));
        })?;
        cx.timer(window.end)
    }

    fn on_timer(
        &mut self,
        window: &Window,
        _: Timestamp,
        cx: &mut Context<'_, Window, Self::Out>,
    ) -> Result<(), BoxError> {
        if let Some(rows) = cx.state(Self::ROWS).take()? {
            cx.emit_settled((*window, rows));
        }
        Ok(())
    }
}
