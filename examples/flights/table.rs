//! Headings, tables and numbers for people.
#![expect(clippy::print_stdout, reason = "this is where the demo prints")]

use std::time::Duration;

/// Begins a section of the output.
pub fn heading(title: &str) {
    println!("\n━━ {title} {}", "━".repeat(90_usize.saturating_sub(title.chars().count())));
}

/// Prints a line.
pub fn say(line: impl AsRef<str>) {
    println!("  {}", line.as_ref());
}

/// Prints facts, one a line, names in a column of their own.
pub fn facts(facts: &[(&str, String)]) {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in facts {
        println!("  {name:<width$}  {value}");
    }
}

/// Prints rows below a header; numbers are flush right, which a column's first row decides.
pub fn table(header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let is_number = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
    let right: Vec<bool> = (0..header.len())
        .map(|column| rows.first().is_some_and(|row| is_number(&row[column]) && !row[column].contains(':')))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, width), right) in cells.zip(&widths).zip(&right) {
            let padding = " ".repeat(width - cell.chars().count());
            let (before, after) = if *right { (&*padding, "") } else { ("", &*padding) };
            line += &format!("  {before}{cell}{after}");
        }
        println!("{}", line.trim_end());
    };
    line(&mut header.iter().copied());
    println!("  {}", widths.iter().map(|width| "─".repeat(*width)).collect::<Vec<_>>().join("──"));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// A number in groups of three digits.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of bytes, in the unit that suits it.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        _ => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// A time in milliseconds.
pub fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
