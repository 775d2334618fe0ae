//! Joins on one worker, beside loops over hash maps that take the same records in the order of their times and give the same rows.
//!
//! Even numbers are the left stream, odd ones the right. Ten records come at each moment, each of one of a thousand keys, and a key has one a
//! minute. Where a join sees a moment as a whole, so does the loop.
#![allow(missing_docs, reason = "a bench")]

#[path = "common/beside.rs"]
mod beside;

use beside::{Digest, KEYS, MINUTE, compare, key, moments};
use criterion::{Criterion, criterion_group, criterion_main};
use hashbrown::{HashMap, HashSet};
use rivermark::join::{BroadcastContext, BroadcastFunction};
use rivermark::{BoxError, Change, Interval, KeyedStream, Stream, Windows, minutes};
use std::collections::VecDeque;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of so many records one is a rule that is broadcast.
const RULE_EVERY: u64 = 1000;
/// How many rules there are.
const RULES: u64 = 16;

fn sides(numbers: Stream<u64>) -> (KeyedStream<u64, u64>, KeyedStream<u64, u64>) {
    let left = numbers.clone().filter(|n| n % 2 == 0).key_by(key);
    (left, numbers.filter(|n| n % 2 == 1).key_by(key))
}

/// A change as a number.
fn told((key, change): (u64, Change<u64>)) -> u64 {
    let (before, after) = change.into_rows();
    key ^ (before.unwrap_or(0) << 1) ^ (after.unwrap_or(0) << 3)
}

fn intervals_by_hand() -> Digest {
    let mut digest = Digest::default();
    let mut kept: HashMap<u64, [VecDeque<(i64, u64)>; 2]> = HashMap::new();
    for (time, numbers) in moments() {
        for n in numbers {
            let sides = kept.entry(key(&n)).or_default();
            let (own, other) = ((n % 2) as usize, (n + 1) as usize % 2);
            for side in sides.iter_mut() {
                while side.front().is_some_and(|(before, _)| *before < time - MINUTE) {
                    side.pop_front();
                }
            }
            sides[other].iter().for_each(|(_, m)| digest.add(n + m));
            sides[own].push_back((time, n));
        }
    }
    digest
}

fn windows_by_hand() -> Digest {
    fn fire(open: &mut HashMap<u64, [Vec<u64>; 2]>, digest: &mut Digest) {
        for (_, [left, right]) in open.drain() {
            for a in &left {
                right.iter().for_each(|b| digest.add(a + b));
            }
        }
    }
    let mut digest = Digest::default();
    let mut open: HashMap<u64, [Vec<u64>; 2]> = HashMap::new();
    let mut end = 2 * MINUTE;
    for (time, numbers) in moments() {
        if time >= end {
            fire(&mut open, &mut digest);
            end += 2 * MINUTE;
        }
        for n in numbers {
            open.entry(key(&n)).or_default()[(n % 2) as usize].push(n);
        }
    }
    fire(&mut open, &mut digest);
    digest
}

/// For the as-of join, where what is older than `valid` does not count, and the join of a stream with a table.
fn newest_by_hand(valid: i64) -> Digest {
    let mut digest = Digest::default();
    let mut newest: HashMap<u64, (i64, u64)> = HashMap::new();
    for (time, numbers) in moments() {
        for n in numbers.clone().filter(|n| n % 2 == 1) {
            newest.insert(key(&n), (time, n));
        }
        for n in numbers.filter(|n| n % 2 == 0) {
            if let Some((since, m)) = newest.get(&key(&n))
                && time - since <= valid
            {
                digest.add(n + m);
            }
        }
    }
    digest
}

fn tables_by_hand() -> Digest {
    let joined = |row: &[Option<u64>; 2]| Some(row[0]? + row[1]?);
    let mut digest = Digest::default();
    let mut rows: HashMap<u64, [Option<u64>; 2]> = HashMap::new();
    let mut before: HashMap<u64, Option<u64>> = HashMap::new();
    for (_, numbers) in moments() {
        for n in numbers {
            let row = rows.entry(key(&n)).or_default();
            before.entry(key(&n)).or_insert_with(|| joined(row));
            row[(n % 2) as usize] = Some(n);
        }
        for (key, before) in before.drain() {
            if let Some(change) = Change::between(before, joined(&rows[&key])) {
                digest.add(told((key, change)));
            }
        }
    }
    digest
}

/// The right row that a left one refers to.
fn refers_to(n: u64) -> u64 {
    n / 2 % KEYS
}

fn foreign_keys_by_hand() -> Digest {
    let mut digest = Digest::default();
    let (mut left, mut right) = (HashMap::<u64, u64>::new(), HashMap::<u64, u64>::new());
    let mut referring: HashMap<u64, HashSet<u64>> = HashMap::new();
    let mut before: HashMap<u64, Option<u64>> = HashMap::new();
    for (_, numbers) in moments() {
        for n in numbers {
            let joined = |key: &u64, left: &HashMap<u64, u64>, right: &HashMap<u64, u64>| {
                let row = left.get(key)?;
                Some(row + right.get(&refers_to(*row))?)
            };
            let key = key(&n);
            if n % 2 == 1 {
                for concerned in referring.get(&key).into_iter().flatten() {
                    before.entry(*concerned).or_insert_with(|| joined(concerned, &left, &right));
                }
                right.insert(key, n);
            } else {
                before.entry(key).or_insert_with(|| joined(&key, &left, &right));
                if let Some(old) = left.insert(key, n) {
                    referring.entry(refers_to(old)).or_default().remove(&key);
                }
                referring.entry(refers_to(n)).or_default().insert(key);
            }
        }
        for (key, before) in before.drain() {
            let row = left[&key];
            let after = right.get(&refers_to(row)).map(|m| row + m);
            if let Some(change) = Change::between(before, after) {
                digest.add(told((key, change)));
            }
        }
    }
    digest
}

fn is_rule(n: u64) -> bool {
    n % RULE_EVERY == 1
}

fn rule(n: u64) -> u64 {
    n / RULE_EVERY % RULES
}

fn rules_by_hand() -> Digest {
    let mut digest = Digest::default();
    let mut rules: HashMap<u64, u64> = HashMap::new();
    for (_, numbers) in moments() {
        for n in numbers.clone().filter(|n| is_rule(*n)) {
            rules.insert(rule(n), n);
        }
        for n in numbers.filter(|n| n % 2 == 0) {
            if let Some(rule) = rules.get(&(key(&n) % RULES)) {
                digest.add(n + rule);
            }
        }
    }
    digest
}

/// Adds the rule for its key to each record.
#[derive(Clone)]
struct ByRule;

impl BroadcastFunction<u64, u64, u64, u64> for ByRule {
    type Out = u64;

    fn on_record(
        &mut self,
        key: &u64,
        n: u64,
        cx: &mut BroadcastContext<'_, '_, u64, u64, u64, u64>,
    ) -> Result<(), BoxError> {
        if let Some(rule) = cx.broadcast(&(key % RULES))? {
            cx.emit(n + rule);
        }
        Ok(())
    }
}

fn joins(c: &mut Criterion) {
    compare(c, "interval", intervals_by_hand, |numbers| {
        let (left, right) = sides(numbers);
        left.interval_join(right, Interval::around(minutes(1), minutes(1))).inner(|_, a, b| a + b)
    });
    compare(c, "window", windows_by_hand, |numbers| {
        let (left, right) = sides(numbers);
        left.window_join(right, Windows::tumbling(minutes(2))).inner(|_, _, a, b| a + b)
    });
    compare(
        c,
        "as_of",
        || newest_by_hand(10 * MINUTE),
        |numbers| {
            let (left, right) = sides(numbers);
            left.as_of_join(right, minutes(10)).inner(|_, a, b| a + b)
        },
    );
    compare(
        c,
        "stream_table",
        || newest_by_hand(i64::MAX),
        |numbers| {
            let (left, right) = sides(numbers);
            left.join_table(right.to_table()).inner(|_, a, b| a + b)
        },
    );
    compare(c, "tables", tables_by_hand, |numbers| {
        let (left, right) = sides(numbers);
        left.to_table().join(right.to_table()).inner(|_, a, b| a + b).changes().map(told)
    });
    compare(c, "foreign_key", foreign_keys_by_hand, |numbers| {
        let (left, right) = sides(numbers);
        let joined = left.to_table().join_on(right.to_table(), |_, n| refers_to(*n));
        joined.inner(|_, a, b| a + b).changes().map(told)
    });
    compare(c, "broadcast", rules_by_hand, |numbers| {
        let rules = numbers.clone().filter(|n| is_rule(*n)).key_by(|n| rule(*n)).to_table();
        numbers.filter(|n| n % 2 == 0).key_by(key).process_with_broadcast(rules, ByRule)
    });
}

criterion_group!(benches, joins);
criterion_main!(benches);
