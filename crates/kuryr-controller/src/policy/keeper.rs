//! What the controller knows of policies: fed by watches and by answers, read by all who need it.

use super::{error::Failure, guards::Guards, lean::SeenPolicy};
use crate::index::{Index, is_newer};
use kuryr_model::{KuryrNetworkPolicy, KuryrPort, ObjectKey, PodUid, PolicyUid, PortId, SecurityGroupId};
use kuryr_plan::{
    enforce::{Enforcer, Left, NotYet, Object},
    pod::Pod,
    policy::{Change, Delta, GroupKey, Labels, NamedPort, Pod as PolicyPod, Settings},
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};
use tokio::sync::Notify;

/// What of a pod only policies look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodFacts {
    pub(crate) labels: Labels,
    pub(crate) ports: Vec<NamedPort>,
}

/// A policy's object, beside what the compiler has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) uid: PolicyUid,
    pub(crate) generation: i64,
}

/// Why a pod's port cannot be made yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what NetworkPolicies allow it is not all in Neutron yet: {}{}", list(.what), because(.failure.as_ref()))]
pub(crate) struct Waits {
    /// What it waits for, for people. Nothing: to be known.
    pub(crate) what: Vec<String>,
    /// What failed, if anything.
    pub(crate) failure: Option<Failure>,
}

/// The state, and who waits for it to change.
pub(crate) struct Keeper {
    state: Mutex<State>,
    /// There are changes to be taken over, or steps to be planned.
    pub(super) changed: Notify,
    /// Something is to be told.
    pub(super) reportable: Notify,
    /// Something was done.
    pub(super) progress: tokio::sync::watch::Sender<()>,
}

pub(super) struct State {
    pub(super) enforcer: Enforcer,
    pending: Vec<Change>,
    /// Grows with every change that is taken over.
    pub(super) changes: u64,
    pub(super) guards: Guards,
    pub(super) policies: HashMap<ObjectKey, Known>,
    namespaces: HashSet<String>,
    /// What was told.
    pub(super) held: HashMap<ObjectKey, Arc<KuryrNetworkPolicy>>,
    pub(super) failures: HashMap<Object, Failure>,
    /// Pods whose port cannot be made yet.
    pub(super) waiting: HashMap<PodUid, ObjectKey>,
    /// Pods that share their machine's port: no security group holds for one of them alone.
    pub(super) sharing: HashMap<ObjectKey, PodUid>,
    /// Policies of which there may be something new to tell.
    pub(super) touched: BTreeSet<ObjectKey>,
}

impl Keeper {
    /// Knows nothing yet. The open groups are those that everything is let in and out by.
    pub(crate) fn new(settings: Settings, open: [SecurityGroupId; 2]) -> Self {
        let state = State {
            enforcer: Enforcer::new(settings, open[0], open[1]),
            pending: Vec::new(),
            changes: 0,
            guards: Guards::default(),
            policies: HashMap::new(),
            namespaces: HashSet::new(),
            held: HashMap::new(),
            failures: HashMap::new(),
            waiting: HashMap::new(),
            sharing: HashMap::new(),
            touched: BTreeSet::new(),
        };
        let (progress, _) = tokio::sync::watch::channel(());
        Self { state: Mutex::new(state), changed: Notify::new(), reportable: Notify::new(), progress }
    }

    /// The state with all changes taken over.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.settle();
        state
    }

    /// The state without what has come and is not taken over.
    pub(super) fn state_as_it_is(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Told whenever something was done or has come.
    pub(crate) fn progress(&self) -> tokio::sync::watch::Receiver<()> {
        self.progress.subscribe()
    }

    fn push(&self, change: Change) {
        self.state.lock().push(change);
        self.changed.notify_one();
    }

    /// A pod. Its addresses are those of its `KuryrPort`, which is written before the kubelet tells any.
    pub(crate) fn pod(&self, index: &Index, pod: &Pod, facts: PodFacts) {
        // Under the lock, so that a KuryrPort that comes meanwhile finds the pod.
        let mut state = self.state.lock();
        let port = index.get(&pod.key).port.filter(|port| port.spec.pod_uid == pod.uid);
        state.pending.push(Change::Pod(PolicyPod {
            key: pod.key.clone(),
            uid: pod.uid.clone(),
            node: pod.node.clone(),
            labels: facts.labels,
            addresses: port.map(|port| addresses(&port)).unwrap_or_default(),
            host_network: pod.host_network,
            completed: pod.completed,
            ports: facts.ports,
        }));
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn pods_gone(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        for key in keys {
            self.push(Change::PodGone(key));
        }
    }

    /// What a pod's `KuryrPort` says, or that it is gone: its addresses, and whether it shares its machine's port.
    pub(crate) fn port(&self, key: &ObjectKey, port: Option<&KuryrPort>) {
        let mut state = self.state.lock();
        if state.shares(key, port) {
            self.reportable.notify_one();
        }
        let found = port.map(addresses).unwrap_or_default();
        let last = state.pending.iter().rev().find_map(|change| match change {
            Change::Pod(pod) if pod.key == *key => Some(pod),
            _ => None,
        });
        let Some(pod) = last.or_else(|| state.enforcer.compiler().pod(key)) else { return };
        if port.is_some_and(|port| port.spec.pod_uid != pod.uid) || pod.addresses == found {
            return;
        }
        let changed = PolicyPod { addresses: found, ..pod.clone() };
        state.pending.push(Change::Pod(changed));
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn node(&self, name: String, addresses: BTreeSet<IpAddr>) {
        self.push(Change::Node(name, addresses));
    }

    pub(crate) fn node_gone(&self, name: String) {
        self.push(Change::NodeGone(name));
    }

    pub(super) fn namespace(&self, name: String, labels: Labels) {
        self.state.lock().namespaces.insert(name.clone());
        self.push(Change::Namespace(name, labels));
    }

    pub(super) fn namespace_gone(&self, name: String) {
        self.state.lock().namespaces.remove(&name);
        self.push(Change::NamespaceGone(name));
    }

    pub(super) fn retain_namespaces(&self, seen: &HashSet<ObjectKey>) {
        let listed: HashSet<&str> = seen.iter().map(|key| key.name.as_str()).collect();
        let known = self.state.lock().namespaces.clone();
        known.into_iter().filter(|name| !listed.contains(name.as_str())).for_each(|name| self.namespace_gone(name));
    }

    pub(super) fn policy(&self, seen: SeenPolicy) {
        let SeenPolicy { policy, generation } = seen;
        let mut state = self.state.lock();
        state.policies.insert(policy.key.clone(), Known { uid: policy.uid.clone(), generation });
        state.touched.insert(policy.key.clone());
        state.pending.push(Change::Policy(policy));
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn policy_gone(&self, key: ObjectKey) {
        let mut state = self.state.lock();
        state.policies.remove(&key);
        state.touched.insert(key.clone());
        state.pending.push(Change::PolicyGone(key));
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn retain_policies(&self, seen: &HashSet<ObjectKey>) {
        let known: Vec<ObjectKey> = self.state.lock().policies.keys().cloned().collect();
        known.into_iter().filter(|key| !seen.contains(key)).for_each(|key| self.policy_gone(key));
    }

    /// Takes over a `KuryrNetworkPolicy`, unless what is known of the same object is newer.
    pub(super) fn told(&self, mut held: KuryrNetworkPolicy) {
        held.metadata.managed_fields = None;
        let key = held.key();
        let mut state = self.state.lock();
        if state.held.get(&key).is_some_and(|known| is_newer::<KuryrNetworkPolicy>(known, &held)) {
            return;
        }
        let same =
            state.held.insert(key.clone(), Arc::new(held.clone())).is_some_and(|known| known.status == held.status);
        // Somebody else wrote it, or it is one of an earlier controller.
        if !same {
            state.touched.insert(key);
            self.reportable.notify_one();
        }
    }

    pub(super) fn untold(&self, key: ObjectKey) {
        let mut state = self.state.lock();
        state.held.remove(&key);
        state.touched.insert(key);
        self.reportable.notify_one();
    }

    pub(super) fn retain_told(&self, seen: &HashSet<ObjectKey>) {
        let known: Vec<ObjectKey> = self.state.lock().held.keys().cloned().collect();
        known.into_iter().filter(|key| !seen.contains(key)).for_each(|key| self.untold(key));
    }

    /// The groups with which the port of a pod is to be made.
    ///
    /// # Errors
    /// It is not to be made yet. The pod's key is worked on again when it is.
    pub(crate) fn grant(&self, key: &ObjectKey, pod: &PodUid) -> Result<Vec<SecurityGroupId>, Waits> {
        let mut state = self.state();
        match state.enforcer.grant(pod) {
            Ok(groups) => {
                state.waiting.remove(pod);
                Ok(groups.into_iter().collect())
            }
            Err(why) => {
                state.waiting.insert(pod.clone(), key.clone());
                Err(state.waits(&why))
            }
        }
    }

    /// No port is being made for the pod any more, for it failed.
    pub(crate) fn ungrant(&self, pod: &PodUid) {
        self.state.lock().enforcer.ungrant(pod);
        self.changed.notify_one();
    }

    /// A pod's port was made, or found, with these groups.
    pub(crate) fn has(&self, port: PortId, pod: &PodUid, groups: &[SecurityGroupId]) {
        self.state().enforcer.has(port, pod, groups.iter().copied().collect());
        self.changed.notify_one();
    }

    /// A port is deleted.
    pub(crate) fn port_gone(&self, port: PortId) {
        self.state.lock().enforcer.port_gone(port);
        self.changed.notify_one();
    }

    /// A port is its pod's no more, and stays: nothing changes its groups from now on. Those that it has.
    pub(crate) fn give_up(&self, port: PortId) -> Left {
        let left = self.state.lock().enforcer.give_up(port);
        self.changed.notify_one();
        left
    }

    /// Waits until no port of the pod has a group that it is not to have. What a policy that came meanwhile takes away is gone
    /// before the pod starts.
    pub(crate) async fn closed_enough(&self, pod: &PodUid) {
        let mut progress = self.progress.subscribe();
        loop {
            {
                let state = self.state();
                if state.enforcer.compiler().groups(pod).is_none() || state.enforcer.is_closed_enough(pod) {
                    return;
                }
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }
}

impl State {
    pub(super) fn push(&mut self, change: Change) {
        self.pending.push(change);
    }

    /// Notes whether a pod shares its machine's port; whether that is news for policies.
    fn shares(&mut self, key: &ObjectKey, port: Option<&KuryrPort>) -> bool {
        let now = port.filter(|port| port.shares_port()).map(|port| port.spec.pod_uid.clone());
        let before = match &now {
            Some(uid) => self.sharing.insert(key.clone(), uid.clone()),
            None => self.sharing.remove(key),
        };
        if before == now {
            return false;
        }
        let compiler = self.enforcer.compiler();
        let groups = [before, now].into_iter().flatten().filter_map(|uid| compiler.groups(&uid));
        let touched: Vec<ObjectKey> =
            groups.flat_map(|groups| groups.iter()).flat_map(|group| compiler.users(group)).collect();
        self.touched.extend(touched);
        true
    }

    /// Takes over what has come.
    fn settle(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.changes += 1;
        let changes = std::mem::take(&mut self.pending);
        let delta = self.enforcer.apply(changes);
        self.touch(&delta);
    }

    /// Notes the policies that a change concerns.
    fn touch(&mut self, delta: &Delta) {
        let compiler = self.enforcer.compiler();
        let mut groups: HashSet<&GroupKey> = delta.groups.keys().collect();
        for change in delta.pods.values() {
            groups.extend(change.before.iter().chain(&change.now).flat_map(|keys| keys.iter()));
        }
        let touched: Vec<ObjectKey> = groups.into_iter().flat_map(|key| compiler.users(key)).collect();
        self.touched.extend(touched);
    }

    /// Why a pod's port is not made yet, for people.
    fn waits(&self, why: &NotYet) -> Waits {
        match why {
            NotYet::Unknown => Waits { what: Vec::new(), failure: None },
            NotYet::Groups(groups) => Waits {
                what: groups.iter().map(|key| self.readable(key)).collect(),
                failure: groups.iter().find_map(|key| self.failure(key)).cloned(),
            },
            NotYet::After(pod, object) => Waits {
                what: vec![format!("first pod {pod} has to lose what the same change takes from it")],
                failure: self.failures.get(object).cloned(),
            },
        }
    }

    /// What failed with a group.
    pub(super) fn failure(&self, key: &GroupKey) -> Option<&Failure> {
        self.failures.get(&Object::Group(key.clone()))
    }

    /// What a group is for, for people.
    pub(super) fn readable(&self, key: &GroupKey) -> String {
        key.readable(|uid| self.enforcer.compiler().policy(uid).cloned())
    }
}

/// The addresses of a pod's interfaces.
pub(super) fn addresses(port: &KuryrPort) -> BTreeSet<IpAddr> {
    port.spec.vifs.iter().flat_map(|vif| &vif.addresses).map(|address| address.ip).collect()
}

/// The first few of what is waited for.
fn list(groups: &[String]) -> String {
    const NAMED: usize = 3;
    match groups {
        [] => "the pod is not known to policies yet".to_owned(),
        few if few.len() <= NAMED => few.join(", "),
        many => format!("{} and {} more", many[..NAMED].join(", "), many.len() - NAMED),
    }
}

fn because(failure: Option<&Failure>) -> String {
    failure.map(|failure| format!(" ({})", failure.message)).unwrap_or_default()
}
