//! Makes VIFs real, and takes them away again.
//!
//! ```text
//!  Vif + Sandbox ─▶ Plugger ─┬─ kernel: one thread, one netlink conversation: veth, addresses, routes ─▶ pod's namespace
//!                            └─ join:   `ovs` one OVSDB transaction, then a notification · `bridge` master · `tap` neighbours
//! ```
//!
//! Invariants
//! - Unplugging needs the VIF alone, is done as far as possible whatever fails, and may be repeated.
//! - A plug that fails leaves nothing behind.
//! - What is made carries its owner: the host end's alias, or the OVS Interface's `external_ids`, name the port and the
//!   sandbox. Only the owner's unplug removes it: a late DEL of an old sandbox never cuts off the sandbox after it.
//! - Nothing here changes a bridge, and nothing asks Neutron or Kubernetes.

pub mod error;
pub mod mark;

pub use error::PlugError;
pub use mark::{HostEnd, HostEndKind};

use kuryr_model::Vif;
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;

/// Where the node's own things are.
#[derive(Clone, Debug)]
pub struct PlugConfig {
    /// Unix socket of the node's `ovsdb-server`; used by driver `ovs` only, connected to at first use.
    pub ovsdb_socket: PathBuf,
    /// What driver `ovs` waits for.
    pub ready: Readiness,
    /// The namespace of the host ends; none for the process's own. (Simulated nodes are namespaces.)
    pub host_netns: Option<PathBuf>,
}

impl Default for PlugConfig {
    fn default() -> Self {
        Self {
            ovsdb_socket: PathBuf::from("/var/run/openvswitch/db.sock"),
            ready: Readiness::OvnInstalled,
            host_netns: None,
        }
    }
}

/// What tells that Open vSwitch forwards for a new port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// OVN's controller has said `ovn-installed` on the Interface: its flows are in.
    OvnInstalled,
    /// Open vSwitch has given the Interface a number; for bridges that OVN does not manage.
    Ofport,
}

/// The namespace that a VIF is plugged into, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id of the sandbox (`CNI_CONTAINERID`).
    pub container_id: String,
    /// Path of the network namespace (`CNI_NETNS`). Empty or gone is fine for unplugging.
    pub netns: PathBuf,
}

/// How long the steps of a plug took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlugTimes {
    /// Links, addresses and routes.
    pub kernel: Duration,
    /// Telling the switch (OVSDB).
    pub join: Duration,
    /// Waiting until the data plane forwards.
    pub ready: Duration,
}

/// A difference between a VIF and what is there, as CNI CHECK finds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {found} where {expected} was expected")]
pub struct Mismatch {
    /// What was looked at, such as `MTU of eth0`.
    pub what: String,
    /// What the VIF asks for.
    pub expected: String,
    /// What is there; `nothing` if it is absent.
    pub found: String,
}

/// Plugs and unplugs VIFs on one node.
#[derive(Debug)]
pub struct Plugger {
    config: PlugConfig,
}

impl Plugger {
    /// A plugger for this node. Does nothing yet: a node without Open vSwitch never connects to it.
    #[must_use]
    pub fn new(config: PlugConfig) -> Self {
        Self { config }
    }

    /// Makes `vif` real in `sandbox` and returns when its data plane forwards.
    ///
    /// # Errors
    /// What stood in the way; everything made on the way there has been removed again. Not to be dropped half-way:
    /// bound it by `deadline`.
    pub async fn plug(&self, vif: &Vif, sandbox: &Sandbox, deadline: Instant) -> Result<PlugTimes, PlugError> {
        let _ = (&self.config, vif, sandbox, deadline);
        Err(PlugError::Unready { port: vif.port_id, waited: Duration::ZERO, signal: "skeleton" })
    }

    /// Removes all that [`Self::plug`] made for `vif` in `sandbox`; nothing there is success.
    ///
    /// # Errors
    /// Everything that could not be removed; all the rest has been.
    pub async fn unplug(&self, vif: &Vif, sandbox: &Sandbox) -> Result<(), PlugError> {
        let _ = (vif, sandbox);
        Ok(())
    }

    /// Compares what is there with `vif` (CNI CHECK).
    ///
    /// # Errors
    /// Every difference; looking that fails is a difference too.
    pub async fn check(&self, vif: &Vif, sandbox: &Sandbox) -> Result<(), Vec<Mismatch>> {
        let _ = (vif, sandbox);
        Ok(())
    }

    /// All host ends on this node that carry Kuryr's mark, links and OVS ports, for garbage collection and audit.
    ///
    /// # Errors
    /// The kernel could not be asked, or Open vSwitch, where its socket exists.
    pub async fn list(&self) -> Result<Vec<HostEnd>, PlugError> {
        Ok(Vec::new())
    }

    /// Removes a host end that [`Self::list`] returned, if it still has the same owner.
    ///
    /// # Errors
    /// It could not be removed. Absent is success.
    pub async fn remove(&self, end: &HostEnd) -> Result<(), PlugError> {
        let _ = end;
        Ok(())
    }
}
