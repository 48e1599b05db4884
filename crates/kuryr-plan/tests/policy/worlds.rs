//! Random worlds, of so few words that everything meets everything.

use crate::spec::Cluster;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kuryr_model::{ObjectKey, neutron::EtherType};
use kuryr_plan::policy::{Endpoint, Labels, NamedPort, Pod, Protocol, Service, ServicePort, Settings, World};
use std::{collections::BTreeSet, net::IpAddr};

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
/// Most of it in one, where it meets.
const PLACES: [&str; 6] = ["a", "a", "a", "a", "b", "c"];
const NODES: [&str; 2] = ["n0", "n1"];
const KEYS: [&str; 2] = ["app", "tier"];
const VALUES: [&str; 3] = ["web", "db", ""];
const NAMES: [&str; 2] = ["http", "dns"];
const NUMBERS: [u16; 4] = [80, 8080, 53, 443];
const CIDRS: [&str; 16] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/29",
    "10.0.0.2/31",
    "10.0.0.3/32",
    "10.0.0.5/30",
    "10.96.0.0/12",
    "10.96.0.1/32",
    "192.168.0.0/24",
    "192.168.0.1/32",
    "203.0.113.0/24",
    "::/0",
    "fd00::/64",
    "fd00::4/126",
    "fd96::/112",
    "fd01::/64",
];
const WRONG_CIDRS: [&str; 3] = ["10.0.0.0", "10.0.0.0/33", "everywhere"];

/// Makes choices of bytes; when these have run out, it always makes the first: fewer bytes make a simpler world.
pub(crate) struct Dice<'a>(pub(crate) std::slice::Iter<'a, u8>);

impl Dice<'_> {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % n
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }
}

pub(crate) fn settings(dice: &mut Dice) -> Settings {
    let ranges: &[&str] = match dice.below(3) {
        0 => &[],
        1 => &["10.96.0.0/12", "fd96::/112"],
        _ => &["10.96.0.0/31"],
    };
    Settings { service_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(), ..Settings::default() }
}

pub(crate) fn cluster(dice: &mut Dice) -> Cluster {
    let mut cluster = Cluster::default();
    let world = &mut cluster.world;
    for name in NAMESPACES {
        if !dice.one_in(12) {
            world.namespaces.insert(name.to_owned(), labels(dice));
        }
    }
    for index in 0..NODES.len() {
        if !dice.one_in(8) {
            let (name, addresses) = node(dice, index);
            world.nodes.insert(name, addresses);
        }
    }
    for index in 0..2 + dice.below(5) {
        let pod = pod(dice, index);
        world.pods.insert(pod.key.clone(), pod);
    }
    let plain = dice.one_in(3);
    for index in 0..dice.below(6) {
        cluster.policies.push(if plain { plain_policy(dice, index, &cluster.world) } else { policy(dice, index) });
    }
    for index in 0..dice.below(4) {
        let service = service(dice, index, &cluster.world);
        cluster.world.services.insert(service.key.clone(), service);
    }
    cluster
}

pub(crate) fn namespace(dice: &mut Dice) -> (String, Labels) {
    (dice.pick(&NAMESPACES).to_owned(), labels(dice))
}

pub(crate) fn node(dice: &mut Dice, index: usize) -> (String, BTreeSet<IpAddr>) {
    let mut addresses: BTreeSet<IpAddr> = [format!("192.168.0.{}", index + 1).parse().unwrap()].into();
    if dice.one_in(2) {
        addresses.insert(format!("fd01::{}", index + 1).parse().unwrap());
    }
    (NODES[index].to_owned(), addresses)
}

fn labels(dice: &mut Dice) -> Labels {
    let keys: Vec<&str> = KEYS.into_iter().filter(|_| !dice.one_in(3)).collect();
    keys.into_iter().map(|key| (key.to_owned(), dice.pick(&VALUES).to_owned())).collect()
}

pub(crate) fn pod(dice: &mut Dice, index: usize) -> Pod {
    let namespace = dice.pick(&PLACES);
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    let completed = dice.one_in(12);
    // The addresses of one that is over may be another's by now.
    let number = if completed { dice.below(4) + 1 } else { index + 1 };
    let families = dice.below(6);
    if families != 3 {
        addresses.extend(format!("10.0.0.{number}").parse::<IpAddr>());
    }
    if families >= 2 {
        addresses.extend(format!("fd00::{number}").parse::<IpAddr>());
    }
    if dice.one_in(10) {
        addresses.clear();
    }
    let host_network = dice.one_in(12);
    let node = dice.pick(&[Some(NODES[0]), Some(NODES[1]), Some(NODES[0]), None]);
    if host_network {
        addresses = [format!("192.168.0.{}", 1 + usize::from(node == Some(NODES[1]))).parse().unwrap()].into();
    }
    Pod {
        key: ObjectKey::new(namespace, format!("p{index}")),
        uid: format!("pod-{namespace}-{index}-{}", dice.below(2)).into(),
        node: node.map(str::to_owned),
        labels: labels(dice),
        addresses,
        host_network,
        completed,
        ports: dice.some(3, |dice| NamedPort {
            name: dice.pick(&NAMES).to_owned(),
            protocol: protocol(dice),
            number: dice.pick(&NUMBERS),
        }),
    }
}

fn protocol(dice: &mut Dice) -> Protocol {
    dice.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

pub(crate) fn service(dice: &mut Dice, index: usize, world: &World) -> Service {
    let mut vips: BTreeSet<IpAddr> = BTreeSet::new();
    let families = dice.below(4);
    if families != 2 {
        vips.extend(format!("10.96.0.{}", index + 1).parse::<IpAddr>());
    }
    if families >= 2 {
        vips.extend(format!("fd96::{}", index + 1).parse::<IpAddr>());
    }
    // Mostly pods of the same labels, as a selector gives them, so that policies allow all of them now and then.
    let (key, value) = (dice.pick(&KEYS), dice.pick(&VALUES));
    let by_labels = !dice.one_in(2);
    let mut behind: Vec<&Pod> = world.pods.values().filter(|pod| !pod.completed).collect();
    behind.retain(|pod| if by_labels { pod.labels.get(key).is_some_and(|it| it == value) } else { dice.one_in(2) });
    let others: Vec<IpAddr> =
        dice.some(1, |dice| dice.pick(&["192.168.0.1", "203.0.113.5", "192.168.0.2", "fd01::1"]).parse().unwrap());
    let others = if dice.one_in(4) { others } else { vec![] };
    let ports = 1 + dice.below(2);
    let ports = (0..ports).map(|_| {
        let (protocol, number) = (protocol(dice), dice.pick(&NUMBERS));
        let (target, name) = (dice.pick(&NUMBERS), dice.pick(&NAMES));
        let by_name = dice.one_in(3);
        let target = |pod: &Pod| {
            let named = pod.ports.iter().find(|port| port.protocol == protocol && port.name == name);
            named.filter(|_| by_name).map_or(target, |port| port.number)
        };
        let pods =
            behind.iter().flat_map(|pod| pod.addresses.iter().map(|it| Endpoint { address: *it, number: target(pod) }));
        let others = others.iter().map(|address| Endpoint { address: *address, number: 80 });
        ServicePort { protocol, number, endpoints: pods.chain(others).collect() }
    });
    let ports = ports.collect();
    let key = ObjectKey::new("a", format!("s{index}"));
    Service { key, vips, ports, hides_client: dice.one_in(8), guard: None }
}

pub(crate) fn policy(dice: &mut Dice, index: usize) -> NetworkPolicy {
    let namespace = dice.pick(&PLACES);
    let metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some(format!("np{index}")),
        uid: Some(format!("policy-{namespace}-{index}-{}", dice.below(2))),
        ..ObjectMeta::default()
    };
    let types: &[&str] = match dice.below(32) {
        0..=6 => &[],
        7..=11 => &["Ingress"],
        12..=19 => &["Egress"],
        20..=30 => &["Egress", "Ingress"],
        _ => &["Ingress", "Outgress"],
    };
    let rule = |dice: &mut Dice| (list(dice, 2, peer), list(dice, 2, port));
    let ingress =
        dice.some(2, |dice| rule(dice)).into_iter().map(|(from, ports)| NetworkPolicyIngressRule { from, ports });
    let ingress: Vec<_> = ingress.collect();
    let egress = dice.some(2, |dice| rule(dice)).into_iter().map(|(to, ports)| NetworkPolicyEgressRule { to, ports });
    let spec = NetworkPolicySpec {
        pod_selector: (!dice.one_in(8)).then(|| if dice.one_in(2) { LabelSelector::default() } else { selector(dice) }),
        policy_types: Some(types.iter().map(|it| (*it).to_owned()).collect()),
        ingress: Some(ingress),
        egress: Some(egress.collect()),
    };
    NetworkPolicy { metadata, spec: Some(spec) }
}

/// One that lets all pods of the first namespace send to some: several of these often allow what none does alone. Now
/// and then one that names two ports.
pub(crate) fn plain_policy(dice: &mut Dice, index: usize, world: &World) -> NetworkPolicy {
    let mut policy = policy(dice, index);
    policy.metadata.namespace = Some(NAMESPACES[0].to_owned());
    policy.metadata.uid = Some(format!("plain-{index}"));
    let pods: Vec<&Pod> = world.pods.values().collect();
    let labels = if pods.is_empty() { Labels::new() } else { dice.pick(&pods).labels.clone() };
    let peer = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(LabelSelector { match_labels: Some(labels), match_expressions: None }),
        ip_block: None,
    };
    let ports = dice.one_in(4).then(|| vec![port(dice)]);
    let to = Some(vec![peer]);
    let spec = policy.spec.get_or_insert_default();
    spec.policy_types = Some(vec!["Egress".to_owned()]);
    spec.egress = Some(vec![NetworkPolicyEgressRule { to, ports }]);
    spec.pod_selector = Some(LabelSelector::default());
    if dice.one_in(4) {
        let named =
            |name: &str| NetworkPolicyPort { port: Some(IntOrString::String(name.to_owned())), ..Default::default() };
        let rule = NetworkPolicyIngressRule { from: None, ports: Some(NAMES.map(named).to_vec()) };
        spec.policy_types = Some(vec!["Ingress".to_owned()]);
        spec.ingress = Some(vec![rule]);
    }
    policy
}

/// Some things, or now and then no list at all: mostly the same as an empty one.
fn list<T>(dice: &mut Dice, most: usize, make: fn(&mut Dice) -> T) -> Option<Vec<T>> {
    (!dice.one_in(6)).then(|| dice.some(most, make))
}

fn peer(dice: &mut Dice) -> NetworkPolicyPeer {
    let none = NetworkPolicyPeer::default();
    match dice.below(40) {
        0..=11 => NetworkPolicyPeer { pod_selector: Some(selector(dice)), ..none },
        12..=17 => NetworkPolicyPeer { namespace_selector: Some(selector(dice)), ..none },
        18..=25 => {
            NetworkPolicyPeer { namespace_selector: Some(selector(dice)), pod_selector: Some(selector(dice)), ..none }
        }
        26..=38 => NetworkPolicyPeer { ip_block: Some(block(dice)), ..none },
        _ => match dice.below(2) {
            0 => none,
            _ => NetworkPolicyPeer { ip_block: Some(block(dice)), pod_selector: Some(selector(dice)), ..none },
        },
    }
}

fn block(dice: &mut Dice) -> IPBlock {
    let cidr = |dice: &mut Dice| if dice.one_in(100) { dice.pick(&WRONG_CIDRS) } else { dice.pick(&CIDRS) }.to_owned();
    IPBlock { cidr: cidr(dice), except: Some(dice.some(3, cidr)) }
}

fn port(dice: &mut Dice) -> NetworkPolicyPort {
    let number = |dice: &mut Dice| i32::from(dice.pick(&NUMBERS));
    let (port, end_port) = match dice.below(48) {
        0..=9 => (None, None),
        10..=22 => (Some(IntOrString::Int(number(dice))), None),
        23..=29 => (Some(IntOrString::Int(number(dice).min(80))), Some(number(dice).max(80))),
        30 => (Some(IntOrString::Int(number(dice))), Some(number(dice))),
        31..=45 => (Some(IntOrString::String(dice.pick(&NAMES).to_owned())), None),
        46 => (Some(IntOrString::Int(1)), Some(65535)),
        _ => match dice.below(4) {
            0 => (None, Some(90)),
            1 => (Some(IntOrString::String("http".to_owned())), Some(90)),
            2 => (Some(IntOrString::Int(0)), Some(90)),
            _ => (Some(IntOrString::Int(80)), Some(70_000)),
        },
    };
    let protocol = match dice.below(64) {
        0..=24 => None,
        25..=62 => Some(protocol(dice).to_string()),
        _ => Some("ICMP".to_owned()),
    };
    NetworkPolicyPort { end_port, port, protocol }
}

fn selector(dice: &mut Dice) -> LabelSelector {
    let labels = dice.some(1, |dice| (dice.pick(&KEYS).to_owned(), dice.pick(&VALUES).to_owned()));
    let expressions = dice.below(4).saturating_sub(2);
    let expressions = (0..expressions).map(|_| {
        let values = |dice: &mut Dice| Some((0..=dice.below(2)).map(|_| dice.pick(&VALUES).to_owned()).collect());
        let (operator, values) = match dice.below(64) {
            0..=22 => ("In", values(dice)),
            23..=38 => ("NotIn", values(dice)),
            39..=50 => ("Exists", None),
            51..=62 => ("DoesNotExist", None),
            _ => match dice.below(3) {
                0 => ("Near", values(dice)),
                1 => ("In", None),
                _ => ("Exists", values(dice)),
            },
        };
        LabelSelectorRequirement { key: dice.pick(&KEYS).to_owned(), operator: operator.to_owned(), values }
    });
    LabelSelector { match_expressions: Some(expressions.collect()), match_labels: Some(labels.into_iter().collect()) }
}

/// Settings of a cluster with one family only, and the cluster without the other.
pub(crate) fn only_ipv4(mut cluster: Cluster, settings: Settings) -> (Cluster, Settings) {
    let world = &mut cluster.world;
    world.pods.values_mut().for_each(|pod| pod.addresses.retain(IpAddr::is_ipv4));
    world.services.values_mut().for_each(|service| service.vips.retain(IpAddr::is_ipv4));
    world.nodes.values_mut().for_each(|addresses| addresses.retain(IpAddr::is_ipv4));
    (cluster, Settings { families: [EtherType::IPv4].into(), ..settings })
}
