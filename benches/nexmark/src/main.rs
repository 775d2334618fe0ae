//! The program `nexmark`: runs a query on the engine or by hand, makes events, and sets all queries beside their floor.
#![expect(clippy::print_stdout, reason = "a program that prints")]

use clap::{Args, Parser, Subcommand, ValueEnum};
use nexmark::codec;
use nexmark::compare::{self, Comparison};
use nexmark::event::Full;
use nexmark::generator::Generator;
use nexmark::queries::Query;
use nexmark::run::{EngineSetup, Form, From, Report, Setup};
use rivermark::{BoxError, Engine, StateBackend};
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

#[derive(Args, Clone)]
struct InputArgs {
    /// How many events.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Which fields events have.
    #[arg(long, value_enum, default_value_t = FormArg::Full)]
    events_form: FormArg,
    /// Where the generator's hash begins.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// By how many milliseconds events are out of order at most.
    #[arg(long, default_value_t = 1000)]
    jitter_ms: u64,
    /// Events in a millisecond of event time.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    events_per_ms: u64,
}

#[derive(Args, Clone)]
struct EngineArgs {
    /// How many workers.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Where keyed state lives.
    #[arg(long, value_enum, default_value_t = StateArg::Rocksdb)]
    state: StateArg,
    /// How much memory it may have, in MiB.
    #[arg(long)]
    state_budget_mib: Option<usize>,
    /// The time between checkpoints: 1s, 500ms, or off.
    #[arg(long, default_value = "1s", value_parser = interval)]
    checkpoint: Interval,
    /// Where events are read from.
    #[arg(long, value_enum, default_value_t = SourceArg::Generator)]
    source: SourceArg,
    /// The directory that `generate --to-log` wrote to, for `--source log`. Without it, the events are written to a temporary one first.
    #[arg(long)]
    log: Option<PathBuf>,
}

#[derive(Copy, Clone, ValueEnum)]
enum FormArg {
    Full,
    Lean,
}

#[derive(Copy, Clone, ValueEnum)]
enum StateArg {
    Memory,
    Rocksdb,
}

#[derive(Copy, Clone, ValueEnum)]
enum SourceArg {
    Generator,
    Log,
}

/// The time between checkpoints.
#[derive(Copy, Clone)]
struct Interval(Option<Duration>);

fn interval(text: &str) -> Result<Interval, String> {
    let wrong = || format!("`{text}` is no time between checkpoints: say 1s, 500ms, or off");
    let number = |digits: &str| digits.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(wrong);
    Ok(Interval(match text {
        "off" => None,
        _ => Some(match text.strip_suffix("ms") {
            Some(digits) => Duration::from_millis(number(digits)?),
            None => Duration::from_secs(number(text.strip_suffix('s').ok_or_else(wrong)?)?),
        }),
    }))
}

impl InputArgs {
    fn generator(&self) -> Generator {
        let InputArgs { seed, jitter_ms, events_per_ms, .. } = *self;
        Generator { seed, jitter_ms, events_per_ms }
    }

    /// The same, as they are typed.
    fn arguments(&self) -> Vec<String> {
        let form = match self.events_form {
            FormArg::Full => "full",
            FormArg::Lean => "lean",
        };
        let InputArgs { events, seed, jitter_ms, events_per_ms, .. } = self;
        let numbers = format!(
            "--events={events} --seed={seed} --jitter-ms={jitter_ms} --events-per-ms={events_per_ms}"
        );
        numbers.split(' ').map(str::to_owned).chain([format!("--events-form={form}")]).collect()
    }

    fn setup(&self, query: Query, digest: bool) -> Setup {
        let form = match self.events_form {
            FormArg::Full => Form::Full,
            FormArg::Lean => Form::Lean,
        };
        Setup { query, generator: self.generator(), events: self.events, form, digest }
    }
}

impl EngineArgs {
    /// The same, as they are typed.
    fn arguments(&self) -> Vec<String> {
        let state = match self.state {
            StateArg::Memory => "memory",
            StateArg::Rocksdb => "rocksdb",
        };
        let source = match self.source {
            SourceArg::Generator => "generator",
            SourceArg::Log => "log",
        };
        let checkpoint =
            self.checkpoint.0.map_or("off".into(), |interval| format!("{}ms", interval.as_millis()));
        let mut arguments = vec![
            format!("--workers={}", self.workers),
            format!("--state={state}"),
            format!("--source={source}"),
            format!("--checkpoint={checkpoint}"),
        ];
        arguments.extend(self.state_budget_mib.map(|mebibytes| format!("--state-budget-mib={mebibytes}")));
        arguments.extend(self.log.as_ref().map(|directory| format!("--log={}", directory.display())));
        arguments
    }

    fn setup(&self) -> EngineSetup {
        EngineSetup {
            workers: self.workers,
            state: match self.state {
                StateArg::Memory => StateBackend::Memory,
                StateArg::Rocksdb => StateBackend::RocksDb,
            },
            state_budget: self.state_budget_mib.map(|mebibytes| mebibytes << 20),
            checkpoint: self.checkpoint.0,
            source: match self.source {
                SourceArg::Generator => From::Generator,
                SourceArg::Log => From::Log,
            },
            log: self.log.clone(),
        }
    }
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
    codec::write(engine.log(), input.generator(), input.events, partitions as u32)
}

fn main() -> Result<(), BoxError> {
    match Program::parse().command {
        Command::Run { query, input, engine, digest, json } => {
            show(&input.setup(query, digest).engine(&engine.setup())?, json)
        }
        Command::Floor { query, input, digest, json } => show(&input.setup(query, digest).floor(), json),
        Command::Generate { input, to_log: Some(directory), workers } => {
            write_log(&directory, &input, workers)
        }
        Command::Generate { input, to_log: None, .. } => write_text(input.generator(), input.events),
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
                if matches!(input.events_form, FormArg::Full) { "full" } else { "lean" },
                engine.workers,
                if matches!(engine.state, StateArg::Memory) { "memory" } else { "RocksDB" },
            );
            plot.map_or(Ok(()), |path| compare::plot(&rows, &title, &path))
        }
    }
}
