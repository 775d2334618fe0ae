//! The server: what it serves, and the threads that it runs on.

use crate::deployments::{Deployed, DeployedFlows};
use crate::events;
use crate::limits::Limits;
use crate::routes::{self, Flow, Page, Shared};
use crate::served::{ServedKey, Typed, TypedWindows};
use rivermark_engine::{Deployment, Queried, Queries};
use rivermark_log::Log;
use rivermark_operators::{Error, Key, Result, StateValue};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// What is to be served, and how.
#[must_use]
pub struct Server {
    address: SocketAddr,
    tokens: Vec<String>,
    hosts: Vec<String>,
    limits: Limits,
    threads: usize,
    flows: BTreeMap<String, Flow>,
    deployed: DeployedFlows,
    jobs: Vec<Queries>,
    log: Option<Log>,
    page: Option<Page>,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A server of nothing yet, on a free port of the loopback interface.
    pub fn new() -> Server {
        Server {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            tokens: Vec::new(),
            hosts: Vec::new(),
            limits: Limits::default(),
            threads: 2,
            flows: BTreeMap::new(),
            deployed: DeployedFlows::new(),
            jobs: Vec::new(),
            log: None,
            page: None,
        }
    }

    /// Serves a state whose keys are of type `P`; of a [`Map`](rivermark_operators::Map), pairs of a key and a map key. It is that of a job (`&job`),
    /// or of whichever version of a flow is live (`engine.queries("flow")`). Where several operators have a state of that name and these types, a
    /// request says which.
    pub fn serve<P, H>(mut self, of: impl Into<Queries>, handle: H) -> Server
    where
        P: ServedKey,
        H: Queried<P> + Send + Sync + 'static,
        H::Entry: Serialize,
    {
        self.flow(of.into()).add(None, Box::new(Typed::<P, H>::new(handle)));
        self
    }

    /// As [`Server::serve`], of one operator: where others have a state of that name that is not to be served, or one of other types.
    pub fn serve_of<P, H>(mut self, of: impl Into<Queries>, operator: &str, handle: H) -> Server
    where
        P: ServedKey,
        H: Queried<P> + Send + Sync + 'static,
        H::Entry: Serialize,
    {
        self.flow(of.into()).add(Some(operator.to_owned()), Box::new(Typed::<P, H>::new(handle)));
        self
    }

    /// Serves the open windows of an operator, whose keys are of type `K` and whose accumulators of type `A` (of `count()` a `u64`).
    pub fn serve_windows<K: Key, A: StateValue>(mut self, of: impl Into<Queries>, operator: &str) -> Server {
        self.flow(of.into()).windows.push(Box::new(TypedWindows::<K, A>::new(operator)));
        self
    }

    /// Serves the versions of a deployed flow, whichever of them this is: what each is and how far it has come, and requests that promote, roll back,
    /// retire, pause and resume. Whoever can send the server a request can change them, so mind [`Server::token`].
    ///
    /// It keeps no version running: all of them stop when the last [`Deployment`] of the flow is dropped, and are not found from then on. A request that
    /// is being answered at that moment holds them until it is done; dropping the [`RunningServer`] waits for such requests, so drop it first.
    pub fn deployments(mut self, deployment: &Deployment) -> Server {
        self.deployed.insert(deployment.flow().to_owned(), Deployed::new(deployment.downgrade()));
        self
    }

    /// Shows a job in `/v1/events`, and so in the dashboard, of which no state is served. A job of which some is, and every version that is
    /// [deployed](Server::deployments), is there anyway.
    pub fn job(mut self, job: impl Into<Queries>) -> Server {
        self.jobs.push(job.into());
        self
    }

    /// Serves the log: its topics, and the records in them, committed ones only. All topics, so what is in them must be for whoever can send the server a
    /// request: see [`Server::token`]. The log is let go of when the [`RunningServer`] is dropped.
    pub fn log(mut self, log: &Log) -> Server {
        self.log = Some(log.clone());
        self
    }

    /// Serves the dashboard at `/`: a page that shows what this server serves. It takes [`Server::deployments`], [`Server::log`], [`Server::job`] and states for all
    /// of its parts. The page asks its reader for a [token](Server::token) if there is one, and keeps it until the browser's tab is closed.
    #[cfg(feature = "dashboard")]
    pub fn dashboard(mut self) -> Server {
        self.page = Some((crate::dashboard::is_asset, crate::dashboard::routes));
        self
    }

    fn flow(&mut self, queries: Queries) -> &mut Flow {
        self.flows.entry(queries.flow().to_owned()).or_insert_with(|| Flow::new(queries))
    }

    /// Where to listen. Default: a free port of the loopback interface. An address beyond it needs a [token](Server::token); for encryption there is
    /// to be a proxy before it.
    pub fn listen_on(mut self, address: impl Into<SocketAddr>) -> Server {
        self.address = address.into();
        self
    }

    /// Lets in who sends this as a bearer token, beside those of earlier calls. Without any, everybody is let in who reaches the server. `/healthz`
    /// and `/readyz` ask for none.
    pub fn token(mut self, token: impl Into<String>) -> Server {
        self.tokens.push(token.into());
        self
    }

    /// A name under which the server is asked, beside `localhost` and addresses: that of a proxy before it, say. A server without a token refuses all
    /// other names, as a page of another site could make one of its own lead here; and a page that changes something must be of one of these names.
    pub fn host(mut self, name: impl Into<String>) -> Server {
        self.hosts.push(name.into());
        self
    }

    /// What one client can cost.
    pub fn limits(mut self, limits: Limits) -> Server {
        self.limits = limits;
        self
    }

    /// How many threads answer. Default: 2.
    pub fn threads(mut self, threads: usize) -> Server {
        self.threads = threads.max(1);
        self
    }

    /// Begins to listen. The first view of each flow is made now, so that the first request need not wait for it.
    ///
    /// # Errors
    /// The address is beyond loopback and there is no token, or cannot be listened on; or threads cannot be started.
    pub fn start(self) -> Result<RunningServer> {
        let attempt = || format!("serving queries on {}", self.address);
        if !self.address.ip().is_loopback() && self.tokens.is_empty() {
            let problem = "the address can be reached from outside; give the server a token, or let it listen on 127.0.0.1";
            return Err(Error::engine(attempt(), problem));
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(self.threads)
            // For each deployed flow one that changes it, and one that looks at it.
            .max_blocking_threads(self.limits.scans.max(1) + 2 * self.deployed.len())
            .thread_name("rivermark-server")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| Error::engine(attempt(), e))?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(self.address));
        let listener = listener.map_err(|e| Error::engine(attempt(), e))?;
        let address = listener.local_addr().map_err(|e| Error::engine(attempt(), e))?;
        for flow in self.flows.values() {
            // Without an epoch yet there is none; requests say so.
            let _ = flow.queries.view();
        }
        let mut shared = Shared::new(self.flows, self.tokens, self.limits);
        (shared.deployed, shared.hosts, shared.jobs) = (self.deployed, self.hosts, self.jobs);
        (shared.log, shared.page) = (Mutex::new(self.log), self.page);
        let shared = Arc::new(shared);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(listener, routes::router(Arc::clone(&shared)));
        let serving = serving.with_graceful_shutdown(async move { drop(stopped.await) });
        runtime.spawn(events::take(Arc::clone(&shared)));
        runtime.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the server of queries has ended");
            }
        });
        tracing::info!(%address, "serving queries");
        Ok(RunningServer { address, shared, stop: Some(stop), runtime: Some(runtime) })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .field("flows", &self.flows.keys())
            .finish_non_exhaustive()
    }
}

/// A server that runs until this is dropped. That waits for changes of deployments that are being made, and for answers about
/// deployments and the log, and for nothing else.
pub struct RunningServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    runtime: Option<Runtime>,
}

impl RunningServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        // Those who hold versions let go of them before the program goes on.
        self.shared.gate.close();
        // And nothing that is still on a thread keeps the log's directory.
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = self.runtime.take() {
            // Whoever is being answered loses the connection; nothing of a job depends on it.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer").field("address", &self.address).finish_non_exhaustive()
    }
}
