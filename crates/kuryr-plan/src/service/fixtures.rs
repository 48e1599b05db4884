//! A small cluster and a Service in it, for tests.

use super::{
    Endpoint, ExternalSubnet, Kind, Provider, Refusals, Service, ServicePort, Site, SiteSubnet, Slice, SlicePort,
    TrafficPolicy, Transport, site::LOAD_BALANCER_CLASS,
};
use ipnet::IpNet;
use kuryr_model::{NetworkId, ObjectKey, SubnetId};
use std::{collections::BTreeMap, net::IpAddr};

/// An id of any kind.
pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(n: u32) -> T {
    format!("00000000-0000-4000-8000-{n:012x}").parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) const SERVICE_NETWORK: u32 = 1;
pub(crate) const POD_NETWORK: u32 = 2;
pub(crate) const PUBLIC: u32 = 3;
pub(crate) const OTHER_PUBLIC: u32 = 4;
pub(crate) const SERVICES_V4: u32 = 11;
pub(crate) const SERVICES_V6: u32 = 12;
pub(crate) const PODS_V4: u32 = 13;
pub(crate) const PODS_V6: u32 = 14;

pub(crate) fn subnet(n: u32, network: u32, cidr: &str, gateway: &str) -> SiteSubnet {
    SiteSubnet { id: id(n), network: id(network), cidr: cidr.parse().unwrap(), gateway: Some(ip(gateway)) }
}

/// A dual-stack cluster whose load balancers are of `provider`.
pub(crate) fn site(provider: Provider) -> Site {
    let external = |n, network, name: &str, tags: &[&str]| ExternalSubnet {
        id: id::<SubnetId>(n),
        network: id::<NetworkId>(network),
        name: name.to_owned(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    Site {
        cluster: "prod".into(),
        services: vec![
            subnet(SERVICES_V4, SERVICE_NETWORK, "10.96.0.0/16", "10.96.255.254"),
            subnet(SERVICES_V6, SERVICE_NETWORK, "fd00:96::/112", "fd00:96::fffe"),
        ],
        pods: vec![
            subnet(PODS_V4, POD_NETWORK, "10.10.0.0/16", "10.10.0.1"),
            subnet(PODS_V6, POD_NETWORK, "fd00:10::/64", "fd00:10::1"),
        ],
        nodes: vec!["192.168.7.0/24".parse().unwrap()],
        floating_network: Some(id(PUBLIC)),
        external_subnets: vec![
            external(21, PUBLIC, "public-a", &["fast", "cheap"]),
            external(22, PUBLIC, "public-b", &["fast"]),
            external(23, OTHER_PUBLIC, "dmz", &[]),
        ],
        provider,
        load_balancer_class: LOAD_BALANCER_CLASS.to_owned(),
        classes: BTreeMap::new(),
        refusals: Refusals::default(),
    }
}

/// The Service `shop/web` with port 80 at 10.96.0.10.
pub(crate) fn service() -> Service {
    Service {
        key: ObjectKey::new("shop", "web"),
        uid: "0d4bbd2b-6a1f-4cf2-9a5a-3d3f9b1f2c11".into(),
        kind: Kind::ClusterIp,
        cluster_ips: vec![ip("10.96.0.10")],
        ports: vec![port("http", Transport::Tcp, 80)],
        external_ips: vec![],
        load_balancer_ip: None,
        load_balancer_class: None,
        source_ranges: vec![],
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        session_affinity: None,
        publish_not_ready: false,
        selector: true,
        health_check_port: None,
        annotations: BTreeMap::new(),
        deleting: false,
        generation: 1,
    }
}

/// The same, of type `LoadBalancer`, with annotations.
pub(crate) fn load_balancer(annotations: &[(&str, &str)]) -> Service {
    Service {
        kind: Kind::LoadBalancer,
        annotations: annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..service()
    }
}

pub(crate) fn port(name: &str, transport: Transport, number: u16) -> ServicePort {
    ServicePort { name: name.to_owned(), transport, number, node_port: None }
}

pub(crate) fn ready(address: &str) -> Endpoint {
    Endpoint {
        address: ip(address),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("node1".to_owned()),
        pod: Some(format!("web-{}", address.rsplit(['.', ':']).next().unwrap())),
    }
}

pub(crate) fn terminating(address: &str) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..ready(address) }
}

pub(crate) fn unready(address: &str) -> Endpoint {
    Endpoint { ready: false, serving: false, ..ready(address) }
}

pub(crate) fn slice(ports: &[(&str, Transport, u16)], endpoints: &[Endpoint]) -> Slice {
    let port = |(name, transport, number): &(&str, Transport, u16)| SlicePort {
        name: (*name).to_owned(),
        transport: *transport,
        number: *number,
    };
    Slice { ports: ports.iter().map(port).collect(), endpoints: endpoints.to_vec() }
}

/// Pods that listen on 8080 for the port `http`.
pub(crate) fn pods(endpoints: &[Endpoint]) -> Vec<Slice> {
    vec![slice(&[("http", Transport::Tcp, 8080)], endpoints)]
}

pub(crate) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
