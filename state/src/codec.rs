//! The one module that knows the encoding: bincode 2 over serde, fixed-width integers, little endian.
//!
//! Fixed widths decode in half the time of variable ones, and a value of plain integers always has the same length, which
//! the delta format uses. An encoding is *prefix-free* (a decoder knows where a value ends), so concatenated encodings
//! of a key and a map key stay unambiguous.
//!
//! To serde, a `Vec<u8>` is a sequence, and bincode takes it byte by byte. A value or key that is one is copied here as a whole, to the same
//! encoding. Inside other types, the crate `serde_bytes` does that.

use std::any::Any;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// No value is longer than this encoded, in bytes: a length beyond it is damage, not an allocation.
const LONGEST: usize = 1 << 30;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<LONGEST>> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LONGEST>();

/// What a state may hold: anything serde can write and read back. Implemented for every such type.
pub trait StateValue: Serialize + DeserializeOwned + Clone + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> StateValue for T {}

/// A value could not be encoded, or bytes are not an encoding of the type asked for.
#[derive(Debug, Error)]
pub enum CodecError {
    /// serde or the type's own `Serialize` refused.
    #[error("cannot encode a {type_name}: {reason}")]
    Encode {
        /// The Rust type.
        type_name: &'static str,
        /// What the encoder said.
        reason: String,
    },
    /// The bytes do not decode: another schema wrote them, or they are damaged.
    #[error("cannot decode a {type_name} from {length} bytes: {reason}")]
    Decode {
        /// The Rust type.
        type_name: &'static str,
        /// How many bytes there were.
        length: usize,
        /// What the decoder said.
        reason: String,
    },
}

/// What `value` holds, if it is a vector of bytes.
#[inline]
fn bytes_of<T: 'static>(value: &T) -> Option<&Vec<u8>> {
    (value as &dyn Any).downcast_ref()
}

/// Appends the encoding of `value` to `out`. About 4 ns for a few integers; strings and bytes cost their copy.
///
/// # Errors
/// When the type's `Serialize` fails or the value takes more than a gigabyte; `out` may then hold a part of it.
#[inline]
pub fn encode_into<T: Serialize + 'static>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if let Some(bytes) = bytes_of(value).filter(|bytes| bytes.len() < LONGEST) {
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
        return Ok(());
    }
    match bincode::serde::encode_into_std_write(value, out, CONFIG) {
        Ok(length) if length <= LONGEST => Ok(()),
        Ok(_) => Err(encode_error::<T>("it takes more than a gigabyte".to_owned())),
        Err(error) => Err(encode_error::<T>(error.to_string())),
    }
}

/// Decodes exactly one `T` from all of `bytes`.
///
/// # Errors
/// When the bytes are not an encoding of `T`, or go on after it.
#[inline]
pub fn decode<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = decode_prefix(bytes)?;
    if used == bytes.len() {
        return Ok(value);
    }
    Err(decode_error::<T>(bytes.len(), format!("only the first {used} bytes belong to it")))
}

/// Decodes a `T` from the front of `bytes` and says how many bytes it took.
#[inline]
pub(crate) fn decode_prefix<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    let mut decoded: Option<T> = None;
    if let Some(decoded) = (&mut decoded as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>() {
        *decoded = decode_bytes(bytes).map(<[u8]>::to_vec);
    }
    if let Some(value) = decoded {
        let used = 8 + bytes_of(&value).map_or(0, Vec::len);
        return Ok((value, used));
    }
    match bincode::serde::decode_from_slice(bytes, CONFIG) {
        Ok(decoded) => Ok(decoded),
        Err(error) => Err(decode_error::<T>(bytes.len(), error.to_string())),
    }
}

/// The bytes that a vector of them is to have, if they are all there.
fn decode_bytes(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// How many bytes `value` takes encoded; 0 when it does not encode.
pub(crate) fn encoded_len<T: Serialize + 'static>(value: &T) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    if let Some(bytes) = bytes_of(value) {
        return 8 + bytes.len();
    }
    let mut count = Count(0);
    match bincode::serde::encode_into_std_write(value, &mut count, CONFIG) {
        Ok(_) => count.0,
        Err(_) => 0,
    }
}

#[cold]
fn encode_error<T: ?Sized>(reason: String) -> CodecError {
    CodecError::Encode { type_name: std::any::type_name::<T>(), reason }
}

#[cold]
fn decode_error<T>(length: usize, reason: String) -> CodecError {
    CodecError::Decode { type_name: std::any::type_name::<T>(), length, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_fixed_width_and_little_endian_order() {
        let mut out = Vec::new();
        encode_into(&(1u64, 2u16, -1i64), &mut out).unwrap();
        assert_eq!(out, [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn bytes_that_are_copied_as_a_whole_are_encoded_as_serde_has_them() {
        for length in [0, 1, 255, 70_000] {
            let bytes: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut out = Vec::new();
            encode_into(&bytes, &mut out).unwrap();
            assert_eq!(out, bincode::serde::encode_to_vec(&bytes, CONFIG).unwrap());
            assert_eq!(encoded_len(&bytes), out.len());
            assert_eq!(decode::<Vec<u8>>(&out).unwrap(), bytes);
            assert!(decode::<Vec<u8>>(&out[..out.len() - 1]).is_err());
            out.push(9);
            assert_eq!(decode_prefix::<Vec<u8>>(&out).unwrap(), (bytes, out.len() - 1));
            assert!(decode::<Vec<u8>>(&out).is_err());
        }
        assert!(decode::<Vec<u8>>(&[255; 40]).unwrap_err().to_string().contains("cannot decode"));
    }

    #[test]
    fn bytes_after_the_value_are_an_error() {
        let error = decode::<u16>(&[1, 0, 9]).unwrap_err();
        assert!(error.to_string().contains("first 2 bytes"), "{error}");
        assert!(decode::<u64>(&[1, 2]).is_err());
        assert!(decode::<String>(&[255; 8]).is_err());
    }
}
