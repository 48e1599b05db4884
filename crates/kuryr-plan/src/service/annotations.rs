//! The annotations of cloud-provider-openstack on a Service, by their names and with their meaning there
//! (`docs/openstack-cloud-controller-manager/expose-applications-using-loadbalancer-type-service.md` and
//! `pkg/openstack/loadbalancer.go` of that project).
//!
//! A value that cannot be read is a [`Problem`]. The Service goes on without it, unless the annotation decides where, how
//! or whether the Service can be reached from outside: then it is not, until the value is put right.

use super::{
    problem::{Effect, Problem, Reason},
    provider::Provider,
    tree::Timeouts,
};
use kuryr_model::{
    FlavorId, LoadBalancerId, NetworkId, PortId, SubnetId,
    lb::{Algorithm, Protocol},
};
use std::{collections::BTreeMap, str::FromStr};

/// Not reachable from outside; the name that Kubernetes' own provider had for it.
pub const INTERNAL_LEGACY: &str = "service.beta.kubernetes.io/openstack-internal-load-balancer";

/// Only clients in these may connect, separated by commas; Kubernetes' own name from before `spec.loadBalancerSourceRanges`,
/// which goes before it.
pub const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = concat!("loadbalancer.openstack.org/", $text);)*

        /// All annotations that are looked at.
        pub const ALL: &[&str] = &[INTERNAL_LEGACY, SOURCE_RANGES, $($name,)*];
    };
}

names! {
    /// Not reachable from outside.
    INTERNAL = "internal";
    /// Use this load balancer, which is never deleted.
    LOAD_BALANCER_ID = "load-balancer-id";
    /// The port that has the VIP.
    PORT_ID = "port-id";
    /// The subnet of the VIP.
    SUBNET_ID = "subnet-id";
    /// The network of the VIP.
    NETWORK_ID = "network-id";
    /// The subnet of members whose address is in no known one.
    MEMBER_SUBNET_ID = "member-subnet-id";
    /// The network of the floating IP.
    FLOATING_NETWORK_ID = "floating-network-id";
    /// Name or pattern of the subnet of the floating IP.
    FLOATING_SUBNET = "floating-subnet";
    /// The subnet of the floating IP.
    FLOATING_SUBNET_ID = "floating-subnet-id";
    /// Tags of the subnet of the floating IP.
    FLOATING_SUBNET_TAGS = "floating-subnet-tags";
    /// A preconfigured set of networks and subnets.
    CLASS = "class";
    /// The floating IP outlives the Service.
    KEEP_FLOATING_IP = "keep-floatingip";
    /// Shown in the Service's status in place of the address.
    HOSTNAME = "hostname";
    /// Written by cloud-provider-openstack for people; not looked at.
    LOAD_BALANCER_ADDRESS = "load-balancer-address";
    /// Who carries the load balancer out. The name is that of cloud-provider-openstack's setting.
    LB_PROVIDER = "lb-provider";
    /// The flavor of the load balancer.
    FLAVOR_ID = "flavor-id";
    /// The availability zone of the load balancer.
    AVAILABILITY_ZONE = "availability-zone";
    /// The most connections at once.
    CONNECTION_LIMIT = "connection-limit";
    /// How long a client may be silent, in milliseconds.
    TIMEOUT_CLIENT_DATA = "timeout-client-data";
    /// How long a member may take to take a connection, in milliseconds.
    TIMEOUT_MEMBER_CONNECT = "timeout-member-connect";
    /// How long a member may be silent, in milliseconds.
    TIMEOUT_MEMBER_DATA = "timeout-member-data";
    /// How long to wait for packets to inspect, in milliseconds.
    TIMEOUT_TCP_INSPECT = "timeout-tcp-inspect";
    /// HTTP, with the client's address in a header.
    X_FORWARDED_FOR = "x-forwarded-for";
    /// TCP, with the client's address in front of the data.
    PROXY_PROTOCOL = "proxy-protocol";
    /// How a member is chosen.
    LB_METHOD = "lb-method";
    /// Whether members are watched.
    ENABLE_HEALTH_MONITOR = "enable-health-monitor";
    /// Time between two questions, in seconds.
    HEALTH_MONITOR_DELAY = "health-monitor-delay";
    /// How long a member may take to answer, in seconds.
    HEALTH_MONITOR_TIMEOUT = "health-monitor-timeout";
    /// Good answers after which a member is up.
    HEALTH_MONITOR_MAX_RETRIES = "health-monitor-max-retries";
    /// Missing answers after which a member is down.
    HEALTH_MONITOR_MAX_RETRIES_DOWN = "health-monitor-max-retries-down";
    /// The nodes that are members; here members are pods.
    NODE_SELECTOR = "node-selector";
    /// A certificate for TLS that ends at the load balancer.
    DEFAULT_TLS_CONTAINER_REF = "default-tls-container-ref";
}

/// What the annotations of a Service ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Not reachable from outside.
    pub internal: bool,
    /// Use this load balancer.
    pub load_balancer: Option<LoadBalancerId>,
    /// The port that has the VIP.
    pub port: Option<PortId>,
    /// The subnet of the VIP.
    pub subnet: Option<SubnetId>,
    /// The network of the VIP.
    pub network: Option<NetworkId>,
    /// The subnet of members whose address is in no known one.
    pub member_subnet: Option<SubnetId>,
    /// The network of the floating IP.
    pub floating_network: Option<NetworkId>,
    /// Which subnet of it.
    pub floating_subnet: Option<SubnetChoice>,
    /// A class of the configuration.
    pub class: Option<String>,
    /// The floating IP outlives the Service.
    pub keep_floating_ip: bool,
    /// Shown in place of an address.
    pub hostname: Option<String>,
    /// Who carries the load balancer out.
    pub provider: Option<Provider>,
    /// Its flavor.
    pub flavor: Option<FlavorId>,
    /// Its availability zone.
    pub availability_zone: Option<String>,
    /// The most connections at once.
    pub connection_limit: Option<i64>,
    /// Timeouts; those that are not asked for are cloud-provider-openstack's defaults.
    pub timeouts: Timeouts,
    /// The annotations for timeouts that there are.
    pub timeouts_asked: Vec<&'static str>,
    /// HTTP, with the client's address in a header.
    pub x_forwarded_for: bool,
    /// [`Protocol::Proxy`] or [`Protocol::ProxyV2`].
    pub proxy_protocol: Option<Protocol>,
    /// How a member is chosen.
    pub algorithm: Option<Algorithm>,
    /// How members are watched.
    pub monitor: Option<MonitorOptions>,
    /// Only clients in these may connect, as the user wrote them.
    pub source_ranges: Vec<String>,
    /// It is not clear where, how or whether the Service is to be reached from outside, so it must not be.
    pub held: bool,
}

/// Which subnet a floating IP is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubnetChoice {
    /// This one.
    Id(SubnetId),
    /// One that matches all that is given.
    Matching {
        /// A glob of its name; with a `!` in front, of what it is not.
        name: Option<String>,
        /// Tags, of which it has one; with a `&` in front, all; with a `!` in front of all that, not so.
        tags: Option<String>,
    },
}

/// How members are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorOptions {
    /// Time between two questions, in seconds.
    pub delay: u32,
    /// How long a member may take to answer, in seconds; not longer than [`Self::delay`].
    pub timeout: u32,
    /// Good answers after which a member is up.
    pub max_retries: u32,
    /// Missing answers after which a member is down.
    pub max_retries_down: u32,
}

/// cloud-provider-openstack's defaults.
const TIMEOUTS: Timeouts = Timeouts { client_data: 50_000, member_connect: 5_000, member_data: 50_000, tcp_inspect: 0 };
const MONITOR: MonitorOptions = MonitorOptions { delay: 60, timeout: 30, max_retries: 1, max_retries_down: 3 };

/// The longest timeout that Octavia takes, in milliseconds (a year).
const MAX_TIMEOUT: u64 = 31_536_000_000;

/// Reads the annotations of a Service.
#[must_use]
pub fn parse(annotations: &BTreeMap<String, String>) -> (Options, Vec<Problem>) {
    let mut reader = Reader { annotations, problems: Vec::new(), held: false };
    let options = reader.options();
    (options, reader.problems)
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
    held: bool,
}

impl<'a> Reader<'a> {
    fn options(&mut self) -> Options {
        let internal = self.internal();
        let class = self.text(CLASS).map(str::to_owned);
        let (x_forwarded_for, proxy_protocol) = self.client_address();
        let mut timeouts_asked = Vec::new();
        let timeouts = Timeouts {
            client_data: self.timeout(TIMEOUT_CLIENT_DATA, TIMEOUTS.client_data, &mut timeouts_asked),
            member_connect: self.timeout(TIMEOUT_MEMBER_CONNECT, TIMEOUTS.member_connect, &mut timeouts_asked),
            member_data: self.timeout(TIMEOUT_MEMBER_DATA, TIMEOUTS.member_data, &mut timeouts_asked),
            tcp_inspect: self.timeout(TIMEOUT_TCP_INSPECT, TIMEOUTS.tcp_inspect, &mut timeouts_asked),
        };
        let options = Options {
            internal,
            load_balancer: self.id(LOAD_BALANCER_ID, Effect::NotExposed),
            port: self.id(PORT_ID, Effect::NotExposed),
            subnet: self.id(SUBNET_ID, Effect::NotExposed),
            network: self.id(NETWORK_ID, Effect::NotExposed),
            member_subnet: self.id(MEMBER_SUBNET_ID, Effect::Ignored),
            floating_network: self.id(FLOATING_NETWORK_ID, Effect::NotExposed),
            floating_subnet: self.floating_subnet(),
            class,
            // Kept when in doubt: an address that is given back may be somebody else's a moment later.
            keep_floating_ip: self.flag(KEEP_FLOATING_IP, Effect::Ignored, true).unwrap_or(false),
            hostname: self.hostname(),
            provider: self.text(LB_PROVIDER).map(Provider::named),
            flavor: self.id(FLAVOR_ID, Effect::Ignored),
            availability_zone: self.text(AVAILABILITY_ZONE).map(str::to_owned),
            connection_limit: self.connection_limit(),
            timeouts,
            timeouts_asked,
            x_forwarded_for,
            proxy_protocol,
            algorithm: self.algorithm(),
            monitor: self.monitor(),
            source_ranges: self.source_ranges(),
            held: false,
        };
        self.what_is_not_done_here();
        Options { held: self.held, ..options }
    }

    /// The value of an annotation; an empty one counts as none.
    fn text(&self, name: &str) -> Option<&'a str> {
        self.annotations.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn problem(&mut self, reason: Reason, name: &'static str, effect: Effect, message: String) {
        self.held |= effect == Effect::NotExposed;
        self.problems.push(Problem::new(reason, name, effect, message));
    }

    /// The value of `name` is not as it must be.
    fn wrong(&mut self, name: &'static str, value: &str, must: &str, effect: Effect) {
        let then = match effect {
            Effect::NotExposed => "until then the Service is not reachable from outside",
            _ => "until then it is as if it were not there",
        };
        let message = format!("annotation {name} is {value:?}: it must be {must}; {then}");
        self.problem(Reason::BadAnnotation, name, effect, message);
    }

    fn id<T: FromStr>(&mut self, name: &'static str, effect: Effect) -> Option<T> {
        let value = self.text(name)?;
        let id = value.parse().ok();
        if id.is_none() {
            self.wrong(name, value, "an id (a UUID), not a name", effect);
        }
        id
    }

    /// `wrong` is what a value that is neither true nor false counts as.
    fn flag(&mut self, name: &'static str, effect: Effect, wrong: bool) -> Option<bool> {
        match self.text(name)? {
            "true" => Some(true),
            "false" => Some(false),
            value => {
                let message = format!(
                    "annotation {name} is {value:?}: it must be \"true\" or \"false\"; until then it counts as \
                     \"{wrong}\""
                );
                self.problem(Reason::BadAnnotation, name, effect, message);
                Some(wrong)
            }
        }
    }

    fn number(&mut self, name: &'static str, least: u64, most: u64, what: &str) -> Option<u64> {
        let value = self.text(name)?;
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(name, value, &format!("{what} from {least} to {most}"), Effect::Ignored);
        }
        number
    }

    fn timeout(&mut self, name: &'static str, default: u64, asked: &mut Vec<&'static str>) -> u64 {
        let timeout = self.number(name, 0, MAX_TIMEOUT, "a number of milliseconds");
        asked.extend(timeout.map(|_| name));
        timeout.unwrap_or(default)
    }

    fn internal(&mut self) -> bool {
        let ours = self.flag(INTERNAL, Effect::NotExposed, true);
        let legacy = self.flag(INTERNAL_LEGACY, Effect::NotExposed, true);
        if let (Some(ours), Some(legacy)) = (ours, legacy)
            && ours != legacy
        {
            let message = format!(
                "annotations {INTERNAL} and {INTERNAL_LEGACY} contradict each other: remove one of them; until then \
                 the Service is not reachable from outside"
            );
            self.problem(Reason::AnnotationConflict, INTERNAL, Effect::NotExposed, message);
        }
        ours.unwrap_or(false) || legacy.unwrap_or(false)
    }

    fn client_address(&mut self) -> (bool, Option<Protocol>) {
        let proxy = match self.text(PROXY_PROTOCOL) {
            None | Some("false") => None,
            Some("true" | "v1") => Some(Protocol::Proxy),
            Some("v2") => Some(Protocol::ProxyV2),
            Some(value) => {
                self.wrong(PROXY_PROTOCOL, value, "\"true\", \"v1\", \"v2\" or \"false\"", Effect::Ignored);
                None
            }
        };
        let forwarded = self.flag(X_FORWARDED_FOR, Effect::Ignored, false).unwrap_or(false);
        if forwarded && proxy.is_some() {
            let message = format!(
                "annotations {X_FORWARDED_FOR} and {PROXY_PROTOCOL} exclude each other: remove one of them; until then \
                 only {PROXY_PROTOCOL} is followed"
            );
            self.problem(Reason::AnnotationConflict, X_FORWARDED_FOR, Effect::Ignored, message);
        }
        (forwarded && proxy.is_none(), proxy)
    }

    fn floating_subnet(&mut self) -> Option<SubnetChoice> {
        if let Some(id) = self.id(FLOATING_SUBNET_ID, Effect::NotExposed) {
            return Some(SubnetChoice::Id(id));
        }
        let name = self.text(FLOATING_SUBNET);
        if let Some(value) = name.filter(|value| value.trim_start_matches('!').starts_with('~')) {
            let must = "a name or a pattern with * and ?; regular expressions (~...) are not supported";
            self.wrong(FLOATING_SUBNET, value, must, Effect::NotExposed);
            return None;
        }
        let tags = self.text(FLOATING_SUBNET_TAGS);
        (name.is_some() || tags.is_some())
            .then(|| SubnetChoice::Matching { name: name.map(str::to_owned), tags: tags.map(str::to_owned) })
    }

    fn hostname(&mut self) -> Option<String> {
        let value = self.text(HOSTNAME)?;
        if !is_dns_name(value) {
            self.wrong(HOSTNAME, value, "a DNS name of small letters, digits, dashes and dots", Effect::Ignored);
            return None;
        }
        Some(value.to_owned())
    }

    fn connection_limit(&mut self) -> Option<i64> {
        let value = self.text(CONNECTION_LIMIT)?;
        let limit = value.parse().ok().filter(|limit| *limit == -1 || (1..=i64::from(i32::MAX)).contains(limit));
        if limit.is_none() {
            let must = format!("-1 for no limit, or a number from 1 to {}", i32::MAX);
            self.wrong(CONNECTION_LIMIT, value, &must, Effect::Ignored);
        }
        limit
    }

    fn algorithm(&mut self) -> Option<Algorithm> {
        let value = self.text(LB_METHOD)?;
        let algorithm = super::provider::ALGORITHMS.into_iter().find(|algorithm| algorithm.as_str() == value);
        if algorithm.is_none() {
            let must = "ROUND_ROBIN, LEAST_CONNECTIONS, SOURCE_IP or SOURCE_IP_PORT";
            self.wrong(LB_METHOD, value, must, Effect::Ignored);
        }
        algorithm
    }

    fn monitor(&mut self) -> Option<MonitorOptions> {
        let enabled = self.flag(ENABLE_HEALTH_MONITOR, Effect::Ignored, false).unwrap_or(false);
        let seconds = "a number of seconds";
        let delay = self.small(HEALTH_MONITOR_DELAY, 86_400, seconds).unwrap_or(MONITOR.delay);
        let timeout = self.small(HEALTH_MONITOR_TIMEOUT, 86_400, seconds);
        let max_retries = self.small(HEALTH_MONITOR_MAX_RETRIES, 10, "a number").unwrap_or(MONITOR.max_retries);
        let max_retries_down =
            self.small(HEALTH_MONITOR_MAX_RETRIES_DOWN, 10, "a number").unwrap_or(MONITOR.max_retries_down);
        if let Some(timeout) = timeout.filter(|timeout| *timeout > delay) {
            let must = format!("at most {HEALTH_MONITOR_DELAY}, which is {delay}");
            self.wrong(HEALTH_MONITOR_TIMEOUT, &timeout.to_string(), &must, Effect::Ignored);
        }
        let timeout = timeout.filter(|timeout| *timeout <= delay).unwrap_or(MONITOR.timeout.min(delay));
        enabled.then_some(MonitorOptions { delay, timeout, max_retries, max_retries_down })
    }

    fn small(&mut self, name: &'static str, most: u32, what: &str) -> Option<u32> {
        self.number(name, 1, u64::from(most), what).and_then(|number| u32::try_from(number).ok())
    }

    fn source_ranges(&self) -> Vec<String> {
        self.text(SOURCE_RANGES)
            .map(|text| text.split(',').map(|range| range.trim().to_owned()).collect())
            .unwrap_or_default()
    }

    fn what_is_not_done_here(&mut self) {
        if self.text(NODE_SELECTOR).is_some() {
            let message = format!(
                "annotation {NODE_SELECTOR} has no effect: the load balancer sends to pods, not to nodes; remove it"
            );
            self.problem(Reason::NoEffect, NODE_SELECTOR, Effect::Ignored, message);
        }
        if self.text(DEFAULT_TLS_CONTAINER_REF).is_some() {
            let message = format!(
                "annotation {DEFAULT_TLS_CONTAINER_REF}: Kuryr does not end TLS at the load balancer; let the pods end \
                 it and remove the annotation; until then the Service is not reachable from outside"
            );
            self.problem(Reason::NotSupported, DEFAULT_TLS_CONTAINER_REF, Effect::NotExposed, message);
        }
    }
}

/// RFC 1123, as Kubernetes wants it in `status.loadBalancer.ingress`.
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&label.len()) && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
#[path = "annotations_tests.rs"]
mod tests;
