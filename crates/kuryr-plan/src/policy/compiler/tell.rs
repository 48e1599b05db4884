//! Questions about single objects, for those who carry out and report what is compiled.

use super::{Compiler, state::Owner};
use crate::policy::{group::GroupKey, selector::Labels, spec::Policy, world::Pod};
use kuryr_model::{ObjectKey, PodUid, neutron::Direction};
use std::collections::BTreeSet;

impl Compiler {
    /// All groups but the open ones.
    pub fn all_groups(&self) -> impl Iterator<Item = &GroupKey> {
        self.groups.keys()
    }

    /// A pod as it was told, if it has a network of its own.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        let id = self.pods_by_key.get(key)?;
        self.pods.get(id).map(|state| &state.pod)
    }

    /// A pod by its UID, if it has a network of its own.
    pub(crate) fn pod_of(&self, uid: &PodUid) -> Option<&Pod> {
        let id = self.pods_by_uid.get(uid)?;
        self.pods.get(id).map(|state| &state.pod)
    }

    /// The pods of a namespace that have a network of their own.
    pub(crate) fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        let ids = self.namespaces.get(namespace).into_iter().flat_map(|namespace| &namespace.pods);
        ids.filter_map(|id| self.pods.get(id)).map(|state| &state.pod)
    }

    /// The labels of a namespace, if it is known.
    pub(crate) fn labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)?.labels.as_ref()
    }

    /// A policy as it was told.
    pub(crate) fn spec(&self, policy: &ObjectKey) -> Option<&Policy> {
        match &self.grantors.get(self.policies.get(policy)?)?.owner {
            Owner::Policy(policy) => Some(policy),
            Owner::Node(..) => None,
        }
    }

    /// The policies that select a pod.
    #[must_use]
    pub fn selecting(&self, pod: &PodUid) -> BTreeSet<ObjectKey> {
        let state = self.pods_by_uid.get(pod).and_then(|id| self.pods.get(id));
        let grantors = state.into_iter().flat_map(|state| &state.facts.policies);
        grantors.filter_map(|id| self.owner(*id)).cloned().collect()
    }

    /// The policies that a group is for: its own, those that name its members as peers, those that allow it together.
    #[must_use]
    pub fn users(&self, group: &GroupKey) -> BTreeSet<ObjectKey> {
        match group {
            GroupKey::Policy(group) => self.policy(&group.policy).into_iter().cloned().collect(),
            GroupKey::Peers(set) => {
                let asks = self.query_ids.iter().filter(|(query, _)| {
                    query.peers == set.peers
                        && query.name.as_ref().map(|(protocol, name)| (*protocol, name.as_str()))
                            == set.port.as_ref().map(|port| (port.protocol, port.name.as_str()))
                });
                let states = asks.filter_map(|(_, id)| self.queries.get(id));
                states.flat_map(|state| state.users.keys()).filter_map(|id| self.owner(*id)).cloned().collect()
            }
            GroupKey::Together(together) => {
                together.policies.iter().filter_map(|uid| self.policy(uid)).cloned().collect()
            }
            GroupKey::IngressOpen
            | GroupKey::EgressOpen
            | GroupKey::Node(_)
            | GroupKey::Loop(_)
            | GroupKey::Balanced(_) => BTreeSet::new(),
        }
    }

    /// The directions in which a policy isolates. `None` if it is not known.
    #[must_use]
    pub fn isolated_by(&self, policy: &ObjectKey) -> Option<Vec<Direction>> {
        let grantor = self.policies.get(policy).and_then(|id| self.grantors.get(id))?;
        let ingress = grantor.ingress.is_some().then_some(Direction::Ingress);
        let egress = grantor.egress.is_some().then_some(Direction::Egress);
        Some(ingress.into_iter().chain(egress).collect())
    }

    /// What of a policy cannot be read.
    #[must_use]
    pub fn problems(&self, policy: &ObjectKey) -> Vec<String> {
        let problems = self.spec(policy).into_iter().flat_map(|policy| &policy.problems);
        problems.map(ToString::to_string).collect()
    }

    /// The Services that pods are behind which a policy isolates for ingress, and which hide their clients from them without
    /// being guarded by their listeners.
    #[must_use]
    pub fn hidden_behind(&self, policy: &ObjectKey) -> BTreeSet<ObjectKey> {
        let Some(id) = self.policies.get(policy) else { return BTreeSet::new() };
        if self.grantors.get(id).is_none_or(|grantor| grantor.ingress.is_none()) {
            return BTreeSet::new();
        }
        let listeners = self.listeners.values().filter(|listener| listener.hides_client);
        let isolated = |address| self.at(address).any(|pod| pod.facts.policies.contains(id));
        let hidden = listeners.filter(|listener| listener.endpoints.iter().any(|end| isolated(&end.address)));
        let services = hidden.flat_map(|listener| listener.sources.keys());
        services.filter(|service| !self.guarded.contains_key(*service)).cloned().collect()
    }

    fn owner(&self, id: super::state::GrantorId) -> Option<&ObjectKey> {
        match &self.grantors.get(&id)?.owner {
            Owner::Policy(policy) => Some(&policy.key),
            Owner::Node(..) => None,
        }
    }
}
