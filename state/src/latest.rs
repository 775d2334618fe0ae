//! The state of a store as it is now, asked for by another thread and answered by the one that owns it.
//!
//! 1. A store that is asked has a [`Mailbox`] ([`KeyedStore::mailbox`]), which any thread may put questions into.
//! 2. The owner calls [`KeyedStore::maintain`] after each batch and whenever it flushes, between two calls of a user's function. It answers
//!    some questions then: a bounded number, each of one place.
//!
//! An answer may be of what a failure takes back, and two answers are of two moments. [`view`](crate::view) has what is stored, and all of it at once.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::codec::StateValue;
use crate::error::{Result, StateError};
use crate::expire::{Expiring, Timed};
use crate::handle::{List, Map, Reducing, StateKind, Value};
use crate::hash::hash_key;
use crate::key::{Key, KeyGroupRange, key_group};
use crate::rest::place::Rows;
use crate::store::KeyedStore;
use crate::table::list::ListTable;
use crate::table::map::MapTable;
use crate::table::value::ValueTable;
use crate::view::Queried;

/// So many questions are answered between two batches.
const AT_ONCE: usize = 32;

type Question = Box<dyn FnOnce(&mut KeyedStore) + Send>;

/// The questions that a store is to answer.
pub(crate) type Questions = Receiver<Question>;

/// Where questions for a store are put.
#[derive(Clone)]
pub struct Mailbox {
    range: KeyGroupRange,
    groups: u16,
    questions: Sender<Question>,
}

impl Mailbox {
    /// The key groups that the store owns.
    pub fn range(&self) -> KeyGroupRange {
        self.range
    }

    /// Whether the store owns a place.
    pub fn owns<P, H: Latest<P>>(&self, place: &P) -> bool {
        self.range.contains(key_group(<H::Stored as Rows<P>>::hash(place), self.groups))
    }

    /// Asks for what is at a place; the answer goes to `answer`, on the store's thread. False if the store is no more.
    pub fn ask<P, H>(
        &self,
        handle: H,
        place: P,
        answer: impl FnOnce(Result<Option<H::Entry>>) + Send + 'static,
    ) -> bool
    where
        P: Send + 'static,
        H: Latest<P> + Send + 'static,
    {
        let question = Box::new(move |store: &mut KeyedStore| answer(store.now_at(handle, &place)));
        self.questions.send(question).is_ok()
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("range", &self.range).finish_non_exhaustive()
    }
}

impl KeyedStore {
    /// Lets the store answer questions from now on, put where this says; the mailbox of an earlier call is given up. Costs a look at an empty
    /// channel in each [`maintain`](Self::maintain).
    pub fn mailbox(&mut self) -> Mailbox {
        let (questions, asked) = channel();
        self.questions = Some(asked);
        Mailbox { range: self.range(), groups: self.groups(), questions }
    }

    /// Answers some of the questions that have come.
    #[inline]
    pub(crate) fn answer(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(Ok(question)) = self.questions.as_ref().map(Receiver::try_recv) else { return };
            question(self);
        }
    }

    /// What is at a place of a state that is open, seen at the time that the store has come to.
    fn now_at<P, H: Latest<P>>(&mut self, handle: H, place: &P) -> Result<Option<H::Entry>> {
        let asked = handle.stored().asked();
        self.check_open(&asked)?;
        let at = self.horizon();
        let entry = H::now(self, asked.name, asked.kind, place)?;
        Ok(entry.and_then(|entry| H::seen(entry, at)))
    }
}

/// A handle whose state can be asked for as it is now: every one that can be [queried](Queried).
pub trait Latest<P>: Queried<P> {
    /// What is stored at a place of the open table of this name.
    fn now(
        store: &mut KeyedStore,
        name: &str,
        kind: StateKind,
        place: &P,
    ) -> Result<Option<<Self::Stored as Rows<P>>::Entry>>;
}

/// The table of a type that is open under a name.
fn open<'a, T: 'static>(store: &'a mut KeyedStore, name: &str, kind: StateKind) -> Result<&'a mut T> {
    let operator = store.operator_name();
    store.opened(name, kind).ok_or_else(|| StateError::Mismatch {
        operator,
        reason: format!("state {name} is not open as it was asked for"),
    })
}

macro_rules! value {
    ($($handle:ty, $stored:ty;)+) => {
        $(impl<K: Key, V: StateValue> Latest<K> for $handle {
            fn now(store: &mut KeyedStore, name: &str, kind: StateKind, key: &K) -> Result<Option<$stored>> {
                let table = open::<ValueTable<K, $stored>>(store, name, kind)?;
                Ok(table.get(hash_key(key), key)?.cloned())
            }
        })+
    };
}

value! {
    Value<V>, V;
    Reducing<V>, V;
    Expiring<Value<V>>, Timed<V>;
    Expiring<Reducing<V>>, Timed<V>;
}

macro_rules! list {
    ($($handle:ty, $stored:ty;)+) => {
        $(impl<K: Key, V: StateValue> Latest<K> for $handle {
            fn now(store: &mut KeyedStore, name: &str, kind: StateKind, key: &K) -> Result<Option<Vec<$stored>>> {
                let items = open::<ListTable<K, $stored>>(store, name, kind)?.get(hash_key(key), key)?;
                Ok((!items.is_empty()).then(|| items.to_vec()))
            }
        })+
    };
}

list! {
    List<V>, V;
    Expiring<List<V>>, Timed<V>;
}

macro_rules! map {
    ($($handle:ty, $stored:ty;)+) => {
        $(impl<K: Key, MK: Key, V: StateValue> Latest<(K, MK)> for $handle {
            fn now(
                store: &mut KeyedStore,
                name: &str,
                kind: StateKind,
                (key, map_key): &(K, MK),
            ) -> Result<Option<$stored>> {
                let table = open::<MapTable<K, MK, $stored>>(store, name, kind)?;
                Ok(table.get(hash_key(key), key, map_key)?.cloned())
            }
        })+
    };
}

map! {
    Map<MK, V>, V;
    Expiring<Map<MK, V>>, Timed<V>;
}
