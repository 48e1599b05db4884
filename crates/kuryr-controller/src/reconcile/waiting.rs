//! Pods that have no ports, and why.

use crate::error::Reason;
use kuryr_model::ObjectKey;
use std::collections::HashMap;

/// Who waits for what, in the order in which they began to.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pods: HashMap<ObjectKey, (Reason, u64)>,
    next: u64,
}

impl Waiting {
    /// A pod waits; whether that is news.
    pub(super) fn add(&mut self, key: &ObjectKey, reason: Reason) -> bool {
        self.next += 1;
        let new = (reason, self.next);
        match self.pods.get_mut(key) {
            Some((said, _)) => std::mem::replace(said, reason) != reason,
            None => self.pods.insert(key.clone(), new).is_none(),
        }
    }

    /// A pod does not wait any more; whether it did.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.pods.remove(key).is_some()
    }

    /// The reason of each.
    pub(super) fn reasons(&self) -> impl Iterator<Item = &'static str> {
        self.pods.values().map(|(reason, _)| reason.as_str())
    }

    /// The `count` of those for whom there is no room that have waited longest.
    pub(super) fn first_for_room(&self, count: usize) -> Vec<ObjectKey> {
        self.first(count, |_, reason| reason.lacks_room())
    }

    /// The `count` of those whose `KuryrPort` is not taken in a namespace that have waited longest.
    pub(super) fn first_refused(&self, namespace: &str, count: usize) -> Vec<ObjectKey> {
        self.first(count, |key, reason| key.namespace == namespace && reason == Reason::KubernetesRefused)
    }

    /// The one that has waited longest of those whose node is full, if it is `there`.
    pub(super) fn first_on_full_node(&self, there: impl Fn(&ObjectKey) -> bool) -> Vec<ObjectKey> {
        self.first(1, |key, reason| reason == Reason::NodeFull && there(key))
    }

    fn first(&self, count: usize, wanted: impl Fn(&ObjectKey, Reason) -> bool) -> Vec<ObjectKey> {
        if count == 0 {
            return Vec::new();
        }
        let mut pods: Vec<_> = self.pods.iter().filter(|(key, (reason, _))| wanted(key, *reason)).collect();
        pods.sort_unstable_by_key(|(_, (_, since))| *since);
        pods.into_iter().take(count).map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_woken_as_there_is_room_for_and_the_first_come_first() {
        let key = |n: u8| ObjectKey::new("shop", format!("pod-{n}"));
        let mut waiting = Waiting::default();
        for (n, reason) in
            [(3, Reason::QuotaExceeded), (1, Reason::SubnetsFull), (4, Reason::CloudSlow), (2, Reason::QuotaExceeded)]
        {
            assert!(waiting.add(&key(n), reason));
        }
        assert!(!waiting.add(&key(3), Reason::QuotaExceeded), "no news");
        assert_eq!(waiting.first_for_room(2), [key(3), key(1)]);
        assert_eq!(waiting.first_for_room(9), [key(3), key(1), key(2)]);
        assert_eq!(waiting.first_for_room(0), []);
        assert!(waiting.remove(&key(3)) && !waiting.remove(&key(3)));
        assert_eq!(waiting.first_for_room(1), [key(1)]);
        assert_eq!(waiting.reasons().count(), 3);
        waiting.add(&key(5), Reason::NodeFull);
        assert_eq!(waiting.first_on_full_node(|_| true), [key(5)]);
        assert_eq!(waiting.first_on_full_node(|full| *full != key(5)), []);
        waiting.remove(&key(5));
        waiting.add(&key(1), Reason::KubernetesRefused);
        assert_eq!((waiting.first_refused("shop", 5), waiting.first_refused("bank", 5)), (vec![key(1)], vec![]));
    }
}
