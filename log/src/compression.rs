//! Compression of batch bodies. The only module that knows lz4 and zstd.
//!
//! Both directions write into buffers of a size known before: compression one byte less than the input, so that what does not shrink is
//! stored as it is; decompression exactly what the header says, which was checked against the limit before.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a topic's batches are compressed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all: the fastest, where the disk is large.
    #[default]
    None,
    /// LZ4: some hundreds of megabytes a second a core to compress, gigabytes to decompress.
    Lz4,
    /// Zstandard, of a level from 1 (fast) to 19 (small). 3 is its own default.
    Zstd(i32),
}

/// What a stored batch is compressed with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Lz4,
    Zstd,
}

impl Codec {
    pub(crate) fn from_byte(byte: u8) -> Option<Codec> {
        [Codec::None, Codec::Lz4, Codec::Zstd].into_iter().find(|codec| codec.to_byte() == byte)
    }

    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }
}

/// Compresses, and keeps what zstd needs for it.
#[derive(Default)]
pub(crate) struct Compressor {
    zstd: Option<(i32, zstd::bulk::Compressor<'static>)>,
}

impl Compressor {
    /// Compresses to the end of `out`, if that makes it smaller; says with what.
    pub(crate) fn compress(&mut self, compression: Compression, plain: &[u8], out: &mut Vec<u8>) -> Codec {
        let from = out.len();
        let (codec, room) = match compression {
            Compression::None => return Codec::None,
            Compression::Lz4 => (Codec::Lz4, lz4_flex::block::get_maximum_output_size(plain.len())),
            Compression::Zstd(_) => (Codec::Zstd, plain.len()),
        };
        out.resize(from + room, 0);
        let packed = match compression {
            Compression::Zstd(level) => {
                self.zstd(level).and_then(|zstd| zstd.compress_to_buffer(plain, &mut out[from..]).ok())
            }
            _ => lz4_flex::block::compress_into(plain, &mut out[from..]).ok(),
        };
        match packed.filter(|&packed| packed < plain.len()) {
            Some(packed) => {
                out.truncate(from + packed);
                codec
            }
            None => {
                out.truncate(from);
                Codec::None
            }
        }
    }

    fn zstd(&mut self, level: i32) -> Option<&mut zstd::bulk::Compressor<'static>> {
        if self.zstd.as_ref().is_none_or(|(kept, _)| *kept != level) {
            self.zstd = zstd::bulk::Compressor::new(level).ok().map(|zstd| (level, zstd));
        }
        self.zstd.as_mut().map(|(_, zstd)| zstd)
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// Decompresses, and keeps what zstd needs for it.
#[derive(Default)]
pub(crate) struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decompressor {
    /// Decompresses into exactly `plain`, or says what is wrong.
    pub(crate) fn decompress(&mut self, codec: Codec, packed: &[u8], plain: &mut [u8]) -> Result<(), String> {
        let expected = plain.len();
        let len = match codec {
            Codec::None => {
                if packed.len() == expected {
                    plain.copy_from_slice(packed);
                }
                packed.len()
            }
            Codec::Lz4 => lz4_flex::block::decompress_into(packed, plain).map_err(|e| e.to_string())?,
            Codec::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    None => self.zstd.insert(zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?),
                };
                zstd.decompress_to_buffer(packed, plain).map_err(|e| e.to_string())?
            }
        };
        if len == expected {
            Ok(())
        } else {
            Err(format!("it holds {len} bytes where {expected} were announced"))
        }
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd(3)];

    #[test]
    fn what_is_compressed_comes_back() {
        let plain = b"the same words, the same words, the same words again".repeat(20);
        for compression in ALL {
            let mut out = b"before".to_vec();
            let codec = Compressor::default().compress(compression, &plain, &mut out);
            let packed = if codec == Codec::None { &plain[..] } else { &out[6..] };
            assert_eq!(packed.len() < plain.len(), compression != Compression::None);
            let mut back = vec![0; plain.len()];
            Decompressor::default().decompress(codec, packed, &mut back).unwrap();
            assert_eq!(back, plain);
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        for compression in ALL {
            let mut out = Vec::new();
            assert_eq!(Compressor::default().compress(compression, b"short", &mut out), Codec::None);
            assert!(out.is_empty());
        }
    }

    #[test]
    fn more_than_announced_is_refused() {
        let plain = vec![7; 100_000];
        for compression in [Compression::Lz4, Compression::Zstd(1)] {
            let mut packed = Vec::new();
            let codec = Compressor::default().compress(compression, &plain, &mut packed);
            for announced in [0, 10, plain.len() - 1, plain.len() + 1] {
                let mut back = vec![0; announced];
                assert!(
                    Decompressor::default().decompress(codec, &packed, &mut back).is_err(),
                    "{announced}"
                );
            }
        }
    }
}
