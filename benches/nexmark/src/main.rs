//! The program `nexmark`: runs a query on the engine or by hand, makes events, and sets all queries beside their floor.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod arguments;

use arguments::{EngineArgs, InputArgs, KindArgs, ResourceArgs};
use clap::{Parser, Subcommand};
use nexmark::codec;
use nexmark::compare::{self, Comparison};
use nexmark::event::{Full, Lean};
use nexmark::generator::Generator;
use nexmark::latency::{LatencyReport, LatencySetup, Percentiles, Rate};
use nexmark::queries::Query;
use nexmark::run::{Form, Report};
use nexmark::scale::{self, Curve};
use rivermark::{BoxError, Engine};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Nexmark benchmark on Rivermark.
#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a query on the engine.
    Run {
        /// q0 to q20.
        query: Query,
        #[command(flatten)]
        input: InputArgs,
        #[command(flatten)]
        engine: EngineArgs,
        /// Folds the digest of the specification over the answer.
        #[arg(long)]
        digest: bool,
        /// Prints one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs the loop by hand for a query, on one thread.
    Floor {
        /// q0 to q20.
        query: Query,
        #[command(flatten)]
        input: InputArgs,
        /// Folds the digest of the specification over the answer.
        #[arg(long)]
        digest: bool,
        /// Prints one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measures how long results take, at a rate: from when an event was due to be appended to the log.
    Latency {
        /// q0, q1, q2, q5, q7, q8, q12, q18 or q19.
        query: Query,
        #[command(flatten)]
        kind: KindArgs,
        #[command(flatten)]
        resources: ResourceArgs,
        /// Events a second, or a share of the most that is possible, which is then measured first.
        #[arg(long, default_value = "50%")]
        rate: Rate,
        /// For how long events are due.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// How many seconds of that are not counted.
        #[arg(long, default_value_t = 5)]
        warm_up: u64,
        /// In which directory the engine's own is made, and deleted again.
        #[arg(long)]
        directory: Option<PathBuf>,
        /// Prints one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs queries over more and more events, each run a process of its own, and prints a table.
    Scale {
        /// q0 to q20.
        #[arg(required = true)]
        queries: Vec<Query>,
        /// How many events.
        #[arg(long, value_delimiter = ',', default_value = "1000000,10000000,50000000")]
        events: Vec<u64>,
        #[command(flatten)]
        kind: KindArgs,
        #[command(flatten)]
        engine: EngineArgs,
        /// Where the curves are drawn, as SVG.
        #[arg(long)]
        plot: Option<PathBuf>,
        /// Prints every run as a line of JSON, too.
        #[arg(long)]
        json: bool,
    },
    /// Writes events as text, or into the log of an engine.
    Generate {
        #[command(flatten)]
        input: InputArgs,
        /// The directory of the engine in whose log they are written, instead of as text.
        #[arg(long)]
        to_log: Option<PathBuf>,
        /// Partitions of the log's topic.
        #[arg(long, default_value_t = 2)]
        workers: usize,
    },
    /// Runs every query and its floor in turns, and prints a table.
    All {
        #[command(flatten)]
        input: InputArgs,
        #[command(flatten)]
        engine: EngineArgs,
        /// Only these queries.
        #[arg(long, value_delimiter = ',')]
        queries: Vec<Query>,
        /// How often; medians are told.
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Where the plot is drawn, as SVG.
        #[arg(long)]
        plot: Option<PathBuf>,
        /// Prints every run as a line of JSON, too.
        #[arg(long)]
        json: bool,
    },
}

fn show(report: &Report, json: bool) -> Result<(), BoxError> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let (query, events, rows) = (&report.query, report.events, report.rows);
    println!("{query}: {events} events, {rows} rows in {:.3} s", report.seconds);
    println!("  {:.2} M events/s; committed after {:.3} s", report.events_per_s / 1e6, report.total_seconds);
    if let (Some(p50), Some(p99)) = (report.checkpoint_p50_ms, report.checkpoint_p99_ms) {
        let (taken, mebibytes) = (report.checkpoints, report.state_bytes >> 20);
        println!("  {taken} checkpoints, p50 {p50:.1} ms, p99 {p99:.1} ms, up to {mebibytes} MiB of state");
    }
    println!("  {} MiB of memory at the peak", report.peak_rss_bytes >> 20);
    report.digest.iter().for_each(|digest| println!("  digest {digest}"));
    Ok(())
}

fn show_latency(report: &LatencyReport, json: bool) -> Result<(), BoxError> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let LatencyReport { query, rate_per_s, achieved_per_s, timed_rows, arrived, committed, .. } = report;
    let most = report.most_per_s.map_or(String::new(), |most| format!(" (the most: {:.2} M)", most / 1e6));
    println!("{query}: {:.3} M events/s due{most}, {:.3} M read", rate_per_s / 1e6, achieved_per_s / 1e6);
    println!("  {timed_rows} rows timed");
    let line = |what: &str, of: &Percentiles| {
        let Percentiles { p50_ms, p99_ms, p999_ms, p9999_ms, max_ms } = of;
        println!(
            "  {what}: p50 {p50_ms:.2} ms, p99 {p99_ms:.2}, p99.9 {p999_ms:.2}, p99.99 {p9999_ms:.2}, max {max_ms:.2}"
        );
    };
    line("at the sink", arrived);
    line("committed  ", committed);
    if let (Some(p50), Some(p99)) = (report.checkpoint_p50_ms, report.checkpoint_p99_ms) {
        println!("  {} checkpoints, p50 {p50:.1} ms, p99 {p99:.1} ms", report.checkpoints);
    }
    Ok(())
}

fn write_text(generator: Generator, events: u64) -> Result<(), BoxError> {
    let (mut out, mut text) = (BufWriter::with_capacity(1 << 16, std::io::stdout().lock()), Vec::new());
    for n in 0..events {
        text.clear();
        generator.event::<Full>(n).write_text(&mut text);
        match out.write_all(&text) {
            // Whoever read them has enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(out.flush()?)
}

fn write_log(directory: &Path, input: &InputArgs, partitions: usize) -> Result<(), BoxError> {
    let engine = Engine::open(directory)?;
    let write = match input.kind.form() {
        Form::Full => codec::write::<Full>,
        Form::Lean => codec::write::<Lean>,
    };
    write(engine.log(), input.kind.generator(), input.events, partitions as u32)
}

fn main() -> Result<(), BoxError> {
    match Program::parse().command {
        Command::Run { query, input, engine, digest, json } => {
            show(&input.setup(query, digest).engine(&engine.setup())?, json)
        }
        Command::Floor { query, input, digest, json } => show(&input.setup(query, digest).floor(), json),
        Command::Latency { query, kind, resources, rate, seconds, warm_up, directory, json } => {
            let (time, warm_up) = (Duration::from_secs(seconds), Duration::from_secs(warm_up));
            let (generator, form, resources) = (kind.generator(), kind.form(), resources.resources());
            let setup = LatencySetup { query, generator, form, resources, rate, time, warm_up, directory };
            show_latency(&setup.measure()?, json)
        }
        Command::Scale { queries, events, kind, engine, plot, json } => {
            let arguments = [kind.arguments(), engine.arguments()].concat();
            let curves = queries.into_iter().map(|query| {
                Curve::measure(query, &events, &arguments, |report| match json {
                    true => show(report, true),
                    false => Ok(()),
                })
            });
            let curves: Vec<Curve> = curves.collect::<Result<_, _>>()?;
            print!("{}", scale::table(&curves));
            let (form, state) = (kind.form_name(), engine.resources.state_title());
            let budget = engine.resources.state_budget_mib;
            let budget = budget.map_or(String::new(), |mebibytes| format!(" within {mebibytes} MiB"));
            let title =
                format!("{form} events, {} workers, state in {state}{budget}", engine.resources.workers);
            plot.map_or(Ok(()), |path| scale::plot(&curves, &title, &path))
        }
        Command::Generate { input, to_log: Some(directory), workers } => {
            write_log(&directory, &input, workers)
        }
        Command::Generate { input, to_log: None, .. } => write_text(input.kind.generator(), input.events),
        Command::All { input, engine, queries, runs, plot, json } => {
            let queries = if queries.is_empty() { Query::ALL.to_vec() } else { queries };
            let (mut rows, arguments) = (Vec::new(), (input.arguments(), engine.arguments()));
            for query in queries {
                let comparison = Comparison::measure(query, runs, &arguments, |report| match json {
                    true => show(report, true),
                    false => Ok(()),
                })?;
                rows.push(comparison);
            }
            print!("{}", compare::table(&rows));
            let title = format!(
                "{} {} events, {} workers, {} state",
                input.events,
                input.kind.form_name(),
                engine.resources.workers,
                engine.resources.state_title(),
            );
            plot.map_or(Ok(()), |path| compare::plot(&rows, &title, &path))
        }
    }
}
