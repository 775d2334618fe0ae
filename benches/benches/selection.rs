//! Operators that choose among records, on one worker: `deduplicate`, `top_n`, patterns; beside loops over hash maps that give the same rows.
//!
//! Ten records come at each moment, each of one of a thousand keys, and a key has one a minute.
#![allow(missing_docs, reason = "a bench")]

#[path = "common/beside.rs"]
mod beside;

use beside::{Digest, MINUTE, compare, key, moments};
use criterion::{Criterion, criterion_group, criterion_main};
use hashbrown::HashMap;
use rivermark::{Change, Keep, Pattern, Windows, minutes};
use rivermark_benches::synthetic::key_of;
use std::cmp::Reverse;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Length of windows, in minutes.
const WINDOW: u64 = 10;
/// How many rows a top has.
const TOP: usize = 3;
/// How many groups the rows of a table are in.
const GROUPS: u64 = 50;

/// What records are ranked by, and a pattern looks at: 0 to 99, with the number itself where two are the same.
fn score(n: &u64) -> (u64, u64) {
    (key_of(n ^ 0xabcd_ef01, 100), *n)
}

fn is_low(n: u64) -> bool {
    score(&n).0 < 30
}

fn is_high(n: u64) -> bool {
    score(&n).0 >= 70
}

/// A list of numbers as one, in which the order counts.
fn folded(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |all: u64, n| all.wrapping_mul(31).wrapping_add(*n))
}

/// A change of such a list.
fn told(change: Change<Vec<u64>>) -> u64 {
    let (before, after) = change.into_rows();
    folded(&before.unwrap_or_default()).wrapping_add(folded(&after.unwrap_or_default()).wrapping_mul(7))
}

/// Puts a number into a short list, the greatest score first.
fn insert(top: &mut Vec<u64>, n: u64, most: usize) {
    let at = top.partition_point(|other| score(other) > score(&n));
    if at < most {
        top.truncate(most - 1);
        top.insert(at, n);
    }
}

fn duplicates_by_hand() -> Digest {
    let mut digest = Digest::default();
    let mut open: HashMap<u64, i64> = HashMap::new();
    for (time, numbers) in moments() {
        for n in numbers {
            let end = open.entry(key(&n)).or_insert(i64::MIN);
            if time > *end {
                *end = time + 2 * MINUTE;
                digest.add(n);
            }
        }
    }
    digest
}

/// Runs `add` on what is open for each record, and `fire` at the end of each window.
fn in_windows<S: Default>(mut add: impl FnMut(&mut S, u64), mut fire: impl FnMut(S)) {
    let size = WINDOW as i64 * MINUTE;
    let (mut open, mut end) = (S::default(), size);
    for (time, numbers) in moments() {
        if time >= end {
            fire(std::mem::take(&mut open));
            end += size;
        }
        numbers.for_each(|n| add(&mut open, n));
    }
    fire(open);
}

fn top_of_windows_by_hand() -> Digest {
    let mut digest = Digest::default();
    in_windows(
        |tops: &mut HashMap<u64, Vec<u64>>, n| insert(tops.entry(key(&n)).or_default(), n, TOP),
        |tops| tops.values().for_each(|top| digest.add(folded(top))),
    );
    digest
}

fn top_of_keys_by_hand() -> Digest {
    let mut digest = Digest::default();
    in_windows(
        |counts: &mut HashMap<u64, u64>, n| *counts.entry(key(&n)).or_default() += 1,
        |counts| {
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_unstable_by_key(|(key, count)| Reverse((*count, *key)));
            digest.add(folded(&counts.iter().take(TOP).map(|(key, _)| *key).collect::<Vec<_>>()));
        },
    );
    digest
}

fn top_of_groups_by_hand() -> Digest {
    let mut digest = Digest::default();
    let mut rows: HashMap<u64, u64> = HashMap::new();
    let mut groups: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut before: HashMap<u64, Vec<u64>> = HashMap::new();
    let first = |group: &Vec<u64>| group.iter().take(TOP).copied().collect::<Vec<_>>();
    for (_, numbers) in moments() {
        for n in numbers {
            let group = groups.entry(key(&n) % GROUPS).or_default();
            before.entry(key(&n) % GROUPS).or_insert_with(|| first(group));
            if let Some(old) = rows.insert(key(&n), n) {
                let at = group.partition_point(|other| score(other) > score(&old));
                group.remove(at);
            }
            insert(group, n, usize::MAX);
        }
        for (group, before) in before.drain() {
            let after = first(&groups[&group]);
            if before != after {
                let before = Some(before).filter(|before| !before.is_empty());
                Change::between(before, Some(after)).into_iter().for_each(|change| digest.add(told(change)));
            }
        }
    }
    digest
}

fn patterns_by_hand() -> Digest {
    let mut digest = Digest::default();
    let mut last: HashMap<u64, [Option<(i64, u64)>; 2]> = HashMap::new();
    for (time, numbers) in moments() {
        for n in numbers {
            let last = last.entry(key(&n)).or_default();
            if let [Some((since, a)), Some((_, b))] = *last
                && is_low(a)
                && is_low(b)
                && is_high(n)
                && time - since < WINDOW as i64 * MINUTE
            {
                digest.add(a + b + n);
            }
            *last = [last[1], Some((time, n))];
        }
    }
    digest
}

fn selection(c: &mut Criterion) {
    compare(c, "deduplicate", duplicates_by_hand, |numbers| {
        numbers.key_by(key).deduplicate(Keep::First, minutes(2))
    });
    compare(c, "top_n_of_windows", top_of_windows_by_hand, |numbers| {
        let windows = numbers.key_by(key).window(Windows::tumbling(minutes(WINDOW)));
        windows.top_n(TOP, score).map(|row| folded(&row.value))
    });
    compare(c, "top_n_of_keys", top_of_keys_by_hand, |numbers| {
        let counts = numbers.key_by(key).window(Windows::tumbling(minutes(WINDOW))).count();
        let keys = |rows: Vec<(u64, u64)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        counts.top_n(TOP, |key, count| (*count, *key)).map(move |(_, rows)| folded(&keys(rows)))
    });
    compare(c, "top_n_of_groups", top_of_groups_by_hand, |numbers| {
        let groups = numbers.key_by(key).to_table().group_by(|key, _| key % GROUPS);
        groups.top_n(TOP, score).changes().map(|(_, change)| told(change))
    });
    compare(c, "pattern", patterns_by_hand, |numbers| {
        let pattern = Pattern::begin("low")
            .where_(|n: &u64| is_low(*n))
            .times(2)
            .consecutive()
            .next("high")
            .where_(|n| is_high(*n))
            .within(minutes(WINDOW));
        let matches = numbers.key_by(key).pattern(pattern);
        matches.select(|_, found| found.all().iter().map(|(_, _, n)| **n).sum())
    });
}

criterion_group!(benches, selection);
criterion_main!(benches);
