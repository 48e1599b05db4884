//! What objects were, as long as their changes are not brought about, and what that means for new pods.
//!
//! The port of a new pod is made with all its groups: it has from the beginning what a change gives that takes something from
//! others, which they may still have. The two together may be a way that no world allows. Only an object that says
//! something of both can do that: a policy, which selects pods of one namespace, and the labels of that namespace. So a pod
//! waits for others of its namespace, and only if it may do more than it could have before those changes. What was
//! before this process began is not known: to it, everything was open.

use super::{
    Enforcer,
    step::{Hold, Object},
};
use crate::policy::{Change, Compiler, GroupKey, Pod, Policy, PolicyRule};
use kuryr_model::{ObjectKey, PodUid, PortId, neutron::Direction};
use std::collections::{BTreeMap, HashMap};

/// Objects that have changed since something is to be done that is not done, by namespace.
#[derive(Debug, Default)]
pub(super) struct Past(HashMap<String, Place>);

/// What has changed of a namespace.
#[derive(Debug, Default)]
struct Place {
    /// Its policies as they were before the first of their changes.
    policies: BTreeMap<ObjectKey, Option<Policy>>,
    /// Its labels have changed.
    relabelled: bool,
    /// When something changed last.
    last: u64,
}

/// What a pod may do more than it could have before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gain {
    ingress: bool,
    egress: bool,
    /// Others' rules may let it in that did not.
    member: bool,
    /// When that changed last.
    since: u64,
}

/// Whether the port of a new pod may be made as far as others are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// With all its groups.
    Free,
    /// Not before this is done about that pod.
    After(ObjectKey, Object),
    /// What it would wait for has failed: it does without what it gains, and gets that as a port that is there.
    Without(Gain),
}

impl Past {
    /// Remembers what is to be changed now, and has not been since.
    pub(super) fn note(&mut self, compiler: &Compiler, changes: &[Change], now: u64) {
        for change in changes {
            match change {
                Change::Policy(policy) if compiler.spec(&policy.key) == Some(policy) => {}
                Change::Policy(Policy { key, .. }) | Change::PolicyGone(key) => {
                    let place = self.0.entry(key.namespace.clone()).or_default();
                    place.policies.entry(key.clone()).or_insert_with(|| compiler.spec(key).cloned());
                    place.last = now;
                }
                Change::Namespace(name, _) | Change::NamespaceGone(name) => {
                    let labels = match change {
                        Change::Namespace(_, labels) => Some(labels),
                        _ => None,
                    };
                    // While it is not known nobody means its pods.
                    if compiler.labels(name).is_some_and(|known| Some(known) != labels) {
                        let place = self.0.entry(name.clone()).or_default();
                        (place.relabelled, place.last) = (true, now);
                    }
                }
                _ => {}
            }
        }
    }

    /// Forgets what has been brought about: all that is not done yet is due since `oldest`.
    pub(super) fn forget(&mut self, oldest: Option<u64>) {
        self.0.retain(|_, place| oldest.is_some_and(|oldest| oldest <= place.last));
    }

    /// What a pod may do more than it could have if nothing had changed.
    fn gain(&self, compiler: &Compiler, pod: &Pod) -> Option<Gain> {
        let place = self.0.get(&pod.key.namespace)?;
        let now: Vec<&Policy> =
            compiler.selecting(&pod.uid).iter().filter_map(|policy| compiler.spec(policy)).collect();
        let stays = now.iter().copied().filter(|policy| !place.policies.contains_key(&policy.key));
        let was = place.policies.values().flatten().filter(|policy| policy.pods.matches(&pod.labels));
        let before: Vec<&Policy> = stays.chain(was).collect();
        let ingress = is_wider(&before, &now, |policy| policy.ingress.as_ref());
        let egress = is_wider(&before, &now, |policy| policy.egress.as_ref());
        let gain = Gain { ingress, egress, member: place.relabelled, since: place.last };
        (gain.ingress || gain.egress || gain.member).then_some(gain)
    }
}

/// Whether the policies that select a pod now allow it something that those of before did not, in one direction. Without any
/// everything is allowed.
fn is_wider<'a>(
    before: &[&'a Policy],
    now: &[&'a Policy],
    rules: impl Fn(&'a Policy) -> Option<&'a Vec<PolicyRule>>,
) -> bool {
    let isolates = |policies: &[&'a Policy]| policies.iter().any(|policy| rules(policy).is_some());
    let granted = |policies: &[&'a Policy]| policies.iter().filter_map(|policy| rules(policy)).flatten().collect();
    let known: Vec<&PolicyRule> = granted(before);
    isolates(before) && (!isolates(now) || granted(now).iter().any(|rule| !known.contains(rule)))
}

impl Enforcer {
    /// Whether the port of a pod may be made while others are still to lose.
    pub(super) fn entry(&self, uid: &PodUid) -> Entry {
        let Some(pod) = self.compiler.pod_of(uid) else { return Entry::Free };
        let Some(gain) = self.past.gain(&self.compiler, pod) else { return Entry::Free };
        let mut entry = Entry::Free;
        for other in self.compiler.pods_in(&pod.key.namespace).filter(|other| other.uid != *uid) {
            for object in self.seen.ports_of(&other.uid).flat_map(|port| self.too_wide(other, port, gain.since)) {
                if self.held(&object) != Some(Hold::Closed) {
                    return Entry::After(other.key.clone(), object);
                }
                entry = Entry::Without(gain);
            }
        }
        entry
    }

    /// What is to be made narrower of a pod since then: its port, or groups that this may have.
    fn too_wide(&self, pod: &Pod, port: PortId, since: u64) -> Vec<Object> {
        let Some(known) = self.possible(port) else { return Vec::new() };
        let is_due = self.pods.get(&pod.uid).is_some_and(|dirty| dirty.due.first <= since);
        let own = (is_due && !self.is_closed_enough(&pod.uid)).then_some(Object::Port(port));
        let groups = known.groups.iter().filter_map(|id| self.seen.key(*id));
        let excessive = groups.filter(|key| {
            // One that is not wanted any more goes with the port's change.
            self.compiler.rules(key).is_some()
                && self.groups.get(*key).is_some_and(|due| due.first <= since)
                && self.seen.group(key).is_some_and(|group| group.stale || !self.excess(key, group).is_empty())
        });
        own.into_iter().chain(excessive.cloned().map(Object::Group)).collect()
    }

    /// Whether a group gives a pod something of what it gains.
    pub(super) fn is_gain(&self, gain: Gain, key: &GroupKey) -> bool {
        let gives = |direction| match direction {
            Direction::Ingress => gain.ingress,
            Direction::Egress => gain.egress,
        };
        match key {
            GroupKey::IngressOpen => gain.ingress,
            GroupKey::EgressOpen => gain.egress,
            GroupKey::Peers(_) => gain.member,
            // These let in and out nobody but the pod itself and its node.
            GroupKey::Node(_) | GroupKey::Loop(_) => false,
            GroupKey::Policy(_) | GroupKey::Together(_) | GroupKey::Balanced(_) => {
                self.compiler.rules(key).into_iter().flatten().any(|rule| gives(rule.direction))
            }
        }
    }
}
