//! LEB128 integers, as in Protocol Buffers: seven bits a byte, low bits first.

/// Bytes of a length that is written before it is known, see [`patch_padded`].
pub(crate) const PADDED: usize = 5;

#[inline]
pub(crate) fn put(buffer: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        buffer.push(n as u8 | 0x80);
        n >>= 7;
    }
    buffer.push(n as u8);
}

/// Reads a number off the front; `None` if the bytes end or exceed 64 bits.
#[inline(always)]
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    // Nearly all numbers in a log have one byte or two: without a call and without a loop.
    match **bytes {
        [a, ref rest @ ..] if a < 0x80 => {
            *bytes = rest;
            Some(u64::from(a))
        }
        [a, b, ref rest @ ..] if b < 0x80 => {
            *bytes = rest;
            Some(u64::from(a & 0x7F) | u64::from(b) << 7)
        }
        // A length that was written before it was known, see `patch_padded`.
        [a, b, c, d, e, ref rest @ ..] if a & b & c & d >= 0x80 && e < 0x80 => {
            *bytes = rest;
            let low = [a, b, c, d].iter().rev().fold(0, |n, byte| n << 7 | u64::from(byte & 0x7F));
            Some(low | u64::from(e) << 28)
        }
        _ => take_long(bytes),
    }
}

#[cold]
fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7F);
        if i == 9 && bits > 1 {
            return None;
        }
        n |= bits << (7 * i);
        if byte < 0x80 {
            *bytes = &bytes[i + 1..];
            return Some(n);
        }
    }
    None
}

/// Writes a number below 2^35 into the [`PADDED`] bytes that were left for it.
pub(crate) fn patch_padded(slot: &mut [u8], n: u64) {
    for (i, byte) in slot[..PADDED].iter_mut().enumerate() {
        *byte = (n >> (7 * i)) as u8 & 0x7F | if i + 1 < PADDED { 0x80 } else { 0 };
    }
}

/// Small numbers of either sign become small numbers.
#[inline]
pub(crate) fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

#[inline]
pub(crate) fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back() {
        for shift in 0..64 {
            for n in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put(&mut bytes, n);
                let mut rest = &bytes[..];
                assert_eq!((take(&mut rest), rest.len()), (Some(n), 0));
                assert_eq!(take(&mut &bytes[..bytes.len() - 1]), None, "a cut number is no number");
                assert_eq!(unzigzag(zigzag(n as i64)), n as i64);
            }
        }
    }

    #[test]
    fn a_padded_length_reads_as_any_other() {
        for n in [0, 1, 127, 128, 1 << 20, (1 << 35) - 1] {
            let mut slot = [0; PADDED];
            patch_padded(&mut slot, n);
            let mut rest = &slot[..];
            assert_eq!((take(&mut rest), rest.len()), (Some(n), 0));
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(take(&mut &[0xFF; 11][..]), None);
        assert_eq!(take(&mut &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02][..]), None);
    }
}
