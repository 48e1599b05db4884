//! One operation at a time for each key, with a limit on the waiting.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout_at},
};

/// A lock for every key; keys that nobody holds or waits for take no memory.
#[derive(Debug)]
pub struct Locks<K: Eq + Hash + Clone> {
    held: Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>,
}

impl<K: Eq + Hash + Clone> Default for Locks<K> {
    fn default() -> Self {
        Self { held: Arc::default() }
    }
}

/// Holds a key's lock until it is dropped.
#[derive(Debug)]
pub struct Held<K: Eq + Hash + Clone> {
    locks: Arc<Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>>,
    key: K,
    // Taken in `drop` only.
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Locks<K> {
    /// Waits for the lock of `key`; `None` if it is not free before `deadline`.
    pub async fn lock(&self, key: K, deadline: Instant) -> Option<Held<K>> {
        let mutex = Arc::clone(lock(&self.held).entry(key.clone()).or_default());
        // Made before waiting: it tidies up whether or not the lock is got.
        let mut held = Held { locks: Arc::clone(&self.held), key, guard: None };
        held.guard = Some(timeout_at(deadline, mutex.lock_owned()).await.ok()?);
        Some(held)
    }
}

impl<K: Eq + Hash + Clone> Drop for Held<K> {
    fn drop(&mut self) {
        self.guard = None;
        let mut locks = lock(&self.locks);
        // Whoever waits holds a reference, and takes it under this lock only.
        if locks.get(&self.key).is_some_and(|mutex| Arc::strong_count(mutex) == 1) {
            locks.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_held_by_one_and_leaves_nothing_behind() {
        let locks = Arc::new(Locks::default());
        let first = locks.lock("a", soon()).await.unwrap();
        assert!(locks.lock("b", soon()).await.is_some());
        assert!(locks.lock("a", soon()).await.is_none(), "held");
        let waiting = tokio::spawn({
            let locks = Arc::clone(&locks);
            async move { locks.lock("a", soon()).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(lock(&locks.held).is_empty());
    }
}
