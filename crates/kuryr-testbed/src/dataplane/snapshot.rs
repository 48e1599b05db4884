//! What the data plane is told: the part of a cloud's state that packets can see.

use ipnet::IpNet;
use kuryr_model::{MacAddress, PortId, SecurityGroupId, SubnetId, neutron::RuleContent};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// All that a data plane needs to know, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Ports that are bound to a host. Others cannot be seen.
    pub ports: BTreeMap<PortId, Port>,
    /// The rules of every security group.
    pub groups: BTreeMap<SecurityGroupId, Vec<RuleContent>>,
    /// Subnets.
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// Routers.
    pub routers: Vec<Router>,
}

/// A port on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `binding:host_id`: the name of a node.
    pub host: String,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its security groups; none drops everything.
    pub groups: BTreeSet<SecurityGroupId>,
    /// Whether security groups and source checks apply.
    pub port_security: bool,
    /// Other sources that it may use.
    pub pairs: Vec<Pair>,
    /// `admin_state_up`.
    pub up: bool,
}

/// An allowed address pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its Ethernet address; none for the port's.
    pub mac: Option<MacAddress>,
    /// Its addresses.
    pub net: IpNet,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its addresses.
    pub net: IpNet,
}

/// A router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// Where it is on subnets: it answers there, and routes between them.
    pub interfaces: Vec<(SubnetId, IpAddr)>,
    /// Whether it has a gateway to the outside, which here is the core and the nodes.
    pub external: bool,
}
