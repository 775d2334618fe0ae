//! What the benchmark programs share.

pub mod keeping;
pub mod measure;
pub mod synthetic;

/// The value after `name` on the command line.
pub fn arguments(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next()?;
    arguments.next()
}

/// The median; the upper one of an even number.
///
/// # Panics
/// Of nothing.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
