//! How the entries of each kind of state lie in rows: where one is, and what is there.

use crate::codec::{self, CodecError, StateValue};
use crate::handle::{List, Map, Reducing, StateKind, Value};
use crate::hash::hash_key;
use crate::key::Key;
use crate::schema::schema_of;
use crate::store::opening::{Asked, of_handle};

/// A handle whose state can be read and changed at rest, an entry at a time. `P` is what says where an entry is: a key, or, of a
/// [`Map`](crate::Map), a key and a map key. Implemented for [`Value`](crate::Value), [`Reducing`](crate::Reducing),
/// [`List`](crate::List) and [`Map`](crate::Map); a state with a time to live is read by what it stores
/// ([`Expiring::stored`](crate::Expiring::stored)).
pub trait AtRest<P>: Rows<P> + Copy {}
impl<P, H: Rows<P> + Copy> AtRest<P> for H {}

/// The rows of a state.
pub trait Rows<P> {
    /// What an entry is: the value; of a list, all of its items.
    type Entry;
    /// What migrations go from and to.
    type Single: 'static;
    /// Whether an entry may be several rows.
    const IS_CHUNKED: bool = false;

    fn asked(&self) -> Asked<'static>;
    /// The hash of the key.
    fn hash(place: &P) -> u64;
    /// Appends what follows the key group in the row, or in the prefix of the rows, of a place.
    fn write(place: &P, out: &mut Vec<u8>) -> Result<(), CodecError>;
    /// The place that a row belongs to.
    fn place(row: &[u8]) -> Result<P, CodecError>;
    /// What a row holds.
    fn entry(bytes: &[u8]) -> Result<Self::Entry, CodecError>;
    /// Appends the bytes of an entry.
    fn encode(entry: &Self::Entry, out: &mut Vec<u8>) -> Result<(), CodecError>;
    /// Whether an entry is as good as none.
    fn is_empty(_entry: &Self::Entry) -> bool {
        false
    }
    /// Adds what the next row of an entry holds.
    fn extend(_entry: &mut Self::Entry, _more: Self::Entry) {}
}

/// What of a row follows its key group.
fn behind_group(row: &[u8]) -> &[u8] {
    row.get(2..).unwrap_or_default()
}

macro_rules! one_value_a_key {
    ($($handle:ident),+) => {
        $(impl<K: Key, V: StateValue> Rows<K> for $handle<V> {
            type Entry = V;
            type Single = V;

            fn asked(&self) -> Asked<'static> {
                let keys = vec![schema_of::<K>()];
                of_handle::<V>(self.name(), StateKind::$handle, self.schema_version(), keys)
            }
            fn hash(place: &K) -> u64 {
                hash_key(place)
            }
            fn write(place: &K, out: &mut Vec<u8>) -> Result<(), CodecError> {
                codec::encode_into(place, out)
            }
            fn place(row: &[u8]) -> Result<K, CodecError> {
                codec::decode(behind_group(row))
            }
            fn entry(bytes: &[u8]) -> Result<V, CodecError> {
                codec::decode(bytes)
            }
            fn encode(entry: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
                codec::encode_into(entry, out)
            }
        })+
    };
}

one_value_a_key!(Value, Reducing);

impl<K: Key, MK: Key, V: StateValue> Rows<(K, MK)> for Map<MK, V> {
    type Entry = V;
    type Single = V;

    fn asked(&self) -> Asked<'static> {
        let keys = vec![schema_of::<K>(), schema_of::<MK>()];
        of_handle::<V>(self.name(), StateKind::Map, self.schema_version(), keys)
    }
    fn hash(place: &(K, MK)) -> u64 {
        hash_key(&place.0)
    }
    fn write(place: &(K, MK), out: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_into(&place.0, out)?;
        codec::encode_into(&place.1, out)
    }
    fn place(row: &[u8]) -> Result<(K, MK), CodecError> {
        let (key, used) = codec::decode_prefix(behind_group(row))?;
        Ok((key, codec::decode(&behind_group(row)[used..])?))
    }
    fn entry(bytes: &[u8]) -> Result<V, CodecError> {
        codec::decode(bytes)
    }
    fn encode(entry: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_into(entry, out)
    }
}

impl<K: Key, T: StateValue> Rows<K> for List<T> {
    type Entry = Vec<T>;
    type Single = T;
    const IS_CHUNKED: bool = true;

    fn asked(&self) -> Asked<'static> {
        let keys = vec![schema_of::<K>()];
        of_handle::<T>(self.name(), StateKind::List, self.schema_version(), keys)
    }
    fn hash(place: &K) -> u64 {
        hash_key(place)
    }
    fn write(place: &K, out: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_into(place, out)
    }
    fn place(row: &[u8]) -> Result<K, CodecError> {
        let key = behind_group(row);
        // The number of the chunk follows.
        codec::decode(&key[..key.len().saturating_sub(size_of::<u64>())])
    }
    fn entry(mut bytes: &[u8]) -> Result<Vec<T>, CodecError> {
        let mut items = Vec::new();
        while !bytes.is_empty() {
            let (item, used) = codec::decode_prefix(bytes)?;
            items.push(item);
            bytes = &bytes[used..];
        }
        Ok(items)
    }
    fn encode(entry: &Vec<T>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        entry.iter().try_for_each(|item| codec::encode_into(item, out))
    }
    fn is_empty(entry: &Vec<T>) -> bool {
        entry.is_empty()
    }
    fn extend(entry: &mut Vec<T>, more: Vec<T>) {
        entry.extend(more);
    }
}
