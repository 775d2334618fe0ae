//! What becomes of the versions of a flow: the record, and its steps. Pure: no disk, no clock, no job.
//!
//! 1. Everything that is decided is in one record, [`Deployments`], which is written as one file. Until it is written nothing has happened.
//! 2. An [`Event`] makes of a record the next one, or is refused with a reason ([`Deployments::step`]). An event that has been taken already
//!    changes nothing, so it may be told again after a crash.
//! 3. What has to be done is a function of the record ([`Deployments::actions`]): which versions run, what the aliases are, what is to be
//!    freed. Each action may be done any number of times. So a process that dies anywhere reads the record, does all of its actions, and is
//!    where it would have been.
//! 4. The output that readers see is a function of the record too: the segments of each alias.
//!
//! ```text
//!               caught up            promote             promote of another    grace is over, retire
//!  Replaying ─────────────▶ CaughtUp ────────▶ Live ───────────────────▶ Kept ─────────────────────▶ Retired
//!      ▲ ◀───────────────      │               ▲  │ roll back             │ roll back of the other     ▲
//!      │   fell behind         │               │  └──────▶ RolledBack ────┼────────────────────────────┤
//!      │                       ▼               └──────────────────────────┘                            │
//!      └── deploy again ── Failed ◀── a job that failed for good (not of the live version) ────────────┘
//! ```
//!
//! **Invariant:** once a version was live, exactly one is, in every record.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a version of a deployed flow is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It reads what the live version has read before it.
    Replaying,
    /// It is so close behind the live version that it can take its place.
    CaughtUp,
    /// Readers of the flow's output see what it writes.
    Live,
    /// It was live, and goes on processing for a while, so that one can roll back to it.
    Kept,
    /// It is over, and what it had is freed.
    Retired,
    /// Its job has failed for good. Deployed again it is tried again.
    Failed,
    /// It was live, and the version before it has taken its place again.
    RolledBack,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Replaying => "replaying",
            State::CaughtUp => "caught up",
            State::Live => "live",
            State::Kept => "kept",
            State::Retired => "retired",
            State::Failed => "failed",
            State::RolledBack => "rolled back",
        })
    }
}

/// A topic that a version writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutputTopic {
    /// Its name in the log.
    pub topic: String,
    /// Whether its rows are upserts by key.
    pub upserts: bool,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// What it is.
    pub state: State,
    /// What it writes, by alias.
    pub outputs: BTreeMap<String, OutputTopic>,
    /// The number of switches when it became live last.
    pub live_since: u64,
    /// Until when it is kept, in milliseconds since 1970; of a version that is [`State::Kept`].
    pub kept_until_ms: Option<i64>,
    /// Why it failed or was rolled back.
    pub reason: Option<String>,
    /// Whether what it had is freed; of a version that is [`State::Retired`].
    pub is_freed: bool,
    /// Topics to be freed with it.
    pub topics_to_free: BTreeSet<String>,
}

/// A part of an alias: the rows of a topic from some offsets on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Segment {
    /// The version that wrote it, or to which it leads, if it is a correction.
    pub version: u64,
    /// The topic.
    pub topic: String,
    /// The offset of its first row, by partition. Empty: the beginning of each.
    pub from: Vec<u64>,
    /// One past the offset of its last row, by partition; `None` for the segment that is open.
    pub until: Option<Vec<u64>>,
    /// The alias's offset of its first row, by partition. Empty: the beginning of each.
    pub base: Vec<u64>,
}

impl Segment {
    fn first_of(&self, partition: usize) -> u64 {
        self.from.get(partition).copied().unwrap_or(0)
    }

    /// The alias's offset behind its last row, by partition, if it ends there.
    fn end(&self, until: &[u64]) -> Vec<u64> {
        let end = |(partition, until): (usize, &u64)| {
            let base = self.base.get(partition).copied().unwrap_or(0);
            base + (until - self.first_of(partition))
        };
        until.iter().enumerate().map(end).collect()
    }
}

/// Where an alias passes from one version's topic to another's.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutputCut {
    /// One past the last row of the version that was live, by partition.
    pub until: Vec<u64>,
    /// The first row of the version that is live from there on, by partition.
    pub from: Vec<u64>,
    /// Between them: the topic that leads from the one's rows to the other's, and how many rows it has, by partition. Only of upserts.
    pub correction: Option<(String, Vec<u64>)>,
}

/// Where the versions change, by alias: at the same offsets of all that both read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cut {
    /// By alias.
    pub outputs: BTreeMap<String, OutputCut>,
}

/// The versions of a flow, and what its readers see. See the module's page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Deployments {
    /// The flow's name.
    pub flow: String,
    /// The versions, by number.
    pub versions: BTreeMap<u64, Version>,
    /// What each alias is, oldest segment first; the last one is open.
    pub outputs: BTreeMap<String, Vec<Segment>>,
    /// How often the live version has changed; it names corrections.
    pub switches: u64,
}

/// Something that happened, or is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Event {
    /// A version is to run beside the live one; the first is live.
    Deploy { version: u64, outputs: BTreeMap<String, OutputTopic> },
    /// A version has come close to the live one.
    CaughtUp { version: u64 },
    /// It is not close any more.
    FellBehind { version: u64 },
    /// A version takes the place of the live one, which is kept until then.
    Promote { version: u64, cut: Cut, kept_until_ms: i64 },
    /// The version that was live before takes the place of this one again.
    RollBack { version: u64, cut: Cut, reason: String },
    /// A version that is not live is to be over.
    Retire { version: u64 },
    /// What it had is freed.
    Freed { version: u64 },
    /// Its job has failed for good.
    Failed { version: u64, reason: String },
    /// Time has come so far.
    Tick { now_ms: i64 },
}

/// Something to do; any number of times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Action {
    /// The version is to run.
    Run { version: u64 },
    /// It is not to run.
    Stop { version: u64 },
    /// Readers of the alias are to see these segments. Before any version runs on behind a cut.
    Publish { alias: String, segments: Vec<Segment> },
    /// Its state, checkpoints and topics are to be removed.
    Free { version: u64, topics: BTreeSet<String> },
}

impl Deployments {
    pub(crate) fn of(flow: &str) -> Deployments {
        let (versions, outputs) = (BTreeMap::new(), BTreeMap::new());
        Deployments { flow: flow.to_owned(), versions, outputs, switches: 0 }
    }

    /// The version whose rows readers see, if one was ever deployed.
    pub fn live(&self) -> Option<u64> {
        let live = |(number, version): (&u64, &Version)| (version.state == State::Live).then_some(*number);
        self.versions.iter().find_map(live)
    }

    /// The version that one would roll back to: the one that was live last, as long as it is kept.
    pub fn before(&self) -> Option<u64> {
        let kept = |(_, version): &(&u64, &Version)| version.state == State::Kept;
        self.versions
            .iter()
            .filter(kept)
            .max_by_key(|(_, version)| version.live_since)
            .map(|(number, _)| *number)
    }

    /// What a version is.
    pub fn state(&self, version: u64) -> Option<State> {
        self.versions.get(&version).map(|version| version.state)
    }

    /// The record after an event.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn step(&self, event: &Event) -> Result<Deployments, String> {
        let mut next = self.clone();
        match event {
            Event::Deploy { version, outputs } => next.deploy(*version, outputs)?,
            Event::CaughtUp { version } => next.moved(*version, State::Replaying, State::CaughtUp),
            Event::FellBehind { version } => next.moved(*version, State::CaughtUp, State::Replaying),
            Event::Promote { version, cut, kept_until_ms } => {
                next.promote(*version, cut, *kept_until_ms)?;
            }
            Event::RollBack { version, cut, reason } => next.roll_back(*version, cut, reason)?,
            Event::Retire { version } => next.retire(*version)?,
            Event::Freed { version } => {
                if let Some(version) = next.versions.get_mut(version)
                    && version.state == State::Retired
                {
                    version.is_freed = true;
                    version.topics_to_free.clear();
                }
            }
            Event::Failed { version, reason } => next.failed(*version, reason),
            Event::Tick { now_ms } => {
                let is_over = |version: &Version| {
                    version.state == State::Kept
                        && version.kept_until_ms.is_some_and(|until| until <= *now_ms)
                };
                let over: Vec<u64> =
                    self.versions.iter().filter(|(_, v)| is_over(v)).map(|(number, _)| *number).collect();
                over.into_iter().try_for_each(|version| next.retire(version))?;
            }
        }
        Ok(next)
    }

    fn deploy(&mut self, number: u64, outputs: &BTreeMap<String, OutputTopic>) -> Result<(), String> {
        let live = self.live();
        if let Some(version) = self.versions.get_mut(&number) {
            match version.state {
                State::Retired => {
                    return Err(format!("version {number} was retired; give the flow another version"));
                }
                State::RolledBack => {
                    return Err(format!(
                        "version {number} was rolled back; correct it, and give it another version"
                    ));
                }
                State::Failed => version.state = State::Replaying,
                State::Replaying | State::CaughtUp | State::Live | State::Kept => {}
            }
            if version.outputs != *outputs {
                return Err(format!(
                    "version {number} was deployed with other outputs; give the flow another version"
                ));
            }
            return Ok(());
        }
        if let Some(live) = live {
            let kinds = |outputs: &BTreeMap<String, OutputTopic>| -> BTreeMap<String, bool> {
                outputs.iter().map(|(alias, output)| (alias.clone(), output.upserts)).collect()
            };
            if kinds(&self.versions[&live].outputs) != kinds(outputs) {
                return Err(format!(
                    "version {number} has other outputs than version {live}, which is live: readers of an output follow it from version to \
                     version, so both have to write the same ones, of the same kind"
                ));
            }
        }
        let state = if live.is_some() { State::Replaying } else { State::Live };
        if live.is_none() {
            for (alias, output) in outputs {
                let segment = Segment {
                    version: number,
                    topic: output.topic.clone(),
                    from: Vec::new(),
                    until: None,
                    base: Vec::new(),
                };
                self.outputs.insert(alias.clone(), vec![segment]);
            }
        }
        let version = Version {
            state,
            outputs: outputs.clone(),
            live_since: 0,
            kept_until_ms: None,
            reason: None,
            is_freed: false,
            topics_to_free: BTreeSet::new(),
        };
        self.versions.insert(number, version);
        Ok(())
    }

    fn moved(&mut self, version: u64, from: State, to: State) {
        if let Some(version) = self.versions.get_mut(&version)
            && version.state == from
        {
            version.state = to;
        }
    }

    fn promote(&mut self, number: u64, cut: &Cut, kept_until_ms: i64) -> Result<(), String> {
        match self.state(number) {
            Some(State::CaughtUp) => {}
            Some(State::Live) => return Ok(()),
            Some(state) => return Err(format!("version {number} is {state}, and has to be caught up")),
            None => return Err(format!("version {number} is not deployed")),
        }
        let live = self.live().ok_or("no version is live")?;
        self.switch(live, number, cut)?;
        let before = self.versions.get_mut(&live).ok_or("no version is live")?;
        (before.state, before.kept_until_ms) = (State::Kept, Some(kept_until_ms));
        Ok(())
    }

    fn roll_back(&mut self, number: u64, cut: &Cut, reason: &str) -> Result<(), String> {
        match self.state(number) {
            Some(State::Live) => {}
            Some(State::RolledBack) => return Ok(()),
            Some(state) => return Err(format!("version {number} is {state}, and not live")),
            None => return Err(format!("version {number} is not deployed")),
        }
        let to = self.before().ok_or("no version that was live before is kept any more")?;
        let live = self.live().ok_or("no version is live")?;
        self.switch(live, to, cut)?;
        let after = self.versions.get_mut(&live).ok_or("no version is live")?;
        (after.state, after.reason) = (State::RolledBack, Some(reason.to_owned()));
        Ok(())
    }

    /// Closes all aliases' segments at the cut, and opens those of `to`.
    fn switch(&mut self, from: u64, to: u64, cut: &Cut) -> Result<(), String> {
        for (alias, segments) in &mut self.outputs {
            let at = cut.outputs.get(alias).ok_or_else(|| format!("the cut says nothing of `{alias}`"))?;
            let last = segments.last_mut().filter(|last| last.version == from && last.until.is_none());
            let last = last.ok_or_else(|| format!("`{alias}` is not at version {from}"))?;
            if at.until.iter().enumerate().any(|(partition, until)| *until < last.first_of(partition)) {
                return Err(format!("the cut of `{alias}` lies before the rows that its readers have seen"));
            }
            let mut base = last.end(&at.until);
            last.until = Some(at.until.clone());
            if let Some((topic, rows)) = &at.correction {
                let correction = Segment {
                    version: to,
                    topic: topic.clone(),
                    from: vec![0; rows.len()],
                    until: Some(rows.clone()),
                    base,
                };
                base = correction.end(rows);
                segments.push(correction);
            }
            let topic = self.versions[&to].outputs[alias].topic.clone();
            segments.push(Segment { version: to, topic, from: at.from.clone(), until: None, base });
        }
        self.switches += 1;
        if let Some(version) = self.versions.get_mut(&to) {
            (version.state, version.kept_until_ms) = (State::Live, None);
            version.live_since = self.switches;
        }
        Ok(())
    }

    fn retire(&mut self, number: u64) -> Result<(), String> {
        let state = self.state(number).ok_or_else(|| format!("version {number} is not deployed"))?;
        match state {
            State::Retired => return Ok(()),
            State::Live => {
                return Err(format!("version {number} is live: promote another one, or roll back, first"));
            }
            _ => {}
        }
        let mut gone: BTreeSet<String> =
            self.versions[&number].outputs.values().map(|output| output.topic.clone()).collect();
        for segments in self.outputs.values_mut() {
            // What comes before a gap is not reached any more.
            let last = segments.iter().rposition(|segment| segment.version == number);
            let dropped = segments.drain(..last.map_or(0, |last| last + 1));
            gone.extend(dropped.map(|segment| segment.topic));
        }
        let others = self.versions.iter().filter(|(other, v)| **other != number && v.state != State::Retired);
        let used: BTreeSet<&String> =
            others.flat_map(|(_, version)| version.outputs.values().map(|output| &output.topic)).collect();
        let read = self.outputs.values().flatten().map(|segment| &segment.topic);
        let used: BTreeSet<&String> = used.into_iter().chain(read).collect();
        gone.retain(|topic| !used.contains(topic));
        if let Some(version) = self.versions.get_mut(&number) {
            version.state = State::Retired;
            version.kept_until_ms = None;
            version.topics_to_free = gone;
        }
        Ok(())
    }

    fn failed(&mut self, number: u64, reason: &str) {
        if let Some(version) = self.versions.get_mut(&number)
            && matches!(version.state, State::Replaying | State::CaughtUp | State::Kept)
        {
            (version.state, version.reason) = (State::Failed, Some(reason.to_owned()));
        }
    }

    /// What has to be done for the record to be true. Publishing comes first, freeing last.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let publish = self
            .outputs
            .iter()
            .map(|(alias, segments)| Action::Publish { alias: alias.clone(), segments: segments.clone() });
        let jobs = self.versions.iter().map(|(number, version)| match version.state {
            State::Replaying | State::CaughtUp | State::Live | State::Kept => {
                Action::Run { version: *number }
            }
            State::Failed | State::RolledBack | State::Retired => Action::Stop { version: *number },
        });
        let freed = self.versions.iter().filter(|(_, v)| v.state == State::Retired && !v.is_freed);
        let free = freed.map(|(number, version)| Action::Free {
            version: *number,
            topics: version.topics_to_free.clone(),
        });
        publish.chain(jobs).chain(free).collect()
    }

    /// What is wrong with the record, if anything is: what no sequence of steps comes to.
    pub(crate) fn fault(&self) -> Option<String> {
        let live = self.versions.values().filter(|version| version.state == State::Live).count();
        if live != usize::from(!self.versions.is_empty()) {
            return Some(format!("{live} versions are live"));
        }
        for (alias, segments) in &self.outputs {
            let open = segments.iter().filter(|segment| segment.until.is_none()).count();
            let last = segments.last().map(|segment| (segment.version, segment.until.is_none()));
            if open != 1 || last != self.live().map(|live| (live, true)) {
                return Some(format!("`{alias}` does not end with the open segment of the live version"));
            }
            for pair in segments.windows(2) {
                let end = pair[0].until.as_ref().map(|until| pair[0].end(until));
                if end.as_ref() != Some(&pair[1].base) {
                    return Some(format!("`{alias}` has a gap between two segments"));
                }
            }
            if let Some(gone) = segments.iter().find(|s| self.state(s.version) == Some(State::Retired)) {
                return Some(format!("`{alias}` has rows of version {}, which is retired", gone.version));
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "machine/explore.rs"]
mod explore;
