//! What somebody may have meant.

use crate::exit::Failure;

/// How many edits a name may be away from what was meant.
fn most(name: &str) -> usize {
    (name.chars().count() / 3).max(1)
}

/// Letters inserted, left out, replaced, or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// The names nearest to one that is not there, if any is near.
pub(crate) fn nearest<'a>(name: &str, names: &'a [String]) -> Vec<&'a str> {
    let lower = name.to_lowercase();
    let near = |known: &'a String| {
        let other = known.to_lowercase();
        let distance =
            if other.starts_with(&lower) && !lower.is_empty() { 0 } else { distance(&lower, &other) };
        (distance <= most(name)).then_some((distance, known.as_str()))
    };
    let mut found: Vec<_> = names.iter().filter_map(near).collect();
    found.sort();
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

/// The error of a name that is not there: what was attempted, what kind of thing it is, and those that there are.
pub(crate) fn unknown(attempt: &str, kind: &str, name: &str, names: &[String]) -> Failure {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let near = nearest(name, names);
    let advice = if !near.is_empty() {
        format!("; did you mean {}?", quoted(&near))
    } else if names.is_empty() {
        format!("; there is no {kind} at all")
    } else {
        let shown: Vec<&str> = names.iter().take(10).map(String::as_str).collect();
        let more = if names.len() > 10 { format!(" and {} more", names.len() - 10) } else { String::new() };
        format!("; there are {}{more}", quoted(&shown))
    };
    Failure::missing(format!("{attempt}: there is no {kind} `{name}`{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_within_a_few_letters_are_found_the_nearest_first() {
        let names = ["departures", "departed", "weather", "planes"].map(str::to_owned);
        assert_eq!(nearest("deprtures", &names), ["departures"]);
        assert_eq!(nearest("wether", &names), ["weather"]);
        assert_eq!(nearest("depart", &names), ["departed", "departures"]);
        assert_eq!(nearest("airlines", &names), Vec::<&str>::new());
    }

    #[test]
    fn swapped_letters_are_one_edit() {
        assert_eq!((distance("abcd", "abdc"), distance("abc", "abc"), distance("", "ab")), (1, 0, 2));
    }
}
