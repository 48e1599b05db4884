//! From load balancers and floating IPs to what is done to packets in one place: pure.

use super::{
    compile::{fingerprint, net_contains},
    ruleset::{Ruleset, Service, Statement, names},
    snapshot::{Listener, LoadBalancer, Member, Provider, Snapshot},
};
use ipnet::IpNet;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// Slots of a listener whose clients are to stay with their members: many, so that a member more or less moves few.
const STICKY_SLOTS: u16 = 256;

/// As many slots as weights are made into at most, if there are not more members.
const WEIGHTED_SLOTS: u64 = 256;

/// Puts into a node's rules, or the core's, the load balancers that work there.
///
/// What OVN balances is balanced where a connection begins: on its opener's node, or in the core if it comes from
/// outside. The machines of Octavia are in the core: what their members see comes from there.
pub(super) fn load_balancers(snapshot: &Snapshot, node: Option<&str>, outside: &[IpNet], ruleset: &mut Ruleset) {
    for balancer in &snapshot.load_balancers {
        if balancer.provider == Provider::Amphora && node.is_some() {
            continue;
        }
        let inner = balancer.vips.iter().filter(|vip| !net_contains(outside, **vip)).map(|vip| IpNet::from(*vip));
        ruleset.fill(names::INNER, inner);
        for (vip, seen) in addresses(snapshot, balancer) {
            ruleset.fill(names::VIPS, [vip.into()]);
            if balancer.provider == Provider::Amphora {
                ruleset.balancing.proxies.insert(vip, seen);
            }
            for listener in &balancer.listeners {
                self::listener(balancer.provider, vip, listener, ruleset);
            }
        }
    }
    if let Some(node) = node {
        loops(snapshot, node, ruleset);
    }
}

/// The addresses of a load balancer, those outside too, each with the one that members see if they do not see the client.
pub(super) fn addresses<'a>(
    snapshot: &'a Snapshot,
    balancer: &'a LoadBalancer,
) -> impl Iterator<Item = (IpAddr, IpAddr)> + 'a {
    balancer.vips.iter().flat_map(|vip| {
        let floating = snapshot.floating_ips.iter().filter(|floating| IpAddr::from(floating.fixed) == *vip);
        [(*vip, *vip)].into_iter().chain(floating.map(|floating| (floating.floating.into(), *vip)))
    })
}

/// What is done to connections to one listener at one address.
fn listener(provider: Provider, vip: IpAddr, listener: &Listener, ruleset: &mut Ruleset) {
    let service = Service { ip: vip, protocol: listener.protocol, number: listener.number };
    let slots = slots(provider, listener, vip.is_ipv6());
    if !listener.clients.is_empty() {
        let chain = format!("clients-{:016x}", fingerprint(&listener.clients));
        ruleset.chains.entry(chain.clone()).or_insert_with(|| {
            let clients = listener.clients.iter().map(|net| Statement::Client(net.trunc()));
            clients.chain([Statement::Drop]).collect()
        });
        ruleset.balancing.clients.insert(service, chain);
    }
    if slots.is_empty() {
        // OVN drops in silence. HAProxy ends a connection that it has nobody for.
        if provider == Provider::Amphora {
            ruleset.balancing.refused.insert(service);
        }
        return;
    }
    let count = u16::try_from(slots.len()).unwrap_or(u16::MAX);
    let chain = if listener.sticky { "stick".to_owned() } else { format!("spread-{count}") };
    ruleset.chains.entry(chain.clone()).or_insert_with(|| {
        let spread = |v6| Statement::Spread { v6, slots: count, sticky: listener.sticky };
        [false, true].map(spread).to_vec()
    });
    ruleset.balancing.services.insert(service, chain);
    ruleset.balancing.backends.insert(service, slots);
}

/// The members that get new connections, each as often as its share of them. The kernel does not translate from one
/// family to the other.
fn slots(provider: Provider, listener: &Listener, v6: bool) -> Vec<SocketAddr> {
    let eligible = |member: &&Member| member.ip.is_ipv6() == v6 && member.weight > 0 && member.online;
    let members: BTreeSet<&Member> = listener.members.iter().filter(eligible).collect();
    let weight = |member: &Member| if provider == Provider::Amphora { u64::from(member.weight) } else { 1 };
    let divisor = members.iter().map(|member| weight(member)).fold(0, greatest_common_divisor).max(1);
    let total: u64 = members.iter().map(|member| weight(member) / divisor).sum();
    let share = |member: &Member| {
        let share = weight(member) / divisor;
        if total > WEIGHTED_SLOTS { (share * WEIGHTED_SLOTS / total).max(1) } else { share }
    };
    let copies = members.iter().flat_map(|member| {
        let place = SocketAddr::new(member.ip, member.number);
        (0..share(member)).map(move |copy| (place, copy))
    });
    if !listener.sticky {
        return copies.map(|(place, _)| place).collect();
    }
    let copies: Vec<(SocketAddr, u64)> = copies.collect();
    // Each slot belongs to whom its hash is highest for: nobody's but a leaving member's slots change hands.
    let owner = |slot| copies.iter().max_by_key(|copy| fingerprint(&(slot, copy))).map(|(place, _)| *place);
    (0..STICKY_SLOTS).filter_map(owner).collect()
}

fn greatest_common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

/// The node's ports that are members: their connections may come back to them.
fn loops(snapshot: &Snapshot, node: &str, ruleset: &mut Ruleset) {
    let ports = snapshot.ports.values().filter(|port| port.up && port.host == node);
    let ips: BTreeSet<IpAddr> = ports.flat_map(|port| port.ips.iter().copied()).collect();
    let balanced = snapshot.load_balancers.iter().filter(|balancer| balancer.provider == Provider::Ovn);
    let listeners = balanced.flat_map(|balancer| &balancer.listeners);
    let members = listeners.flat_map(|listener| listener.members.iter().map(|member| member.ip));
    ruleset.balancing.loops.extend(members.filter(|ip| ips.contains(ip)));
}

/// Puts into a node's rules the floating IPs of its ports.
pub(super) fn floating_ips(snapshot: &Snapshot, node: &str, ruleset: &mut Ruleset) {
    for floating in &snapshot.floating_ips {
        let port = snapshot.ports.get(&floating.port).filter(|port| port.up && port.host == node);
        if port.is_some_and(|port| port.ips.contains(&floating.fixed.into())) {
            ruleset.floating.insert(floating.floating, floating.fixed);
        }
    }
}
