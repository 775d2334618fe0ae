//! The floor: each query as one loop by hand, on one thread, with nothing kept, nothing durable and no engine.
//!
//! It is what a good engineer would write who needs only this answer, once: fast hash maps, event time by a watermark that closes windows and frees
//! state, and events made into a small buffer that the query then reads, as a source would. An engine's throughput is told beside it.

mod joins;
mod rows;
mod updates;
mod windows;
mod winning;

use crate::answer::Answer;
use crate::event::Event;
use crate::generator::Generator;
use crate::queries::Query;
use hashbrown::{HashMap, HashSet};
use rivermark::Timestamp;
use rustc_hash::FxBuildHasher;

type Map<K, V> = HashMap<K, V, FxBuildHasher>;
type Set<K> = HashSet<K, FxBuildHasher>;

/// Events in the buffer: few enough for the first-level cache, or nearly.
const BUFFER: usize = 256;

/// What a loop reads.
#[derive(Copy, Clone, Debug)]
pub struct Input {
    /// How events are made.
    pub generator: Generator,
    /// How many there are.
    pub events: u64,
}

impl Input {
    #[inline]
    fn each<E: Event>(&self, mut f: impl FnMut(&E)) {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut n = 0;
        while n < self.events {
            let to = self.events.min(n + BUFFER as u64);
            buffer.extend((n..to).map(|n| self.generator.event::<E>(n)));
            buffer.iter().for_each(&mut f);
            buffer.clear();
            n = to;
        }
    }

    /// A watermark that has seen nothing.
    fn watermark(&self) -> Watermark {
        Watermark { now: 0, bound: self.generator.jitter_ms }
    }
}

/// The greatest event time so far, less how far events are out of order.
struct Watermark {
    now: u64,
    bound: u64,
}

impl Watermark {
    #[inline]
    fn see(&mut self, time: Timestamp) -> u64 {
        self.now = self.now.max(millis(time) - self.bound);
        self.now
    }
}

#[inline]
fn millis(time: Timestamp) -> u64 {
    time.millis() as u64
}

fn timestamp(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis as i64)
}

/// Folds the answer of `query`.
pub fn run<E: Event>(query: Query, input: Input, answer: &mut Answer) {
    match query {
        Query::Q0 => rows::q0::<E>(input, answer),
        Query::Q1 => rows::q1::<E>(input, answer),
        Query::Q2 => rows::q2::<E>(input, answer),
        Query::Q3 => joins::q3::<E>(input, answer),
        Query::Q4 => winning::q4::<E>(input, answer),
        Query::Q5 => windows::q5::<E>(input, answer),
        Query::Q7 => windows::q7::<E>(input, answer),
        Query::Q8 => windows::q8::<E>(input, answer),
        Query::Q9 => winning::q9::<E>(input, answer),
        Query::Q11 => windows::q11::<E>(input, answer),
        Query::Q12 => windows::q12::<E>(input, answer),
        Query::Q15 => windows::q15::<E>(input, answer),
        Query::Q17 => updates::q17::<E>(input, answer),
        Query::Q18 => updates::q18::<E>(input, answer),
        Query::Q19 => updates::q19::<E>(input, answer),
        Query::Q20 => joins::q20::<E>(input, answer),
    }
}
