//! Answers: rows, and what is folded over them.
//!
//! The digest of the specification does not depend on the order of rows: the sum of the first eight bytes of each row's SHA-256. Where only speed
//! is asked for, a cheap fold takes its place, so that no row can be optimised away. A query that updates its result keeps the newest row of each
//! key, and its answer is what is kept at the end.

use crate::inline::Inline;
use hashbrown::HashMap;
use rivermark::Timestamp;
use rustc_hash::FxBuildHasher;
use sha2::{Digest as _, Sha256};
use std::io::Write;

/// One field of a row.
pub trait Field {
    /// Appends it as text.
    fn write(&self, out: &mut Vec<u8>);
    /// A number made of it.
    fn number(&self) -> u64;
}

impl Field for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        // Twenty digits are the most that there are.
        out.extend_from_slice(Inline::<20>::EMPTY.with_decimal(*self).as_bytes());
    }

    #[inline]
    fn number(&self) -> u64 {
        *self
    }
}

impl Field for Timestamp {
    fn write(&self, out: &mut Vec<u8>) {
        write!(out, "{}", self.millis()).expect("a vector takes all that is written");
    }

    #[inline]
    fn number(&self) -> u64 {
        self.millis() as u64
    }
}

impl<const N: usize> Field for Inline<N> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    #[inline]
    fn number(&self) -> u64 {
        let bytes = self.as_bytes();
        bytes.len() as u64 ^ u64::from(bytes.first().copied().unwrap_or(0)) << 32
    }
}

/// A row of an answer: a tuple of fields, in the order of the specification.
pub trait Row: Send + 'static {
    /// Appends the fields as text, joined with commas.
    fn write(&self, out: &mut Vec<u8>);
    /// A number made of all fields.
    fn number(&self) -> u64;
}

macro_rules! rows {
    ($($first:ident $($field:ident)*;)*) => {$(
        impl<$first: Field + Send + 'static, $($field: Field + Send + 'static),*> Row for ($first, $($field),*) {
            fn write(&self, out: &mut Vec<u8>) {
                #[expect(non_snake_case, reason = "a variable for each type")]
                let ($first, $($field),*) = self;
                $first.write(out);
                $(out.push(b','); $field.write(out);)*
            }

            #[inline]
            fn number(&self) -> u64 {
                #[expect(non_snake_case, reason = "a variable for each type")]
                let ($first, $($field),*) = self;
                let number = $first.number();
                $(let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) ^ $field.number();)*
                number
            }
        }
    )*};
}
rows! { A B; A B C; A B C D; A B C D E; A B C D E F; }

/// What is folded over rows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Folding {
    /// The digest of the specification; of rows whose first `key` fields are a key, the newest one counts, if there is such a key.
    Digest {
        /// How many fields are the key, if any.
        key: Option<usize>,
    },
    /// Something cheap over every row. Its value depends on which updates there were, and is no answer.
    Cheap,
}

/// An answer as far as it has come: also a part of one, that is merged into others.
#[derive(Clone, Debug)]
pub struct Answer {
    folding: Folding,
    rows: u64,
    sum: u64,
    newest: HashMap<Box<[u8]>, u64, FxBuildHasher>,
    text: Vec<u8>,
}

impl Answer {
    /// An answer without rows.
    pub fn new(folding: Folding) -> Answer {
        Answer { folding, rows: 0, sum: 0, newest: HashMap::default(), text: Vec::new() }
    }

    /// Adds a row.
    #[inline]
    pub fn row<R: Row>(&mut self, row: &R) {
        match self.folding {
            Folding::Cheap => {
                self.rows += 1;
                self.sum = self.sum.wrapping_add(row.number());
            }
            Folding::Digest { .. } => {
                let mut text = std::mem::take(&mut self.text);
                text.clear();
                row.write(&mut text);
                self.row_of_text(&text);
                self.text = text;
            }
        }
    }

    /// Adds rows.
    #[inline]
    pub fn rows_of<R: Row>(&mut self, rows: impl Iterator<Item = R>) {
        if self.folding != Folding::Cheap {
            return rows.for_each(|row| self.row(&row));
        }
        let mut count = 0;
        for row in rows {
            self.sum = self.sum.wrapping_add(row.number());
            count += 1;
        }
        self.rows += count;
    }

    /// Adds a row to a digest, as the text that it is written as.
    pub fn row_of_text(&mut self, text: &[u8]) {
        let hash = Sha256::digest(text);
        let hash = u64::from_be_bytes(hash[..8].try_into().expect("a hash has 32 bytes"));
        match self.folding {
            Folding::Digest { key: Some(fields) } => {
                let commas = text.iter().enumerate().filter(|(_, byte)| **byte == b',');
                let end = commas.map(|(at, _)| at).nth(fields - 1).unwrap_or(text.len());
                match self.newest.get_mut(&text[..end]) {
                    Some(newest) => *newest = hash,
                    None => _ = self.newest.insert(text[..end].into(), hash),
                }
            }
            _ => {
                self.rows += 1;
                self.sum = self.sum.wrapping_add(hash);
            }
        }
    }

    /// Adds what a later part holds.
    pub fn merge(&mut self, later: Answer) {
        self.rows += later.rows;
        self.sum = self.sum.wrapping_add(later.sum);
        self.newest.extend(later.newest);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.newest.is_empty()
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.rows + self.newest.len() as u64
    }

    /// What was folded over them.
    pub fn digest(&self) -> u64 {
        self.newest.values().fold(self.sum, |sum, hash| sum.wrapping_add(*hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(key: Option<usize>, rows: &[(u64, u64, u64)]) -> (u64, u64) {
        let mut answer = Answer::new(Folding::Digest { key });
        rows.iter().for_each(|row| answer.row(row));
        (answer.rows(), answer.digest())
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_their_number_does() {
        let all = answer(None, &[(1, 2, 3), (4, 5, 6), (4, 5, 6)]);
        assert_eq!(all, answer(None, &[(4, 5, 6), (1, 2, 3), (4, 5, 6)]));
        assert_ne!(all, answer(None, &[(4, 5, 6), (1, 2, 3)]));
    }

    #[test]
    fn the_newest_row_of_a_key_counts() {
        let updated = answer(Some(2), &[(1, 1, 1), (1, 2, 1), (1, 1, 9)]);
        assert_eq!(updated, answer(None, &[(1, 2, 1), (1, 1, 9)]));
        let mut merged = Answer::new(Folding::Digest { key: Some(1) });
        for value in [5, 6] {
            let mut part = Answer::new(Folding::Digest { key: Some(1) });
            part.row(&(1_u64, value));
            merged.merge(part);
        }
        let mut only = Answer::new(Folding::Digest { key: None });
        only.row_of_text(b"1,6");
        assert_eq!((merged.rows(), merged.digest()), (only.rows(), only.digest()));
    }
}
