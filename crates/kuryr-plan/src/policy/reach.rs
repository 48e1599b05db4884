//! May one reach another, and which policies decide it? An answer for people, straight from the policies and not from
//! what is compiled of them.

use super::{
    cidr::family,
    group::ListenerKey,
    spec::{Namespaces, Peer, PolicyRule, Ports, Protocol},
    world::{Endpoint, Pod, World},
};
use kuryr_model::{ObjectKey, neutron::Direction};
use std::{collections::BTreeSet, fmt, net::IpAddr};

/// An end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A pod.
    Pod(ObjectKey),
    /// A Service: only as the one that is reached.
    Service(ObjectKey),
    /// A node, with all its processes and the pods that use its network.
    Node(String),
    /// An address, whoever has it.
    Address(IpAddr),
}

/// Every way that a connection may take: one for each family and, through a Service, for each endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The ways; none if there is nothing behind the Service, or the ends have no family in common.
    pub ways: Vec<Way>,
}

/// The short answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Every connection passes.
    Yes,
    /// It depends on the family, or on which endpoint the load balancer chooses.
    Partly,
    /// None passes.
    No,
}

/// One way from one end to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The sender's address. `None`: a pod that has none yet.
    pub from: Option<IpAddr>,
    /// The pod that it begins at, if it is one with a network of its own.
    pub sender: Option<ObjectKey>,
    /// The Service's listener on the way.
    pub through: Option<ListenerKey>,
    /// Where it ends. `None`: a pod that has no address yet.
    pub to: Option<IpAddr>,
    /// By which protocol.
    pub protocol: Protocol,
    /// At which port number.
    pub number: u16,
    /// The pod that it ends at, if it is one with a network of its own.
    pub pod: Option<ObjectKey>,
    /// Whether the sender may send.
    pub sends: Side,
    /// Whether the receiver takes it.
    pub receives: Side,
}

/// What decides at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// It is no pod with a network of its own: policies do not apply.
    Outside,
    /// It is the same pod: it always reaches itself.
    Itself,
    /// The other end is the pod's own node.
    OwnNode,
    /// No policy isolates the pod in this direction.
    Open,
    /// These rules of policies allow it.
    Allowed(Vec<Cause>),
    /// These policies isolate the pod, and no rule of theirs allows it.
    Refused(Vec<ObjectKey>),
    /// The pod might send there, but not to every endpoint of the Service, so that its listener as a whole is refused.
    OthersRefused,
}

/// A rule that allows something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// Its policy.
    pub policy: ObjectKey,
    /// Its direction.
    pub direction: Direction,
    /// Its place in the list of that direction, from 0.
    pub rule: usize,
}

/// A rule of a policy that isolates a pod, and which half of it a connection meets. It allows the connection if both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Where it stands.
    pub cause: Cause,
    /// Whether the other end is one of its peers.
    pub peers: bool,
    /// Whether the protocol and the port number are among its ports.
    pub ports: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No pod has this name.
    #[error("there is no pod {0}")]
    NoPod(ObjectKey),
    /// The pod has ended.
    #[error("pod {0} is completed")]
    Completed(ObjectKey),
    /// No Service of this name has a VIP.
    #[error("there is no Service {0} with a cluster IP")]
    NoService(ObjectKey),
    /// The Service does not answer there.
    #[error("Service {0} has no port {1}/{2}")]
    NoPort(ObjectKey, u16, Protocol),
    /// No node has this name, or it has no address.
    #[error("there is no node {0} with an address")]
    NoNode(String),
    /// A Service does not connect to anything.
    #[error("Service {0} can be reached, but does not reach out")]
    ServiceSends(ObjectKey),
}

/// One end: whose policies count and under which address it is seen.
#[derive(Clone, Copy)]
struct Spot<'a> {
    pod: Option<&'a Pod>,
    address: Option<IpAddr>,
}

/// Whether `from` may reach `to` on a port number of a protocol.
///
/// # Errors
/// An end is not in `world`.
pub fn reach(world: &World, from: &Place, to: &Place, protocol: Protocol, number: u16) -> Result<Verdict, NoAnswer> {
    let sources = spots(world, from)?;
    let listeners = match to {
        Place::Service(key) => {
            let service = world.services.get(key).filter(|service| !service.vips.is_empty());
            let service = service.ok_or_else(|| NoAnswer::NoService(key.clone()))?;
            if !service.ports.iter().any(|port| port.protocol == protocol && port.number == number) {
                return Err(NoAnswer::NoPort(key.clone(), number, protocol));
            }
            service.vips.iter().map(|vip| ListenerKey { vip: *vip, protocol, number }).collect()
        }
        Place::Address(vip) => {
            let listener = ListenerKey { vip: *vip, protocol, number };
            Some(listener).filter(|it| !behind(world, *it).0.is_empty()).into_iter().collect::<Vec<_>>()
        }
        Place::Pod(_) | Place::Node(_) => Vec::new(),
    };
    let mut verdict = Verdict::default();
    for source in &sources {
        let question = Question { world, source: *source, protocol };
        for listener in listeners.iter().filter(|listener| source.sees(listener.vip)) {
            verdict.ways.extend(question.through(*listener));
        }
        if listeners.is_empty() {
            let targets =
                spots(world, to)?.into_iter().filter(|target| target.address.is_none_or(|it| source.sees(it)));
            verdict.ways.extend(targets.map(|target| question.direct(target, number)));
        }
    }
    Ok(verdict)
}

impl Verdict {
    /// The short answer.
    #[must_use]
    pub fn answer(&self) -> Answer {
        match self.ways.iter().filter(|way| way.passes()).count() {
            0 => Answer::No,
            passing if passing == self.ways.len() => Answer::Yes,
            _ => Answer::Partly,
        }
    }
}

impl Way {
    /// Whether both ends allow it.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.sends.passes() && self.receives.passes()
    }

    /// Every rule that had a say at one end, in the world that the way is from; none where policies do not apply.
    #[must_use]
    pub fn looks(&self, world: &World, direction: Direction) -> Vec<Look> {
        let pod = |key: &Option<ObjectKey>| key.as_ref().and_then(|key| world.pods.get(key));
        let source = Spot { pod: pod(&self.sender), address: self.from };
        let target = Spot { pod: pod(&self.pod), address: self.to };
        let question = Question { world, source, protocol: self.protocol };
        let side = if direction == Direction::Ingress { &self.receives } else { &self.sends };
        if matches!(side, Side::Outside | Side::Itself | Side::OwnNode) {
            return Vec::new();
        }
        match (direction, self.through.filter(|listener| behind(world, *listener).1)) {
            (Direction::Egress, _) => question.looks(direction, source, target, self.number).1,
            (Direction::Ingress, None) => question.looks(direction, target, source, self.number).1,
            (Direction::Ingress, Some(listener)) => {
                let seen = Spot { pod: None, address: Some(listener.vip) };
                question.looks(direction, target, seen, self.number).1
            }
        }
    }
}

impl Side {
    /// Whether this end allows it.
    #[must_use]
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::OthersRefused)
    }
}

/// Like `shop/allow-web: spec.ingress[0]`.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        write!(f, "{}: spec.{field}[{}]", self.policy, self.rule)
    }
}

/// The ends that a place stands for, one for each address.
fn spots<'a>(world: &'a World, place: &Place) -> Result<Vec<Spot<'a>>, NoAnswer> {
    Ok(match place {
        Place::Service(key) => return Err(NoAnswer::ServiceSends(key.clone())),
        Place::Address(address) => vec![Spot { pod: pod_at(world, *address), address: Some(*address) }],
        Place::Node(name) => {
            let addresses = world.nodes.get(name).filter(|addresses| !addresses.is_empty());
            let addresses = addresses.ok_or_else(|| NoAnswer::NoNode(name.clone()))?;
            addresses.iter().map(|address| Spot { pod: None, address: Some(*address) }).collect()
        }
        Place::Pod(key) => {
            let pod = world.pods.get(key).ok_or_else(|| NoAnswer::NoPod(key.clone()))?;
            if pod.completed {
                return Err(NoAnswer::Completed(key.clone()));
            }
            let own = pod.counts().then_some(pod);
            let known = pod.addresses.iter().map(|address| Spot { pod: own, address: Some(*address) });
            if pod.addresses.is_empty() { vec![Spot { pod: own, address: None }] } else { known.collect() }
        }
    })
}

fn pod_at(world: &World, address: IpAddr) -> Option<&Pod> {
    world.pods.values().find(|pod| pod.counts() && pod.addresses.contains(&address))
}

/// What is behind a listener, and whether its load balancer hides the client and does not see to it itself that only those come
/// in whom the pods would let in.
fn behind(world: &World, key: ListenerKey) -> (BTreeSet<Endpoint>, bool) {
    let mut endpoints = BTreeSet::new();
    let mut hides_client = false;
    for service in world.services.values().filter(|service| service.vips.contains(&key.vip)) {
        let ports = service.ports.iter().filter(|port| port.protocol == key.protocol && port.number == key.number);
        for port in ports {
            endpoints.extend(port.endpoints.iter().filter(|it| family(it.address) == family(key.vip)).copied());
            hides_client |= service.hides_client && service.guard.is_none();
        }
    }
    (endpoints, hides_client)
}

impl Spot<'_> {
    /// Whether it may have to do with an address, by its family.
    fn sees(&self, other: IpAddr) -> bool {
        self.address.is_none_or(|own| family(own) == family(other))
    }

    fn is_same_pod(&self, other: &Spot<'_>) -> bool {
        self.pod.zip(other.pod).is_some_and(|(one, other)| one.key == other.key)
    }
}

/// Who sends what.
struct Question<'a> {
    world: &'a World,
    source: Spot<'a>,
    protocol: Protocol,
}

impl<'a> Question<'a> {
    fn direct(&self, target: Spot<'a>, number: u16) -> Way {
        let (sends, receives) = if self.source.is_same_pod(&target) {
            (Side::Itself, Side::Itself)
        } else {
            let sends = self.side(Direction::Egress, self.source, target, number);
            (sends, self.side(Direction::Ingress, target, self.source, number))
        };
        self.way(target, number, None, sends, receives)
    }

    /// The ways through a listener, which the sender may use if it may send to every endpoint.
    fn through(&self, key: ListenerKey) -> Vec<Way> {
        let (endpoints, hides_client) = behind(self.world, key);
        let seen = if hides_client { Spot { pod: None, address: Some(key.vip) } } else { self.source };
        let mut ways = Vec::new();
        for Endpoint { address, number } in endpoints {
            let target = Spot { pod: pod_at(self.world, address), address: Some(address) };
            let (sends, receives) = if self.source.is_same_pod(&target) && !hides_client {
                (Side::Itself, Side::Itself)
            } else {
                let sends = self.side(Direction::Egress, self.source, target, number);
                (sends, self.side(Direction::Ingress, target, seen, number))
            };
            ways.push(self.way(target, number, Some(key), sends, receives));
        }
        if ways.iter().any(|way| !way.sends.passes()) {
            let others = ways.iter_mut().filter(|way| way.sends.passes());
            others.for_each(|way| way.sends = Side::OthersRefused);
        }
        ways
    }

    fn way(&self, target: Spot<'a>, number: u16, through: Option<ListenerKey>, sends: Side, receives: Side) -> Way {
        let key = |spot: Spot<'a>| spot.pod.map(|pod| pod.key.clone());
        let (sender, pod, protocol) = (key(self.source), key(target), self.protocol);
        Way { from: self.source.address, sender, through, to: target.address, protocol, number, pod, sends, receives }
    }

    /// What the policies of `own` say to traffic with `other`; `number` is the receiver's.
    fn side(&self, direction: Direction, own: Spot<'a>, other: Spot<'a>, number: u16) -> Side {
        let Some(pod) = own.pod else { return Side::Outside };
        let node = pod.node.as_ref().and_then(|name| self.world.nodes.get(name));
        if node.zip(other.address).is_some_and(|(addresses, other)| addresses.contains(&other)) {
            return Side::OwnNode;
        }
        let (isolating, looks) = self.looks(direction, own, other, number);
        let causes: Vec<Cause> =
            looks.into_iter().filter(|look| look.peers && look.ports).map(|look| look.cause).collect();
        match (isolating.is_empty(), causes.is_empty()) {
            (true, _) => Side::Open,
            (false, false) => Side::Allowed(causes),
            (false, true) => Side::Refused(isolating),
        }
    }

    /// The policies that isolate `own`, and all their rules.
    fn looks(&self, direction: Direction, own: Spot<'a>, other: Spot<'a>, number: u16) -> (Vec<ObjectKey>, Vec<Look>) {
        let (mut isolating, mut looks) = (Vec::new(), Vec::new());
        let Some(pod) = own.pod else { return (isolating, looks) };
        let receiver = if direction == Direction::Ingress { own.pod } else { other.pod };
        let policies = self.world.policies.values().filter(|policy| policy.key.namespace == pod.key.namespace);
        for policy in policies.filter(|policy| policy.pods.matches(&pod.labels)) {
            let rules = if direction == Direction::Ingress { &policy.ingress } else { &policy.egress };
            let Some(rules) = rules else { continue };
            isolating.push(policy.key.clone());
            looks.extend(rules.iter().enumerate().map(|(index, rule)| Look {
                cause: Cause { policy: policy.key.clone(), direction, rule: index },
                peers: self.allows(rule, other),
                ports: self.is_of(rule, receiver, number),
            }));
        }
        (isolating, looks)
    }

    fn allows(&self, rule: &PolicyRule, other: Spot<'_>) -> bool {
        let is_peer = |peer: &Peer| match (peer, other.pod) {
            (Peer::Block(block), _) => other.address.is_some_and(|address| block.contains(address)),
            (Peer::Pods { .. }, None) => false,
            (Peer::Pods { namespaces, pods }, Some(pod)) => {
                let namespace = &pod.key.namespace;
                let place = match namespaces {
                    Namespaces::Own(own) => own == namespace,
                    Namespaces::Labelled(selector) => {
                        self.world.namespaces.get(namespace).is_some_and(|labels| selector.matches(labels))
                    }
                };
                place && pods.matches(&pod.labels)
            }
        };
        rule.peers.as_ref().is_none_or(|peers| peers.iter().any(is_peer))
    }

    fn is_of(&self, rule: &PolicyRule, receiver: Option<&Pod>, number: u16) -> bool {
        let has = |ports: &Ports| match ports {
            Ports::All(protocol) => *protocol == self.protocol,
            Ports::Range(protocol, first, last) => *protocol == self.protocol && (*first..=*last).contains(&number),
            Ports::Named(protocol, name) => {
                let resolved = receiver.and_then(|pod| pod.port(*protocol, name));
                *protocol == self.protocol && resolved == Some(number)
            }
        };
        rule.ports.as_ref().is_none_or(|ports| ports.iter().any(has))
    }
}
