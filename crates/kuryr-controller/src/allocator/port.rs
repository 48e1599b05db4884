//! What a pod's port is asked to be, and what is made of it.

use super::{Request, Shared, spare};
use crate::error::PodError;
use kuryr_model::{DEVICE_OWNER, Mark, PodUid, Purpose, SubnetId, Vif, neutron::Port};
use kuryr_openstack::network::{NewFixedIp, NewPort, ip_availability::SubnetUse};
use kuryr_plan::{subnets::Choice, vif::vif};
use std::collections::HashSet;

/// The name that the interface of a pod's first port has.
const INTERFACE: &str = "eth0";

impl Shared {
    pub(super) fn new_port(&self, request: &Request, choice: &Choice) -> NewPort {
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Pod(request.uid.clone()) };
        NewPort {
            name: spare::name_of(&request.key),
            fixed_ips: choice.subnets.iter().map(|id| NewFixedIp::from(*id)).collect(),
            security_groups: request.groups.clone(),
            host_id: Some(request.host.clone()),
            device_owner: DEVICE_OWNER.to_owned(),
            device_id: request.uid.to_string(),
            tags: mark.tags(),
            ..NewPort::new(choice.network)
        }
    }

    /// What a pod's node plugs for its port.
    pub(super) fn vif(&self, request: &Request, port: &Port) -> Result<Vif, PodError> {
        if self.owner(port).as_ref() != Some(&request.uid) {
            return Err(PodError::Untagged);
        }
        self.plugged(port)
    }

    /// The same, whosever the port is.
    pub(super) fn plugged(&self, port: &Port) -> Result<Vif, PodError> {
        let network = self.topology.networks.get(&port.network_id).ok_or(PodError::WrongNetwork(port.network_id))?;
        Ok(vif(INTERFACE, port, network, &self.topology.subnets)?)
    }

    /// The pod that a port is marked for.
    pub(super) fn owner(&self, port: &Port) -> Option<PodUid> {
        match Mark::read(&self.cluster, &port.tags)?.purpose {
            Purpose::Pod(uid) => Some(uid),
            Purpose::Pool | Purpose::Service(_) | Purpose::Group(_) | Purpose::Base(_) => None,
        }
    }

    pub(super) fn all_full(&self) -> PodError {
        let mut seen = HashSet::new();
        let subnets = self.topology.choices.iter().flat_map(|choice| &choice.subnets);
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
