//! Questions about one state of a view.

use super::View;
use crate::savepoint::Entries;
use rivermark_operators::{Error, Key, Map, Result, StateValue, Timestamp};
use rivermark_state::{Queried, StateError, StateView};
use std::fmt;
use std::ops::RangeBounds;

/// A question about a state, by the handle that the function which writes it uses: [`Job::query`](crate::Job::query), [`View::query`].
///
/// All answers of one query are of one epoch. Of a state with a time to live, entries are seen as by a record at the operator's
/// watermark, unless [`Query::at`] names another time: nothing is there at or after its deadline.
#[derive(Debug)]
pub struct Query<H> {
    view: Result<View>,
    handle: H,
    operator: Option<String>,
    at: Option<Timestamp>,
}

impl<H: Copy> Query<H> {
    pub(crate) fn new(view: Result<View>, handle: H) -> Query<H> {
        Query { view, handle, operator: None, at: None }
    }

    /// Says which operator's state is meant, by its name in the flow.
    #[must_use]
    pub fn of(self, operator: &str) -> Query<H> {
        Query { operator: Some(operator.to_owned()), ..self }
    }

    /// Says at which time a state with a time to live is looked at: one behind the operator's watermark, for below it some of what has expired
    /// is gone already. An earlier one is taken for the watermark.
    #[must_use]
    pub fn at(self, time: Timestamp) -> Query<H> {
        Query { at: Some(time), ..self }
    }

    /// The view that all answers are from: it says which epoch, up to which offsets, and how far event time had come.
    ///
    /// # Errors
    /// There is none: no epoch has been stored yet, or its state cannot be read.
    pub fn view(&self) -> Result<&View> {
        view(&self.view)
    }

    /// What is at a place: at a key of a [`Value`](rivermark_operators::Value) or [`Reducing`](rivermark_operators::Reducing) the value, of a
    /// [`List`](rivermark_operators::List) all of its items, at a key and a map key of a [`Map`] the value there. `None` if nothing is.
    /// Costs a search in each of some dozens of sorted runs, and a read of a row of the base: a few microseconds.
    ///
    /// # Errors
    /// There is no view; no operator, or several, have a state of that name; it has another kind, other types or another version than the
    /// handle, or another type of key than `place` (the error names what it has); or it cannot be read.
    pub fn get<P>(&self, place: &P) -> Result<Option<H::Entry>>
    where
        H: Queried<P>,
    {
        let asked = self.asked::<P>()?;
        let entry = asked.state.get(self.handle.stored(), place).map_err(|error| asked.failed(error))?;
        Ok(entry.and_then(|entry| H::seen(entry, asked.at)))
    }

    /// All entries: where each is, and what is there, by worker, key group and key bytes, which is an order that means nothing to a user. They are
    /// read a page at a time.
    ///
    /// # Errors
    /// As [`Query::get`]; items are errors where rows cannot be read.
    pub fn entries<P: 'static>(&self) -> Result<Entries<'_, (P, H::Entry)>>
    where
        H: Queried<P>,
    {
        let asked = self.asked::<P>()?;
        let entries = asked.state.entries::<P, _>(self.handle.stored());
        let entries = entries.map_err(|error| asked.failed(error))?;
        let at = asked.at;
        let seen = entries.filter_map(move |entry| match entry {
            Ok((place, entry)) => H::seen(entry, at).map(|entry| Ok((place, entry))),
            Err(error) => Some(Err(error)),
        });
        Ok(Entries::new(rivermark_state::Entries::of(seen), move |error| asked.failed(error)))
    }

    /// The entries of the places in `range`, in their order. Keys are stored by their hashes, so this looks at all entries of the state; those
    /// in the range are in memory together.
    ///
    /// # Errors
    /// As [`Query::get`].
    pub fn range<P: Ord + 'static>(&self, range: impl RangeBounds<P>) -> Result<Vec<(P, H::Entry)>>
    where
        H: Queried<P>,
    {
        self.sorted(|place| range.contains(place))
    }

    /// The entries of the keys that begin with `prefix`, in the order of keys. Costs what [`Query::range`] does.
    ///
    /// # Errors
    /// As [`Query::get`].
    pub fn prefix<P: AsRef<str> + Ord + 'static>(&self, prefix: &str) -> Result<Vec<(P, H::Entry)>>
    where
        H: Queried<P>,
    {
        self.sorted(|place: &P| place.as_ref().starts_with(prefix))
    }

    fn sorted<P: Ord + 'static>(&self, takes: impl Fn(&P) -> bool) -> Result<Vec<(P, H::Entry)>>
    where
        H: Queried<P>,
    {
        let takes = |entry: &Result<(P, H::Entry)>| entry.as_ref().map_or(true, |(place, _)| takes(place));
        let mut entries = self.entries::<P>()?.filter(takes).collect::<Result<Vec<_>>>()?;
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(entries)
    }

    /// What is asked of which state.
    fn asked<P>(&self) -> Result<Asked<'_>>
    where
        H: Queried<P>,
    {
        let view = self.view()?;
        let name = Queried::<P>::name(self.handle);
        let operator = match &self.operator {
            Some(operator) => operator,
            None => view.operator_with(name)?,
        };
        let state = view.state(operator)?;
        let at = self.at.max(view.watermark_of(operator)).map_or(i64::MIN, Timestamp::millis);
        Ok(Asked { view, state, name, at })
    }
}

impl<MK: Key, V: StateValue> Query<Map<MK, V>> {
    /// The entries of one key, in the order of the map keys. Reads no other key's.
    ///
    /// # Errors
    /// As [`Query::get`].
    pub fn entries_of<K: Key>(&self, key: &K) -> Result<Vec<(MK, V)>>
    where
        MK: Ord,
    {
        let asked = self.asked::<(K, MK)>()?;
        let entries = asked.state.entries_of(self.handle, key).and_then(Iterator::collect);
        let mut entries: Vec<(MK, V)> = entries.map_err(|error| asked.failed(error))?;
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(entries)
    }
}

/// One state of a view.
struct Asked<'a> {
    view: &'a View,
    state: &'a StateView,
    name: &'a str,
    /// The time of the access.
    at: i64,
}

impl Asked<'_> {
    fn failed(&self, error: StateError) -> Error {
        failed(self.view, self.state, &format!("state `{}`", self.name), error)
    }
}

fn view(view: &Result<View>) -> Result<&View> {
    view.as_ref().map_err(|error| Error::engine("querying", error.to_string()))
}

/// The error of a question; where types differ, it says what they are and not what a program that starts would have to do.
fn failed(view: &View, state: &StateView, asked: &str, error: StateError) -> Error {
    let attempt = format!("querying {asked} of {view}");
    match error {
        StateError::Schema { kind, schema, found_kind, found_schema, .. } => {
            let problem =
                format!("it is a {found_kind} of {found_schema}, and was asked for as a {kind} of {schema}");
            Error::state(state.operator(), attempt, problem)
        }
        error => Error::state(state.operator(), attempt, error),
    }
}

/// A question about the windows of an operator: [`Job::windows`](crate::Job::windows), [`View::windows`].
///
/// What an operator keeps of its open windows are *slices*, the longest spans that no window's edge divides: a tumbling window is one slice. Of each
/// it has the aggregate's accumulator (of `count()` a `u64`). A slice may come in several pieces, by the window for which its records were first on
/// time. Sessions, and what is kept for late records alone, are not answered.
#[derive(Debug)]
pub struct WindowQuery {
    view: Result<View>,
    operator: String,
}

/// The table that a windowed aggregate keeps its slices in.
const SLICES: &str = "slices";

impl WindowQuery {
    pub(crate) fn new(view: Result<View>, operator: &str) -> WindowQuery {
        WindowQuery { view, operator: operator.to_owned() }
    }

    /// The view that all answers are from.
    ///
    /// # Errors
    /// There is none: no epoch has been stored yet, or its state cannot be read.
    pub fn view(&self) -> Result<&View> {
        view(&self.view)
    }

    /// The slices of one key that begin from `from` on and before `to`: where each begins, and its accumulator. Costs two reads a slice in
    /// that time.
    ///
    /// # Errors
    /// There is no view; there is no such operator, or it has no windows, or ones of other types (the error names what it has); or they cannot
    /// be read.
    pub fn get<K: Key, A: StateValue>(
        &self,
        key: &K,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, A)>> {
        let view = self.view()?;
        let state = view.state(&self.operator)?;
        let (from, to) = ((from.millis(), i64::MIN), (to.millis(), i64::MIN));
        let slices = state.windows_of::<(i64, i64), K, A>(SLICES, key, from, to);
        let slices = slices.map_err(|error| failed(view, state, "the windows", error))?;
        Ok(slices.into_iter().map(|((start, _), value)| (Timestamp::from_millis(start), value)).collect())
    }

    /// All slices of all keys: where each begins, the key, and the accumulator. They are read a page at a time.
    ///
    /// # Errors
    /// As [`WindowQuery::get`]; items are errors where rows cannot be read.
    pub fn entries<K: Key, A: StateValue>(&self) -> Result<Entries<'_, (Timestamp, K, A)>> {
        let view = self.view()?;
        let state = view.state(&self.operator)?;
        let entries = state.windows::<(i64, i64), K, A>(SLICES);
        let entries = entries.map_err(|error| failed(view, state, "the windows", error))?;
        let entries = entries.map(|entry| {
            let ((start, _), key, value) = entry?;
            Ok((Timestamp::from_millis(start), key, value))
        });
        let entries = rivermark_state::Entries::of(entries);
        Ok(Entries::new(entries, move |error| failed(view, state, "the windows", error)))
    }
}

impl fmt::Display for WindowQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the windows of operator `{}`", self.operator)
    }
}
