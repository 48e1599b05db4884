//! The fourth step: which groups each pod carries.

use super::{
    Compiler, isolates,
    state::{Class, Covered, Grantor, GrantorId, Grouping, Listener, PodId, PodState},
};
use crate::policy::{
    group::{GroupKey, ListenerKey, LoopPath, Rule},
    world::Endpoint,
};
use kuryr_model::neutron::Direction;
use std::{collections::BTreeSet, sync::Arc};

impl Compiler {
    pub(super) fn settle_grouping(&mut self) {
        for id in std::mem::take(&mut self.dirty.grouping) {
            let Some(class) = self.pods.get(&id).map(|state| self.class(state)) else { continue };
            // Classes first: their groups are among the pod's.
            if let Some(class) = &class {
                self.join_class(class, id);
            }
            if let Some(grouping) = self.pods.get(&id).map(|state| self.grouping(id, state, class)) {
                self.set_grouping(id, grouping);
            }
        }
    }

    pub(super) fn set_grouping(&mut self, id: PodId, grouping: Grouping) {
        let Some(state) = self.pods.get_mut(&id) else { return };
        if state.grouping == grouping {
            return;
        }
        let before = std::mem::replace(&mut state.grouping, grouping);
        let now = state.grouping.clone();
        self.dirty.before.entry(state.pod.uid.clone()).or_insert_with(|| Some(Arc::clone(&before.groups)));
        for key in now.groups.difference(&before.groups) {
            let carriers = self.carriers.entry(key.clone()).or_default();
            *carriers += 1;
            if *carriers == 1 {
                self.dirty.groups.insert(key.clone());
            }
        }
        for key in before.groups.difference(&now.groups) {
            if let Some(carriers) = self.carriers.get_mut(key) {
                *carriers -= 1;
                if *carriers == 0 {
                    self.carriers.remove(key);
                    self.dirty.groups.insert(key.clone());
                }
            }
        }
        for (id, rule) in now.hairpins.difference(&before.hairpins) {
            if let Some(grantor) = self.grantors.get_mut(id) {
                *grantor.hairpins.entry(rule.clone()).or_default() += 1;
                self.dirty.rules.insert(*id);
            }
        }
        for (id, rule) in before.hairpins.difference(&now.hairpins) {
            let Some(grantor) = self.grantors.get_mut(id) else { continue };
            if let Some(pods) = grantor.hairpins.get_mut(rule) {
                *pods -= 1;
                if *pods == 0 {
                    grantor.hairpins.remove(rule);
                }
                self.dirty.rules.insert(*id);
            }
        }
        if let Some(class) = before.class.filter(|class| now.class.as_ref() != Some(class)) {
            self.leave_class(&class, id);
        }
    }

    /// The policies that select a pod.
    fn policies<'a>(&'a self, pod: &'a PodState) -> impl Iterator<Item = (GrantorId, &'a Grantor)> {
        pod.facts.policies.iter().filter_map(|id| Some((*id, self.grantors.get(id)?)))
    }

    /// All who grant a pod egress, if it is isolated for that.
    fn egress_grantors(&self, pod: &PodState) -> Option<Vec<GrantorId>> {
        let policies = self.policies(pod).filter(|(_, grantor)| isolates(grantor).1);
        let mut grantors: Vec<GrantorId> = policies.map(|(id, _)| id).collect();
        if grantors.is_empty() {
            return None;
        }
        grantors.extend(self.node(pod));
        grantors.sort_unstable();
        Some(grantors)
    }

    /// Whether the grantor is one of the pod's policies, or its node.
    pub(super) fn is_granted_by(&self, pod: &PodState, grantor: GrantorId) -> bool {
        pod.facts.policies.contains(&grantor) || self.node(pod) == Some(grantor)
    }

    /// The pod's node, if it is known.
    fn node(&self, pod: &PodState) -> Option<GrantorId> {
        self.nodes.get(pod.pod.node.as_deref()?).copied()
    }

    /// A pod's class, if there is anything that its grantors could allow together only.
    fn class(&self, pod: &PodState) -> Option<Class> {
        let grantors = self.egress_grantors(pod)?;
        let everything = grantors.iter().any(|id| self.grantors.get(id).is_some_and(|grantor| grantor.everything));
        (grantors.len() > 1 && !everything).then(|| grantors.into())
    }

    fn grouping(&self, id: PodId, pod: &PodState, class: Option<Class>) -> Grouping {
        let into = self.policies(pod).any(|(_, grantor)| isolates(grantor).0);
        let out = self.egress_grantors(pod);
        let mut groups: BTreeSet<GroupKey> = self.policies(pod).map(|(_, grantor)| grantor.key_for(&pod.pod)).collect();
        for (query, answer) in &pod.facts.answers {
            let answered = self.queries.get(query).and_then(|state| state.answers.get(answer));
            groups.extend(answered.map(|(key, _)| key.clone()));
        }
        if into || out.is_some() {
            let node = self.node(pod).and_then(|id| self.grantors.get(&id));
            groups.extend(node.map(|node| node.key_for(&pod.pod)));
        }
        let mut hairpins = BTreeSet::new();
        if into {
            hairpins = self.hairpins(pod);
            groups.extend(self.let_in.get(&id).into_iter().flatten().cloned());
        } else {
            groups.insert(GroupKey::IngressOpen);
        }
        match &out {
            Some(grantors) => {
                let paths = self.loop_paths(pod, grantors);
                groups.extend((!paths.is_empty()).then(|| GroupKey::Loop(Arc::new(paths))));
                let together = class.as_ref().and_then(|class| self.classes.get(class)).map(|state| &state.together);
                groups.extend(together.cloned().flatten());
            }
            None => drop(groups.insert(GroupKey::EgressOpen)),
        }
        Grouping { groups: Arc::new(groups), class, hairpins }
    }

    /// The listeners that a pod is behind and that let it be seen as the sender, with its places among the endpoints.
    fn behind<'a>(&'a self, pod: &'a PodState) -> impl Iterator<Item = (ListenerKey, &'a Listener, Vec<usize>)> {
        let keys = pod.pod.addresses.iter().filter_map(|address| self.listeners_at.get(address)).flatten();
        let keys: BTreeSet<ListenerKey> = keys.copied().collect();
        keys.into_iter().filter_map(|key| {
            let listener = self.listeners.get(&key).filter(|listener| !listener.hides_client)?;
            let own = |(_, it): &(usize, &Endpoint)| pod.pod.addresses.contains(&it.address);
            let places = listener.endpoints.iter().enumerate().filter(own).map(|(index, _)| index).collect();
            Some((key, listener, places))
        })
    }

    /// The rules that let a pod in when it reaches itself through its Services: it arrives with the VIP as the sender,
    /// and nobody else does. The first of its policies has them for all pods that need them.
    fn hairpins(&self, pod: &PodState) -> BTreeSet<(GrantorId, Rule)> {
        let isolating = self.policies(pod).filter(|(_, grantor)| isolates(grantor).0);
        let Some((first, _)) = isolating.min_by_key(|(_, grantor)| grantor.uid()) else { return BTreeSet::new() };
        let rules = self.behind(pod).flat_map(|(key, listener, places)| {
            let targets: Vec<u16> =
                places.iter().filter_map(|it| listener.endpoints.get(*it)).map(|it| it.number).collect();
            let rule = move |target| Rule::with(Direction::Ingress, key.vip.into()).on(key.protocol, target);
            targets.into_iter().map(rule)
        });
        rules.map(|rule| (first, rule)).collect()
    }

    /// The ways of a pod to itself through listeners of which its grantors allow all but the pod itself.
    fn loop_paths(&self, pod: &PodState, grantors: &[GrantorId]) -> BTreeSet<LoopPath> {
        if grantors.iter().any(|id| self.grantors.get(id).is_some_and(|grantor| grantor.everything)) {
            return BTreeSet::new();
        }
        let mut paths = BTreeSet::new();
        for (key, listener, places) in self.behind(pod) {
            let mut allowed = vec![false; listener.endpoints.len()];
            for cover in grantors.iter().filter_map(|id| listener.covers.get(id)) {
                match &cover.endpoints {
                    Covered::All => allowed.fill(true),
                    Covered::Some(some) => allowed.iter_mut().zip(some.iter()).for_each(|(all, one)| *all |= one),
                    Covered::None => {}
                }
            }
            let refused: Vec<usize> = (0..allowed.len()).filter(|it| allowed.get(*it) == Some(&false)).collect();
            if !refused.is_empty() && refused.iter().all(|it| places.contains(it)) {
                let own = places.iter().filter_map(|it| listener.endpoints.get(*it));
                paths.extend(own.map(|it| LoopPath { listener: key, target: it.number }));
            }
        }
        paths
    }
}
