//! From what NetworkPolicies come to and what Neutron has, to the next requests.
//!
//! ```text
//!   Change ──▶ Compiler ──Delta──▶ dirty: what may differ ─┐
//!                                                          ├─plan()──▶ Steps that may be done now, side by side
//!   lists and answers ──▶ Seen: what Neutron has ──────────┘              │
//!                              ▲                                          │ begin(), a request, an answer
//!                              └───────── made(), changed(), ... ─────────┘
//! ```
//!
//! The executor does the steps that [`plan`](Enforcer::plan) names, tells how each ended, and asks again, until there
//! is none. Nothing else decides what is done: after a restart or a lost answer it is the same.
//!
//! # Never wider
//!
//! At no moment does anything pass that neither the old nor the new state allows; of several changes at once, that no
//! world allows in which each object is as it was or as it is. Security groups only allow, so it is a matter of order:
//!
//! - A group is made with its rules before any port has it, and a port gets no group that has rules too many, or whose
//!   members are let in by rules that are to go.
//! - Rules that are to go, and ports that only lose (a pod that becomes isolated loses an open group), go first. Ports
//!   that gain, and rules that are new in a group that ports have, wait for those of the same change or an earlier one. Of
//!   rules, only what lets in and what lets out are a way together: new ones do not wait for those of their own direction,
//!   so that what is only said differently is not interrupted.
//! - A port that loses and gains does so in one update. Only where changes of something else, as of a namespace's
//!   labels, do that to several pods, they all lose before one of them gains.
//! - A group is deleted when no port has it.
//!
//! What a port or a group may be getting by a request that is under way, or whose answer was lost, counts as there for what
//! is to go, and as not there for what comes. What was to go, and is to go another way now, is due since then: a group that a
//! port is to lose of which rules were to go, or the other way about. Who is to get a group, and who becomes a member of one
//! that others are to let in, waits for what the changes of those groups take away, too.
//!
//! The port of a new pod is made with all its groups. It waits as well, for those that lose by a change by which the pod may do
//! more than it could have before ([`past`]).
//!
//! What cannot be done does not hold up the rest for ever: a port whose group cannot be made goes without, so it is
//! closed and not open; and who waits for something that failed does so only where it might be wider otherwise. So a port
//! or a rule that Neutron refuses to make narrower does hold up those that are to gain, until it is narrower. A new pod
//! does not wait for it: it does without what it gains until then.

mod outcome;
mod past;
mod plan;
mod seen;
mod step;

pub use outcome::{Left, digest};
pub use seen::{SeenGroup, SeenPort};
pub use step::{GroupStep, Hold, Object, Order, Step};

use crate::policy::{Change, Compiler, Delta, GroupKey, Settings};
use kuryr_model::{GroupDigest, ObjectKey, PodUid, PortId, SecurityGroupId};
use past::{Entry, Past};
use seen::Seen;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// A world of policies, what Neutron has of it, and what is under way.
#[derive(Debug)]
pub struct Enforcer {
    compiler: Compiler,
    /// The open groups, which others make.
    open: BTreeMap<GroupKey, SecurityGroupId>,
    seen: Seen,
    past: Past,
    /// Groups that may differ from what they are to be, and since when.
    groups: BTreeMap<GroupKey, Due>,
    /// Pods whose ports may differ.
    pods: BTreeMap<PodUid, Dirty>,
    /// Groups that steps are under way for.
    busy_groups: HashSet<GroupKey>,
    /// The same for ports, with the sets that they are getting.
    busy_ports: HashMap<PortId, BTreeSet<SecurityGroupId>>,
    busy_strays: HashSet<SecurityGroupId>,
    /// What failed, and is not to be tried now.
    held: HashMap<Object, Hold>,
    /// The groups that ports of these pods are being made with.
    granted: HashMap<PodUid, BTreeSet<SecurityGroupId>>,
    /// Groups may be there that we do not know, since then: look before any is made.
    lost: Option<u64>,
    looking: bool,
    /// Grows with every change of anything.
    clock: u64,
    /// The same, of what is wanted.
    wanted: u64,
}

/// Since when a pod's ports may differ.
#[derive(Clone, Copy, Debug)]
struct Dirty {
    due: Due,
    /// Because the pod itself changed, and nothing but pods.
    own: bool,
}

/// When something began to differ from what it is to be, and when that last became something else. What goes is due since
/// the first, what comes maybe only since the last.
#[derive(Clone, Copy, Debug)]
struct Due {
    first: u64,
    last: u64,
}

impl Due {
    fn at(time: u64) -> Self {
        Self { first: time, last: time }
    }

    /// It becomes something else now, and was to become narrower since then in some other way.
    fn renew(&mut self, overdue: Option<u64>, now: u64) {
        self.first = overdue.map_or(self.first, |since| self.first.min(since));
        self.last = now;
    }
}

/// Since when pods and groups are to become narrower in another way than they were.
#[derive(Default)]
struct Overdue {
    pods: HashMap<PodUid, u64>,
    groups: HashMap<GroupKey, u64>,
}

/// Why the port of a pod must not be made yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotYet {
    /// The pod is not known (yet).
    Unknown,
    /// Some of its groups are not what they are to be.
    Groups(Vec<GroupKey>),
    /// A change that gives it something takes something from this pod, and that is not done: its port, or a group of that.
    After(ObjectKey, Object),
}

impl Enforcer {
    /// An empty world, with the groups that let everything in and out.
    #[must_use]
    pub fn new(settings: Settings, ingress_open: SecurityGroupId, egress_open: SecurityGroupId) -> Self {
        Self {
            compiler: Compiler::new(settings),
            open: [(GroupKey::IngressOpen, ingress_open), (GroupKey::EgressOpen, egress_open)].into(),
            seen: Seen::default(),
            past: Past::default(),
            groups: BTreeMap::new(),
            pods: BTreeMap::new(),
            busy_groups: HashSet::new(),
            busy_ports: HashMap::new(),
            busy_strays: HashSet::new(),
            held: HashMap::new(),
            granted: HashMap::new(),
            lost: None,
            looking: false,
            clock: 0,
            wanted: 0,
        }
    }

    /// The open groups are these now.
    pub fn set_open(&mut self, ingress: SecurityGroupId, egress: SecurityGroupId) {
        self.open = [(GroupKey::IngressOpen, ingress), (GroupKey::EgressOpen, egress)].into();
    }

    /// Takes over changes; what they come to.
    pub fn apply(&mut self, changes: Vec<Change>) -> Delta {
        let since = self.tick();
        let only_pods = changes.iter().all(|change| matches!(change, Change::Pod(_) | Change::PodGone(_)));
        let own: HashSet<PodUid> = changes.iter().filter_map(changed_pod).filter(|_| only_pods).collect();
        self.past.note(&self.compiler, &changes, since);
        let delta = self.compiler.apply(changes);
        if !delta.is_empty() {
            self.wanted = since;
        }
        let overdue = self.overdue(&delta);
        for (uid, change) in &delta.pods {
            if change.now.is_none() {
                self.granted.remove(uid);
            }
            let own = own.contains(uid);
            let dirty = self.pods.entry(uid.clone()).or_insert(Dirty { due: Due::at(since), own });
            dirty.own &= own;
            dirty.due.renew(overdue.pods.get(uid).copied(), since);
            for port in self.seen.ports_of(uid) {
                self.held.remove(&Object::Port(port));
            }
        }
        for key in delta.groups.keys() {
            self.groups.entry(key.clone()).or_insert(Due::at(since)).renew(overdue.groups.get(key).copied(), since);
            // What was refused may be asked for differently now.
            self.held.remove(&Object::Group(key.clone()));
        }
        if !delta.groups.is_empty() {
            // Who is to get a group gets what is new in it, too.
            for (uid, dirty) in &mut self.pods {
                let mut keys = self.compiler.groups(uid).into_iter().flat_map(|keys| keys.iter());
                if keys.any(|key| delta.groups.contains_key(key)) {
                    dirty.due.last = since;
                }
            }
        }
        delta
    }

    /// What was to be done before the change in another way: a pod loses the group whose rules were to go, or rules go of a
    /// group that pods were to lose. Others wait for that already, and still do.
    fn overdue(&self, delta: &Delta) -> Overdue {
        let mut overdue = Overdue::default();
        let carried = |uid: &PodUid| -> Vec<&GroupKey> {
            let ports = self.seen.ports_of(uid).filter_map(|port| self.possible(port));
            ports.flat_map(|port| port.groups).filter_map(|id| self.seen.key(id)).collect()
        };
        for uid in delta.pods.keys() {
            let since = carried(uid).into_iter().filter_map(|key| self.groups.get(key)).map(|due| due.first).min();
            overdue.pods.extend(since.map(|since| (uid.clone(), since)));
        }
        if !delta.groups.is_empty() {
            for (uid, dirty) in &self.pods {
                for key in carried(uid).into_iter().filter(|key| delta.groups.contains_key(*key)) {
                    let since = overdue.groups.entry(key.clone()).or_insert(dirty.due.first);
                    *since = dirty.due.first.min(*since);
                }
            }
        }
        overdue
    }

    /// What policies come to.
    #[must_use]
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// The group's id, once it is there.
    #[must_use]
    pub fn id(&self, key: &GroupKey) -> Option<SecurityGroupId> {
        self.open.get(key).copied().or_else(|| self.seen.group(key).map(|group| group.id))
    }

    /// A group as Neutron has it.
    #[must_use]
    pub fn group(&self, key: &GroupKey) -> Option<&SeenGroup> {
        self.seen.group(key)
    }

    /// A port as Neutron has it.
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&SeenPort> {
        self.seen.port(port)
    }

    /// Why a group is not tried, if so.
    #[must_use]
    pub fn held(&self, object: &Object) -> Option<Hold> {
        self.held.get(object).copied()
    }

    /// Another number whenever something else is wanted: a plan made before is not to be gone on with.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Whether nothing is left to be done.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.groups.is_empty() && self.pods.is_empty() && self.seen.strays().next().is_none()
    }

    /// Whether a group is as it is to be.
    #[must_use]
    pub fn is_settled_group(&self, key: &GroupKey) -> bool {
        !self.groups.contains_key(key)
    }

    /// Whether a pod's ports have the groups that they are to have.
    #[must_use]
    pub fn is_settled_pod(&self, pod: &PodUid) -> bool {
        !self.pods.contains_key(pod) || self.seen.ports_of(pod).next().is_none()
    }

    /// How many groups and ports may differ from what they are to be.
    #[must_use]
    pub fn backlog(&self) -> (usize, usize) {
        (self.groups.len(), self.pods.len())
    }

    /// The groups with which the port of a pod is to be made, and remembers that it is made with them. Those by which it gains
    /// something are not among them where others cannot be made narrower: it gets these later, like a port that is there.
    ///
    /// # Errors
    /// It is not to be made yet.
    pub fn grant(&mut self, pod: &PodUid) -> Result<BTreeSet<SecurityGroupId>, NotYet> {
        let without = match self.admit(pod)? {
            Entry::Without(gain) => Some(gain),
            Entry::Free | Entry::After(..) => None,
        };
        let keys = self.compiler.groups(pod).map(Arc::clone).unwrap_or_default();
        let to_have = keys.iter().filter(|key| !without.is_some_and(|gain| self.is_gain(gain, key)));
        let groups: BTreeSet<SecurityGroupId> = to_have.filter_map(|key| self.id(key)).collect();
        self.granted.insert(pod.clone(), groups.clone());
        self.wanted = self.tick();
        Ok(groups)
    }

    /// Whether the port of a pod could be made now.
    ///
    /// # Errors
    /// As of [`grant`](Self::grant).
    pub fn grantable(&self, pod: &PodUid) -> Result<(), NotYet> {
        self.admit(pod).map(drop)
    }

    fn admit(&self, pod: &PodUid) -> Result<Entry, NotYet> {
        let Some(keys) = self.compiler.groups(pod) else { return Err(NotYet::Unknown) };
        let ready = |key: &&GroupKey| {
            // One that is just being deleted is complete until it is gone.
            let free = !self.busy_groups.contains(*key);
            let there = || free && self.complete(key) && self.id(key).is_some_and(|id| !self.is_misnamed(id));
            self.open.contains_key(key) || there()
        };
        let missing: Vec<GroupKey> = keys.iter().filter(|key| !ready(key)).cloned().collect();
        if !missing.is_empty() {
            return Err(NotYet::Groups(missing));
        }
        match self.entry(pod) {
            Entry::After(other, object) => Err(NotYet::After(other, object)),
            entry => Ok(entry),
        }
    }

    /// Whether no port of a pod has, or may have, a group that it is not to have: it may be less open than it should be, but
    /// not more.
    #[must_use]
    pub fn is_closed_enough(&self, pod: &PodUid) -> bool {
        let Some(keys) = self.compiler.groups(pod) else { return false };
        let wanted: BTreeSet<SecurityGroupId> = keys.iter().filter_map(|key| self.id(key)).collect();
        self.seen.ports_of(pod).all(|id| {
            let getting = self.busy_ports.get(&id).into_iter().flatten();
            let has = self.seen.port(id).into_iter().flat_map(|port| &port.groups);
            has.chain(getting).all(|group| wanted.contains(group))
        })
    }

    /// Whether a port lets a Service's load balancer in, or may do so, that is not to: then its listeners must not let in
    /// more yet.
    #[must_use]
    pub fn lingers(&self, service: &ObjectKey) -> bool {
        let has = |port: &PortId, seen: &SeenPort, id: SecurityGroupId| {
            seen.groups.contains(&id) || self.busy_ports.get(port).is_some_and(|groups| groups.contains(&id))
        };
        let of_service = |key: &&GroupKey| matches!(key, GroupKey::Balanced(it) if it.service == *service);
        let lingers = |key: &GroupKey| {
            let Some(id) = self.id(key) else { return false };
            let unwanted = |pod: &PodUid| self.compiler.groups(pod).is_none_or(|groups| !groups.contains(key));
            self.seen.ports().any(|(port, seen)| has(&port, seen, id) && unwanted(&seen.pod))
                || self.granted.iter().any(|(pod, groups)| groups.contains(&id) && unwanted(pod))
        };
        // Of one that nobody knows it is not known what it lets in.
        self.seen.keys().filter(of_service).any(lingers) || self.seen.strays().any(|id| self.may_be_carried(id))
    }

    /// The pods whose ports may differ from what they are to be.
    pub fn unsettled_pods(&self) -> impl Iterator<Item = &PodUid> {
        self.pods.keys().filter(|pod| !self.is_settled_pod(pod))
    }

    /// The ports of a pod that are known.
    pub fn ports_of(&self, pod: &PodUid) -> impl Iterator<Item = PortId> {
        self.seen.ports_of(pod)
    }

    /// No port is being made for the pod any more.
    pub fn ungrant(&mut self, pod: &PodUid) {
        self.granted.remove(pod);
    }

    /// Tries again what was held.
    pub fn release(&mut self, object: &Object) {
        self.held.remove(object);
    }

    /// Tries again all that waits for somebody: there is room again.
    pub fn release_closed(&mut self) {
        self.held.retain(|_, hold| *hold != Hold::Closed);
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The digests of all groups that are wanted or known.
    fn digests(&self) -> HashMap<GroupDigest, GroupKey> {
        let keys = self.compiler.all_groups().chain(self.seen.keys());
        keys.map(|key| (key.digest(), key.clone())).collect()
    }
}

fn changed_pod(change: &Change) -> Option<PodUid> {
    match change {
        Change::Pod(pod) => Some(pod.uid.clone()),
        _ => None,
    }
}
