//! What the data plane is told: the part of a cloud's state that packets can see.

use ipnet::IpNet;
use kuryr_model::{MacAddress, PortId, SecurityGroupId, SubnetId, neutron::RuleContent};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
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
    /// Load balancers that pass traffic.
    pub load_balancers: Vec<LoadBalancer>,
    /// Floating IPs, of ports and of load balancers.
    pub floating_ips: Vec<FloatingIp>,
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
    /// Of an external network: where floating IPs are from, and part of the outside.
    pub external: bool,
}

/// A router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// Where it is on subnets: it answers there, and routes between them.
    pub interfaces: Vec<(SubnetId, IpAddr)>,
    /// Whether it has a gateway to the outside, which here is the core and the nodes.
    pub external: bool,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// What balances.
    pub provider: Provider,
    /// Its addresses.
    pub vips: Vec<IpAddr>,
    /// Its listeners that pass traffic.
    pub listeners: Vec<Listener>,
}

/// What a load balancer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// OVN: the opener's own switch chooses a member, which sees the opener.
    Ovn,
    /// Octavia's machines, behind which the opener is hidden: a member sees the virtual address.
    Amphora,
}

/// A listener with the members of its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// IP protocol number.
    pub protocol: u8,
    /// Port number.
    pub number: u16,
    /// Who may connect; everyone when empty.
    pub clients: Vec<IpNet>,
    /// Whether all connections from one address go to one member.
    pub sticky: bool,
    /// Those who answer.
    pub members: Vec<Member>,
}

/// A member of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its address.
    pub ip: IpAddr,
    /// Its port number.
    pub number: u16,
    /// Its share of new connections; 0 for none. OVN tells no more than none from some.
    pub weight: u16,
    /// Whether it gets new connections as far as health goes.
    pub online: bool,
}

/// A floating IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatingIp {
    /// The address outside.
    pub floating: Ipv4Addr,
    /// The address inside.
    pub fixed: Ipv4Addr,
    /// The port that has the latter.
    pub port: PortId,
}
