//! State without its types: keys and values as far as their description in the snapshot leads.
//!
//! A snapshot names the types of a state, as in `String -> (u64, Option<f64>)`, and nothing more. For the types that every program has that is
//! enough, since the encoding of each is known:
//!
//! 1. The name is parsed into a [`Shape`].
//! 2. Bytes are read by the shape, into a [`serde_json::Value`]. A type that is not known takes all bytes that are left: where a value of it
//!    ends, only its program knows. It is shown as `{"type", "hex", "text"}`.
//! 3. A key that somebody has typed is written by the shape, and gives the bytes under which its row lies.
//!
//! [`Types`] says more: a program that has the types registers them ([`Types::know`]), and a person can say what one is made of
//! ([`Types::define`]): fields lie one after the other, so that a struct is like the tuple of its fields.

mod shape;

pub use self::shape::Shape;

use crate::codec::{self, StateValue};
use crate::schema::schema_of;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How deep definitions may refer to each other.
const DEEPEST: usize = 32;

/// What is known of types beside those of the language and its library.
#[derive(Clone, Default)]
pub struct Types {
    defined: BTreeMap<String, Shape>,
    known: BTreeMap<String, Known>,
}

type ReadFn = dyn Fn(&[u8]) -> Option<(Value, usize)> + Send + Sync;
type WriteFn = dyn Fn(&Value) -> Result<Vec<u8>, String> + Send + Sync;

/// A type that this program has.
#[derive(Clone)]
struct Known {
    /// The value at the front of some bytes, and how many it took.
    read: Arc<ReadFn>,
    write: Arc<WriteFn>,
}

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Types")
            .field("defined", &self.defined)
            .field("known", &self.known.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Types {
    /// Nothing but the types of the language and its library.
    pub fn new() -> Types {
        Types::default()
    }

    /// Says what a type is made of: `define("Order", "(String, u64)")` for a struct of two fields. `what` is a type in Rust's notation without the
    /// modules that lead to it, and may name others that are defined.
    ///
    /// # Errors
    /// `what` is no type.
    pub fn define(&mut self, name: impl Into<String>, what: &str) -> Result<&mut Types, String> {
        self.defined.insert(name.into(), Shape::parse(what)?);
        Ok(self)
    }

    /// Lets values of `T` be shown as serde tells them to JSON.
    pub fn know<T: StateValue>(&mut self) -> &mut Types {
        let read = |bytes: &[u8]| {
            let (value, used) = codec::decode_prefix::<T>(bytes).ok()?;
            Some((serde_json::to_value(value).ok()?, used))
        };
        let write = |value: &Value| {
            let value: T = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
            let mut bytes = Vec::new();
            codec::encode_into(&value, &mut bytes).map_err(|e| e.to_string())?;
            Ok(bytes)
        };
        self.known.insert(schema_of::<T>(), Known { read: Arc::new(read), write: Arc::new(write) });
        self
    }

    /// The value at the front of `bytes`, which moves behind it. Whatever the bytes are, there is an answer: what cannot be read is shown as
    /// bytes.
    pub fn read(&self, shape: &Shape, bytes: &mut &[u8]) -> Value {
        let all = *bytes;
        let read = self.try_read(shape, bytes, 0);
        read.unwrap_or_else(|| {
            *bytes = &[];
            opaque(&shape.to_string(), all)
        })
    }

    /// As [`Types::read`], of all bytes: those that the type leaves over are shown too.
    pub fn read_all(&self, shape: &Shape, mut bytes: &[u8]) -> Value {
        let all = bytes;
        match self.read(shape, &mut bytes) {
            value if bytes.is_empty() => value,
            _ => opaque(&shape.to_string(), all),
        }
    }

    fn try_read(&self, shape: &Shape, bytes: &mut &[u8], depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        let name = match shape {
            Shape::Tuple(fields) => {
                let fields = fields.iter().map(|field| self.try_read(field, bytes, depth + 1));
                return fields.collect::<Option<Vec<_>>>().map(unit_or_array);
            }
            Shape::Array(item, length) => return self.items(item, *length as u64, bytes, depth),
            Shape::Named(name, _) => name.as_str(),
        };
        if let Some(known) = self.known.get(&shape.to_string()) {
            let (value, used) = (known.read)(bytes)?;
            *bytes = bytes.get(used..)?;
            return Some(value);
        }
        if let Some(defined) = self.defined.get(name) {
            return self.try_read(defined, bytes, depth + 1);
        }
        match (name, shape.arguments()) {
            ("bool", []) => match take::<1>(bytes)? {
                [0] => Some(json!(false)),
                [1] => Some(json!(true)),
                _ => None,
            },
            ("u8", []) => Some(json!(u8::from_le_bytes(take(bytes)?))),
            ("u16", []) => Some(json!(u16::from_le_bytes(take(bytes)?))),
            ("u32", []) => Some(json!(u32::from_le_bytes(take(bytes)?))),
            ("u64" | "usize", []) => Some(json!(u64::from_le_bytes(take(bytes)?))),
            ("i8", []) => Some(json!(i8::from_le_bytes(take(bytes)?))),
            ("i16", []) => Some(json!(i16::from_le_bytes(take(bytes)?))),
            ("i32", []) => Some(json!(i32::from_le_bytes(take(bytes)?))),
            ("i64" | "isize", []) => Some(json!(i64::from_le_bytes(take(bytes)?))),
            // JSON's readers lose the digits of such numbers.
            ("u128", []) => Some(json!(u128::from_le_bytes(take(bytes)?).to_string())),
            ("i128", []) => Some(json!(i128::from_le_bytes(take(bytes)?).to_string())),
            ("f32", []) => Some(float(f64::from(f32::from_le_bytes(take(bytes)?)))),
            ("f64", []) => Some(float(f64::from_le_bytes(take(bytes)?))),
            ("char", []) => character(bytes),
            ("String" | "str" | "CompactString", _) => text(bytes),
            ("Box" | "Arc" | "Rc" | "Cow" | "Wrapping" | "Saturating" | "Reverse" | "NonZero", [inner]) => {
                self.try_read(inner, bytes, depth + 1)
            }
            ("Option", [inner]) => match take::<1>(bytes)? {
                [0] => Some(Value::Null),
                [1] => self.try_read(inner, bytes, depth + 1),
                _ => None,
            },
            (
                "Vec" | "VecDeque" | "HashSet" | "BTreeSet" | "BinaryHeap" | "LinkedList" | "Slice",
                [item, ..],
            ) => {
                let length = u64::from_le_bytes(take(bytes)?);
                self.items(item, length, bytes, depth)
            }
            ("HashMap" | "BTreeMap", [key, value, ..]) => self.map(key, value, bytes, depth),
            ("Duration", []) => {
                let (seconds, nanos) = (u64::from_le_bytes(take(bytes)?), u32::from_le_bytes(take(bytes)?));
                Some(json!(format!("{}s", seconds as f64 + f64::from(nanos) / 1e9)))
            }
            // A state with a time to live: the deadline comes first.
            ("Timed", [value]) => {
                let deadline = i64::from_le_bytes(take(bytes)?);
                let deadline = (deadline != i64::MAX).then_some(deadline);
                Some(json!({ "deadline_ms": deadline, "value": self.try_read(value, bytes, depth + 1)? }))
            }
            _ => {
                let all = std::mem::take(bytes);
                Some(opaque(&shape.to_string(), all))
            }
        }
    }

    fn items(&self, item: &Shape, length: u64, bytes: &mut &[u8], depth: usize) -> Option<Value> {
        let (all, mut items) = (bytes.len(), Vec::new());
        for _ in 0..length {
            // A type that has taken all bytes, or takes none: whatever length damage makes of it, there is an end.
            if bytes.is_empty() && !items.is_empty() || items.len() > all {
                break;
            }
            items.push(self.try_read(item, bytes, depth + 1)?);
        }
        Some(Value::Array(items))
    }

    fn map(&self, key: &Shape, value: &Shape, bytes: &mut &[u8], depth: usize) -> Option<Value> {
        let length = u64::from_le_bytes(take(bytes)?);
        let mut pairs = Vec::new();
        for _ in 0..length {
            let key = self.try_read(key, bytes, depth + 1)?;
            pairs.push((key, self.try_read(value, bytes, depth + 1)?));
        }
        if pairs.iter().all(|(key, _)| key.is_string()) {
            let named = |(key, value): (Value, Value)| (key.as_str().unwrap_or_default().to_owned(), value);
            return Some(Value::Object(pairs.into_iter().map(named).collect()));
        }
        Some(Value::Array(pairs.into_iter().map(|(key, value)| json!([key, value])).collect()))
    }

    /// Appends the encoding of a value, as somebody has typed it.
    ///
    /// # Errors
    /// It is not of the type, or the type is not known.
    pub fn write(&self, shape: &Shape, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
        self.try_write(shape, value, out, 0)
    }

    fn try_write(&self, shape: &Shape, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        let wrong = || format!("{value} is not a {shape}");
        let each = |shapes: &mut dyn Iterator<Item = &Shape>, values: &[Value], out: &mut Vec<u8>| {
            shapes.zip(values).try_for_each(|(shape, value)| self.try_write(shape, value, out, depth + 1))
        };
        let name = match shape {
            Shape::Tuple(fields) if fields.is_empty() => return Ok(()),
            Shape::Tuple(fields) => {
                let values =
                    value.as_array().filter(|values| values.len() == fields.len()).ok_or_else(wrong)?;
                return each(&mut fields.iter(), values, out);
            }
            Shape::Array(item, length) => {
                let values = value.as_array().filter(|values| values.len() == *length).ok_or_else(wrong)?;
                return each(&mut std::iter::repeat(&**item), values, out);
            }
            Shape::Named(name, _) => name.as_str(),
        };
        if let Some(known) = self.known.get(&shape.to_string()) {
            out.extend((known.write)(value)?);
            return Ok(());
        }
        if let Some(defined) = self.defined.get(name).filter(|_| depth < DEEPEST) {
            return self.try_write(defined, value, out, depth + 1);
        }
        let whole = || -> Result<i128, String> {
            let number = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
            number.or_else(|| value.as_str()?.parse().ok()).ok_or_else(wrong)
        };
        macro_rules! whole {
            ($type:ty) => {
                out.extend(<$type>::try_from(whole()?).map_err(|_| wrong())?.to_le_bytes())
            };
        }
        match (name, shape.arguments()) {
            ("bool", []) => out.push(u8::from(value.as_bool().ok_or_else(wrong)?)),
            ("u8", []) => whole!(u8),
            ("u16", []) => whole!(u16),
            ("u32", []) => whole!(u32),
            ("u64" | "usize", []) => whole!(u64),
            ("u128", []) => whole!(u128),
            ("i8", []) => whole!(i8),
            ("i16", []) => whole!(i16),
            ("i32", []) => whole!(i32),
            ("i64" | "isize", []) => whole!(i64),
            ("i128", []) => whole!(i128),
            ("f64", []) => out.extend(value.as_f64().ok_or_else(wrong)?.to_le_bytes()),
            ("char", []) => out.extend(value.as_str().ok_or_else(wrong)?.as_bytes()),
            ("String" | "str" | "CompactString", _) => {
                let text = value.as_str().ok_or_else(wrong)?;
                out.extend((text.len() as u64).to_le_bytes());
                out.extend(text.as_bytes());
            }
            ("Box" | "Arc" | "Rc" | "Cow" | "Wrapping" | "Saturating" | "Reverse" | "NonZero", [inner]) => {
                return self.try_write(inner, value, out, depth + 1);
            }
            ("Option", [_]) if value.is_null() => out.push(0),
            ("Option", [inner]) => {
                out.push(1);
                return self.try_write(inner, value, out, depth + 1);
            }
            ("Vec" | "VecDeque" | "BTreeSet" | "Slice", [item, ..]) => {
                let values = value.as_array().ok_or_else(wrong)?;
                out.extend((values.len() as u64).to_le_bytes());
                return each(&mut std::iter::repeat(item), values, out);
            }
            _ => return Err(format!("what a {shape} is made of is not known here")),
        }
        Ok(())
    }
}

/// Bytes of a type that is not known.
pub fn opaque(name: &str, bytes: &[u8]) -> Value {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "type": name, "hex": hex, "text": bytes.escape_ascii().to_string() })
}

fn unit_or_array(fields: Vec<Value>) -> Value {
    if fields.is_empty() { Value::Null } else { Value::Array(fields) }
}

/// A number where JSON has it, and its name where it has not.
fn float(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| json!(value.to_string()), Value::Number)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn text(bytes: &mut &[u8]) -> Option<Value> {
    let length = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(json!(std::str::from_utf8(taken).ok()?))
}

fn character(bytes: &mut &[u8]) -> Option<Value> {
    let width = match bytes.first()? {
        0..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    let (taken, rest) = bytes.split_at_checked(width)?;
    *bytes = rest;
    Some(json!(std::str::from_utf8(taken).ok()?))
}

#[cfg(test)]
mod tests;
