//! Services, clusters and mishaps of all kinds.

use super::octavia::Octavia;
use crate::service::{
    Desired, Endpoint, Kind, Members, Provider, Service, ServicePort, Site, Slice, SlicePort, TrafficPolicy, Transport,
    annotations, desired,
    fixtures::{self, id, ip},
};
use kuryr_model::lb::{self, Provisioning};
use proptest::{collection::vec, option, prelude::*, sample::subsequence};
use std::collections::BTreeMap;

/// A load balancer that somebody made and Services may name.
pub(crate) const SHARED: u32 = 77;

pub(crate) struct Case {
    pub(crate) octavia: Octavia,
    /// What was wanted before, and done.
    pub(crate) before: Option<Desired>,
    pub(crate) damages: Vec<Damage>,
    /// What is wanted now.
    pub(crate) after: Desired,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "before: {:#?}\ndamages: {:?}\nafter: {:#?}", self.before, self.damages, self.after)
    }
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    (
        site(),
        option::weighted(0.85, want()),
        vec(damage(), 0..4),
        want(),
        any::<bool>(),
        any::<bool>(),
        option::of(prop_oneof![Just(80u16), Just(443), Just(4000)]),
    )
        .prop_map(|(site, before, damages, after, one_vip, failover_helps, shared)| {
            let mut octavia = Octavia::new();
            (octavia.one_vip, octavia.failover_helps) = (one_vip, failover_helps);
            if let Some(port) = shared {
                octavia.somebodys_tree(id(SHARED), port);
            }
            octavia.somebodys_floating("203.0.113.7", None);
            let want = |(service, slices): (Option<Service>, Vec<Slice>)| match service {
                Some(service) => desired(&service, &slices, &site),
                None => Desired::gone(site.cluster.clone(), fixtures::service().uid),
            };
            Case { octavia, before: before.map(want), damages, after: want(after) }
        })
}

fn site() -> impl Strategy<Value = Site> {
    let provider = prop_oneof![Just(Provider::Other("f5".into())), Just(Provider::Ovn), Just(Provider::Amphora)];
    (provider, any::<bool>(), any::<bool>()).prop_map(|(provider, floating, same_network)| {
        let mut site = fixtures::site(provider);
        if !floating {
            site.floating_network = None;
        }
        if !same_network {
            site.services[1].network = id(99);
        }
        site
    })
}

fn want() -> impl Strategy<Value = (Option<Service>, Vec<Slice>)> {
    (option::weighted(0.9, service()), vec(slice(), 0..4))
}

const PORTS: [(&str, Transport, u16); 6] = [
    ("http", Transport::Tcp, 80),
    ("https", Transport::Tcp, 443),
    ("dns", Transport::Udp, 53),
    ("dns-tcp", Transport::Tcp, 53),
    ("sctp", Transport::Sctp, 36412),
    ("quic", Transport::Udp, 443),
];

fn service() -> impl Strategy<Value = Service> {
    let kind = prop_oneof![
        2 => Just(Kind::ClusterIp),
        1 => Just(Kind::NodePort),
        5 => Just(Kind::LoadBalancer),
        1 => Just(Kind::ExternalName),
    ];
    let (v4, v6) = (ip("10.96.0.10"), ip("fd00:96::10"));
    let ips = prop_oneof![
        4 => Just(vec![v4]),
        2 => Just(vec![v6]),
        3 => Just(vec![v4, v6]),
        1 => Just(vec![v6, v4]),
        1 => Just(vec![ip("10.1.1.1"), v6]),
        1 => Just(vec![]),
    ];
    let ranges = prop_oneof![
        4 => Just(vec![]),
        1 => Just(vec!["192.0.2.0/24".to_owned(), "198.51.100.9/32".to_owned()]),
        1 => Just(vec!["2001:db8::/32".to_owned()]),
        1 => Just(vec!["nonsense".to_owned()]),
        1 => Just(vec!["0.0.0.0/0".to_owned()]),
    ];
    let address = prop_oneof![
        5 => Just(None),
        1 => Just(Some("203.0.113.7".to_owned())),
        1 => Just(Some("203.0.113.99".to_owned())),
        1 => Just(Some("2001:db8::5".to_owned())),
    ];
    let class = prop_oneof![4 => Just(None), 1 => Just(Some("example.org/other".to_owned()))];
    let rest = (option::of(prop_oneof![Just(10_800u32), Just(60)]), any::<bool>(), any::<bool>());
    (kind, ips, subsequence(PORTS.to_vec(), 0..=PORTS.len()), ranges, address, class, annotations(), rest).prop_map(
        |(kind, cluster_ips, ports, source_ranges, load_balancer_ip, load_balancer_class, annotations, rest)| {
            let (session_affinity, local, publish_not_ready) = rest;
            let policy = if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
            let port = |(name, transport, number): (&str, Transport, u16)| ServicePort {
                name: name.to_owned(),
                transport,
                number,
                node_port: None,
            };
            Service {
                kind,
                cluster_ips,
                ports: ports.into_iter().map(port).collect(),
                source_ranges,
                load_balancer_ip,
                load_balancer_class,
                annotations,
                session_affinity,
                publish_not_ready,
                external_policy: policy,
                internal_policy: policy,
                ..fixtures::service()
            }
        },
    )
}

fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let some = |n: u32| format!("00000000-0000-4000-8000-{n:012x}");
    let all = vec![
        (annotations::INTERNAL, "true".to_owned()),
        (annotations::INTERNAL_LEGACY, "maybe".to_owned()),
        (annotations::LOAD_BALANCER_ID, some(SHARED)),
        (annotations::PORT_ID, some(88)),
        (annotations::SUBNET_ID, some(55)),
        (annotations::SUBNET_ID, some(56)),
        (annotations::NETWORK_ID, some(57)),
        (annotations::FLOATING_NETWORK_ID, some(fixtures::OTHER_PUBLIC)),
        (annotations::FLOATING_SUBNET, "public-*".to_owned()),
        (annotations::KEEP_FLOATING_IP, "true".to_owned()),
        (annotations::LB_PROVIDER, "ovn".to_owned()),
        (annotations::LB_PROVIDER, "amphora".to_owned()),
        (annotations::FLAVOR_ID, some(66)),
        (annotations::AVAILABILITY_ZONE, "az2".to_owned()),
        (annotations::CONNECTION_LIMIT, "100".to_owned()),
        (annotations::TIMEOUT_CLIENT_DATA, "1000".to_owned()),
        (annotations::X_FORWARDED_FOR, "true".to_owned()),
        (annotations::PROXY_PROTOCOL, "v2".to_owned()),
        (annotations::PROXY_PROTOCOL, "true".to_owned()),
        (annotations::LB_METHOD, "LEAST_CONNECTIONS".to_owned()),
        (annotations::ENABLE_HEALTH_MONITOR, "true".to_owned()),
        (annotations::HEALTH_MONITOR_DELAY, "1".to_owned()),
        (annotations::CLASS, "no such class".to_owned()),
    ];
    prop_oneof![2 => Just(vec![]), 3 => subsequence(all, 0..6)]
        .prop_map(|pairs| pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn slice() -> impl Strategy<Value = Slice> {
    let endpoint = (0u8..6, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(n, v6, ready, serving, terminating)| Endpoint {
            address: if v6 { ip(&format!("fd00:10::{n:x}")) } else { ip(&format!("10.10.0.{n}")) },
            ready: ready && !terminating,
            serving: serving || ready,
            terminating,
            node: None,
            pod: None,
        },
    );
    let ports = subsequence(PORTS.to_vec(), 1..=PORTS.len());
    (ports, vec(endpoint, 0..6), prop_oneof![Just(0u16), Just(8000)]).prop_map(|(ports, endpoints, add)| Slice {
        ports: ports
            .into_iter()
            .map(|(name, transport, number)| SlicePort { name: name.to_owned(), transport, number: number + add })
            .collect(),
        endpoints,
    })
}

/// Something that happens behind our back. The numbers choose whom it strikes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    TreeGone(usize),
    TreeStatus(usize, Provisioning),
    FailedOver(usize),
    ListenerGone(usize, usize),
    ListenerError(usize, usize),
    ListenerForeign(usize, usize),
    ListenersOfAnother(usize, usize),
    PoolGone(usize, usize),
    PoolError(usize, usize),
    PoolForeign(usize, usize),
    PoolDetached(usize, usize),
    MemberGone(usize, usize, usize),
    MemberChanged(usize, usize, usize),
    MemberError(usize, usize, usize),
    MonitorGone(usize, usize),
    MonitorChanged(usize, usize),
    MonitorError(usize, usize),
    LimitChanged(usize, usize),
    RangesChanged(usize, usize),
    FloatingGone(usize),
    FloatingFreed(usize),
    FloatingUntagged(usize),
    SomebodysFloating(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let status = prop_oneof![
        Just(Provisioning::Error),
        Just(Provisioning::PendingUpdate),
        Just(Provisioning::PendingCreate),
        Just(Provisioning::PendingDelete),
    ];
    (0usize..23, any::<(usize, usize, usize)>(), status).prop_map(|(which, (a, b, c), status)| match which {
        0 => Damage::TreeGone(a),
        1 => Damage::TreeStatus(a, status),
        2 => Damage::FailedOver(a),
        3 => Damage::ListenerGone(a, b),
        4 => Damage::ListenerError(a, b),
        5 => Damage::ListenerForeign(a, b),
        6 => Damage::ListenersOfAnother(a, b),
        7 => Damage::PoolGone(a, b),
        8 => Damage::PoolError(a, b),
        9 => Damage::PoolForeign(a, b),
        10 => Damage::PoolDetached(a, b),
        11 => Damage::MemberGone(a, b, c),
        12 => Damage::MemberChanged(a, b, c),
        13 => Damage::MemberError(a, b, c),
        14 => Damage::MonitorGone(a, b),
        15 => Damage::MonitorChanged(a, b),
        16 => Damage::MonitorError(a, b),
        17 => Damage::LimitChanged(a, b),
        18 => Damage::RangesChanged(a, b),
        19 => Damage::FloatingGone(a),
        20 => Damage::FloatingFreed(a),
        21 => Damage::FloatingUntagged(a),
        _ => Damage::SomebodysFloating(a),
    })
}

fn pick<T>(list: &mut [T], n: usize) -> Option<&mut T> {
    let len = list.len();
    if len == 0 { None } else { list.get_mut(n % len) }
}

impl Damage {
    pub(crate) fn strike(self, octavia: &mut Octavia, after: &Desired) {
        // Nothing, if there is nobody to be struck.
        let _ = self.try_strike(octavia, after);
    }

    fn try_strike(self, octavia: &mut Octavia, after: &Desired) -> Option<()> {
        let foreign = after.cluster.as_str().replace("prod", "kuryr:other");
        let another = vec!["kuryr:prod".to_owned(), "kuryr:service:another".to_owned()];
        match self {
            Self::TreeGone(a) => {
                let index = a % octavia.there.trees.len().max(1);
                let gone = (index < octavia.there.trees.len()).then(|| octavia.there.trees.remove(index))?;
                for ip in octavia.there.floating.iter_mut().filter(|ip| ip.port_id == gone.load_balancer.vip_port_id) {
                    ip.port_id = None;
                }
            }
            Self::TreeStatus(a, status) => {
                pick(&mut octavia.there.trees, a)?.load_balancer.provisioning_status = status;
            }
            Self::FailedOver(a) => {
                let tree = pick(&mut octavia.there.trees, a)?;
                (tree.failed_over, tree.load_balancer.provisioning_status) = (true, Provisioning::Error);
            }
            Self::ListenerGone(a, b) => {
                let listeners = &mut pick(&mut octavia.there.trees, a)?.listeners;
                let id = pick(listeners, b)?.id;
                listeners.retain(|listener| listener.id != id);
            }
            Self::ListenerError(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.listeners, b)?.provisioning_status = Provisioning::Error;
            }
            Self::ListenerForeign(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.listeners, b)?.tags = vec![foreign];
            }
            Self::ListenersOfAnother(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.listeners, b)?.tags = another;
            }
            Self::PoolGone(a, b) => {
                let tree = pick(&mut octavia.there.trees, a)?;
                let id = pick(&mut tree.pools, b)?.pool.id;
                tree.pools.retain(|pool| pool.pool.id != id);
                for listener in tree.listeners.iter_mut().filter(|listener| listener.default_pool_id == Some(id)) {
                    listener.default_pool_id = None;
                }
            }
            Self::PoolError(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.pools, b)?.pool.provisioning_status = Provisioning::Error;
            }
            Self::PoolForeign(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.pools, b)?.pool.tags = vec![foreign];
            }
            Self::PoolDetached(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.listeners, b)?.default_pool_id = None;
            }
            Self::MemberGone(a, b, c) => {
                let pool = pick(&mut pick(&mut octavia.there.trees, a)?.pools, b)?;
                let Members::Known(members) = &mut pool.members else { return None };
                let id = pick(members, c)?.id;
                members.retain(|member| member.id != id);
                pool.pool.members.retain(|member| *member != id);
            }
            Self::MemberChanged(a, b, c) => member(octavia, a, b, c)?.weight = 17,
            Self::MemberError(a, b, c) => member(octavia, a, b, c)?.provisioning_status = Provisioning::Error,
            Self::MonitorGone(a, b) => {
                let pool = pick(&mut pick(&mut octavia.there.trees, a)?.pools, b)?;
                (pool.monitor, pool.pool.healthmonitor_id) = (None, None);
            }
            Self::MonitorChanged(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.pools, b)?.monitor.as_mut()?.delay = 77;
            }
            Self::MonitorError(a, b) => {
                let pool = pick(&mut pick(&mut octavia.there.trees, a)?.pools, b)?;
                pool.monitor.as_mut()?.provisioning_status = Provisioning::Error;
            }
            Self::LimitChanged(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.listeners, b)?.connection_limit = Some(3);
            }
            Self::RangesChanged(a, b) => {
                pick(&mut pick(&mut octavia.there.trees, a)?.listeners, b)?.allowed_cidrs = vec!["8.8.8.0/24".into()];
            }
            Self::FloatingGone(a) => {
                let id = pick(&mut octavia.there.floating, a)?.id;
                octavia.there.floating.retain(|ip| ip.id != id);
            }
            Self::FloatingFreed(a) => pick(&mut octavia.there.floating, a)?.port_id = None,
            // A crash between the two requests that make one.
            Self::FloatingUntagged(a) => pick(&mut octavia.there.floating, a)?.tags = vec![],
            Self::SomebodysFloating(a) => {
                let port = pick(&mut octavia.there.trees, a)?.load_balancer.vip_port_id?;
                if !octavia.there.floating.iter().any(|ip| ip.port_id == Some(port)) {
                    octavia.somebodys_floating("203.0.113.200", Some(port));
                }
            }
        }
        Some(())
    }
}

fn member(octavia: &mut Octavia, a: usize, b: usize, c: usize) -> Option<&mut lb::Member> {
    let pool = pick(&mut pick(&mut octavia.there.trees, a)?.pools, b)?;
    let Members::Known(members) = &mut pool.members else { return None };
    pick(members, c)
}
