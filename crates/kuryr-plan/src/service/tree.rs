//! What a Service has to have in Octavia and Neutron.

use super::{
    input::{Family, Transport},
    provider::Provider,
};
use ipnet::IpNet;
use kuryr_model::{FlavorId, LoadBalancerId, NetworkId, PortId, SubnetId, lb};
use std::{collections::BTreeMap, fmt, net::IpAddr};

/// One load balancer with all that is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Which of the Service's it is.
    pub role: Role,
    /// Where its addresses come from.
    pub place: Place,
    /// Who carries it out.
    pub provider: Provider,
    /// Its flavor; `None`: any.
    pub flavor: Option<FlavorId>,
    /// Its availability zone; `None`: any.
    pub availability_zone: Option<String>,
    /// `<namespace>/<service>`.
    pub name: String,
    /// For people.
    pub description: String,
    /// The mark of its Service; listeners, listener pools and health monitors carry the same tags.
    pub tags: Vec<String>,
    /// Its listeners, in order of their keys.
    pub listeners: Vec<Listener>,
    /// The families of its addresses; those that it is taken to have, where [`Self::place`] does not tell.
    pub families: Vec<Family>,
    /// The provider cannot have several addresses in one load balancer: make one for each.
    pub apart: bool,
    /// The provider overlooks health monitors that come with their load balancer: they follow, each by itself.
    pub monitors_follow: bool,
    /// Listeners can let in some clients only.
    pub limits_clients: bool,
}

/// Which of its Service's trees one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// At the clusterIPs; with one tree for each family, the one for the first family.
    Cluster,
    /// At the clusterIP of the second family, where one load balancer cannot have both.
    SecondFamily,
    /// At the address that the Service's annotations ask for.
    External,
}

/// Where the addresses of a load balancer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// From subnets, or any subnet of a network. Never empty; the first is the one that Octavia calls *the* VIP.
    Vips(Vec<Vip>),
    /// From a port that the user made.
    Port(PortId),
    /// It is there: a load balancer that the user made, of which only what carries our mark is ours. Never deleted.
    Existing(LoadBalancerId),
}

/// An address of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vip {
    /// The network; `None`: that of the subnet.
    pub network: Option<NetworkId>,
    /// The subnet; `None`: any of the network.
    pub subnet: Option<SubnetId>,
    /// The address; `None`: any free one.
    pub address: Option<IpAddr>,
}

/// What tells listeners of one load balancer apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    /// The transport protocol; HTTP and TLS count as TCP.
    pub transport: Transport,
    /// The port number.
    pub number: u16,
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.number)
    }
}

/// A listener with its listener pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it is known by.
    pub key: ListenerKey,
    /// What it speaks.
    pub protocol: lb::Protocol,
    /// `<namespace>/<service>:<key>`.
    pub name: String,
    /// The most connections at once; -1: no limit.
    pub connection_limit: i64,
    /// `None`: the provider has none.
    pub timeouts: Option<Timeouts>,
    /// Only clients in these may connect; empty: all. Sorted.
    pub allowed_cidrs: Vec<IpNet>,
    /// HTTP headers that it adds.
    pub insert_headers: BTreeMap<String, String>,
    /// Where its connections go.
    pub pool: Pool,
}

/// How long a listener waits, in milliseconds each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a silent client.
    pub client_data: u64,
    /// For a member to take the connection.
    pub member_connect: u64,
    /// For a silent member.
    pub member_data: u64,
    /// For packets to inspect.
    pub tcp_inspect: u64,
}

/// A listener pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `<namespace>/<service>:<key of its listener>`. A listener pool that is not attached to its listener yet is known
    /// by it.
    pub name: String,
    /// What its members speak.
    pub protocol: lb::Protocol,
    /// How a member is chosen.
    pub algorithm: lb::Algorithm,
    /// What binds a client to one member, if anything.
    pub persistence: Option<lb::SessionPersistence>,
    /// Its members, in order of address and port number, each of them once.
    pub members: Vec<Member>,
    /// What watches its members, if anything.
    pub monitor: Option<Monitor>,
}

/// A member of a listener pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its address.
    pub address: IpAddr,
    /// Its port number.
    pub port: u16,
    /// Its share of the connections: 1, or 0 if it gets no new ones.
    pub weight: u16,
    /// The subnet from which it is reached; `None`: by the load balancer's own routes.
    pub subnet: Option<SubnetId>,
    /// `<namespace>/<pod>`, or empty.
    pub name: String,
}

/// A health monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// That of its listener pool.
    pub name: String,
    /// How it asks.
    pub kind: lb::MonitorType,
    /// Time between two questions, in seconds.
    pub delay: u32,
    /// How long a member may take to answer, in seconds.
    pub timeout: u32,
    /// Good answers after which a member is up.
    pub max_retries: u32,
    /// Missing answers after which a member is down.
    pub max_retries_down: u32,
}

/// What a Service has to have as a floating IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Floating {
    /// None; what was made for it is deleted, or given up if it is to be kept.
    None,
    /// None for now, since the Service must not be exposed as it is: what was made for it leads nowhere, and is kept.
    Withheld,
    /// One that leads to a tree.
    Wanted(WantedFloating),
}

/// A floating IP and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedFloating {
    /// The tree to whose VIP port it leads.
    pub to: Role,
    /// The external network to make it in; `None`: it is not known, so only what is there can be used.
    pub network: Option<NetworkId>,
    /// Subnets of that network, to be tried in this order; empty: Neutron's choice.
    pub subnets: Vec<SubnetId>,
    /// The address that it must have; `None`: any.
    pub address: Option<IpAddr>,
    /// Whether one may be made; else only one that is there is used.
    pub make: bool,
    /// The mark of its Service, and [`KEEP_TAG`] if it outlives the Service.
    pub tags: Vec<String>,
    /// For people, and to be known by until it has its tags, which Neutron takes in a second request only.
    pub description: String,
}

/// On a floating IP that outlives its Service (`loadbalancer.openstack.org/keep-floatingip`): then it loses all tags of
/// Kuryr and is the project's.
pub const KEEP_TAG: &str = "kuryr:keep";

/// On a floating IP that somebody else made and the Service uses: it loses all tags of Kuryr when it no longer does.
pub const ADOPTED_TAG: &str = "kuryr:adopted";

impl Tree {
    /// The addresses that are fixed.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let vips: &[Vip] = match &self.place {
            Place::Vips(vips) => vips,
            Place::Port(_) | Place::Existing(_) => &[],
        };
        vips.iter().filter_map(|vip| vip.address)
    }
}
