//! The third step: what the grantors of a class of pods allow only together.

use super::{
    Compiler,
    state::{Class, ClassState, Covered, GrantorId, Owner, PodId},
};
use crate::policy::group::{GroupKey, ListenerKey, Together};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

impl Compiler {
    pub(super) fn join_class(&mut self, class: &Class, pod: PodId) {
        if !self.classes.contains_key(class) {
            for id in class.iter() {
                if let Some(grantor) = self.grantors.get_mut(id) {
                    grantor.classes.insert(Arc::clone(class));
                }
            }
            let grantors = class.iter().filter_map(|id| self.grantors.get(id));
            let seen: BTreeSet<&ListenerKey> = grantors.flat_map(|grantor| &grantor.listeners).collect();
            let joint: BTreeSet<ListenerKey> =
                seen.into_iter().filter(|key| self.only_together(class, **key)).copied().collect();
            let together = self.together(class, &joint);
            self.dirty.groups.extend(together.clone());
            self.classes.insert(Arc::clone(class), ClassState { pods: BTreeSet::new(), joint, together });
        }
        if let Some(state) = self.classes.get_mut(class) {
            state.pods.insert(pod);
        }
    }

    pub(super) fn leave_class(&mut self, class: &Class, pod: PodId) {
        let Some(state) = self.classes.get_mut(class) else { return };
        state.pods.remove(&pod);
        if state.pods.is_empty() {
            self.classes.remove(class);
            for id in class.iter() {
                if let Some(grantor) = self.grantors.get_mut(id) {
                    grantor.classes.remove(class);
                }
            }
        }
    }

    pub(super) fn settle_classes(&mut self) {
        let dirty = std::mem::take(&mut self.dirty.joint);
        let mut touched: HashSet<Class> = HashSet::new();
        for (class, key) in dirty {
            let joint = self.only_together(&class, key);
            let Some(state) = self.classes.get_mut(&class) else { continue };
            if joint {
                state.joint.insert(key)
            } else {
                state.joint.remove(&key)
            };
            touched.insert(class);
        }
        for class in touched {
            let Some(joint) = self.classes.get(&class).map(|state| &state.joint) else { continue };
            let together = self.together(&class, joint);
            let Some(state) = self.classes.get_mut(&class) else { continue };
            // Even under the same key it may have other rules.
            self.dirty.groups.extend(state.together.iter().chain(&together).cloned());
            if state.together != together {
                self.dirty.grouping.extend(&state.pods);
                state.together = together;
            }
        }
    }

    /// Whether these grantors allow the whole of a listener, and none of them does so alone.
    pub(super) fn only_together(&self, grantors: &[GrantorId], key: ListenerKey) -> bool {
        let Some(listener) = self.listeners.get(&key) else { return false };
        let mut allowed = vec![false; listener.endpoints.len()];
        for cover in grantors.iter().filter_map(|id| listener.covers.get(id)) {
            match &cover.endpoints {
                Covered::All => return false,
                Covered::Some(some) => allowed.iter_mut().zip(some.iter()).for_each(|(all, one)| *all |= one),
                Covered::None => {}
            }
        }
        !allowed.is_empty() && allowed.iter().all(|it| *it)
    }

    /// The group for listeners that a class allows only together. It names those grantors that have a part in any of
    /// them and not the whole class, so that pods on many nodes or with more policies share it.
    fn together(&self, class: &Class, joint: &BTreeSet<ListenerKey>) -> Option<GroupKey> {
        let listeners: Vec<_> = joint.iter().filter_map(|key| self.listeners.get(key)).collect();
        let has_part = |id: &&GrantorId| {
            let covers = listeners.iter().filter_map(|listener| listener.covers.get(id));
            covers.into_iter().any(|cover| matches!(cover.endpoints, Covered::Some(_)))
        };
        let mut together = Together { policies: BTreeSet::new(), node: None };
        for grantor in class.iter().filter(has_part).filter_map(|id| self.grantors.get(id)) {
            match &grantor.owner {
                Owner::Policy(policy) => drop(together.policies.insert(policy.uid.clone())),
                Owner::Node(name, _) => together.node = Some(Arc::clone(name)),
            }
        }
        (!joint.is_empty()).then(|| GroupKey::Together(Arc::new(together)))
    }
}
