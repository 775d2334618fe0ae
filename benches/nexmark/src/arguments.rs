//! What the program is told: the arguments that its commands share, and how they are passed on to another process of it.

use clap::{Args, ValueEnum};
use nexmark::generator::Generator;
use nexmark::queries::Query;
use nexmark::run::{EngineSetup, Form, From, Resources, Setup};
use rivermark::StateBackend;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Clone)]
pub(crate) struct InputArgs {
    /// How many events.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) events: u64,
    #[command(flatten)]
    pub(crate) kind: KindArgs,
}

#[derive(Args, Clone)]
pub(crate) struct KindArgs {
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
pub(crate) struct ResourceArgs {
    /// How many workers.
    #[arg(long, default_value_t = 2)]
    pub(crate) workers: usize,
    /// Where keyed state lives.
    #[arg(long, value_enum, default_value_t = StateArg::Rocksdb)]
    state: StateArg,
    /// How much memory it may have, in MiB.
    #[arg(long)]
    pub(crate) state_budget_mib: Option<usize>,
    /// The time between checkpoints: 1s, 500ms, or off.
    #[arg(long, default_value = "1s", value_parser = interval)]
    checkpoint: Interval,
}

#[derive(Args, Clone)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
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

impl KindArgs {
    pub(crate) fn generator(&self) -> Generator {
        let KindArgs { seed, jitter_ms, events_per_ms, .. } = *self;
        Generator { seed, jitter_ms, events_per_ms }
    }

    pub(crate) fn form(&self) -> Form {
        match self.events_form {
            FormArg::Full => Form::Full,
            FormArg::Lean => Form::Lean,
        }
    }
}

impl KindArgs {
    /// The same, as they are typed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let KindArgs { seed, jitter_ms, events_per_ms, .. } = self;
        let form = self.form_name();
        vec![
            format!("--events-form={form}"),
            format!("--seed={seed}"),
            format!("--jitter-ms={jitter_ms}"),
            format!("--events-per-ms={events_per_ms}"),
        ]
    }

    pub(crate) fn form_name(&self) -> &'static str {
        match self.events_form {
            FormArg::Full => "full",
            FormArg::Lean => "lean",
        }
    }
}

impl InputArgs {
    /// The same, as they are typed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        [vec![format!("--events={}", self.events)], self.kind.arguments()].concat()
    }

    pub(crate) fn setup(&self, query: Query, digest: bool) -> Setup {
        let (generator, form) = (self.kind.generator(), self.kind.form());
        Setup { query, generator, events: self.events, form, digest }
    }
}

impl ResourceArgs {
    /// The same, as they are typed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let state = match self.state {
            StateArg::Memory => "memory",
            StateArg::Rocksdb => "rocksdb",
        };
        let checkpoint =
            self.checkpoint.0.map_or("off".into(), |interval| format!("{}ms", interval.as_millis()));
        let mut arguments = vec![
            format!("--workers={}", self.workers),
            format!("--state={state}"),
            format!("--checkpoint={checkpoint}"),
        ];
        arguments.extend(self.state_budget_mib.map(|mebibytes| format!("--state-budget-mib={mebibytes}")));
        arguments
    }

    /// How the state's place is called in a title.
    pub(crate) fn state_title(&self) -> &'static str {
        match self.state {
            StateArg::Memory => "memory",
            StateArg::Rocksdb => "RocksDB",
        }
    }

    pub(crate) fn resources(&self) -> Resources {
        Resources {
            workers: self.workers,
            state: match self.state {
                StateArg::Memory => StateBackend::Memory,
                StateArg::Rocksdb => StateBackend::RocksDb,
            },
            state_budget: self.state_budget_mib.map(|mebibytes| mebibytes << 20),
            checkpoint: self.checkpoint.0,
        }
    }
}

impl EngineArgs {
    /// The same, as they are typed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let source = match self.source {
            SourceArg::Generator => "generator",
            SourceArg::Log => "log",
        };
        let mut arguments = self.resources.arguments();
        arguments.push(format!("--source={source}"));
        arguments.extend(self.log.as_ref().map(|directory| format!("--log={}", directory.display())));
        arguments
    }

    pub(crate) fn setup(&self) -> EngineSetup {
        EngineSetup {
            resources: self.resources.resources(),
            source: match self.source {
                SourceArg::Generator => From::Generator,
                SourceArg::Log => From::Log,
            },
            log: self.log.clone(),
        }
    }
}
