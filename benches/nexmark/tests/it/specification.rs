//! What SPEC.md, CHECKSUMS and ANSWERS say of the generator and the floor.

use nexmark::answer::{Answer, Folding};
use nexmark::event::{Event, Full, Lean};
use nexmark::floor::{self, Input};
use nexmark::generator::Generator;
use nexmark::queries::Query;
use sha2::{Digest, Sha256};

/// Rows and digest of each query at a million events.
pub(crate) fn answers() -> Vec<(Query, u64, u64)> {
    let line = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let rows = words[1].strip_prefix("rows=").unwrap().parse().unwrap();
        let digest = u64::from_str_radix(words[2].strip_prefix("digest=").unwrap(), 16).unwrap();
        (words[0].parse().unwrap(), rows, digest)
    };
    include_str!("../../ANSWERS").lines().map(line).collect()
}

pub(crate) fn floor_answer<E: Event>(query: Query, events: u64) -> (u64, u64) {
    let mut answer = Answer::new(Folding::Digest { key: None });
    floor::run::<E>(query, Input { generator: Generator::default(), events }, &mut answer);
    (answer.rows(), answer.digest())
}

#[test]
fn the_events_are_those_of_the_specification_to_the_last_byte() {
    let generator = Generator::default();
    let (mut hash, mut text, mut n) = (Sha256::new(), Vec::new(), 0);
    for line in include_str!("../../CHECKSUMS").lines() {
        let (expected, events) = line.split_once("  ").unwrap();
        while n < events.parse().unwrap() {
            generator.event::<Full>(n).write_text(&mut text);
            hash.update(&text);
            text.clear();
            n += 1;
        }
        let found: String = hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected, "the first {events} events");
    }
    assert_eq!(n, 1_000_000);
}

#[test]
fn lean_events_are_full_ones_without_strings() {
    let generator = Generator { seed: 7, events_per_ms: 3, jitter_ms: 500 };
    for n in 0..10_000 {
        let (full, lean) = (generator.event::<Full>(n), generator.event::<Lean>(n));
        assert_eq!((full.person(), full.auction(), full.bid()), (lean.person(), lean.auction(), lean.bid()));
        assert_eq!(full.date_time(), lean.date_time());
    }
}

#[test]
fn there_is_an_answer_for_each_query() {
    assert_eq!(answers().into_iter().map(|(query, ..)| query).collect::<Vec<_>>(), Query::ALL);
}

#[test]
fn the_floor_gives_the_answers_of_the_specification() {
    for (query, rows, digest) in answers() {
        assert_eq!(floor_answer::<Lean>(query, 1_000_000), (rows, digest), "{query}");
    }
}

#[test]
fn the_floor_gives_the_same_answers_for_full_events() {
    for query in Query::ALL {
        assert_eq!(floor_answer::<Full>(query, 50_000), floor_answer::<Lean>(query, 50_000), "{query}");
    }
}
