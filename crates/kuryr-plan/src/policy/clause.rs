//! A policy's rules taken apart: one clause for each pair of a peer and a port.

use super::{
    cidr::IpBlock,
    group::{PeerSet, Peers},
    spec::{Peer, PolicyRule, Ports, Protocol},
    world::{NamedPort, Pod},
};
use ipnet::IpNet;
use kuryr_model::neutron::Direction;
use std::{net::IpAddr, sync::Arc};

/// Stands for a [`Query`] in the compiler.
pub(super) type QueryId = u32;

/// What a clause asks of every pod: whether it is one of these peers, and which number it gives to a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    pub(super) peers: Peers,
    pub(super) name: Option<(Protocol, String)>,
}

/// "This much of the traffic with those."
#[derive(Clone, Debug)]
pub(super) struct Clause {
    pub(super) ports: ClausePorts,
    pub(super) remote: ClauseRemote,
}

/// Which traffic.
#[derive(Clone, Debug)]
pub(super) enum ClausePorts {
    /// All, whatever protocol.
    All,
    /// All of a protocol.
    Protocol(Protocol),
    /// Port numbers from the first to the last.
    Range(Protocol, u16, u16),
    /// The number that the pod which carries the group gives to the name: ingress.
    Own(Protocol, String),
    /// The number that the peer gives to the name, which is the answer to the query: egress.
    Peers(Protocol),
}

/// With whom.
#[derive(Clone, Debug)]
pub(super) enum ClauseRemote {
    Anywhere,
    Block(Arc<Pieces>),
    Pods(QueryId),
}

/// A block, and the same without exceptions.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    pub(super) block: IpBlock,
    pub(super) pieces: Vec<IpNet>,
}

/// The clauses of a policy's rules for one direction. `ask` gives a query its id.
pub(super) fn clauses(
    direction: Direction,
    rules: &[PolicyRule],
    mut ask: impl FnMut(Query) -> QueryId,
) -> Vec<Clause> {
    let mut clauses = Vec::new();
    for rule in rules {
        let all = [None];
        let ports: Vec<Option<&Ports>> =
            rule.ports.as_ref().map_or(all.to_vec(), |ports| ports.iter().map(Some).collect());
        let anyone = [Whom::Anyone];
        let peers: Vec<Whom> =
            rule.peers.as_ref().map_or(anyone.to_vec(), |peers| peers.iter().map(Whom::from).collect());
        for peer in &peers {
            clauses.extend(ports.iter().map(|ports| clause(direction, peer, *ports, &mut ask)));
        }
    }
    clauses
}

#[derive(Clone)]
enum Whom {
    Anyone,
    Block(Arc<Pieces>),
    Pods(Peers),
}

impl From<&Peer> for Whom {
    fn from(peer: &Peer) -> Self {
        match peer {
            Peer::Pods { namespaces, pods } => Self::Pods(Peers::Labelled(namespaces.clone(), pods.clone())),
            Peer::Block(block) => Self::Block(Arc::new(Pieces { pieces: block.pieces(), block: block.clone() })),
        }
    }
}

fn clause(direction: Direction, peer: &Whom, ports: Option<&Ports>, ask: &mut impl FnMut(Query) -> QueryId) -> Clause {
    let ports = match ports {
        None => ClausePorts::All,
        // Neutron has no port number 0, so the widest range is all of them.
        Some(Ports::All(protocol) | Ports::Range(protocol, 1, u16::MAX)) => ClausePorts::Protocol(*protocol),
        Some(Ports::Range(protocol, first, last)) => ClausePorts::Range(*protocol, *first, *last),
        Some(Ports::Named(protocol, name)) if direction == Direction::Ingress => {
            ClausePorts::Own(*protocol, name.clone())
        }
        // Only a pod gives a number to a name, so whoever the peer is, it is a pod.
        Some(Ports::Named(protocol, name)) => {
            let peers = match peer {
                Whom::Anyone => Peers::Everyone,
                Whom::Block(pieces) => Peers::Within(pieces.block.clone()),
                Whom::Pods(peers) => peers.clone(),
            };
            let remote = ClauseRemote::Pods(ask(Query { peers, name: Some((*protocol, name.clone())) }));
            return Clause { ports: ClausePorts::Peers(*protocol), remote };
        }
    };
    let remote = match peer {
        Whom::Anyone => ClauseRemote::Anywhere,
        Whom::Block(pieces) => ClauseRemote::Block(Arc::clone(pieces)),
        Whom::Pods(peers) => ClauseRemote::Pods(ask(Query { peers: peers.clone(), name: None })),
    };
    Clause { ports, remote }
}

impl Query {
    /// The peer set of those who give this answer.
    pub(super) fn peer_set(&self, answer: Option<u16>) -> PeerSet {
        let port = self.name.as_ref().zip(answer);
        let port = port.map(|((protocol, name), number)| NamedPort { name: name.clone(), protocol: *protocol, number });
        PeerSet { peers: self.peers.clone(), port }
    }

    /// A pod's answer: `None` if it is not meant, else the number that it gives to the name, if there is one. The
    /// caller has seen to the namespace.
    pub(super) fn answer(&self, pod: &Pod) -> Option<Option<u16>> {
        let meant = match &self.peers {
            Peers::Everyone => true,
            Peers::Within(block) => {
                let mut same =
                    pod.addresses.iter().filter(|address| super::cidr::family(**address) == block.family()).peekable();
                same.peek().is_some() && same.all(|address| block.contains(*address))
            }
            Peers::Labelled(_, pods) => pods.matches(&pod.labels),
        };
        if !meant {
            return None;
        }
        match &self.name {
            None => Some(None),
            Some((protocol, name)) => pod.port(*protocol, name).map(Some),
        }
    }
}

impl Clause {
    /// Whether port `number` of `protocol` is meant, as far as that does not depend on pods.
    pub(super) fn has(&self, protocol: Protocol, number: u16) -> bool {
        match &self.ports {
            ClausePorts::All => true,
            ClausePorts::Protocol(own) | ClausePorts::Own(own, _) | ClausePorts::Peers(own) => *own == protocol,
            ClausePorts::Range(own, first, last) => *own == protocol && (*first..=*last).contains(&number),
        }
    }

    /// Whether the clause is about addresses, and this is one of them.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        match &self.remote {
            ClauseRemote::Anywhere => true,
            ClauseRemote::Block(pieces) => pieces.block.contains(address),
            ClauseRemote::Pods(_) => false,
        }
    }

    /// Whether it allows everything with everyone.
    pub(super) fn is_everything(&self) -> bool {
        matches!((&self.ports, &self.remote), (ClausePorts::All, ClauseRemote::Anywhere))
    }

    /// The query that it asks.
    pub(super) fn query(&self) -> Option<QueryId> {
        match self.remote {
            ClauseRemote::Pods(id) => Some(id),
            _ => None,
        }
    }
}
