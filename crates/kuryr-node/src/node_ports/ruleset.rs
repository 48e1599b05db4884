//! What a node translates, as data: pure.

use kuryr_plan::service::{At, NodePortRule, Transport};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What is translated: a destination and its transport protocol.
pub type Key = (At, Transport);

/// An address and a port number.
pub type Target = (IpAddr, u16);

/// All that a node translates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Where connections go.
    pub anyone: BTreeMap<Key, Target>,
    /// Where connections from outside go, if that is elsewhere. Each is of [`Self::anyone`], too.
    pub outside: BTreeMap<Key, Choice>,
    /// Who sees the node's address in place of the client's when a connection was translated to it.
    pub masked: BTreeSet<(IpAddr, Transport, u16)>,
}

/// Several places to go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Choice {
    /// The transport protocol.
    pub transport: Transport,
    /// One of them for each connection, all of one family; none: packets are dropped.
    pub to: Vec<Target>,
    /// How long a client keeps the one that it got.
    pub bound: Option<Bound>,
}

/// Clients keep their endpoint for a time after each connection, as in Kubernetes' own proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound {
    /// The port of the Service, by its place at the cluster IP: whoever asks at a node port and at an external address of it
    /// gets the same endpoint.
    pub port: Target,
    /// For so many seconds.
    pub seconds: u32,
}

impl Ruleset {
    /// What these rules come to. Where two say something of one destination, the first counts.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = NodePortRule>) -> Self {
        let mut ruleset = Self::default();
        for rule in rules {
            let NodePortRule { service, transport, at, inside, to, masquerade, affinity } = rule;
            let key = (at, transport);
            if ruleset.anyone.contains_key(&key) {
                tracing::debug!(%service, ?at, %transport, "another Service has this already");
                continue;
            }
            ruleset.anyone.insert(key, inside);
            ruleset.masked.insert((inside.0, transport, inside.1));
            if to == [inside] {
                continue;
            }
            if masquerade {
                ruleset.masked.extend(to.iter().map(|(ip, number)| (*ip, transport, *number)));
            }
            let bound = affinity.filter(|_| !to.is_empty()).map(|seconds| Bound { port: inside, seconds });
            ruleset.outside.insert(key, Choice { transport, to, bound });
        }
        ruleset
    }

    /// Nothing is translated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anyone.is_empty()
    }

    /// How many destinations are translated.
    #[must_use]
    pub fn len(&self) -> usize {
        self.anyone.len()
    }

    /// All places that connections to a destination may go to; none if it is not translated.
    pub fn targets(&self, key: &Key) -> impl Iterator<Item = Target> {
        let outside = self.outside.get(key).into_iter().flat_map(|choice| choice.to.iter().copied());
        self.anyone.get(key).copied().into_iter().chain(outside)
    }

    /// Whether anything of that family is translated.
    #[must_use]
    pub fn has(&self, v6: bool) -> bool {
        self.anyone.values().any(|(ip, _)| ip.is_ipv6() == v6)
    }
}
