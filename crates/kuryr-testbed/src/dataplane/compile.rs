//! From what the cloud wants to the rules of one node: pure.

use super::{
    balance,
    ruleset::{Map, Match, Remote, Ruleset, Set, Statement, Verdict, View, names},
    snapshot::{Port, Snapshot},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kuryr_model::{
    PortId, SecurityGroupId,
    neutron::{Direction, EtherType, RuleContent},
};
use kuryr_node::plug::mark::host_end_name;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

/// The rules of the node of that name.
#[must_use]
pub fn compile(snapshot: &Snapshot, node: &str) -> Ruleset {
    let mut ruleset = Ruleset::empty();
    subnets(snapshot, &mut ruleset);
    balance::load_balancers(snapshot, Some(node), &outside(snapshot), &mut ruleset);
    balance::floating_ips(snapshot, node, &mut ruleset);
    let local = snapshot.ports.iter().filter(|(_, port)| port.host == node && port.up);
    let mut groups = BTreeSet::new();
    for (id, port) in local {
        port_rules(*id, port, &mut ruleset);
        if port.port_security {
            groups.extend(port.groups.iter().copied());
        }
    }
    let mut remotes = BTreeSet::new();
    for group in groups {
        let rules = snapshot.groups.get(&group).map(Vec::as_slice).unwrap_or_default();
        for (_, view) in CHECKS {
            let of_direction = rules.iter().filter(|rule| rule.direction == direction(view));
            let statements = of_direction.filter_map(|rule| allow(rule, view, &mut remotes));
            ruleset.chains.insert(group_chain(view, group), statements.map(Statement::Allow).collect());
        }
    }
    members(snapshot, &remotes, &mut ruleset);
    ruleset
}

/// The rules of the core.
#[must_use]
pub fn compile_core(snapshot: &Snapshot) -> Ruleset {
    let mut ruleset = Ruleset::empty_core();
    ruleset.fill(names::SUBNETS, inside(snapshot));
    balance::load_balancers(snapshot, None, &outside(snapshot), &mut ruleset);
    ruleset
}

/// What is asked of a port's groups: by which map, and about which ends of a connection.
const CHECKS: [(Map, View); 3] =
    [(Map::Egress, View::Asked), (Map::Later, View::Answering), (Map::Ingress, View::Asking)];

fn direction(view: View) -> Direction {
    match view {
        View::Asked | View::Answering => Direction::Egress,
        View::Asking => Direction::Ingress,
    }
}

/// Which subnets exist, which routers join, and where routers answer.
fn subnets(snapshot: &Snapshot, ruleset: &mut Ruleset) {
    let net_of = |id| snapshot.subnets.get(id).map(|subnet| subnet.net.trunc());
    let all = snapshot.subnets.values().map(|subnet| subnet.net.trunc());
    let mut joined: BTreeSet<(IpNet, IpNet)> = all.map(|net| (net, net)).collect();
    for router in &snapshot.routers {
        let nets: Vec<IpNet> = router.interfaces.iter().filter_map(|(subnet, _)| net_of(subnet)).collect();
        for from in &nets {
            let same_family = nets.iter().filter(|to| to.addr().is_ipv4() == from.addr().is_ipv4());
            joined.extend(same_family.map(|to| (*from, *to)));
        }
        ruleset.fill(names::GATEWAYS, router.interfaces.iter().map(|(_, ip)| IpNet::from(*ip)));
    }
    ruleset.fill(names::SUBNETS, inside(snapshot));
    ruleset.fill(names::OUTSIDE, outside(snapshot));
    for view in [View::Asked, View::Answering] {
        let mut reach: Vec<Statement> = joined.iter().map(|(from, to)| Statement::Join(view, *from, *to)).collect();
        for v6 in [false, true] {
            reach.extend([Statement::Outbound { view, v6 }, Statement::Inbound { view, v6 }]);
        }
        reach.push(Statement::Drop);
        ruleset.chains.insert(names::reach(view).into(), reach);
    }
}

/// All subnets but those that are the outside.
fn inside(snapshot: &Snapshot) -> Vec<IpNet> {
    let inner = snapshot.subnets.values().filter(|subnet| !subnet.external);
    disjoint(&inner.map(|subnet| subnet.net.trunc()).collect::<Vec<_>>())
}

/// The subnets that can talk with the outside: by a router, or as part of it.
fn outside(snapshot: &Snapshot) -> Vec<IpNet> {
    let routers = snapshot.routers.iter().filter(|router| router.external);
    let routed = routers.flat_map(|router| &router.interfaces).filter_map(|(id, _)| snapshot.subnets.get(id));
    let external = snapshot.subnets.values().filter(|subnet| subnet.external);
    disjoint(&routed.chain(external).map(|subnet| subnet.net.trunc()).collect::<Vec<_>>())
}

pub(super) fn net_contains(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

/// The same addresses in prefixes that do not overlap: subnets of different networks may.
fn disjoint(nets: &[IpNet]) -> Vec<IpNet> {
    let v4: Vec<Ipv4Net> =
        nets.iter().filter_map(|net| if let IpNet::V4(net) = net { Some(*net) } else { None }).collect();
    let v6: Vec<Ipv6Net> =
        nets.iter().filter_map(|net| if let IpNet::V6(net) = net { Some(*net) } else { None }).collect();
    let v4 = Ipv4Net::aggregate(&v4).into_iter().map(IpNet::V4);
    v4.chain(Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6)).collect()
}

fn port_rules(id: PortId, port: &Port, ruleset: &mut Ruleset) {
    let end = host_end_name(id);
    if !port.port_security {
        for map in Map::ALL {
            ruleset.maps.insert((map, end.clone()), Verdict::Accept);
        }
        return;
    }
    ruleset.sources.extend(port.ips.iter().map(|ip| (end.clone(), port.mac, *ip)));
    if !port.pairs.is_empty() {
        let chain = format!("{}-{id}", Map::Spoof.as_str());
        let pairs = port.pairs.iter().map(|pair| Statement::Source(pair.mac.unwrap_or(port.mac), pair.net.trunc()));
        ruleset.chains.insert(chain.clone(), pairs.chain([Statement::Drop]).collect());
        ruleset.maps.insert((Map::Spoof, end.clone()), Verdict::Goto(chain));
    }
    for (map, view) in CHECKS {
        let chain = format!("{}-{:016x}", map.as_str(), fingerprint(&port.groups));
        ruleset.maps.insert((map, end.clone()), Verdict::Goto(chain.clone()));
        ruleset.chains.entry(chain).or_insert_with(|| {
            let jumps = port.groups.iter().map(|group| Statement::Jump(group_chain(view, *group)));
            jumps.chain([Statement::Drop]).collect()
        });
    }
}

/// Names what is alike by what it is: ports with the same groups share their chains, and most have one of few choices.
pub(super) fn fingerprint(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn group_chain(view: View, group: SecurityGroupId) -> String {
    match view {
        View::Asked => format!("to-{group}"),
        View::Answering => format!("later-{group}"),
        View::Asking => format!("from-{group}"),
    }
}

fn members_set(group: SecurityGroupId, v6: bool) -> String {
    names::of(&format!("members-{group}-"), v6)
}

/// A rule as a match, and the group that it names. `None`: it can match nothing.
fn allow(rule: &RuleContent, view: View, remotes: &mut BTreeSet<(SecurityGroupId, bool)>) -> Option<Match> {
    let v6 = rule.ethertype == EtherType::IPv6;
    let protocol = rule.protocol.as_deref().filter(|name| !name.is_empty() && *name != "any");
    let protocol = match protocol {
        Some(name) => Some(protocol_number(name, v6)?),
        None => None,
    };
    let remote = match (rule.remote_group_id, rule.remote_ip_prefix) {
        (Some(group), _) => {
            remotes.insert((group, v6));
            Remote::Set(members_set(group, v6))
        }
        (None, Some(net)) if net.addr().is_ipv6() != v6 => return None,
        (None, Some(net)) if net.prefix_len() > 0 => Remote::Net(net.trunc()),
        (None, _) => Remote::Any,
    };
    let ports = ports(protocol, rule.port_range_min, rule.port_range_max).ok()?;
    Some(Match { view, v6, protocol, ports, remote })
}

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// A rule asks for numbers that no packet has.
struct Unmatchable;

/// The numbers that a rule is for: port numbers, or ICMP's type and code as one; none for any.
fn ports(protocol: Option<u8>, min: Option<u16>, max: Option<u16>) -> Result<Option<(u16, u16)>, Unmatchable> {
    let octet = |number: u16| u8::try_from(number).map_err(|_| Unmatchable);
    match (protocol, min, max) {
        (_, None, None) | (None, ..) | (Some(ICMP | ICMP_V6), None, _) => Ok(None),
        (Some(ICMP | ICMP_V6), Some(kind), code) => {
            let (low, high) = match code {
                Some(code) => (octet(code)?, octet(code)?),
                None => (0, u8::MAX),
            };
            let kind = octet(kind)?;
            Ok(Some((u16::from_be_bytes([kind, low]), u16::from_be_bytes([kind, high]))))
        }
        (Some(_), min, max) => {
            let low = min.or(max).unwrap_or(0);
            let high = max.unwrap_or(low);
            if low <= high { Ok(Some((low, high))) } else { Err(Unmatchable) }
        }
    }
}

/// The names that Neutron knows.
fn protocol_number(name: &str, v6: bool) -> Option<u8> {
    Some(match name {
        // Neutron takes the old name for IPv6 too.
        "icmp" | "1" if v6 => ICMP_V6,
        "icmp" => ICMP,
        "icmpv6" | "ipv6-icmp" => ICMP_V6,
        "ah" => 51,
        "dccp" => 33,
        "egp" => 8,
        "esp" => 50,
        "gre" => 47,
        "igmp" => 2,
        "ipip" => 4,
        "ipv6-encap" => 41,
        "ipv6-frag" => 44,
        "ipv6-nonxt" => 59,
        "ipv6-opts" => 60,
        "ipv6-route" => 43,
        "ospf" => 89,
        "pgm" => 113,
        "rsvp" => 46,
        "sctp" => 132,
        "tcp" => 6,
        "udp" => 17,
        "udplite" => 136,
        "vrrp" => 112,
        number => number.parse().ok()?,
    })
}

/// The addresses of the members of the groups that rules name. As with OVN, a member's address pairs do not count.
fn members(snapshot: &Snapshot, remotes: &BTreeSet<(SecurityGroupId, bool)>, ruleset: &mut Ruleset) {
    let mut members: BTreeMap<(SecurityGroupId, bool), BTreeSet<IpNet>> =
        remotes.iter().map(|remote| (*remote, BTreeSet::new())).collect();
    for port in snapshot.ports.values() {
        for (group, ip) in port.groups.iter().flat_map(|group| port.ips.iter().map(move |ip| (*group, *ip))) {
            if let Some(elements) = members.get_mut(&(group, IpAddr::is_ipv6(&ip))) {
                elements.insert(ip.into());
            }
        }
    }
    for ((group, v6), elements) in members {
        ruleset.sets.insert(members_set(group, v6), Set { v6, prefixes: false, elements });
    }
}
