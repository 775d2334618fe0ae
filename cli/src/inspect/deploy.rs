//! `deploy`: which versions of a flow are deployed, and what the running pipeline is to do with them.

use super::compare;
use super::place::{Place, STOP_IT};
use crate::exit::{Exit, Failure, Result};
use crate::output::{Table, bytes, or_dash};
use crate::remote::{Remote, Server};
use crate::when::shown;
use clap::{Args, Subcommand};
use rivermark_engine::{DataDirectory, Deployments, Options, Version};
use serde_json::{Value, json};

/// The commands about deployments that need no code of the pipeline.
#[derive(Debug, Subcommand)]
pub(crate) enum DeployCommand {
    /// Lists the versions of flows that are deployed
    List(List),
    /// Shows what a version is and what readers of the flow's outputs see
    Show(Show),
    /// Compares what two versions have written: by the running pipeline at the same offsets, else as far as each has come
    Diff(Diff),
    /// Makes a version the live one
    Promote(Order),
    /// Makes the version before the live one live again
    Rollback(Order),
    /// Lets a version be over and frees what it has; also where no pipeline runs
    Retire(Order),
    /// Lets a version read nothing
    Pause(Order),
    /// Lets a version read again
    Resume(Order),
}

impl DeployCommand {
    pub(crate) fn run(self, place: &mut Place) -> Result<()> {
        match self {
            DeployCommand::List(list) => list.run(place),
            DeployCommand::Show(show) => show.run(place),
            DeployCommand::Diff(diff) => diff.run(place),
            DeployCommand::Promote(order) => order.send("promoting", "promote", place),
            DeployCommand::Rollback(order) => order.send("rolling back", "rollback", place),
            DeployCommand::Retire(order) => order.retire(place),
            DeployCommand::Pause(order) => order.send("pausing", "pause", place),
            DeployCommand::Resume(order) => order.send("resuming", "resume", place),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The flow [default: all]
    #[arg(short, long)]
    flow: Option<String>,
    /// Asks the running pipeline what each version is doing, and how far it is
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    server: Server,
}

fn version_json(number: u64, version: &Version, directory: &DataDirectory, flow: &str) -> Result<Value> {
    let newest = directory.checkpoints(flow, number)?.into_iter().next_back();
    Ok(json!({
        "version": number,
        "state": version.state,
        "kept_until_ms": version.kept_until_ms,
        "reason": version.reason,
        "outputs": version.outputs.iter().map(|(alias, output)| {
            json!({ "output": alias, "topic": output.topic, "upserts": output.upserts })
        }).collect::<Vec<_>>(),
        "newest_checkpoint": newest.map(|newest| json!({
            "epoch": newest.epoch.0,
            "created_at_ms": newest.created_at_ms,
            "state_bytes": newest.state_bytes,
        })),
    }))
}

fn record_json(record: &Deployments, directory: &DataDirectory, flow: &str) -> Result<Value> {
    let versions = record.versions.iter();
    let versions = versions.map(|(number, version)| version_json(*number, version, directory, flow));
    Ok(json!({
        "flow": flow,
        "live": record.live(),
        "roll_back_to": record.before(),
        "switches": record.switches,
        "versions": versions.collect::<Result<Vec<_>>>()?,
    }))
}

impl List {
    fn run(self, place: &mut Place) -> Result<()> {
        let attempt = "listing deployments";
        // Where somebody else's directory is not at hand, its server tells.
        if let (Some(remote), Some(flow)) = (self.server.find(None)?, &self.flow) {
            let listed = remote.get(attempt, &format!("/v1/flows/{flow}/deployments"))?;
            return show_remote(&listed, place);
        }
        let directory = place.directory()?;
        if self.live {
            let flow = place.flow(attempt, &directory, self.flow.as_deref())?;
            let remote = self.server.expect(attempt, &directory)?;
            let listed = remote.get(attempt, &format!("/v1/flows/{flow}/deployments"))?;
            return show_remote(&listed, place);
        }
        let flows = match &self.flow {
            Some(flow) => vec![place.flow(attempt, &directory, Some(flow))?],
            None => directory.flows()?,
        };
        let mut documents = Vec::new();
        let mut table =
            Table::new(["flow", "version", "state", "epoch", "checkpoint", "size", "kept until", "reason"]);
        for flow in flows {
            let document = record_json(&directory.deployments(&flow)?, &directory, &flow)?;
            for version in document["versions"].as_array().into_iter().flatten() {
                let newest = &version["newest_checkpoint"];
                table.row([
                    flow.clone(),
                    version["version"].to_string(),
                    version["state"].as_str().unwrap_or_default().replace('_', " "),
                    or_dash(newest["epoch"].as_u64()),
                    or_dash(newest["created_at_ms"].as_i64().map(shown)),
                    or_dash(newest["state_bytes"].as_u64().map(bytes)),
                    or_dash(version["kept_until_ms"].as_i64().map(shown)),
                    version["reason"].as_str().unwrap_or_default().to_owned(),
                ]);
            }
            documents.push(document);
        }
        let holder = directory.holder();
        if place.output.is_json() {
            return place.output.document(&json!({ "running": holder, "flows": documents }));
        }
        place.output.table(table)?;
        let running =
            holder.map_or("no pipeline runs here".to_owned(), |holder| format!("{holder} runs here"));
        place.output.line(format!("\n{running}"))?;
        place.output.flush()
    }
}

/// What a running pipeline tells of its versions.
fn show_remote(listed: &Value, place: &mut Place) -> Result<()> {
    if place.output.is_json() {
        return place.output.document(listed);
    }
    let mut table = Table::new(["version", "state", "status", "behind", "records/s"]);
    for version in listed["versions"].as_array().into_iter().flatten() {
        let progress = if version["progress"].is_object() { &version["progress"] } else { version };
        table.row([
            version["version"].to_string(),
            version["state"].as_str().unwrap_or_default().to_lowercase().replace('_', " "),
            version["status"].as_str().unwrap_or_default().to_owned(),
            or_dash(progress["records_behind"].as_u64()),
            or_dash(progress["records_per_second"].as_f64().map(|rate| format!("{rate:.0}"))),
        ]);
    }
    place.output.table(table)
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The version [default: all]
    version: Option<u64>,
    /// The flow [default: the only one there is]
    #[arg(short, long)]
    flow: Option<String>,
}

impl Show {
    fn run(self, place: &mut Place) -> Result<()> {
        let attempt = "showing deployments";
        let directory = place.directory()?;
        let flow = place.flow(attempt, &directory, self.flow.as_deref())?;
        let record = directory.deployments(&flow)?;
        check_deployed(attempt, &flow, &record, self.version)?;
        let mut document = record_json(&record, &directory, &flow)?;
        document["outputs"] = serde_json::to_value(&record.outputs).map_err(|e| Failure::of(attempt, e))?;
        if let (Some(version), Some(versions)) = (self.version, document["versions"].as_array_mut()) {
            versions.retain(|of| of["version"].as_u64() == Some(version));
        }
        if place.output.is_json() {
            return place.output.document(&document);
        }
        let live = or_dash(record.live());
        place
            .output
            .line(format!("flow `{flow}`: version {live} is live, after {} switches", record.switches))?;
        for version in document["versions"].as_array().into_iter().flatten() {
            self.line(version, place)?;
        }
        place.output.line("")?;
        let mut table = Table::new(["output", "version", "topic", "from", "until"]);
        let list = |offsets: Option<&Vec<u64>>, none: &str| match offsets {
            Some(offsets) if !offsets.is_empty() => {
                offsets.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
            }
            _ => none.to_owned(),
        };
        for (alias, segments) in &record.outputs {
            for segment in segments {
                let (from, until) =
                    (list(Some(&segment.from), "the beginning"), list(segment.until.as_ref(), "now"));
                table.row([alias.clone(), segment.version.to_string(), segment.topic.clone(), from, until]);
            }
        }
        place.output.table(table)
    }

    fn line(&self, version: &Value, place: &mut Place) -> Result<()> {
        let state = version["state"].as_str().unwrap_or_default().replace('_', " ");
        let mut line = format!("version {}: {state}", version["version"]);
        if let Some(until) = version["kept_until_ms"].as_i64() {
            line += &format!(", until {}", shown(until));
        }
        if let Some(reason) = version["reason"].as_str() {
            line += &format!(" ({reason})");
        }
        if let Some(epoch) = version["newest_checkpoint"]["epoch"].as_u64() {
            line += &format!(", checkpoint {epoch}");
        }
        place.output.line(line)
    }
}

/// Fails if nothing is deployed of a flow, or not that version.
fn check_deployed(attempt: &str, flow: &str, record: &Deployments, version: Option<u64>) -> Result<()> {
    if record.versions.is_empty() {
        return Err(Failure::missing(format!("{attempt}: no version of flow `{flow}` was ever deployed")));
    }
    match version.filter(|version| !record.versions.contains_key(version)) {
        Some(version) => {
            let known: Vec<String> = record.versions.keys().map(u64::to_string).collect();
            Err(Failure::missing(format!(
                "{attempt}: version {version} of flow `{flow}` was never deployed; there are {}",
                known.join(", ")
            )))
        }
        None => Ok(()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The version [default: the newest that is not live]
    version: Option<u64>,
    /// The version that it is compared with, at rest [default: the live one]
    #[arg(long, value_name = "VERSION")]
    with: Option<u64>,
    /// As far as each has come, also if the pipeline runs
    #[arg(long)]
    at_rest: bool,
    /// The flow [default: the only one there is]
    #[arg(short, long)]
    flow: Option<String>,
    #[command(flatten)]
    server: Server,
}

impl Diff {
    fn run(self, place: &mut Place) -> Result<()> {
        let attempt = "comparing versions";
        if let (Some(remote), Some(flow), Some(version)) = (self.server.find(None)?, &self.flow, self.version)
        {
            return self.remote(attempt, &remote, flow, version, place);
        }
        let directory = place.directory()?;
        let flow = place.flow(attempt, &directory, self.flow.as_deref())?;
        let record = directory.deployments(&flow)?;
        check_deployed(attempt, &flow, &record, self.version)?;
        let live = record.live();
        let other = record.versions.keys().rev().copied().find(|version| Some(*version) != live);
        let version = self.version.or(other).ok_or_else(|| {
            Failure::missing(format!(
                "{attempt}: flow `{flow}` has only one version, and nothing to compare it with"
            ))
        })?;
        let is_with_live = self.with.is_none() || self.with == live;
        if let Some(remote) = self.server.find(Some(&directory))?.filter(|_| !self.at_rest && is_with_live) {
            return self.remote(attempt, &remote, &flow, version, place);
        }
        let with = self.with.or(live).ok_or_else(|| {
            Failure::usage(format!("{attempt}: no version of flow `{flow}` is live; say --with VERSION"))
        })?;
        let compared = directory.compare(&flow, with, version)?;
        let compared = serde_json::to_value(compared).map_err(|e| Failure::of(attempt, e))?;
        compare::report(&compared, &mut place.output)
    }

    fn remote(
        &self,
        attempt: &str,
        remote: &Remote,
        flow: &str,
        version: u64,
        place: &mut Place,
    ) -> Result<()> {
        let compared = remote.get(attempt, &format!("/v1/flows/{flow}/deployments/{version}/compare"))?;
        compare::report(&compared, &mut place.output)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Order {
    /// The version
    version: u64,
    /// The flow [default: the only one there is]
    #[arg(short, long)]
    flow: Option<String>,
    /// Why, for those who look later
    #[arg(short, long)]
    reason: Option<String>,
    #[command(flatten)]
    server: Server,
}

impl Order {
    /// The flow that is meant, and whether its directory is at hand.
    fn flow(&self, attempt: &str, place: &Place) -> Result<(String, Option<DataDirectory>)> {
        if let (Some(flow), Some(_)) = (&self.flow, &self.server.url) {
            return Ok((flow.clone(), None));
        }
        let directory = place.directory()?;
        let flow = place.flow(attempt, &directory, self.flow.as_deref())?;
        check_deployed(attempt, &flow, &directory.deployments(&flow)?, Some(self.version))?;
        Ok((flow, Some(directory)))
    }

    fn send(&self, doing: &str, order: &str, place: &mut Place) -> Result<()> {
        let attempt = format!("{doing} version {}", self.version);
        let (flow, directory) = self.flow(&attempt, place)?;
        let remote = match (self.server.find(directory.as_ref())?, &directory) {
            (Some(remote), _) => remote,
            (None, Some(directory)) => self.server.expect(&attempt, directory)?,
            (None, None) => return Err(Failure::new(Exit::Unreachable, attempt)),
        };
        self.post(&attempt, &remote, order, &flow, place)
    }

    fn post(&self, attempt: &str, remote: &Remote, order: &str, flow: &str, place: &mut Place) -> Result<()> {
        let body = self.reason.as_ref().map_or(json!({}), |reason| json!({ "reason": reason }));
        let path = format!("/v1/flows/{flow}/deployments/{}/{order}", self.version);
        let answer = remote.post(attempt, &path, &body)?;
        if place.output.is_json() {
            return place.output.document(&answer);
        }
        let state = answer["state"].as_str().unwrap_or("done").to_lowercase().replace('_', " ");
        place.output.line(format!("version {} of flow `{flow}` is {state}", self.version))?;
        let mut table = Table::new(["output", "partition", "old rows up to", "new rows from"]);
        let cuts = answer["cut"]["outputs"].as_object().into_iter().flatten();
        for (alias, cut) in cuts {
            let of = |name: &str| cut[name].as_array().cloned().unwrap_or_default();
            for (partition, (until, from)) in of("until").iter().zip(of("from")).enumerate() {
                table.row([alias.clone(), partition.to_string(), until.to_string(), from.to_string()]);
            }
        }
        if answer["cut"]["outputs"].is_object() { place.output.table(table) } else { place.output.flush() }
    }

    /// By the running pipeline; where none runs, here.
    fn retire(&self, place: &mut Place) -> Result<()> {
        let attempt = format!("retiring version {}", self.version);
        let (flow, directory) = self.flow(&attempt, place)?;
        if let Some(remote) = self.server.find(directory.as_ref())? {
            return self.post(&attempt, &remote, "retire", &flow, place);
        }
        let engine = place.engine(&attempt, STOP_IT, Options::new())?;
        engine.retire(&flow, self.version)?;
        if place.output.is_json() {
            return place.output.document(&json!({ "version": self.version, "state": "retired" }));
        }
        place.output.line(format!("version {} of flow `{flow}` is retired", self.version))?;
        place.output.flush()
    }
}
