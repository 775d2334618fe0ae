//! `group_by(..).top_n`: the greatest rows of each group, kept up to date as rows come, change and go.

use super::{GroupedTable, Retractable, Table};
use crate::window::Ranking;
use rivermark_state::{Key, StateValue};

impl<G: Key, V: StateValue + PartialEq> GroupedTable<G, V> {
    /// The `n` rows of each group that have the greatest score, those first. Rows of the same score are ordered by their encoded bytes: an order
    /// without meaning, but the same in every replay. A change is told when the list is another one.
    ///
    /// A row that leaves makes room for one that was not among the first, so a group keeps all of its rows, in order and as one value: it is for
    /// groups of thousands of rows, not of millions, and a change costs a search in them. The score is called anew for a row that is taken back, and must
    /// answer the same.
    ///
    /// ```
    /// use rivermark_operators::table::Change;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     // The two players with the most points, of all.
    ///     let (points, stream) = it.input::<(char, u32)>();
    ///     let players = stream.key_by(|(player, _)| *player).to_table();
    ///     let leaders = players.group_by(|_, _| ()).top_n(2, |(_, points)| *points);
    ///     let rows = it.output(leaders.changes().map(|(_, change)| change));
    ///     it.push(&points, at(1), ('a', 10));
    ///     it.push(&points, at(1), ('b', 20));
    ///     it.push(&points, at(2), ('c', 5));
    ///     it.push(&points, at(3), ('b', 0));
    ///     it.end(&points);
    ///     let (first, then) = (vec![('b', 20), ('a', 10)], vec![('a', 10), ('c', 5)]);
    ///     it.expect_at(&rows, [
    ///         (at(1), Change::Insert(first.clone())),
    ///         (at(3), Change::Update { before: first, after: then }),
    ///     ]);
    /// });
    /// ```
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn top_n<S: Ord>(
        self,
        n: usize,
        score: impl Fn(&V) -> S + Clone + Send + Sync + 'static,
    ) -> Table<G, Vec<V>> {
        assert!(n > 0, "the top 0 of rows are none");
        self.aggregate(FirstRows { n, ranking: Ranking(score) })
    }
}

#[derive(Clone)]
struct FirstRows<F> {
    n: usize,
    ranking: Ranking<F>,
}

impl<V, S, F> Retractable<V> for FirstRows<F>
where
    V: StateValue + PartialEq,
    S: Ord,
    F: Fn(&V) -> S + Clone + Send + Sync + 'static,
{
    type Acc = Vec<V>;
    type Out = Vec<V>;

    fn create(&self) -> Vec<V> {
        Vec::new()
    }

    fn add(&self, rows: &mut Vec<V>, row: &V) {
        let place = self.ranking.place(rows, row);
        rows.insert(place, row.clone());
    }

    fn remove(&self, rows: &mut Vec<V>, row: &V) {
        let found = self.ranking.find(rows, row);
        rows.remove(
            found
                .expect("a row is taken back that was added: the score of `top_n` answered otherwise before"),
        );
    }

    fn finish(&self, rows: &Vec<V>) -> Vec<V> {
        rows.iter().take(self.n).cloned().collect()
    }
}
