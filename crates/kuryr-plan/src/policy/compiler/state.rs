//! What the compiler keeps of each object, beside the object itself.

use super::index::LabelIndex;
use crate::policy::clause::{ClausePorts, ClauseRemote, Pieces, QueryId};
use crate::policy::{
    cidr::IpBlock,
    clause::{Clause, Query},
    group::{GroupKey, ListenerKey, PolicyGroup, Rule},
    selector::{Labels, Selector},
    spec::{Policy, Protocol},
    world::{Endpoint, NamedPort, Pod},
};
use kuryr_model::{ObjectKey, PolicyUid};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// Stands for a pod. Ids are never used again, so that one kept too long means nobody.
pub(super) type PodId = u32;

/// Stands for a [`Grantor`].
pub(super) type GrantorId = u32;

/// All who grant a pod egress, in order: pods that have the same are of one class.
pub(super) type Class = Arc<[GrantorId]>;

/// A pod that has a network of its own.
#[derive(Debug)]
pub(super) struct PodState {
    pub(super) pod: Pod,
    pub(super) facts: Facts,
    pub(super) grouping: Grouping,
}

/// What labels, addresses and named ports make of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The policies that select it.
    pub(super) policies: BTreeSet<GrantorId>,
    /// What it answers to the queries that mean it.
    pub(super) answers: BTreeMap<QueryId, Option<u16>>,
}

/// What facts and Services make of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grouping {
    /// The groups that it carries.
    pub(super) groups: Arc<BTreeSet<GroupKey>>,
    /// Its class, if it is isolated for egress and has several grantors.
    pub(super) class: Option<Class>,
    /// The rules that let it in from its Services' VIPs, and the policy whose group has them.
    pub(super) hairpins: BTreeSet<(GrantorId, Rule)>,
}

/// A namespace that is known, or in which there is something.
#[derive(Debug, Default)]
pub(super) struct Namespace {
    /// `None`: not known.
    pub(super) labels: Option<Labels>,
    pub(super) pods: BTreeSet<PodId>,
    /// The policies in it, by the pods that they select.
    pub(super) policies: LabelIndex,
    /// The queries that its policies ask about its own pods, by those pods.
    pub(super) queries: LabelIndex,
}

/// A query that clauses ask.
#[derive(Debug)]
pub(super) struct QueryState {
    pub(super) query: Arc<Query>,
    /// Who asks, and whether about egress.
    pub(super) users: BTreeMap<GrantorId, bool>,
    /// For every answer that pods give its peer set's key and their number. The plain answer is always there.
    pub(super) answers: BTreeMap<Option<u16>, (GroupKey, usize)>,
}

/// Who grants something to pods: a policy to those that it selects, or a node to the isolated pods on it.
#[derive(Debug)]
pub(super) struct Grantor {
    pub(super) owner: Owner,
    /// `None`: does not isolate for ingress.
    pub(super) ingress: Option<Vec<Clause>>,
    /// `None`: does not isolate for egress.
    pub(super) egress: Option<Vec<Clause>>,
    /// The names in the ingress rules.
    pub(super) names: BTreeSet<(Protocol, String)>,
    /// It allows all egress.
    pub(super) everything: bool,
    /// The listeners that have a [`Cover`] by it.
    pub(super) listeners: BTreeSet<ListenerKey>,
    /// The classes that it is part of.
    pub(super) classes: HashSet<Class>,
    /// Rules that its group has for pods behind Services, and for how many pods.
    pub(super) hairpins: BTreeMap<Rule, usize>,
}

/// Whose a grantor is.
#[derive(Debug)]
pub(super) enum Owner {
    Policy(Policy),
    Node(Arc<str>, BTreeSet<IpAddr>),
}

/// An address and a port number at which a Service answers.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// What each Service puts behind it, and whether it hides the client. There should be one Service only.
    pub(super) sources: BTreeMap<ObjectKey, (BTreeSet<Endpoint>, bool)>,
    /// What is behind it, of its own family.
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) hides_client: bool,
    /// How far grantors allow it. None: not at all.
    pub(super) covers: BTreeMap<GrantorId, Cover>,
}

/// How far one grantor allows a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cover {
    /// A clause about addresses has the listener's own.
    pub(super) literal: bool,
    /// Which of the endpoints it allows, in their order.
    pub(super) endpoints: Covered,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Covered {
    All,
    Some(Box<[bool]>),
    None,
}

/// Pods that have the same grantors of egress.
#[derive(Debug, Default)]
pub(super) struct ClassState {
    pub(super) pods: BTreeSet<PodId>,
    /// The listeners that they allow only together.
    pub(super) joint: BTreeSet<ListenerKey>,
    /// The group for those.
    pub(super) together: Option<GroupKey>,
}

impl Grantor {
    fn new(owner: Owner, ingress: Option<Vec<Clause>>, egress: Option<Vec<Clause>>) -> Self {
        let names = ingress.iter().flatten().filter_map(|clause| match &clause.ports {
            ClausePorts::Own(protocol, name) => Some((*protocol, name.clone())),
            _ => None,
        });
        Self {
            names: names.collect(),
            everything: egress.iter().flatten().any(Clause::is_everything),
            owner,
            ingress,
            egress,
            listeners: BTreeSet::new(),
            classes: HashSet::new(),
            hairpins: BTreeMap::new(),
        }
    }

    pub(super) fn policy(policy: Policy, ingress: Option<Vec<Clause>>, egress: Option<Vec<Clause>>) -> Self {
        Self::new(Owner::Policy(policy), ingress, egress)
    }

    /// A node grants its pods all traffic with itself.
    pub(super) fn node(name: Arc<str>, addresses: BTreeSet<IpAddr>) -> Self {
        let clause = |address: &IpAddr| {
            let block = IpBlock::address(*address);
            let remote = ClauseRemote::Block(Arc::new(Pieces { pieces: block.pieces(), block }));
            Clause { ports: ClausePorts::All, remote }
        };
        let clauses: Vec<Clause> = addresses.iter().map(clause).collect();
        Self::new(Owner::Node(name, addresses), Some(clauses.clone()), Some(clauses))
    }

    /// Its group, for pods that give these numbers to its names.
    pub(super) fn key(&self, ports: BTreeSet<NamedPort>) -> GroupKey {
        match &self.owner {
            Owner::Policy(policy) => GroupKey::Policy(Arc::new(PolicyGroup { policy: policy.uid.clone(), ports })),
            Owner::Node(name, _) => GroupKey::Node(Arc::clone(name)),
        }
    }

    /// Its group for this pod.
    pub(super) fn key_for(&self, pod: &Pod) -> GroupKey {
        let number = |(protocol, name): &(Protocol, String)| {
            let number = pod.port(*protocol, name)?;
            Some(NamedPort { name: name.clone(), protocol: *protocol, number })
        };
        self.key(self.names.iter().filter_map(number).collect())
    }

    /// The policy's UID; a node has none.
    pub(super) fn uid(&self) -> Option<&PolicyUid> {
        match &self.owner {
            Owner::Policy(policy) => Some(&policy.uid),
            Owner::Node(..) => None,
        }
    }

    pub(super) fn selector(&self) -> Option<&Selector> {
        match &self.owner {
            Owner::Policy(policy) => Some(&policy.pods),
            Owner::Node(..) => None,
        }
    }

    /// The queries that it asks, and whether about egress.
    pub(super) fn queries(&self) -> BTreeMap<QueryId, bool> {
        let mut queries = BTreeMap::new();
        for (egress, clauses) in [(false, &self.ingress), (true, &self.egress)] {
            for id in clauses.iter().flatten().filter_map(Clause::query) {
                *queries.entry(id).or_insert(egress) |= egress;
            }
        }
        queries
    }

    /// Whether it grants egress by addresses, so that it may allow any listener.
    pub(super) fn egress_by_address(&self) -> bool {
        !self.everything && self.egress.iter().flatten().any(|clause| clause.query().is_none())
    }
}

impl QueryState {
    pub(super) fn new(query: Arc<Query>) -> Self {
        let mut state = Self { query, users: BTreeMap::new(), answers: BTreeMap::new() };
        if state.query.name.is_none() {
            state.answers.insert(None, (state.key(None), 0));
        }
        state
    }

    pub(super) fn key(&self, answer: Option<u16>) -> GroupKey {
        GroupKey::Peers(Arc::new(self.query.peer_set(answer)))
    }

    /// One more pod gives this answer; `true` if it is the first and the peer set is new.
    pub(super) fn count(&mut self, answer: Option<u16>) -> bool {
        if let Some((_, pods)) = self.answers.get_mut(&answer) {
            *pods += 1;
            return false;
        }
        self.answers.insert(answer, (self.key(answer), 1));
        true
    }

    /// One pod less gives it; `true` if it was the last and the peer set is gone.
    pub(super) fn discount(&mut self, answer: Option<u16>) -> bool {
        let Some((_, pods)) = self.answers.get_mut(&answer) else { return false };
        *pods = pods.saturating_sub(1);
        let last = *pods == 0 && answer.is_some();
        if last {
            self.answers.remove(&answer);
        }
        last
    }
}
