//! `run`: the pipeline in the foreground.
//!
//! 1. The engine is opened, and the versions are deployed that ran before, the live one first ([`super::choose`]); or the flow is started.
//! 2. Whoever serves it is asked to, and its address is written into the data directory.
//! 3. Until all versions are over, or somebody interrupts: the status is shown, on a terminal as a line that changes, with `--json` as a line a
//!    second.
//! 4. All versions are stopped, each behind a last checkpoint. A second interrupt ends the process at once, as a crash would: then the next start
//!    goes on from the last checkpoint.

use super::choose::choose;
use super::deploying::Begin;
use super::status::Glimpse;
use super::{Pipeline, Running, Serving};
use crate::exit::{Exit, Failure, Result};
use crate::inspect::place::{Place, STOP_IT};
use crate::output::{Output, Table, or_dash, shows_progress};
use crate::remote::{Announced, TOKEN_VARIABLE};
use crate::when::now_ms;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rivermark_engine::{Deployment, Engine, Job, State};
use serde_json::json;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::unregister;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the status is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often a program is told.
const TELL: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Args)]
pub(super) struct Run {
    /// Deploys this version, too: beside the live one, or as the first
    #[arg(long, value_name = "VERSION")]
    deploy: Option<u64>,
    #[command(flatten)]
    begin: Begin,
    /// Where it is served over HTTP [default: a free port of 127.0.0.1]; beyond the loopback interface with $RIVERMARK_TOKEN only
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Serves nothing
    #[arg(long, conflicts_with = "listen")]
    no_server: bool,
}

impl Run {
    /// What `deploy VERSION` becomes.
    pub(super) fn deploying(version: u64, begin: Begin) -> Run {
        Run { deploy: Some(version), begin, ..Run::default() }
    }
}

/// What runs.
enum Work {
    Versions(Vec<Deployment>),
    Flow(Job),
}

impl Work {
    fn deployments(&self) -> &[Deployment] {
        match self {
            Work::Versions(deployments) => deployments,
            Work::Flow(_) => &[],
        }
    }

    fn job(&self) -> Option<&Job> {
        match self {
            Work::Versions(_) => None,
            Work::Flow(job) => Some(job),
        }
    }

    fn look(&self, rate: &mut Rate) -> Vec<Glimpse> {
        match self {
            Work::Versions(deployments) => deployments.iter().map(glimpse).collect(),
            Work::Flow(job) => {
                let metrics = job.metrics();
                let rate = rate.of(metrics.records_read);
                let (status, metrics) = (Some(job.status()), Some(metrics));
                vec![Glimpse { version: 1, state: None, status, metrics, progress: None, rate }]
            }
        }
    }

    /// Stops everything behind a last checkpoint, and waits.
    fn stop(self) -> Result<()> {
        match self {
            Work::Versions(deployments) => match deployments.first() {
                Some(any) => Ok(any.stop_all()?),
                None => Ok(()),
            },
            Work::Flow(job) => {
                job.stop();
                Ok(job.wait().map(|_| ())?)
            }
        }
    }
}

fn glimpse(deployment: &Deployment) -> Glimpse {
    let progress = deployment.progress();
    Glimpse {
        version: deployment.version(),
        state: Some(deployment.state()),
        status: deployment.status(),
        metrics: deployment.metrics(),
        rate: progress.as_ref().map_or(0.0, |progress| progress.records_per_second),
        progress,
    }
}

/// Whether nothing will happen any more. A version that is not live reads no further than the live one has: once that one is over and it has come there,
/// it waits for good.
fn is_at_end(glimpses: &[Glimpse]) -> bool {
    let is_live = |glimpse: &&Glimpse| matches!(glimpse.state, None | Some(State::Live));
    let live_is_over = glimpses.iter().filter(is_live).all(Glimpse::is_over);
    live_is_over && glimpses.iter().all(|glimpse| glimpse.is_over() || glimpse.has_caught_up())
}

/// Records a second since a second ago.
struct Rate {
    since: Instant,
    records: u64,
    rate: f64,
}

impl Rate {
    fn new() -> Rate {
        Rate { since: Instant::now(), records: 0, rate: 0.0 }
    }

    fn of(&mut self, records: u64) -> f64 {
        let elapsed = self.since.elapsed();
        if elapsed >= TELL {
            let read = records.saturating_sub(self.records) as f64;
            *self = Rate { since: Instant::now(), records, rate: read / elapsed.as_secs_f64() };
        }
        self.rate
    }
}

/// Interrupts, as they come.
struct Interrupts {
    registered: Vec<SigId>,
    came: Receiver<()>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Interrupts {
    fn listen() -> Result<Interrupts> {
        let failed = |e: std::io::Error| Failure::of("listening for SIGINT and SIGTERM", e);
        let (is_second, mut registered) = (Arc::new(AtomicBool::new(false)), Vec::new());
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first one only says that the next is the second.
            registered
                .push(flag::register_conditional_default(signal, Arc::clone(&is_second)).map_err(failed)?);
            registered.push(flag::register(signal, Arc::clone(&is_second)).map_err(failed)?);
        }
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
        let (handle, (tell, came)) = (signals.handle(), channel());
        let thread = std::thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
            for _ in signals.forever() {
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Ok(Interrupts { registered, came, handle, thread: Some(thread.map_err(failed)?) })
    }

    /// Waits so long; says whether one has come.
    fn within(&self, pause: Duration) -> bool {
        match self.came.recv_timeout(pause) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.registered.drain(..).for_each(|id| _ = unregister(id));
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It panics nowhere.
            let _ = thread.join();
        }
    }
}

/// Who is shown the status.
struct Shown {
    bars: MultiProgress,
    lines: Vec<ProgressBar>,
    told: Option<Instant>,
}

impl Shown {
    fn new(is_json: bool) -> Shown {
        let bars = MultiProgress::new();
        if !shows_progress(is_json) {
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        Shown { bars, lines: Vec::new(), told: None }
    }

    fn show(&mut self, flow: &str, glimpses: &[Glimpse], output: &mut Output) -> Result<()> {
        while self.lines.len() < glimpses.len() {
            let style = ProgressStyle::with_template("{wide_msg}")
                .map_err(|e| Failure::of("drawing the status", e))?;
            self.lines.push(self.bars.add(ProgressBar::new_spinner().with_style(style)));
        }
        for (line, glimpse) in self.lines.iter().zip(glimpses) {
            line.set_message(glimpse.line());
        }
        if output.is_json() && self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            tell(flow, glimpses, "running", output)?;
        }
        Ok(())
    }

    fn clear(&self) {
        // A terminal that has gone away is not cleared.
        let _ = self.bars.clear();
    }
}

fn tell(flow: &str, glimpses: &[Glimpse], event: &str, output: &mut Output) -> Result<()> {
    let versions: Vec<_> = glimpses.iter().map(Glimpse::document).collect();
    output.json_line(&json!({ "time_ms": now_ms(), "event": event, "flow": flow, "versions": versions }))?;
    output.flush()
}

impl Pipeline {
    pub(super) fn run(&self, run: &Run, place: &mut Place) -> Result<()> {
        let attempt = "running the pipeline";
        self.check(attempt)?;
        let engine = self.open(attempt, STOP_IT, place)?;
        self.run_on(&engine, run, place)
    }

    /// Runs what is to run on an engine that is open.
    pub(super) fn run_on(&self, engine: &Engine, run: &Run, place: &mut Place) -> Result<()> {
        // Before anything is started, so that an interrupt always ends it in order.
        let interrupts = Interrupts::listen()?;
        // Of a process that was killed.
        Announced::clear(place.root());
        let work = self.work(engine, run, place)?;
        let served = match self.announce(engine, &work, run, place) {
            Ok(served) => served,
            Err(failure) => {
                work.stop()?;
                return Err(failure);
            }
        };
        let watched = self.watch(&work, &interrupts, place);
        drop(served);
        let mut rate = Rate::new();
        // In order, too, where nobody reads any more what is shown, and it ends because of that, as other programs do.
        let last = work.look(&mut rate);
        let stopped = work.stop();
        let failure = last.iter().find_map(Glimpse::failure).map(str::to_owned);
        watched?;
        self.summarize(&last, place)?;
        match failure {
            Some(failure) => {
                Err(Failure::new(Exit::Failed, format!("running flow `{}`: {failure}", self.name)))
            }
            None => stopped,
        }
    }

    fn work(&self, engine: &Engine, run: &Run, place: &mut Place) -> Result<Work> {
        let attempt = "running the pipeline";
        if let Some(flow) = &self.flow {
            if run.deploy.is_some() {
                return Err(Failure::usage(format!(
                    "{attempt}: it has one flow without versions, and nothing to --deploy"
                )));
            }
            return Ok(Work::Flow(engine.start(self.checked(attempt, flow())?)?));
        }
        let record = engine.deployments(&self.name)?;
        let program = self.versions.keys().copied().collect();
        let choice = choose(&record, &program, run.deploy)
            .map_err(|problem| Failure::missing(format!("{attempt} `{}`: {problem}", self.name)))?;
        for version in &choice.lacking {
            let name = &self.name;
            self.remark(&format!("version {version} of `{name}` ran before, and this program does not have it: it stays as it is"), place);
        }
        let mut deployments = Vec::new();
        for version in choice.versions {
            let begin = if run.deploy == Some(version) { run.begin.clone() } else { Begin::default() };
            let replay = begin.replay(self, engine, version)?;
            deployments.push(engine.deploy(self.flow_of(attempt, version)?, replay)?);
        }
        if !place.output.is_json() {
            for deployment in &deployments {
                let (version, state) = (deployment.version(), deployment.state());
                place.output.line(format!("version {version} of flow `{}` is {state}", self.name))?;
            }
            place.output.flush()?;
        }
        Ok(Work::Versions(deployments))
    }

    /// Something to know that keeps nothing from going on.
    fn remark(&self, remark: &str, place: &mut Place) {
        if !place.output.is_json() {
            // It is in the record of deployments, too.
            let _ = place.output.line(format!("note: {remark}"));
        }
    }

    /// Lets the pipeline be served, and says where.
    fn announce(
        &self,
        engine: &Engine,
        work: &Work,
        run: &Run,
        place: &mut Place,
    ) -> Result<Option<(Announced, Serving)>> {
        if run.no_server {
            return Ok(None);
        }
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let running = Running {
            engine,
            flow: &self.name,
            deployments: work.deployments(),
            job: work.job(),
            listen: run.listen,
            token: token.as_deref(),
        };
        let serving = match &self.serve {
            Some(serve) => serve(&running),
            #[cfg(feature = "server")]
            None => super::serving::serve(&running),
            #[cfg(not(feature = "server"))]
            None if run.listen.is_some() => Err("the program was built without the feature `server`".into()),
            #[cfg(not(feature = "server"))]
            None => return Ok(None),
        };
        let serving = serving.map_err(|e| Failure::of("serving the pipeline", e))?;
        let announced = Announced::write(place.root(), serving.address, serving.token.as_deref())?;
        if !place.output.is_json() {
            place.output.line(format!("it is served at http://{}", serving.address))?;
            place.output.flush()?;
        }
        Ok(Some((announced, serving)))
    }

    /// Shows the status until all is over or somebody interrupts.
    fn watch(&self, work: &Work, interrupts: &Interrupts, place: &mut Place) -> Result<()> {
        let mut shown = Shown::new(place.output.is_json());
        let mut rate = Rate::new();
        let watched = loop {
            let glimpses = work.look(&mut rate);
            if let Err(failure) = shown.show(&self.name, &glimpses, &mut place.output) {
                break Err(failure);
            }
            let has_failed = glimpses.iter().any(|glimpse| glimpse.failure().is_some());
            if has_failed || is_at_end(&glimpses) || interrupts.within(TICK) {
                break Ok(());
            }
        };
        shown.clear();
        watched
    }

    /// Says what became of each version.
    fn summarize(&self, glimpses: &[Glimpse], place: &mut Place) -> Result<()> {
        if place.output.is_json() {
            return tell(&self.name, glimpses, "ended", &mut place.output);
        }
        let mut table = Table::new(["version", "state", "records read", "late", "checkpoints", "restarts"]);
        for glimpse in glimpses {
            let count = |of: fn(&rivermark_engine::Metrics) -> u64| or_dash(glimpse.metrics.as_ref().map(of));
            table.row([
                glimpse.version.to_string(),
                or_dash(glimpse.state),
                count(|metrics| metrics.records_read),
                count(|metrics| metrics.late_records),
                count(|metrics| metrics.checkpoints_completed),
                count(|metrics| metrics.restarts),
            ]);
        }
        place.output.table(table)
    }
}
