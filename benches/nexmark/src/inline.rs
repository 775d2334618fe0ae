//! Short strings in place: an event that carries them allocates nothing and is moved as a whole.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// A string of at most `N` bytes (and at most 255), stored where it is.
#[derive(Copy, Clone)]
pub struct Inline<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Inline<N> {
    /// The empty string.
    pub const EMPTY: Self = Inline { len: 0, bytes: [0; N] };

    /// A copy of `text`.
    ///
    /// # Panics
    /// If it is longer than `N`.
    #[inline]
    pub fn of(text: &str) -> Self {
        Self::EMPTY.with(text)
    }

    /// The string that the first `length` bytes of `bytes` are; `None` if they are none of at most `N` bytes. `is_ascii` says that all of
    /// `bytes` are ASCII, which whoever reads many strings finds out faster for all of them at once.
    ///
    /// Where there are enough bytes, `N` of them are copied: a copy of a fixed length is a few vector moves.
    #[inline(always)]
    pub fn of_prefix(bytes: &[u8], length: usize, is_ascii: bool) -> Option<Self> {
        let text = bytes.get(..length).filter(|text| text.len() <= N)?;
        if !is_ascii && std::str::from_utf8(text).is_err() {
            return None;
        }
        let bytes = match bytes.first_chunk::<N>() {
            Some(bytes) => *bytes,
            None => short(text),
        };
        Some(Inline { len: length as u8, bytes })
    }

    /// With `text` after what is there.
    ///
    /// # Panics
    /// If that is longer than `N`.
    #[inline]
    pub fn with(mut self, text: &str) -> Self {
        let from = usize::from(self.len);
        self.bytes[from..from + text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len() as u8;
        self
    }

    /// With `number` in decimal after what is there.
    ///
    /// # Panics
    /// If that is longer than `N`.
    #[inline]
    pub fn with_decimal(self, number: u64) -> Self {
        self.with_digits(number, 10, number.checked_ilog10().unwrap_or(0) as usize + 1)
    }

    /// With `number` in lower-case hexadecimal after what is there.
    ///
    /// # Panics
    /// If that is longer than `N`.
    #[inline]
    pub fn with_hex(self, number: u64) -> Self {
        self.with_digits(number, 16, number.checked_ilog2().unwrap_or(0) as usize / 4 + 1)
    }

    /// With the last `digits` digits of `number` to a base, leading zeros included.
    ///
    /// # Panics
    /// If that is longer than `N`.
    #[inline]
    pub fn with_digits(mut self, mut number: u64, base: u64, digits: usize) -> Self {
        let from = usize::from(self.len);
        for place in self.bytes[from..from + digits].iter_mut().rev() {
            *place = b"0123456789abcdef"[(number % base) as usize];
            number /= base;
        }
        self.len += digits as u8;
        self
    }

    /// `x` so many times.
    ///
    /// # Panics
    /// If that is longer than `N`.
    #[inline]
    pub fn of_x(times: usize) -> Self {
        assert!(times <= N, "{times} bytes do not fit into {N}");
        // All of it: a fill of a fixed length is a few vector moves.
        Inline { len: times as u8, bytes: [b'x'; N] }
    }

    /// The string.
    #[inline]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("only whole strings are ever added")
    }

    /// The string's bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// `text`, which has `N` bytes at most, and zeros. Copies of fixed lengths that overlap take the place of one of a variable length.
#[inline(always)]
fn short<const N: usize>(text: &[u8]) -> [u8; N] {
    let (mut bytes, length) = ([0; N], text.len());
    if length >= 32 {
        bytes[..length].copy_from_slice(text);
    } else if let (Some(first), Some(last)) = (text.first_chunk::<16>(), text.last_chunk::<16>()) {
        bytes[..16].copy_from_slice(first);
        bytes[length - 16..length].copy_from_slice(last);
    } else if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        bytes[..8].copy_from_slice(first);
        bytes[length - 8..length].copy_from_slice(last);
    } else {
        bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    }
    bytes
}

impl<const N: usize> PartialEq for Inline<N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl<const N: usize> Eq for Inline<N> {}

impl<const N: usize> fmt::Display for Inline<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Inline<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> Serialize for Inline<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, const N: usize> Deserialize<'de> for Inline<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const N: usize>;

        impl<const N: usize> de::Visitor<'_> for Text<N> {
            type Value = Inline<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a string of at most {N} bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Inline<N>, E> {
                if text.len() > N { Err(E::invalid_length(text.len(), &self)) } else { Ok(Inline::of(text)) }
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_formatting_gives_them() {
        for number in [0, 1, 9, 10, 15, 16, 99, 100, 255, 256, 9999, 10_000, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(Inline::<32>::EMPTY.with_decimal(number).as_str(), format!("{number}"));
            assert_eq!(Inline::<32>::EMPTY.with_hex(number).as_str(), format!("{number:x}"));
            assert_eq!(Inline::<32>::EMPTY.with_digits(number, 16, 16).as_str(), format!("{number:016x}"));
        }
    }

    #[test]
    fn a_prefix_is_read_whatever_follows_it() {
        for bytes in [&b"lamp and more"[..], b"lamp"] {
            for is_ascii in [false, true] {
                assert_eq!(Inline::<7>::of_prefix(bytes, 4, is_ascii), Some(Inline::of("lamp")));
                assert_eq!(Inline::<3>::of_prefix(bytes, 4, is_ascii), None);
                assert_eq!(Inline::<31>::of_prefix(bytes, 20, is_ascii), None);
            }
        }
        assert_eq!(Inline::<7>::of_prefix(b"\xfflamp", 2, false), None);
        assert_eq!(Inline::<7>::of_prefix("läufig".as_bytes(), 3, false), Some(Inline::of("lä")));
    }

    #[test]
    fn a_string_of_any_length_is_copied_whole() {
        let text = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrs";
        for length in 0..text.len() {
            let string = Inline::<71>::of_prefix(&text.as_bytes()[..length], length, true);
            assert_eq!(string, Some(Inline::of(&text[..length])));
        }
    }

    #[test]
    fn strings_are_equal_by_what_they_say() {
        assert_eq!(Inline::<31>::of_x(3), Inline::of("xxx"));
        assert_ne!(Inline::<31>::of_x(3), Inline::of("xx"));
    }
}
