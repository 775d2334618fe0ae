//! States that are served: their types are known where they are registered, and nowhere else.

use crate::answer::Refusal;
use crate::limits::Limits;
use rivermark_engine::{Queried, View};
use rivermark_operators::{Error, Key, StateValue, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Instant;

/// What a place of a served state may be: a key, or of a map a pair of a key and a map key. Implemented for every type that is ordered and that
/// serde reads and writes.
pub trait ServedKey: Serialize + DeserializeOwned + Ord + 'static {}
impl<P: Serialize + DeserializeOwned + Ord + 'static> ServedKey for P {}

/// Which entries are wanted, as texts of the request.
#[derive(Debug, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) from: Option<&'a str>,
    pub(crate) to: Option<&'a str>,
    pub(crate) after: Option<&'a str>,
    pub(crate) prefix: Option<&'a str>,
    pub(crate) limit: Option<usize>,
}

/// Some entries, as JSON.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<u8>,
    /// Whether there are more behind them.
    pub(crate) has_more: bool,
}

/// Where something is, and what is there, as JSON.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// A state of a flow that is served.
pub(crate) trait ServedState: Send + Sync {
    fn name(&self) -> &'static str;
    /// The types of places and entries, for descriptions.
    fn types(&self) -> (&'static str, &'static str);
    /// What is at a place: place and entry as JSON.
    fn get(&self, view: &View, operator: &str, key: &str) -> Result<Option<Pair>, Refusal>;
    fn page(
        &self,
        view: &View,
        operator: &str,
        wanted: &Wanted<'_>,
        limits: &Limits,
        until: Instant,
    ) -> Result<Page, Refusal>;
}

/// A state by its handle.
pub(crate) struct Typed<P, H> {
    handle: H,
    places: PhantomData<fn() -> P>,
}

impl<P, H> Typed<P, H> {
    pub(crate) fn new(handle: H) -> Self {
        Self { handle, places: PhantomData }
    }
}

impl<P, H> ServedState for Typed<P, H>
where
    P: ServedKey,
    H: Queried<P> + Send + Sync,
    H::Entry: Serialize,
{
    fn name(&self) -> &'static str {
        Queried::<P>::name(self.handle)
    }

    fn types(&self) -> (&'static str, &'static str) {
        (std::any::type_name::<P>(), std::any::type_name::<H::Entry>())
    }

    fn get(&self, view: &View, operator: &str, key: &str) -> Result<Option<Pair>, Refusal> {
        let place: P = parse("the key", key)?;
        let entry = view.query(self.handle).of(operator).get(&place).map_err(failed)?;
        entry.map(|entry| Ok((json(&place)?, json(&entry)?))).transpose()
    }

    fn page(
        &self,
        view: &View,
        operator: &str,
        wanted: &Wanted<'_>,
        limits: &Limits,
        until: Instant,
    ) -> Result<Page, Refusal> {
        let bound = |name, text: Option<&str>| text.map(|text| parse::<P>(name, text)).transpose();
        let (from, to) = (bound("`from`", wanted.from)?, bound("`to`", wanted.to)?);
        let after = bound("`after`", wanted.after)?;
        let takes = |place: &P| {
            from.as_ref().is_none_or(|from| from <= place)
                && to.as_ref().is_none_or(|to| place < to)
                && after.as_ref().is_none_or(|after| after < place)
        };
        let query = view.query(self.handle).of(operator);
        let limit = wanted.limit.unwrap_or(limits.entries);
        // The least places so far, and their entries as JSON.
        let mut least = BTreeMap::<P, Vec<u8>>::new();
        let (mut bytes, mut has_more) = (0, false);
        for (number, entry) in query.entries::<P>().map_err(failed)?.enumerate() {
            if number % 256 == 0 && Instant::now() >= until {
                let detail = "it took too long to look at the whole state; ask for single keys".to_owned();
                return Err(Refusal::Unavailable(detail));
            }
            let (place, entry) = entry.map_err(failed)?;
            if !takes(&place) || !begins_with(&place, wanted.prefix)? {
                continue;
            }
            if least.len() == limit && least.last_key_value().is_none_or(|(last, _)| *last < place) {
                has_more = true;
                continue;
            }
            let entry = object_of(&place, &entry)?;
            bytes += entry.len();
            least.insert(place, entry);
            if least.len() > limit {
                bytes -= least.pop_last().map_or(0, |(_, entry)| entry.len());
                has_more = true;
            }
            if bytes > limits.bytes {
                let detail =
                    format!("the entries take more than {} bytes; ask for less, with `limit`", limits.bytes);
                return Err(Refusal::TooLarge(detail));
            }
        }
        if has_more && wanted.limit.is_none() {
            let detail = format!(
                "there are more than {limit} entries; ask for a part of them, with `limit`, `from`, `to` or `prefix`"
            );
            return Err(Refusal::TooLarge(detail));
        }
        let entries: Vec<&[u8]> = least.values().map(Vec::as_slice).collect();
        Ok(Page { entries: [b"[", &*entries.join(&b','), b"]"].concat(), has_more })
    }
}

/// Windows of an operator that are served.
pub(crate) trait ServedWindows: Send + Sync {
    fn operator(&self) -> &str;
    fn types(&self) -> (&'static str, &'static str);
    /// The key, and its windows between two times, as JSON.
    fn get(&self, view: &View, key: &str, from: Timestamp, to: Timestamp) -> Result<Pair, Refusal>;
}

/// Windows by the types of their keys and accumulators.
pub(crate) struct TypedWindows<K, A> {
    operator: String,
    types: PhantomData<fn() -> (K, A)>,
}

impl<K, A> TypedWindows<K, A> {
    pub(crate) fn new(operator: &str) -> Self {
        Self { operator: operator.to_owned(), types: PhantomData }
    }
}

impl<K: Key, A: StateValue> ServedWindows for TypedWindows<K, A> {
    fn operator(&self) -> &str {
        &self.operator
    }

    fn types(&self) -> (&'static str, &'static str) {
        (std::any::type_name::<K>(), std::any::type_name::<A>())
    }

    fn get(&self, view: &View, key: &str, from: Timestamp, to: Timestamp) -> Result<Pair, Refusal> {
        #[derive(Serialize)]
        struct Slice<A> {
            start_ms: i64,
            value: A,
        }
        let key: K = parse("the key", key)?;
        let slices = view.windows(&self.operator).get::<K, A>(&key, from, to).map_err(failed)?;
        let slices = slices.into_iter().map(|(start, value)| Slice { start_ms: start.millis(), value });
        Ok((json(&key)?, json(&slices.collect::<Vec<_>>())?))
    }
}

/// Reads JSON of the type, or else takes the text as it is.
fn parse<P: DeserializeOwned>(what: &str, text: &str) -> Result<P, Refusal> {
    serde_json::from_str(text).or_else(|error| {
        let as_text = serde_json::from_value(serde_json::Value::String(text.to_owned()));
        as_text.map_err(|_| {
            let wanted = std::any::type_name::<P>();
            Refusal::Malformed(format!("{what} is `{text}`, which is no {wanted} in JSON: {error}"))
        })
    })
}

/// Whether a place that is text, or begins with it, begins with the prefix.
fn begins_with<P: Serialize>(place: &P, prefix: Option<&str>) -> Result<bool, Refusal> {
    let Some(prefix) = prefix else { return Ok(true) };
    let place = serde_json::to_value(place).map_err(unwritable)?;
    let first = place.get(0).unwrap_or(&place);
    match first.as_str() {
        Some(text) => Ok(text.starts_with(prefix)),
        None => Err(Refusal::Malformed("`prefix` is for keys that are text; use `from` and `to`".to_owned())),
    }
}

/// `{"key":..,"value":..}`.
fn object_of<P: Serialize, E: Serialize>(place: &P, entry: &E) -> Result<Vec<u8>, Refusal> {
    let mut bytes = b"{\"key\":".to_vec();
    serde_json::to_writer(&mut bytes, place).map_err(unwritable)?;
    bytes.extend_from_slice(b",\"value\":");
    serde_json::to_writer(&mut bytes, entry).map_err(unwritable)?;
    bytes.push(b'}');
    Ok(bytes)
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(unwritable)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unwritable(error: serde_json::Error) -> Refusal {
    Refusal::Failed(format!("the state cannot be written as JSON: {error}"))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failed(error: Error) -> Refusal {
    Refusal::Failed(error.to_string())
}
