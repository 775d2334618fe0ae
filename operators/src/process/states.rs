//! Which states a function has, checked when it starts.

use super::StateHandle;
use rivermark_state::{Key, KeyedStore, Migrations, StateError};
use std::marker::PhantomData;

/// What a [`ProcessFunction`](super::ProcessFunction) says of its states before any record is processed; see
/// [`ProcessFunction::states`](super::ProcessFunction::states).
///
/// ```
/// use rivermark_operators::BoxError;
/// use rivermark_operators::process::{Context, ProcessFunction, States};
/// use rivermark_state::{List, Migrations, Value};
///
/// // Version 1 had a `u32`.
/// const CLICKS: Value<u64> = Value::new("clicks").version(2);
/// const LAST: List<String> = List::new("last");
///
/// #[derive(Clone)]
/// struct Clicks;
///
/// impl ProcessFunction<u64, String> for Clicks {
///     type Out = u64;
///
///     fn states(&self, states: &mut States<'_, u64>) {
///         states.has_migrated(CLICKS, Migrations::new().from(1, |clicks: u32| u64::from(clicks)));
///         states.has(LAST);
///     }
///
///     fn on_record(&mut self, _: &u64, page: String, cx: &mut Context<'_, u64, u64>) -> Result<(), BoxError> {
///         cx.state(LAST).push(page)?;
///         cx.state(CLICKS).update(|| 0, |clicks| *clicks += 1)
///     }
/// }
/// ```
pub struct States<'a, K> {
    store: &'a mut KeyedStore,
    problem: Option<StateError>,
    on_first_use: bool,
    key: PhantomData<fn(K)>,
}

impl<'a, K: Key> States<'a, K> {
    pub(super) fn new(store: &'a mut KeyedStore) -> Self {
        States { store, problem: None, on_first_use: false, key: PhantomData }
    }

    /// The function has this state.
    pub fn has<H: StateHandle<K>>(&mut self, handle: H) {
        if self.problem.is_none() {
            self.problem = handle.open(self.store).err();
        }
    }

    /// The function has this state, and what a checkpoint holds of an older version of it goes through these steps first: all of it, at the
    /// first start of the new version. The steps are needed as long as a checkpoint or savepoint of the old version is.
    pub fn has_migrated<H: StateHandle<K>>(&mut self, handle: H, migrations: Migrations) {
        self.store.migrate(handle.name(), migrations);
        self.has(handle);
    }

    /// The function does not say. Its states are checked when they are used first, which may be in the middle of a run; they cannot have a
    /// version other than 1; and what it does not use any more is kept for ever.
    pub fn on_first_use(&mut self) {
        self.on_first_use = true;
    }

    /// The function had this state in an earlier version, and nothing in it that counts.
    pub(crate) fn had(&mut self, name: &str) {
        if self.problem.is_none() {
            self.problem = self.store.drop_state(name).err();
        }
    }

    /// Drops what the flow drops, and ends the start.
    pub(super) fn finish<'n>(self, dropped: impl Iterator<Item = &'n str>) -> Result<(), StateError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        dropped.into_iter().try_for_each(|name| self.store.drop_state(name))?;
        if self.on_first_use {
            self.store.open_on_first_use();
            return Ok(());
        }
        self.store.seal()
    }
}
