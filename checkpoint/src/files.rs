//! State files: named by what is in them, uploaded once, verified when they come back.
//!
//! An object's name is `files/<2 digits>/<SHA-256>-<generation>-<upload>`. The digest alone would do for finding a
//! file; generation and upload number make a name *unique for ever*. A collection decides that an object is garbage and
//! deletes it later, perhaps much later, in a process that was paused in between. Were the same content uploaded again
//! under the same name meanwhile, that delete would take it away.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::Generation;
use crate::manifest::{from_hex, to_hex};

/// Everything that holds state files begins so.
pub const PREFIX: &str = "files/";

/// The SHA-256 of a file's content; written as hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// A file in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileRef {
    /// What is in it.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
    /// The generation that uploaded it.
    pub generation: Generation,
    /// The number of the upload within the generation.
    pub upload: u64,
}

impl FileRef {
    /// The name of the object, below the flow's prefix.
    #[must_use]
    pub fn object(&self) -> String {
        let digest = self.digest.to_string();
        format!("{PREFIX}{}/{digest}-{}-{}", &digest[..2], self.generation, self.upload)
    }

    /// The file whose object has this name and size.
    #[must_use]
    pub fn parse(object: &str, bytes: u64) -> Option<Self> {
        let (_, name) = object.strip_prefix(PREFIX)?.split_once('/')?;
        let mut parts = name.split('-');
        let (digest, generation, upload) = (parts.next()?, parts.next()?, parts.next()?);
        let digest = Digest(from_hex(digest)?.try_into().ok()?);
        let found = Self {
            digest,
            bytes,
            generation: Generation(generation.parse().ok()?),
            upload: upload.parse().ok()?,
        };
        (found.object() == object).then_some(found)
    }
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest and size of the file at `path`, which is read once.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        let mut bytes = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((Self(hasher.finalize().into()), bytes)),
                read => {
                    hasher.update(&buffer[..read]);
                    bytes += read as u64;
                }
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let digest = from_hex(&hex).and_then(|bytes| bytes.try_into().ok());
        digest.map(Digest).ok_or_else(|| de::Error::custom("a digest that is not 64 hexadecimal digits"))
    }
}
