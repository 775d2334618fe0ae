//! A hash that is the same on every machine, in every release: key groups, and so snapshots, depend on it.
//!
//! Each 64-bit word is folded into the state by a 64 x 64 -> 128 bit multiplication whose halves are xored (wyhash,
//! foldhash). Two folds a word sized key: about 2 ns. It is not keyed, so it does not resist chosen collisions; keys that
//! an adversary picks belong behind a keyed hash of the user's own.

use std::hash::{Hash, Hasher};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const MULTIPLIER: u64 = 0xa076_1d64_78bd_642f;
const FINAL: u64 = 0xe703_7ed1_a0b4_28db;

/// The 64-bit stable hash of `key`: computed once a record, then carried along.
#[inline]
pub fn hash_key<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = StableHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The hasher behind [`hash_key`]. Its results never change: golden values hold it to that.
///
/// `usize` and `isize` count as 64 bits and every integer as little endian. Slices of integers wider than a byte are hashed
/// by `std` as native memory, so such keys are stable among little-endian machines only.
#[derive(Clone, Debug)]
pub struct StableHasher {
    state: u64,
}

impl Default for StableHasher {
    #[inline]
    fn default() -> Self {
        Self { state: SEED }
    }
}

#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Up to eight bytes as a little-endian word.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    let mut padded = [0u8; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

impl StableHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        self.state = fold(self.state ^ word, MULTIPLIER);
    }
}

impl Hasher for StableHasher {
    #[inline]
    fn finish(&self) -> u64 {
        fold(self.state ^ SEED, FINAL)
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for chunk in words {
            self.mix(u64::from_le_bytes(*chunk));
        }
        if !rest.is_empty() {
            self.mix(word(rest));
        }
        // The length tells "a" from "a\0", whatever the caller does about prefixes.
        self.state = self.state.wrapping_add(bytes.len() as u64);
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }
    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value));
    }
    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }
    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }
    #[inline]
    fn write_u128(&mut self, value: u128) {
        self.mix(value as u64);
        self.mix((value >> 64) as u64);
    }
    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }
    #[inline]
    fn write_i8(&mut self, value: i8) {
        self.mix(value as u8 as u64);
    }
    #[inline]
    fn write_i16(&mut self, value: i16) {
        self.mix(value as u16 as u64);
    }
    #[inline]
    fn write_i32(&mut self, value: i32) {
        self.mix(value as u32 as u64);
    }
    #[inline]
    fn write_i64(&mut self, value: i64) {
        self.mix(value as u64);
    }
    #[inline]
    fn write_i128(&mut self, value: i128) {
        self.write_u128(value as u128);
    }
    #[inline]
    fn write_isize(&mut self, value: isize) {
        self.mix(value as i64 as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// If this fails, every snapshot ever taken would be read with the wrong key groups.
    #[test]
    fn golden_values_never_change() {
        let golden = [
            (hash_key(&0u64), GOLDEN[0]),
            (hash_key(&1u64), GOLDEN[1]),
            (hash_key(&u64::MAX), GOLDEN[2]),
            (hash_key("rivermark"), GOLDEN[3]),
            (hash_key(&(7i32, "a long key that spans several words".to_owned())), GOLDEN[4]),
            (hash_key(&Some([1u8, 2, 3])), GOLDEN[5]),
        ];
        for (got, expected) in golden {
            assert_eq!(got, expected, "{golden:#x?}");
        }
    }
    const GOLDEN: [u64; 6] = [
        0xcbe3_4718_37ce_bf09,
        0x43bf_fe7b_26e0_14f6,
        0x4ddb_6fd4_454b_3c27,
        0xd0f2_8254_cac7_b4e1,
        0x048e_96c0_e153_3283,
        0x1372_69e8_399d_e122,
    ];

    #[test]
    fn owned_and_borrowed_strings_hash_alike() {
        assert_eq!(hash_key("abc"), hash_key(&"abc".to_owned()));
        assert_ne!(hash_key(&[0u8][..]), hash_key(&[0u8, 0][..]));
    }

    /// Nexmark's hot ids are all even, and ids are dense: neither half of the hash may show it.
    #[test]
    fn regular_keys_spread_over_low_and_high_bits() {
        for stride in [1u64, 2, 100, 1 << 20, 1 << 32] {
            let hashes: Vec<u64> = (0..65_536u64).map(|i| hash_key(&(i.wrapping_mul(stride)))).collect();
            for shift in [0, 16, 24, 32, 48, 57] {
                let width = if shift == 57 { 7 } else { 12 };
                let mut counts = vec![0u32; 1 << width];
                for hash in &hashes {
                    counts[(hash >> shift) as usize & ((1 << width) - 1)] += 1;
                }
                let expected = (65_536 >> width) as f64;
                let chi: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
                let freedom = f64::from(1u32 << width);
                assert!(chi < freedom * 1.3 + 60.0, "stride {stride} shift {shift}: chi {chi} of {freedom}");
            }
            assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        }
    }
}
