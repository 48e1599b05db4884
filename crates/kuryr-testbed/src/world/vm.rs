//! What has a port that Kuryr knows nothing of.

use super::{Ground, World};
use crate::{
    cloud::PortStatus,
    dataplane::{Vm as Machine, VmPort},
};
use anyhow::{Context, ensure};
use kuryr_model::{PortId, Purpose, VifAddress, mark::cluster_tag};
use kuryr_openstack::{Filter, network::NewPort};
use std::{net::IpAddr, path::PathBuf, time::Duration};
use tokio::time::timeout;

/// What has a port that was bound outside Kuryr.
pub struct Vm {
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its port in Neutron.
    pub port: PortId,
    /// Goes with it.
    _machine: Option<Machine>,
    wire: Option<String>,
}

impl World {
    /// Waits until the embedded data plane says that a VM's port works. For a pod's the daemon has waited.
    ///
    /// # Errors
    /// It does not, in time.
    async fn port_works(&self, port: PortId) -> anyhow::Result<()> {
        let Ground::Embedded(embedded) = &self.ground else { return Ok(()) };
        let mut changes = embedded.cloud.subscribe();
        let works = async {
            while embedded.cloud.port(port.0).is_none_or(|port| port.status != PortStatus::Active) {
                changes.changed().await?;
            }
            anyhow::Ok(())
        };
        timeout(Duration::from_secs(20), works).await.with_context(|| format!("port {port} does not work"))?
    }

    /// Starts something with a port that Kuryr knows nothing of, on the first node.
    ///
    /// # Errors
    /// Something refuses.
    pub async fn start_vm(&self, name: &str) -> anyhow::Result<Vm> {
        let node = self.nodes.first().context("no node")?;
        let network = self.cloud.network();
        let subnets = self.pod_subnets().await?;
        let first = subnets.first().context("no pod subnet")?;
        let mut groups = network.security_groups().list(&Filter::new().tags([cluster_tag(&self.cluster)])).await?;
        // Not what NetworkPolicies have made for pods.
        groups.retain(|group| group.tags.iter().any(|tag| matches!(tag.parse(), Ok(Purpose::Base(_)))));
        let new = NewPort {
            name: name.to_owned(),
            device_owner: "compute:nova".to_owned(),
            host_id: Some(node.clone()),
            security_groups: groups.iter().map(|group| group.id).collect(),
            ..NewPort::new(first.network_id)
        };
        let port = network.ports().create(&new).await?;
        let mtu = network.networks().get(port.network_id).await?.mtu;
        let addresses = port.fixed_ips.iter().filter_map(|fixed| {
            let subnet = subnets.iter().find(|subnet| subnet.id == fixed.subnet_id)?;
            let prefix_length = subnet.cidr.prefix_len();
            Some(VifAddress { ip: fixed.ip_address, prefix_length, gateway: subnet.gateway_ip })
        });
        let addresses: Vec<VifAddress> = addresses.collect();
        ensure!(!addresses.is_empty(), "the VM's port has no address");
        let ips = addresses.iter().map(|address| address.ip).collect();
        match &self.ground {
            Ground::Embedded(embedded) => {
                let wanted = VmPort { id: port.id, network: port.network_id, mac: port.mac_address, mtu, addresses };
                let machine =
                    Machine::start(embedded.netns_folder(), name, embedded.fabric.node(node)?, wanted).await?;
                let netns = machine.netns().to_owned();
                self.port_works(port.id).await?;
                Ok(Vm { netns, addresses: ips, port: port.id, _machine: Some(machine), wire: None })
            }
            Ground::Real(real) => {
                let wire = real.plug_vm(&port, &addresses, mtu).await?;
                let netns = real.vm_netns(&wire);
                Ok(Vm { netns, addresses: ips, port: port.id, _machine: None, wire: Some(wire) })
            }
        }
    }

    /// Takes a VM and its port away.
    ///
    /// # Errors
    /// Something refuses.
    pub async fn stop_vm(&self, vm: Vm) -> anyhow::Result<()> {
        if let (Ground::Real(real), Some(wire)) = (&self.ground, &vm.wire) {
            real.unplug_vm(wire).await?;
        }
        Ok(self.cloud.network().ports().delete(vm.port).await?)
    }
}
