//! What a world of policies becomes: security groups by what they are for, their rules, and which pods carry them.

use super::{
    cidr::{IpBlock, family, whole},
    selector::{Plain, Selector},
    spec::{Namespaces, Protocol},
    world::NamedPort,
};
use ipnet::IpNet;
use kuryr_model::{
    ObjectKey, PodUid, PolicyUid, SecurityGroupId,
    neutron::{Direction, EtherType, RuleContent},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

/// A security group by what it is for. Its text, like `peers:shop{app=web}`, is the same in every process, and no two
/// keys have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKey {
    /// Lets everything in. `kuryr setup` makes it; it is never among the groups of a [`Compiled`] or a [`Delta`].
    IngressOpen,
    /// Lets everything out. Like [`IngressOpen`](Self::IngressOpen).
    EgressOpen,
    /// What a policy allows the pods that it isolates.
    Policy(Arc<PolicyGroup>),
    /// Has no rules: those who carry it are the peers that rules name.
    Peers(Arc<PeerSet>),
    /// Traffic from and to a node, for the isolated pods on it.
    Node(Arc<str>),
    /// A pod's way out to itself through Services.
    Loop(Arc<BTreeSet<LoopPath>>),
    /// VIPs that several policies allow only together.
    Together(Arc<Together>),
    /// A load balancer that hides its clients, and lets in only whom the pods that carry this would.
    Balanced(Arc<Balanced>),
}

/// The load balancer of a Service as pods see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Balanced {
    /// The Service.
    pub service: ObjectKey,
    /// By which protocol it connects.
    pub protocol: Protocol,
    /// To which port number of the pods.
    pub number: u16,
}

/// A policy's group; one policy has several where its ingress rules name ports that its pods give different numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyGroup {
    /// The policy.
    pub policy: PolicyUid,
    /// The numbers that the pods which carry this group give to the names in the policy's ingress rules.
    pub ports: BTreeSet<NamedPort>,
}

/// A set of pods that rules name as their remote side. Equal selectors are one set, whichever policies they are in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerSet {
    /// Who.
    pub peers: Peers,
    /// Only those of them that give this name this number.
    pub port: Option<NamedPort>,
}

/// Who is in a peer set, as policies say it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Every pod.
    Everyone,
    /// The pods whose addresses of the block's family are all in the block.
    Within(IpBlock),
    /// Pods by their labels.
    Labelled(Namespaces, Selector),
}

/// A Service's listener: an address and a port number on which it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    /// The address.
    pub vip: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port number.
    pub number: u16,
}

/// A way from a pod through a listener back to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoopPath {
    /// The listener.
    pub listener: ListenerKey,
    /// The pod's own port number behind it.
    pub target: u16,
}

/// Who together allows the pods that carry a [`GroupKey::Together`] what none of them allows alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Together {
    /// Policies that isolate the pods for egress.
    pub policies: BTreeSet<PolicyUid>,
    /// The pods' node, where it counts.
    pub node: Option<Arc<str>>,
}

/// A rule of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Into or out of the pods that carry the group.
    pub direction: Direction,
    /// The family.
    pub ethertype: EtherType,
    /// The protocol; none for all, those without port numbers too.
    pub protocol: Option<Protocol>,
    /// The first and the last port number, both included; none for all.
    pub ports: Option<(u16, u16)>,
    /// The other side.
    pub remote: Remote,
}

/// The other side of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// Anybody.
    Anywhere,
    /// These addresses, never all of a family: that is `Anywhere`, and Neutron takes the two for the same rule.
    Block(IpNet),
    /// Those who carry this group.
    Group(GroupKey),
}

/// All groups of a world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The groups of every pod that has a network of its own.
    pub pods: BTreeMap<PodUid, BTreeSet<GroupKey>>,
    /// The rules of every group but the open ones.
    pub groups: BTreeMap<GroupKey, BTreeSet<Rule>>,
}

/// What a change makes different.
///
/// In which order it is done decides what is open in between. New groups can be made first, and groups that are gone
/// deleted last. In between come rules that are gone, then pods (each its whole set in one update), then rules that are
/// new: after each step of that, no connection passes that neither the old nor the new state allows, if one object has
/// changed. (Of several at once one pod may be old and its peer new already.) A rule may be added before others are
/// removed, so that nothing allowed is interrupted, where neither its group nor the group on its other side is
/// [unsettled](Self::unsettled).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Pods whose set of groups is another now.
    pub pods: BTreeMap<PodUid, PodChange>,
    /// Groups that are new, have other rules, or are gone.
    pub groups: BTreeMap<GroupKey, GroupChange>,
}

/// What happens to one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodChange {
    /// The groups that it had. `None`: it is new.
    pub before: Option<Arc<BTreeSet<GroupKey>>>,
    /// Those that it is to have. `None`: it is gone.
    pub now: Option<Arc<BTreeSet<GroupKey>>>,
}

/// What happens to one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupChange {
    /// It is new and has these rules.
    Made(BTreeSet<Rule>),
    /// Some of its rules are others; those in neither set stay as they are.
    Changed {
        /// Rules that it has not had.
        added: BTreeSet<Rule>,
        /// Rules that it has no longer.
        removed: BTreeSet<Rule>,
    },
    /// Nobody carries or names it any more.
    Gone,
}

impl Delta {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.groups.is_empty()
    }

    /// The groups that some pod gains or loses.
    #[must_use]
    pub fn unsettled(&self) -> BTreeSet<&GroupKey> {
        self.pods.values().flat_map(PodChange::gained_or_lost).collect()
    }
}

impl PodChange {
    fn gained_or_lost(&self) -> Vec<&GroupKey> {
        let [before, now] = [&self.before, &self.now].map(|side| side.as_deref());
        let missing = |from: Option<&BTreeSet<GroupKey>>, key: &GroupKey| from.is_none_or(|keys| !keys.contains(key));
        let lost = before.into_iter().flatten().filter(|key| missing(now, key));
        lost.chain(now.into_iter().flatten().filter(|key| missing(before, key))).collect()
    }
}

impl Rule {
    /// The rule of all traffic with these addresses.
    pub(super) fn with(direction: Direction, net: IpNet) -> Self {
        let ethertype = family(net.addr());
        let remote = if net == whole(ethertype) { Remote::Anywhere } else { Remote::Block(net) };
        Self { direction, ethertype, protocol: None, ports: None, remote }
    }

    /// The same for one port number only.
    pub(super) fn on(self, protocol: Protocol, number: u16) -> Self {
        Self { protocol: Some(protocol), ports: Some((number, number)), ..self }
    }

    /// The rule as Neutron takes it. `id` knows the security groups; `None` if it does not know the one on the other
    /// side.
    pub fn content(&self, id: impl FnOnce(&GroupKey) -> Option<SecurityGroupId>) -> Option<RuleContent> {
        let (remote_ip_prefix, remote_group_id) = match &self.remote {
            Remote::Anywhere => (None, None),
            Remote::Block(net) => (Some(*net), None),
            Remote::Group(key) => (None, Some(id(key)?)),
        };
        Some(RuleContent {
            direction: self.direction,
            ethertype: self.ethertype,
            protocol: self.protocol.map(|protocol| protocol.as_neutron().to_owned()),
            port_range_min: self.ports.map(|(first, _)| first),
            port_range_max: self.ports.map(|(_, last)| last),
            remote_ip_prefix,
            remote_group_id,
        })
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IngressOpen => f.write_str("ingress-open"),
            Self::EgressOpen => f.write_str("egress-open"),
            Self::Policy(group) => {
                write!(f, "policy:{}", Plain(group.policy.as_str()))?;
                list(f, group.ports.iter().map(|port| format!("[{port}]")), "")
            }
            Self::Peers(set) => write!(f, "peers:{set}"),
            Self::Node(name) => write!(f, "node:{}", Plain(name)),
            Self::Loop(paths) => {
                list(f, paths.iter().map(|path| format!("loop:{}>{}", path.listener, path.target)), "+")
            }
            Self::Together(together) => {
                f.write_str("together:")?;
                list(f, together.policies.iter().map(|uid| Plain(uid.as_str())), "+")?;
                together.node.iter().try_for_each(|node| write!(f, "@{}", Plain(node)))
            }
            Self::Balanced(balanced) => {
                let Balanced { service, protocol, number } = &**balanced;
                write!(f, "balanced:{}/{}>{number}/{protocol}", Plain(&service.namespace), Plain(&service.name))
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = impl fmt::Display>, between: &str) -> fmt::Result {
    for (index, item) in items.enumerate() {
        write!(f, "{}{item}", if index == 0 { "" } else { between })?;
    }
    Ok(())
}

/// Like `shop{app=web}`, `(team=red){}` or `within 10.0.0.0/8`, with the port where one counts:
/// `shop{app=web}[http/TCP=8080]`.
impl fmt::Display for PeerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peers {
            Peers::Everyone => f.write_str("everyone")?,
            Peers::Within(block) => write!(f, "within {block}")?,
            Peers::Labelled(Namespaces::Own(namespace), pods) => write!(f, "{}{{{pods}}}", Plain(namespace))?,
            Peers::Labelled(Namespaces::Labelled(namespaces), pods) => write!(f, "({namespaces}){{{pods}}}")?,
        }
        self.port.iter().try_for_each(|port| write!(f, "[{port}]"))
    }
}

impl fmt::Display for NamedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}={}", Plain(&self.name), self.protocol, self.number)
    }
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vip, protocol, number } = self;
        match vip {
            IpAddr::V4(vip) => write!(f, "{vip}:{number}/{protocol}"),
            IpAddr::V6(vip) => write!(f, "[{vip}]:{number}/{protocol}"),
        }
    }
}

/// Like `out tcp 80-90 to 10.0.0.0/8`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (way, side) = match self.direction {
            Direction::Ingress => ("in", "from"),
            Direction::Egress => ("out", "to"),
        };
        f.write_str(way)?;
        match self.ethertype {
            EtherType::IPv4 => f.write_str(" IPv4")?,
            EtherType::IPv6 => f.write_str(" IPv6")?,
        }
        self.protocol.iter().try_for_each(|protocol| write!(f, " {}", protocol.as_neutron()))?;
        match self.ports {
            Some((first, last)) if first == last => write!(f, " {first}")?,
            Some((first, last)) => write!(f, " {first}-{last}")?,
            None => {}
        }
        match &self.remote {
            Remote::Anywhere => Ok(()),
            Remote::Block(net) => write!(f, " {side} {net}"),
            Remote::Group(key) => write!(f, " {side} {key}"),
        }
    }
}
