//! One version takes the other's place; and what both have written is compared.

use super::super::ComparedOutput;
use super::super::compare::{Comparison, compare};
use super::super::machine::{Cut, Deployments, Event, OutputCut, State};
use super::super::options::Check;
use super::super::rows::write_correction;
use super::super::switch::{BothViews, Held, Side, ends_of_both};
use super::{Fleet, Inner, Switch, TICK, now_ms, publish};
use crate::queries::LiveVersion;
use rivermark_checkpoint::Epoch;
use rivermark_log::Log;
use rivermark_operators::Result;
use std::sync::Arc;
use std::time::Instant;

impl Fleet {
    /// Lets another version take the live one's place.
    pub(crate) fn switch(&self, switch: Switch) -> Result<Cut> {
        self.switch_in(&mut self.inner.lock(), switch)
    }

    pub(super) fn switch_in(&self, inner: &mut Inner, switch: Switch) -> Result<Cut> {
        let (to, attempt) = match &switch {
            Switch::Promote(to) => (Some(*to), format!("promoting version {to}")),
            Switch::RollBack(_) => (inner.record.before(), "rolling back".to_owned()),
        };
        let refused = |problem: String| self.error(&attempt, problem);
        if let Some(why) = &inner.poisoned {
            return Err(refused(why.clone()));
        }
        let live = inner.record.live().ok_or_else(|| refused("no version is live".into()))?;
        let to = to.ok_or_else(|| refused("no version that was live before is kept any more".into()))?;
        match (&switch, inner.record.state(to)) {
            (Switch::Promote(_), Some(State::CaughtUp)) | (Switch::RollBack(_), _) => {}
            (_, Some(State::Live)) => return Ok(Cut::default()),
            (_, Some(state)) => {
                return Err(refused(format!("it is {state}, and has to be caught up: see its progress")));
            }
            (_, None) => return Err(refused("it is not deployed".into())),
        }
        let Inner { record, ships, poisoned, .. } = &mut *inner;
        let side = |version: u64| match ships.get(&version) {
            Some(ship) if !ship.job.status().is_over() => Ok(Side { version, job: &ship.job }),
            _ => Err(refused(format!(
                "version {version} does not run, and both have to for a switch without a gap: deploy it (one that fails on a record: with \
                 `Replay::paused`)"
            ))),
        };
        let (leader, follower) = (side(live)?, side(to)?);
        let replay = &ships[&to].replay;
        let checks: &[Check] = if let Switch::Promote(_) = switch { &replay.checks } else { &[] };
        let pairs = pairs(record, live, to);
        let mut views = self.read_views(&pairs, !checks.is_empty()).map_err(refused)?;
        let queries = self.live.is_asked().then(|| Arc::clone(&follower.job.queries));
        if let Some(queries) = &queries
            && follower.job.shared.committed().is_some()
        {
            // Most of its state is read while all goes on. Should it not be there in time, it is not either when it matters.
            let _ = LiveVersion::prepare(queries, Epoch(0), Instant::now() + replay.held_for_at_most);
        }
        let held = Held::hold(leader, follower, replay.held_for_at_most).map_err(refused)?;
        let name = format!("c{}.v{to}.{}", record.switches + 1, now_ms());
        let cut = self.cut(&pairs, &mut views, &name).map_err(refused)?;
        if !checks.is_empty() {
            let compared = self.compared(&pairs, &views).map_err(refused)?;
            let comparison = Comparison { flow: self.flow.clone(), old: live, new: to, outputs: compared };
            for Check { name, check } in checks {
                check(&comparison).map_err(|why| refused(format!("check `{name}` vetoes it: {why}")))?;
            }
        }
        if let Some(queries) = &queries {
            let until = Instant::now() + replay.held_for_at_most.saturating_sub(held.lasted());
            match (LiveVersion::prepare(queries, held.epoch(), until), &switch) {
                (Ok(()), _) => {}
                (Err(error), Switch::Promote(_)) => return Err(refused(error.to_string())),
                // Whoever rolls back cannot wait for that: questions find no answer until it is read.
                (Err(error), Switch::RollBack(_)) => {
                    tracing::warn!(flow = self.flow, to, %error, "the state cannot be queried yet");
                }
            }
        }
        let event = match switch {
            Switch::Promote(version) => {
                let keeps_for = i64::try_from(replay.keeps_for.as_millis()).unwrap_or(i64::MAX);
                Event::Promote {
                    version,
                    cut: cut.clone(),
                    kept_until_ms: now_ms().saturating_add(keeps_for),
                }
            }
            Switch::RollBack(reason) => Event::RollBack { version: live, cut: cut.clone(), reason },
        };
        let next = record.step(&event).map_err(refused)?;
        if let Err(error) = self.file.write(&next)
            && self.file.read().ok().as_ref() != Some(record)
        {
            // Nobody knows which version the next process finds live: until there is one, no row may appear.
            let why = "the record of its deployments could not be written, and it is unknown which one is there: both versions stand still; \
                       mend the disk and start the program again";
            *poisoned = Some(why.to_owned());
            std::mem::forget(held);
            return Err(error);
        }
        let is_written = self.file.read()? == next;
        if !is_written {
            return Err(refused("the record of its deployments could not be written".into()));
        }
        *record = next;
        for (alias, segments) in &record.outputs {
            publish(&self.aliases, alias, segments);
        }
        if let Some(ship) = ships.get(&to) {
            self.live.show(&ship.job.queries, held.epoch());
            if ship.replay.rate_limit.is_some() {
                ship.job.shared.throttles().values().for_each(|throttle| throttle.set_limit(None));
            }
        }
        for (version, ship) in ships.iter() {
            ship.job.shared.offer_cores(*version != to && ship.replay.offers_cores);
        }
        let stood_still = held.lasted();
        held.swap();
        tracing::info!(flow = self.flow, from = live, to, ?stood_still, "the live version has changed");
        inner.ships.values_mut().for_each(|ship| ship.follows = None);
        self.perform(inner)?;
        Ok(cut)
    }

    /// Compares what two versions have written, at the same offsets; both go on then.
    pub(crate) fn compare(&self, version: u64) -> Result<Comparison> {
        let inner = self.inner.lock();
        let attempt = format!("comparing version {version}");
        let refused = |problem: String| self.error(&attempt, problem);
        let live = inner.record.live().ok_or_else(|| refused("no version is live".into()))?;
        let side = |version: u64| match inner.ships.get(&version) {
            Some(ship) => Ok(Side { version, job: &ship.job }),
            None => Err(refused(format!("version {version} does not run: deploy it"))),
        };
        let pairs = pairs(&inner.record, live, version);
        let mut views = self.read_views(&pairs, true).map_err(refused)?;
        let within = inner.ships.get(&version).map_or(TICK, |ship| ship.replay.held_for_at_most);
        let held = Held::hold(side(live)?, side(version)?, within).map_err(refused)?;
        let mut ends = Vec::new();
        for (pair, _) in pairs.iter().zip(&views) {
            ends.push(ends_of_both(&self.log, &pair.old, &pair.new).map_err(refused)?);
        }
        // What is read has been written; nobody has to stand still for it.
        drop(held);
        for ((pair, views), (until, from)) in pairs.iter().zip(&mut views).zip(&ends) {
            pair.read(&self.log, views, until, from).map_err(refused)?;
        }
        let outputs = self.compared(&pairs, &views).map_err(refused)?;
        Ok(Comparison { flow: self.flow.clone(), old: live, new: version, outputs })
    }

    fn compared(
        &self,
        pairs: &[Pair],
        views: &[BothViews],
    ) -> std::result::Result<Vec<ComparedOutput>, String> {
        let of = |(pair, views): (&Pair, &BothViews)| {
            compare(&self.log, &pair.alias, (&pair.old, &pair.new), views)
        };
        pairs.iter().zip(views).map(of).collect()
    }

    /// Reads what both have written until now, where that will be needed: while they run.
    fn read_views(&self, pairs: &[Pair], all: bool) -> std::result::Result<Vec<BothViews>, String> {
        let mut views = Vec::new();
        for pair in pairs {
            let mut both = BothViews::default();
            if all || pair.upserts {
                let (until, from) = ends_of_both(&self.log, &pair.old, &pair.new)?;
                pair.read(&self.log, &mut both, &until, &from)?;
            }
            views.push(both);
        }
        Ok(views)
    }

    /// Where the versions, which are held, change.
    fn cut(&self, pairs: &[Pair], views: &mut [BothViews], name: &str) -> std::result::Result<Cut, String> {
        let mut cut = Cut::default();
        for (pair, views) in pairs.iter().zip(views) {
            let (until, from) = ends_of_both(&self.log, &pair.old, &pair.new)?;
            let is_read = views.old.rows() + views.new.rows() > 0 || pair.upserts;
            if is_read {
                pair.read(&self.log, views, &until, &from)?;
            }
            let correction = if pair.upserts {
                let topic = format!("{}.{name}", pair.alias);
                let topics = (&*pair.old, &*pair.new);
                let rows = write_correction(&self.log, &topic, topics, &views.old, &views.new)?;
                Some((topic, rows))
            } else {
                None
            };
            cut.outputs.insert(pair.alias.clone(), OutputCut { until, from, correction });
        }
        Ok(cut)
    }
}

/// An output of two versions.
struct Pair {
    alias: String,
    old: String,
    new: String,
    upserts: bool,
}

impl Pair {
    fn read(
        &self,
        log: &Log,
        views: &mut BothViews,
        until: &[u64],
        from: &[u64],
    ) -> std::result::Result<(), String> {
        views.old.read(log, &self.old, until, self.upserts)?;
        views.new.read(log, &self.new, from, self.upserts)
    }
}

fn pairs(record: &Deployments, old: u64, new: u64) -> Vec<Pair> {
    let of = |version: u64| record.versions.get(&version).map(|version| &version.outputs);
    let (Some(olds), Some(news)) = (of(old), of(new)) else { return Vec::new() };
    let both = olds.iter().filter_map(|(alias, old)| Some((alias, old, news.get(alias)?)));
    both.map(|(alias, old, new)| Pair {
        alias: alias.clone(),
        old: old.topic.clone(),
        new: new.topic.clone(),
        upserts: old.upserts,
    })
    .collect()
}
