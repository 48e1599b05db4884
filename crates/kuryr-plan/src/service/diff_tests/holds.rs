//! Whether what is there is what has to be there: said once more, without the planner.

use super::objects::key;
use crate::service::{
    Desired, Family, Floating, Listener, ListenerKey, Member, Members, Observed, ObservedTree, Place, Provider, Role,
    Tree, Vip,
    tree::{ADOPTED_TAG, KEEP_TAG},
};
use ipnet::IpNet;
use kuryr_model::{
    lb::{self, Provisioning},
    neutron::FloatingIp,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

fn ours(desired: &Desired, tags: &[String]) -> bool {
    let (cluster, service) = (format!("kuryr:{}", desired.cluster), format!("kuryr:service:{}", desired.uid));
    tags.contains(&cluster) && tags.contains(&service)
}

fn others(desired: &Desired, tags: &[String]) -> bool {
    tags.contains(&format!("kuryr:{}", desired.cluster))
        && tags.iter().any(|tag| tag.starts_with("kuryr:service:") && !tag.ends_with(desired.uid.as_str()))
}

/// Panics with what is not as desired.
pub(crate) fn assert_holds(desired: &Desired, there: &Observed) {
    let own: Vec<&ObservedTree> = there.trees.iter().filter(|tree| ours(desired, &tree.load_balancer.tags)).collect();
    let mut used = BTreeSet::new();
    for tree in &desired.trees {
        for lb in of_tree(desired, there, &own, tree) {
            assert!(used.insert(lb.load_balancer.id), "load balancer {} is for two trees", lb.load_balancer.id);
            assert_tree(desired, tree, lb);
        }
    }
    for lb in there.trees.iter().filter(|tree| !used.contains(&tree.load_balancer.id)) {
        let shared = lb.listeners.iter().any(|listener| others(desired, &listener.tags))
            || lb.pools.iter().any(|pool| others(desired, &pool.pool.tags));
        let stays = !ours(desired, &lb.load_balancer.tags) || shared || desired.held;
        assert!(stays, "load balancer {} is not wanted", lb.load_balancer.id);
        if lb.load_balancer.provisioning_status != Provisioning::Error {
            assert!(!lb.listeners.iter().any(|listener| ours(desired, &listener.tags)), "a listener is left");
            let used = used_by_others(desired, lb);
            let left = lb.pools.iter().any(|pool| ours(desired, &pool.pool.tags) && !used.contains(&pool.pool.id));
            assert!(!left, "a listener pool is left");
        }
    }
    assert_floating(desired, there);
}

/// The load balancers that are a tree: one, or one for each address.
fn of_tree<'a>(desired: &Desired, there: &'a Observed, own: &[&'a ObservedTree], tree: &Tree) -> Vec<&'a ObservedTree> {
    match &tree.place {
        Place::Existing(id) => {
            there.trees.iter().filter(|lb| lb.load_balancer.id == *id && !at_cluster_ips(desired, lb)).collect()
        }
        _ if tree.role == Role::External => {
            let found: Vec<_> = own.iter().copied().filter(|lb| !at_cluster_ips(desired, lb)).collect();
            assert_eq!(found.len(), 1, "load balancers at another address");
            found
        }
        Place::Vips(vips) => {
            let found: Vec<_> = own.iter().copied().filter(|lb| at_cluster_ips(desired, lb)).collect();
            let mut have: Vec<IpAddr> = found.iter().flat_map(|lb| lb.load_balancer.addresses()).collect();
            let mut want: Vec<IpAddr> = vips.iter().filter_map(|vip: &Vip| vip.address).collect();
            have.sort();
            want.sort();
            assert_eq!(have, want, "the addresses of load balancers at clusterIPs");
            found
        }
        Place::Port(_) => unreachable!("only outside of clusterIPs"),
    }
}

/// Listener pools that somebody else's listeners send to: not to be taken from them, even if ours.
fn used_by_others(desired: &Desired, lb: &ObservedTree) -> BTreeSet<kuryr_model::ListenerPoolId> {
    let theirs = lb.listeners.iter().filter(|listener| !ours(desired, &listener.tags));
    theirs.filter_map(|listener| listener.default_pool_id).collect()
}

fn at_cluster_ips(desired: &Desired, lb: &ObservedTree) -> bool {
    lb.load_balancer.addresses().any(|ip| desired.cluster_ips.contains(&ip))
}

fn assert_tree(desired: &Desired, tree: &Tree, lb: &ObservedTree) {
    let about = &lb.load_balancer;
    if matches!(tree.place, Place::Existing(_)) && about.provisioning_status == Provisioning::Error {
        return;
    }
    assert_eq!(about.provisioning_status, Provisioning::Active);
    if !matches!(tree.place, Place::Existing(_)) {
        assert_eq!(Provider::named(&about.provider), tree.provider);
        assert!(tree.flavor.is_none() || about.flavor_id == tree.flavor);
        assert!(tree.availability_zone.is_none() || about.availability_zone == tree.availability_zone);
    }
    if let Place::Port(port) = tree.place {
        assert_eq!(about.vip_port_id, Some(port));
    }
    let families: BTreeSet<Family> = about.addresses().map(Family::of).collect();
    let blocked: BTreeSet<ListenerKey> =
        lb.listeners.iter().filter(|listener| !ours(desired, &listener.tags)).map(key).collect();
    let mut wanted: BTreeMap<ListenerKey, &Listener> =
        tree.listeners.iter().map(|listener| (listener.key, listener)).collect();
    wanted.retain(|key, _| !blocked.contains(key));
    let mut pools = BTreeSet::new();
    let own = lb.listeners.iter().filter(|listener| ours(desired, &listener.tags));
    let have: BTreeMap<ListenerKey, &lb::Listener> = own.map(|listener| (key(listener), listener)).collect();
    assert_eq!(have.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "listeners");
    for (key, listener) in &have {
        assert_listener(wanted[key], listener, &families);
        let pool = lb.pools.iter().find(|pool| Some(pool.pool.id) == listener.default_pool_id).expect("a pool");
        assert!(pools.insert(pool.pool.id), "two listeners with one pool");
        assert!(ours(desired, &pool.pool.tags));
        let wanted = &wanted[key].pool;
        assert_eq!((pool.pool.protocol, pool.pool.lb_algorithm), (wanted.protocol, wanted.algorithm));
        assert_eq!(pool.pool.session_persistence, wanted.persistence);
        let Members::Known(members) = &pool.members else { panic!("members are not known") };
        let mut have: Vec<_> = members.iter().map(|m| (m.address, m.protocol_port, m.weight)).collect();
        have.sort();
        let fits = |member: &&Member| families.contains(&Family::of(member.address));
        // Some providers translate between families, where there is no other way.
        let translated = tree.role == Role::External && !wanted.members.iter().any(|member| fits(&member));
        let of_family = wanted.members.iter().filter(|member| translated || fits(member));
        let want: Vec<_> = of_family.map(|m| (m.address, m.port, m.weight)).collect();
        assert_eq!(have, want, "members of {key}");
        let essence = |m: &lb::HealthMonitor| (m.kind, m.delay, m.timeout, m.max_retries, m.max_retries_down);
        let want = wanted.monitor.as_ref().map(|m| (m.kind, m.delay, m.timeout, m.max_retries, m.max_retries_down));
        assert_eq!(pool.monitor.as_ref().map(essence), want, "health monitor of {key}");
    }
    pools.extend(used_by_others(desired, lb));
    for pool in lb.pools.iter().filter(|pool| ours(desired, &pool.pool.tags)) {
        assert!(pools.contains(&pool.pool.id), "listener pool {} serves nobody", pool.pool.name);
    }
}

fn assert_listener(wanted: &Listener, there: &lb::Listener, families: &BTreeSet<Family>) {
    assert_eq!(there.protocol, wanted.protocol);
    assert_eq!(there.connection_limit, Some(wanted.connection_limit));
    assert_eq!(there.insert_headers, wanted.insert_headers);
    if let Some(timeouts) = wanted.timeouts {
        assert_eq!(there.timeout_client_data, Some(timeouts.client_data));
    }
    let have: BTreeSet<IpNet> = there.allowed_cidrs.iter().map(|text| text.parse().unwrap()).collect();
    let want: BTreeSet<IpNet> =
        wanted.allowed_cidrs.iter().copied().filter(|range| families.contains(&Family::of(range.addr()))).collect();
    if want.is_empty() {
        // No limit, or one that nobody passes.
        assert_eq!(have.is_empty(), wanted.allowed_cidrs.is_empty());
        assert!(have.iter().all(|range| range.addr().is_loopback()));
    } else {
        assert_eq!(have, want, "allowed_cidrs");
    }
}

fn is_ours(desired: &Desired, ip: &FloatingIp) -> bool {
    ours(desired, &ip.tags) || ip.description.contains(desired.uid.as_str())
}

fn assert_floating(desired: &Desired, there: &Observed) {
    let own: Vec<&FloatingIp> = there.floating.iter().filter(|ip| is_ours(desired, ip)).collect();
    match &desired.floating {
        Floating::None => assert_eq!(own, Vec::<&FloatingIp>::new(), "a floating IP is left"),
        Floating::Withheld => assert!(own.iter().all(|ip| ip.port_id.is_none()), "a floating IP exposes it"),
        Floating::Wanted(wanted) => {
            let ports: Vec<_> = there
                .trees
                .iter()
                .filter(|lb| match (wanted.to, &desired.trees.last().map(|tree| tree.place.clone())) {
                    (Role::External, Some(Place::Existing(id))) => lb.load_balancer.id == *id,
                    (Role::External, _) => ours(desired, &lb.load_balancer.tags) && !at_cluster_ips(desired, lb),
                    _ => {
                        ours(desired, &lb.load_balancer.tags)
                            && lb.load_balancer.addresses().any(|ip| ip.is_ipv4() && desired.cluster_ips.contains(&ip))
                    }
                })
                .filter_map(|lb| lb.load_balancer.vip_port_id)
                .collect();
            assert!(ports.len() <= 1);
            let here: Vec<_> =
                there.floating.iter().filter(|ip| ip.port_id.is_some_and(|p| ports.contains(&p))).collect();
            assert!(own.len() <= 1, "two floating IPs");
            if let [ip] = here[..] {
                let stranger = !is_ours(desired, ip);
                assert!(stranger || wanted.address.is_none_or(|address| ip.floating_ip_address == address));
                let adopted = ip.tags.iter().any(|tag| tag == ADOPTED_TAG);
                let keeps = |tags: &[String]| tags.iter().any(|tag| tag == KEEP_TAG);
                assert!(stranger || adopted || keeps(&ip.tags) == keeps(&wanted.tags));
                // An address that is asked for goes before a network.
                let network = wanted.network.filter(|_| wanted.address.is_none());
                assert!(stranger || adopted || network.is_none_or(|network| ip.floating_network_id == network));
            }
        }
    }
}
