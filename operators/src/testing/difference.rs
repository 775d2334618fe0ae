//! What is wrong with a list of rows, so that a person sees it at a glance.

use std::fmt::{Debug, Write};

/// Equal rows shown before and after a difference; what lies between is only counted.
const CONTEXT: usize = 2;
/// Above this product of lengths no alignment is looked for: rows are compared place by place.
const MOST_CELLS: usize = 4_000_000;

#[derive(Copy, Clone, PartialEq, Debug)]
enum Line {
    /// In both, by index into what was expected.
    Both(usize),
    /// Expected only.
    Missing(usize),
    /// Got only.
    Unexpected(usize),
}

/// The difference, a row a line: ` ` in both, `-` expected and missing, `+` got and not expected. `None` if there is none.
pub(super) fn difference<T: PartialEq + Debug>(expected: &[T], got: &[T]) -> Option<String> {
    if expected == got {
        return None;
    }
    let lines = align(expected, got);
    let is_near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        lines[from..lines.len().min(at + CONTEXT + 1)].iter().any(|line| !matches!(line, Line::Both(_)))
    };
    let mut text = format!("expected {} rows (-), got {} (+):\n", expected.len(), got.len());
    let mut equal = 0;
    let skip = |equal: &mut usize, text: &mut String| {
        if *equal > 0 {
            let _ = writeln!(text, "    .. {equal} equal");
        }
        *equal = 0;
    };
    for (at, line) in lines.iter().enumerate() {
        if !is_near(at) {
            equal += 1;
            continue;
        }
        skip(&mut equal, &mut text);
        // Writing to a string cannot fail.
        let _ = match *line {
            Line::Both(row) => writeln!(text, "    {:?}", expected[row]),
            Line::Missing(row) => writeln!(text, "  - {:?}", expected[row]),
            Line::Unexpected(row) => writeln!(text, "  + {:?}", got[row]),
        };
    }
    skip(&mut equal, &mut text);
    Some(text)
}

/// Pairs equal rows by a longest common subsequence.
fn align<T: PartialEq>(expected: &[T], got: &[T]) -> Vec<Line> {
    let (rows, columns) = (expected.len(), got.len());
    if rows.saturating_mul(columns) > MOST_CELLS {
        return by_place(expected, got);
    }
    // lengths[i][j]: of the longest common subsequence of expected[i..] and got[j..].
    let mut lengths = vec![vec![0_u32; columns + 1]; rows + 1];
    for i in (0..rows).rev() {
        for j in (0..columns).rev() {
            lengths[i][j] = match expected[i] == got[j] {
                true => lengths[i + 1][j + 1] + 1,
                false => lengths[i + 1][j].max(lengths[i][j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::with_capacity(rows.max(columns));
    while i < rows || j < columns {
        if i < rows && j < columns && expected[i] == got[j] {
            lines.push(Line::Both(i));
            (i, j) = (i + 1, j + 1);
        } else if j == columns || (i < rows && lengths[i + 1][j] >= lengths[i][j + 1]) {
            lines.push(Line::Missing(i));
            i += 1;
        } else {
            lines.push(Line::Unexpected(j));
            j += 1;
        }
    }
    lines
}

fn by_place<T: PartialEq>(expected: &[T], got: &[T]) -> Vec<Line> {
    let mut lines = Vec::new();
    for at in 0..expected.len().max(got.len()) {
        match (expected.get(at), got.get(at)) {
            (Some(left), Some(right)) if left == right => lines.push(Line::Both(at)),
            (left, right) => {
                lines.extend(left.map(|_| Line::Missing(at)));
                lines.extend(right.map(|_| Line::Unexpected(at)));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_is_missing_what_is_too_much_and_little_else() {
        let expected: Vec<u32> = (0..20).collect();
        let mut got = expected.clone();
        got.remove(10);
        got.push(99);
        let text = difference(&expected, &got).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "expected 20 rows (-), got 20 (+):",
                ".. 8 equal",
                "8",
                "9",
                "- 10",
                "11",
                "12",
                ".. 5 equal",
                "18",
                "19",
                "+ 99"
            ]
        );
        assert_eq!(difference(&expected, &expected), None);
    }

    #[test]
    fn long_lists_are_compared_place_by_place() {
        let expected: Vec<u32> = (0..3000).collect();
        let mut got = expected.clone();
        got[1500] = 7;
        let text = difference(&expected, &got).unwrap();
        assert!(text.contains("  - 1500\n  + 7\n"), "{text}");
    }
}
