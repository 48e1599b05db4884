//! The rules of one node as data, and as text for `nft`.

use ipnet::IpNet;
use kuryr_model::MacAddress;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    net::IpAddr,
};

/// Everything in a node's table that changes.
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

/// The three questions that are asked about a host end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// May this, which is none of [`Ruleset::sources`], come from it?
    Spoof,
    /// May it open this connection?
    Egress,
    /// May this connection be opened to it?
    Ingress,
}

impl Map {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Spoof, Self::Egress, Self::Ingress];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spoof => "spoof",
            Self::Egress => "egress",
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

/// A line of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Ask another chain; go on here if it does not accept.
    Jump(String),
    /// Accept what matches.
    Allow(Match),
    /// Accept packets of this source.
    Source(MacAddress, IpNet),
    /// Leave the chain if the connection is from the one to the other.
    Join(IpNet, IpNet),
    /// Leave the chain if the connection is from a subnet that a router connects to the outside, to there.
    Outbound {
        /// Of IPv6.
        v6: bool,
    },
    /// Leave the chain if it is the other way round.
    Inbound {
        /// Of IPv6.
        v6: bool,
    },
    /// Refuse the rest.
    Drop,
}

/// What a security group's rule matches: properties of the connection's first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Out of the port.
    pub egress: bool,
    /// Of IPv6.
    pub v6: bool,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Port numbers; for ICMP type * 256 + code, which is what the kernel keeps in their place.
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

/// The names of the sets that every node has.
pub(super) mod names {
    /// Addresses of routers.
    pub(in crate::dataplane) const GATEWAYS: &str = "gateways";
    /// Sources that are in order.
    pub(in crate::dataplane) const SOURCES: &str = "sources";
    /// All subnets.
    pub(in crate::dataplane) const SUBNETS: &str = "subnets";
    /// Subnets with a router that has a gateway to the outside.
    pub(in crate::dataplane) const OUTSIDE: &str = "outside";
    /// Which subnets are joined.
    pub(in crate::dataplane) const REACH: &str = "reach";

    /// The set's name for a family.
    pub(in crate::dataplane) fn of(family: &str, v6: bool) -> String {
        format!("{family}{}", if v6 { 6 } else { 4 })
    }
}

const TABLE: &str = "inet kuryr";

/// The parts that never change, replacing a whole table that may be there: hooks, and the order of checks.
#[must_use]
pub fn initial() -> String {
    include_str!("table.nft").to_owned()
}

impl Ruleset {
    /// What there is after [`initial`]: sets without elements, no port, and no way from one subnet to another.
    #[must_use]
    pub fn empty() -> Self {
        let mut ruleset = Self::default();
        for v6 in [false, true] {
            for (name, prefixes) in [(names::GATEWAYS, false), (names::SUBNETS, true), (names::OUTSIDE, true)] {
                ruleset.sets.insert(names::of(name, v6), Set { v6, prefixes, elements: BTreeSet::new() });
            }
        }
        ruleset.chains.insert(names::REACH.into(), vec![Statement::Drop]);
        ruleset
    }
}

/// What `nft` must be told to make `new` of `old` (which is [`Ruleset::empty`] after [`initial`]); empty if nothing.
#[must_use]
pub fn changes(old: &Ruleset, new: &Ruleset) -> String {
    let mut script = Script::default();
    for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        script.line(format_args!("add set {TABLE} {name} {{ type {}; {}}}", set.kind(), set.flags()));
    }
    for name in new.chains.keys().filter(|name| !old.chains.contains_key(*name)) {
        script.line(format_args!("add chain {TABLE} {name}"));
    }
    for (key, _) in old.maps.iter().filter(|(key, verdict)| new.maps.get(*key) != Some(verdict)) {
        script.line(format_args!("delete element {TABLE} {} {{ \"{}\" }}", key.0.as_str(), key.1));
    }
    for (name, statements) in &new.chains {
        let before = old.chains.get(name);
        if before == Some(statements) {
            continue;
        }
        if before.is_some() {
            script.line(format_args!("flush chain {TABLE} {name}"));
        }
        for statement in statements {
            script.line(format_args!("add rule {TABLE} {name} {statement}"));
        }
    }
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        script.line(format_args!("flush chain {TABLE} {name}"));
    }
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        script.line(format_args!("delete chain {TABLE} {name}"));
    }
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
        script.line(format_args!("delete set {TABLE} {name}"));
    }
    let nothing = BTreeSet::new();
    for (name, set) in &new.sets {
        let before = old.sets.get(name).map_or(&nothing, |set| &set.elements);
        script.elements("delete", name, before.difference(&set.elements));
        script.elements("add", name, set.elements.difference(before));
    }
    for v6 in [false, true] {
        let name = names::of(names::SOURCES, v6);
        script.sources("delete", &name, old.sources.difference(&new.sources).filter(|(.., ip)| ip.is_ipv6() == v6));
        script.sources("add", &name, new.sources.difference(&old.sources).filter(|(.., ip)| ip.is_ipv6() == v6));
    }
    for (key, verdict) in new.maps.iter().filter(|(key, verdict)| old.maps.get(*key) != Some(verdict)) {
        script.line(format_args!("add element {TABLE} {} {{ \"{}\" : {verdict} }}", key.0.as_str(), key.1));
    }
    script.0
}

#[derive(Default)]
struct Script(String);

impl Script {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn sources<'a>(&mut self, verb: &str, set: &str, sources: impl Iterator<Item = &'a (String, MacAddress, IpAddr)>) {
        let elements: Vec<String> = sources.map(|(end, mac, ip)| format!("\"{end}\" . {mac} . {ip}")).collect();
        if !elements.is_empty() {
            self.line(format_args!("{verb} element {TABLE} {set} {{ {} }}", elements.join(", ")));
        }
    }

    fn elements<'a>(&mut self, verb: &str, set: &str, elements: impl Iterator<Item = &'a IpNet>) {
        let elements: Vec<String> = elements.map(short).collect();
        if !elements.is_empty() {
            self.line(format_args!("{verb} element {TABLE} {set} {{ {} }}", elements.join(", ")));
        }
    }
}

/// A prefix of full length without it.
fn short(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.trunc().to_string() }
}

impl Set {
    fn kind(&self) -> &'static str {
        if self.v6 { "ipv6_addr" } else { "ipv4_addr" }
    }

    fn flags(&self) -> &'static str {
        if self.prefixes { "flags interval; " } else { "" }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

fn ip(v6: bool) -> &'static str {
    if v6 { "ip6" } else { "ip" }
}

fn is_v6(net: &IpNet) -> bool {
    net.addr().is_ipv6()
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Allow(matched) => write!(f, "{matched}accept"),
            Self::Source(mac, net) => write!(f, "ether saddr {mac} {} saddr {} accept", ip(is_v6(net)), short(net)),
            Self::Join(from, to) => {
                let ip = ip(is_v6(from));
                write!(f, "ct original {ip} saddr {} ct original {ip} daddr {} return", short(from), short(to))
            }
            Self::Outbound { v6 } | Self::Inbound { v6 } => {
                let (ip, outside, subnets) = (ip(*v6), names::of(names::OUTSIDE, *v6), names::of(names::SUBNETS, *v6));
                let (inner, outer) =
                    if matches!(self, Self::Outbound { .. }) { ("saddr", "daddr") } else { ("daddr", "saddr") };
                write!(f, "ct original {ip} {inner} @{outside} ct original {ip} {outer} != @{subnets} return")
            }
            Self::Drop => f.write_str("drop"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "meta nfproto {} ", if self.v6 { "ipv6" } else { "ipv4" })?;
        let side = if self.egress { "daddr" } else { "saddr" };
        match &self.remote {
            Remote::Any => {}
            Remote::Net(net) => write!(f, "ct original {} {side} {} ", ip(self.v6), short(net))?,
            Remote::Set(name) => write!(f, "ct original {} {side} @{name} ", ip(self.v6))?,
        }
        if let Some(protocol) = self.protocol {
            write!(f, "meta l4proto {protocol} ")?;
        }
        match self.ports {
            Some((low, high)) if low == high => write!(f, "ct original proto-dst {low} "),
            Some((low, high)) => write!(f, "ct original proto-dst {low}-{high} "),
            None => Ok(()),
        }
    }
}
