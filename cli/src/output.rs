//! What commands print: aligned tables for people, JSON for programs.

use crate::exit::{Exit, Failure, Result};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Rows that are measured before the first is printed.
const MEASURED: usize = 1000;
/// Letters of a cell that a table on a terminal shows.
const WIDEST: usize = 100;

/// Standard output, and how it is wanted.
pub(crate) struct Output {
    is_json: bool,
    is_terminal: bool,
    out: io::BufWriter<io::Stdout>,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Output {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        Output { is_json, is_terminal, out: io::BufWriter::new(stdout) }
    }

    /// Whether programs read it.
    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether emphasis may be printed.
    fn has_styles(&self) -> bool {
        self.is_terminal && !self.is_json && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// One JSON document, over lines.
    pub(crate) fn document(&mut self, document: &impl Serialize) -> Result<()> {
        serde_json::to_writer_pretty(&mut self.out, document).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }

    /// One JSON document on a line of its own.
    pub(crate) fn json_line(&mut self, document: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.out, document).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }

    /// A line for people.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<()> {
        Ok(writeln!(self.out, "{}", line.as_ref())?)
    }

    /// Text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Shows what was printed.
    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    /// A table that is known as a whole.
    pub(crate) fn table(&mut self, table: Table) -> Result<()> {
        table.finish(self)
    }
}

/// A table for people. Columns are as wide as their first thousand rows need; numbers are on the right.
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    widths: Option<Vec<(usize, bool)>>,
}

impl Table {
    pub(crate) fn new(header: impl IntoIterator<Item = &'static str>) -> Table {
        Table { header: header.into_iter().collect(), rows: Vec::new(), widths: None }
    }

    /// Adds a row of a table that is not long.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a row, and prints what is enough.
    pub(crate) fn stream(&mut self, cells: Vec<String>, output: &mut Output) -> Result<()> {
        self.rows.push(cells);
        if self.rows.len() >= MEASURED { self.print(output) } else { Ok(()) }
    }

    /// Prints what is left.
    pub(crate) fn finish(mut self, output: &mut Output) -> Result<()> {
        if self.widths.is_none() || !self.rows.is_empty() {
            self.print(output)?;
        }
        output.flush()
    }

    fn print(&mut self, output: &mut Output) -> Result<()> {
        let limit = if output.is_terminal { WIDEST } else { usize::MAX };
        let widths = match &self.widths {
            Some(widths) => widths.clone(),
            None => {
                let widths: Vec<_> =
                    (0..self.header.len()).map(|column| self.measure(column, limit)).collect();
                let header: Vec<String> = self.header.iter().map(|name| (*name).to_owned()).collect();
                let line = aligned(&header, &widths, limit);
                output.line(if output.has_styles() { format!("\x1b[1m{line}\x1b[0m") } else { line })?;
                self.widths = Some(widths.clone());
                widths
            }
        };
        self.rows.drain(..).try_for_each(|row| output.line(aligned(&row, &widths, limit)))
    }

    /// How wide a column is, and whether it has numbers.
    fn measure(&self, column: usize, limit: usize) -> (usize, bool) {
        let cells = || self.rows.iter().filter_map(|row| row.get(column));
        let header = self.header[column].chars().count();
        let width = cells().map(|cell| cell.chars().count().min(limit)).max().unwrap_or(0).max(header);
        let is_number =
            |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-') || cell.is_empty();
        let units =
            |cell: &String| cell.chars().filter(|c| c.is_alphabetic()).count() <= 3 && !cell.contains(':');
        (width, !self.rows.is_empty() && cells().all(|cell| is_number(cell) && units(cell)))
    }
}

fn aligned(cells: &[String], widths: &[(usize, bool)], limit: usize) -> String {
    let mut line = String::new();
    for (at, (cell, (width, is_number))) in cells.iter().zip(widths).enumerate() {
        let cell = shortened(cell, limit);
        let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
        let between = if at > 0 { "  " } else { "" };
        match is_number {
            true => line.extend([between, &gap, &cell]),
            false => line.extend([between, &cell, &gap]),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

fn shortened(cell: &str, limit: usize) -> String {
    match cell.char_indices().nth(limit) {
        Some((at, _)) => format!("{}…", &cell[..at]),
        None => cell.to_owned(),
    }
}

/// Bytes in the largest unit that leaves a number above one.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A number, or a dash where there is none.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A JSON value as a cell of a table: text as it is, the rest as JSON; bytes of a type that is not known as escaped text.
pub(crate) fn cell(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) if text.chars().all(|c| !c.is_control()) => text.clone(),
        Value::Object(fields)
            if fields.len() == 3 && fields.contains_key("hex") && fields.contains_key("text") =>
        {
            let field = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{}(b\"{}\")", field("type"), field("text"))
        }
        other => other.to_string(),
    }
}

/// Bytes as text where they are, and escaped where they are not.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control()) => text.to_owned(),
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// The hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether somebody looks on: on a terminal, unless programs read what is printed.
pub(crate) fn shows_progress(is_json: bool) -> bool {
    !is_json && io::stderr().is_terminal()
}

/// A progress bar over so many bytes, if somebody looks on.
pub(crate) fn progress_bar(bytes: u64, is_json: bool) -> indicatif::ProgressBar {
    if !shows_progress(is_json) {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template(
        "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta}",
    );
    let bar = indicatif::ProgressBar::new(bytes);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

/// Asks a question whose answer is yes or no.
///
/// # Errors
/// Nobody is there to answer.
pub(crate) fn ask(question: &str, yes: &str) -> Result<bool> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            format!("asking `{question}`: nobody is there to answer; say {yes}"),
        ));
    }
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ")
        .and_then(|()| stderr.flush())
        .map_err(|e| Failure::of("asking", e))?;
    let mut answer = String::new();
    stdin.read_line(&mut answer).map_err(|e| Failure::of("reading the answer", e))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_told_in_the_unit_that_suits_them() {
        assert_eq!(
            [0, 1023, 1024, 1536, 5 << 30].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]
        );
    }

    #[test]
    fn numbers_stand_on_the_right_and_text_on_the_left() {
        let mut table = Table::new(["name", "count"]);
        table.row(["a".into(), "7".into()]);
        table.row(["longer".into(), "1234567".into()]);
        let widths: Vec<_> = (0..2).map(|column| table.measure(column, 100)).collect();
        assert_eq!(widths, [(6, false), (7, true)]);
        assert_eq!(aligned(&table.rows[0], &widths, 100), "a             7");
        let times = Table { rows: vec![vec!["2013-01-01T00:00:00Z".into()]], ..Table::new(["time"]) };
        assert_eq!(times.measure(0, 100), (20, false));
    }

    #[test]
    fn a_long_cell_is_cut_where_letters_end() {
        assert_eq!(shortened("äöü", 2), "äö…");
    }

    #[test]
    fn text_is_shown_as_it_is_unless_it_would_disturb_the_terminal() {
        assert_eq!(escaped("ä b".as_bytes()), "ä b");
        assert_eq!(escaped(b"a\x1b[1m"), "a\\u{1b}[1m");
        assert_eq!(escaped(&[0xff, b'a']), "\\xffa");
        assert_eq!(cell(&json!("JFK")), "JFK");
        assert_eq!(cell(&json!({"type": "Order", "hex": "00", "text": "\\x00"})), "Order(b\"\\x00\")");
        assert_eq!(cell(&json!([1, null])), "[1,null]");
    }
}
