//! The description of what the server answers, as OpenAPI 3.1. A test holds it against the server, path by path.

mod deployments;
mod log;

use crate::routes::{ENTRIES, ENTRY, FLOW, FLOWS, HEALTHZ, METRICS, OPENAPI, QUERY, READYZ, WINDOWS};
use serde_json::{Map, Value as Json, json};

/// The whole description.
pub(crate) fn document() -> Json {
    let paths = [
        (FLOWS, operation("get", "The flows that are served", &[], &ref_to("Flows"), &[401, 429])),
        (
            FLOW,
            operation(
                "get",
                "A flow: what is served of it, and its newest epoch",
                &[],
                &ref_to("Flow"),
                &[401, 404, 429],
            ),
        ),
        (
            ENTRY,
            operation(
                "get",
                "What is at a key of a state",
                &[("operator", "string")],
                &ref_to("Entry"),
                &[400, 401, 404, 429, 500, 503],
            ),
        ),
        (
            ENTRIES,
            operation(
                "get",
                "Entries of a state, in the order of their keys: from `from` on, before `to`, behind `after`, of keys that begin with `prefix`",
                &[
                    ("operator", "string"),
                    ("from", "string"),
                    ("to", "string"),
                    ("after", "string"),
                    ("prefix", "string"),
                    ("limit", "integer"),
                ],
                &ref_to("Entries"),
                &[400, 401, 404, 413, 429, 500, 503],
            ),
        ),
        (QUERY, questions()),
        (
            WINDOWS,
            operation(
                "get",
                "The open windows of a key that begin from `from_ms` on and before `to_ms`, as slices",
                &[("from_ms", "integer"), ("to_ms", "integer")],
                &ref_to("Windows"),
                &[400, 401, 404, 413, 429, 500, 503],
            ),
        ),
        (OPENAPI, operation("get", "This description", &[], &json!({ "type": "object" }), &[401, 429])),
        (METRICS, text("Metrics of jobs and server, in the format of OpenMetrics", &[401, 429])),
        (HEALTHZ, text("Whether the server runs", &[429])),
        (READYZ, text("Whether every flow can be asked", &[429, 503])),
    ];
    let paths = paths.into_iter().chain(deployments::paths()).chain(log::paths());
    let paths: Map<String, Json> =
        paths.map(|(path, item)| (path.to_owned(), with_parts(path, item))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rivermark",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The state of running jobs, and the versions of deployed flows. Every answer about state is of one stored epoch, which its member `at` names.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": all_schemas(),
        },
    })
}

fn all_schemas() -> Json {
    let mut all = schemas();
    if let Some(all) = all.as_object_mut() {
        all.extend(deployments::schemas());
        all.extend(log::schemas());
    }
    all
}

/// An object that has exactly these members.
fn object(members: Json) -> Json {
    let required: Vec<&String> =
        members.as_object().map(|members| members.keys().collect()).unwrap_or_default();
    json!({ "type": "object", "required": required, "additionalProperties": false, "properties": members })
}

/// A value of a type, or null.
fn maybe(kind: &str) -> Json {
    json!({ "type": [kind, "null"] })
}

fn ref_to(schema: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn responses(success: Json, refusals: &[u16]) -> Map<String, Json> {
    let mut responses = Map::new();
    responses.insert("200".to_owned(), success);
    // Who does not say which token has to ask in the server's own name.
    let of_names = refusals.contains(&401).then_some(&403);
    for status in refusals.iter().chain(of_names) {
        let description = match status {
            400 => "The request cannot be understood",
            401 => "There is no token, or another one",
            403 => "It is for another host, or comes from another site's page",
            409 => "The versions are not as it takes, or are being changed",
            404 => "What is asked for is not there",
            413 => "The answer or the question is larger than the limits",
            429 => "Too many requests at once",
            503 => "Not now: no epoch has been stored, or it takes too long",
            _ => "A state that is served cannot be read",
        };
        let content = json!({ "application/problem+json": { "schema": ref_to("Problem") } });
        responses.insert(status.to_string(), json!({ "description": description, "content": content }));
    }
    responses
}

fn operation(method: &str, summary: &str, params: &[(&str, &str)], schema: &Json, refusals: &[u16]) -> Json {
    let params =
        params.iter().map(|(name, kind)| json!({ "name": name, "in": "query", "schema": { "type": kind } }));
    let success =
        json!({ "description": "The answer", "content": { "application/json": { "schema": schema } } });
    json!({ method: {
        "summary": summary,
        "parameters": params.collect::<Vec<_>>(),
        "responses": responses(success, refusals),
    } })
}

fn text(summary: &str, refusals: &[u16]) -> Json {
    json!({ "get": { "summary": summary, "responses": responses(json!({ "description": "Text" }), refusals) } })
}

fn questions() -> Json {
    let refusals = &[400, 401, 404, 413, 429, 500, 503];
    let mut item =
        operation("post", "What is at keys of states, all at one epoch", &[], &ref_to("Values"), refusals);
    item["post"]["requestBody"] =
        json!({ "required": true, "content": { "application/json": { "schema": ref_to("Questions") } } });
    item
}

/// The item with the parameters that are parts of its path.
fn with_parts(path: &str, mut item: Json) -> Json {
    let parts = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parts: Vec<Json> = parts
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if !parts.is_empty() {
        item["parameters"] = Json::Array(parts);
    }
    item
}

fn schemas() -> Json {
    let served = |members: Json| {
        let mut all = json!({ "key": { "type": "string" }, "value": { "type": "string" } });
        if let (Some(all), Json::Object(members)) = (all.as_object_mut(), members) {
            all.extend(members);
        }
        json!({ "type": "array", "items": object(all) })
    };
    let at = object(json!({
        "flow": { "type": "string" },
        "version": { "type": "integer" },
        "epoch": { "type": "integer", "description": "The checkpoint that the answer is of" },
        "watermark_ms": { "type": ["integer", "null"], "description": "How far event time had come, in milliseconds since 1970" },
        "offsets": {
            "type": "object",
            "description": "By source and partition, the offset behind the last record that was read",
            "additionalProperties": { "type": "object", "additionalProperties": { "type": ["integer", "null"] } },
        },
    }));
    let mut maybe_at = at.clone();
    maybe_at["type"] = json!(["object", "null"]);
    let question = json!({
        "type": "object",
        "required": ["state", "key"],
        "additionalProperties": false,
        "properties": { "state": { "type": "string" }, "operator": { "type": ["string", "null"] }, "key": {} },
    });
    json!({
        "At": at,
        "Flows": object(json!({ "flows": { "type": "array", "items": ref_to("Flow") } })),
        "Flow": object(json!({
            "flow": { "type": "string" },
            "status": { "type": "string", "enum": ["recovering", "running", "restarting", "finished", "stopped", "cancelled", "failed"] },
            "at": maybe_at,
            "states": served(json!({ "state": { "type": "string" }, "operator": { "type": ["string", "null"] } })),
            "windows": served(json!({ "operator": { "type": "string" } })),
        })),
        "Entry": object(json!({ "at": ref_to("At"), "key": {}, "value": {} })),
        "Entries": object(json!({
            "at": ref_to("At"),
            "entries": { "type": "array", "items": object(json!({ "key": {}, "value": {} })) },
            "has_more": { "type": "boolean" },
        })),
        "Questions": object(json!({ "questions": { "type": "array", "items": question } })),
        "Values": object(json!({ "at": ref_to("At"), "values": { "type": "array", "description": "One for each question; null where nothing is" } })),
        "Windows": object(json!({
            "at": ref_to("At"),
            "key": {},
            "windows": { "type": "array", "items": object(json!({ "start_ms": { "type": "integer" }, "value": {} })) },
        })),
        "Problem": object(json!({
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
        })),
    })
}
