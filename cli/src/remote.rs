//! The running pipeline, over HTTP.
//!
//! 1. A pipeline that [`run`](crate::Pipeline) serves writes `control.json` into its data directory: its process, its address and, if it asks for a
//!    token, the file that the token is in, which only its owner can read. Both are gone when it ends in order.
//! 2. A command reads it, unless `--url` says where the server is, and asks. What the server refuses comes as `application/problem+json`
//!    (RFC 9457), and is the command's error.

use crate::exit::{Exit, Failure, Result};
use rivermark_engine::DataDirectory;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONTROL: &str = "control.json";
const TOKEN: &str = "control.token";
/// The variable of the environment that has a token.
pub(crate) const TOKEN_VARIABLE: &str = "RIVERMARK_TOKEN";
/// How long a server may take to be reached.
const CONNECT: Duration = Duration::from_secs(2);
/// How long it may take to answer: a switch takes checkpoints of two versions.
const ANSWER: Duration = Duration::from_secs(120);

/// The content of `control.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Control {
    pid: u32,
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<String>,
}

/// That a running pipeline can be found: removed when dropped.
#[derive(Debug)]
pub(crate) struct Announced {
    files: Vec<PathBuf>,
}

impl Announced {
    /// Writes where the pipeline's server is.
    pub(crate) fn write(root: &Path, address: SocketAddr, token: Option<&str>) -> Result<Announced> {
        let failed = |path: &Path, e: std::io::Error| Failure::of(format!("writing {}", path.display()), e);
        let mut announced = Announced { files: Vec::new() };
        if let Some(token) = token {
            let path = root.join(TOKEN);
            replace(&path, token.as_bytes(), 0o600).map_err(|e| failed(&path, e))?;
            announced.files.push(path);
        }
        let token_file = token.map(|_| TOKEN.to_owned());
        let control = Control { pid: std::process::id(), address: address.to_string(), token_file };
        let path = root.join(CONTROL);
        let text = serde_json::to_vec_pretty(&control).map_err(|e| failed(&path, e.into()))?;
        replace(&path, &text, 0o644).map_err(|e| failed(&path, e))?;
        announced.files.push(path);
        Ok(announced)
    }

    /// Takes away what a process that was killed has left.
    pub(crate) fn clear(root: &Path) {
        drop(Announced { files: vec![root.join(CONTROL), root.join(TOKEN)] });
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        for file in self.files.iter().rev() {
            // If it stays, whoever reads it finds that its process is gone.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Makes a file be these bytes: the old ones or the new ones, whatever crashes when.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    // A file that was left over has the mode it had.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Where the server of a pipeline is, if not where `control.json` says.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Server {
    /// Where the pipeline's server is, as http://127.0.0.1:8080 [default: as its data directory says]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The server's token [default: $RIVERMARK_TOKEN, or as the data directory says]
    #[arg(long)]
    pub(crate) token: Option<String>,
}

/// A running pipeline.
pub(crate) struct Remote {
    url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Server {
    /// The running pipeline; `None` if nothing says where it is.
    ///
    /// # Errors
    /// What says where it is cannot be read.
    pub(crate) fn find(&self, directory: Option<&DataDirectory>) -> Result<Option<Remote>> {
        let variable = || std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let token = self.token.clone().or_else(variable);
        if let Some(url) = &self.url {
            return Ok(Some(Remote::at(url.trim_end_matches('/').to_owned(), token)));
        }
        let Some(directory) = directory else { return Ok(None) };
        let path = directory.path().join(CONTROL);
        let failed =
            |path: &Path, problem: String| Failure::of(format!("reading {}", path.display()), problem);
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|e| failed(&path, e.to_string()))?,
        };
        // What a process that was killed has left leads nowhere.
        if directory.holder().is_none() {
            return Ok(None);
        }
        let control: Control = serde_json::from_slice(&text).map_err(|e| failed(&path, e.to_string()))?;
        let token = match (token, &control.token_file) {
            (None, Some(file)) => {
                let path = directory.path().join(file);
                Some(std::fs::read_to_string(&path).map_err(|e| failed(&path, e.to_string()))?)
            }
            (token, _) => token,
        };
        Ok(Some(Remote::at(format!("http://{}", control.address), token)))
    }

    /// The running pipeline.
    ///
    /// # Errors
    /// There is none, or it cannot be asked.
    pub(crate) fn expect(&self, attempt: &str, directory: &DataDirectory) -> Result<Remote> {
        if let Some(remote) = self.find(Some(directory))? {
            return Ok(remote);
        }
        let root = directory.path().display();
        let problem = match directory.holder() {
            Some(holder) => {
                format!("{holder} runs on {root} and serves no HTTP; say --url if its server is elsewhere")
            }
            None => format!(
                "no pipeline runs on {root}; start it with the command `run` of its program, or say --url"
            ),
        };
        Err(Failure::new(Exit::Unreachable, format!("{attempt}: {problem}")))
    }
}

impl Remote {
    fn at(url: String, token: Option<String>) -> Remote {
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(ANSWER))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Remote { url, token, agent: agent.into() }
    }

    /// Asks for something.
    pub(crate) fn get(&self, attempt: &str, path: &str) -> Result<Value> {
        let mut request = self.agent.get(format!("{}{path}", self.url)).header("Accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.trim()));
        }
        self.answer(attempt, request.call())
    }

    /// Wants something done.
    pub(crate) fn post(&self, attempt: &str, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let mut request =
            request.header("Accept", "application/json").header("Content-Type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.trim()));
        }
        self.answer(attempt, request.send(body.to_string()))
    }

    fn answer(
        &self,
        attempt: &str,
        answered: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value> {
        let url = &self.url;
        let unreachable = |e: ureq::Error| {
            Failure::new(
                Exit::Unreachable,
                format!("{attempt}: asking the pipeline at {url}: {e}; is it running there?"),
            )
        };
        let mut response = answered.map_err(unreachable)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(unreachable)?;
        let body: Option<Value> = serde_json::from_str(&text).ok();
        if (200..300).contains(&status) {
            return body.ok_or_else(|| {
                Failure::of(attempt, format!("the pipeline at {url} answered what is no JSON"))
            });
        }
        Err(Failure::new(exit_of(status), format!("{attempt}: {}", problem(status, body.as_ref(), url))))
    }
}

/// What the status of a refusal means for a command.
fn exit_of(status: u16) -> Exit {
    match status {
        404 => Exit::Missing,
        409 | 429 | 503 => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// A problem of RFC 9457 as a sentence.
fn problem(status: u16, body: Option<&Value>, url: &str) -> String {
    let field = |name: &str| {
        body.and_then(|body| body.get(name)).and_then(Value::as_str).filter(|text| !text.is_empty())
    };
    let advice = match status {
        401 | 403 => "; say --token, or put it into $RIVERMARK_TOKEN",
        _ => "",
    };
    match (field("title"), field("detail")) {
        (Some(title), Some(detail)) if !detail.contains(title) => format!("{title}: {detail}{advice}"),
        (_, Some(text)) | (Some(text), None) => format!("{text}{advice}"),
        (None, None) => format!("the server at {url} answered with status {status}{advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_is_a_sentence_with_what_to_do() {
        let body = json!({ "title": "Conflict", "detail": "version 2 is replaying", "status": 409 });
        assert_eq!(problem(409, Some(&body), "u"), "Conflict: version 2 is replaying");
        assert_eq!(
            problem(401, Some(&json!({ "title": "no token" })), "u"),
            "no token; say --token, or put it into $RIVERMARK_TOKEN"
        );
        assert_eq!(problem(500, None, "http://x"), "the server at http://x answered with status 500");
    }

    #[test]
    fn a_token_can_be_read_by_its_owner_alone_and_is_gone_at_the_end() {
        let root = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:80".parse().unwrap();
        let announced = Announced::write(root.path(), address, Some("secret")).unwrap();
        let mode = std::fs::metadata(root.path().join(TOKEN)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let control: Control =
            serde_json::from_slice(&std::fs::read(root.path().join(CONTROL)).unwrap()).unwrap();
        assert_eq!((control.address.as_str(), control.token_file.as_deref()), ("127.0.0.1:80", Some(TOKEN)));
        drop(announced);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
