//! How keys and values become bytes, and back.

use rivermark_operators::BoxError;
use serde::{Serialize, de::DeserializeOwned};

/// Turns values of type `T` into bytes and back. Implementations are small values that are copied freely.
pub trait Format<T>: Clone + Send + Sync + 'static {
    /// Appends the bytes of `value` to `bytes`.
    ///
    /// # Errors
    /// If the value has no such encoding. Nothing useful has been appended then.
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), BoxError>;

    /// The value of `bytes`.
    ///
    /// # Errors
    /// If they are not the encoding of one; says what is wrong and, where it can, at which byte.
    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError>;
}

/// JSON, by serde. The default: a person can read it, every tool too, and fields may be added.
#[derive(Copy, Clone, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Format<T> for Json {
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(serde_json::to_writer(bytes, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// bincode, by serde: compact and about ten times as fast as JSON, but only for programs that share the type.
#[derive(Copy, Clone, Debug, Default)]
pub struct Bincode;

impl<T: Serialize + DeserializeOwned + 'static> Format<T> for Bincode {
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(rivermark_operators::encode_into(value, bytes)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, BoxError> {
        Ok(rivermark_operators::decode(bytes)?)
    }
}

/// The bytes as they are.
#[derive(Copy, Clone, Debug, Default)]
pub struct Raw;

impl Format<Vec<u8>> for Raw {
    fn encode(&self, value: &Vec<u8>, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        bytes.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(bytes.to_vec())
    }
}

/// UTF-8 text.
#[derive(Copy, Clone, Debug, Default)]
pub struct Text;

impl Format<String> for Text {
    fn encode(&self, value: &String, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        bytes.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: PartialEq + std::fmt::Debug>(format: impl Format<T>, value: T) {
        let mut bytes = Vec::new();
        format.encode(&value, &mut bytes).unwrap();
        assert_eq!(format.decode(&bytes).unwrap(), value);
    }

    #[test]
    fn every_format_gives_back_what_it_took() {
        round_trip(Json, (1_u64, "é".to_string(), Some(-2.5)));
        round_trip(Bincode, (1_u64, "é".to_string(), Some(-2.5)));
        round_trip(Raw, vec![0, 255, 7]);
        round_trip(Text, "é\n".to_string());
    }

    #[test]
    fn what_is_no_encoding_is_an_error_that_says_where() {
        let error = Format::<u64>::decode(&Json, b"{\"a\":1}").unwrap_err().to_string();
        assert!(error.contains("column 0"), "{error}");
        assert!(Text.decode(&[0xff]).unwrap_err().to_string().contains("index 0"));
        assert!(Format::<u64>::decode(&Bincode, &[1, 2]).is_err());
    }
}
