//! The entries of a history, and their bytes.
//!
//! An entry is two JSON documents, so that an editor opens it and `jq .` reads it: the entry over as many lines as it
//! takes, and on the last line the SHA-256 of everything before that line (`head -n -1 FILE | sha256sum` computes it):
//!
//! ```text
//! {
//!   "format": "rivermark-checkpoint",
//!   "format_version": 1,
//!   "kind": "fence",
//!   "generation": 3,
//!   ...
//! }
//! {"sha256":"..."}
//! ```
//!
//! This envelope stays as it is in every version, so that a newer one can be told from damage.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Slot;
use crate::{Digest, Epoch, Generation, Manifest};

/// The version of the entries that this crate writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT: &str = "rivermark-checkpoint";

/// One entry of a history.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// A process has claimed a generation; nothing of an older one follows.
    Fence {
        /// The generation.
        generation: Generation,
        /// Who claimed it; unique to the attempt.
        owner: String,
        /// When, in milliseconds since 1970, by the clock handed in.
        claimed_at_ms: i64,
    },
    /// A checkpoint is stored.
    Manifest(Box<Manifest>),
    /// A generation continues from an older checkpoint; those between are superseded.
    Rewind {
        /// The generation.
        generation: Generation,
        /// The slot of the checkpoint.
        to_slot: Slot,
        /// Its epoch.
        to_epoch: Epoch,
    },
}

/// What is wrong with the bytes of an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// There is no line with a checksum at the end.
    #[error("it ends without its checksum line: truncated or not a checkpoint entry")]
    NoChecksum,
    /// The bytes are not those that were written.
    #[error("its checksum is {found}, not the {expected} that its last line states")]
    Checksum {
        /// What the last line states.
        expected: Digest,
        /// What the bytes have.
        found: Digest,
    },
    /// A newer version of Rivermark wrote it.
    #[error(
        "its format version {found} is newer than {FORMAT_VERSION}, the newest this program reads: upgrade it"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
    },
    /// It is intact, and not an entry.
    #[error("it is intact but no checkpoint entry: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct Envelope<E> {
    format: String,
    format_version: u32,
    #[serde(flatten)]
    entry: E,
}

#[derive(Deserialize)]
struct Header {
    format: String,
    format_version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    sha256: Digest,
}

impl Entry {
    /// The generation that wrote it.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        match self {
            Self::Fence { generation, .. } | Self::Rewind { generation, .. } => *generation,
            Self::Manifest(manifest) => manifest.generation,
        }
    }

    /// The bytes of the entry: always the same for the same entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        seal(FORMAT, self)
    }

    /// The entry of `bytes`.
    ///
    /// # Errors
    /// The bytes are damaged, or a newer version wrote them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        unseal(FORMAT, bytes)
    }
}

/// The bytes of `entry` in the envelope of `format`: always the same for the same entry.
pub(crate) fn seal(format: &str, entry: &impl Serialize) -> Vec<u8> {
    let envelope = Envelope { format: format.to_owned(), format_version: FORMAT_VERSION, entry };
    let mut bytes = serde_json::to_vec_pretty(&envelope)
        .expect("what is sealed has string keys alone and fails nowhere else");
    bytes.push(b'\n');
    let trailer = format!("{{\"sha256\":\"{}\"}}\n", Digest::of(&bytes));
    bytes.extend_from_slice(trailer.as_bytes());
    bytes
}

/// The other direction of [`seal`].
pub(crate) fn unseal<E: DeserializeOwned>(format: &str, bytes: &[u8]) -> Result<E, Damage> {
    let body = check(bytes)?;
    let malformed = |error: serde_json::Error| Damage::Malformed(error.to_string());
    let header: Header = serde_json::from_slice(body).map_err(malformed)?;
    if header.format != format {
        return Err(Damage::Malformed(format!("its format is `{}`", header.format)));
    }
    if header.format_version > FORMAT_VERSION {
        return Err(Damage::NewerFormat { found: header.format_version });
    }
    let envelope: Envelope<E> = serde_json::from_slice(body).map_err(malformed)?;
    Ok(envelope.entry)
}

/// The bytes above the checksum line, which they agree with.
fn check(bytes: &[u8]) -> Result<&[u8], Damage> {
    let lines = bytes.strip_suffix(b"\n").ok_or(Damage::NoChecksum)?;
    let end = lines.iter().rposition(|&byte| byte == b'\n').ok_or(Damage::NoChecksum)? + 1;
    let trailer: Trailer = serde_json::from_slice(&lines[end..]).map_err(|_| Damage::NoChecksum)?;
    let body = &bytes[..end];
    let found = Digest::of(body);
    if found == trailer.sha256 { Ok(body) } else { Err(Damage::Checksum { expected: trailer.sha256, found }) }
}
