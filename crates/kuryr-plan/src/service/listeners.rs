//! From a Service's ports to listeners, listener pools and health monitors.

use super::{
    annotations::{self, Options},
    input::{Family, Service, ServicePort, Slice, Transport},
    members::{Subnets, members},
    problem::{Effect, Problem, Reason},
    provider::{ALGORITHMS, Abilities, Can, Feature},
    tree::{Listener, ListenerKey, Monitor, Pool, Timeouts},
};
use ipnet::IpNet;
use kuryr_model::lb::{Algorithm, MonitorType, Protocol, SessionPersistence};
use std::collections::{BTreeMap, BTreeSet};

/// `spec.sessionAffinityConfig.clientIP.timeoutSeconds`, unless set.
const USUAL_AFFINITY: u32 = 10_800;

/// The shortest `delay` that Octavia takes for `UDP-CONNECT`, in seconds (its `udp_connect_min_interval_health_monitor`).
const LEAST_UDP_DELAY: u32 = 3;

/// What is the same for all listeners of a Service: what was asked for, as far as the provider can do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// What TCP listeners speak.
    tcp: Protocol,
    /// What the members behind them speak.
    tcp_members: Protocol,
    headers: BTreeMap<String, String>,
    algorithm: Algorithm,
    /// Whether clients are bound to members.
    bound: bool,
    /// For how many seconds, for UDP and SCTP.
    bound_for: Option<u32>,
    connection_limit: i64,
    timeouts: Option<Timeouts>,
}

impl Style {
    /// Whether endpoints are told who the client is, by a header of one kind or the other.
    pub(crate) fn tells_the_client(&self) -> bool {
        self.tcp_members != Protocol::Tcp
    }
}

/// The style of a Service. What the provider cannot do is a problem, once for the Service.
pub(crate) fn style(
    service: &Service,
    options: &Options,
    abilities: Abilities<'_>,
    problems: &mut Vec<Problem>,
) -> Style {
    let mut unsupported = |feature: Feature, about: &str, instead: &str| {
        let message = format!("{about}: the provider {} does not support {feature}; {instead}", abilities.provider);
        problems.push(Problem::new(Reason::NotSupportedByProvider, about, Effect::Ignored, message));
    };
    let (mut tcp, mut tcp_members, mut headers) = (Protocol::Tcp, Protocol::Tcp, BTreeMap::new());
    if options.x_forwarded_for {
        let http = Feature::Protocol(Protocol::Http);
        if abilities.does(http) {
            (tcp, tcp_members) = (Protocol::Http, Protocol::Http);
            headers.insert("X-Forwarded-For".to_owned(), "true".to_owned());
        } else {
            unsupported(http, annotations::X_FORWARDED_FOR, "TCP is passed on as it is");
        }
    }
    if let Some(proxy) = options.proxy_protocol {
        if abilities.does(Feature::Protocol(proxy)) {
            tcp_members = proxy;
        } else {
            unsupported(Feature::Protocol(proxy), annotations::PROXY_PROTOCOL, "TCP is passed on as it is");
        }
    }
    let usual = ALGORITHMS.into_iter().find(|algorithm| abilities.does(Feature::Algorithm(*algorithm)));
    let usual = usual.unwrap_or(Algorithm::RoundRobin);
    let algorithm = options.algorithm.unwrap_or(usual);
    if !abilities.does(Feature::Algorithm(algorithm)) && options.algorithm.is_some() {
        unsupported(Feature::Algorithm(algorithm), annotations::LB_METHOD, &format!("{usual} is used"));
    }
    let algorithm = if abilities.does(Feature::Algorithm(algorithm)) { algorithm } else { usual };
    let bound = service.session_affinity.is_some() && abilities.does(Feature::Persistence);
    if service.session_affinity.is_some() && !bound {
        unsupported(Feature::Persistence, "spec.sessionAffinity", "clients go to any endpoint");
    }
    let bound_for = service.session_affinity.filter(|_| abilities.does(Feature::PersistenceTimeout));
    let mut no_effect = |about: &str, what: &str| {
        let message = format!("{about}: the provider {} takes {what}, to no effect", abilities.provider);
        problems.push(Problem::new(Reason::NoEffect, about, Effect::Ignored, message));
    };
    let limits = abilities.does(Feature::ConnectionLimit);
    if options.connection_limit.is_some_and(|limit| limit != -1) && !limits {
        no_effect(annotations::CONNECTION_LIMIT, "a limit of connections");
    }
    let timeouts = abilities.does(Feature::Timeouts);
    for about in options.timeouts_asked.iter().filter(|_| !timeouts) {
        no_effect(about, "timeouts");
    }
    Style {
        tcp,
        tcp_members,
        headers,
        algorithm,
        bound,
        bound_for,
        connection_limit: options.connection_limit.filter(|_| limits).unwrap_or(-1),
        timeouts: timeouts.then_some(options.timeouts),
    }
}

/// Says where clients are bound to endpoints for another time than was asked for. Octavia takes a time only for UDP and
/// SCTP (API reference, `persistence_timeout`).
pub(crate) fn affinity(service: &Service, style: &Style, problems: &mut Vec<Problem>) {
    let Some(asked) = service.session_affinity.filter(|seconds| *seconds != USUAL_AFFINITY && style.bound) else {
        return;
    };
    let mut ports = service.ports.iter();
    if ports.any(|port| port.transport == Transport::Tcp || style.bound_for.is_none()) {
        let about = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        let message = format!(
            "{about} is {asked}: the load balancer decides itself for how long a client of a TCP port stays with its \
             endpoint, and the provider may do so for UDP and SCTP too"
        );
        problems.push(Problem::new(Reason::AffinityTimeout, about, Effect::Differs, message));
    }
}

/// What is the same for all listeners of one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) service: &'a Service,
    pub(crate) options: &'a Options,
    pub(crate) slices: &'a [Slice],
    pub(crate) abilities: Abilities<'a>,
    pub(crate) style: &'a Style,
    /// The families that the tree has addresses of.
    pub(crate) families: &'a [Family],
    pub(crate) subnets: Subnets<'a>,
    /// Who may connect; empty: everybody.
    pub(crate) allowed: &'a [IpNet],
}

/// The listeners of one tree, in order of their keys.
pub(crate) fn listeners(frame: Frame<'_>, problems: &mut Vec<Problem>) -> Vec<Listener> {
    let mut seen = BTreeSet::new();
    let mut listeners: Vec<Listener> = Vec::with_capacity(frame.service.ports.len());
    for port in &frame.service.ports {
        let key = ListenerKey { transport: port.transport, number: port.number };
        let protocol = Feature::Protocol(port.transport.protocol());
        if !frame.abilities.does(protocol) {
            let message = format!(
                "port {key}: the provider {} does not support {protocol}, so nobody listens there; use another provider \
                 ({})",
                frame.abilities.provider,
                annotations::LB_PROVIDER
            );
            problems.push(Problem::new(Reason::NotSupportedByProvider, "spec.ports", Effect::NotServed, message));
        } else if seen.insert(key) {
            listeners.push(listener(frame, port, key, problems));
        }
    }
    listeners.sort_by_key(|listener| listener.key);
    listeners
}

fn listener(frame: Frame<'_>, port: &ServicePort, key: ListenerKey, problems: &mut Vec<Problem>) -> Listener {
    let Frame { service, style, .. } = frame;
    let tcp = port.transport == Transport::Tcp;
    let name = format!("{}:{key}", service.key);
    let persistence = style.bound.then(|| SessionPersistence {
        persistence_timeout: style.bound_for.filter(|_| !tcp),
        ..SessionPersistence::source_ip()
    });
    let pool = Pool {
        name: name.clone(),
        protocol: if tcp { style.tcp_members } else { port.transport.protocol() },
        algorithm: style.algorithm,
        persistence,
        members: members(
            service,
            port,
            frame.slices,
            frame.families,
            frame.subnets,
            frame.abilities.does(Feature::Draining),
        ),
        monitor: monitor(frame, port.transport, &name, problems),
    };
    Listener {
        key,
        protocol: if tcp { style.tcp } else { port.transport.protocol() },
        name,
        connection_limit: style.connection_limit,
        timeouts: style.timeouts,
        allowed_cidrs: frame.allowed.to_vec(),
        insert_headers: if tcp { style.headers.clone() } else { BTreeMap::new() },
        pool,
    }
}

fn monitor(frame: Frame<'_>, transport: Transport, name: &str, problems: &mut Vec<Problem>) -> Option<Monitor> {
    let asked = frame.options.monitor?;
    let kind = match transport {
        Transport::Tcp => MonitorType::Tcp,
        Transport::Udp => MonitorType::UdpConnect,
        Transport::Sctp => MonitorType::Sctp,
    };
    if frame.abilities.can(Feature::Monitor(kind)) != Can::Yes {
        let about = annotations::ENABLE_HEALTH_MONITOR;
        let message = format!(
            "{about}: the provider {} does not support {}; the endpoints of {transport} ports are not watched",
            frame.abilities.provider,
            Feature::Monitor(kind)
        );
        problems.push(Problem::new(Reason::NotSupportedByProvider, about, Effect::Ignored, message));
        return None;
    }
    let least = if kind == MonitorType::UdpConnect { LEAST_UDP_DELAY } else { 1 };
    Some(Monitor {
        name: name.to_owned(),
        kind,
        delay: asked.delay.max(least),
        timeout: asked.timeout,
        max_retries: asked.max_retries,
        max_retries_down: asked.max_retries_down,
    })
}
