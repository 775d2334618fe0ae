//! Versions of a flow over HTTP: what they are, and the requests that change them.
//!
//! 1. The server holds the versions weakly ([`WeakDeployment`]): when the program lets go of them they stop, whatever the server does. Whoever answers
//!    holds them as long as that takes, and the server's end waits for it ([`Gate`]), so that none is left behind in a thread.
//! 2. A switch waits for a cut, and meanwhile nobody can look at the flow's versions. So all of this happens on threads that may wait: for each flow
//!    at most one that changes something, or compares, and one that looks. Who wants to change a second thing is refused; who wants to look waits.
//! 3. A change goes on when its client has gone away: what becomes of it is in the next answer, and in the log of the program.

use crate::answer::{Refusal, body};
use crate::events::{job, without_jobs};
use crate::guard;
use crate::routes::{Answer, Parts, Shared, malformed_path, quoted, read_body, status};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use rivermark_engine::{Cut, Deployment, Progress, Status, WeakDeployment};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

pub(crate) const DEPLOYMENTS: &str = "/v1/flows/{flow}/deployments";
pub(crate) const PROMOTE: &str = "/v1/flows/{flow}/deployments/{version}/promote";
pub(crate) const ROLL_BACK: &str = "/v1/flows/{flow}/deployments/{version}/rollback";
pub(crate) const RETIRE: &str = "/v1/flows/{flow}/deployments/{version}/retire";
pub(crate) const PAUSE: &str = "/v1/flows/{flow}/deployments/{version}/pause";
pub(crate) const RESUME: &str = "/v1/flows/{flow}/deployments/{version}/resume";
pub(crate) const COMPARE: &str = "/v1/flows/{flow}/deployments/{version}/compare";

/// What was seen of the versions of each flow last, with what their jobs have done.
pub(crate) type SeenVersions = Arc<std::sync::Mutex<BTreeMap<String, Json>>>;

/// How long who samples waits for versions that are being switched.
const PATIENCE: Duration = Duration::from_millis(200);

/// The flows whose versions can be seen and changed.
pub(crate) type DeployedFlows = BTreeMap<String, Deployed>;

/// The versions of one flow.
pub(crate) struct Deployed {
    held: WeakDeployment,
    /// Who changes something, or compares.
    changing: Arc<Semaphore>,
    /// Who looks.
    looking: Arc<Mutex<()>>,
}

/// Lets who holds versions finish before the server is over, and nobody begin after that.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_closed: RwLock<bool>,
}

impl Gate {
    /// Does something that holds versions.
    pub(crate) fn pass<R>(&self, hold: impl FnOnce() -> Result<R, Refusal>) -> Result<R, Refusal> {
        let is_closed = self.is_closed.read().unwrap_or_else(PoisonError::into_inner);
        if *is_closed {
            return Err(Refusal::Unavailable("the server is coming to its end".to_owned()));
        }
        hold()
    }

    /// Waits for those who hold some.
    pub(crate) fn close(&self) {
        *self.is_closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl Deployed {
    pub(crate) fn new(held: WeakDeployment) -> Self {
        Self { held, changing: Arc::new(Semaphore::new(1)), looking: Arc::default() }
    }

    fn upgrade(&self) -> Result<Deployment, Refusal> {
        self.held.upgrade().ok_or_else(|| {
            let flow = self.held.flow();
            Refusal::NotFound(format!(
                "no version of flow `{flow}` is deployed any more: the program has let go of them"
            ))
        })
    }

    fn version(&self, version: u64) -> Result<Deployment, Refusal> {
        let any = self.upgrade()?;
        any.other(version).ok_or_else(|| {
            let known: Vec<String> = any.deployments().versions.keys().map(u64::to_string).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let flow = any.flow();
            Refusal::NotFound(format!(
                "flow `{flow}` has no version {version}; its versions are {}",
                quoted(&known)
            ))
        })
    }

    /// All versions, with what their jobs have done. May wait for a switch.
    pub(crate) fn describe(&self) -> Result<Json, Refusal> {
        let any = self.upgrade()?;
        let record = any.deployments();
        let describe = |(number, version): (&u64, &rivermark_engine::Version)| {
            let running = any.other(*number);
            let now = running.as_ref().and_then(Deployment::status);
            let metrics = running.as_ref().and_then(Deployment::metrics);
            let job = now
                .as_ref()
                .zip(metrics)
                .map(|(now, metrics)| job(&record.flow, Some(*number), now, &metrics));
            json!({
                "version": number,
                "state": version.state,
                "status": now.as_ref().map(status),
                "failure": now.as_ref().and_then(failure),
                "paused": running.as_ref().and_then(Deployment::is_paused),
                "reason": version.reason,
                "refused": running.as_ref().and_then(Deployment::refused),
                "kept_until_ms": version.kept_until_ms,
                "outputs": version.outputs.iter().map(|(alias, output)| (alias.clone(), json!(output.topic))).collect::<serde_json::Map<_, _>>(),
                "progress": running.as_ref().and_then(Deployment::progress).map(|progress| progress_of(&progress)),
                "job": job,
            })
        };
        Ok(json!({
            "flow": record.flow,
            "live": record.live(),
            "before": record.before(),
            "switches": record.switches,
            "versions": record.versions.iter().map(describe).collect::<Vec<_>>(),
        }))
    }
}

fn failure(status: &Status) -> Option<&str> {
    match status {
        Status::Failed { failure } | Status::Restarting { failure, .. } => Some(failure),
        _ => None,
    }
}

/// Milliseconds since 1970, if event time has begun and not ended.
pub(crate) fn millis(time: rivermark_operators::Timestamp) -> Option<i64> {
    let is_time = time > rivermark_operators::Timestamp::MIN && time < rivermark_operators::Timestamp::MAX;
    is_time.then(|| time.millis())
}

fn progress_of(progress: &Progress) -> Json {
    let partitions = progress.partitions.iter().map(|partition| {
        json!({
            "source": partition.source,
            "partition": partition.partition,
            "offset": partition.offset,
            "live_offset": partition.live_offset,
            "records_behind": partition.records_behind,
        })
    });
    json!({
        "records_behind": progress.records_behind,
        "bytes_behind": progress.bytes_behind,
        "event_time_ms": millis(progress.event_time),
        "event_time_behind_ms": progress.event_time_behind.map(|behind| behind.as_millis() as u64),
        "records_per_second": progress.records_per_second.round() as u64,
        "eta_ms": progress.arrives_in.map(|arrives_in| arrives_in.as_millis() as u64),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

/// The paths of all this.
pub(crate) fn routes(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    let changes = Router::new()
        .route(PROMOTE, post(promote))
        .route(ROLL_BACK, post(roll_back))
        .route(RETIRE, post(retire))
        .route(PAUSE, post(pause))
        .route(RESUME, post(resume))
        // It lets both versions stand still for a moment.
        .route(COMPARE, get(compare))
        .layer(from_fn_with_state(Arc::clone(shared), refuse_other_sites));
    Router::new().route(DEPLOYMENTS, get(list)).merge(changes)
}

async fn refuse_other_sites(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    match guard::is_cross_origin(request.headers(), &shared.hosts) {
        Some(why) => Refusal::Forbidden(why).into_response(),
        None => next.run(request).await,
    }
}

fn deployed<'a>(shared: &'a Shared, flow: &str) -> Result<&'a Deployed, Refusal> {
    shared.deployed.get(flow).ok_or_else(|| {
        let known: Vec<&str> = shared.deployed.keys().map(String::as_str).collect();
        Refusal::NotFound(format!("the versions of no flow `{flow}` are served, but of {}", quoted(&known)))
    })
}

async fn list(State(shared): State<Arc<Shared>>, path: Parts<String>) -> Answer {
    let Path(flow) = path.map_err(malformed_path)?;
    Ok(body(without_jobs(&look(&shared, &flow).await?).to_string().into_bytes()))
}

/// All versions of a flow: one at a time looks, the others wait.
pub(crate) async fn look(shared: &Arc<Shared>, flow: &str) -> Result<Json, Refusal> {
    let looking = Arc::clone(&deployed(shared, flow)?.looking);
    let (of, flow) = (Arc::clone(shared), flow.to_owned());
    let looked = async move {
        let turn = looking.lock_owned().await;
        let looked = tokio::task::spawn_blocking(move || {
            let described = of.gate.pass(|| deployed(&of, &flow)?.describe());
            drop(turn);
            described
        });
        looked.await.unwrap_or_else(|error| Err(Refusal::Failed(format!("looking at the versions: {error}"))))
    };
    let late = |_| {
        let detail = "the versions are being switched or compared; look again when that is over";
        Err(Refusal::Unavailable(detail.to_owned()))
    };
    timeout(shared.limits.time, looked).await.unwrap_or_else(late)
}

/// Looks at the versions of all flows. Answers for which of them they are being switched or compared: of those one has what was seen before.
pub(crate) async fn refresh(shared: &Arc<Shared>) -> Vec<String> {
    let mut changing = Vec::new();
    for flow in shared.deployed.keys() {
        let looked = timeout(PATIENCE, look(shared, flow)).await;
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok(Ok(versions)) => drop(seen.insert(flow.clone(), versions)),
            // The program has let go of them.
            Ok(Err(Refusal::NotFound(_))) => drop(seen.remove(flow)),
            Ok(Err(_)) | Err(_) => changing.push(flow.clone()),
        }
    }
    changing
}

/// Does something that may wait for a cut with a version; one at a time of each flow.
async fn change(
    shared: &Arc<Shared>,
    path: Parts<(String, u64)>,
    change: impl FnOnce(&Deployment) -> Result<Json, Refusal> + Send + 'static,
) -> Answer {
    let Path((flow, version)) = path.map_err(malformed_path)?;
    let Ok(turn) = Arc::clone(&deployed(shared, &flow)?.changing).try_acquire_owned() else {
        let detail = format!(
            "the versions of flow `{flow}` are being changed or compared; try again when that is over"
        );
        return Err(Refusal::Conflict(detail));
    };
    let of = Arc::clone(shared);
    let changed = tokio::task::spawn_blocking(move || {
        let changed = of.gate.pass(|| change(&deployed(&of, &flow)?.version(version)?));
        drop(turn);
        changed
    });
    let changed = changed.await;
    let json =
        changed.unwrap_or_else(|error| Err(Refusal::Failed(format!("changing a version: {error}"))))?;
    Ok(body(json.to_string().into_bytes()))
}

/// What a change may be given.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Wish {
    reason: Option<String>,
}

async fn wish(shared: &Shared, request: Request) -> Result<Wish, Refusal> {
    let sent = read_body(request, &shared.limits).await?;
    if sent.iter().all(u8::is_ascii_whitespace) {
        return Ok(Wish::default());
    }
    serde_json::from_slice(&sent).map_err(|error| {
        Refusal::Malformed(format!("the body: {error}; it may be empty, or {{\"reason\": \"..\"}}"))
    })
}

/// What has become of a version.
fn changed(version: &Deployment, what: &str, reason: Option<&str>, cut: Option<&Cut>) -> Json {
    tracing::info!(flow = version.flow(), version = version.version(), reason, "{what} over HTTP");
    json!({ "version": version.version(), "state": version.state(), "live": version.deployments().live(), "cut": cut })
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn not_now(error: rivermark_operators::Error) -> Refusal {
    Refusal::Conflict(error.to_string())
}

async fn promote(State(shared): State<Arc<Shared>>, path: Parts<(String, u64)>, request: Request) -> Answer {
    let Wish { reason } = wish(&shared, request).await?;
    let promote = move |version: &Deployment| {
        let cut = version.promote().map_err(not_now)?;
        Ok(changed(version, "promoted", reason.as_deref(), Some(&cut)))
    };
    change(&shared, path, promote).await
}

async fn roll_back(
    State(shared): State<Arc<Shared>>,
    path: Parts<(String, u64)>,
    request: Request,
) -> Answer {
    let Wish { reason } = wish(&shared, request).await?;
    let roll_back = move |version: &Deployment| {
        let reason = reason.as_deref().unwrap_or("rolled back over HTTP");
        let cut = version.roll_back(reason).map_err(not_now)?;
        Ok(changed(version, "rolled back", Some(reason), Some(&cut)))
    };
    change(&shared, path, roll_back).await
}

async fn retire(State(shared): State<Arc<Shared>>, path: Parts<(String, u64)>, request: Request) -> Answer {
    let Wish { reason } = wish(&shared, request).await?;
    let retire = move |version: &Deployment| {
        version.retire().map_err(not_now)?;
        Ok(changed(version, "retired", reason.as_deref(), None))
    };
    change(&shared, path, retire).await
}

/// A job that does not run can be neither paused nor resumed.
fn running(version: &Deployment) -> Result<(), Refusal> {
    if version.status().is_some_and(|status| !status.is_over()) {
        return Ok(());
    }
    let (flow, number, state) = (version.flow(), version.version(), version.state());
    Err(Refusal::Conflict(format!("version {number} of flow `{flow}` does not run: it is {state}")))
}

async fn pause(State(shared): State<Arc<Shared>>, path: Parts<(String, u64)>, request: Request) -> Answer {
    let Wish { reason } = wish(&shared, request).await?;
    let pause = move |version: &Deployment| {
        running(version)?;
        version.pause();
        Ok(changed(version, "paused", reason.as_deref(), None))
    };
    change(&shared, path, pause).await
}

async fn resume(State(shared): State<Arc<Shared>>, path: Parts<(String, u64)>, request: Request) -> Answer {
    let Wish { reason } = wish(&shared, request).await?;
    let resume = move |version: &Deployment| {
        running(version)?;
        version.resume();
        Ok(changed(version, "resumed", reason.as_deref(), None))
    };
    change(&shared, path, resume).await
}

async fn compare(State(shared): State<Arc<Shared>>, path: Parts<(String, u64)>) -> Answer {
    let compare = |version: &Deployment| {
        let comparison = version.compare().map_err(not_now)?;
        let written = serde_json::to_value(&comparison);
        written.map_err(|error| Refusal::Failed(format!("writing the comparison: {error}")))
    };
    change(&shared, path, compare).await
}
