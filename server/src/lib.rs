//! The state of running jobs over HTTP and JSON.
//!
//! ```no_run
//! use rivermark_engine::Job;
//! use rivermark_operators::Value;
//! use rivermark_server::Server;
//!
//! const CLICKS: Value<u64> = Value::new("clicks");
//!
//! fn serve(job: &Job) -> rivermark_operators::Result<()> {
//!     let server = Server::new().serve::<String, _>(job, CLICKS).start()?;
//!     println!("http://{}/v1/flows", server.address());
//!     // Until it is dropped.
//!     Ok(())
//! }
//! ```
//!
//! - *What is served* is named by the handle that the function uses, and the type of its keys; nothing else of a job can be read. Values are
//!   written as their `serde::Serialize` has it. Keys in a URL are JSON; what is not JSON of the key's type is taken as text, so that `ann` is the key
//!   `"ann"`, and a pair of a map is `["ann","/"]`.
//! - *Every answer* is of one stored epoch, and says which, up to which offsets, and how far event time had come, in its member `at`. Several
//!   questions in one `POST` are answered at the same epoch. No worker of a job waits for any of it.
//! - *Who may ask*: the server listens on loopback unless told otherwise, and beyond loopback only with a token ([`Server::token`]).
//! - *Pages of other sites* may neither ask nor change anything, whatever browser they are in: a server without a token answers to addresses,
//!   `localhost` and [names it was given](Server::host) only, and what changes something must not come from another origin.
//! - *How much*: [`Limits`] bound entries, bytes, time and requests at once. What exceeds them is refused with a reason, as
//!   `application/problem+json` (RFC 9457).
//!
//! | path | what |
//! | --- | --- |
//! | `GET /v1/flows` | the flows and what is served of them |
//! | `GET /v1/flows/{flow}` | one flow: its newest epoch, offsets, watermark, states |
//! | `GET /v1/flows/{flow}/states/{state}/entries/{key}` | what is at a key |
//! | `GET /v1/flows/{flow}/states/{state}/entries` | entries, by `from`, `to`, `prefix`, `after`, in the order of keys |
//! | `POST /v1/flows/{flow}/query` | what is at several keys of several states, at one epoch |
//! | `GET /v1/flows/{flow}/windows/{operator}/{key}` | the open windows of a key, by `from_ms` and `to_ms` |
//! | `GET /v1/flows/{flow}/deployments` | the versions of a flow: what each is, and how far it has come |
//! | `POST /v1/flows/{flow}/deployments/{version}/promote` | the version becomes the live one; so `rollback`, `retire`, `pause`, `resume` |
//! | `GET /v1/flows/{flow}/deployments/{version}/compare` | what it and the live version have written, compared |
//! | `GET /v1/log/topics` | the topics of the log and their partitions ([`Server::log`]) |
//! | `GET /v1/log/topics/{topic}/partitions/{partition}/records` | records `from` an offset or a `time` on |
//! | `GET /v1/events` | a sample of all jobs and versions each second, as server-sent events |
//! | `GET /openapi.json` | a description of all this |
//! | `GET /metrics` | metrics of the jobs and the server, for Prometheus |
//! | `GET /healthz`, `GET /readyz` | whether it runs; whether every flow can be asked |
//!
//! With the feature `dashboard` there is a page at `/` that shows all this ([`Server::dashboard`](https://docs.rs/rivermark-server)).
//!
//! Versions of a flow: handed a job, the server asks that job. Handed the queries of a flow that is deployed
//! ([`Engine::queries`](rivermark_engine::Engine::queries)), it follows the live version: no request fails because another one is promoted or one is
//! rolled back, none that begins after that is answered by the old version, and no answer reflects less of the input than one before it. `at` says
//! which version has answered. What the live version does not have, though another one has, is 404.

mod answer;
#[cfg(feature = "dashboard")]
mod dashboard;
mod deployment_metrics;
mod deployments;
mod events;
mod guard;
mod limits;
mod metrics;
mod openapi;
mod operator_metrics;
mod records;
mod routes;
mod served;
mod server;

pub use limits::Limits;
pub use served::ServedKey;
pub use server::{RunningServer, Server};
