//! What an audit needs before it replays: what was published, where both sides are cut, and a data directory of its own.

use super::Audit;
use super::report::AuditedInput;
use super::rows::Part;
use crate::deployment::{Places, ends_of, lines_of, places};
use crate::directory::{Directory, ScratchFolder};
use crate::engine::Engine;
use crate::environment::{Environment, Repeated, written_topics};
use crate::options::{Options, Restart};
use crate::parts;
use crate::savepoint::{Savepoint, Savepoints};
use crate::stops::Stops;
use rivermark_checkpoint::store::LocalStore;
use rivermark_checkpoint::{Checkpoints, FlowId, Manifest};
use rivermark_log::{Durability, Log, TopicOptions};
use rivermark_operators::plan::{Plan, Resources};
use rivermark_operators::rate_limit::Silence;
use rivermark_operators::sink::WrittenTopic;
use rivermark_operators::trace::Trace;
use rivermark_operators::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the newest checkpoint is looked for again that was collected while its journals were being linked.
const TRIES: usize = 10;
/// For how long the output of the newest checkpoint may be on its way to its readers.
const COMMITTED_WITHIN: Duration = Duration::from_secs(30);
/// How often a condition is looked at that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// An audit that can begin.
pub(crate) struct Prepared {
    /// Removed last.
    pub(crate) environment: Environment,
    pub(crate) from: Option<Savepoint>,
    pub(crate) scratch: Scratch,
    pub(crate) cut: Cut,
    pub(crate) outputs: Vec<Published>,
    pub(crate) inputs: Vec<AuditedInput>,
    pub(crate) not_audited: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// A data directory for the replay, and its log. Dropped in this order.
pub(crate) struct Scratch {
    pub(crate) log: Log,
    _directory: Directory,
    _folder: ScratchFolder,
}

/// The offsets at which both sides are compared.
pub(crate) struct Cut {
    pub(crate) manifest: Manifest,
    pub(crate) places: Places,
    /// Where the output of the checkpoint ended, by topic: of a savepoint, which knows it.
    ends: Option<BTreeMap<String, Vec<u64>>>,
}

/// A topic that was published.
pub(crate) struct Published {
    pub(crate) topic: String,
    /// What the cut implies, as far as it is known for sure. What may belong to it is looked up when all has been computed.
    pub(crate) parts: Vec<Part>,
    /// Whether more may belong to the cut than is known for sure.
    pub(crate) is_open: bool,
}

impl Published {
    /// Lets everything that is there by now be possible.
    pub(crate) fn look_again(&mut self, log: &Log) -> std::result::Result<(), String> {
        if self.is_open {
            let ends = ends_of(log, &self.topic)?;
            self.parts.iter_mut().zip(ends).for_each(|(part, end)| part.until = end.max(part.sure));
        }
        Ok(())
    }
}

fn refused(plan: &Plan, problem: impl Into<String>) -> Error {
    let problem = format!("version {} cannot be audited or explained: {}", plan.version(), problem.into());
    Error::Flow { flow: plan.flow().to_owned(), problem }
}

/// Makes everything ready that a replay needs. Nothing is started.
pub(crate) fn prepare(
    engine: &Engine,
    plan: Arc<Plan>,
    audit: &Audit,
    trace: Option<&Arc<Trace>>,
) -> Result<Prepared> {
    let Some(before) = plan.version().checked_sub(1) else {
        return Err(refused(&plan, "the versions of a flow that is audited count from 1"));
    };
    let resources = engine.resources();
    let written = written_topics(&plan, &resources);
    if written.is_empty() {
        return Err(refused(
            &plan,
            "it has no sink that writes a topic of the log, such as `LogSink::topic(..)`",
        ));
    }
    // Before the checkpoint is read: what is there now is of no later one.
    let ends_before = ends_of_all(engine.log(), &plan, &written)?;
    let folder = ScratchFolder::create(Some(&engine.directory().audits()))?;
    let directory = Directory::lock(folder.path())?;
    let cut = cut_of(engine, &plan, audit, &directory, before)?;
    if cut.places.is_empty() {
        return Err(refused(&plan, "it has found no partition of its sources yet"));
    }
    let outputs = published(engine.log(), &plan, audit, &cut, ends_before)?;
    if cut.ends.is_none() {
        wait_until_committed(engine.log(), &plan, &written)?;
    }
    let settings = engine.options().log.clone().durability(Durability::OsBuffered);
    let log = Log::open(directory.log(), settings)
        .map_err(|e| Error::engine(format!("opening a log in {}", directory.log().display()), e))?;
    for Published { topic, parts, .. } in &outputs {
        log.ensure_topic(topic, TopicOptions::new(parts.len() as u32))
            .map_err(|e| Error::engine(format!("making topic `{topic}` for the replay"), e))?;
    }
    let sinks = plan.committers().map(|(name, _)| name.to_string());
    let not_audited = sinks.filter(|name| !written.contains_key(name)).collect();
    let options = Options {
        workers: audit.workers.unwrap_or(engine.options().workers),
        key_groups: cut.manifest.key_groups,
        checkpoint_interval: None,
        restart: Restart::Never,
        ..engine.options().clone()
    };
    let mut environment = environment(engine, plan, options, &directory, &log, &written, trace)?;
    let mut warnings = Vec::new();
    let (inputs, partitions) = inputs(&environment, audit, &cut, &mut warnings)?;
    environment.repeats = Some(Repeated { partitions });
    set_up_sources(&environment.plan, &cut.manifest)?;
    let scratch = Scratch { log, _directory: directory, _folder: folder };
    let from = audit.from.clone();
    Ok(Prepared { environment, from, scratch, cut, outputs, inputs, not_audited, warnings })
}

fn ends_of_all(
    log: &Log,
    plan: &Plan,
    written: &BTreeMap<String, WrittenTopic>,
) -> Result<BTreeMap<String, Vec<u64>>> {
    let ends = |written: &WrittenTopic| {
        let ends = ends_of(log, &written.topic).map_err(|e| {
            refused(plan, format!("what it has published cannot be read: {e}, by running the flow"))
        })?;
        Ok((written.topic.clone(), ends))
    };
    written.values().map(ends).collect()
}

/// The offsets at which both sides are cut, with what was decided up to there: installed as the newest checkpoint of the version before, whose
/// decisions a version that begins anew repeats.
fn cut_of(engine: &Engine, plan: &Plan, audit: &Audit, directory: &Directory, before: u64) -> Result<Cut> {
    let failed = |attempt: &str, e: rivermark_checkpoint::Error| {
        Error::engine(format!("{attempt}, flow `{}`", plan.flow()), e)
    };
    let scratch = Savepoints::new(directory.savepoints());
    let (manifest, decided, ends) = match &audit.until {
        Some(savepoint) => {
            let manifest = savepoint.manifest().clone();
            if (&*manifest.flow, manifest.version) != (plan.flow(), plan.version()) {
                return Err(refused(plan, format!("{savepoint} is of version {}", manifest.version)));
            }
            let decided = scratch.keep_journals("cut", savepoint);
            let ends = manifest.output_ends.clone();
            (manifest, decided.map_err(|e| Error::engine(format!("reading {savepoint}"), e))?, Some(ends))
        }
        None => {
            let flow = FlowId { name: plan.flow().to_owned(), version: plan.version() };
            let checkpoints = Checkpoints::new(store(&engine.directory().checkpoints())?, flow)
                .map_err(|e| failed("opening its checkpoints", e))?;
            let (manifest, decided) = pin_newest(plan, &checkpoints, &scratch)?;
            (manifest, decided, None)
        }
    };
    let flow = FlowId { name: plan.flow().to_owned(), version: before };
    let checkpoints = Checkpoints::new(store(&directory.checkpoints())?, flow)
        .map_err(|e| failed("opening the checkpoints of the replay", e))?;
    let writer = checkpoints
        .fence("audit", 0, NonZeroUsize::MIN)
        .map_err(|e| failed("opening the checkpoints of the replay", e))?;
    decided
        .install(&writer, 0)
        .map_err(|e| Error::engine(format!("taking over what was decided, flow `{}`", plan.flow()), e))?;
    let mut places = places(&manifest).map_err(|e| refused(plan, e))?;
    places.retain(|(source, _), _| !plan.drops_source(source));
    Ok(Cut { manifest, places, ends })
}

fn store(folder: &std::path::Path) -> Result<Arc<LocalStore>> {
    let opened = LocalStore::open(folder);
    Ok(Arc::new(opened.map_err(|e| Error::engine(format!("opening {}", folder.display()), e))?))
}

/// The newest checkpoint, and a savepoint of the journals that it has.
fn pin_newest(plan: &Plan, checkpoints: &Checkpoints, scratch: &Savepoints) -> Result<(Manifest, Savepoint)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let newest = checkpoints
            .newest()
            .map_err(|e| Error::engine(format!("reading the checkpoints of flow `{}`", plan.flow()), e))?;
        let Some(manifest) = newest else {
            return Err(refused(
                plan,
                "it has no checkpoint yet, so nothing is published that could be wrong",
            ));
        };
        let journals = Manifest { operators: BTreeMap::new(), ..manifest.clone() };
        match scratch.take("cut", checkpoints, &journals) {
            Ok(decided) => return Ok((manifest, decided)),
            // The job has gone on, and collected it.
            Err(error) if tries < TRIES => tracing::debug!(%error, "another checkpoint is taken for the cut"),
            Err(error) => {
                let attempt = format!("keeping the newest checkpoint of flow `{}`", plan.flow());
                return Err(Error::engine(attempt, error));
            }
        }
    }
}

/// What of the topics is in the range.
fn published(
    log: &Log,
    plan: &Plan,
    audit: &Audit,
    cut: &Cut,
    ends_before: BTreeMap<String, Vec<u64>>,
) -> Result<Vec<Published>> {
    let unknown = |savepoint: &Savepoint, topic: &str| {
        let problem = format!(
            "savepoint {savepoint} does not know where `{topic}` ended when it was taken (those taken by an older program do not); \
             begin from the earliest, and go up to the newest checkpoint"
        );
        refused(plan, problem)
    };
    let mut all = Vec::new();
    for (topic, ends) in ends_before {
        let from = match audit.from.as_ref().filter(|from| from.version() == plan.version()) {
            None => vec![0; ends.len()],
            Some(from) => {
                from.manifest().output_ends.get(&topic).cloned().ok_or_else(|| unknown(from, &topic))?
            }
        };
        let sure = match (&cut.ends, &audit.until) {
            (Some(known), Some(until)) => known.get(&topic).cloned().ok_or_else(|| unknown(until, &topic))?,
            _ => ends.clone(),
        };
        if from.len() != ends.len() || sure.len() != ends.len() {
            return Err(refused(plan, format!("topic `{topic}` does not have the partitions that it had")));
        }
        let part = |(from, sure): (u64, u64)| Part { from, sure, until: sure };
        let parts: Vec<Part> = from.into_iter().zip(sure).map(part).collect();
        check_is_there(log, plan, &topic, &parts)?;
        all.push(Published { topic, parts, is_open: cut.ends.is_none() });
    }
    Ok(all)
}

/// Whether retention and compaction have left what was published.
fn check_is_there(log: &Log, plan: &Plan, topic: &str, parts: &[Part]) -> Result<()> {
    let found = log.topic(topic).map_err(|e| refused(plan, e.to_string()))?;
    for (partition, part) in (0..).zip(parts) {
        let info = found.info(partition).map_err(|e| refused(plan, e.to_string()))?;
        if part.from > part.sure || part.sure > info.end {
            let problem =
                format!("{topic}[{partition}] ends at offset {}, before what was published ended", info.end);
            return Err(refused(plan, problem));
        }
        if part.from < info.earliest {
            let problem = format!(
                "offsets {} to {} of {topic}[{partition}] are not there any more; begin from a savepoint that was taken later",
                part.from, info.earliest
            );
            return Err(refused(plan, problem));
        }
        if info.records < info.end - info.earliest {
            let problem = format!(
                "{topic}[{partition}] was compacted, and {} of its rows are not there any more",
                info.end - info.earliest - info.records
            );
            return Err(refused(plan, problem));
        }
    }
    Ok(())
}

/// Waits until nothing of the flow's output is between being stored and being visible.
fn wait_until_committed(log: &Log, plan: &Plan, written: &BTreeMap<String, WrittenTopic>) -> Result<()> {
    let until = Instant::now() + COMMITTED_WITHIN;
    loop {
        let ids = log.transactional_ids().map_err(|e| refused(plan, e.to_string()))?;
        let is_ours = |id: &str| written.values().any(|written| id.starts_with(&written.transactions));
        let Some(waits) = ids.iter().find(|info| !info.prepared.is_empty() && is_ours(&info.id)) else {
            return Ok(());
        };
        if Instant::now() > until {
            let problem = format!(
                "output of its newest checkpoint is not committed (transaction `{}`), as after a crash; start the flow, which commits it",
                waits.id
            );
            return Err(refused(plan, problem));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn environment(
    engine: &Engine,
    plan: Arc<Plan>,
    options: Options,
    directory: &Directory,
    log: &Log,
    written: &BTreeMap<String, WrittenTopic>,
    trace: Option<&Arc<Trace>>,
) -> Result<Environment> {
    let mut resources = engine.resources();
    let mut of_sinks = Resources::default();
    of_sinks.insert(log.clone());
    if let Some(trace) = trace {
        resources.insert(Arc::clone(trace));
        of_sinks.insert(Arc::clone(trace));
    }
    resources.divert_sinks(written.keys().cloned(), of_sinks);
    let savepoints = Savepoints::new(directory.savepoints());
    Environment::local(plan, &options, resources, directory, savepoints)
}

/// By source and number of a partition, where it begins.
type Begins = HashMap<(String, u32), Option<Vec<u8>>>;

/// Where each partition is read from and up to, if it is all there.
fn inputs(
    environment: &Environment,
    audit: &Audit,
    cut: &Cut,
    warnings: &mut Vec<String>,
) -> Result<(Vec<AuditedInput>, Begins)> {
    let plan = &environment.plan;
    let (mut begins, mut partitions) = (HashMap::new(), Begins::new());
    if let Some(from) = &audit.from {
        for partition in parts::positions_of(from.manifest())? {
            begins.insert((partition.source.to_string(), partition.number), partition.position);
        }
    }
    let mut inputs = Vec::new();
    for partition in parts::positions_of(&cut.manifest)? {
        let place = (partition.source.to_string(), partition.number);
        let Some(until) = cut.places.get(&place).copied() else { continue };
        let Some((name, source)) = plan.sources().find(|(name, _)| **name == partition.source) else {
            return Err(refused(plan, format!("it has no source `{}`, which was read", partition.source)));
        };
        let context = environment.connector(name);
        let begin = begins.get(&place).map(Vec::as_slice);
        let survey = source.survey(partition.number, begin, &context).map_err(|e| {
            let attempt = format!("looking for what is to be read again of {}", partition.name);
            Error::source(name, attempt, e)
        })?;
        if let Some(survey) = &survey {
            check_hole(plan, &partition.name, survey, until, begin.is_some())?;
            if survey.is_compacted {
                warnings.push(format!(
                    "{}: it is compacted; what compaction has taken since could not be read again",
                    partition.name
                ));
            }
        } else {
            warnings.push(format!("source `{name}` cannot tell whether all of {} is there", partition.name));
        }
        let (from, position) = survey.map(|survey| (survey.from, survey.position)).unzip();
        partitions.insert(place.clone(), position.flatten());
        inputs.push(AuditedInput { source: place.0, partition: partition.name, from, until });
    }
    Ok((inputs, partitions))
}

/// Whether what is to be read again of a partition is there.
fn check_hole(
    plan: &Plan,
    partition: &str,
    survey: &rivermark_operators::source::Survey,
    until: Option<u64>,
    is_known: bool,
) -> Result<()> {
    let from = survey.from;
    // Where the version began is known only of a savepoint. By itself it may have begun before what retention has taken.
    let begins = if from == survey.earliest && !is_known { 0 } else { from };
    if begins < survey.earliest {
        let problem = format!(
            "offsets {begins} to {} of {partition} are not there any more; begin from a savepoint that was taken later",
            survey.earliest
        );
        return Err(refused(plan, problem));
    }
    match until {
        Some(until) if from > until => {
            let problem = format!(
                "{partition} would be read from offset {from}, and the version has read it up to {until}: where it began is not known any \
                 more; begin from a savepoint"
            );
            Err(refused(plan, problem))
        }
        _ => Ok(()),
    }
}

/// Lets each partition be read up to the cut, as fast as it goes, whatever the clock says.
fn set_up_sources(plan: &Plan, cut: &Manifest) -> Result<()> {
    let lines = lines_of(cut)?;
    for (source, throttle) in plan.throttles() {
        throttle.set_lines(Some(lines.get(&**source).cloned().unwrap_or_default()));
        throttle.set_limit(None);
        throttle.set_silence(Silence::Unheeded);
    }
    Ok(())
}

impl Cut {
    /// Whether a checkpoint of the replay is at the cut, and every end of a run before it has been repeated.
    pub(crate) fn is_reached(&self, manifest: &Manifest) -> Result<bool> {
        let reached = places(manifest);
        let mut reached = reached.map_err(|e| Error::engine("reading a checkpoint of the replay", e))?;
        reached.retain(|place, _| self.places.contains_key(place));
        // Ends that lay ahead of the audited run itself lie behind the cut.
        let stops = Stops::of(&self.manifest)?.passed.len();
        Ok(reached == self.places && Stops::of(manifest)?.passed.len() >= stops)
    }
}
