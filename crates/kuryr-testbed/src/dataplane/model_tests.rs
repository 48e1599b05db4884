//! The compiler against an independent reading of Neutron's semantics, without packets.

use super::{
    changes, compile,
    ruleset::{Map, Match, Remote, Ruleset, Statement, Verdict, View, names},
    snapshot::{Pair, Port, Router, Snapshot, Subnet},
};
use fastrand::Rng;
use ipnet::IpNet;
use kuryr_model::{
    MacAddress, PortId, SecurityGroupId, SubnetId,
    neutron::{Direction, EtherType, RuleContent},
};
use kuryr_node::plug::mark::host_end_name;
use std::{collections::BTreeSet, net::IpAddr};
use uuid::Uuid;

pub(super) const NODES: [&str; 2] = ["node-a", "node-b"];

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) from: PortId,
    pub(super) to: PortId,
    pub(super) mac: MacAddress,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// Port number, or ICMP's type and code.
    pub(super) number: u16,
}

/// Whether Neutron would let the connection be: written from its documentation, without a thought to nftables.
pub(super) fn neutron_allows(world: &Snapshot, opening: &Opening) -> bool {
    let (sender, receiver) = (&world.ports[&opening.from], &world.ports[&opening.to]);
    sender.up
        && receiver.up
        && source_is_own(sender, opening)
        && subnets_are_joined(world, opening)
        && group_allows(world, sender, Direction::Egress, opening)
        && group_allows(world, receiver, Direction::Ingress, opening)
}

pub(super) fn source_is_own(sender: &Port, opening: &Opening) -> bool {
    !sender.port_security
        || (opening.mac == sender.mac && sender.ips.contains(&opening.source))
        || sender
            .pairs
            .iter()
            .any(|pair| pair.mac.unwrap_or(sender.mac) == opening.mac && pair.net.contains(&opening.source))
}

pub(super) fn subnets_are_joined(world: &Snapshot, opening: &Opening) -> bool {
    // An external network is the outside.
    let inside = || world.subnets.iter().filter(|(_, subnet)| !subnet.external);
    let subnet_of = |ip| inside().find(|(_, subnet)| subnet.net.contains(ip)).map(|(id, _)| *id);
    let on = |router: &Router, subnet| router.interfaces.iter().any(|(found, _)| Some(*found) == subnet);
    match (subnet_of(&opening.source), subnet_of(&opening.destination)) {
        (None, None) => false,
        (None, inner) | (inner, None) => world.routers.iter().any(|router| router.external && on(router, inner)),
        (from, to) if from == to => true,
        (from, to) => world.routers.iter().any(|router| on(router, from) && on(router, to)),
    }
}

pub(super) fn group_allows(world: &Snapshot, port: &Port, direction: Direction, opening: &Opening) -> bool {
    if !port.port_security {
        return true;
    }
    let other = if direction == Direction::Egress { opening.destination } else { opening.source };
    let rules = port.groups.iter().flat_map(|group| &world.groups[group]);
    rules.filter(|rule| rule.direction == direction).any(|rule| {
        let family = if opening.destination.is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
        let number = match rule.protocol.as_deref() {
            None => None,
            Some("tcp") => Some(6),
            Some("udp") => Some(17),
            Some("icmp") if family == EtherType::IPv6 => Some(58),
            Some("icmp") => Some(1),
            Some("ipv6-icmp") => Some(58),
            Some(other) => other.parse().ok(),
        };
        let protocol_fits = rule.protocol.is_none() || number == Some(opening.protocol);
        let numbers_fit = match (rule.protocol.as_deref(), rule.port_range_min, rule.port_range_max) {
            (None, ..) | (_, None, _) => true,
            (Some("icmp" | "ipv6-icmp"), Some(kind), code) => {
                let [found_kind, found_code] = opening.number.to_be_bytes();
                u16::from(found_kind) == kind && code.is_none_or(|code| u16::from(found_code) == code)
            }
            (_, Some(low), high) => low <= opening.number && opening.number <= high.unwrap_or(low),
        };
        let remote_fits = match (rule.remote_group_id, rule.remote_ip_prefix) {
            (Some(group), _) => {
                world.ports.values().any(|member| member.groups.contains(&group) && member.ips.contains(&other))
            }
            (None, Some(net)) => net.contains(&other),
            (None, None) => true,
        };
        rule.ethertype == family && protocol_fits && numbers_fit && remote_fits
    })
}

/// A connection as the rules of one node see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) mac: MacAddress,
    pub(super) source: IpAddr,
    pub(super) protocol: u8,
    /// What was asked for.
    pub(super) asked: (IpAddr, u16),
    /// Who answers.
    pub(super) answering: (IpAddr, u16),
    /// Whom that one sees.
    pub(super) asking: IpAddr,
}

impl Flow {
    /// Nothing is translated.
    pub(super) fn direct(opening: &Opening) -> Self {
        let end = (opening.destination, opening.number);
        let Opening { mac, source, protocol, .. } = *opening;
        Self { mac, source, protocol, asked: end, answering: end, asking: source }
    }
}

/// What the rules of the two nodes make of it, read as nftables would.
fn rules_allow(world: &Snapshot, opening: &Opening) -> bool {
    let at = |port: PortId| compile(world, &world.ports[&port].host);
    let (near, far) = (at(opening.from), at(opening.to));
    let flow = Flow::direct(opening);
    leaves(&near, opening.from, &flow)
        && joined(&near, View::Asked, &flow)
        && joined(&far, View::Asked, &flow)
        && passes(&near, Map::Egress, opening.from, &flow)
        && passes(&far, Map::Ingress, opening.to, &flow)
}

/// Its source is in order.
pub(super) fn leaves(rules: &Ruleset, port: PortId, flow: &Flow) -> bool {
    let source = (host_end_name(port), flow.mac, flow.source);
    rules.sources.contains(&source) || passes(rules, Map::Spoof, port, flow)
}

pub(super) fn joined(rules: &Ruleset, view: View, flow: &Flow) -> bool {
    run(rules, names::reach(view), flow) == Outcome::Return
}

pub(super) fn passes(rules: &Ruleset, map: Map, port: PortId, flow: &Flow) -> bool {
    match rules.maps.get(&(map, host_end_name(port))) {
        None => false,
        Some(Verdict::Accept) => true,
        Some(Verdict::Goto(chain)) => run(rules, chain, flow) == Outcome::Accept,
    }
}

#[derive(PartialEq, Eq)]
pub(super) enum Outcome {
    Accept,
    Drop,
    Return,
}

pub(super) fn run(rules: &Ruleset, chain: &str, flow: &Flow) -> Outcome {
    let within = |name: &str, ip: &IpAddr| rules.sets[name].elements.iter().any(|net| net.contains(ip));
    let v6 = flow.source.is_ipv6();
    let destination = |view: &View| if *view == View::Asked { flow.asked.0 } else { flow.answering.0 };
    for statement in &rules.chains[chain] {
        let crosses = |family: &bool, inner: IpAddr, outer: IpAddr| {
            *family == v6
                && within(&names::of(names::OUTSIDE, v6), &inner)
                && !within(&names::of(names::SUBNETS, v6), &outer)
        };
        match statement {
            Statement::Drop => return Outcome::Drop,
            Statement::Jump(chain) => match run(rules, chain, flow) {
                Outcome::Return => {}
                decided => return decided,
            },
            Statement::Source(mac, net) if *mac == flow.mac && net.contains(&flow.source) => return Outcome::Accept,
            Statement::Client(net) if net.contains(&flow.source) => return Outcome::Accept,
            Statement::Join(view, from, to) if from.contains(&flow.source) && to.contains(&destination(view)) => {
                return Outcome::Return;
            }
            Statement::Outbound { view, v6 } if crosses(v6, flow.source, destination(view)) => return Outcome::Return,
            Statement::Inbound { view, v6 } if crosses(v6, destination(view), flow.source) => return Outcome::Return,
            Statement::Allow(matched) if matches(rules, matched, flow) => return Outcome::Accept,
            _ => {}
        }
    }
    Outcome::Return
}

fn matches(rules: &Ruleset, matched: &Match, flow: &Flow) -> bool {
    let (other, number) = match matched.view {
        View::Asked => flow.asked,
        View::Answering => flow.answering,
        View::Asking => (flow.asking, flow.answering.1),
    };
    let remote = match &matched.remote {
        Remote::Any => true,
        Remote::Net(net) => net.contains(&other),
        Remote::Set(name) => rules.sets[name].elements.contains(&IpNet::from(other)),
    };
    remote
        && matched.v6 == other.is_ipv6()
        && matched.protocol.is_none_or(|protocol| protocol == flow.protocol)
        && matched.ports.is_none_or(|(low, high)| (low..=high).contains(&number))
}

pub(super) fn id(number: u64) -> Uuid {
    // The first characters tell ids apart in the names of host ends.
    Uuid::from_u64_pair(number << 32, 0)
}

/// A small world: two joined subnets, one alone, in both families, an external one, and ports on two nodes.
pub(super) fn world(random: &mut Rng, ports: u64) -> Snapshot {
    let mut world = Snapshot::default();
    for (number, net) in
        ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "fd00::/64", "fd01::/64", "fd02::/64"].iter().enumerate()
    {
        world.subnets.insert(SubnetId(id(number as u64)), Subnet { net: net.parse().unwrap(), external: false });
    }
    world.subnets.insert(SubnetId(id(9)), Subnet { net: "172.24.0.0/24".parse().unwrap(), external: true });
    let interface = |number: u64, ip: &str| (SubnetId(id(number)), ip.parse().unwrap());
    world.routers.push(Router {
        interfaces: vec![
            interface(0, "10.0.0.1"),
            interface(1, "10.0.1.1"),
            interface(3, "fd00::1"),
            interface(4, "fd01::1"),
        ],
        external: true,
    });
    for number in 0..ports {
        let (subnet, host) = (random.u8(0..3), 10 + number);
        let ips =
            vec![format!("10.0.{subnet}.{host}").parse().unwrap(), format!("fd0{subnet}::{host:x}").parse().unwrap()];
        let mac = MacAddress([0xfa, 0x16, 0x3e, 0, 0, number as u8]);
        let port = Port {
            host: NODES[random.usize(..NODES.len())].into(),
            mac,
            ips,
            groups: BTreeSet::new(),
            port_security: true,
            pairs: Vec::new(),
            up: true,
        };
        world.ports.insert(PortId(id(number + 1)), port);
    }
    change(random, &mut world);
    world
}

/// Gives a world other groups, and its ports another choice of them.
pub(super) fn change(random: &mut Rng, world: &mut Snapshot) {
    let groups: Vec<SecurityGroupId> = (0..random.u64(1..5)).map(|number| SecurityGroupId(id(number))).collect();
    world.groups =
        groups.iter().map(|group| (*group, (0..random.usize(1..8)).map(|_| rule(random, &groups)).collect())).collect();
    for port in world.ports.values_mut() {
        port.port_security = random.u8(..8) > 0;
        port.groups = if port.port_security {
            groups.iter().filter(|_| random.u8(..4) > 0).copied().collect()
        } else {
            BTreeSet::new()
        };
        port.up = random.u8(..12) > 0;
        port.pairs.clear();
        if random.u8(..4) == 0 {
            let mac = random.bool().then_some(MacAddress([2; 6]));
            let nets = ["10.0.0.128/25", "10.9.0.0/16", "fd00::/64"];
            port.pairs.push(Pair { mac, net: nets[random.usize(..nets.len())].parse().unwrap() });
        }
    }
}

fn rule(random: &mut Rng, groups: &[SecurityGroupId]) -> RuleContent {
    let v6 = random.bool();
    let mut rule = RuleContent::everything(
        if random.bool() { Direction::Ingress } else { Direction::Egress },
        if v6 { EtherType::IPv6 } else { EtherType::IPv4 },
    );
    match random.u8(..8) {
        0..4 => {}
        4 => rule.protocol = Some("udp".into()),
        5 => {
            rule.protocol = Some(["icmp", "ipv6-icmp"][usize::from(v6)].into());
            if random.bool() {
                rule.port_range_min = Some(if v6 { 128 } else { 8 });
                rule.port_range_max = random.bool().then_some(0);
            }
        }
        _ => {
            rule.protocol = Some(["tcp", "6"][random.usize(..2)].into());
            if random.bool() {
                rule.port_range_min = Some(random.u16(79..81));
                rule.port_range_max = Some(random.u16(81..83));
            }
        }
    }
    match random.u8(..4) {
        0 => rule.remote_group_id = Some(groups[random.usize(..groups.len())]),
        1 if v6 => {
            rule.remote_ip_prefix =
                Some(["::/0", "fd00::/64", "fd01::a/127", "fd00::dc/126"][random.usize(..4)].parse().unwrap());
        }
        1 => {
            rule.remote_ip_prefix =
                Some(["0.0.0.0/0", "10.0.0.0/24", "10.0.1.10/31", "10.0.0.220/30"][random.usize(..4)].parse().unwrap());
        }
        _ => {}
    }
    rule
}

pub(super) fn opening(random: &mut Rng, world: &Snapshot) -> Option<Opening> {
    let ports: Vec<_> = world.ports.iter().collect();
    let ((from, sender), (to, receiver)) = (ports[random.usize(..ports.len())], ports[random.usize(..ports.len())]);
    if from == to {
        return None;
    }
    let family = random.usize(..2);
    let (mut source, mut mac) = (sender.ips[family], sender.mac);
    if random.u8(..6) == 0 {
        source = if family == 0 { "10.0.0.200".parse().unwrap() } else { "fd00::200".parse().unwrap() };
    }
    if random.u8(..6) == 0 {
        mac = MacAddress([2; 6]);
    }
    let (protocol, number) = match random.u8(..4) {
        0 => (17, random.u16(79..84)),
        1 if family == 0 => (1, 0x0800),
        1 => (58, 0x8000),
        _ => (6, random.u16(78..85)),
    };
    Some(Opening { from: *from, to: *to, mac, source, destination: receiver.ips[family], protocol, number })
}

#[test]
fn the_rules_allow_what_neutron_allows_in_thousands_of_worlds() {
    let (mut asked, mut allowed) = (0, 0);
    for seed in 0..2000 {
        let mut random = Rng::with_seed(seed);
        let world = world(&mut random, 6);
        for _ in 0..12 {
            let Some(opening) = opening(&mut random, &world) else { continue };
            let expected = neutron_allows(&world, &opening);
            assert_eq!(rules_allow(&world, &opening), expected, "seed {seed}: {opening:?}\n{world:#?}");
            asked += 1;
            allowed += i32::from(expected);
        }
    }
    assert!(asked > 15_000 && allowed * 20 > asked, "{allowed} of {asked} were allowed: the worlds prove little");
}

/// The text of a small world, as `nft` gets it.
#[test]
fn a_pod_that_may_be_asked_by_its_group_reads_so() {
    let mut random = Rng::with_seed(0);
    let mut world = world(&mut random, 1);
    let group = SecurityGroupId(id(7));
    let mut rule = RuleContent::everything(Direction::Ingress, EtherType::IPv4);
    rule.protocol = Some("tcp".into());
    (rule.port_range_min, rule.port_range_max) = (Some(80), Some(81));
    rule.remote_group_id = Some(group);
    world.groups = [(group, vec![rule])].into();
    let port = world.ports.get_mut(&PortId(id(1))).unwrap();
    port.host = NODES[0].into();
    port.ips = vec!["10.0.0.5".parse().unwrap()];
    (port.groups, port.port_security, port.pairs, port.up) = ([group].into(), true, Vec::new(), true);
    world.subnets.retain(|_, subnet| subnet.net == "10.0.0.0/24".parse().unwrap());
    let rules = compile(&world, NODES[0]);
    let text = changes(&Ruleset::empty(), &rules);
    let expected = "\
add set inet cloud members-00000007-0000-0000-0000-000000000000-4 { type ipv4_addr; }
add chain inet cloud egress-197c4d324d771a32
add chain inet cloud from-00000007-0000-0000-0000-000000000000
add chain inet cloud ingress-197c4d324d771a32
add chain inet cloud later-00000007-0000-0000-0000-000000000000
add chain inet cloud later-197c4d324d771a32
add chain inet cloud to-00000007-0000-0000-0000-000000000000
add rule inet cloud egress-197c4d324d771a32 jump to-00000007-0000-0000-0000-000000000000
add rule inet cloud egress-197c4d324d771a32 drop
add rule inet cloud from-00000007-0000-0000-0000-000000000000 meta nfproto ipv4 \
ct reply ip daddr @members-00000007-0000-0000-0000-000000000000-4 meta l4proto 6 ct reply proto-src 80-81 accept
add rule inet cloud ingress-197c4d324d771a32 jump from-00000007-0000-0000-0000-000000000000
add rule inet cloud ingress-197c4d324d771a32 drop
add rule inet cloud later-197c4d324d771a32 jump later-00000007-0000-0000-0000-000000000000
add rule inet cloud later-197c4d324d771a32 drop
flush chain inet cloud reach
add rule inet cloud reach ct original ip saddr 10.0.0.0/24 ct original ip daddr 10.0.0.0/24 return
add rule inet cloud reach ct original ip saddr @outside4 ct original ip daddr != @subnets4 return
add rule inet cloud reach ct original ip daddr @outside4 ct original ip saddr != @subnets4 return
add rule inet cloud reach ct original ip6 saddr @outside6 ct original ip6 daddr != @subnets6 return
add rule inet cloud reach ct original ip6 daddr @outside6 ct original ip6 saddr != @subnets6 return
add rule inet cloud reach drop
flush chain inet cloud reach-answering
add rule inet cloud reach-answering ct original ip saddr 10.0.0.0/24 ct reply ip saddr 10.0.0.0/24 return
add rule inet cloud reach-answering ct original ip saddr @outside4 ct reply ip saddr != @subnets4 return
add rule inet cloud reach-answering ct reply ip saddr @outside4 ct original ip saddr != @subnets4 return
add rule inet cloud reach-answering ct original ip6 saddr @outside6 ct reply ip6 saddr != @subnets6 return
add rule inet cloud reach-answering ct reply ip6 saddr @outside6 ct original ip6 saddr != @subnets6 return
add rule inet cloud reach-answering drop
add element inet cloud gateways4 { 10.0.0.1, 10.0.1.1 }
add element inet cloud gateways6 { fd00::1, fd01::1 }
add element inet cloud members-00000007-0000-0000-0000-000000000000-4 { 10.0.0.5 }
add element inet cloud outside4 { 10.0.0.0/24 }
add element inet cloud subnets4 { 10.0.0.0/24 }
add element inet cloud sources4 { \"tap00000001-00\" . fa:16:3e:00:00:00 . 10.0.0.5 }
add element inet cloud egress { \"tap00000001-00\" : goto egress-197c4d324d771a32 }
add element inet cloud later { \"tap00000001-00\" : goto later-197c4d324d771a32 }
add element inet cloud ingress { \"tap00000001-00\" : goto ingress-197c4d324d771a32 }
";
    assert_eq!(text, expected, "{text}");
    assert_eq!(changes(&rules, &rules), "");

    // A second member of the group is one element.
    let mut second = world.ports[&PortId(id(1))].clone();
    (second.host, second.ips) = (NODES[1].into(), vec!["10.0.0.6".parse().unwrap()]);
    world.ports.insert(PortId(id(2)), second);
    assert_eq!(
        changes(&rules, &compile(&world, NODES[0])),
        "add element inet cloud members-00000007-0000-0000-0000-000000000000-4 { 10.0.0.6 }\n"
    );
}
