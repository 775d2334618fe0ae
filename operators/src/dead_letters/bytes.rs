//! How bytes are written: as they are, or as text where people read them.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that people read.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Readable {
    Text(String),
    Hex { hex: String },
}

fn to_readable(bytes: &[u8]) -> Readable {
    match std::str::from_utf8(bytes) {
        Ok(text) => Readable::Text(text.to_owned()),
        Err(_) => Readable::Hex { hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() },
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() { bytes.as_deref().map(to_readable).serialize(to) } else { bytes.serialize(to) }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    if !from.is_human_readable() {
        return Option::deserialize(from);
    }
    match Option::<Readable>::deserialize(from)? {
        None => Ok(None),
        Some(Readable::Text(text)) => Ok(Some(text.into_bytes())),
        Some(Readable::Hex { hex }) => {
            let bytes = from_hex(&hex);
            bytes
                .map(Some)
                .ok_or_else(|| D::Error::custom(format!("`{hex}` are not the hexadecimal digits of bytes")))
        }
    }
}
