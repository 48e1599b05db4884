//! What Kubernetes wants, straight from its specification and from the objects as the API server sends them: for every
//! question each policy is read anew. Slow, and without anything that could be wrong in the same way as the compiler.

use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kuryr_plan::policy::{Endpoint, ListenerKey, Pod, Protocol, World};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A cluster: everything but policies is in the world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) policies: Vec<NetworkPolicy>,
}

/// What is sent: to a port number, or something that has none (a ping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    To(Protocol, u16),
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Cluster {
    /// The pods that have a network of their own.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.world.pods.values().filter(|pod| !pod.host_network && !pod.completed)
    }

    pub(crate) fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.pods().find(|pod| pod.addresses.contains(&address))
    }

    /// What is behind a listener, of its family, and whether the client is hidden.
    pub(crate) fn behind(&self, listener: ListenerKey) -> (BTreeSet<Endpoint>, bool) {
        let mut endpoints = BTreeSet::new();
        let mut hides = false;
        for service in self.world.services.values().filter(|service| service.vips.contains(&listener.vip)) {
            for port in &service.ports {
                if port.protocol == listener.protocol && port.number == listener.number {
                    endpoints.extend(port.endpoints.iter().filter(|it| it.address.is_ipv4() == listener.vip.is_ipv4()));
                    hides |= service.hides_client;
                }
            }
        }
        (endpoints, hides)
    }

    /// Whether the pod's policies let it send there, were it not for the policies of whoever is there.
    pub(crate) fn may_send(&self, from: &Pod, to: IpAddr, traffic: Traffic) -> bool {
        from.addresses.contains(&to) || self.policies_let_send(from, to, traffic)
    }

    fn policies_let_send(&self, from: &Pod, to: IpAddr, traffic: Traffic) -> bool {
        self.is_own_node(from, to) || self.policies_let(Way::Out, from, to, traffic)
    }

    /// Whether the pod's policies let it take from there.
    pub(crate) fn may_receive(&self, to: &Pod, from: IpAddr, traffic: Traffic) -> bool {
        to.addresses.contains(&from) || self.is_own_node(to, from) || self.policies_let(Way::In, to, from, traffic)
    }

    /// Whether the pod's policies let it use a Service's listener: whichever endpoint the load balancer chooses, it
    /// must be allowed. A pod always reaches itself, unless the load balancer makes somebody else of it.
    pub(crate) fn may_use(&self, from: &Pod, listener: ListenerKey) -> bool {
        let (endpoints, hides) = self.behind(listener);
        endpoints.iter().all(|it| {
            let itself = !hides && from.addresses.contains(&it.address);
            itself || self.policies_let_send(from, it.address, Traffic::To(listener.protocol, it.number))
        })
    }

    fn is_own_node(&self, pod: &Pod, address: IpAddr) -> bool {
        let node = pod.node.as_ref().and_then(|node| self.world.nodes.get(node));
        node.is_some_and(|addresses| addresses.contains(&address))
    }

    fn policies_let(&self, way: Way, pod: &Pod, other: IpAddr, traffic: Traffic) -> bool {
        let mut isolated = false;
        for policy in &self.policies {
            let spec = policy.spec.clone().unwrap_or_default();
            if !self.selects(policy, &spec, pod) || !is_of_type(&spec, way) {
                continue;
            }
            isolated = true;
            let rules: Vec<(Vec<NetworkPolicyPeer>, Vec<NetworkPolicyPort>)> = match way {
                Way::In => spec
                    .ingress
                    .into_iter()
                    .flatten()
                    .map(|it| (it.from.unwrap_or_default(), it.ports.unwrap_or_default()))
                    .collect(),
                Way::Out => spec
                    .egress
                    .into_iter()
                    .flatten()
                    .map(|it| (it.to.unwrap_or_default(), it.ports.unwrap_or_default()))
                    .collect(),
            };
            let destination = if way == Way::In { Some(pod) } else { self.pod_at(other) };
            let namespace = policy.metadata.namespace.as_deref().unwrap();
            for (peers, ports) in rules {
                let peer = peers.is_empty() || peers.iter().any(|peer| self.is_peer(peer, namespace, other));
                let port = ports.is_empty() || ports.iter().any(|port| is_port(port, destination, traffic));
                if peer && port {
                    return true;
                }
            }
        }
        !isolated
    }

    fn selects(&self, policy: &NetworkPolicy, spec: &NetworkPolicySpec, pod: &Pod) -> bool {
        let everything = LabelSelector::default();
        policy.metadata.namespace.as_ref() == Some(&pod.key.namespace)
            && matches(spec.pod_selector.as_ref().unwrap_or(&everything), &pod.labels, Some(true)) == Some(true)
    }

    fn is_peer(&self, peer: &NetworkPolicyPeer, namespace: &str, other: IpAddr) -> bool {
        if let Some(block) = &peer.ip_block {
            let alone = peer.namespace_selector.is_none() && peer.pod_selector.is_none();
            return alone && is_in_block(block, other) == Some(true);
        }
        let Some(pod) = self.pod_at(other) else { return false };
        let in_namespace = match &peer.namespace_selector {
            None => Some(pod.key.namespace == namespace),
            Some(selector) => match self.world.namespaces.get(&pod.key.namespace) {
                Some(labels) => matches(selector, labels, None),
                None => Some(false),
            },
        };
        let selected = match &peer.pod_selector {
            None => Some(peer.namespace_selector.is_some()),
            Some(selector) => matches(selector, &pod.labels, None),
        };
        in_namespace == Some(true) && selected == Some(true)
    }
}

fn is_of_type(spec: &NetworkPolicySpec, way: Way) -> bool {
    let types = spec.policy_types.clone().unwrap_or_default();
    if types.is_empty() {
        return way == Way::In || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    }
    // Whoever wrote a third word may have meant either.
    let word = if way == Way::In { "Ingress" } else { "Egress" };
    types.iter().any(|it| it == word || (it != "Ingress" && it != "Egress"))
}

/// Whether the labels match; `unclear` is what to make of a requirement that makes no sense, and if that is `None`, so
/// is the whole.
fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>, unclear: Option<bool>) -> Option<bool> {
    let mut all = true;
    for (key, value) in selector.match_labels.iter().flatten() {
        all &= labels.get(key) == Some(value);
    }
    for expression in selector.match_expressions.iter().flatten() {
        let value = labels.get(&expression.key);
        let values = expression.values.clone().unwrap_or_default();
        let one_of = value.is_some_and(|value| values.contains(value));
        all &= match (expression.operator.as_str(), values.len()) {
            ("In", 1..) => one_of,
            ("NotIn", 1..) => !one_of,
            ("Exists", 0) => value.is_some(),
            ("DoesNotExist", 0) => value.is_none(),
            _ => unclear?,
        };
    }
    Some(all)
}

/// Whether the address is in the block; `None` if the block cannot be read.
fn is_in_block(block: &IPBlock, address: IpAddr) -> Option<bool> {
    let mut inside = is_in_cidr(&block.cidr, address)?;
    for except in block.except.iter().flatten() {
        inside &= !is_in_cidr(except, address)?;
    }
    Some(inside)
}

fn is_in_cidr(cidr: &str, address: IpAddr) -> Option<bool> {
    let (base, length) = cidr.split_once('/')?;
    let (base, length): (IpAddr, u32) = (base.parse().ok()?, length.parse().ok()?);
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((base, size), (address, other)) = (bits(base), bits(address));
    if length > size {
        return None;
    }
    Some(size == other && (base ^ address).checked_shr(size - length).unwrap_or(0) == 0)
}

fn is_port(port: &NetworkPolicyPort, destination: Option<&Pod>, traffic: Traffic) -> bool {
    let Traffic::To(protocol, number) = traffic else { return false };
    if port.protocol.as_deref().unwrap_or("TCP") != protocol.to_string() {
        return false;
    }
    let number = i32::from(number);
    match (&port.port, port.end_port) {
        (None, None) => true,
        (Some(IntOrString::Int(only)), None) => *only == number,
        (Some(IntOrString::Int(first)), Some(last)) => {
            *first >= 1 && last <= 65535 && (*first..=last).contains(&number)
        }
        (Some(IntOrString::String(name)), None) => {
            let mut named = destination.into_iter().flat_map(|pod| &pod.ports);
            let first = named.find(|it| it.name == *name && it.protocol == protocol);
            first.is_some_and(|it| i32::from(it.number) == number)
        }
        (None | Some(IntOrString::String(_)), Some(_)) => false,
    }
}
