//! What of a cluster decides who may reach whom.

use super::{
    selector::Labels,
    spec::{Policy, Protocol},
};
use ipnet::IpNet;
use kuryr_model::{ObjectKey, PodUid};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: PodUid,
    /// The node that it is bound to, if it is.
    pub node: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// The addresses of its own; none before it has a port. No two pods that run have one in common.
    pub addresses: BTreeSet<IpAddr>,
    /// It uses its node's network, so its traffic is its node's: policies neither isolate it nor select it as a peer
    /// (the specification leaves open what they do).
    pub host_network: bool,
    /// All its containers have ended for good: nothing is isolated, and its addresses may be another's by now.
    pub completed: bool,
    /// Its named container ports, in the order of its containers. Of two with the same name and protocol the first
    /// counts, as for Services.
    pub ports: Vec<NamedPort>,
}

/// A named port of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

impl Pod {
    /// Whether it has a network of its own: the others do not count, neither as isolated pods nor as peers.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.host_network && !self.completed
    }

    /// The number of its container port of this name and protocol.
    #[must_use]
    pub fn port(&self, protocol: Protocol, name: &str) -> Option<u16> {
        self.ports.iter().find(|port| port.protocol == protocol && port.name == name).map(|port| port.number)
    }
}

/// What matters of a Service that has a load balancer. Headless ones have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The addresses under which pods reach it.
    pub vips: BTreeSet<IpAddr>,
    /// What is behind each of its port numbers.
    pub ports: Vec<ServicePort>,
    /// Pods see the load balancer as the sender and not the client, as with Octavia's amphora provider: then nobody is
    /// let in because of this Service, not even the pod that reaches itself.
    pub hides_client: bool,
    /// Its listeners let in whom the pods behind them would, and the pods let the load balancer in as far as they do. `None`
    /// where they cannot, or need not.
    pub guard: Option<Guard>,
}

/// How far a load balancer that hides its clients tells them apart itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// The addresses from which it connects to pods: its own, which nobody else has.
    pub balancers: BTreeSet<IpAddr>,
    /// Whom each listener lets in at most, at any moment until something else is told; by protocol and port number. A
    /// listener that is not here may let in anybody.
    pub admits: BTreeMap<(Protocol, u16), Vec<IpNet>>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number at the VIP.
    pub number: u16,
    /// The members of its listener pool, of all families. A VIP forwards to those of its own family.
    pub endpoints: BTreeSet<Endpoint>,
}

/// Where a Service forwards to. The address tells whose it is: a pod's, a node's or anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The target port number.
    pub number: u16,
}

/// All that decides who may reach whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Pods.
    pub pods: BTreeMap<ObjectKey, Pod>,
    /// Namespaces with their labels. No selector of namespaces matches one that is not known (yet).
    pub namespaces: BTreeMap<String, Labels>,
    /// NetworkPolicies.
    pub policies: BTreeMap<ObjectKey, Policy>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Service>,
    /// Nodes with the addresses from which their kubelets and their other processes speak.
    pub nodes: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// One object as it is from now on, or that it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A pod. One of another UID takes the place of its namesake.
    Pod(Pod),
    /// No pod has this name.
    PodGone(ObjectKey),
    /// A namespace and its labels.
    Namespace(String, Labels),
    /// There is no such namespace.
    NamespaceGone(String),
    /// A policy.
    Policy(Policy),
    /// No policy has this name.
    PolicyGone(ObjectKey),
    /// A Service.
    Service(Service),
    /// No Service has this name.
    ServiceGone(ObjectKey),
    /// A node and its addresses.
    Node(String, BTreeSet<IpAddr>),
    /// There is no such node.
    NodeGone(String),
}

impl World {
    /// Takes over one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Pod(pod) => drop(self.pods.insert(pod.key.clone(), pod)),
            Change::PodGone(key) => drop(self.pods.remove(&key)),
            Change::Namespace(name, labels) => drop(self.namespaces.insert(name, labels)),
            Change::NamespaceGone(name) => drop(self.namespaces.remove(&name)),
            Change::Policy(policy) => drop(self.policies.insert(policy.key.clone(), policy)),
            Change::PolicyGone(key) => drop(self.policies.remove(&key)),
            Change::Service(service) => drop(self.services.insert(service.key.clone(), service)),
            Change::ServiceGone(key) => drop(self.services.remove(&key)),
            Change::Node(name, addresses) => drop(self.nodes.insert(name, addresses)),
            Change::NodeGone(name) => drop(self.nodes.remove(&name)),
        }
    }

    /// The changes that make this world of an empty one.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        let namespaces = self.namespaces.iter().map(|(name, labels)| Change::Namespace(name.clone(), labels.clone()));
        let nodes = self.nodes.iter().map(|(name, addresses)| Change::Node(name.clone(), addresses.clone()));
        let policies = self.policies.values().cloned().map(Change::Policy);
        let services = self.services.values().cloned().map(Change::Service);
        let pods = self.pods.values().cloned().map(Change::Pod);
        namespaces.chain(nodes).chain(policies).chain(services).chain(pods)
    }
}
