//! The rules of one node, or of the core, as data.

use ipnet::IpNet;
use kuryr_model::MacAddress;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// Everything in a place's table that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Sets of addresses by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Vec<Statement>>,
    /// Where a host end's packets go, by map and interface.
    pub maps: BTreeMap<(Map, String), Verdict>,
    /// Sources that are in order, by interface.
    pub sources: BTreeSet<(String, MacAddress, IpAddr)>,
    /// What is asked for at virtual addresses.
    pub balancing: Balancing,
    /// Floating IPs of the place's ports, and the addresses that they stand for.
    pub floating: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// The work of load balancers in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancing {
    /// The chain that picks one of the slots behind a service.
    pub services: BTreeMap<Service, String>,
    /// The member in each of its slots.
    pub backends: BTreeMap<Service, Vec<SocketAddr>>,
    /// The chain that knows who may connect.
    pub clients: BTreeMap<Service, String>,
    /// Services that have nobody to answer, and say so.
    pub refused: BTreeSet<Service>,
    /// The address that a member sees in place of the opener's, by virtual address.
    pub proxies: BTreeMap<IpAddr, IpAddr>,
    /// Members that may reach themselves, who then see the virtual address as opener.
    pub loops: BTreeSet<IpAddr>,
}

/// What a connection can be opened to at a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The address.
    pub ip: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port number.
    pub number: u16,
}

/// A set of addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Of IPv6.
    pub v6: bool,
    /// Of prefixes rather than single addresses.
    pub prefixes: bool,
    /// Its elements; disjoint.
    pub elements: BTreeSet<IpNet>,
}

/// The questions that are asked about a host end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// May this, which is none of [`Ruleset::sources`], come from it?
    Spoof,
    /// May it open this connection?
    Egress,
    /// May it go on with this connection, when a load balancer has chosen who answers?
    Later,
    /// May this connection be opened to it?
    Ingress,
}

impl Map {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Spoof, Self::Egress, Self::Later, Self::Ingress];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spoof => "spoof",
            Self::Egress => "egress",
            Self::Later => "later",
            Self::Ingress => "ingress",
        }
    }
}

/// The answer of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Accept,
    /// The chain decides.
    Goto(String),
}

/// Which ends of a connection a rule looks at. Load balancers and floating IPs make them differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// What the opener asked for: where its first packet was sent.
    Asked,
    /// Who answers the opener: where its later packets arrive.
    Answering,
    /// What who answers sees of the opener.
    Asking,
}

/// A line of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Ask another chain; go on here if it does not accept.
    Jump(String),
    /// Accept what matches.
    Allow(Match),
    /// Accept packets of this source.
    Source(MacAddress, IpNet),
    /// Accept packets from there, not yet translated.
    Client(IpNet),
    /// Leave the chain if the connection is from the one to the other, which is [`View::Asked`] or [`View::Answering`].
    Join(View, IpNet, IpNet),
    /// Leave the chain if the connection is from a subnet that a router connects to the outside, to there.
    Outbound {
        /// Which destination.
        view: View,
        /// Of IPv6.
        v6: bool,
    },
    /// Leave the chain if it is the other way round.
    Inbound {
        /// Which destination.
        view: View,
        /// Of IPv6.
        v6: bool,
    },
    /// Pick one of so many slots of a service.
    Spread {
        /// Of IPv6.
        v6: bool,
        /// How many.
        slots: u16,
        /// By nothing but the opener's address.
        sticky: bool,
    },
    /// Refuse the rest.
    Drop,
}

/// What a security group's rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// What it looks at.
    pub view: View,
    /// Of IPv6.
    pub v6: bool,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Port numbers of the destination; for ICMP type * 256 + code, which is what the kernel keeps in their place.
    pub ports: Option<(u16, u16)>,
    /// The other side.
    pub remote: Remote,
}

/// The other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Anybody.
    Any,
    /// An address of the prefix.
    Net(IpNet),
    /// An address of the set.
    Set(String),
}

/// The names of the sets and chains that every place has.
pub(super) mod names {
    use super::View;

    /// Addresses of routers.
    pub(in crate::dataplane) const GATEWAYS: &str = "gateways";
    /// Sources that are in order.
    pub(in crate::dataplane) const SOURCES: &str = "sources";
    /// All subnets.
    pub(in crate::dataplane) const SUBNETS: &str = "subnets";
    /// Subnets with a router that has a gateway to the outside, and those that are the outside.
    pub(in crate::dataplane) const OUTSIDE: &str = "outside";
    /// Virtual addresses that are balanced here.
    pub(in crate::dataplane) const VIPS: &str = "vips";
    /// Those of them that the outside does not reach.
    pub(in crate::dataplane) const INNER: &str = "inner";

    /// The set's name for a family.
    pub(in crate::dataplane) fn of(family: &str, v6: bool) -> String {
        format!("{family}{}", if v6 { 6 } else { 4 })
    }

    /// The chain that knows which subnets are joined.
    pub(in crate::dataplane) fn reach(view: View) -> &'static str {
        match view {
            View::Answering => "reach-answering",
            View::Asked | View::Asking => "reach",
        }
    }
}

impl Ruleset {
    /// What there is in the core after [`super::initial_core`]: sets without elements.
    #[must_use]
    pub fn empty_core() -> Self {
        let mut ruleset = Self::default();
        ruleset.add_sets(&[(names::SUBNETS, true), (names::VIPS, false), (names::INNER, false)]);
        ruleset
    }

    /// What there is on a node after [`super::initial`]: also no port, and no way from one subnet to another.
    #[must_use]
    pub fn empty() -> Self {
        let mut ruleset = Self::empty_core();
        ruleset.add_sets(&[(names::GATEWAYS, false), (names::OUTSIDE, true)]);
        for view in [View::Asked, View::Answering] {
            ruleset.chains.insert(names::reach(view).into(), vec![Statement::Drop]);
        }
        ruleset
    }

    fn add_sets(&mut self, sets: &[(&str, bool)]) {
        for (name, prefixes) in sets {
            for v6 in [false, true] {
                let set = Set { v6, prefixes: *prefixes, elements: BTreeSet::new() };
                self.sets.insert(names::of(name, v6), set);
            }
        }
    }

    /// Adds to a set of both families, if the place has it.
    pub(super) fn fill(&mut self, name: &str, nets: impl IntoIterator<Item = IpNet>) {
        for net in nets {
            if let Some(set) = self.sets.get_mut(&names::of(name, net.addr().is_ipv6())) {
                set.elements.insert(net);
            }
        }
    }
}
