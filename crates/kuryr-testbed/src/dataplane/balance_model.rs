//! Load balancers against an independent reading of what OVN and Octavia do, without packets.

use super::{
    changes, compile, compile_core,
    model_tests::{
        Flow, NODES, Opening, Outcome, group_allows, id, joined, leaves, opening, passes, run, source_is_own,
        subnets_are_joined, world,
    },
    ruleset::{Map, Ruleset, Service, Statement, View, names},
    snapshot::{FloatingIp, Listener, LoadBalancer, Member, Provider, Snapshot},
};
use fastrand::Rng;
use kuryr_model::{
    PortId,
    neutron::{Direction, EtherType, RuleContent},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

/// What comes of a connection to a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Through {
    /// Nothing arrives.
    Nothing,
    /// The first packet does, and its answer returns; then nothing passes.
    Opens,
    /// It is as any other.
    Works,
}

/// The load balancers and listeners of a world by what is asked for, also through floating IPs.
pub(super) fn services(world: &Snapshot) -> Vec<(Service, IpAddr, &LoadBalancer, &Listener)> {
    let mut services = Vec::new();
    for balancer in &world.load_balancers {
        for vip in &balancer.vips {
            let floating = world.floating_ips.iter().filter(|floating| IpAddr::from(floating.fixed) == *vip);
            for ip in [*vip].into_iter().chain(floating.map(|floating| floating.floating.into())) {
                services.extend(balancer.listeners.iter().map(|listener| {
                    (Service { ip, protocol: listener.protocol, number: listener.number }, *vip, balancer, listener)
                }));
            }
        }
    }
    services
}

/// The members that new connections go to.
pub(super) fn eligible(listener: &Listener, v6: bool) -> Vec<&Member> {
    let fits = |member: &&Member| member.ip.is_ipv6() == v6 && member.online && member.weight != 0;
    listener.members.iter().filter(fits).collect()
}

/// What comes of the connection if that member is chosen, and the opener that it sees: written from what was seen of OVN
/// with packets, and from what is known of Octavia's machines.
pub(super) fn through(
    world: &Snapshot,
    opening: &Opening,
    vip: IpAddr,
    balancer: &LoadBalancer,
    listener: &Listener,
    member: &Member,
) -> (Through, IpAddr) {
    let ovn = balancer.provider == Provider::Ovn;
    let seen = match balancer.provider {
        Provider::Ovn if member.ip == opening.source => opening.destination,
        Provider::Ovn => opening.source,
        Provider::Amphora => vip,
    };
    let to_member = Opening { destination: member.ip, number: member.number, ..*opening };
    let arriving = Opening { source: seen, ..to_member };
    let sender = &world.ports[&opening.from];
    let receiver = world.ports.values().find(|port| port.up && port.ips.contains(&member.ip));
    let opens = sender.up
        && source_is_own(sender, opening)
        && (listener.clients.is_empty() || listener.clients.iter().any(|net| net.contains(&opening.source)))
        && subnets_are_joined(world, opening)
        && subnets_are_joined(world, if ovn { &to_member } else { &arriving })
        && group_allows(world, sender, Direction::Egress, opening)
        && receiver.is_some_and(|receiver| group_allows(world, receiver, Direction::Ingress, &arriving));
    let works = !ovn || group_allows(world, sender, Direction::Egress, &to_member);
    let through = match (opens, works) {
        (false, _) => Through::Nothing,
        (true, false) => Through::Opens,
        (true, true) => Through::Works,
    };
    (through, seen)
}

/// Gives a world other load balancers, in subnets where its ports are, and sometimes floating IPs to them. Some of its
/// groups get rules that are about them.
pub(super) fn balancers(random: &mut Rng, world: &mut Snapshot) {
    world.load_balancers.clear();
    world.floating_ips.clear();
    let ips: Vec<IpAddr> = world.ports.values().flat_map(|port| port.ips.iter().copied()).collect();
    for number in 0..random.u8(1..4) {
        let subnet = random.u8(0..3);
        let v4 = std::net::Ipv4Addr::new(10, 0, subnet, 220 + number);
        let v6 = format!("fd0{subnet}::{:x}", 220 + number).parse().unwrap();
        let provider = if random.u8(..3) == 0 { Provider::Amphora } else { Provider::Ovn };
        let mut listeners = Vec::new();
        for service in [(6, 80), (17, 80), (6, 82)] {
            if random.u8(..3) > 0 {
                listeners.push(listener(random, service, &ips));
            }
        }
        world.load_balancers.push(LoadBalancer { provider, vips: vec![v4.into(), v6], listeners });
        if random.bool() {
            let floating = std::net::Ipv4Addr::new(172, 24, 0, 10 + number);
            world.floating_ips.push(FloatingIp { floating, fixed: v4, port: PortId(id(100 + u64::from(number))) });
        }
    }
    for rules in world.groups.values_mut() {
        let vips = world.load_balancers.iter().flat_map(|balancer| balancer.vips.iter().copied());
        let floating = world.floating_ips.iter().map(|floating| IpAddr::from(floating.floating));
        let egress = vips.chain(floating).map(|ip| (Direction::Egress, ip, 2));
        let egress = egress.chain(ips.iter().map(|ip| (Direction::Egress, *ip, 6)));
        let everyone: [IpAddr; 2] = [[0; 4].into(), [0; 16].into()];
        let ingress = everyone.iter().map(|ip| (Direction::Ingress, *ip, 2));
        for (direction, ip, one_in) in egress.chain(ingress) {
            if random.u8(..one_in) > 0 {
                continue;
            }
            let family = if ip.is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
            let everything = RuleContent::everything(direction, family);
            let remote_ip_prefix = (direction == Direction::Egress).then(|| ip.into());
            rules.push(RuleContent { remote_ip_prefix, ..everything });
        }
    }
}

fn listener(random: &mut Rng, (protocol, number): (u8, u16), ips: &[IpAddr]) -> Listener {
    let share = random.u8(1..5);
    let mut members: Vec<Member> = Vec::new();
    for ip in ips {
        if random.u8(..8) < share {
            let weight = if random.u8(..6) == 0 { 0 } else { random.u16(1..4) };
            members.push(Member { ip: *ip, number: random.u16(80..83), weight, online: random.u8(..6) > 0 });
        }
    }
    let clients = ["10.0.0.0/24", "fd00::/64"].map(|net| net.parse().unwrap());
    let clients = if random.u8(..5) == 0 { clients.to_vec() } else { Vec::new() };
    Listener { protocol, number, clients, sticky: random.u8(..5) == 0, members }
}

/// The rules of all places of a world.
struct Places {
    nodes: BTreeMap<String, Ruleset>,
    core: Ruleset,
}

impl Places {
    fn of(world: &Snapshot) -> Self {
        let nodes = NODES.iter().map(|node| ((*node).to_owned(), compile(world, node)));
        Self { nodes: nodes.collect(), core: compile_core(world) }
    }

    /// What they make of a connection for every member that they may choose, read as nftables would.
    fn say(&self, world: &Snapshot, opening: &Opening) -> BTreeMap<SocketAddr, (Through, IpAddr)> {
        let near = &self.nodes[&world.ports[&opening.from].host];
        let vips = &near.sets[&names::of(names::VIPS, opening.destination.is_ipv6())].elements;
        let here = vips.contains(&opening.destination.into());
        let place = if here { near } else { &self.core };
        let service = Service { ip: opening.destination, protocol: opening.protocol, number: opening.number };
        let Some(chain) = place.balancing.services.get(&service) else { return BTreeMap::new() };
        let count = place.chains[chain].iter().find_map(|statement| match statement {
            Statement::Spread { v6, slots, .. } if *v6 == service.ip.is_ipv6() => Some(usize::from(*slots)),
            _ => None,
        });
        let slots = &place.balancing.backends[&service];
        assert_eq!(count, Some(slots.len()));
        let members: BTreeSet<SocketAddr> = slots.iter().copied().collect();
        members.into_iter().map(|member| (member, self.to(world, opening, here, member))).collect()
    }

    fn to(&self, world: &Snapshot, opening: &Opening, here: bool, member: SocketAddr) -> (Through, IpAddr) {
        let host = &world.ports[&opening.from].host;
        let (near, vip) = (&self.nodes[host], opening.destination);
        let place = if here { near } else { &self.core };
        let (direct, end) = (Flow::direct(opening), (member.ip(), member.port()));
        let service = Service { ip: vip, protocol: opening.protocol, number: opening.number };
        let clients = place.balancing.clients.get(&service);
        let let_in = clients.is_none_or(|chain| run(place, chain, &direct) == Outcome::Accept);
        let seen = match place.balancing.proxies.get(&vip) {
            Some(seen) => *seen,
            None if opening.source == member.ip() && place.balancing.loops.contains(&member.ip()) => vip,
            None => opening.source,
        };
        let begun = if here { Flow { answering: end, asking: seen, ..direct } } else { direct };
        let Some((to, receiver)) = world.ports.iter().find(|(_, port)| port.ips.contains(&member.ip())) else {
            return (Through::Nothing, seen);
        };
        let far = &self.nodes[&receiver.host];
        let alone = here && receiver.host == *host;
        let ended = Flow { source: seen, asked: end, answering: end, asking: seen, ..direct };
        let ended = if alone { begun } else { ended };
        let opens = let_in
            && leaves(near, opening.from, &begun)
            && joined(near, View::Asked, &begun)
            && (!here || joined(near, View::Answering, &begun))
            && passes(near, Map::Egress, opening.from, &begun)
            && (alone || joined(far, View::Asked, &ended))
            && passes(far, Map::Ingress, *to, &ended);
        let works = !here || passes(near, Map::Later, opening.from, &begun);
        let through = match (opens, works) {
            (false, _) => Through::Nothing,
            (true, false) => Through::Opens,
            (true, true) => Through::Works,
        };
        (through, seen)
    }
}

#[test]
fn the_rules_balance_as_ovn_and_octavia_do_in_a_thousand_worlds() {
    let mut counts = BTreeMap::new();
    for seed in 0..1000 {
        let mut random = Rng::with_seed(seed);
        let mut world = world(&mut random, 6);
        balancers(&mut random, &mut world);
        let places = Places::of(&world);
        for (service, vip, balancer, listener) in services(&world) {
            let Some(opening) = opening(&mut random, &world) else { continue };
            let family = |ip: &&IpAddr| ip.is_ipv6() == service.ip.is_ipv6();
            let source = *world.ports[&opening.from].ips.iter().find(family).unwrap();
            let Service { ip: destination, protocol, number } = service;
            let opening = Opening { source, destination, protocol, number, ..opening };
            let found = places.say(&world, &opening);
            let members = eligible(listener, destination.is_ipv6());
            let expected: BTreeMap<SocketAddr, (Through, IpAddr)> = members
                .iter()
                .map(|member| {
                    let expected = through(&world, &opening, vip, balancer, listener, member);
                    (SocketAddr::new(member.ip, member.number), expected)
                })
                .collect();
            if listener.sticky {
                assert!(found.keys().all(|member| expected.contains_key(member)), "seed {seed}: {opening:?}");
            } else {
                assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "seed {seed}");
            }
            assert_eq!(found.is_empty(), expected.is_empty(), "seed {seed}: {opening:?}");
            for (member, outcome) in found {
                let expected = expected[&member];
                // Whom a member would see if it were reached does not matter.
                let same = outcome == expected || (outcome.0, expected.0) == (Through::Nothing, Through::Nothing);
                assert!(same, "seed {seed}: {outcome:?} for {expected:?}: {opening:?} by {member}\n{world:#?}");
                *counts.entry(outcome.0).or_insert(0) += 1;
            }
        }
    }
    println!("{counts:?}");
    let least = counts.values().min().unwrap();
    assert!(counts.len() == 3 && *least > 100, "{counts:?}: the worlds prove little");
}

fn member(ip: &str, number: u16, weight: u16) -> Member {
    Member { ip: ip.parse().unwrap(), number, weight, online: true }
}

/// Who is in which slot.
fn served(provider: Provider, sticky: bool, members: Vec<Member>) -> Vec<SocketAddr> {
    let listener = Listener { protocol: 6, number: 80, clients: Vec::new(), sticky, members };
    let balancer = LoadBalancer { provider, vips: vec!["10.0.0.220".parse().unwrap()], listeners: vec![listener] };
    let world = Snapshot { load_balancers: vec![balancer], ..Snapshot::default() };
    compile_core(&world).balancing.backends.into_values().next().unwrap()
}

#[test]
fn weights_are_shares_for_amphoras_and_no_more_than_yes_or_no_for_ovn() {
    let members = || vec![member("10.0.0.1", 1, 6), member("10.0.0.2", 2, 3), member("10.0.0.3", 3, 0)];
    let count = |provider, members| {
        let mut counts = BTreeMap::new();
        served(provider, false, members).iter().for_each(|place| *counts.entry(place.port()).or_insert(0) += 1);
        counts
    };
    assert_eq!(count(Provider::Amphora, members()), [(1, 2), (2, 1)].into());
    assert_eq!(count(Provider::Ovn, members()), [(1, 1), (2, 1)].into());
    let skewed = vec![member("10.0.0.1", 1, 256), member("10.0.0.2", 2, 1), member("10.0.0.3", 3, 255)];
    assert_eq!(count(Provider::Amphora, skewed), [(1, 128), (2, 1), (3, 127)].into());
}

#[test]
fn clients_that_stick_move_only_when_their_member_goes() {
    let members: Vec<Member> = (1..=10).map(|number| member(&format!("10.0.0.{number}"), 80, 1)).collect();
    let before = served(Provider::Ovn, true, members.clone());
    let after = served(Provider::Ovn, true, members[..9].to_vec());
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    let gone: SocketAddr = "10.0.0.10:80".parse().unwrap();
    assert!(moved.clone().all(|(before, _)| *before == gone));
    let count = moved.count();
    assert!((5..60).contains(&count), "{count} of {} slots were its own", before.len());
}

/// The text of two members behind a virtual address, and of one that leaves, as `nft` gets it.
#[test]
fn a_load_balancer_reads_so() {
    let listener = Listener {
        protocol: 6,
        number: 80,
        clients: Vec::new(),
        sticky: false,
        members: vec![member("10.0.0.1", 8080, 1), member("10.0.0.2", 8080, 1)],
    };
    let vips = vec!["10.0.0.220".parse().unwrap()];
    let balancer = LoadBalancer { provider: Provider::Ovn, vips, listeners: vec![listener] };
    let mut world = Snapshot { load_balancers: vec![balancer], ..Snapshot::default() };
    let rules = compile_core(&world);
    let text = changes(&Ruleset::empty_core(), &rules);
    let expected = "\
add chain inet cloud spread-2
add rule inet cloud spread-2 meta mark set jhash ip saddr . ip daddr . th sport . th dport mod 2 seed 0x6b757279 goto balance
add rule inet cloud spread-2 meta mark set jhash ip6 saddr . ip6 daddr . th sport . th dport mod 2 seed 0x6b757279 goto balance
add element inet cloud inner4 { 10.0.0.220 }
add element inet cloud vips4 { 10.0.0.220 }
add element inet cloud services4 { 10.0.0.220 . 6 . 80 : goto spread-2 }
add element inet cloud backends4 { 10.0.0.220 . 6 . 80 . 0x0 : 10.0.0.1 . 8080, 10.0.0.220 . 6 . 80 . 0x1 : 10.0.0.2 . 8080 }
";
    assert_eq!(text, expected, "{text}");
    world.load_balancers[0].listeners[0].members[0].weight = 0;
    let text = changes(&rules, &compile_core(&world));
    let expected = "\
add chain inet cloud spread-1
delete element inet cloud services4 { 10.0.0.220 . 6 . 80 }
delete element inet cloud backends4 { 10.0.0.220 . 6 . 80 . 0x0, 10.0.0.220 . 6 . 80 . 0x1 }
add rule inet cloud spread-1 meta mark set jhash ip saddr . ip daddr . th sport . th dport mod 1 seed 0x6b757279 goto balance
add rule inet cloud spread-1 meta mark set jhash ip6 saddr . ip6 daddr . th sport . th dport mod 1 seed 0x6b757279 goto balance
flush chain inet cloud spread-2
delete chain inet cloud spread-2
add element inet cloud services4 { 10.0.0.220 . 6 . 80 : goto spread-1 }
add element inet cloud backends4 { 10.0.0.220 . 6 . 80 . 0x0 : 10.0.0.2 . 8080 }
";
    assert_eq!(text, expected, "{text}");
}
