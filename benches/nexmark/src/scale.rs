//! A query over more and more events, each run a process of its own: whether its cost grows as the events do, and what becomes of it when its
//! state outgrows the memory that it may have.

use crate::compare::child;
use crate::queries::Query;
use crate::run::Report;
use plotters::coord::Shift;
use plotters::prelude::*;
use rivermark::BoxError;
use std::fmt::Write;
use std::path::Path;

/// A query's runs, by how many events they had.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The query.
    pub query: Query,
    /// One run for each number of events, which rise.
    pub runs: Vec<Report>,
}

impl Curve {
    /// Runs `query` over each number of events in a process of this program, with these arguments besides, and shows `each` report.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn measure(
        query: Query,
        events: &[u64],
        arguments: &[String],
        mut each: impl FnMut(&Report) -> Result<(), BoxError>,
    ) -> Result<Curve, BoxError> {
        let mut events = events.to_vec();
        events.sort_unstable();
        let mut runs = Vec::new();
        for events in events {
            let report = child("run", query, &[format!("--events={events}")], arguments)?;
            each(&report)?;
            runs.push(report);
        }
        Ok(Curve { query, runs })
    }
}

/// The curves as a table in Markdown.
pub fn table(curves: &[Curve]) -> String {
    let mut table = String::from(
        "| query | events, M | M/s | CPU ns an event | all committed after, s | peak, MiB | state, MiB | checkpoints | p50 ms | p99 ms |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for run in curves.iter().flat_map(|curve| &curve.runs) {
        let (events, rate, cpu) = (run.events as f64 / 1e6, run.events_per_s / 1e6, run.cpu_nanos());
        let (peak, state) = (run.peak_rss_bytes >> 20, run.state_bytes >> 20);
        let (p50, p99) =
            (run.checkpoint_p50_ms.unwrap_or_default(), run.checkpoint_p99_ms.unwrap_or_default());
        let Report { query, total_seconds, checkpoints, .. } = run;
        writeln!(
            table,
            "| {query} | {events} | {rate:.2} | {cpu:.0} | {total_seconds:.1} | {peak} | {state} | {checkpoints} | {p50:.0} | {p99:.0} |"
        )
        .expect("a string takes all that is written");
    }
    table
}

/// What a panel shows of a run.
type Measure = fn(&Report) -> f64;

const PANELS: [(&str, Measure); 4] = [
    ("million events a second", |run| run.events_per_s / 1e6),
    ("peak memory of the process, MiB", |run| (run.peak_rss_bytes >> 20) as f64),
    ("state in a checkpoint, MiB", |run| (run.state_bytes >> 20) as f64),
    ("checkpoint, 99th percentile, ms", |run| run.checkpoint_p99_ms.unwrap_or_default()),
];

/// Draws each measure over the number of events.
///
/// # Errors
/// If the file cannot be written.
pub fn plot(curves: &[Curve], title: &str, path: &Path) -> Result<(), BoxError> {
    let root = SVGBackend::new(path, (1000, 640)).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(&format!("Nexmark: {title}"), ("sans-serif", 20))?;
    for (area, (name, measure)) in root.split_evenly((2, 2)).iter().zip(PANELS) {
        panel(area, curves, name, measure)?;
    }
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    curves: &[Curve],
    name: &str,
    measure: Measure,
) -> Result<(), BoxError> {
    let runs = || curves.iter().flat_map(|curve| &curve.runs);
    let most = runs().map(measure).fold(1.0, f64::max);
    let millions = |run: &Report| run.events as f64 / 1e6;
    let (first, last) =
        runs().map(millions).fold((f64::MAX, 0.0), |(a, b), n| (f64::min(a, n), f64::max(b, n)));
    let mut chart = ChartBuilder::on(area)
        .caption(name, ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(56)
        .build_cartesian_2d((first * 0.8..last * 1.25).log_scale(), 0.0..most * 1.1)?;
    chart.configure_mesh().x_desc("million events").x_label_formatter(&|n| format!("{n}")).draw()?;
    for (at, curve) in curves.iter().enumerate() {
        let colour = Palette99::pick(at).to_rgba();
        let points = || curve.runs.iter().map(|run| (millions(run), measure(run)));
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(curve.query.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
        chart.draw_series(points().map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    Ok(())
}
