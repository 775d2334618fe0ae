//! Holding versions without keeping them running.

use super::Deployment;
use super::fleet::Fleet;
use std::fmt;
use std::sync::Weak;

/// A version of a flow that is deployed, held by somebody for whom it need not run: a server, a metrics exporter. As [`std::sync::Weak`] is to
/// an `Arc`, so this is to a [`Deployment`].
#[derive(Clone)]
pub struct WeakDeployment {
    flow: String,
    fleet: Weak<Fleet>,
    version: u64,
}

impl Deployment {
    /// The same version, held without keeping the versions of the flow running.
    pub fn downgrade(&self) -> WeakDeployment {
        WeakDeployment {
            flow: self.fleet.flow.clone(),
            fleet: std::sync::Arc::downgrade(&self.fleet),
            version: self.version,
        }
    }

    /// Another version of the same flow. `None` if it was never deployed.
    pub fn other(&self, version: u64) -> Option<Deployment> {
        self.fleet.record().state(version)?;
        Some(Deployment { fleet: std::sync::Arc::clone(&self.fleet), version })
    }
}

impl WeakDeployment {
    /// The flow's name.
    pub fn flow(&self) -> &str {
        &self.flow
    }

    /// The version's number.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The deployment. `None` if nobody holds one of the flow any more: then its versions have stopped, and do not start again for this.
    ///
    /// All versions run at least until what is returned is dropped, and if it is the last, that waits for them to stop.
    pub fn upgrade(&self) -> Option<Deployment> {
        Some(Deployment { fleet: self.fleet.upgrade()?, version: self.version })
    }
}

impl fmt::Debug for WeakDeployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakDeployment")
            .field("flow", &self.flow)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
