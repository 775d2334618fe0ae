//! The program that the tests run: words counted by two versions, served by as much of a server as they need. The tutorial has one to learn from,
//! `examples/21_command_line.rs`.
#![allow(clippy::unwrap_used, reason = "for tests")]

#[path = "../tests/it/http.rs"]
mod http;
#[path = "../tests/it/words.rs"]
mod words;

use rivermark::cli::{Pipeline, Running, Serving};
use rivermark::{BoxError, CaughtUp, Deployment, millis};
use serde_json::json;
use std::process::ExitCode;

fn answer(deployments: &[Deployment], request: &http::Request) -> (u16, String) {
    if request.authorization.as_deref() != Some("Bearer secret") {
        return (401, json!({ "title": "Unauthorized", "detail": "the token is another" }).to_string());
    }
    let parts: Vec<&str> = request.line.split('/').collect();
    let version = parts.get(5).and_then(|version| version.parse().ok());
    let Some(deployment) = deployments.iter().find(|deployment| Some(deployment.version()) == version) else {
        return (404, json!({ "title": "Not Found", "detail": "there is no such version" }).to_string());
    };
    let refused =
        |e: rivermark::Error| (409, json!({ "title": "Conflict", "detail": e.to_string() }).to_string());
    let done = match parts.last() {
        Some(&"compare") => {
            return deployment.compare().map_or_else(refused, |c| (200, json!(c).to_string()));
        }
        Some(&"promote") => deployment.promote().map(Some),
        Some(&"rollback") => deployment.roll_back(&request.body).map(Some),
        Some(&"retire") => deployment.retire().map(|()| None),
        _ => return (404, json!({ "title": "Not Found" }).to_string()),
    };
    done.map_or_else(refused, |cut| {
        (200, json!({ "version": version, "state": deployment.state(), "cut": cut }).to_string())
    })
}

fn serve(running: &Running<'_>) -> Result<Serving, BoxError> {
    let deployments = running.deployments.to_vec();
    Ok(Serving::new(http::serve(move |request| answer(&deployments, request)), ()).token("secret"))
}

fn main() -> ExitCode {
    let caught_up = CaughtUp::new().for_at_least(millis(50));
    Pipeline::new("words")
        .version(1, || words::count(1))
        .version(2, || words::count(2))
        .options(words::options)
        .prepare(words::prepare)
        .replay(move |_, replay| replay.caught_up(caught_up).workers(1))
        .serve(serve)
        .main()
}
