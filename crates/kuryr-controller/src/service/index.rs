//! What the controller knows of Services: fed by watches, read by the reconciler.

use super::lean::{Seen, SeenSlice};
use crate::index::{is_newer, retain};
use ipnet::IpNet;
use kuryr_model::{KuryrLoadBalancer, ObjectKey, ServiceUid};
use kuryr_plan::service::Slice;
use parking_lot::RwLock;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// The index. Cheap to read from many tasks.
#[derive(Default)]
pub(crate) struct ServiceIndex {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    services: HashMap<ObjectKey, Arc<Seen>>,
    /// The slices of each Service, by their own names.
    slices: HashMap<ObjectKey, BTreeMap<String, Arc<Slice>>>,
    /// The Service of each slice.
    owners: HashMap<ObjectKey, ObjectKey>,
    load_balancers: HashMap<ObjectKey, Arc<KuryrLoadBalancer>>,
    nodes: BTreeMap<String, Vec<IpAddr>>,
}

/// All that is known under one key.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) service: Option<Arc<Seen>>,
    pub(crate) slices: Vec<Arc<Slice>>,
    pub(crate) load_balancer: Option<Arc<KuryrLoadBalancer>>,
}

impl ServiceIndex {
    pub(crate) fn get(&self, key: &ObjectKey) -> Known {
        let state = self.state.read();
        Known {
            service: state.services.get(key).cloned(),
            slices: state.slices.get(key).into_iter().flat_map(|slices| slices.values().cloned()).collect(),
            load_balancer: state.load_balancers.get(key).cloned(),
        }
    }

    /// Every key under which there is a Service or a `KuryrLoadBalancer`.
    pub(crate) fn keys(&self) -> HashSet<ObjectKey> {
        let state = self.state.read();
        state.services.keys().chain(state.load_balancers.keys()).cloned().collect()
    }

    /// The UIDs of all Services and of those that `KuryrLoadBalancer`s are for, with their keys.
    pub(crate) fn uids(&self) -> HashMap<ServiceUid, ObjectKey> {
        let state = self.state.read();
        let held = state.load_balancers.iter().map(|(key, held)| (held.spec.service_uid.clone(), key.clone()));
        let there = state.services.iter().map(|(key, seen)| (seen.service.uid.clone(), key.clone()));
        held.chain(there).collect()
    }

    /// The addresses of the nodes.
    pub(crate) fn nodes(&self) -> Vec<IpNet> {
        let state = self.state.read();
        let all: BTreeSet<IpNet> = state.nodes.values().flatten().map(|ip| IpNet::from(*ip)).collect();
        all.into_iter().collect()
    }

    /// Takes over a Service; `true` if anything that matters changed.
    pub(crate) fn apply_service(&self, seen: Seen) -> bool {
        let mut state = self.state.write();
        let changed = state.services.get(&seen.service.key).is_none_or(|known| **known != seen);
        if changed {
            state.services.insert(seen.service.key.clone(), Arc::new(seen));
        }
        changed
    }

    pub(crate) fn remove_service(&self, key: &ObjectKey) {
        self.state.write().services.remove(key);
    }

    /// Drops all Services that are not in `seen`; gives their keys.
    pub(crate) fn retain_services(&self, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        retain(&mut self.state.write().services, seen)
    }

    /// Takes over a slice; gives the Services that it concerns, if anything changed.
    pub(crate) fn apply_slice(&self, key: &ObjectKey, seen: SeenSlice) -> Vec<ObjectKey> {
        let mut state = self.state.write();
        let before = state.owners.get(key).cloned();
        let known = before.as_ref().and_then(|owner| state.slices.get(owner)?.get(&key.name));
        if before == seen.service && known.is_some_and(|known| **known == seen.slice) {
            return Vec::new();
        }
        let mut touched: Vec<ObjectKey> = state.remove_slice(key).into_iter().collect();
        if let Some(owner) = seen.service {
            state.owners.insert(key.clone(), owner.clone());
            state.slices.entry(owner.clone()).or_default().insert(key.name.clone(), Arc::new(seen.slice));
            if !touched.contains(&owner) {
                touched.push(owner);
            }
        }
        touched
    }

    /// Forgets a slice; gives the Service that it was of.
    pub(crate) fn remove_slice(&self, key: &ObjectKey) -> Option<ObjectKey> {
        self.state.write().remove_slice(key)
    }

    /// Drops all slices that are not in `seen`; gives the keys of their Services.
    pub(crate) fn retain_slices(&self, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        let mut state = self.state.write();
        let gone: Vec<ObjectKey> = state.owners.keys().filter(|key| !seen.contains(*key)).cloned().collect();
        gone.iter().filter_map(|key| state.remove_slice(key)).collect()
    }

    /// Takes over a `KuryrLoadBalancer`, unless what is known of the same object is newer; `true` if anything changed that
    /// a reconciler acts on. What the controller itself wrote and hears of again changes nothing.
    pub(crate) fn apply_load_balancer(&self, mut held: KuryrLoadBalancer) -> bool {
        held.metadata.managed_fields = None;
        let mut state = self.state.write();
        let key = held.key();
        let known = state.load_balancers.get(&key);
        if known.is_some_and(|known| is_newer::<KuryrLoadBalancer>(known, &held)) {
            return false;
        }
        let acted_on = |held: &KuryrLoadBalancer| (held.metadata.uid.clone(), held.deleting(), held.spec.clone());
        let changed = known.is_none_or(|known| acted_on(known) != acted_on(&held));
        state.load_balancers.insert(key, Arc::new(held));
        changed
    }

    /// Forgets a `KuryrLoadBalancer`, unless another object has its name by now.
    pub(crate) fn remove_load_balancer(&self, key: &ObjectKey, uid: Option<&str>) {
        let mut state = self.state.write();
        let same = |known: &Arc<KuryrLoadBalancer>| uid.is_none() || known.metadata.uid.as_deref() == uid;
        if state.load_balancers.get(key).is_some_and(same) {
            state.load_balancers.remove(key);
        }
    }

    /// Drops all `KuryrLoadBalancer`s that are not in `seen`; gives their keys.
    pub(crate) fn retain_load_balancers(&self, seen: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        retain(&mut self.state.write().load_balancers, seen)
    }

    /// Takes over a node's addresses; `true` if they changed.
    pub(crate) fn apply_node(&self, name: String, addresses: Vec<IpAddr>) -> bool {
        let mut state = self.state.write();
        let changed = state.nodes.get(&name) != Some(&addresses);
        state.nodes.insert(name, addresses);
        changed
    }

    /// Forgets a node; `true` if it was known.
    pub(crate) fn remove_node(&self, name: &str) -> bool {
        self.state.write().nodes.remove(name).is_some()
    }

    /// Drops all nodes that are not in `seen`; `true` if there were any.
    pub(crate) fn retain_nodes(&self, seen: &HashSet<ObjectKey>) -> bool {
        let listed: HashSet<&str> = seen.iter().map(|key| key.name.as_str()).collect();
        let mut state = self.state.write();
        let before = state.nodes.len();
        state.nodes.retain(|name, _| listed.contains(name.as_str()));
        state.nodes.len() != before
    }
}

impl State {
    fn remove_slice(&mut self, key: &ObjectKey) -> Option<ObjectKey> {
        let owner = self.owners.remove(key)?;
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(&key.name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        Some(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::lean::tests::{seen, seen_slice};
    use serde_json::json;

    fn web() -> ObjectKey {
        ObjectKey::new("a", "web")
    }

    fn held(version: &str, uid: &str) -> KuryrLoadBalancer {
        serde_json::from_value(json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrLoadBalancer",
            "metadata": {"namespace": "a", "name": "web", "uid": uid, "resourceVersion": version},
            "spec": {"serviceUid": "s"},
        }))
        .unwrap()
    }

    #[test]
    fn only_changes_that_matter_are_reported() {
        let index = ServiceIndex::default();
        let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
        assert!(index.apply_service(seen(&spec)));
        assert!(!index.apply_service(seen(&spec)));
        let slice = ObjectKey::new("a", "web-1");
        assert_eq!(index.apply_slice(&slice, seen_slice(&["10.0.0.1"])), [web()]);
        assert_eq!(index.apply_slice(&slice, seen_slice(&["10.0.0.1"])), []);
        assert_eq!(index.apply_slice(&slice, seen_slice(&["10.0.0.1", "10.0.0.2"])), [web()]);
        assert_eq!(index.get(&web()).slices.len(), 1);
    }

    #[test]
    fn a_slice_that_changes_its_service_concerns_both() {
        let index = ServiceIndex::default();
        let slice = ObjectKey::new("a", "web-1");
        index.apply_slice(&slice, seen_slice(&["10.0.0.1"]));
        let mut moved = seen_slice(&["10.0.0.1"]);
        let other = ObjectKey::new("a", "other");
        moved.service = Some(other.clone());
        assert_eq!(index.apply_slice(&slice, moved), [web(), other.clone()]);
        assert!(index.get(&web()).slices.is_empty());
        assert_eq!(index.remove_slice(&slice), Some(other.clone()));
        assert_eq!((index.remove_slice(&slice), index.get(&other).slices.len()), (None, 0));
    }

    #[test]
    fn what_a_new_listing_does_not_have_is_gone() {
        let index = ServiceIndex::default();
        index.apply_service(seen(&json!({})));
        index.apply_slice(&ObjectKey::new("a", "web-1"), seen_slice(&[]));
        index.apply_load_balancer(held("1", "u"));
        let nothing = HashSet::new();
        assert_eq!(index.retain_slices(&nothing), [web()]);
        assert_eq!(index.retain_services(&nothing), [web()]);
        assert_eq!(index.keys(), HashSet::from([web()]), "the KuryrLoadBalancer is still to be let go");
        assert_eq!(index.retain_load_balancers(&nothing), [web()]);
        assert!(index.keys().is_empty());
    }

    #[test]
    fn an_older_state_of_an_object_does_not_replace_a_newer_one() {
        let index = ServiceIndex::default();
        assert!(index.apply_load_balancer(held("10", "u1")));
        assert!(!index.apply_load_balancer(held("9", "u1")));
        let known = || index.get(&web()).load_balancer.unwrap().metadata.resource_version.clone().unwrap();
        assert_eq!(known(), "10");
        assert!(index.apply_load_balancer(held("3", "u2")), "another object of the same name is not an older state");
        index.remove_load_balancer(&web(), Some("u1"));
        assert!(index.get(&web()).load_balancer.is_some(), "removed in place of its predecessor");
    }

    #[test]
    fn nodes_are_known_by_their_addresses() {
        let index = ServiceIndex::default();
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        assert!(index.apply_node("n".into(), vec![ip]));
        assert!(!index.apply_node("n".into(), vec![ip]));
        assert_eq!(index.nodes(), [IpNet::from(ip)]);
        assert!(index.remove_node("n") && index.nodes().is_empty());
    }
}
