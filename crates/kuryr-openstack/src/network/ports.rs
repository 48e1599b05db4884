//! Ports.

use super::{Filter, Kind, Network, Rest};
use crate::Error;
use kuryr_model::{MacAddress, NetworkId, PortId, SecurityGroupId, SubnetId, neutron::Port};
use serde::Serialize;
use std::net::IpAddr;

const KIND: Kind = Kind {
    path: "ports",
    plural: "ports",
    single: "port",
    fields: &[
        "id",
        "network_id",
        "mac_address",
        "name",
        "fixed_ips",
        "security_groups",
        "status",
        "device_owner",
        "device_id",
        "tags",
        "revision_number",
        "binding:host_id",
        "binding:vif_type",
        "binding:vif_details",
    ],
};

/// A port to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewPort {
    /// Its network.
    pub network_id: NetworkId,
    /// For people.
    pub name: String,
    /// Who uses it.
    pub device_owner: String,
    /// What uses it.
    pub device_id: String,
    /// The host that it is bound to.
    #[serde(rename = "binding:host_id", skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// Its addresses; empty: one of each family that the network has, from any subnet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed_ips: Vec<NewFixedIp>,
    /// Its groups. Always sent: with none it drops everything, it does not get the project's default group.
    pub security_groups: Vec<SecurityGroupId>,
    /// Its Ethernet address; Neutron chooses one if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<MacAddress>,
    /// Whether it is switched on, which it is unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_state_up: Option<bool>,
    /// Its tags. Neutron drops them silently unless ML2's extension driver `tag_ports_during_bulk_creation` is configured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl NewPort {
    /// A port that needs no more than this.
    #[must_use]
    pub fn new(network_id: NetworkId) -> Self {
        Self {
            network_id,
            name: String::new(),
            device_owner: String::new(),
            device_id: String::new(),
            host_id: None,
            fixed_ips: Vec::new(),
            security_groups: Vec::new(),
            mac_address: None,
            admin_state_up: None,
            tags: Vec::new(),
        }
    }
}

/// An address to be given to a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewFixedIp {
    /// The subnet that it is to be from.
    pub subnet_id: SubnetId,
    /// This one and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<IpAddr>,
}

impl From<SubnetId> for NewFixedIp {
    fn from(subnet_id: SubnetId) -> Self {
        Self { subnet_id, ip_address: None }
    }
}

/// What is to change of a port; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortUpdate {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_owner: Option<String>,
    /// What uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The host that it is bound to; empty: none.
    #[serde(rename = "binding:host_id", skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// All its groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<SecurityGroupId>>,
    /// All its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ips: Option<Vec<NewFixedIp>>,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct Ports<'a>(&'a Rest);

impl Network {
    /// Ports.
    #[must_use]
    pub fn ports(&self) -> Ports<'_> {
        Ports(&self.rest)
    }
}

impl Ports<'_> {
    /// Those that the filter lets through.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Port>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: PortId) -> Result<Port, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one.
    pub async fn create(&self, port: &NewPort) -> Result<Port, Error> {
        self.0.create(&KIND, port).await
    }

    /// Creates all in one request, in their order, or none: one that cannot be had fails all.
    pub async fn create_many(&self, ports: &[NewPort]) -> Result<Vec<Port>, Error> {
        self.0.create_many(&KIND, ports).await
    }

    /// Changes one; with a revision only if it still has that one, else the error [`Error::is_stale`].
    pub async fn update(&self, id: PortId, change: &PortUpdate, revision: Option<u64>) -> Result<Port, Error> {
        self.0.update(&KIND, id, change, revision).await
    }

    /// Deletes one. One that is gone already is deleted.
    pub async fn delete(&self, id: PortId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }
}
