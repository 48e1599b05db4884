//! Makes VIFs real, and takes them away again.
//!
//! ```text
//!  Vif + Sandbox ─▶ Plugger ─┬─ kernel: one thread, one netlink conversation: veth, addresses, routes ─▶ pod's namespace
//!                            │          or, in a virtual machine, a sub-interface of its own one instead of the veth
//!                            ├─ join:   `ovs` one OVSDB transaction · `bridge` master · `tap` neighbours
//!                            ├─ ready:  `ovs` a notification of its database · `tap` routes to the host end
//!                            └─ announce: where its addresses are, to those who had spoken to somebody else at them
//! ```
//!
//! Invariants
//! - Unplugging needs the VIF alone, is done as far as possible whatever fails, and may be repeated.
//! - A plug that fails leaves nothing behind.
//! - What is made carries its owner: the host end's alias, or the OVS Interface's `external_ids`, name the port and the
//!   sandbox. Only the owner's unplug removes it: a late DEL of an old sandbox never cuts off the sandbox after it.
//! - Nothing here changes a bridge, and nothing asks Neutron or Kubernetes.

mod announce;
#[cfg(test)]
mod announce_tests;
mod check;
pub mod error;
pub mod layout;
pub mod mark;
mod nested;
#[cfg(test)]
mod nested_tests;
mod nic;
mod ovs;
mod pair;
mod tap;
#[cfg(test)]
mod tests;

pub use error::PlugError;
pub use mark::{HostEnd, HostEndKind, Owner};

use crate::{netns, ovsdb::Client};
use kuryr_model::{Vif, vif::PlugDriver};
use layout::Layout;
use mark::host_end_name;
use pair::{Made, Pair};
use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Where the node's own things are.
#[derive(Clone, Debug)]
pub struct PlugConfig {
    /// Unix socket of the node's `ovsdb-server`; used by driver `ovs` only, connected to at first use.
    pub ovsdb_socket: PathBuf,
    /// Whether driver `tap` waits until the node's data plane has routed the VIF's addresses to the host end. Pods need
    /// that, for nobody else tells when their packets pass.
    pub await_routes: bool,
    /// The namespace of the host ends; none for the process's own. (Simulated nodes are namespaces.)
    pub host_netns: Option<PathBuf>,
    /// Where the node is a virtual machine: the name of the interface whose port carries the pods' ones; none: it is found by
    /// the port's Ethernet address.
    pub nic: Option<String>,
    /// The folders in which runtimes keep the namespaces of sandboxes: nested pods have nothing outside of theirs.
    pub namespaces: Vec<PathBuf>,
}

impl Default for PlugConfig {
    fn default() -> Self {
        Self {
            ovsdb_socket: PathBuf::from("/run/openvswitch/db.sock"),
            await_routes: true,
            host_netns: None,
            nic: None,
            namespaces: ["/run/netns", "/var/run/netns"].map(PathBuf::from).into(),
        }
    }
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
    ovsdb: OnceLock<Client>,
    /// Whether there may be nested pods: there are some, or nobody has looked yet.
    nested: AtomicBool,
}

impl Plugger {
    /// A plugger for this node. Does nothing yet: a node without Open vSwitch never connects to it.
    #[must_use]
    pub fn new(config: PlugConfig) -> Self {
        Self { config, ovsdb: OnceLock::new(), nested: AtomicBool::new(true) }
    }

    /// Makes `vif` real in `sandbox` and returns when its data plane forwards. What another sandbox had of the same port
    /// is taken from it.
    ///
    /// # Errors
    /// What stood in the way; everything made on the way there has been removed again. Bound it by `deadline` rather
    /// than by dropping the future: what a dropped one has made stays until [`Self::unplug`].
    pub async fn plug(&self, vif: &Vif, sandbox: &Sandbox, deadline: Instant) -> Result<PlugTimes, PlugError> {
        let layout = Layout::of(vif)?;
        let owner = owner(vif, sandbox);
        let start = Instant::now();
        if let Some(kind) = nested::kind(vif) {
            let (nic, namespaces) = (self.config.nic.clone(), self.config.namespaces.clone());
            let sub = nested::Nested { kind, vif: vif.clone(), layout, owner, nic, namespaces };
            self.nested.store(true, Ordering::SeqCst);
            let (host_netns, netns) = (self.config.host_netns.clone(), sandbox.netns.clone());
            netns::spawn(move || nested::make(&sub, host_netns.as_deref(), &netns)).await??;
            return Ok(PlugTimes { kernel: start.elapsed(), ..PlugTimes::default() });
        }
        let fill_checksums = match vif.plug.driver {
            PlugDriver::Ovs => ovs::needs_checksums(self.ovsdb(), vif, deadline).await?,
            _ => false,
        };
        let pair = Pair { vif: vif.clone(), layout, owner: owner.clone(), fill_checksums };
        let (host_netns, netns) = (self.config.host_netns.clone(), sandbox.netns.clone());
        let made = netns::spawn(move || pair::make(&pair, host_netns.as_deref(), &netns)).await??;
        let mut times = PlugTimes { kernel: start.elapsed(), ..PlugTimes::default() };
        let joined = match vif.plug.driver {
            PlugDriver::Ovs => self.join(vif, &owner, deadline, &mut times).await,
            PlugDriver::Tap if self.config.await_routes => self.routed(vif, made, deadline, &mut times).await,
            _ => Ok(()),
        };
        let joined = match joined {
            Ok(()) if announce::is_heard(vif) => {
                let (vif, netns) = (vif.clone(), sandbox.netns.clone());
                netns::spawn(move || announce::from(&vif, &netns)).await?
            }
            joined => joined,
        };
        if let Err(error) = joined {
            // The first error is the one to tell; unplugging tries again.
            let _ = self.unplug(vif, sandbox).await;
            return Err(error);
        }
        Ok(times)
    }

    async fn routed(&self, vif: &Vif, made: Made, deadline: Instant, times: &mut PlugTimes) -> Result<(), PlugError> {
        let start = Instant::now();
        tap::ready(vif, made.link, made.routes, self.config.host_netns.as_deref(), deadline).await?;
        times.ready = start.elapsed();
        Ok(())
    }

    async fn join(&self, vif: &Vif, owner: &Owner, deadline: Instant, times: &mut PlugTimes) -> Result<(), PlugError> {
        let start = Instant::now();
        let joined = ovs::join(self.ovsdb(), vif, owner, deadline).await?;
        times.join = start.elapsed();
        ovs::ready(self.ovsdb(), vif, joined, deadline).await?;
        times.ready = start.elapsed() - times.join;
        Ok(())
    }

    /// Open vSwitch's database, connected to from the first call on.
    fn ovsdb(&self) -> &Client {
        self.ovsdb.get_or_init(|| Client::start(&self.config.ovsdb_socket))
    }

    /// Removes all that [`Self::plug`] made for `vif` in `sandbox`; nothing there is success.
    ///
    /// # Errors
    /// Everything that could not be removed; all the rest has been.
    pub async fn unplug(&self, vif: &Vif, sandbox: &Sandbox) -> Result<(), PlugError> {
        let mut errors = Vec::new();
        if vif.plug.driver == PlugDriver::Ovs {
            // The switch lets go of the link before it is removed, or it would complain.
            let left = ovs::leave(self.ovsdb(), &host_end_name(vif.port_id), &owner(vif, sandbox)).await;
            errors.extend(left.err());
        }
        let (vif, owner, netns) = (vif.clone(), owner(vif, sandbox), sandbox.netns.clone());
        if let Some(kind) = nested::kind(&vif) {
            return netns::spawn(move || nested::remove(kind, &vif, &owner, &netns)).await?;
        }
        let host_netns = self.config.host_netns.clone();
        let work = move || {
            let name = host_end_name(vif.port_id);
            let outside = pair::host(host_netns.as_deref()).and_then(|mut host| pair::remove(&mut host, &name, &owner));
            [outside, pair::remove_inside(&vif, &netns)]
        };
        match netns::spawn(work).await {
            Ok(outcomes) => errors.extend(outcomes.into_iter().filter_map(Result::err)),
            Err(error) => errors.push(error.into()),
        }
        PlugError::all(errors)
    }

    /// Compares what is there with `vif` (CNI CHECK).
    ///
    /// # Errors
    /// Every difference; looking that fails is a difference too.
    pub async fn check(&self, vif: &Vif, sandbox: &Sandbox) -> Result<(), Vec<Mismatch>> {
        let mut findings = check::Findings::default();
        let (looked_for, place) = (vif.clone(), sandbox.clone());
        let host_netns = self.config.host_netns.clone();
        match netns::spawn(move || check::kernel(&looked_for, &place, host_netns.as_deref())).await {
            Ok(found) => findings.0.extend(found),
            Err(error) => findings.failed("the node", &error.into()),
        }
        if vif.plug.driver == PlugDriver::Ovs {
            findings.0.extend(ovs::check(self.ovsdb(), vif, &owner(vif, sandbox)).await);
        }
        if findings.0.is_empty() { Ok(()) } else { Err(findings.0) }
    }

    /// All host ends on this node that carry Kuryr's mark, links and OVS ports, for garbage collection and audit.
    ///
    /// # Errors
    /// The kernel could not be asked, or Open vSwitch, where its socket exists.
    pub async fn list(&self) -> Result<Vec<HostEnd>, PlugError> {
        let host_netns = self.config.host_netns.clone();
        let mut ends = netns::spawn(move || pair::list(&mut pair::host(host_netns.as_deref())?)).await??;
        ends.extend(self.list_nested().await?);
        if self.config.ovsdb_socket.exists() {
            ends.extend(ovs::list(self.ovsdb()).await?);
        }
        Ok(ends)
    }

    /// Looks into every sandbox, but for a node that has no nested pods only once: whoever plugs one says so.
    async fn list_nested(&self) -> Result<Vec<HostEnd>, PlugError> {
        if !self.nested.swap(false, Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        let (host_netns, folders) = (self.config.host_netns.clone(), self.config.namespaces.clone());
        let look = netns::spawn(move || nested::list(host_netns.as_deref(), &folders)).await;
        let found = look.map_err(PlugError::from).flatten();
        if !found.as_ref().is_ok_and(Vec::is_empty) {
            self.nested.store(true, Ordering::SeqCst);
        }
        found
    }

    /// Removes a host end that [`Self::list`] returned, if it still has the same owner.
    ///
    /// # Errors
    /// It could not be removed. Absent is success.
    pub async fn remove(&self, end: &HostEnd) -> Result<(), PlugError> {
        let (end, host_netns) = (end.clone(), self.config.host_netns.clone());
        match &end.kind {
            HostEndKind::OvsPort => ovs::leave(self.ovsdb(), &end.name, &end.owner).await,
            HostEndKind::Inside { netns } => {
                let netns = netns.clone();
                netns::spawn(move || nested::remove_end(&end, &netns)).await?
            }
            HostEndKind::Link => {
                netns::spawn(move || pair::remove(&mut pair::host(host_netns.as_deref())?, &end.name, &end.owner))
                    .await?
            }
        }
    }
}

fn owner(vif: &Vif, sandbox: &Sandbox) -> Owner {
    Owner { port_id: vif.port_id, container_id: sandbox.container_id.clone() }
}
