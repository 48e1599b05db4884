//! Subnets.

use super::{Filter, Kind, Network, Rest};
use crate::Error;
use ipnet::IpNet;
use kuryr_model::{NetworkId, SubnetId, SubnetPoolId, neutron::Subnet};
use serde::Serialize;

const KIND: Kind = Kind {
    path: "subnets",
    plural: "subnets",
    single: "subnet",
    fields: &["id", "network_id", "name", "cidr", "gateway_ip", "host_routes", "subnetpool_id", "tags"],
};

/// A subnet to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewSubnet {
    /// Its network.
    pub network_id: NetworkId,
    /// 4 or 6.
    pub ip_version: u8,
    /// Its addresses; from the pool if there are none given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<IpNet>,
    /// The pool that its addresses are to come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnetpool_id: Option<SubnetPoolId>,
    /// For people.
    pub name: String,
    /// For people, and to be found by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether Neutron answers DHCP in it.
    pub enable_dhcp: bool,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct Subnets<'a>(&'a Rest);

impl Network {
    /// Subnets.
    #[must_use]
    pub fn subnets(&self) -> Subnets<'_> {
        Subnets(&self.rest)
    }
}

impl Subnets<'_> {
    /// Those that the filter lets through.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Subnet>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: SubnetId) -> Result<Subnet, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one.
    pub async fn create(&self, subnet: &NewSubnet) -> Result<Subnet, Error> {
        self.0.create(&KIND, subnet).await
    }

    /// Deletes one. One that is gone already is deleted.
    pub async fn delete(&self, id: SubnetId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }
}
