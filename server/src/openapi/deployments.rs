//! What is described of the versions of flows.

use super::{maybe, object, operation, ref_to};
use crate::deployments::{COMPARE, DEPLOYMENTS, PAUSE, PROMOTE, RESUME, RETIRE, ROLL_BACK};
use serde_json::{Map, Value as Json, json};

pub(super) fn paths() -> Vec<(&'static str, Json)> {
    let looking = operation(
        "get",
        "The versions of a flow: what each is, and how far it has come",
        &[],
        &ref_to("Deployments"),
        &[401, 404, 429, 503],
    );
    let comparing = operation(
        "get",
        "What a version and the live one have written, compared at the same offsets. Both stand still for a moment",
        &[],
        &ref_to("Comparison"),
        &[400, 401, 404, 409, 429, 503],
    );
    let kept = "The version before the live one becomes live again; this one, which is live, is rolled back";
    vec![
        (DEPLOYMENTS, looking),
        (COMPARE, comparing),
        (PROMOTE, change("The version becomes the live one. Waits for a cut, some seconds at most")),
        (ROLL_BACK, change(kept)),
        (RETIRE, change("The version is over, and what it had is freed")),
        (PAUSE, change("The version reads nothing until it is resumed")),
        (RESUME, change("The version reads again")),
    ]
}

fn change(summary: &str) -> Json {
    let refusals = &[400, 401, 404, 409, 413, 429, 503];
    let mut item = operation("post", summary, &[], &ref_to("Changed"), refusals);
    item["post"]["requestBody"] =
        json!({ "required": false, "content": { "application/json": { "schema": ref_to("Wish") } } });
    item
}

pub(super) fn schemas() -> Map<String, Json> {
    let number = || json!({ "type": "integer" });
    let text = || json!({ "type": "string" });
    let states = ["replaying", "caught_up", "live", "kept", "retired", "failed", "rolled_back"];
    let state = || json!({ "type": "string", "enum": states });
    let partition = object(json!({
        "source": text(),
        "partition": text(),
        "offset": maybe("integer"),
        "live_offset": maybe("integer"),
        "records_behind": number(),
    }));
    let mut progress = object(json!({
        "records_behind": number(),
        "bytes_behind": maybe("integer"),
        "event_time_ms": maybe("integer"),
        "event_time_behind_ms": maybe("integer"),
        "records_per_second": number(),
        "eta_ms": { "type": ["integer", "null"], "description": "When it will be where the live version is now; null if it stands still" },
        "partitions": { "type": "array", "items": partition },
    }));
    progress["type"] = json!(["object", "null"]);
    let version = object(json!({
        "version": number(),
        "state": state(),
        "status": maybe("string"),
        "failure": maybe("string"),
        "paused": maybe("boolean"),
        "reason": { "type": ["string", "null"], "description": "Why it failed or was rolled back" },
        "refused": { "type": ["string", "null"], "description": "Why it was not promoted by itself" },
        "kept_until_ms": maybe("integer"),
        "outputs": { "type": "object", "description": "The topic it writes, by alias", "additionalProperties": text() },
        "progress": progress,
    }));
    let numbers = || json!({ "type": "array", "items": { "type": "integer" } });
    let mut cut = object(json!({ "outputs": {
        "type": "object",
        "additionalProperties": object(json!({ "until": numbers(), "from": numbers(), "correction": { "type": ["array", "null"] } })),
    } }));
    cut["type"] = json!(["object", "null"]);
    let sample = object(json!({ "key": text(), "old": maybe("string"), "new": maybe("string") }));
    let compared = object(json!({
        "alias": text(),
        "old_rows": number(),
        "new_rows": number(),
        "same": number(),
        "only_old": number(),
        "only_new": number(),
        "different": number(),
        "samples": { "type": "array", "items": sample },
    }));
    let wish = json!({ "type": "object", "additionalProperties": false, "properties": { "reason": maybe("string") } });
    let of = |(name, schema): (&str, Json)| (name.to_owned(), schema);
    let deployments = object(json!({
        "flow": text(),
        "live": maybe("integer"),
        "before": { "type": ["integer", "null"], "description": "The version that a rollback would lead to" },
        "switches": { "type": "integer", "description": "How often the live version has changed" },
        "versions": { "type": "array", "items": version },
    }));
    let changed =
        object(json!({ "version": number(), "state": state(), "live": maybe("integer"), "cut": cut }));
    let comparison = object(json!({
        "flow": text(),
        "old": number(),
        "new": number(),
        "outputs": { "type": "array", "items": compared },
    }));
    [("Deployments", deployments), ("Wish", wish), ("Changed", changed), ("Comparison", comparison)]
        .map(of)
        .into_iter()
        .collect()
}
