//! The compiler: holds a world and what it comes to, takes changes, and says what they make different.
//!
//! ```text
//!   change ──▶ facts of pods ──▶ covers of listeners ──▶ classes ──▶ groups of pods ──▶ rules of groups ──▶ Delta
//!              who selects it,   which grantor allows    which       (grouping.rs)      (rules.rs)
//!              what it answers   which endpoints         together
//!              (facts.rs)        (covers.rs)             (classes.rs)
//! ```
//!
//! Each step looks only at what the one before it has marked as [`Dirty`]. What a step computes is a function of the
//! current world alone and never of the way to it, so that the result is that of computing from nothing.

mod classes;
mod covers;
mod facts;
mod grouping;
mod guard;
mod index;
mod rules;
mod state;
mod tell;

pub use self::guard::{Limit, Limits, MAX_CLIENTS};

use self::index::LabelIndex;
use self::state::{Class, ClassState, Grantor, GrantorId, Listener, Namespace, Owner, PodId, PodState, QueryState};
use super::{
    clause::{Query, QueryId},
    group::{Compiled, Delta, GroupKey, ListenerKey, PodChange, Rule},
    world::{Change, Service, World},
};
use ipnet::IpNet;
use kuryr_model::{ObjectKey, PodUid, PolicyUid, neutron::EtherType};
use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

/// What an operator decides and no object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The families that pods have addresses of. There are no rules for others: no traffic either.
    pub families: BTreeSet<EtherType>,
    /// Where VIPs are from. Where a policy's address block must not have some VIPs, it loses the whole range that they
    /// are in: one or two dozen rules in place of as many for every VIP. VIPs elsewhere are cut out one by one.
    pub service_ranges: Vec<IpNet>,
    /// Where pods get their addresses from: there an address that no pod has is nobody's.
    pub pod_ranges: Vec<IpNet>,
}

/// Both families, and no range of VIPs.
impl Default for Settings {
    fn default() -> Self {
        Self { families: [EtherType::IPv4, EtherType::IPv6].into(), service_ranges: Vec::new(), pod_ranges: Vec::new() }
    }
}

impl Settings {
    /// What is cut out of blocks that must not have a VIP: its whole range, if it is of one.
    fn range_of(&self, vip: IpAddr) -> IpNet {
        let mut ranges = self.service_ranges.iter().filter(|range| range.contains(&vip));
        ranges.next().map_or_else(|| vip.into(), IpNet::trunc)
    }
}

/// Compiles a world from nothing.
#[must_use]
pub fn compile(settings: Settings, world: &World) -> Compiled {
    let mut compiler = Compiler::new(settings);
    compiler.apply(world.changes());
    compiler.compiled()
}

/// A world and its security groups.
#[derive(Debug)]
pub struct Compiler {
    settings: Settings,
    last_id: u32,

    pods: HashMap<PodId, PodState>,
    pods_by_key: HashMap<ObjectKey, PodId>,
    pods_by_uid: HashMap<PodUid, PodId>,
    pods_at: HashMap<IpAddr, BTreeSet<PodId>>,
    pods_on: HashMap<String, BTreeSet<PodId>>,

    namespaces: HashMap<String, Namespace>,
    /// Queries that are about pods of several namespaces: by those pods, or by the namespaces if it is all pods in
    /// them.
    by_pod: LabelIndex,
    by_namespace: LabelIndex,
    queries: HashMap<QueryId, QueryState>,
    query_ids: HashMap<Arc<Query>, QueryId>,

    grantors: HashMap<GrantorId, Grantor>,
    policies: HashMap<ObjectKey, GrantorId>,
    policies_by_uid: HashMap<PolicyUid, GrantorId>,
    nodes: HashMap<Arc<str>, GrantorId>,
    nodes_at: HashMap<IpAddr, BTreeSet<GrantorId>>,
    /// The policies that grant egress by addresses.
    by_address: BTreeSet<GrantorId>,

    services: HashMap<ObjectKey, BTreeSet<ListenerKey>>,
    listeners: HashMap<ListenerKey, Listener>,
    listeners_at: HashMap<IpAddr, BTreeSet<ListenerKey>>,

    /// The Services whose load balancers hide their clients, and tell them apart themselves.
    guarded: BTreeMap<ObjectKey, Service>,
    /// The groups by which pods let those load balancers in.
    let_in: HashMap<PodId, BTreeSet<GroupKey>>,
    /// Where those load balancers are.
    balancer_holes: Vec<IpNet>,

    classes: HashMap<Class, ClassState>,
    groups: BTreeMap<GroupKey, BTreeSet<Rule>>,
    /// How many pods carry each group.
    carriers: HashMap<GroupKey, usize>,
    dirty: Dirty,
}

/// What is to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    /// Pods whose facts may be others.
    facts: BTreeSet<PodId>,
    /// Queries that no pod has answered yet.
    queries: BTreeSet<QueryId>,
    /// Queries that nobody asks any more.
    unasked: BTreeMap<QueryId, Arc<Query>>,
    /// Policies that have not selected their pods yet.
    policies: BTreeSet<GrantorId>,
    /// Listeners of which everything may be different.
    listeners: BTreeSet<ListenerKey>,
    /// Grantors that have not looked at the listeners yet.
    covers: BTreeSet<GrantorId>,
    /// Grantors that are to look at a listener again.
    pairs: BTreeSet<(ListenerKey, GrantorId)>,
    /// Classes for which a listener may be allowed differently.
    joint: HashSet<(Class, ListenerKey)>,
    /// Pods whose groups may be others.
    grouping: BTreeSet<PodId>,
    /// Grantors whose groups may have other rules.
    rules: BTreeSet<GrantorId>,
    /// Groups that may have other rules, be new, or be gone.
    groups: BTreeSet<GroupKey>,
    /// The groups, before the change, of pods whose groups are others now.
    before: BTreeMap<PodUid, Option<Arc<BTreeSet<GroupKey>>>>,
}

impl Compiler {
    /// The compiler of an empty world.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            last_id: 0,
            pods: HashMap::new(),
            pods_by_key: HashMap::new(),
            pods_by_uid: HashMap::new(),
            pods_at: HashMap::new(),
            pods_on: HashMap::new(),
            namespaces: HashMap::new(),
            by_pod: LabelIndex::default(),
            by_namespace: LabelIndex::default(),
            queries: HashMap::new(),
            query_ids: HashMap::new(),
            grantors: HashMap::new(),
            policies: HashMap::new(),
            policies_by_uid: HashMap::new(),
            nodes: HashMap::new(),
            nodes_at: HashMap::new(),
            by_address: BTreeSet::new(),
            services: HashMap::new(),
            listeners: HashMap::new(),
            listeners_at: HashMap::new(),
            guarded: BTreeMap::new(),
            let_in: HashMap::new(),
            balancer_holes: Vec::new(),
            classes: HashMap::new(),
            groups: BTreeMap::new(),
            carriers: HashMap::new(),
            dirty: Dirty::default(),
        }
    }

    /// Takes over changes, and says what they come to. Changes that arrive together are cheaper together.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Delta {
        for change in changes {
            match change {
                Change::Pod(pod) => self.set_pod(pod),
                Change::PodGone(key) => self.remove_pod(&key),
                Change::Namespace(name, labels) => self.set_namespace(&name, Some(labels)),
                Change::NamespaceGone(name) => self.set_namespace(&name, None),
                Change::Policy(policy) => self.set_policy(policy),
                Change::PolicyGone(key) => self.remove_policy(&key),
                Change::Service(service) => self.set_service(&service),
                Change::ServiceGone(key) => self.remove_service(&key),
                Change::Node(name, addresses) => self.set_node(name.into(), addresses),
                Change::NodeGone(name) => self.remove_node(&name),
            }
        }
        self.settle_facts();
        self.settle_covers();
        self.settle_guards();
        self.settle_classes();
        self.settle_grouping();
        let groups = self.settle_groups();
        let before = std::mem::take(&mut self.dirty.before);
        let now = |uid: &PodUid| self.pods_by_uid.get(uid).and_then(|id| self.pods.get(id));
        let pods = before.into_iter().filter_map(|(uid, before)| {
            let now = now(&uid).map(|state| Arc::clone(&state.grouping.groups));
            (now != before).then_some((uid, PodChange { before, now }))
        });
        Delta { pods: pods.collect(), groups }
    }

    /// The groups that a pod is to carry. `None` for a pod that has no network of its own, or is not known.
    #[must_use]
    pub fn groups(&self, pod: &PodUid) -> Option<&Arc<BTreeSet<GroupKey>>> {
        let id = self.pods_by_uid.get(pod)?;
        self.pods.get(id).map(|state| &state.grouping.groups)
    }

    /// The rules of a group, but for the open ones. `None` if there is no need of it.
    #[must_use]
    pub fn rules(&self, group: &GroupKey) -> Option<&BTreeSet<Rule>> {
        self.groups.get(group)
    }

    /// The pods that carry a group.
    #[must_use]
    pub fn members(&self, group: &GroupKey) -> BTreeSet<PodUid> {
        let members = self.pods.values().filter(|state| state.grouping.groups.contains(group));
        members.map(|state| state.pod.uid.clone()).collect()
    }

    /// Everything.
    #[must_use]
    pub fn compiled(&self) -> Compiled {
        let pods = self.pods.values().map(|state| (state.pod.uid.clone(), (*state.grouping.groups).clone()));
        Compiled { pods: pods.collect(), groups: self.groups.clone() }
    }

    /// The name of the policy that has this UID.
    #[must_use]
    pub fn policy(&self, uid: &PolicyUid) -> Option<&ObjectKey> {
        let owner = self.policies_by_uid.get(uid).and_then(|id| self.grantors.get(id)).map(|grantor| &grantor.owner);
        match owner {
            Some(Owner::Policy(policy)) => Some(&policy.key),
            _ => None,
        }
    }

    /// What a policy comes to, for people. `None` if it is not known.
    #[must_use]
    pub fn report(&self, policy: &ObjectKey) -> Option<Report> {
        let id = self.policies.get(policy)?;
        let grantor = self.grantors.get(id)?;
        let selected: Vec<&PodState> = self.pods.values().filter(|state| state.facts.policies.contains(id)).collect();
        let mut report = Report {
            pods: selected.iter().map(|state| state.pod.key.clone()).collect(),
            groups: self.keys(*id).into_iter().collect(),
            ..Report::default()
        };
        for (protocol, name) in &grantor.names {
            if !selected.is_empty() && selected.iter().all(|state| state.pod.port(*protocol, name).is_none()) {
                report.nameless.insert(format!("{name}/{protocol}"));
            }
        }
        for id in grantor.queries().into_keys() {
            let Some(state) = self.queries.get(&id) else { continue };
            report.peers.extend(state.answers.values().map(|(key, pods)| (key.clone(), *pods)));
            if let Some((protocol, name)) = state.query.name.as_ref().filter(|_| state.answers.is_empty()) {
                report.nameless.insert(format!("{name}/{protocol}"));
            }
        }
        Some(report)
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// The pods at an address.
    fn at(&self, address: &IpAddr) -> impl Iterator<Item = &PodState> {
        self.pods_at.get(address).into_iter().flatten().filter_map(|id| self.pods.get(id))
    }
}

/// What a policy comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The pods that it isolates.
    pub pods: BTreeSet<ObjectKey>,
    /// Its groups.
    pub groups: BTreeSet<GroupKey>,
    /// The peer sets that its rules name, and how many pods are in each.
    pub peers: BTreeMap<GroupKey, usize>,
    /// Port names, like `http/TCP`, that no pod has of those where they are looked for: perhaps misspelt.
    pub nameless: BTreeSet<String>,
}

/// Takes `id` out of the set under `key`, and the set away when it is empty.
fn take_out<K, Q, V>(map: &mut HashMap<K, BTreeSet<V>>, key: &Q, id: &V)
where
    K: Hash + Eq + Borrow<Q>,
    Q: Hash + Eq + ?Sized,
    V: Ord,
{
    if let Some(set) = map.get_mut(key) {
        set.remove(id);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

/// Whether the grantor is a policy that isolates for ingress, and for egress.
fn isolates(grantor: &Grantor) -> (bool, bool) {
    match grantor.owner {
        Owner::Policy(_) => (grantor.ingress.is_some(), grantor.egress.is_some()),
        Owner::Node(..) => (false, false),
    }
}
