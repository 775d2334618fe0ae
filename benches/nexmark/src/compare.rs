//! Every query beside its floor: each run is a process of its own, engine and floor in turns, and medians are compared.

use crate::queries::Query;
use crate::run::Report;
use plotters::prelude::*;
use rivermark::BoxError;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// A query's medians.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The query.
    pub query: Query,
    /// The floor's run that was in the middle.
    pub floor: Report,
    /// The engine's.
    pub engine: Report,
}

impl Comparison {
    /// Runs floor and engine `runs` times, in turns, as processes of this program: both with the first arguments, the engine with the second ones,
    /// too. A first run of the engine does not count.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn measure(
        query: Query,
        runs: usize,
        (input, engine): &(Vec<String>, Vec<String>),
        mut each: impl FnMut(&Report) -> Result<(), BoxError>,
    ) -> Result<Comparison, BoxError> {
        // One that does not count: a virtual machine may have to get the memory from its host first, at ten times the price of clearing it.
        child("run", query, input, engine)?;
        let (mut floors, mut engines) = (Vec::new(), Vec::new());
        for _ in 0..runs.max(1) {
            floors.push(child("floor", query, input, &[])?);
            engines.push(child("run", query, input, engine)?);
            floors.last().into_iter().chain(engines.last()).try_for_each(&mut each)?;
        }
        Ok(Comparison { query, floor: median(floors), engine: median(engines) })
    }

    /// How many times as fast as the floor the engine is.
    pub fn ratio(&self) -> f64 {
        self.engine.events_per_s / self.floor.events_per_s
    }
}

fn median(mut reports: Vec<Report>) -> Report {
    reports.sort_by(|a, b| a.events_per_s.total_cmp(&b.events_per_s));
    reports.swap_remove(reports.len() / 2)
}

/// Runs a query in a process of its own.
pub(crate) fn child(
    command: &str,
    query: Query,
    input: &[String],
    engine: &[String],
) -> Result<Report, BoxError> {
    let output = Command::new(std::env::current_exe()?)
        .args([command, &query.to_string(), "--json"])
        .args(input)
        .args(engine)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`nexmark {command} {query}` failed: {said}").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The comparisons as a table in Markdown: millions of events a second, and what else a run tells.
pub fn table(rows: &[Comparison]) -> String {
    let mut table = String::from(
        "| query | floor, M/s | engine, M/s | ratio | floor, CPU ns | engine, CPU ns | checkpoints | p50 ms | p99 ms | state MiB | peak MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let Report { checkpoints, checkpoint_p50_ms, checkpoint_p99_ms, .. } = row.engine;
        let (p50, p99) = (checkpoint_p50_ms.unwrap_or_default(), checkpoint_p99_ms.unwrap_or_default());
        let (floor, engine) = (row.floor.events_per_s / 1e6, row.engine.events_per_s / 1e6);
        let (ratio, floor_cpu, engine_cpu) = (row.ratio(), row.floor.cpu_nanos(), row.engine.cpu_nanos());
        let (state, peak) = (row.engine.state_bytes >> 20, row.engine.peak_rss_bytes >> 20);
        writeln!(
            table,
            "| {} | {floor:.1} | {engine:.1} | {ratio:.2} | {floor_cpu:.0} | {engine_cpu:.0} | {checkpoints} | {p50:.1} | {p99:.1} | {state} | {peak} |",
            row.query
        )
        .expect("a string takes all that is written");
    }
    table
}

/// Draws floor and engine as bars beside each other.
///
/// # Errors
/// If the file cannot be written.
pub fn plot(rows: &[Comparison], title: &str, path: &Path) -> Result<(), BoxError> {
    let rate = |report: &Report| report.events_per_s / 1e6;
    let most = rows.iter().flat_map(|row| [rate(&row.floor), rate(&row.engine)]).fold(1.0, f64::max);
    let root = SVGBackend::new(path, (1000, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Nexmark: {title}"), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..rows.len() as f64, 0.0..most * 1.1)?;
    let name = |x: &f64| {
        let query = rows.get(*x as usize).filter(|_| x.fract() > 0.4);
        query.map_or(String::new(), |row| row.query.to_string())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * rows.len() + 1)
        .x_label_formatter(&name)
        .y_desc("million events a second")
        .draw()?;
    let bars = |left: f64, of: fn(&Comparison) -> &Report, colour: RGBColor| {
        rows.iter().enumerate().map(move |(at, row)| {
            let left = at as f64 + left;
            Rectangle::new([(left, 0.0), (left + 0.36, rate(of(row)))], colour.filled())
        })
    };
    let (grey, blue) = (RGBColor(160, 160, 160), RGBColor(31, 97, 161));
    let key = |colour: RGBColor| move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled());
    chart.draw_series(bars(0.13, |row| &row.floor, grey))?.label("by hand, one thread").legend(key(grey));
    chart.draw_series(bars(0.51, |row| &row.engine, blue))?.label("Rivermark").legend(key(blue));
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}
