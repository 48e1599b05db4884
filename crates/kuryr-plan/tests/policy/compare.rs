//! Asks both sides the same questions.

use crate::{
    neutron::Cloud,
    spec::{Cluster, Traffic},
};
use kuryr_model::neutron::EtherType;
use kuryr_plan::policy::{ListenerKey, Policy, Protocol, Settings, World, compile};
use std::{collections::BTreeSet, net::IpAddr};

/// Port numbers that policies, pods and Services of the tests use, and one that they do not.
const NUMBERS: [u16; 5] = [53, 80, 81, 443, 8080];

/// Somewhere outside.
const OUTSIDE: [&str; 4] = ["203.0.113.5", "203.0.113.200", "10.0.0.200", "2001:db8::5"];

/// The world with its policies read.
pub(crate) fn read(cluster: &Cluster) -> World {
    let mut world = cluster.world.clone();
    let policies = cluster.policies.iter().map(|policy| Policy::read(policy).unwrap());
    world.policies = policies.map(|policy| (policy.key.clone(), policy)).collect();
    world
}

pub(crate) fn traffic() -> impl Iterator<Item = Traffic> {
    let numbered = Protocol::ALL.into_iter().flat_map(|protocol| NUMBERS.map(|number| Traffic::To(protocol, number)));
    numbered.chain([Traffic::Other])
}

/// The Services' listeners that have something behind them.
pub(crate) fn listeners(cluster: &Cluster) -> BTreeSet<ListenerKey> {
    let mut listeners = BTreeSet::new();
    for service in cluster.world.services.values() {
        for (vip, port) in service.vips.iter().flat_map(|vip| service.ports.iter().map(move |port| (vip, port))) {
            listeners.insert(ListenerKey { vip: *vip, protocol: port.protocol, number: port.number });
        }
    }
    listeners.retain(|listener| !cluster.behind(*listener).0.is_empty());
    listeners
}

/// All addresses that are not VIPs.
pub(crate) fn addresses(cluster: &Cluster) -> BTreeSet<IpAddr> {
    let pods = cluster.world.pods.values().flat_map(|pod| &pod.addresses);
    let nodes = cluster.world.nodes.values().flatten();
    let outside = OUTSIDE.map(|address| address.parse().unwrap());
    pods.chain(nodes).copied().chain(outside).collect()
}

/// Compiles, and finds the first thing that security groups allow or forbid and Kubernetes does not.
pub(crate) fn compare(cluster: &Cluster, settings: Settings) -> Result<(), String> {
    let families = settings.families.clone();
    let compiled = compile(settings, &read(cluster));
    let cloud = Cloud::new(&compiled, cluster.pods())?;
    let same = |what: String, wanted: bool, found: bool| match (wanted, found) {
        (true, false) => Err(format!("{what}: allowed, but does not pass")),
        (false, true) => Err(format!("{what}: forbidden, but passes")),
        _ => Ok(()),
    };
    let mut addresses = addresses(cluster);
    // Where nobody has addresses of a family, nobody can send to any.
    addresses.retain(|it| families.contains(if it.is_ipv4() { &EtherType::IPv4 } else { &EtherType::IPv6 }));
    for pod in cluster.pods() {
        // What it sends to itself never leaves it.
        for address in addresses.iter().filter(|address| !pod.addresses.contains(address)) {
            for traffic in traffic() {
                let what = |way| format!("{} {way} {address} {traffic:?}", pod.key);
                same(what("to"), cluster.may_send(pod, *address, traffic), cloud.sends(pod, *address, traffic))?;
                same(
                    what("from"),
                    cluster.may_receive(pod, *address, traffic),
                    cloud.receives(pod, *address, traffic),
                )?;
            }
        }
        for listener in listeners(cluster) {
            let (endpoints, hides) = cluster.behind(listener);
            let to_vip = Traffic::To(listener.protocol, listener.number);
            let may = cluster.may_use(pod, listener);
            // The first packet meets the rules with the VIP as its destination.
            let what = format!("{} to {listener}", pod.key);
            same(what.clone(), may, cloud.sends(pod, listener.vip, to_vip))?;
            for endpoint in endpoints {
                let to_endpoint = Traffic::To(listener.protocol, endpoint.number);
                let what = format!("{what} and there to {endpoint:?}");
                let itself = pod.addresses.contains(&endpoint.address);
                // The later ones with the endpoint as theirs, also if that is the pod itself.
                if may && !hides {
                    same(what.clone(), true, cloud.sends(pod, endpoint.address, to_endpoint))?;
                }
                // Who reaches itself arrives as the VIP.
                if may && !hides && itself {
                    same(what, true, cloud.receives(pod, listener.vip, to_endpoint))?;
                } else if let (true, Some(behind)) = (hides, cluster.pod_at(endpoint.address)) {
                    let wanted = cluster.may_receive(behind, listener.vip, to_endpoint);
                    same(what, wanted, cloud.receives(behind, listener.vip, to_endpoint))?;
                }
            }
        }
    }
    Ok(())
}
