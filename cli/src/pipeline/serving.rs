//! What a pipeline that runs is served by, if it says nothing else: its versions or its job, its log, and a page that shows them.
//!
//! Its states are not served: the command line does not know the types of their keys, and whoever names them decides who sees them.

use super::{Running, Serving};
use rivermark_operators::Result;
use rivermark_server::Server;

pub(super) fn serve(running: &Running<'_>) -> Result<Serving, rivermark_operators::BoxError> {
    let mut server = Server::new().log(running.engine.log());
    if let Some(any) = running.deployments.first() {
        server = server.deployments(any);
    }
    if let Some(job) = running.job {
        server = server.job(job);
    }
    if let Some(address) = running.listen {
        server = server.listen_on(address);
    }
    if let Some(token) = running.token {
        server = server.token(token);
    }
    #[cfg(feature = "dashboard")]
    {
        server = server.dashboard();
    }
    let server = server.start()?;
    let serving = Serving::new(server.address(), server);
    Ok(match running.token {
        Some(token) => serving.token(token),
        None => serving,
    })
}
