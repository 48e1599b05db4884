//! What the controller knows of the cluster: fed by watches, read by reconcilers.
//!
//! Only what is needed is kept: ten thousand pods must fit into a few megabytes.

mod nodes;
mod ports;

use crate::lean::OddPort;
use kube::Resource;
use kuryr_model::{
    KuryrPort, ObjectKey, PodUid, PortId, SegmentationId, Vif, kuryr_port::AttachmentState, vif::PlugDriver,
};
use kuryr_plan::{fullness::Notice, nested::pairs_of, pairs::Used, pod::Pod};
pub(crate) use nodes::{Home, Serving};
use parking_lot::RwLock;
use ports::Ports;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use tokio::{sync::watch, time::Instant};

/// The index. Cheap to read from many tasks.
#[derive(Default)]
pub(crate) struct Index {
    state: RwLock<State>,
    /// A node came, went or changed.
    pub(crate) nodes_changed: watch::Sender<()>,
    /// How pods are plugged on nodes that do not say it.
    nested: Option<PlugDriver>,
}

/// What pods have of a virtual machine's port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    /// Their ids on its trunk.
    pub(crate) ids: Vec<(PortId, SegmentationId)>,
    /// The addresses that it must be allowed.
    pub(crate) pairs: BTreeSet<Used>,
}

#[derive(Default)]
struct State {
    pods: HashMap<ObjectKey, Arc<Pod>>,
    ports: Ports,
    /// The nodes.
    homes: HashMap<String, Home>,
    /// When a node that has `KuryrPort`s was first found missing, or out of service.
    gone: HashMap<String, Instant>,
    /// Nodes to which no pods are scheduled.
    cordoned: HashSet<String>,
    /// What nodes say of how full they are, each as of a version of its object.
    notices: HashMap<String, (Notice, Option<u64>)>,
}

/// All that is known under one key.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) pod: Option<Arc<Pod>>,
    pub(crate) port: Option<Arc<KuryrPort>>,
    /// In place of `port`: one that cannot be read.
    pub(crate) odd: Option<Arc<OddPort>>,
}

impl State {
    /// The keys of the `KuryrPort`s on a node.
    fn on(&self, node: &str) -> Vec<ObjectKey> {
        self.ports.readable().filter(|(_, port)| port.spec.node_name == node).map(|(key, _)| key.clone()).collect()
    }

    /// The interfaces of pods that are virtual machines' ones, but for those that their nodes have released.
    fn nested(&self) -> impl Iterator<Item = &Vif> {
        let released = |port: &KuryrPort| port.deleting() && port.attachment_state() == Some(AttachmentState::Released);
        let ports = self.ports.readable().map(|(_, port)| port).filter(move |port| !released(port));
        let vifs = ports.flat_map(|port| &port.spec.vifs);
        vifs.filter(|vif| vif.plug.driver.is_nested())
    }

    /// The keys of the pods on a node that lack ports.
    fn lacking(&self, node: &str) -> Vec<ObjectKey> {
        let on = self.pods.values().filter(|pod| pod.node.as_deref() == Some(node));
        let lacking = on.filter(|pod| pod.lacks_ports(self.ports.get(&pod.key).map(AsRef::as_ref)));
        lacking.map(|pod| pod.key.clone()).collect()
    }
}

impl Index {
    /// An empty one, where nodes that say nothing are plugged as `nested`.
    pub(crate) fn new(nested: Option<PlugDriver>) -> Self {
        Self { nested, ..Self::default() }
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Known {
        let state = self.state.read();
        let (pod, port, odd) = (state.pods.get(key), state.ports.get(key), state.ports.odd(key));
        Known { pod: pod.cloned(), port: port.cloned(), odd: odd.cloned() }
    }

    /// Every key under which there is something.
    pub(crate) fn keys(&self) -> HashSet<ObjectKey> {
        let state = self.state.read();
        state.pods.keys().chain(state.ports.keys()).cloned().collect()
    }

    pub(crate) fn ports(&self) -> Vec<Arc<KuryrPort>> {
        self.state.read().ports.readable().map(|(_, port)| port.clone()).collect()
    }

    /// Every port that a `KuryrPort` has.
    pub(crate) fn held(&self) -> HashSet<PortId> {
        self.state.read().ports.held()
    }

    /// Whether a `KuryrPort` has this port.
    pub(crate) fn holds(&self, id: PortId) -> bool {
        self.state.read().ports.holds(id)
    }

    /// The pod of each port that a `KuryrPort` has.
    pub(crate) fn holders(&self) -> HashMap<PortId, PodUid> {
        let state = self.state.read();
        let held = |(_, port): (&ObjectKey, &Arc<KuryrPort>)| {
            let pod = port.spec.pod_uid.clone();
            port.port_ids().map(move |id| (id, pod.clone())).collect::<Vec<_>>()
        };
        state.ports.readable().flat_map(held).collect()
    }

    /// UIDs of the pods that should have ports and have none.
    pub(crate) fn waiting(&self) -> BTreeSet<PodUid> {
        let state = self.state.read();
        let lacks = |pod: &Arc<Pod>| pod.lacks_ports(state.ports.get(&pod.key).map(AsRef::as_ref));
        state.pods.values().filter(|pod| lacks(pod)).map(|pod| pod.uid.clone()).collect()
    }

    /// The names of those of these pods that are known.
    pub(crate) fn names(&self, uids: &HashSet<&PodUid>) -> HashMap<PodUid, ObjectKey> {
        let state = self.state.read();
        let pods = state.pods.values().filter(|pod| uids.contains(&pod.uid));
        pods.map(|pod| (pod.uid.clone(), pod.key.clone())).collect()
    }

    /// What pods have of virtual machines' ports.
    pub(crate) fn nested(&self) -> HashMap<PortId, Carried> {
        let mut all: HashMap<PortId, Carried> = HashMap::new();
        for vif in self.state.read().nested() {
            let Some(parent) = vif.plug.parent else { continue };
            let carried = all.entry(parent.port_id).or_default();
            carried.ids.extend(vif.plug.vlan.map(|id| (vif.port_id, id)));
            carried.pairs.extend(pairs_of(vif));
        }
        all
    }

    /// The ids that pods have of the trunk with this parent.
    pub(crate) fn ids_on(&self, parent: PortId) -> Vec<(PortId, SegmentationId)> {
        let state = self.state.read();
        let vifs = state.nested().filter(|vif| vif.plug.parent.is_some_and(|known| known.port_id == parent));
        vifs.filter_map(|vif| Some((vif.port_id, vif.plug.vlan?))).collect()
    }

    /// Takes over a pod; `true` if anything that matters changed.
    pub(crate) fn apply_pod(&self, pod: Pod) -> bool {
        let mut state = self.state.write();
        let changed = state.pods.get(&pod.key).is_none_or(|known| **known != pod);
        if changed {
            state.pods.insert(pod.key.clone(), Arc::new(pod));
        }
        changed
    }

    pub(crate) fn remove_pod(&self, key: &ObjectKey) {
        self.state.write().pods.remove(key);
    }

    /// Takes over a `KuryrPort`, unless what is known of the same object is newer; `true` if anything changed that a
    /// reconciler acts on. What the controller itself wrote and hears of again changes nothing, so that its own
    /// conditions do not cut a back-off short.
    pub(crate) fn apply_port(&self, mut port: KuryrPort) -> bool {
        port.metadata.managed_fields = None;
        let mut state = self.state.write();
        let key = port.key();
        let known = state.ports.get(&key);
        let odd = state.ports.odd(&key).filter(|odd| port.metadata.uid.as_ref() == Some(&odd.uid));
        let outdated = odd.is_some_and(|odd| number(odd.resource_version.as_deref()) > version(&port));
        if outdated || known.is_some_and(|known| is_newer::<KuryrPort>(known, &port)) {
            return false;
        }
        let changed = known.is_none_or(|known| acted_on(known) != acted_on(&port));
        state.ports.put(port);
        changed
    }

    /// Takes over a `KuryrPort` that cannot be read; `true` if that is news.
    pub(crate) fn apply_odd(&self, odd: OddPort) -> bool {
        let mut state = self.state.write();
        let known = state.ports.odd(&odd.key);
        let changed =
            known.is_none_or(|known| (&known.uid, known.deleting, &known.why) != (&odd.uid, odd.deleting, &odd.why));
        state.ports.put_odd(odd);
        changed
    }

    /// Forgets a `KuryrPort`, unless another object has its name by now.
    pub(crate) fn remove_port(&self, key: &ObjectKey, uid: Option<&str>) {
        let mut state = self.state.write();
        let is = |known: Option<&str>| uid.is_none() || known == uid;
        let readable = state.ports.get(key).is_some_and(|known| is(known.metadata.uid.as_deref()));
        if readable || state.ports.odd(key).is_some_and(|known| is(Some(&known.uid))) {
            state.ports.remove(key);
        }
    }

    /// Drops all pods that are not in `seen`: what a watch that began anew no longer listed. Gives their keys.
    pub(crate) fn retain_pods(&self, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        retain(&mut self.state.write().pods, seen)
    }

    /// Drops all `KuryrPort`s that are not in `seen`; gives their keys.
    pub(crate) fn retain_ports(&self, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let mut state = self.state.write();
        let gone: Vec<ObjectKey> = state.ports.keys().filter(|key| !seen.contains(*key)).cloned().collect();
        for key in &gone {
            state.ports.remove(key);
        }
        gone
    }
}

/// Drops all that is not in `seen`; gives the keys of what was dropped.
pub(crate) fn retain<T>(map: &mut HashMap<ObjectKey, T>, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
    let gone: Vec<ObjectKey> = map.keys().filter(|key| !seen.contains(*key)).cloned().collect();
    for key in &gone {
        map.remove(key);
    }
    gone
}

/// The parts of a `KuryrPort` on which a step depends.
fn acted_on(port: &KuryrPort) -> impl PartialEq {
    (port.metadata.uid.clone(), port.deleting(), port.spec.clone(), port.attachment_state())
}

/// Whether `known` is a later state of the same object than `other`. Resource versions of one resource may be
/// compared as numbers since Kubernetes 1.35 says so, and could in practice always; where they are no numbers, the
/// newcomer wins.
pub(crate) fn is_newer<K: Resource>(known: &K, other: &K) -> bool {
    known.meta().uid == other.meta().uid && version(known) > version(other)
}

fn version<K: Resource>(object: &K) -> Option<u64> {
    number(object.meta().resource_version.as_deref())
}

fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lean::LeanPod;
    use serde_json::json;

    pub(super) fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value::<LeanPod>(value).unwrap().read().unwrap().0
    }

    pub(super) fn port(version: &str, uid: &str) -> KuryrPort {
        serde_json::from_value(json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
            "metadata": {"namespace": "a", "name": "x", "uid": uid, "resourceVersion": version},
            "spec": {"podUid": "p", "nodeName": "node0", "vifs": []},
        }))
        .unwrap()
    }

    #[test]
    fn only_changes_that_matter_are_reported() {
        let index = Index::default();
        let base = json!({"metadata": {"namespace": "a", "name": "x", "uid": "p"}, "spec": {"containers": [], "nodeName": "node0"}});
        assert!(index.apply_pod(pod(base.clone())));
        let mut labelled = base.clone();
        labelled["metadata"]["labels"] = json!({"colour": "red"});
        assert!(!index.apply_pod(pod(labelled)));
        let mut done = base;
        done["status"] = json!({"phase": "Succeeded"});
        assert!(index.apply_pod(pod(done)));
    }

    #[test]
    fn an_older_state_of_an_object_does_not_replace_a_newer_one() {
        let index = Index::default();
        let key = ObjectKey::new("a", "x");
        assert!(index.apply_port(port("10", "u1")));
        assert!(!index.apply_port(port("9", "u1")));
        assert!(!index.apply_port(port("10", "u1")), "an echo is no change");
        let known = || index.get(&key).port.unwrap().metadata.resource_version.clone().unwrap();
        assert_eq!(known(), "10");
        assert!(index.apply_port(port("3", "u2")));
        assert_eq!(known(), "3", "another object of the same name is not an older state");
        index.remove_port(&key, Some("u1"));
        assert!(index.get(&key).port.is_some(), "removed in place of its predecessor");
    }

    fn odd(version: &str, why: &str) -> OddPort {
        OddPort {
            key: ObjectKey::new("a", "x"),
            uid: "u1".into(),
            resource_version: Some(version.into()),
            finalizers: vec![],
            deleting: false,
            ports: vec![],
            why: why.into(),
        }
    }

    #[test]
    fn what_can_no_longer_be_read_takes_the_place_of_what_was_known_until_it_can() {
        let (index, key) = (Index::default(), ObjectKey::new("a", "x"));
        index.apply_port(port("10", "u1"));
        assert!(index.apply_odd(odd("11", "spec")));
        assert!(!index.apply_odd(odd("12", "spec")), "no news");
        let known = index.get(&key);
        assert!(known.port.is_none() && known.odd.is_some() && index.keys().contains(&key));
        assert!(!index.apply_port(port("10", "u1")), "an older state is back");
        assert!(index.apply_port(port("13", "u1")), "it was put right");
        assert!(index.get(&key).odd.is_none());
        index.apply_odd(odd("14", "spec"));
        index.remove_port(&key, Some("another"));
        assert!(index.get(&key).odd.is_some());
        assert_eq!(index.retain_ports(&HashSet::new()), std::slice::from_ref(&key));
        assert!(index.get(&key).odd.is_none());
    }

    #[test]
    fn a_pod_whose_kuryr_port_cannot_be_read_keeps_its_port_in_neutron() {
        let index = Index::default();
        let base = json!({"metadata": {"namespace": "a", "name": "x", "uid": "p"}, "spec": {"nodeName": "node0"}});
        index.apply_pod(pod(base));
        index.apply_odd(odd("1", "spec"));
        assert!(index.waiting().contains(&PodUid::from("p")), "its port would be a stray");
    }

    #[test]
    fn the_ids_of_a_trunk_are_those_that_pods_may_use() {
        let index = Index::default();
        let nested = |n: u8, parent: u8, state: &str| -> KuryrPort {
            let id = |n: u8| format!("00000000-0000-0000-0000-0000000000{n:02x}");
            let deletion = (!state.is_empty()).then_some("2026-01-01T00:00:00Z");
            serde_json::from_value(json!({
                "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrPort",
                "metadata": {"namespace": "a", "name": format!("p{n}"), "deletionTimestamp": deletion},
                "spec": {"podUid": "p", "nodeName": "n", "vifs": [{
                    "interface": "eth0", "portId": id(n), "networkId": id(1), "mac": "fa:16:3e:00:00:01", "mtu": 1442,
                    "addresses": [],
                    "plug": {"driver": "vlan", "vlan": n, "parent": {"portId": id(parent), "mac": "fa:16:3e:00:00:09"}},
                }]},
                "status": deletion.map(|since| json!({"attachment": {"state": state, "since": since}})),
            }))
            .unwrap()
        };
        for port in [nested(2, 90, ""), nested(3, 90, "Attached"), nested(4, 90, "Released"), nested(5, 91, "")] {
            index.apply_port(port);
        }
        let mut ids: Vec<u16> = index
            .ids_on("00000000-0000-0000-0000-00000000005a".parse().unwrap())
            .into_iter()
            .map(|(_, id)| id.get())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, [2, 3]);
    }
}
