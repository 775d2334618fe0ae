//! What the benchmark programs share.

pub mod counting;
pub mod keeping;
pub mod measure;
pub mod synthetic;

/// The value after `name` on the command line.
pub fn arguments(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next()?;
    arguments.next()
}

/// The number after `name` on the command line, or `default`.
///
/// # Panics
/// If what is there is no number.
pub fn number(name: &str, default: u64) -> u64 {
    arguments(name).map_or(default, |value| value.parse().expect("a number"))
}

/// The median; the upper one of an even number.
///
/// # Panics
/// Of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
