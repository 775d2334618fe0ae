//! A site: the engine on its directory, the flow's versions, the server that clients ask, and who feeds departures in.

use crate::answers::{Answers, Offsets, RowOf, have_the_same};
use crate::feeder::Feeder;
use crate::flights::{self, Delays, HourlyDelays};
use crate::flow::{COPIED, DEPARTURES, FLOW, HOURS, OUTPUT, PUNCTUALITY, copy, delays};
use rivermark::log::Position;
use rivermark::server::{RunningServer, Server};
use rivermark::{BoxError, CaughtUp, Deployment, Engine, Job, Options, Replay, State, days, millis};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than anything takes that is not broken.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often something is looked at that is waited for.
const TICK: Duration = Duration::from_millis(5);

/// Waits for something, but not for ever.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool, BoxError>) -> Result<Duration, BoxError> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > DEADLINE {
            return Err(format!("waited in vain until {what}").into());
        }
        std::thread::sleep(TICK);
    }
    Ok(begun.elapsed())
}

/// See the module's page. Fields are dropped in this order.
pub struct Site {
    feeder: Feeder,
    server: RunningServer,
    copy: Option<Job>,
    versions: BTreeMap<u64, Deployment>,
    engine: Engine,
    answers: Arc<Answers>,
}

/// What was found right.
pub struct Verified {
    /// All rows, in the order in which readers have them.
    pub rows: Vec<RowOf>,
}

impl Site {
    /// Opens a directory, and goes on with what is there: `history` departures at first.
    pub fn open(directory: &Path, answers: &Arc<Answers>, history: usize) -> Result<Site, BoxError> {
        let engine = Engine::open_with(directory, Options::new().workers(2).checkpoint_every(millis(50)))?;
        flights::append_by_origin(engine.log(), DEPARTURES, &answers.departures[..history])?;
        let live = engine.queries(FLOW);
        let server = Server::new()
            .serve::<String, _>(&live, PUNCTUALITY)
            .serve_windows::<String, Delays>(&live, HOURS)
            .start()?;
        let feeder = Feeder::start(engine.log(), answers)?;
        let (versions, answers) = (BTreeMap::new(), Arc::clone(answers));
        Ok(Site { feeder, server, copy: None, versions, engine, answers })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Deploys what runs according to the record, the live version first; version 1 if there is none. Then the other flow.
    pub fn deploy_what_was(&mut self) -> Result<(), BoxError> {
        let known = self.engine.deployments(FLOW)?;
        let live = known.live().unwrap_or(1);
        let runs = |version: &u64| {
            let is_over = |state| matches!(state, State::RolledBack | State::Retired);
            *version != live && !known.state(*version).is_none_or(is_over)
        };
        for version in [live].into_iter().chain(known.versions.keys().copied().filter(runs)) {
            self.deploy(version)?;
        }
        self.copy = Some(self.engine.start(copy())?);
        Ok(())
    }

    /// Deploys a version.
    pub fn deploy(&mut self, version: u64) -> Result<Deployment, BoxError> {
        let caught_up =
            CaughtUp::new().within_records(5_000).within_event_time(days(10)).for_at_least(millis(50));
        let replay = Replay::from_earliest().workers(1).caught_up(caught_up);
        let deployed = self.engine.deploy(delays(version), replay)?;
        self.versions.insert(version, deployed.clone());
        Ok(deployed)
    }

    /// Deploys a version, unless it was by [`Site::deploy_what_was`] or before.
    pub fn deploy_again(&mut self, version: u64) -> Result<(), BoxError> {
        if !self.versions.contains_key(&version) {
            self.deploy(version)?;
        }
        Ok(())
    }

    pub fn plan(&self, version: u64) -> Result<rivermark::DeploymentPlan, BoxError> {
        Ok(self.engine.plan(delays(version), &Replay::from_earliest().workers(1))?)
    }

    /// The version that is live, and the one that is on its way to be, if there is one.
    pub fn live_and_next(&self) -> Result<(u64, Option<u64>), BoxError> {
        let known = self.engine.deployments(FLOW)?;
        let is_next = |state| matches!(state, State::Replaying | State::CaughtUp | State::Failed);
        let next = known.versions.iter().find(|(_, version)| is_next(version.state));
        Ok((known.live().ok_or("no version is live")?, next.map(|(number, _)| *number)))
    }

    /// The number of a version that was never deployed.
    pub fn new_version(&self) -> Result<u64, BoxError> {
        Ok(self.engine.deployments(FLOW)?.versions.keys().max().map_or(1, |last| last + 1))
    }

    pub fn switches(&self) -> Result<u64, BoxError> {
        Ok(self.engine.deployments(FLOW)?.switches)
    }

    pub fn version(&self, version: u64) -> Result<&Deployment, BoxError> {
        self.versions.get(&version).ok_or_else(|| format!("version {version} does not run").into())
    }

    /// Waits until a version has caught up, and promotes it; answers how long the promotion took.
    pub fn promote(&self, version: u64, mut begins: impl FnMut()) -> Result<Duration, BoxError> {
        let next = self.version(version)?;
        let begun = Instant::now();
        loop {
            if !next.wait_for(State::CaughtUp, DEADLINE) {
                return Err(format!("version {version} has not caught up: {:?}", next.progress()).into());
            }
            begins();
            let begins = Instant::now();
            match next.promote() {
                Ok(_) => return Ok(begins.elapsed()),
                // It may have fallen behind a moment before.
                Err(error) if begun.elapsed() > DEADLINE => return Err(error.into()),
                Err(_) => {}
            }
        }
    }

    /// Feeds departures at so many days a second, up to the `until`-th of all.
    pub fn feed(&self, days_per_second: f64, until: usize) {
        self.feeder.feed(days_per_second, until);
    }

    /// Departures that have been fed.
    pub fn fed(&self) -> usize {
        self.feeder.fed()
    }

    /// Waits until all departures up to the `until`-th are in the log.
    pub fn wait_until_fed(&self, until: usize) -> Result<(), BoxError> {
        wait_for("the departures are fed", || {
            self.feeder.check()?;
            Ok(self.fed() >= until)
        })?;
        Ok(())
    }

    /// Where the log ends.
    pub fn offsets(&self) -> Result<Offsets, BoxError> {
        let topic = self.engine.log().topic(DEPARTURES)?;
        let mut offsets = Offsets::default();
        for (partition, offset) in (0..).zip(&mut offsets) {
            *offset = topic.info(partition)?.end;
        }
        Ok(offsets)
    }

    /// Waits until the live version has answered for all that is in the log.
    pub fn wait_until_read(&self) -> Result<Duration, BoxError> {
        let (wanted, live) = (self.offsets()?, self.engine.queries(FLOW));
        wait_for("the live version has read the log", || {
            let Ok(view) = live.view() else { return Ok(false) };
            let read: Vec<u64> = view.offsets().iter().map(|p| p.offset.unwrap_or(0)).collect();
            Ok(read == wanted)
        })
    }

    /// All rows as readers have them, each with the version that wrote it.
    fn rows(&self) -> Result<Vec<RowOf>, BoxError> {
        let record = self.engine.deployments(FLOW)?;
        let segments = record.outputs.get(OUTPUT).ok_or("the output is not there")?;
        let version_at = |offset: u64| {
            let segment = segments.iter().rfind(|s| s.base.first().copied().unwrap_or(0) <= offset);
            segment.map_or(0, |segment| segment.version)
        };
        let mut reader = self.engine.outputs().reader(self.engine.log(), OUTPUT, 0, Position::Earliest)?;
        let mut rows = Vec::new();
        while let Some(batch) = reader.next_batch()? {
            for row in batch {
                if row.offset != rows.len() as u64 {
                    return Err(format!("offset {} follows {} rows", row.offset, rows.len()).into());
                }
                rows.push((version_at(row.offset), serde_json::from_slice(row.value.unwrap_or_default())?));
            }
        }
        Ok(rows)
    }

    /// Waits until all is written that follows from the log, and compares it, row by row.
    pub fn verify(&self) -> Result<Verified, BoxError> {
        let offsets = self.offsets()?;
        let count = self.answers.rows_over(1, offsets).len();
        let mut rows = Vec::new();
        wait_for("all rows are written", || {
            rows = self.rows()?;
            Ok(rows.len() >= count)
        })?;
        self.answers.check_rows(&rows, offsets)?;
        let mut copied: Vec<HourlyDelays> = Vec::new();
        wait_for("all rows are copied", || {
            copied = flights::read(self.engine.log(), COPIED)?;
            Ok(copied.len() >= count)
        })?;
        let seen: Vec<HourlyDelays> = rows.iter().map(|(_, row)| row.clone()).collect();
        match have_the_same(&seen, &copied) {
            true => Ok(Verified { rows }),
            false => Err("who read along has other rows than who reads them now".into()),
        }
    }
}
