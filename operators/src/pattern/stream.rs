//! The operator: the automaton over a keyed stream, with a key's partial matches in its state and a timer for what they have time for.

use super::Pattern;
use super::automaton::{Automaton, Told};
use super::runs::{Match, Runs};
use crate::error::BoxError;
use crate::process::{Context, ProcessFunction, Side};
use crate::stream::{KeyedStream, Stream};
use crate::time::Timestamp;
use crate::window::Late;
use rivermark_state::{Key, StateValue, Value};
use std::sync::Arc;

impl<K: Key, V: StateValue> KeyedStream<K, V> {
    /// Looks for a pattern in the events of each key, in event-time order. Say next what a match becomes: [`PatternStream::select`].
    ///
    /// ```
    /// use rivermark_operators::pattern::Pattern;
    /// use rivermark_operators::{Timestamp, minutes, testing};
    ///
    /// // Two failed log-ins in a row, and then one that succeeds.
    /// let guessed = Pattern::begin("failed")
    ///     .where_(|(_, ok): &(String, bool)| !ok)
    ///     .times(2)
    ///     .consecutive()
    ///     .next("succeeded")
    ///     .where_(|(_, ok)| *ok)
    ///     .within(minutes(1));
    ///
    /// let at = Timestamp::from_secs;
    /// testing::check(|it| {
    ///     let (logins, stream) = it.input::<(String, bool)>();
    ///     let found = stream.key_by(|(user, _)| user.clone()).pattern(guessed.clone());
    ///     let rows = it.output(found.select(|user, found| (user.clone(), found.all().len())));
    ///     for (second, user, ok) in [(3, "eve", true), (1, "eve", false), (1, "bob", true), (2, "eve", false)] {
    ///         it.push(&logins, at(second), (user.to_string(), ok));
    ///     }
    ///     it.end(&logins);
    ///     it.expect_at(&rows, [(at(3), ("eve".to_string(), 3))]);
    /// });
    /// ```
    pub fn pattern(self, pattern: Pattern<V>) -> PatternStream<K, V> {
        let keyed = if self.order.is_some() { self } else { self.in_event_time_order() };
        PatternStream { keyed, pattern, timed_out: None }
    }
}

/// Makes a row of a match.
type Row<K, V, T> = Arc<dyn Fn(&K, &Match<'_, V>) -> T + Send + Sync>;

/// What becomes of partial matches whose time is up.
struct TimedOut<K, V, T> {
    row: Row<K, V, T>,
    rows: Box<dyn FnOnce(Stream<T>)>,
}

/// A keyed stream in which a pattern is looked for, waiting to be told what to make of matches.
pub struct PatternStream<K, V, T = ()> {
    keyed: KeyedStream<K, V>,
    pattern: Pattern<V>,
    timed_out: Option<TimedOut<K, V, T>>,
}

impl<K: Key, V: StateValue> PatternStream<K, V> {
    /// Makes rows of the partial matches whose time is up, and gives them as a stream of their own:
    /// `.timed_out(|key, partial| .., |rows| rows.sink(..))`. A row has the time at which the time was up.
    ///
    /// ```
    /// use rivermark_operators::pattern::Pattern;
    /// use rivermark_operators::{Timestamp, millis, testing};
    ///
    /// // Who asks has an answer within ten milliseconds, or none.
    /// let answered = Pattern::begin("asked").where_(|text: &String| text == "?").next("told").within(millis(10));
    /// let at = Timestamp::from_millis;
    /// testing::check(|it| {
    ///     let (said, stream) = it.input::<&str>();
    ///     let (sender, silence) = std::sync::mpsc::channel();
    ///     let talk = stream.map(str::to_string).key_by(|_| 'a').pattern(answered.clone());
    ///     // In a flow: `|rows| rows.sink(..)`.
    ///     let talk = talk.timed_out(|who, _| *who, move |rows| sender.send(rows).expect("taken below"));
    ///     let told = it.output(talk.select(|_, found| found.last("told").cloned()));
    ///     let silence = it.output(silence.recv().expect("it was sent at once"));
    ///     [(1, "?"), (4, "yes"), (20, "?"), (50, "no")].into_iter().for_each(|(time, text)| it.push(&said, at(time), text));
    ///     it.end(&said);
    ///     it.expect(&told, [Some("yes".to_string())]);
    ///     it.expect_at(&silence, [(at(30), 'a')]);
    /// });
    /// ```
    pub fn timed_out<T: Send + 'static>(
        self,
        row: impl Fn(&K, &Match<'_, V>) -> T + Send + Sync + 'static,
        rows: impl FnOnce(Stream<T>) + 'static,
    ) -> PatternStream<K, V, T> {
        let timed_out = TimedOut { row: Arc::new(row), rows: Box::new(rows) };
        PatternStream { keyed: self.keyed, pattern: self.pattern, timed_out: Some(timed_out) }
    }
}

impl<K: Key, V: StateValue, T: Send + 'static> PatternStream<K, V, T> {
    /// Gives the records that are late for their own partition as a stream of their own; they are counted in any case.
    pub fn late_output(mut self, late: impl FnOnce(Stream<Late<K, V>>) + 'static) -> Self {
        self.keyed = self.keyed.in_event_time_order_with_late_output(late);
        self
    }

    /// A row for each match.
    pub fn select<R: Send + 'static>(
        self,
        row: impl Fn(&K, &Match<'_, V>) -> R + Send + Sync + 'static,
    ) -> Stream<R> {
        self.flat_select(move |key, found| [row(key, found)])
    }

    /// Any number of rows for each match.
    ///
    /// ```
    /// use rivermark_operators::pattern::Pattern;
    /// use rivermark_operators::{Timestamp, testing};
    ///
    /// let pair = Pattern::begin("low").where_(|n: &u32| *n < 10).next("high").where_(|n| *n >= 10);
    /// testing::check(|it| {
    ///     let (numbers, stream) = it.input::<u32>();
    ///     let pairs = stream.key_by(|_| 'a').pattern(pair.clone());
    ///     let rows = it.output(pairs.flat_select(|_, found| found.all().into_iter().map(|(_, _, n)| *n).collect::<Vec<_>>()));
    ///     (1..).zip([3, 5, 12, 14]).for_each(|(time, n)| it.push(&numbers, Timestamp::from_millis(time), n));
    ///     it.end(&numbers);
    ///     it.expect(&rows, [5, 12]);
    /// });
    /// ```
    pub fn flat_select<R: Send + 'static, I: IntoIterator<Item = R>>(
        self,
        rows: impl Fn(&K, &Match<'_, V>) -> I + Send + Sync + 'static,
    ) -> Stream<R> {
        let layout = self.pattern.to_string();
        let (row, use_timed_out) = self.timed_out.map(|TimedOut { row, rows }| (row, rows)).unzip();
        let matching = self.pattern.compile().map(|automaton| Matching {
            automaton: Arc::new(automaton),
            rows: Arc::new(rows),
            timed_out: row,
        });
        let out = self.keyed.process_checked("pattern", layout, matching);
        if let Some(use_timed_out) = use_timed_out {
            use_timed_out(out.side_output(Matching::<K, V, T, ()>::TIMED_OUT));
        }
        out
    }
}

/// Runs the automaton; `F` makes the rows of a match.
struct Matching<K, V, T, F> {
    automaton: Arc<Automaton<V>>,
    rows: Arc<F>,
    timed_out: Option<Row<K, V, T>>,
}

impl<K, V, T, F> Clone for Matching<K, V, T, F> {
    fn clone(&self) -> Self {
        Matching {
            automaton: Arc::clone(&self.automaton),
            rows: Arc::clone(&self.rows),
            timed_out: self.timed_out.clone(),
        }
    }
}

impl<K, V: StateValue, T: 'static, F> Matching<K, V, T, F> {
    const RUNS: Value<Runs<V>> = Value::new("partial matches");
    const TIMED_OUT: Side<T> = Side::new("timed out");
}

/// The rows that an event or a timer gives.
struct Rows<R, T> {
    found: Vec<R>,
    timed_out: Vec<T>,
}

impl<R, T: 'static> Rows<R, T> {
    fn none() -> Self {
        Rows { found: Vec::new(), timed_out: Vec::new() }
    }

    fn emit<K: Key>(self, cx: &mut Context<'_, K, R>, side: Side<T>) {
        self.timed_out.into_iter().for_each(|row| cx.emit_to(side, row));
        self.found.into_iter().for_each(|row| cx.emit(row));
    }
}

impl<K: Key, V: StateValue, T, F> Matching<K, V, T, F> {
    /// Makes rows of what the automaton tells about a key.
    fn tell<'r, R, I: IntoIterator<Item = R>>(
        &'r self,
        key: &'r K,
        rows: &'r mut Rows<R, T>,
    ) -> impl FnMut(Told, &Match<'_, V>) + 'r
    where
        F: Fn(&K, &Match<'_, V>) -> I,
    {
        move |told, found| match told {
            Told::Match => rows.found.extend((self.rows)(key, found)),
            Told::TimedOut => rows.timed_out.extend(self.timed_out.as_ref().map(|row| row(key, found))),
        }
    }

    /// What has to be done about a key's state when the automaton has run.
    fn settle(&self, runs: &mut Runs<V>) -> Settled {
        if runs.has_timer {
            return Settled::Nothing;
        }
        let Some(first) = runs.open.first() else { return Settled::Forget };
        let Some(deadline) = self.automaton.deadline(first.start.time) else { return Settled::Nothing };
        runs.has_timer = true;
        Settled::Wait(deadline)
    }
}

/// What is left to do for a key. With a time to wait for, its timer clears the state: there is one at a time, for the partial match that
/// began first, and it is set anew when it fires. So each is set at most once a `within`.
enum Settled {
    Nothing,
    Forget,
    Wait(Timestamp),
}

impl<K: Key, V: StateValue, T: Send + 'static, R: Send + 'static, I, F> ProcessFunction<K, V>
    for Matching<K, V, T, F>
where
    I: IntoIterator<Item = R>,
    F: Fn(&K, &Match<'_, V>) -> I + Send + Sync + 'static,
{
    type Out = R;

    fn on_record(&mut self, key: &K, event: V, cx: &mut Context<'_, K, R>) -> Result<(), BoxError> {
        let time = cx.time();
        let mut rows = Rows::none();
        let mut event = Some(event);
        let mut step = |runs: &mut Runs<V>, event: &mut Option<V>| {
            if let Some(event) = event.take() {
                self.automaton.step(runs, time, event, &mut self.tell(key, &mut rows));
            }
            self.settle(runs)
        };
        let settled = match cx.state(Self::RUNS).change(|runs| step(runs, &mut event))? {
            Some(settled) => settled,
            // Most events of most streams begin nothing, and leave nothing behind.
            None if event.as_ref().is_some_and(|event| self.automaton.begins_with(event)) => {
                cx.state(Self::RUNS).update(Runs::default, |runs| step(runs, &mut event))?
            }
            None => Settled::Nothing,
        };
        match settled {
            Settled::Nothing => {}
            Settled::Forget => cx.state(Self::RUNS).clear()?,
            Settled::Wait(until) => cx.timer(until)?,
        }
        rows.emit(cx, Self::TIMED_OUT);
        Ok(())
    }

    fn on_timer(&mut self, key: &K, time: Timestamp, cx: &mut Context<'_, K, R>) -> Result<(), BoxError> {
        let mut rows = Rows::none();
        let next = cx.state(Self::RUNS).change(|runs| {
            self.automaton.expire(runs, time, &mut self.tell(key, &mut rows));
            let next = runs.open.first().and_then(|run| self.automaton.deadline(run.start.time));
            runs.has_timer = next.is_some();
            next
        })?;
        match next.flatten() {
            Some(next) => cx.timer(next)?,
            None => cx.state(Self::RUNS).clear()?,
        }
        rows.emit(cx, Self::TIMED_OUT);
        Ok(())
    }
}
