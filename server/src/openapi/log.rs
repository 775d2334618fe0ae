//! What is described of the log and of events.

use super::{maybe, object, operation, ref_to, text};
use crate::events::EVENTS;
use crate::records::{RECORDS, TOPICS};
use serde_json::{Map, Value as Json, json};

pub(super) fn paths() -> Vec<(&'static str, Json)> {
    let topics = operation("get", "The topics of the log", &[], &ref_to("Topics"), &[401, 404, 429, 503]);
    let records = operation(
        "get",
        "Records of a partition, from the offset `from` or the `time` on, in milliseconds since 1970; from the first one if neither is said",
        &[("from", "integer"), ("time", "integer"), ("limit", "integer")],
        &ref_to("Records"),
        &[400, 401, 404, 413, 429, 500, 503],
    );
    let events = text(
        "A sample of all jobs and versions each second, as server-sent events named `sample`; what they have may grow",
        &[401, 429],
    );
    vec![(TOPICS, topics), (RECORDS, records), (EVENTS, events)]
}

pub(super) fn schemas() -> Map<String, Json> {
    let number = || json!({ "type": "integer" });
    let string = || json!({ "type": "string" });
    let partition = object(json!({
        "partition": number(),
        "earliest": number(),
        "end": { "type": "integer", "description": "One past the last record that is committed" },
        "records": number(),
        "bytes": number(),
        "segments": number(),
        "max_timestamp_ms": maybe("integer"),
    }));
    let topic = object(json!({
        "topic": string(),
        "compacted": { "type": "boolean" },
        "partitions": { "type": "array", "items": partition },
    }));
    let mut bytes = object(json!({
        "as": { "type": "string", "enum": ["json", "text", "hex"] },
        "value": { "description": "JSON; text, or its beginning; or hexadecimal digits" },
        "bytes": { "type": "integer", "description": "How many there are, written or not" },
    }));
    bytes["type"] = json!(["object", "null"]);
    let record = object(json!({
        "offset": number(),
        "timestamp_ms": number(),
        "key": ref_to("Bytes"),
        "value": ref_to("Bytes"),
        "headers": { "type": "array", "items": object(json!({ "name": string(), "value": ref_to("Bytes") })) },
    }));
    let records = object(json!({
        "topic": string(),
        "partition": number(),
        "earliest": number(),
        "end": number(),
        "next": { "type": "integer", "description": "Where to read on" },
        "records": { "type": "array", "items": record },
    }));
    let topics = object(json!({ "topics": { "type": "array", "items": topic } }));
    let of = |(name, schema): (&str, Json)| (name.to_owned(), schema);
    [("Topics", topics), ("Records", records), ("Bytes", bytes)].map(of).into_iter().collect()
}
