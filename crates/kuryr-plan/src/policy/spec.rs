//! A NetworkPolicy as the compiler takes it: read, checked and with every default filled in.

use super::{cidr::IpBlock, problem::Problem, selector::Selector};
use kuryr_model::{ObjectKey, PolicyUid};
use std::fmt;

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: PolicyUid,
    /// Which pods of its namespace it isolates.
    pub pods: Selector,
    /// What it lets in. `None`: it does not isolate for ingress. The rules stand at the same places as in the object.
    pub ingress: Option<Vec<PolicyRule>>,
    /// What it lets out. `None`: it does not isolate for egress.
    pub egress: Option<Vec<PolicyRule>>,
    /// What could not be read. It grants nothing.
    pub problems: Vec<Problem>,
}

/// One rule of a policy: it allows what comes from (or goes to) one of the peers *and* is of one of the ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// With whom. `None`: with everyone; empty: with nobody, because no entry could be read.
    pub peers: Option<Vec<Peer>>,
    /// Of which traffic. `None`: all, of every protocol; empty: none.
    pub ports: Option<Vec<Ports>>,
}

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods by their labels and those of their namespaces.
    Pods {
        /// In which namespaces.
        namespaces: Namespaces,
        /// Which pods there.
        pods: Selector,
    },
    /// Addresses, whoever has them. The specification means it for the world outside; a pod's address counts here too.
    Block(IpBlock),
}

/// In which namespaces a peer's pods are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespaces {
    /// In this one, the policy's own.
    Own(String),
    /// In those with matching labels.
    Labelled(Selector),
}

/// A transport protocol that NetworkPolicies and Services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// All port numbers of a protocol.
    All(Protocol),
    /// Port numbers from the first to the last, both included.
    Range(Protocol, u16, u16),
    /// The container port of this name and protocol of the pod that is connected to.
    Named(Protocol, String),
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// As Kubernetes writes it, `TCP`.
    #[must_use]
    pub fn as_kubernetes(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// As Neutron writes it, `tcp`.
    #[must_use]
    pub fn as_neutron(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol that Kubernetes means by `text`.
    #[must_use]
    pub fn from_kubernetes(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_kubernetes() == text)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_kubernetes())
    }
}
