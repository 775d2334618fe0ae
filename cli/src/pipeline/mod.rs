//! The command line of a pipeline's own binary.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `choose` | which versions run: a function of the record of deployments and of what the program has |
//! | `deploying` | `deploy VERSION`, and how a version begins |
//! | `run` | `run`: the versions in the foreground, until they are over or somebody interrupts |
//! | `serving` | what a pipeline that runs is served by, if it says nothing else |
//! | `proving` | `audit` and `explain` |
//! | `status` | what they are doing, as a line and as JSON |
//! | `taking` | `savepoint NAME` |

mod choose;
mod deploying;
mod proving;
mod run;
#[cfg(feature = "server")]
mod serving;
mod status;
mod taking;

use crate::exit::{Exit, Failure, Result};
use crate::inspect::place::{Common, DEFAULT, Place};
use crate::inspect::{Completions, Inspect, state::own_types};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use rivermark_engine::{Deployment, Engine, Job, Options, Replay, Types};
use rivermark_operators::{BoxError, Flow, StateValue};
use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type FlowFn = Box<dyn Fn() -> Flow>;
type OptionsFn = Box<dyn Fn(Options) -> Options>;
type PrepareFn = Box<dyn Fn(&Engine) -> Result<(), BoxError>>;
type ReplayFn = Box<dyn Fn(u64, Replay) -> Replay>;
type ServeFn = Box<dyn Fn(&Running<'_>) -> Result<Serving, BoxError>>;

/// A pipeline that is a program: the versions of a flow, and a command line to run, deploy and look at them.
///
/// ```no_run
/// use rivermark::cli::Pipeline;
/// use rivermark::connectors::{LogSink, LogSource};
/// use rivermark::{Flow, Watermarks, Windows, hours, secs};
/// # type Click = (rivermark::Timestamp, String);
///
/// fn clicks_per_page() -> Flow {
///     let flow = Flow::new("clicks-per-page");
///     flow.source(LogSource::<Click>::topic("clicks"))
///         .event_time(|click| click.0, Watermarks::bounded(secs(5)))
///         .key_by(|click| click.1.clone())
///         .window(Windows::tumbling(hours(1)))
///         .count()
///         .sink(LogSink::output("clicks-per-page"));
///     flow
/// }
///
/// fn main() -> std::process::ExitCode {
///     Pipeline::new("clicks-per-page").version(1, clicks_per_page).main()
/// }
/// ```
///
/// The program then has the commands of `rivermark` (`log`, `checkpoint`, `state`, `deploy`, `savepoint`), about its own flow and data directory,
/// and with its own types; and those that take code: `run`, `deploy VERSION`, `savepoint NAME`, `audit` and `explain`. `--help` lists them.
///
/// - With [`Pipeline::version`], versions are deployed beside each other ([`Engine::deploy`]): each needs an output, `LogSink::output(..)`.
/// - With [`Pipeline::flow`], there is one flow of any kind, which is started ([`Engine::start`]).
///
/// What runs is served over HTTP on the loopback interface, if the feature `server` is on: its versions, its log, `/metrics`, and with the feature `dashboard` a
/// page. The commands `deploy promote`, `rollback` and so on find it by themselves. [`Pipeline::serve`] lets something else do that, with states say.
///
/// It logs nothing by itself: a program that wants the engine's events installs a subscriber of `tracing` before.
pub struct Pipeline {
    name: String,
    versions: BTreeMap<u64, FlowFn>,
    flow: Option<FlowFn>,
    data: PathBuf,
    options: OptionsFn,
    prepare: Vec<PrepareFn>,
    replay: ReplayFn,
    types: Types,
    serve: Option<ServeFn>,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.name)
            .field("versions", &self.versions.keys().collect::<Vec<_>>())
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// A pipeline that runs, for whoever [serves](Pipeline::serve) it.
#[derive(Copy, Clone)]
#[non_exhaustive]
pub struct Running<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The flow's name.
    pub flow: &'a str,
    /// The versions that run; none of a pipeline without versions.
    pub deployments: &'a [Deployment],
    /// The job of a pipeline without versions.
    pub job: Option<&'a Job>,
    /// Where it is to listen, if the command line says (`run --listen ADDRESS`).
    pub listen: Option<SocketAddr>,
    /// The token to ask for, if the environment says (`RIVERMARK_TOKEN`).
    pub token: Option<&'a str>,
}

/// A server of a running pipeline, which the commands `deploy promote`, `rollback` and so on ask.
pub struct Serving {
    address: SocketAddr,
    token: Option<String>,
    _server: Box<dyn Any>,
}

impl Serving {
    /// A server at that address, which goes on serving until `server` is dropped.
    pub fn new(address: SocketAddr, server: impl Any) -> Serving {
        Serving { address, token: None, _server: Box::new(server) }
    }

    /// Says which token it asks for, as `Authorization: Bearer TOKEN`. It is written into a file of the data directory that only its owner can read.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Serving {
        Serving { token: Some(token.into()), ..self }
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A stream-processing pipeline on Rivermark
#[derive(Debug, Parser)]
#[command(version, after_help = crate::exit::TABLE)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: PipelineCommand,
}

#[derive(Debug, Subcommand)]
enum PipelineCommand {
    /// Runs the pipeline in the foreground until it is over or interrupted
    Run(run::Run),
    /// Deploys a version; or lists, compares, promotes those that are
    Deploy(deploying::Deploy),
    /// Takes a savepoint of the pipeline, which must not run; or lists, shows, deletes those that there are
    Savepoint(taking::SavepointArguments),
    /// Proves that what a version has published is what its log implies
    Audit(proving::AuditArguments),
    /// Says which records a published row was made of
    Explain(proving::ExplainArguments),
    #[command(flatten)]
    Inspect(Inspect),
    /// Prints the script that completes command lines in a shell
    Completions(Completions),
}

impl Pipeline {
    /// A pipeline whose flow has that name.
    pub fn new(name: impl Into<String>) -> Pipeline {
        Pipeline {
            name: name.into(),
            versions: BTreeMap::new(),
            flow: None,
            data: PathBuf::from(DEFAULT),
            options: Box::new(|options| options),
            prepare: Vec::new(),
            replay: Box::new(|_, replay| replay),
            types: own_types(),
            serve: None,
        }
    }

    /// A version of the flow. It is given that number, whatever number `flow` gives it.
    #[must_use]
    pub fn version(mut self, number: u64, flow: impl Fn() -> Flow + 'static) -> Pipeline {
        self.versions.insert(number, Box::new(flow));
        self
    }

    /// The flow, of a pipeline without versions beside each other: with any sources and sinks.
    #[must_use]
    pub fn flow(mut self, flow: impl Fn() -> Flow + 'static) -> Pipeline {
        self.flow = Some(Box::new(flow));
        self
    }

    /// The data directory if neither `--data` nor the environment names one. Default: `data`.
    #[must_use]
    pub fn data(mut self, directory: impl AsRef<Path>) -> Pipeline {
        directory.as_ref().clone_into(&mut self.data);
        self
    }

    /// Changes the engine's options.
    #[must_use]
    pub fn options(mut self, options: impl Fn(Options) -> Options + 'static) -> Pipeline {
        self.options = Box::new(options);
        self
    }

    /// Does something before the flow is started: creates topics, say.
    #[must_use]
    pub fn prepare(mut self, prepare: impl Fn(&Engine) -> Result<(), BoxError> + 'static) -> Pipeline {
        self.prepare.push(Box::new(prepare));
        self
    }

    /// Changes how a version begins and takes over: when it counts as caught up, the checks that may veto it. Options of the command line come
    /// after it.
    #[must_use]
    pub fn replay(mut self, replay: impl Fn(u64, Replay) -> Replay + 'static) -> Pipeline {
        self.replay = Box::new(replay);
        self
    }

    /// Lets `state get` and `state scan` show keys and values of a type, as serde tells them to JSON.
    #[must_use]
    pub fn state_type<T: StateValue>(mut self) -> Pipeline {
        self.types.know::<T>();
        self
    }

    /// Serves the running pipeline by something else than a server of its versions and its log: the commands that tell it something find it through
    /// the data directory.
    #[must_use]
    pub fn serve(mut self, serve: impl Fn(&Running<'_>) -> Result<Serving, BoxError> + 'static) -> Pipeline {
        self.serve = Some(Box::new(serve));
        self
    }

    /// Does what the program's arguments say, and answers its exit code.
    pub fn main(self) -> ExitCode {
        self.main_with(std::env::args_os())
    }

    /// As [`Pipeline::main`], with arguments, of which the first is the program.
    pub fn main_with(self, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let program = arguments.first().map(PathBuf::from).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let command = || Arguments::command().name(program.clone());
        let parsed =
            command().try_get_matches_from(arguments).and_then(|found| Arguments::from_arg_matches(&found));
        let arguments = match parsed {
            Ok(arguments) => arguments,
            Err(error) => return crate::refused(&error),
        };
        let flow = Some(self.name.clone());
        let mut place = Place::of(&arguments.common, self.data.clone(), flow, self.types.clone());
        let done = match arguments.command {
            PipelineCommand::Run(run) => self.run(&run, &mut place),
            PipelineCommand::Deploy(deploy) => self.deploy(deploy, &mut place),
            PipelineCommand::Savepoint(savepoint) => self.savepoint(savepoint, &mut place),
            PipelineCommand::Audit(audit) => self.audit(&audit, &mut place),
            PipelineCommand::Explain(explain) => self.explain(&explain, &mut place),
            PipelineCommand::Inspect(command) => command.run(&mut place),
            PipelineCommand::Completions(completions) => completions.run(command(), &mut place),
        };
        drop(place);
        crate::ended(&program, done)
    }

    /// Opens the engine, and prepares it.
    fn open(&self, attempt: &str, advice: &str, place: &Place) -> Result<Engine> {
        let engine = place.engine(attempt, advice, (self.options)(Options::new()))?;
        for prepare in &self.prepare {
            prepare(&engine).map_err(|e| Failure::of(format!("{attempt}: preparing the engine"), e))?;
        }
        Ok(engine)
    }

    /// A version of the flow, as the program describes it.
    fn flow_of(&self, attempt: &str, version: u64) -> Result<Flow> {
        let flow = self.versions.get(&version).ok_or_else(|| {
            let known: Vec<String> = self.versions.keys().map(u64::to_string).collect();
            Failure::missing(format!(
                "{attempt}: this program has no version {version} of flow `{}`; it has {}",
                self.name,
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
        })?;
        self.checked(attempt, flow()).map(|flow| flow.version(version))
    }

    /// The flow as it ran last: of the live version, or without any.
    fn live_flow(&self, attempt: &str, engine: &Engine) -> Result<Flow> {
        if let Some(flow) = &self.flow {
            return self.checked(attempt, flow());
        }
        let live = engine.deployments(&self.name)?.live().ok_or_else(|| {
            let name = &self.name;
            Failure::missing(format!(
                "{attempt}: no version of flow `{name}` was ever deployed; `run` deploys one"
            ))
        })?;
        self.flow_of(attempt, live)
    }

    /// A flow must have the pipeline's name: everything is found by it.
    fn checked(&self, attempt: &str, flow: Flow) -> Result<Flow> {
        if flow.name() == self.name {
            return Ok(flow);
        }
        Err(Failure::usage(format!(
            "{attempt}: the pipeline is called `{}` and its flow `{}`: give both the same name",
            self.name,
            flow.name()
        )))
    }

    /// That the program says what there is to run.
    fn check(&self, attempt: &str) -> Result<()> {
        match (&self.flow, self.versions.is_empty()) {
            (None, true) => Err(Failure::new(
                Exit::Usage,
                format!("{attempt}: the program has no flow: give its Pipeline a `version` or a `flow`"),
            )),
            (Some(_), false) => Err(Failure::new(
                Exit::Usage,
                format!(
                    "{attempt}: the program has a flow without versions and one with: give its Pipeline either"
                ),
            )),
            _ => Ok(()),
        }
    }
}
