//! Which request gets which answer.

use crate::answer::{Refusal, at, body, object};
use crate::deployment_metrics::Versions;
use crate::deployments::{self, DeployedFlows, Gate, SeenVersions};
use crate::events::{self, EVENTS, Samples};
use crate::guard;
use crate::limits::Limits;
use crate::metrics::{Requests, registry};
use crate::openapi;
use crate::records;
use crate::served::{ServedState, ServedWindows, Wanted};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, Response, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use rivermark_engine::{Epoch, Queries, StateKind, Status, View};
use rivermark_log::Log;
use rivermark_operators::Timestamp;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

pub(crate) const FLOWS: &str = "/v1/flows";
pub(crate) const FLOW: &str = "/v1/flows/{flow}";
pub(crate) const ENTRY: &str = "/v1/flows/{flow}/states/{state}/entries/{key}";
pub(crate) const ENTRIES: &str = "/v1/flows/{flow}/states/{state}/entries";
pub(crate) const QUERY: &str = "/v1/flows/{flow}/query";
pub(crate) const WINDOWS: &str = "/v1/flows/{flow}/windows/{operator}/{key}";
pub(crate) const OPENAPI: &str = "/openapi.json";
pub(crate) const METRICS: &str = "/metrics";
pub(crate) const HEALTHZ: &str = "/healthz";
pub(crate) const READYZ: &str = "/readyz";

/// What is served of a flow.
pub(crate) struct Flow {
    pub(crate) queries: Queries,
    states: Vec<(Option<String>, Box<dyn ServedState>)>,
    pub(crate) windows: Vec<Box<dyn ServedWindows>>,
    /// What answers say of the newest epoch of a version, as it was written last.
    at: Mutex<Option<Written>>,
}

/// A version and an epoch of it, and what answers say of that.
type Written = ((u64, Epoch), Arc<str>);

/// A page that is served: which paths are its own, and what answers them.
pub(crate) type Page = (fn(&str) -> bool, fn() -> Router<Arc<Shared>>);

/// What all requests share.
pub(crate) struct Shared {
    flows: BTreeMap<String, Flow>,
    pub(crate) deployed: DeployedFlows,
    pub(crate) seen: SeenVersions,
    pub(crate) gate: Gate,
    /// Jobs that are shown and of which no state is served.
    pub(crate) jobs: Vec<Queries>,
    /// Until the server ends.
    pub(crate) log: Mutex<Option<Log>>,
    pub(crate) samples: Samples,
    pub(crate) page: Option<Page>,
    tokens: Vec<String>,
    /// Names of this server beside its addresses.
    pub(crate) hosts: Vec<String>,
    pub(crate) limits: Limits,
    registry: Registry,
    requests: Requests,
    /// Requests that may begin.
    room: Semaphore,
    scans: Arc<Semaphore>,
}

pub(crate) type Answer = Result<Response<Body>, Refusal>;
pub(crate) type Params = Result<Query<Vec<(String, String)>>, QueryRejection>;
pub(crate) type Parts<T> = Result<Path<T>, PathRejection>;

impl Flow {
    pub(crate) fn new(queries: Queries) -> Self {
        Self { queries, states: Vec::new(), windows: Vec::new(), at: Mutex::default() }
    }

    pub(crate) fn add(&mut self, operator: Option<String>, state: Box<dyn ServedState>) {
        self.states.push((operator, state));
    }

    /// The newest view, if there is one now: no request waits for the first.
    fn newest(&self) -> rivermark_operators::Result<View> {
        self.queries.view_from(Epoch(0), Duration::ZERO)
    }

    /// The newest view, and what answers say of it.
    fn view(&self) -> Result<(View, Arc<str>), Refusal> {
        let view = self.newest().map_err(|error| Refusal::Unavailable(error.to_string()))?;
        // A poisoned lock has a text in it that is as good as ever.
        let mut written = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (view.version(), view.epoch());
        match &*written {
            Some((known, text)) if *known == of => Ok((view, Arc::clone(text))),
            _ => {
                let text: Arc<str> = at(&view).to_string().into();
                *written = Some((of, Arc::clone(&text)));
                Ok((view, text))
            }
        }
    }

    /// The state of a name, and its operator.
    fn state<'a>(
        &'a self,
        view: &'a View,
        name: &str,
        operator: Option<&str>,
    ) -> Result<(&'a str, &'a dyn ServedState), Refusal> {
        let of_name = self.states.iter().filter(|(_, state)| state.name() == name);
        let mut found: Vec<(&str, &dyn ServedState)> = Vec::new();
        for (only, state) in of_name {
            let having = operators_with(view, name).into_iter();
            let having = having.filter(|having| only.as_ref().is_none_or(|only| only == having));
            let having = having.filter(|having| operator.is_none_or(|operator| operator == *having));
            found.extend(having.map(|operator| (operator, &**state)));
        }
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(Refusal::NotFound(self.no_such_state(view, name, operator))),
            several => {
                let operators: Vec<&str> = several.iter().map(|(operator, _)| *operator).collect();
                let detail = format!(
                    "operators {} have a state `{name}`; say which by `operator`",
                    quoted(&operators)
                );
                Err(Refusal::Malformed(detail))
            }
        }
    }

    fn no_such_state(&self, view: &View, name: &str, operator: Option<&str>) -> String {
        let served: Vec<&str> = self.states.iter().map(|(_, state)| state.name()).collect();
        let of = operator.map(|operator| format!(" of operator `{operator}`")).unwrap_or_default();
        format!("{view} has no state `{name}`{of} that is served; of the flow are served {}", quoted(&served))
    }

    /// What a description of the flow says.
    fn describe(&self) -> Json {
        let states = self.states.iter().map(|(operator, state)| {
            let (key, value) = state.types();
            json!({ "state": state.name(), "operator": operator, "key": key, "value": value })
        });
        let windows = self.windows.iter().map(|windows| {
            let (key, value) = windows.types();
            json!({ "operator": windows.operator(), "key": key, "value": value })
        });
        json!({
            "flow": self.queries.flow(),
            "status": status(&self.queries.status()),
            "at": self.newest().ok().map(|view| at(&view)),
            "states": states.collect::<Vec<_>>(),
            "windows": windows.collect::<Vec<_>>(),
        })
    }
}

fn operators_with<'a>(view: &'a View, name: &str) -> Vec<&'a str> {
    let is_of_a_handle = |kind| !matches!(kind, StateKind::Window | StateKind::Timers);
    let has = |operator: &&str| {
        view.states(operator).iter().any(|state| state.name == name && is_of_a_handle(state.kind))
    };
    view.operators().into_iter().filter(has).collect()
}

pub(crate) fn quoted(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        names => format!("`{}`", names.join("`, `")),
    }
}

pub(crate) fn status(status: &Status) -> &'static str {
    match status {
        Status::Recovering => "recovering",
        Status::Running => "running",
        Status::Restarting { .. } => "restarting",
        Status::Finished => "finished",
        Status::Stopped => "stopped",
        Status::Cancelled => "cancelled",
        Status::Failed { .. } => "failed",
    }
}

impl Shared {
    pub(crate) fn new(flows: BTreeMap<String, Flow>, tokens: Vec<String>, limits: Limits) -> Self {
        let (deployed, gate, hosts, jobs) = (DeployedFlows::new(), Gate::default(), Vec::new(), Vec::new());
        let samples = Samples::new(limits.listeners);
        let seen = SeenVersions::default();
        let (mut registry, requests) = registry(flows.values().map(|flow| flow.queries.clone()).collect());
        registry.register_collector(Box::new(Versions { seen: Arc::clone(&seen) }));
        let (room, scans) = (Semaphore::new(limits.requests), Arc::new(Semaphore::new(limits.scans)));
        Self {
            flows,
            deployed,
            seen,
            gate,
            jobs,
            log: Mutex::default(),
            samples,
            page: None,
            tokens,
            hosts,
            limits,
            registry,
            requests,
            room,
            scans,
        }
    }

    fn flow(&self, name: &str) -> Result<&Flow, Refusal> {
        self.flows.get(name).ok_or_else(|| {
            let served: Vec<&str> = self.flows.keys().map(String::as_str).collect();
            Refusal::NotFound(format!("there is no flow `{name}`; served are {}", quoted(&served)))
        })
    }

    /// What can be asked about jobs.
    pub(crate) fn queries(&self) -> impl Iterator<Item = &Queries> {
        self.flows.values().map(|flow| &flow.queries).chain(&self.jobs)
    }

    /// Whether a path is the page's own, which holds no secret.
    fn is_asset(&self, path: &str) -> bool {
        self.page.is_some_and(|(is_asset, _)| is_asset(path))
    }

    /// Why a request is not for this server, if it is not.
    fn is_not_addressed(&self, request: &Request) -> Option<String> {
        let matters = self.tokens.is_empty() && ![HEALTHZ, READYZ].contains(&request.uri().path());
        matters.then(|| guard::is_not_addressed(request.headers(), &self.hosts)).flatten()
    }

    fn lets_in(&self, request: &Request) -> bool {
        let path = request.uri().path();
        if self.tokens.is_empty() || [HEALTHZ, READYZ].contains(&path) || self.is_asset(path) {
            return true;
        }
        let sent =
            request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let Some((scheme, token)) = sent.split_at_checked(b"Bearer ".len()) else { return false };
        // All of them, whatever is found: the time tells nothing.
        let is_one = self.tokens.iter().fold(false, |found, known| found | is_same(known.as_bytes(), token));
        scheme.eq_ignore_ascii_case(b"Bearer ") & is_one
    }
}

/// Whether two secrets are the same, in a time that depends on their lengths alone.
fn is_same(known: &[u8], sent: &[u8]) -> bool {
    let differences =
        known.iter().zip(sent).fold(0, |differences, (known, sent)| differences | (known ^ sent));
    known.len() == sent.len() && differences == 0
}

/// The paths, what answers them, and what stands before all of them.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let page = shared.page.map_or_else(Router::new, |(_, routes)| routes());
    page.route(FLOWS, get(flows))
        .route(FLOW, get(flow))
        .route(ENTRY, get(entry))
        .route(ENTRIES, get(entries))
        .route(QUERY, post(query))
        .route(WINDOWS, get(windows))
        .route(OPENAPI, get(async || body(openapi::document().to_string().into_bytes())))
        .route(METRICS, get(metrics))
        .route(HEALTHZ, get(async || "ok\n"))
        .route(READYZ, get(readyz))
        .route(EVENTS, get(events::listen))
        .merge(deployments::routes(&shared))
        .merge(records::routes())
        .fallback(async || {
            Refusal::NotFound(format!("there is no such path; {OPENAPI} describes those that there are"))
        })
        .layer(from_fn_with_state(Arc::clone(&shared), admit))
        .with_state(shared)
}

/// Lets a request in, or refuses it, and counts it.
async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response<Body> {
    let begun = Instant::now();
    shared.requests.at_once.inc();
    let mut response = match shared.room.try_acquire() {
        Err(_) => {
            let detail = format!("{} requests are being answered; try again", shared.limits.requests);
            Refusal::TooMany(detail).into_response()
        }
        Ok(_) if !shared.lets_in(&request) => Refusal::Unauthorized.into_response(),
        Ok(_room) => match shared.is_not_addressed(&request) {
            Some(why) => Refusal::Forbidden(why).into_response(),
            None => next.run(request).await,
        },
    };
    // What a record or a key holds is never taken for a page.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    shared.requests.at_once.dec();
    shared.requests.answered(response.status().as_u16(), begun.elapsed());
    response
}

async fn flows(State(shared): State<Arc<Shared>>) -> Answer {
    let flows: Vec<Json> = shared.flows.values().map(Flow::describe).collect();
    Ok(body(json!({ "flows": flows }).to_string().into_bytes()))
}

async fn flow(State(shared): State<Arc<Shared>>, path: Parts<String>) -> Answer {
    let Path(name) = path.map_err(malformed_path)?;
    Ok(body(shared.flow(&name)?.describe().to_string().into_bytes()))
}

async fn entry(
    State(shared): State<Arc<Shared>>,
    path: Parts<(String, String, String)>,
    params: Params,
) -> Answer {
    let Path((flow, state, key)) = path.map_err(malformed_path)?;
    let [operator] = named(params, ["operator"])?;
    let flow = shared.flow(&flow)?;
    let (view, at) = flow.view()?;
    let (operator, served) = flow.state(&view, &state, operator.as_deref())?;
    // At most some searches in memory and a row from the disk: not worth another thread.
    match served.get(&view, operator, &key)? {
        Some((key, value)) => Ok(body(object(&at, &[("key", &key), ("value", &value)]))),
        None => {
            let detail = format!("state `{state}` of operator `{operator}` has nothing at `{key}`, {view}");
            Err(Refusal::NotFound(detail))
        }
    }
}

async fn entries(State(shared): State<Arc<Shared>>, path: Parts<(String, String)>, params: Params) -> Answer {
    let Path((flow, state)) = path.map_err(malformed_path)?;
    let names = ["operator", "from", "to", "after", "prefix", "limit"];
    let [operator, from, to, after, prefix, limit] = named(params, names)?;
    let limit = limit.map(|limit| entries_limit(&limit, &shared.limits)).transpose()?;
    let until = Instant::now() + shared.limits.time;
    shared.flow(&flow)?;
    scan(Arc::clone(&shared), move || {
        let flow = shared.flow(&flow)?;
        let (view, at) = flow.view()?;
        let (operator, served) = flow.state(&view, &state, operator.as_deref())?;
        let wanted = Wanted {
            from: from.as_deref(),
            to: to.as_deref(),
            after: after.as_deref(),
            prefix: prefix.as_deref(),
            limit,
        };
        let page = served.page(&view, operator, &wanted, &shared.limits, until)?;
        let has_more = page.has_more.to_string();
        Ok(body(object(&at, &[("entries", &page.entries), ("has_more", has_more.as_bytes())])))
    })
    .await
}

fn entries_limit(limit: &str, limits: &Limits) -> Result<usize, Refusal> {
    match limit.parse() {
        Ok(0) | Err(_) => Err(Refusal::Malformed(format!("`limit` is `{limit}`, not a number from 1 on"))),
        Ok(limit) if limit > limits.entries => Err(Refusal::TooLarge(format!(
            "`limit` is {limit}; an answer has at most {} entries",
            limits.entries
        ))),
        Ok(limit) => Ok(limit),
    }
}

/// Looks at a whole state, on a thread that may take its time, if there is one.
pub(crate) async fn scan(shared: Arc<Shared>, look: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let Ok(permit) = Arc::clone(&shared.scans).try_acquire_owned() else {
        let detail =
            format!("{} requests look at whole states or the log already; try again", shared.limits.scans);
        return Err(Refusal::TooMany(detail));
    };
    let looked = tokio::task::spawn_blocking(move || {
        let answer = look();
        drop(permit);
        answer
    });
    looked.await.unwrap_or_else(|error| Err(Refusal::Failed(format!("looking: {error}"))))
}

/// The body of a request, within the limits.
pub(crate) async fn read_body(request: Request, limits: &Limits) -> Result<Bytes, Refusal> {
    let most = limits.body;
    let sent = tokio::time::timeout(limits.time, to_bytes(request.into_body(), most)).await;
    let sent = sent.map_err(|_| Refusal::Unavailable("the body has not come in time".to_owned()))?;
    sent.map_err(|_| Refusal::TooLarge(format!("a body has at most {most} bytes")))
}

/// A question of a `POST`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    state: String,
    operator: Option<String>,
    key: Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Questions {
    questions: Vec<Question>,
}

async fn query(State(shared): State<Arc<Shared>>, path: Parts<String>, request: Request) -> Answer {
    let Path(name) = path.map_err(malformed_path)?;
    let flow = shared.flow(&name)?;
    let Limits { questions: most_questions, bytes: most_bytes, .. } = shared.limits;
    let sent = read_body(request, &shared.limits).await?;
    let asked: Questions =
        serde_json::from_slice(&sent).map_err(|error| Refusal::Malformed(format!("the body: {error}")))?;
    if asked.questions.len() > most_questions {
        return Err(Refusal::TooLarge(format!("a request has at most {most_questions} questions")));
    }
    let (view, at) = flow.view()?;
    let mut answers: Vec<u8> = vec![b'['];
    for Question { state, operator, key } in asked.questions {
        let (operator, served) = flow.state(&view, &state, operator.as_deref())?;
        // The number on its own: the other answers follow it.
        if answers.len() > 1 {
            answers.push(b',');
        }
        match served.get(&view, operator, &key.to_string())? {
            Some((_, value)) => answers.extend_from_slice(&value),
            None => answers.extend_from_slice(b"null"),
        }
        if answers.len() > most_bytes {
            return Err(Refusal::TooLarge(format!(
                "the answers take more than {most_bytes} bytes; ask for fewer"
            )));
        }
    }
    answers.push(b']');
    Ok(body(object(&at, &[("values", &answers)])))
}

async fn windows(
    State(shared): State<Arc<Shared>>,
    path: Parts<(String, String, String)>,
    params: Params,
) -> Answer {
    let Path((flow, operator, key)) = path.map_err(malformed_path)?;
    let [from, to] = named(params, ["from_ms", "to_ms"])?;
    let time = |name: &str, text: Option<String>, default| match text {
        None => Ok(default),
        Some(text) => text.parse().map(Timestamp::from_millis).map_err(|_| {
            Refusal::Malformed(format!("`{name}` is `{text}`, not a number of milliseconds since 1970"))
        }),
    };
    let (from, to) = (time("from_ms", from, Timestamp::MIN)?, time("to_ms", to, Timestamp::MAX)?);
    shared.flow(&flow)?;
    scan(Arc::clone(&shared), move || {
        let flow = shared.flow(&flow)?;
        let served = flow.windows.iter().find(|windows| windows.operator() == operator).ok_or_else(|| {
            let served: Vec<&str> = flow.windows.iter().map(|windows| windows.operator()).collect();
            let detail =
                format!("no windows of operator `{operator}` are served, but of {}", quoted(&served));
            Refusal::NotFound(detail)
        })?;
        let (view, at) = flow.view()?;
        if !view.operators().contains(&&*operator) {
            let detail = format!("{view} has no operator `{operator}` with windows");
            return Err(Refusal::NotFound(detail));
        }
        let (key, windows) = served.get(&view, &key, from, to)?;
        if windows.len() > shared.limits.bytes {
            let detail =
                format!("the windows take more than {} bytes; ask for less time", shared.limits.bytes);
            return Err(Refusal::TooLarge(detail));
        }
        Ok(body(object(&at, &[("key", &key), ("windows", &windows)])))
    })
    .await
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Answer {
    deployments::refresh(&shared).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &shared.registry)
        .map_err(|error| Refusal::Failed(format!("writing metrics: {error}")))?;
    let mut response = Response::new(Body::from(text));
    let text = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}

/// Ready is a server whose every flow can be asked and has not failed for good.
async fn readyz(State(shared): State<Arc<Shared>>) -> Answer {
    for flow in shared.flows.values() {
        // Whoever asks here need not have a token: no reasons.
        let name = flow.queries.flow();
        if flow.newest().is_err() {
            return Err(Refusal::Unavailable(format!("flow `{name}` cannot be asked yet")));
        }
        if let Status::Failed { .. } = flow.queries.status() {
            return Err(Refusal::Unavailable(format!("flow `{name}` has failed")));
        }
    }
    Ok("ready\n".into_response())
}

/// The parameters of these names; any other is an error, so that a misspelt one is not without effect.
pub(crate) fn named<const N: usize>(
    params: Params,
    names: [&str; N],
) -> Result<[Option<String>; N], Refusal> {
    let Query(params) = params.map_err(|error| Refusal::Malformed(error.body_text()))?;
    let mut values = [const { None }; N];
    for (name, value) in params {
        match names.iter().position(|known| *known == name) {
            Some(at) => values[at] = Some(value),
            None => {
                let detail = format!("there is no parameter `{name}` here, but {}", quoted(&names));
                return Err(Refusal::Malformed(detail));
            }
        }
    }
    Ok(values)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn malformed_path(error: PathRejection) -> Refusal {
    Refusal::Malformed(error.body_text())
}
