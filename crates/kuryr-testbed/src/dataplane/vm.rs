//! Ports that are bound outside Kuryr: what a nova would do for a VM.

use super::{Error, fabric::Node};
use kuryr_model::{MacAddress, NetworkId, Plug, PortId, Vif, VifAddress, vif::PlugDriver};
use kuryr_node::{
    netlink::{
        Socket,
        link::{self, By},
    },
    netns,
    plug::{PlugConfig, Plugger, Sandbox, mark::host_end_name},
};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a VM must know of its port.
#[derive(Clone, Debug)]
pub struct VmPort {
    /// The port, bound to the VM's node.
    pub id: PortId,
    /// Its network.
    pub network: NetworkId,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its network's MTU in bytes.
    pub mtu: u32,
    /// Its addresses with their subnets' prefix lengths and gateways.
    pub addresses: Vec<VifAddress>,
}

/// A "VM": a namespace with a port. Dropping it takes it away.
#[derive(Debug)]
pub struct Vm {
    netns: PathBuf,
    host: PathBuf,
    port: VmPort,
}

impl Vm {
    /// Starts a VM of that name on a node; its namespace's file is in `directory`.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn start(directory: &Path, name: &str, node: &Node, port: VmPort) -> Result<Self, Error> {
        let vm = Self { netns: directory.join(name), host: node.netns.clone(), port };
        if vm.netns.exists() {
            return Err(Error::Taken(vm.netns.clone()));
        }
        let netns = vm.netns.clone();
        netns::spawn(move || netns::create(&netns)).await??;
        let vif = Vif {
            interface: "eth0".into(),
            port_id: vm.port.id,
            network_id: vm.port.network,
            mac: vm.port.mac,
            mtu: vm.port.mtu,
            addresses: vm.port.addresses.clone(),
            routes: Vec::new(),
            plug: Plug::own(PlugDriver::Tap, None),
        };
        // A VM boots whether its packets pass already or not.
        let (host_netns, await_routes) = (Some(node.netns.clone()), false);
        let plugger = Plugger::new(PlugConfig { host_netns, await_routes, ..PlugConfig::default() });
        let sandbox = Sandbox { container_id: name.to_owned(), netns: vm.netns.clone() };
        plugger.plug(&vif, &sandbox, Instant::now() + PATIENCE).await?;
        // Not Kuryr's: an audit of the node must pass it by.
        let (end, alias) = (host_end_name(vm.port.id), format!("vm:{name}"));
        let host = node.netns.clone();
        let rename = move || netns::run(&host, || Socket::open()?.run(&[link::mark(By::Name(&end), &alias)]));
        netns::spawn(rename).await???;
        Ok(vm)
    }

    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// The first address of its port.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.port.addresses.first().map(|address| address.ip)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let end = host_end_name(self.port.id);
        // Absent with the node, and then the pair is too.
        let _ = netns::run(&self.host, || Socket::open()?.remove_link(By::Name(&end)));
        if let Err(error) = netns::delete(&self.netns) {
            tracing::warn!(%error, "a VM's namespace stays");
        }
    }
}
