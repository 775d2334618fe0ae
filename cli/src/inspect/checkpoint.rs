//! `checkpoint`: which there are, what they consist of, whether they are whole.

use super::place::{At, Place, Which};
use crate::exit::{Exit, Failure, Result};
use crate::output::{Table, bytes, or_dash, progress_bar};
use crate::when::{ago, now_ms, shown};
use clap::{Args, Subcommand};
use rivermark_engine::{CheckpointSummary, DataDirectory, FilesVerified};
use serde_json::{Value, json};

/// The commands about checkpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// Lists the checkpoints of flows, newest first
    List(List),
    /// Shows what a checkpoint consists of
    Show(Show),
    /// Reads the files of checkpoints and compares them with their digests
    Verify(Verify),
}

impl CheckpointCommand {
    pub(crate) fn run(self, place: &mut Place) -> Result<()> {
        match self {
            CheckpointCommand::List(list) => list.run(place),
            CheckpointCommand::Show(show) => show.run(place),
            CheckpointCommand::Verify(verify) => verify.run(place),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The flow [default: all]
    #[arg(short, long)]
    flow: Option<String>,
    /// The version of the flow [default: all]
    #[arg(short, long)]
    version: Option<u64>,
}

/// The flows and versions that have checkpoints and are meant.
fn versions(
    attempt: &str,
    directory: &DataDirectory,
    place: &Place,
    flow: Option<&str>,
    version: Option<u64>,
) -> Result<Vec<(String, u64)>> {
    let flows = match flow {
        Some(flow) => vec![place.flow(attempt, directory, Some(flow))?],
        None => directory.flows()?,
    };
    let mut found = Vec::new();
    for flow in flows {
        for known in directory.versions(&flow)? {
            if version.is_none_or(|version| version == known) {
                found.push((flow.clone(), known));
            }
        }
    }
    Ok(found)
}

impl List {
    fn run(self, place: &mut Place) -> Result<()> {
        let directory = place.directory()?;
        let versions =
            versions("listing checkpoints", &directory, place, self.flow.as_deref(), self.version)?;
        let (mut documents, mut damaged) = (Vec::new(), Vec::new());
        let mut table = Table::new(["flow", "version", "epoch", "generation", "taken", "age", "state"]);
        let now_ms = now_ms();
        for (flow, version) in versions {
            for checkpoint in directory.checkpoints(&flow, version)?.into_iter().rev() {
                documents.push(json!({
                    "flow": flow,
                    "version": version,
                    "epoch": checkpoint.epoch.0,
                    "generation": checkpoint.generation.0,
                    "created_at_ms": checkpoint.created_at_ms,
                    "state_bytes": checkpoint.state_bytes,
                }));
                table.row([
                    flow.clone(),
                    version.to_string(),
                    checkpoint.epoch.to_string(),
                    checkpoint.generation.to_string(),
                    shown(checkpoint.created_at_ms),
                    ago(checkpoint.created_at_ms, now_ms),
                    bytes(checkpoint.state_bytes),
                ]);
            }
            damaged.extend(directory.damaged_checkpoints(&flow, version)?);
        }
        if place.output.is_json() {
            let damaged: Vec<Value> = damaged
                .iter()
                .map(|(object, problem)| json!({ "object": object, "problem": problem }))
                .collect();
            return place.output.document(&json!({ "checkpoints": documents, "damaged": damaged }));
        }
        place.output.table(table)?;
        damaged.iter().try_for_each(|(_, problem)| place.output.line(format!("damaged: {problem}")))?;
        place.output.flush()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    at: At,
}

impl Show {
    fn run(self, place: &mut Place) -> Result<()> {
        let summary = place.read("showing a checkpoint", &self.at, |checkpoint| checkpoint.summary())?;
        show(&summary, place)
    }
}

/// Shows what a checkpoint or savepoint consists of.
pub(crate) fn show(summary: &CheckpointSummary, place: &mut Place) -> Result<()> {
    if place.output.is_json() {
        return place.output.document(summary);
    }
    let CheckpointSummary { flow, version, epoch, generation, key_groups, workers, files, .. } = summary;
    let taken = shown(summary.created_at_ms);
    let size = bytes(summary.state_bytes);
    let end = if summary.is_end { ", the last of a run whose sources had ended" } else { "" };
    place
        .output
        .line(format!("flow `{flow}`, version {version}, epoch {epoch} of generation {generation}{end}"))?;
    place.output.line(format!(
        "taken {taken} by {workers} workers, {key_groups} key groups, {files} files of {size}\n"
    ))?;
    let mut table = Table::new(["source", "partition", "read to"]);
    for at in &summary.sources {
        table.row([at.source.clone(), at.partition.clone(), or_dash(at.read_to)]);
    }
    place.output.table(table)?;
    if !summary.operators.is_empty() {
        place.output.line("")?;
        let mut table = Table::new(["operator", "state", "kind", "types", "files", "size", "watermark"]);
        for operator in &summary.operators {
            let watermark = or_dash(operator.watermark_ms.map(shown));
            let (files, size) = (operator.files.to_string(), bytes(operator.bytes));
            let mut first = [operator.operator.clone(), files, size, watermark];
            for state in &operator.states {
                let [name, files, size, watermark] = std::mem::take(&mut first);
                let version =
                    if state.version > 1 { format!(" (version {})", state.version) } else { String::new() };
                let types = format!("{}{version}", state.types);
                table.row([name, state.name.clone(), state.kind.to_string(), types, files, size, watermark]);
            }
            if operator.states.is_empty() {
                let [name, files, size, watermark] = first;
                table.row([name, "-".into(), "-".into(), "-".into(), files, size, watermark]);
            }
        }
        place.output.table(table)?;
    }
    for sink in &summary.sinks {
        place.output.line(format!(
            "\nsink `{}`: {} prepared parts, committed now that this is stored",
            sink.sink, sink.prepared
        ))?;
    }
    place.output.flush()
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The flow [default: all]
    #[arg(short, long)]
    flow: Option<String>,
    /// The version of the flow [default: all]
    #[arg(short, long)]
    version: Option<u64>,
    /// Only the checkpoint of this number
    #[arg(short, long, requires = "version")]
    epoch: Option<u64>,
}

impl Verify {
    fn run(self, place: &mut Place) -> Result<()> {
        let attempt = "verifying checkpoints";
        let directory = place.directory()?;
        if let (Some(version), flow) = (self.version, &self.flow) {
            // A version that is not there is not verified.
            place.choose(attempt, &directory, &Which { flow: flow.clone(), version: Some(version) })?;
        }
        let versions = versions(attempt, &directory, place, self.flow.as_deref(), self.version)?;
        let mut results = Vec::new();
        let mut damaged = Vec::new();
        for (flow, version) in &versions {
            self.verify(&directory, flow, *version, place.output.is_json(), &mut results)?;
            for (object, problem) in directory.damaged_checkpoints(flow, *version)? {
                damaged
                    .push(json!({ "flow": flow, "version": version, "object": object, "problem": problem }));
            }
        }
        let is_damaged = !damaged.is_empty() || results.iter().any(|(.., found)| !found.damage.is_empty());
        report(&results, &damaged, place)?;
        if is_damaged {
            let advice =
                "restore the files from a copy, or start from a checkpoint or savepoint that is whole";
            return Err(Failure::new(Exit::Found, format!("{attempt}: there is damage; {advice}")));
        }
        Ok(())
    }

    fn verify(
        &self,
        directory: &DataDirectory,
        flow: &str,
        version: u64,
        is_json: bool,
        results: &mut Vec<Verified>,
    ) -> Result<()> {
        let listed = directory.checkpoints(flow, version)?;
        let mut wanted =
            listed.iter().filter(|known| self.epoch.is_none_or(|epoch| known.epoch.0 == epoch)).peekable();
        if let (Some(epoch), None) = (self.epoch, wanted.peek()) {
            return Err(Failure::missing(format!(
                "verifying checkpoints: version {version} of flow `{flow}` has no checkpoint {epoch}"
            )));
        }
        for known in wanted {
            let bar = progress_bar(known.state_bytes, is_json);
            let bar = bar.with_message(format!("{flow} {version}, epoch {}", known.epoch));
            let opened = directory.checkpoint(flow, version, Some(known.epoch.0));
            let found = opened.map(|checkpoint| checkpoint.verify_files(|bytes| bar.inc(bytes)));
            bar.finish_and_clear();
            // What retention takes away meanwhile is not damaged.
            match found {
                Ok(found) if found.damage.is_empty() => {
                    results.push((flow.to_owned(), version, known.epoch.0, found))
                }
                _ if directory.is_collected(flow, version, known.epoch) => {}
                Ok(found) => results.push((flow.to_owned(), version, known.epoch.0, found)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

type Verified = (String, u64, u64, FilesVerified);

fn report(results: &[Verified], damaged: &[Value], place: &mut Place) -> Result<()> {
    if place.output.is_json() {
        let checkpoints: Vec<Value> = results
            .iter()
            .map(|(flow, version, epoch, found)| {
                json!({
                    "flow": flow,
                    "version": version,
                    "epoch": epoch,
                    "files": found.files,
                    "bytes": found.bytes,
                    "damage": found.damage,
                })
            })
            .collect();
        return place.output.document(&json!({ "checkpoints": checkpoints, "damaged": damaged }));
    }
    let mut table = Table::new(["flow", "version", "epoch", "files", "size", "found"]);
    for (flow, version, epoch, found) in results {
        let verdict = if found.damage.is_empty() { "whole" } else { "damaged" };
        table.row([
            flow.clone(),
            version.to_string(),
            epoch.to_string(),
            found.files.to_string(),
            bytes(found.bytes),
            verdict.to_owned(),
        ]);
    }
    place.output.table(table)?;
    let problems = results.iter().flat_map(|(.., found)| &found.damage).map(|damage| damage.problem.as_str());
    let records = damaged.iter().filter_map(|record| record["problem"].as_str());
    problems.chain(records).try_for_each(|problem| place.output.line(format!("damaged: {problem}")))?;
    place.output.flush()
}
