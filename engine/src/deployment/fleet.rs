//! The versions of one flow that run in this process, and what moves them.
//!
//! A thread looks at them every few milliseconds ([`Fleet::tick`]): it lets the lines of those that follow move on with the live version's
//! checkpoints, notices who has caught up, fallen behind or failed, promotes where it is to do so by itself, and retires what was kept long
//! enough. What it and the owner want goes through [`Fleet::take`]: a step of the record, the write, and then the actions.

mod switching;

use super::machine::{Action, Deployments, Event, OutputTopic, State};
use super::options::Replay;
use super::plan::{self, Beginning, DeploymentPlan};
use super::progress::{self, Offsets, Progress, Rate};
use super::record::RecordFile;
use super::switch::{AllLines, lines_of, set_lines};
use crate::engine::{Engine, Setup};
use crate::job::{Job, Status};
use crate::queries::LiveVersion;
use parking_lot::{Condvar, Mutex};
use rivermark_checkpoint::store::LocalStore;
use rivermark_checkpoint::{Checkpoints, Epoch, FlowId, Store};
use rivermark_log::{AliasRange, AliasSegment, Aliases, Log};
use rivermark_operators::plan::Plan;
use rivermark_operators::{Error, Flow, Result, Timestamp};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(10);

/// Where things of a flow are kept.
pub(crate) struct Folders {
    pub(crate) deployments: PathBuf,
    pub(crate) checkpoints: PathBuf,
    /// Local state, by version.
    pub(crate) state: PathBuf,
}

/// The versions of a flow; see the module's page.
pub(crate) struct Fleet {
    pub(crate) flow: String,
    file: RecordFile,
    folders: Folders,
    log: Log,
    aliases: Aliases,
    /// What asks for the live version's state follows this.
    live: Arc<LiveVersion>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    record: Deployments,
    ships: BTreeMap<u64, Ship>,
    /// What was refused when a version was to be promoted by itself.
    refused: BTreeMap<u64, (Instant, String)>,
    /// Why nothing may be decided any more.
    poisoned: Option<String>,
}

/// A version that was deployed in this process.
struct Ship {
    job: Job,
    replay: Replay,
    sources: Vec<String>,
    /// The live version's checkpoint that its lines are.
    follows: Option<Followed>,
    /// Where the live version was, as far as it is known without its job.
    known: Offsets,
    /// Since when it is close to the live version.
    close_since: Option<Instant>,
    rate: Rate,
}

/// A version and a checkpoint of it.
type Followed = (u64, Epoch);

/// What makes a version live.
pub(crate) enum Switch {
    Promote(u64),
    RollBack(String),
}

impl Fleet {
    /// # Errors
    /// The record cannot be read, or the thread not be started.
    pub(crate) fn open(
        flow: &str,
        folders: Folders,
        log: Log,
        aliases: Aliases,
        live: Arc<LiveVersion>,
    ) -> Result<Arc<Fleet>> {
        let file = RecordFile::of(&folders.deployments, flow);
        let record = file.read()?;
        let inner = Inner { record, ships: BTreeMap::new(), refused: BTreeMap::new(), poisoned: None };
        let inner = Mutex::new(inner);
        let changed = Condvar::new();
        let flow = flow.to_owned();
        let fleet = Arc::new(Fleet { flow, file, folders, log, aliases, live, inner, changed });
        fleet.perform(&mut fleet.inner.lock())?;
        let weak = Arc::downgrade(&fleet);
        std::thread::Builder::new()
            .name(format!("rivermark-deploy-{}", fleet.flow))
            .spawn(move || watch(&weak))
            .map_err(|e| {
                Error::engine(format!("starting the thread of the deployments of `{}`", fleet.flow), e)
            })?;
        Ok(fleet)
    }

    pub(crate) fn error(&self, attempt: &str, problem: impl Into<String>) -> Error {
        Error::engine(format!("{attempt} of flow `{}`", self.flow), problem.into())
    }

    pub(crate) fn record(&self) -> Deployments {
        self.inner.lock().record.clone()
    }

    /// What deploying a version would do.
    pub(crate) fn plan(&self, engine: &Engine, flow: Flow, replay: &Replay) -> Result<DeploymentPlan> {
        let plan = Arc::new(flow.into_plan()?);
        let version = plan.version();
        let inner = self.inner.lock();
        let live = inner.record.live().filter(|live| *live != version);
        let outputs = outputs_of(&plan);
        let sources: Vec<String> = plan.sources().map(|(name, _)| name.to_string()).collect();
        let (mut foreseen, _) = self.foresee(engine, plan, live, replay)?;
        let deployed = outputs.and_then(|outputs| inner.record.step(&Event::Deploy { version, outputs }));
        foreseen.problems.extend(deployed.err());
        foreseen.problems.extend(self.check_sources(&inner, version, &sources).err());
        foreseen.can_start = foreseen.problems.is_empty();
        if let Some(live) = live {
            let state = self.checkpoints(live)?.newest().ok().flatten();
            let state: u64 =
                state.iter().flat_map(|manifest| manifest.files()).map(|file| file.content.bytes).sum();
            let topics = inner.record.versions.get(&live).map(|version| version.outputs.values());
            let output =
                topics.into_iter().flatten().filter_map(|output| bytes_of_topic(&self.log, &output.topic));
            foreseen.disk_bytes = Some(state + output.sum::<u64>());
        }
        let measured = live.and_then(|live| inner.ships.get(&live)).map(|ship| ship.job.metrics());
        let measured = measured.map(|m| m.records_read as f64 / m.running.as_secs_f64().max(0.001));
        let limit = replay.rate_limit.and_then(|limit| limit.records()).map(|records| records as f64);
        // The live version waits for records most of the time: this is at least as fast.
        let rate = limit.or(measured).filter(|rate| *rate > 0.0);
        foreseen.takes = rate.map(|rate| Duration::from_secs_f64(foreseen.records as f64 / rate));
        Ok(foreseen)
    }

    fn foresee(
        &self,
        engine: &Engine,
        plan: Arc<Plan>,
        live: Option<u64>,
        replay: &Replay,
    ) -> Result<(DeploymentPlan, Arc<Plan>)> {
        let own = self.checkpoints(plan.version())?.newest().map_err(|e| {
            Error::engine(
                format!("reading the checkpoints of version {} of flow `{}`", plan.version(), self.flow),
                e,
            )
        })?;
        let beginning = match (&own, &replay.from) {
            (Some(manifest), _) => Beginning::Own(manifest),
            (None, Some(savepoint)) => Beginning::Savepoint(savepoint),
            (None, None) => Beginning::Sources,
        };
        let environment = engine.environment_to_plan_with(plan);
        let foreseen = plan::plan(&environment, live, &beginning)?;
        Ok((foreseen, environment.plan))
    }

    /// Starts a version, or goes on with it.
    pub(crate) fn deploy(&self, engine: &Engine, flow: Flow, replay: Replay) -> Result<u64> {
        let plan = Arc::new(flow.into_plan()?);
        let version = plan.version();
        let attempt = format!("deploying version {version}");
        let mut inner = self.inner.lock();
        if inner.ships.get(&version).is_some_and(|ship| ship.job.status().is_over()) {
            inner.ships.remove(&version);
        }
        let outputs = outputs_of(&plan).map_err(|problem| self.error(&attempt, problem))?;
        let sources: Vec<String> = plan.sources().map(|(name, _)| name.to_string()).collect();
        self.check_sources(&inner, version, &sources).map_err(|problem| self.error(&attempt, problem))?;
        let live = inner.record.live().filter(|live| *live != version);
        let plan = match live {
            Some(_) => {
                let (foreseen, plan) = self.foresee(engine, plan, live, &replay)?;
                if !foreseen.can_start {
                    return Err(self.error(&attempt, foreseen.problems.join("; ")));
                }
                plan
            }
            None => plan,
        };
        self.take(&mut inner, &Event::Deploy { version, outputs }, &attempt)?;
        let (follows, lines) = self.lines(&inner, version)?;
        let known = lines.iter().flatten().flat_map(offsets_of_lines).collect();
        let is_live = inner.record.live() == Some(version);
        if let Some(limit) = replay.rate_limit.filter(|_| !is_live) {
            plan.throttles().for_each(|(_, throttle)| throttle.set_limit(Some(limit)));
        }
        if replay.is_paused {
            plan.throttles().for_each(|(_, throttle)| throttle.pause());
        }
        let lines = lines.map(|lines| lines.into_iter().collect());
        let offers_cores = !is_live && replay.offers_cores;
        let setup = Setup { workers: replay.workers, offers_cores, lines };
        let job = match engine.start_plan(plan, replay.start_from(), setup) {
            Ok(job) => job,
            Err(error) => {
                let reason = error.to_string();
                self.take(&mut inner, &Event::Failed { version, reason }, &attempt)?;
                return Err(error);
            }
        };
        if is_live {
            self.live.started(&job.queries);
        }
        // From then on its topics are there, and its outputs can be read.
        if is_live && inner.record.versions.len() == 1 {
            job.wait_until(|job| !matches!(job.status(), Status::Recovering));
        }
        let ship = Ship { job, replay, sources, follows, known, close_since: None, rate: Rate::default() };
        inner.ships.insert(version, ship);
        self.changed.notify_all();
        Ok(version)
    }

    fn check_sources(
        &self,
        inner: &Inner,
        version: u64,
        sources: &[String],
    ) -> std::result::Result<(), String> {
        let Some(live) = inner.record.live().filter(|live| *live != version) else { return Ok(()) };
        let Some(ship) = inner.ships.get(&live) else { return Ok(()) };
        let sorted = |sources: &[String]| {
            let mut sources = sources.to_vec();
            sources.sort();
            sources
        };
        if sorted(&ship.sources) == sorted(sources) {
            return Ok(());
        }
        Err(format!(
            "it reads the sources {sources:?} and version {live}, which is live, {:?}: versions change at the same offsets of all that they read, \
             so they have to read the same; sources are known by their names",
            ship.sources
        ))
    }

    /// The lines of a version that is not live: the newest checkpoint of the one that is.
    fn lines(&self, inner: &Inner, version: u64) -> Result<(Option<Followed>, Option<AllLines>)> {
        let Some(live) = inner.record.live().filter(|live| *live != version) else { return Ok((None, None)) };
        let committed = match inner.ships.get(&live) {
            Some(ship) => ship.job.shared.committed(),
            None => self
                .checkpoints(live)?
                .newest()
                .map_err(|e| {
                    Error::engine(format!("reading where version {live} of flow `{}` is", self.flow), e)
                })?
                .map(Arc::new),
        };
        match committed {
            Some(manifest) => Ok((Some((live, manifest.epoch)), Some(lines_of(&manifest)?))),
            None => Ok((None, Some(AllLines::new()))),
        }
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        let opened = LocalStore::open(&self.folders.checkpoints);
        let store = opened.map_err(|e| Error::engine("opening the checkpoint store", e))?;
        Ok(Arc::new(store))
    }

    fn checkpoints(&self, version: u64) -> Result<Checkpoints> {
        let flow = FlowId { name: self.flow.clone(), version };
        Checkpoints::new(self.store()?, flow).map_err(|e| Error::engine("opening the checkpoints", e))
    }

    /// Makes a step of the record: writes it, and does what is to be done then.
    fn take(&self, inner: &mut Inner, event: &Event, attempt: &str) -> Result<()> {
        let refused = |problem: String| self.error(attempt, problem);
        if let Some(why) = &inner.poisoned {
            return Err(refused(why.clone()));
        }
        let next = inner.record.step(event).map_err(refused)?;
        if next != inner.record {
            self.file.write(&next)?;
            inner.record = next;
            tracing::info!(flow = self.flow, ?event, "deployments changed");
        }
        self.perform(inner)
    }

    /// Does what the record asks for, but for starting jobs: that takes the program of a version, which its deployer has.
    fn perform(&self, inner: &mut Inner) -> Result<()> {
        for action in inner.record.actions() {
            match action {
                Action::Publish { alias, segments } => publish(&self.aliases, &alias, &segments),
                Action::Run { .. } => {}
                Action::Stop { version } => {
                    if let Some(ship) = inner.ships.remove(&version) {
                        ship.job.resume();
                        ship.job.stop();
                        if let Err(error) = ship.job.wait() {
                            tracing::warn!(flow = self.flow, version, %error, "a version that was stopped had failed");
                        }
                    }
                }
                Action::Free { version, topics } => {
                    for topic in topics {
                        self.log
                            .delete_topic(&topic)
                            .map_err(|e| Error::engine(format!("removing topic `{topic}`"), e))?;
                    }
                    self.free(version)?;
                    let freed = inner.record.step(&Event::Freed { version });
                    let freed = freed.map_err(|problem| self.error("freeing a version", problem))?;
                    self.file.write(&freed)?;
                    inner.record = freed;
                }
            }
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Removes a version's checkpoints and local state.
    fn free(&self, version: u64) -> Result<()> {
        let failed = |e: rivermark_checkpoint::StoreError| {
            let attempt = format!("removing the checkpoints of version {version} of flow `{}`", self.flow);
            Error::engine(attempt, e)
        };
        let store = self.store()?;
        for object in store.list(&format!("{}/{version}/", self.flow)).map_err(failed)? {
            store.delete(&object.name).map_err(failed)?;
        }
        let state = self.folders.state.join(version.to_string());
        match std::fs::remove_dir_all(&state) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::engine(format!("removing the local state {}", state.display()), e))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn retire(&self, version: u64) -> Result<()> {
        self.take(&mut self.inner.lock(), &Event::Retire { version }, &format!("retiring version {version}"))
    }

    /// Stops all versions that run, each behind a last checkpoint, and waits for them.
    pub(crate) fn stop(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let ships = std::mem::take(&mut inner.ships);
        ships.values().for_each(|ship| ship.job.stop());
        // That it has failed is on record.
        let is_noted = |version: u64| inner.record.state(version) == Some(State::Failed);
        let waited = ships.into_iter().map(|(version, ship)| match ship.job.wait() {
            Err(error) if !is_noted(version) => Err(error),
            _ => Ok(()),
        });
        // All of them, whatever one of them says.
        waited.collect::<Vec<_>>().into_iter().collect()
    }

    /// Asks a version's job something.
    pub(crate) fn with_job<R>(&self, version: u64, ask: impl FnOnce(&Job) -> R) -> Option<R> {
        self.inner.lock().ships.get(&version).map(|ship| ask(&ship.job))
    }

    /// What kept a version from being promoted by itself.
    pub(crate) fn refused(&self, version: u64) -> Option<String> {
        self.inner.lock().refused.get(&version).map(|(_, why)| why.clone())
    }

    /// Waits until `done` answers true of the record; looks again whenever it changes and every few milliseconds.
    pub(crate) fn wait_until(
        &self,
        mut done: impl FnMut(&Deployments) -> bool,
        until: Option<Instant>,
    ) -> bool {
        let mut inner = self.inner.lock();
        loop {
            if done(&inner.record) {
                return true;
            }
            if until.is_some_and(|until| Instant::now() > until) {
                return false;
            }
            self.changed.wait_for(&mut inner, TICK);
        }
    }
}

/// The life of the thread.
fn watch(fleet: &Weak<Fleet>) {
    loop {
        {
            let Some(fleet) = fleet.upgrade() else { return };
            if let Err(error) = fleet.tick() {
                tracing::error!(flow = fleet.flow, %error, "deployments");
            }
        }
        std::thread::sleep(TICK);
    }
}

impl Fleet {
    fn tick(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        if inner.poisoned.is_some() {
            return Ok(());
        }
        self.notice_failures(&mut inner)?;
        self.move_lines(&mut inner)?;
        self.judge(&mut inner)?;
        self.promote_by_themselves(&mut inner);
        let now_ms = now_ms();
        self.take(&mut inner, &Event::Tick { now_ms }, "retiring what was kept long enough")
    }

    fn notice_failures(&self, inner: &mut Inner) -> Result<()> {
        let failed = |(version, ship): (&u64, &Ship)| match ship.job.status() {
            Status::Failed { failure } => Some((*version, failure)),
            _ => None,
        };
        let failed: Vec<(u64, String)> = inner.ships.iter().filter_map(failed).collect();
        for (version, reason) in failed {
            if inner.record.live() != Some(version) {
                self.take(inner, &Event::Failed { version, reason }, "noting a failure")?;
            }
        }
        Ok(())
    }

    /// Lets those who follow read as far as the live version's newest checkpoint.
    fn move_lines(&self, inner: &mut Inner) -> Result<()> {
        let Some(live) = inner.record.live() else { return Ok(()) };
        let Some(manifest) = inner.ships.get(&live).and_then(|ship| ship.job.shared.committed()) else {
            return Ok(());
        };
        let at = (live, manifest.epoch);
        let mut lines = None;
        for (_, ship) in inner.ships.iter_mut().filter(|(version, _)| **version != live) {
            if ship.follows == Some(at) {
                continue;
            }
            let lines = match &lines {
                Some(lines) => lines,
                None => lines.insert(lines_of(&manifest)?),
            };
            set_lines(&ship.job.shared, Some(lines));
            ship.known = lines.iter().flat_map(offsets_of_lines).collect();
            ship.follows = Some(at);
        }
        Ok(())
    }

    /// Who has caught up, and who has fallen behind.
    fn judge(&self, inner: &mut Inner) -> Result<()> {
        let now = Instant::now();
        let versions: Vec<u64> = inner.ships.keys().copied().collect();
        for version in versions {
            let Some(progress) = progress_of(&self.flow, inner, version, now) else { continue };
            let Some(ship) = inner.ships.get_mut(&version) else { continue };
            let wanted = ship.replay.caught_up;
            let has_line = ship.follows.is_some();
            let is_running = ship.job.status() == Status::Running;
            let is_within = |times: u32| {
                has_line
                    && is_running
                    && progress.records_behind <= wanted.records.saturating_mul(u64::from(times))
                    && progress
                        .event_time_behind
                        .is_some_and(|behind| behind <= wanted.event_time.saturating_mul(times))
            };
            let is_close = is_within(1);
            let since = ship.close_since.take().unwrap_or(now);
            ship.close_since = is_close.then_some(since);
            let event = match progress.state {
                State::Replaying if is_close && now - since >= wanted.sustained => {
                    Event::CaughtUp { version }
                }
                // Not at the first record too many: it would go to and fro.
                State::CaughtUp if !is_within(2) => Event::FellBehind { version },
                _ => continue,
            };
            self.take(inner, &event, "noting how far a version is")?;
        }
        Ok(())
    }

    fn promote_by_themselves(&self, inner: &mut Inner) {
        let now = Instant::now();
        let ready = |(version, ship): (&u64, &Ship)| {
            let is_ready =
                ship.replay.promotes_itself && inner.record.state(*version) == Some(State::CaughtUp);
            let waited = inner.refused.get(version).is_none_or(|(at, _)| now - *at > Duration::from_secs(1));
            (is_ready && waited).then_some(*version)
        };
        let Some(version) = inner.ships.iter().find_map(ready) else { return };
        match self.switch_in(inner, Switch::Promote(version)) {
            Ok(_) => drop(inner.refused.remove(&version)),
            Err(error) => {
                tracing::warn!(flow = self.flow, version, %error, "not promoted; tried again");
                inner.refused.insert(version, (now, error.to_string()));
            }
        }
    }

    pub(crate) fn progress(&self, version: u64) -> Option<Progress> {
        let mut inner = self.inner.lock();
        progress_of(&self.flow, &mut inner, version, Instant::now())
    }
}

fn outputs_of(plan: &Plan) -> std::result::Result<BTreeMap<String, OutputTopic>, String> {
    let mut outputs = BTreeMap::new();
    for output in plan.versioned_outputs() {
        let topic = OutputTopic { topic: output.topic, upserts: output.upserts };
        if outputs.insert(output.alias.clone(), topic).is_some() {
            return Err(format!("two of its sinks write output `{}`", output.alias));
        }
    }
    if outputs.is_empty() {
        return Err("it writes no output that readers could follow from version to version: end it with \
                    `LogSink::output(..)` or `LogSink::output_table(..)`"
            .into());
    }
    Ok(outputs)
}

fn bytes_of_topic(log: &Log, topic: &str) -> Option<u64> {
    let topic = log.topic(topic).ok()?;
    (0..topic.partitions()).map(|partition| topic.info(partition).ok().map(|info| info.bytes)).sum()
}

fn offsets_of_lines(
    (source, lines): (&String, &std::collections::HashMap<u32, rivermark_operators::line::Line>),
) -> Vec<((String, u32), Option<u64>)> {
    lines.iter().map(|(number, line)| ((source.clone(), *number), line.offset)).collect()
}

/// Says what readers of an alias see.
pub(crate) fn publish(aliases: &Aliases, alias: &str, segments: &[super::machine::Segment]) {
    let segment = |segment: &super::machine::Segment| {
        let at = |values: &[u64], partition: usize| values.get(partition).copied().unwrap_or(0);
        let partitions =
            segment.until.as_ref().map_or(0, Vec::len).max(segment.from.len()).max(segment.base.len());
        let range = |partition| AliasRange {
            from: at(&segment.from, partition),
            until: segment.until.as_ref().map(|until| at(until, partition)),
            base: at(&segment.base, partition),
        };
        AliasSegment { topic: segment.topic.clone(), ranges: (0..partitions).map(range).collect() }
    };
    aliases.set(alias, segments.iter().map(segment).collect());
}

fn progress_of(flow: &str, inner: &mut Inner, version: u64, now: Instant) -> Option<Progress> {
    let live = inner.record.live()?;
    let state = inner.record.state(version)?;
    let leader = inner
        .ships
        .get(&live)
        .map(|ship| (progress::offsets_of(&ship.job.shared), ship.job.metrics().watermark));
    let ship = inner.ships.get_mut(&version)?;
    let metrics = ship.job.metrics();
    ship.rate.note(now, metrics.records_read);
    let offsets = leader.as_ref().map_or(&ship.known, |(offsets, _)| offsets);
    let partitions = progress::partitions(&ship.job.shared, offsets);
    let records_behind = match version == live {
        true => metrics.backlog.unwrap_or(0),
        false => partitions.iter().map(|partition| partition.records_behind).sum(),
    };
    let live_time = leader.map_or(metrics.watermark, |(_, watermark)| watermark);
    let has_begun = metrics.watermark > Timestamp::MIN || live_time == Timestamp::MIN;
    let behind = live_time.millis().saturating_sub(metrics.watermark.millis()).max(0);
    let rate = ship.rate.per_second();
    Some(Progress {
        flow: flow.to_owned(),
        version,
        state,
        records_behind,
        bytes_behind: progress::bytes_of(&metrics, &ship.sources, records_behind),
        event_time: metrics.watermark,
        event_time_behind: has_begun.then(|| Duration::from_millis(behind as u64)),
        records_per_second: rate,
        arrives_in: match (records_behind, rate > 0.0) {
            (0, _) => Some(Duration::ZERO),
            (_, true) => Some(Duration::from_secs_f64(records_behind as f64 / rate)),
            (_, false) => None,
        },
        partitions,
    })
}

pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
