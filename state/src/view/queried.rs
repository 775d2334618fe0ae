//! What a query sees of a state: entries that have not expired.

use crate::codec::StateValue;
use crate::expire::{Expiring, Timed};
use crate::handle::{List, Map, Reducing, StateKind, Value};
use crate::key::Key;
use crate::rest::AtRest;
use crate::rest::place::Rows;

/// A handle by which a state is queried: [`Value`], [`Reducing`], [`List`] and [`Map`], and each of them with a time to live
/// ([`Expiring`]). `P` is what says where an entry is, as for [`AtRest`].
pub trait Queried<P>: Copy {
    /// The handle of what is stored.
    type Stored: AtRest<P>;
    /// What is seen of an entry.
    type Entry;

    /// The handle of what is stored.
    fn stored(self) -> Self::Stored;

    /// What an access at `at`, in milliseconds of the stream's time, sees of an entry: nothing of what has expired by then.
    fn seen(entry: <Self::Stored as Rows<P>>::Entry, at: i64) -> Option<Self::Entry>;

    /// The name of the state.
    fn name(self) -> &'static str {
        self.stored().asked().name
    }

    /// Its kind.
    fn kind(self) -> StateKind {
        self.stored().asked().kind
    }
}

macro_rules! one_value_a_key {
    ($($handle:ident),+) => {
        $(impl<K: Key, V: StateValue> Queried<K> for $handle<V> {
            type Stored = Self;
            type Entry = V;

            fn stored(self) -> Self {
                self
            }
            fn seen(entry: V, _: i64) -> Option<V> {
                Some(entry)
            }
        }

        impl<K: Key, V: StateValue> Queried<K> for Expiring<$handle<V>> {
            type Stored = $handle<Timed<V>>;
            type Entry = V;

            fn stored(self) -> $handle<Timed<V>> {
                <Expiring<$handle<V>>>::stored(self)
            }
            fn seen(entry: Timed<V>, at: i64) -> Option<V> {
                entry.is_live(at).then(|| entry.into_value())
            }
        })+
    };
}

one_value_a_key!(Value, Reducing);

impl<K: Key, MK: Key, V: StateValue> Queried<(K, MK)> for Map<MK, V> {
    type Stored = Self;
    type Entry = V;

    fn stored(self) -> Self {
        self
    }
    fn seen(entry: V, _: i64) -> Option<V> {
        Some(entry)
    }
}

impl<K: Key, MK: Key, V: StateValue> Queried<(K, MK)> for Expiring<Map<MK, V>> {
    type Stored = Map<MK, Timed<V>>;
    type Entry = V;

    fn stored(self) -> Map<MK, Timed<V>> {
        <Expiring<Map<MK, V>>>::stored(self)
    }
    fn seen(entry: Timed<V>, at: i64) -> Option<V> {
        entry.is_live(at).then(|| entry.into_value())
    }
}

impl<K: Key, T: StateValue> Queried<K> for List<T> {
    type Stored = Self;
    type Entry = Vec<T>;

    fn stored(self) -> Self {
        self
    }
    fn seen(entry: Vec<T>, _: i64) -> Option<Vec<T>> {
        Some(entry)
    }
}

impl<K: Key, T: StateValue> Queried<K> for Expiring<List<T>> {
    type Stored = List<Timed<T>>;
    type Entry = Vec<T>;

    fn stored(self) -> List<Timed<T>> {
        <Expiring<List<T>>>::stored(self)
    }
    fn seen(entry: Vec<Timed<T>>, at: i64) -> Option<Vec<T>> {
        let live: Vec<T> = entry.into_iter().filter(|item| item.is_live(at)).map(Timed::into_value).collect();
        (!live.is_empty()).then_some(live)
    }
}
