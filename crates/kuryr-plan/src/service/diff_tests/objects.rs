//! Octavia's objects, and what it checks of each of them.

use crate::service::{
    Family, Listener, ListenerKey, Member, Members, Monitor, ObservedPool, ObservedTree, Pool, Transport, fixtures::id,
};
use kuryr_model::{
    HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId,
    lb::{self, Operating, Protocol, Provisioning},
};
use std::collections::BTreeSet;

pub(crate) fn key(listener: &lb::Listener) -> ListenerKey {
    let transport = match listener.protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
        _ => Transport::Tcp,
    };
    ListenerKey { transport, number: listener.protocol_port }
}

pub(super) fn find_pool(tree: &mut ObservedTree, id: ListenerPoolId) -> &mut ObservedPool {
    tree.pools.iter_mut().find(|pool| pool.pool.id == id).unwrap_or_else(|| panic!("404: pool {id}"))
}

pub(super) fn find_monitor(tree: &mut ObservedTree, id: HealthMonitorId) -> &mut ObservedPool {
    let mut pools = tree.pools.iter_mut();
    let found = pools.find(|pool| pool.monitor.as_ref().is_some_and(|monitor| monitor.id == id));
    found.unwrap_or_else(|| panic!("404: health monitor {id}"))
}

/// `VALID_LISTENER_POOL_PROTOCOL_MAP` of Octavia, for what is used here.
pub(super) fn pair(listener: Protocol, pool: Protocol) -> bool {
    match listener {
        Protocol::Tcp => matches!(pool, Protocol::Tcp | Protocol::Http | Protocol::Proxy | Protocol::ProxyV2),
        Protocol::Http => matches!(pool, Protocol::Http | Protocol::Proxy | Protocol::ProxyV2),
        other => pool == other,
    }
}

pub(super) fn check_ranges(tree: &ObservedTree, listener: &Listener) {
    let families: BTreeSet<Family> = tree.load_balancer.addresses().map(Family::of).collect();
    for range in &listener.allowed_cidrs {
        assert!(families.contains(&Family::of(range.addr())), "400: {range} is incompatible with the VIPs");
        assert_eq!(*range, range.trunc(), "400: {range} has host bits");
    }
    let distinct: BTreeSet<_> = listener.allowed_cidrs.iter().collect();
    assert_eq!(distinct.len(), listener.allowed_cidrs.len(), "a range twice");
}

pub(super) fn lb_listener(
    id: ListenerId,
    listener: &Listener,
    tags: &[String],
    tree: &ObservedTree,
    pool: ListenerPoolId,
    pool_protocol: Protocol,
) -> lb::Listener {
    assert!(!tree.listeners.iter().any(|other| key(other) == listener.key), "409: {} is there", listener.key);
    assert!(pair(listener.protocol, pool_protocol), "400: {} before {pool_protocol}", listener.protocol);
    let carries = match listener.protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
        _ => Transport::Tcp,
    };
    assert_eq!(carries, listener.key.transport);
    assert!(listener.insert_headers.is_empty() || listener.protocol == Protocol::Http, "400: headers");
    check_ranges(tree, listener);
    let mut there = lb::Listener {
        id,
        name: listener.name.clone(),
        description: String::new(),
        provisioning_status: Provisioning::Active,
        operating_status: Operating::Online,
        protocol: listener.protocol,
        protocol_port: listener.key.number,
        default_pool_id: Some(pool),
        connection_limit: None,
        timeout_client_data: Some(50_000),
        timeout_member_connect: Some(5_000),
        timeout_member_data: Some(50_000),
        timeout_tcp_inspect: Some(0),
        allowed_cidrs: vec![],
        insert_headers: listener.insert_headers.clone(),
        loadbalancers: vec![tree.load_balancer.id],
        tags: tags.to_vec(),
    };
    set_listener(&mut there, listener);
    there
}

pub(super) fn set_listener(there: &mut lb::Listener, listener: &Listener) {
    there.connection_limit = Some(listener.connection_limit);
    there.insert_headers = listener.insert_headers.clone();
    there.allowed_cidrs = listener.allowed_cidrs.iter().map(ToString::to_string).collect();
    if let Some(timeouts) = listener.timeouts {
        there.timeout_client_data = Some(timeouts.client_data);
        there.timeout_member_connect = Some(timeouts.member_connect);
        there.timeout_member_data = Some(timeouts.member_data);
        there.timeout_tcp_inspect = Some(timeouts.tcp_inspect);
    }
}

pub(super) fn lb_pool(id: ListenerPoolId, pool: &Pool, tags: &[String], lb: LoadBalancerId) -> lb::Pool {
    assert!(!pool.name.is_empty(), "400: a pool needs a name");
    let timed = pool.persistence.as_ref().is_some_and(|persistence| persistence.persistence_timeout.is_some());
    assert!(!timed || matches!(pool.protocol, Protocol::Udp | Protocol::Sctp), "400: persistence_timeout");
    lb::Pool {
        id,
        name: pool.name.clone(),
        description: String::new(),
        provisioning_status: Provisioning::Active,
        operating_status: Operating::Online,
        protocol: pool.protocol,
        lb_algorithm: pool.algorithm,
        session_persistence: pool.persistence.clone(),
        listeners: vec![],
        loadbalancers: vec![lb],
        healthmonitor_id: None,
        members: vec![],
        tags: tags.to_vec(),
    }
}

/// The batch PUT: exactly these; a member is known by address and port number, and keeps its subnet.
pub(super) fn set_members(pool: &mut ObservedPool, members: &[Member], first: u32) {
    let old = match &pool.members {
        Members::Known(old) => old.clone(),
        Members::Counted => vec![],
    };
    let mut seen = BTreeSet::new();
    let new = members.iter().zip(first..).map(|(member, n)| {
        assert!(seen.insert((member.address, member.port)), "409: a member twice");
        assert!(member.weight <= 256);
        let same = old.iter().find(|old| (old.address, old.protocol_port) == (member.address, member.port));
        lb::Member {
            id: same.map_or_else(|| id(n + 1_000_000), |old| old.id),
            name: member.name.clone(),
            address: member.address,
            protocol_port: member.port,
            weight: member.weight,
            subnet_id: same.map_or(member.subnet, |old| old.subnet_id),
            provisioning_status: Provisioning::Active,
            operating_status: Operating::Online,
            backup: false,
            tags: vec![],
        }
    });
    let new: Vec<lb::Member> = new.collect();
    pool.pool.members = new.iter().map(|member| member.id).collect();
    pool.members = Members::Known(new);
}

pub(super) fn lb_monitor(
    id: HealthMonitorId,
    monitor: &Monitor,
    tags: &[String],
    pool: ListenerPoolId,
    protocol: Protocol,
) -> lb::HealthMonitor {
    let udp = monitor.kind == lb::MonitorType::UdpConnect;
    assert_eq!(udp, protocol == Protocol::Udp, "400: UDP-CONNECT is for UDP");
    assert!(!udp || monitor.delay >= 3, "400: delay");
    assert!((1..=10).contains(&monitor.max_retries) && (1..=10).contains(&monitor.max_retries_down));
    lb::HealthMonitor {
        id,
        name: monitor.name.clone(),
        provisioning_status: Provisioning::Active,
        operating_status: Operating::Online,
        kind: monitor.kind,
        delay: monitor.delay,
        timeout: monitor.timeout,
        max_retries: monitor.max_retries,
        max_retries_down: monitor.max_retries_down,
        http_method: None,
        url_path: None,
        expected_codes: None,
        pools: vec![pool],
        tags: tags.to_vec(),
    }
}
