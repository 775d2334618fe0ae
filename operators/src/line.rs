//! Lines: how far a source may be read for now.
//!
//! A version of a flow that follows another one must not run ahead of it: each partition has a *line*, a position that the leader has come to,
//! and is read exactly up to it. The line moves on as the leader does. So the follower can be brought to the very offsets at which the leader
//! stands, also when that one is gone.
//!
//! 1. A source without lines is read as far as it goes; it pays one load of an atomic a batch.
//! 2. With lines, a partition that has none is not read at all: the leader does not know it yet.
//! 3. What a reader gave from behind the line is put back: the reader is opened again at the line's position, which is the leader's own.
//!
//! Lines change when records are read, and never what comes of them, as a rate limit does.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How far a partition may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where to read on from there, in the source's own encoding.
    pub position: Vec<u8>,
    /// The offset behind the last record before it; `None` where there is none.
    pub offset: Option<u64>,
}

/// The lines of a source's partitions, by number; shared by the workers that read it and by whoever moves them.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    are_set: AtomicBool,
    of: Mutex<HashMap<u32, Arc<Line>>>,
}

/// Whether a partition has a line.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// It may be read as far as it goes.
    Unbounded,
    /// Up to there.
    Until(Arc<Line>),
    /// Not at all.
    Nothing,
}

impl Lines {
    pub(crate) fn set(&self, lines: Option<HashMap<u32, Line>>) {
        let mut of = self.of.lock();
        self.are_set.store(lines.is_some(), Ordering::SeqCst);
        *of = lines.unwrap_or_default().into_iter().map(|(number, line)| (number, Arc::new(line))).collect();
    }

    #[inline]
    pub(crate) fn reach(&self, number: u32) -> Reach {
        if !self.are_set.load(Ordering::SeqCst) {
            return Reach::Unbounded;
        }
        let of = self.of.lock();
        // They may have been taken away meanwhile.
        match (of.get(&number), self.are_set.load(Ordering::SeqCst)) {
            (_, false) => Reach::Unbounded,
            (Some(line), true) => Reach::Until(Arc::clone(line)),
            (None, true) => Reach::Nothing,
        }
    }
}
