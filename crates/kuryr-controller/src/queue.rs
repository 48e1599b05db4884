//! A keyed work queue.
//!
//! ```text
//!   add ──▶ ready ──next──▶ running ──done──▶ (forgotten)
//!            delayed ──┘      │ add while running
//!               ▲            └──▶ again, as soon as it is done
//!               └── look again later, or retry with back-off
//! ```
//!
//! Invariants: a key is worked on by one worker at a time; however often a key is added while it waits, it is worked on
//! once; what is added while it is worked on is worked on again afterwards; the earlier of two delays wins.

use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// The delay after the first failure of a key.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest delay between two tries of a key.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What becomes of a key that was worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done until somebody adds it again.
    Settled,
    /// Look again after this time, whatever happens in between.
    After(Duration),
    /// It failed: again after a delay that grows with every failure, but not before the given time.
    Retry(Duration),
}

/// The queue. All methods may be called from any task.
pub(crate) struct Queue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    /// Keys to be worked on now, in the order of their arrival, and since when they wait.
    ready: VecDeque<K>,
    /// Since when each key in `ready` waits.
    waiting: HashMap<K, Instant>,
    /// Keys to be worked on later, soonest first. The number keeps keys of equal time apart.
    delayed: BTreeSet<(Instant, u64)>,
    delayed_keys: HashMap<u64, K>,
    due: HashMap<K, (Instant, u64)>,
    running: HashSet<K>,
    /// Keys that were added while they were worked on.
    again: HashSet<K>,
    failures: HashMap<K, u32>,
    next_number: u64,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashMap::new(),
                delayed: BTreeSet::new(),
                delayed_keys: HashMap::new(),
                due: HashMap::new(),
                running: HashSet::new(),
                again: HashSet::new(),
                failures: HashMap::new(),
                next_number: 0,
            }),
            changed: Notify::new(),
        }
    }

    /// Work on `key` as soon as possible.
    pub(crate) fn add(&self, key: K) {
        if self.state.lock().add(key) {
            self.changed.notify_one();
        }
    }

    /// The next key and how long it has waited. The caller must call [`Queue::done`] with it.
    pub(crate) async fn next(&self) -> (K, Duration) {
        loop {
            let (found, soonest) = self.state.lock().take(Instant::now());
            if let Some(found) = found {
                // Another worker may be asleep beside work that is left.
                self.changed.notify_one();
                return found;
            }
            match soonest {
                Some(soonest) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(soonest) => {}
                        () = self.changed.notified() => {}
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Ends the work on `key`.
    pub(crate) fn done(&self, key: &K, outcome: Outcome) {
        self.state.lock().done(key, outcome);
        self.changed.notify_one();
    }

    /// How many times in a row the work on `key` has failed.
    pub(crate) fn failures(&self, key: &K) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether there is new work.
    fn add(&mut self, key: K) -> bool {
        if self.running.contains(&key) {
            self.again.insert(key);
            return false;
        }
        self.cancel_delay(&key);
        if self.waiting.contains_key(&key) {
            return false;
        }
        self.waiting.insert(key.clone(), Instant::now());
        self.ready.push_back(key);
        true
    }

    fn add_after(&mut self, key: K, at: Instant) {
        if self.waiting.contains_key(&key) || self.due.get(&key).is_some_and(|(due, _)| *due <= at) {
            return;
        }
        self.cancel_delay(&key);
        let number = self.next_number;
        self.next_number += 1;
        self.delayed.insert((at, number));
        self.delayed_keys.insert(number, key.clone());
        self.due.insert(key, (at, number));
    }

    fn cancel_delay(&mut self, key: &K) {
        if let Some(due) = self.due.remove(key) {
            self.delayed.remove(&due);
            self.delayed_keys.remove(&due.1);
        }
    }

    /// A key to work on, or else when the next delayed one is due.
    fn take(&mut self, now: Instant) -> (Option<(K, Duration)>, Option<Instant>) {
        while let Some((at, number)) = self.delayed.first().copied().filter(|(at, _)| *at <= now) {
            self.delayed.remove(&(at, number));
            if let Some(key) = self.delayed_keys.remove(&number) {
                self.due.remove(&key);
                self.add(key);
            }
        }
        let Some(key) = self.ready.pop_front() else {
            return (None, self.delayed.first().map(|(at, _)| *at));
        };
        let since = self.waiting.remove(&key).unwrap_or(now);
        self.running.insert(key.clone());
        (Some((key, now.saturating_duration_since(since))), None)
    }

    fn done(&mut self, key: &K, outcome: Outcome) {
        self.running.remove(key);
        match outcome {
            Outcome::Settled => {
                self.failures.remove(key);
            }
            Outcome::After(delay) => {
                self.failures.remove(key);
                self.add_after(key.clone(), Instant::now() + delay);
            }
            Outcome::Retry(at_least) => {
                let failures = self.failures.entry(key.clone()).or_default();
                *failures = failures.saturating_add(1);
                let delay = backoff(*failures).max(at_least);
                self.add_after(key.clone(), Instant::now() + delay);
            }
        }
        if self.again.remove(key) {
            self.add(key.clone());
        }
    }
}

/// The delay before the try that follows `failures` failures: doubled each time, with up to a quarter more so that keys
/// that failed together do not come back together.
fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST_RETRY);
    doubled + doubled.mul_f64(fastrand::f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_key_added_many_times_is_worked_on_once() {
        let queue = Queue::new();
        for _ in 0..5 {
            queue.add("a");
        }
        queue.add("b");
        assert_eq!(queue.next().await.0, "a");
        assert_eq!(queue.next().await.0, "b");
        assert!(queue.state.lock().ready.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_added_while_it_is_worked_on_comes_again_afterwards() {
        let queue = Arc::new(Queue::new());
        queue.add("a");
        let _ = queue.next().await;
        queue.add("a");
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await.0 }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "two workers on one key");
        queue.done(&"a", Outcome::Settled);
        assert_eq!(waiting.await.unwrap(), "a");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_an_event_does_not_wait_for_it() {
        let queue = Queue::new();
        queue.add("a");
        let start = Instant::now();
        for _ in 0..6 {
            let _ = queue.next().await;
            queue.done(&"a", Outcome::Retry(Duration::ZERO));
        }
        assert_eq!(queue.failures(&"a"), 6);
        assert!(start.elapsed() >= Duration::from_millis(100 + 200 + 400 + 800 + 1600));
        let before = Instant::now();
        queue.add("a");
        let _ = queue.next().await;
        assert_eq!(before.elapsed(), Duration::ZERO);
        queue.done(&"a", Outcome::Settled);
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_names_a_time_is_not_asked_before_it() {
        let queue = Queue::new();
        queue.add("a");
        let _ = queue.next().await;
        let start = Instant::now();
        queue.done(&"a", Outcome::Retry(Duration::from_secs(7)));
        let _ = queue.next().await;
        assert!(start.elapsed() >= Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_delays_wins() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.state.lock().add_after("a", start + Duration::from_secs(5));
        queue.state.lock().add_after("a", start + Duration::from_secs(1));
        queue.state.lock().add_after("a", start + Duration::from_secs(9));
        let _ = queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 1);
    }
}
