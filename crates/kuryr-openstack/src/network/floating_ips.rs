//! Floating IPs.

use super::{Filter, Kind, Network, Rest};
use crate::Error;
use kuryr_model::{FloatingIpId, NetworkId, PortId, SubnetId, neutron::FloatingIp};
use serde::Serialize;
use std::net::IpAddr;

const KIND: Kind = Kind {
    path: "floatingips",
    plural: "floatingips",
    single: "floatingip",
    fields: &[
        "id",
        "floating_network_id",
        "floating_ip_address",
        "fixed_ip_address",
        "port_id",
        "router_id",
        "status",
        "description",
        "tags",
    ],
};

/// A floating IP to be created. It gets its tags afterwards: the description is what it can be found by until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewFloatingIp {
    /// The external network.
    pub floating_network_id: NetworkId,
    /// The subnet of it that the address is to be from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<SubnetId>,
    /// The address; any free one unless given. Only administrators may choose, unless the cloud's policy says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floating_ip_address: Option<IpAddr>,
    /// The port that it is to lead to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_id: Option<PortId>,
    /// Which address of the port; must be there if the port has several IPv4 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ip_address: Option<IpAddr>,
    /// For people, and to be found by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl NewFloatingIp {
    /// Any free address that leads nowhere yet.
    #[must_use]
    pub fn new(floating_network_id: NetworkId) -> Self {
        Self {
            floating_network_id,
            subnet_id: None,
            floating_ip_address: None,
            port_id: None,
            fixed_ip_address: None,
            description: String::new(),
        }
    }
}

/// Where a floating IP leads; `null` is nowhere.
#[derive(Serialize)]
struct Association {
    port_id: Option<PortId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed_ip_address: Option<IpAddr>,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct FloatingIps<'a>(&'a Rest);

impl Network {
    /// Floating IPs.
    #[must_use]
    pub fn floating_ips(&self) -> FloatingIps<'_> {
        FloatingIps(&self.rest)
    }
}

impl FloatingIps<'_> {
    /// Those that the filter lets through; `port_id`, `floating_ip_address` and `description` are keys of it.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<FloatingIp>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: FloatingIpId) -> Result<FloatingIp, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one. 409 if the port's address has one of that network already.
    pub async fn create(&self, new: &NewFloatingIp) -> Result<FloatingIp, Error> {
        self.0.create(&KIND, new).await
    }

    /// Leads one to an address of a port, wherever it led before. Doing it twice is doing it once.
    pub async fn associate(
        &self,
        id: FloatingIpId,
        port: PortId,
        address: Option<IpAddr>,
    ) -> Result<FloatingIp, Error> {
        self.0.update(&KIND, id, &Association { port_id: Some(port), fixed_ip_address: address }, None).await
    }

    /// Leads one nowhere. The address stays the project's.
    pub async fn dissociate(&self, id: FloatingIpId) -> Result<FloatingIp, Error> {
        self.0.update(&KIND, id, &Association { port_id: None, fixed_ip_address: None }, None).await
    }

    /// Deletes one, and gives its address back. One that is gone already is deleted.
    pub async fn delete(&self, id: FloatingIpId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }
}
