//! What a pod's port is asked to be, and what is made of it.

use super::{Request, Shared, spare};
use crate::error::PodError;
use kuryr_model::{
    DEVICE_OWNER, Mark, NetworkId, PodUid, Purpose, SubnetId, Vif,
    neutron::{Network, Port},
};
use kuryr_openstack::network::{NewFixedIp, NewPort, ip_availability::SubnetUse};
use kuryr_plan::{
    nested::{Found, Pods, nested_vif},
    subnets::Choice,
    vif::vif,
};
use std::collections::HashSet;

/// The name that the interface of a pod's first port has.
const INTERFACE: &str = "eth0";

impl Shared {
    pub(super) fn new_port(&self, request: &Request, choice: &Choice) -> NewPort {
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Pod(request.uid.clone()) };
        let pods = request.machine.as_ref().map(|found: &Found| found.pods);
        // What has a device comes to no trunk. What only holds an address must be off, or OVN would lead its packets to it.
        let (host_id, device_id, admin_state_up) = match pods {
            None => (Some(request.host.clone()), request.uid.to_string(), None),
            Some(Pods::Subports(_)) => (None, String::new(), None),
            Some(Pods::Pairs | Pods::Addresses) => (None, request.uid.to_string(), Some(false)),
        };
        NewPort {
            name: spare::name_of(&request.key),
            fixed_ips: choice.subnets.iter().map(|id| NewFixedIp::from(*id)).collect(),
            security_groups: request.groups.clone(),
            host_id,
            device_owner: DEVICE_OWNER.to_owned(),
            device_id,
            admin_state_up,
            tags: mark.tags(),
            ..NewPort::new(choice.network)
        }
    }

    /// What a pod's node plugs for its port.
    pub(super) fn vif(&self, request: &Request, port: &Port) -> Result<Vif, PodError> {
        if self.owner(port).as_ref() != Some(&request.uid) {
            return Err(PodError::Untagged);
        }
        self.plugged(port, request.machine.as_ref())
    }

    /// What a node plugs for a port, whosever it is; `machine` if the node is a virtual one.
    pub(super) fn plugged(&self, port: &Port, machine: Option<&Found>) -> Result<Vif, PodError> {
        let Some(found) = machine else {
            return Ok(vif(INTERFACE, port, self.network(port)?, &self.topology.subnets)?);
        };
        let fits = match found.pods {
            Pods::Subports(_) => port.device_id.is_empty(),
            Pods::Pairs | Pods::Addresses => port.host_id.is_empty() && port.network_id == found.network,
        };
        if !fits {
            return Err(PodError::OtherKind(port.id));
        }
        Ok(nested_vif(INTERFACE, port, self.network(port)?, &self.topology.subnets, found)?)
    }

    fn network(&self, port: &Port) -> Result<&Network, PodError> {
        self.topology.networks.get(&port.network_id).ok_or(PodError::WrongNetwork(port.network_id))
    }

    /// The pod that a port is marked for.
    pub(super) fn owner(&self, port: &Port) -> Option<PodUid> {
        match Mark::read(&self.cluster, &port.tags)?.purpose {
            Purpose::Pod(uid) => Some(uid),
            Purpose::Pool | Purpose::Service(_) | Purpose::Group(_) | Purpose::Base(_) => None,
        }
    }

    pub(super) fn all_full(&self, only: Option<NetworkId>) -> PodError {
        let mut seen = HashSet::new();
        let choices = self.topology.choices.iter().filter(|choice| only.is_none_or(|only| choice.network == only));
        let subnets = choices.flat_map(|choice| &choice.subnets);
        let subnets: Vec<SubnetId> = subnets.copied().filter(|id| seen.insert(*id)).collect();
        PodError::SubnetsFull(self.names(&subnets))
    }

    pub(super) fn names(&self, ids: &[SubnetId]) -> Vec<String> {
        let name = |id: &SubnetId| {
            let subnet = self.topology.subnets.iter().find(|subnet| subnet.id == *id);
            subnet.map(|subnet| subnet.name.clone()).filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_string())
        };
        ids.iter().map(name).collect()
    }
}

/// Addresses that no port has. Those that Neutron has lost are among them: it counts by ports.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn free(subnet: &SubnetUse) -> u64 {
    (subnet.total_ips - subnet.used_ips as f64).max(0.0) as u64
}
