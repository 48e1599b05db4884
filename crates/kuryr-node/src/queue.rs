//! A queue of keys that want attention: each at most once, and never two workers on one key.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

#[derive(Debug)]
struct State<K> {
    /// In the order in which they came.
    waiting: VecDeque<K>,
    /// Being worked on; those that are also waiting get their turn afterwards.
    busy: BTreeSet<K>,
}

/// The queue. What is put in says only *that* something has changed; who takes it looks at what is.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

impl<K: Ord + Clone> Default for Queue<K> {
    fn default() -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), busy: BTreeSet::new() }), changed: Notify::new() }
    }
}

impl<K: Ord + Clone> Queue<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a key in, unless it waits already.
    pub fn put(&self, key: K) {
        let mut state = self.lock();
        if !state.waiting.contains(&key) {
            state.waiting.push_back(key);
            self.changed.notify_one();
        }
    }

    /// Waits for a key that nobody works on. [`Self::done`] must follow.
    pub async fn take(&self) -> K {
        loop {
            if let Some(key) = self.try_take() {
                return key;
            }
            self.changed.notified().await;
        }
    }

    fn try_take(&self) -> Option<K> {
        let mut state = self.lock();
        let index = state.waiting.iter().position(|key| !state.busy.contains(key))?;
        let key = state.waiting.remove(index)?;
        state.busy.insert(key.clone());
        Some(key)
    }

    /// Says that the work on a key has ended.
    pub fn done(&self, key: &K) {
        self.lock().busy.remove(key);
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_is_worked_on_by_one() {
        let queue = Queue::default();
        for key in ["a", "b", "a"] {
            queue.put(key);
        }
        assert_eq!(queue.take().await, "a");
        queue.put("a");
        assert_eq!(queue.take().await, "b");
        assert_eq!(queue.try_take(), None, "a is being worked on");
        queue.done(&"a");
        assert_eq!(queue.take().await, "a");
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!(queue.try_take(), None);
    }
}
