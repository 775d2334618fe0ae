//! A comparison of two versions, for people.

use crate::exit::{Exit, Failure, Result};
use crate::output::{Output, Table};
use serde_json::Value;

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_default()
}

/// In how many keys two versions differ.
fn differences(comparison: &Value) -> u64 {
    let outputs = comparison["outputs"].as_array().into_iter().flatten();
    outputs.map(|of| number(of, "only_old") + number(of, "only_new") + number(of, "different")).sum()
}

/// Prints a comparison. That the versions differ is the command's outcome.
pub(crate) fn report(comparison: &Value, output: &mut Output) -> Result<()> {
    let differences = differences(comparison);
    if output.is_json() {
        output.document(comparison)?;
    } else {
        print(comparison, output)?;
    }
    output.flush()?;
    let (old, new) = (number(comparison, "old"), number(comparison, "new"));
    match differences {
        0 => Ok(()),
        n => Err(Failure::new(
            Exit::Found,
            format!("comparing versions {old} and {new}: they differ in {n} keys"),
        )),
    }
}

fn print(comparison: &Value, output: &mut Output) -> Result<()> {
    let (old, new) = (number(comparison, "old"), number(comparison, "new"));
    let flow = comparison["flow"].as_str().unwrap_or_default();
    let offsets = match comparison["same_offsets"].as_bool() {
        Some(false) => "as far as each has come, which is not the same",
        _ => "at the same offsets",
    };
    output.line(format!("flow `{flow}`, versions {old} and {new}, {offsets}\n"))?;
    let mut table =
        Table::new(["output", "keys the same", "different", "only in the old", "only in the new"]);
    let outputs = || comparison["outputs"].as_array().into_iter().flatten();
    for of in outputs() {
        let counts = ["same", "different", "only_old", "only_new"].map(|name| number(of, name).to_string());
        table.row([of["alias"].as_str().unwrap_or_default().to_owned()].into_iter().chain(counts));
    }
    output.table(table)?;
    let samples = || outputs().flat_map(|of| of["samples"].as_array().into_iter().flatten());
    if samples().next().is_none() {
        return Ok(());
    }
    output.line("")?;
    let mut table = Table::new(["key", "old", "new"]);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    samples()
        .for_each(|sample| table.row([text(&sample["key"]), text(&sample["old"]), text(&sample["new"])]));
    output.table(table)
}
