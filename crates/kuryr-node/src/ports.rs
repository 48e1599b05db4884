//! The `KuryrPort`s of this node in memory, and the ADDs that wait for them.
//!
//! ```text
//!  watch ─▶ apply / delete / replace ─▶ Ports ─▶ claim: an ADD gets its KuryrPort, or waits to be notified
//!                                         └────▶ queue: keys whose status may have to be written
//! ```
//!
//! Invariants: a `KuryrPort` that is being deleted is never handed out, and one that was handed out is not released
//! before its [`Claim`] is dropped: both are decided under one lock.

use crate::{cni::args::PodRef, queue::Queue};
use kuryr_model::{KuryrPort, ObjectKey, PodUid, PortId};
use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// A `KuryrPort` as the API server has it.
#[derive(Clone, Debug)]
pub enum Known {
    /// A good one.
    Port(Arc<KuryrPort>),
    /// One that cannot be decoded, and why.
    Malformed(String),
}

/// Why an ADD has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Awaited {
    /// There is no `KuryrPort`.
    Absent,
    /// There is one of an earlier pod of the same name.
    Predecessor,
    /// It has no VIFs; what the controller says about that.
    Unallocated(Option<String>),
    /// It cannot be decoded.
    Malformed(String),
}

/// Why an ADD does not get a `KuryrPort`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// It is being deleted, with its pod.
    #[error("pod {pod} is being deleted: its port is on its way back to Neutron")]
    Deleting {
        /// The pod.
        pod: ObjectKey,
    },
    /// It was there and went away while the ADD waited.
    #[error("pod {pod} was deleted while it waited for its port")]
    Gone {
        /// The pod.
        pod: ObjectKey,
    },
    /// It did not come in time.
    #[error("pod {pod} has no port after {:.0} s: {reason}", .waited.as_secs_f64())]
    Timeout {
        /// The pod.
        pod: ObjectKey,
        /// How long the ADD waited.
        waited: Duration,
        /// What is known about why.
        reason: String,
    },
}

#[derive(Debug, Default)]
struct State {
    ports: HashMap<ObjectKey, Known>,
    claims: HashMap<PodUid, usize>,
    waiting: HashMap<ObjectKey, Arc<Notify>>,
    synced: bool,
    trouble: Option<String>,
}

/// The `KuryrPort`s of this node.
#[derive(Debug)]
pub struct Ports {
    /// The Kubernetes node that this is said to be.
    node: String,
    state: Mutex<State>,
    /// Keys whose `KuryrPort` has changed.
    pub changed: Queue<ObjectKey>,
    /// Told when any of them has.
    pub touched: Notify,
}

/// A `KuryrPort` that an ADD works with. While it is held, its ports are not released.
#[derive(Debug)]
pub struct Claim {
    ports: Arc<Ports>,
    /// The `KuryrPort`.
    pub port: Arc<KuryrPort>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.ports.lock();
        let uid = &self.port.spec.pod_uid;
        if let Some(count) = state.claims.get_mut(uid) {
            *count -= 1;
            if *count == 0 {
                state.claims.remove(uid);
            }
        }
        drop(state);
        self.ports.changed.put(self.port.key());
    }
}

impl Ports {
    /// Those of a node, none so far.
    pub fn of_node(node: impl Into<String>) -> Self {
        Self { node: node.into(), state: Mutex::default(), changed: Queue::default(), touched: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new or changed `KuryrPort`.
    pub fn apply(&self, key: ObjectKey, known: Known) {
        let mut state = self.lock();
        state.ports.insert(key.clone(), known);
        self.tell(&state, key);
    }

    /// Takes in that a `KuryrPort` is gone.
    pub fn delete(&self, key: ObjectKey) {
        let mut state = self.lock();
        state.ports.remove(&key);
        self.tell(&state, key);
    }

    /// Takes in a whole list: what is not in it is gone.
    pub fn replace(&self, ports: HashMap<ObjectKey, Known>) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.ports, ports);
        state.synced = true;
        state.trouble = None;
        let keys: HashSet<ObjectKey> = before.into_keys().chain(state.ports.keys().cloned()).collect();
        for key in keys {
            self.tell(&state, key);
        }
        // An empty list is news, too.
        self.touched.notify_one();
    }

    fn tell(&self, state: &State, key: ObjectKey) {
        if let Some(waiting) = state.waiting.get(&key) {
            waiting.notify_waiters();
        }
        self.changed.put(key);
        self.touched.notify_one();
    }

    /// Has the status of the `KuryrPort` of this port looked at again: something has changed on the node.
    pub fn look_again_at(&self, port_id: PortId) {
        for port in self.all() {
            if port.port_ids().any(|id| id == port_id) {
                self.changed.put(port.key());
            }
        }
    }

    /// Notes why the API server cannot be watched; `None` when it can again.
    pub fn set_trouble(&self, trouble: Option<String>) {
        self.lock().trouble = trouble;
    }

    /// Why the API server cannot be watched at the moment.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// Whether the `KuryrPort`s have been listed since the daemon was started.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.lock().synced
    }

    /// The `KuryrPort` of this name, and whether an ADD works with it.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<(Arc<KuryrPort>, bool)> {
        let state = self.lock();
        match state.ports.get(key)? {
            Known::Port(port) => Some((Arc::clone(port), state.claims.contains_key(&port.spec.pod_uid))),
            Known::Malformed(_) => None,
        }
    }

    /// All good `KuryrPort`s.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<KuryrPort>> {
        let state = self.lock();
        let ports = state.ports.values().filter_map(|known| match known {
            Known::Port(port) => Some(Arc::clone(port)),
            Known::Malformed(_) => None,
        });
        ports.collect()
    }

    /// Gets the `KuryrPort` of a pod as soon as it has VIFs.
    ///
    /// # Errors
    /// It will never have them, or not in time.
    pub async fn claim(self: &Arc<Self>, pod: &PodRef, limit: Duration) -> Result<Claim, ClaimError> {
        let deadline = Instant::now() + limit;
        let _waiter = Waiter { ports: self, key: &pod.key };
        let mut awaited = Awaited::Absent;
        loop {
            let notify = Arc::clone(self.lock().waiting.entry(pod.key.clone()).or_default());
            let mut notified = pin!(notify.notified());
            // Listens before it looks, so that nothing is missed in between.
            notified.as_mut().enable();
            match self.try_claim(pod, &awaited)? {
                Ok(claim) => return Ok(claim),
                Err(reason) => awaited = reason,
            }
            if timeout_at(deadline, notified).await.is_err() {
                let reason = self.reason(awaited);
                return Err(ClaimError::Timeout { pod: pod.key.clone(), waited: limit, reason });
            }
        }
    }

    /// One look: a claim, or what must be waited for.
    fn try_claim(self: &Arc<Self>, pod: &PodRef, before: &Awaited) -> Result<Result<Claim, Awaited>, ClaimError> {
        let mut state = self.lock();
        let ours = match state.ports.get(&pod.key) {
            Some(Known::Malformed(problem)) => return Ok(Err(Awaited::Malformed(problem.clone()))),
            Some(Known::Port(port)) if pod.is(&port.spec.pod_uid) => Ok(Arc::clone(port)),
            Some(Known::Port(_)) => Err(Awaited::Predecessor),
            None => Err(Awaited::Absent),
        };
        let port = match ours {
            Ok(port) if port.deleting() => return Err(ClaimError::Deleting { pod: pod.key.clone() }),
            Err(_) if matches!(before, Awaited::Unallocated(_)) => {
                return Err(ClaimError::Gone { pod: pod.key.clone() });
            }
            Err(awaited) => return Ok(Err(awaited)),
            Ok(port) => port,
        };
        if port.spec.vifs.is_empty() {
            let reason = port.unallocated_reason().map(|condition| condition.message.clone());
            return Ok(Err(Awaited::Unallocated(reason)));
        }
        *state.claims.entry(port.spec.pod_uid.clone()).or_default() += 1;
        drop(state);
        Ok(Ok(Claim { ports: Arc::clone(self), port }))
    }

    fn reason(&self, awaited: Awaited) -> String {
        let state = self.lock();
        match awaited {
            _ if !state.synced => match &state.trouble {
                Some(trouble) => format!("the daemon cannot see KuryrPorts: {trouble}"),
                None => "the daemon has not been able to list KuryrPorts yet".to_owned(),
            },
            Awaited::Unallocated(Some(reason)) => reason,
            Awaited::Malformed(problem) => format!("its KuryrPort is malformed: {problem}"),
            Awaited::Predecessor => {
                "the port of the earlier pod of this name is not released yet: is the controller running?".to_owned()
            }
            Awaited::Unallocated(None) | Awaited::Absent => {
                let trouble = state.trouble.as_ref().map(|trouble| format!(" (the API server is away: {trouble})"));
                format!(
                    "the controller has not answered: is it running, and is {} the name of this node in Kubernetes (KURYR_NODE)?{}",
                    self.node,
                    trouble.unwrap_or_default()
                )
            }
        }
    }
}

/// Tidies up after an ADD that waited.
struct Waiter<'a> {
    ports: &'a Ports,
    key: &'a ObjectKey,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.ports.lock();
        // The map's own reference, and that of the loop which is about to be dropped.
        if state.waiting.get(self.key).is_some_and(|notify| Arc::strong_count(notify) == 1) {
            state.waiting.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, kuryr_port};
    use futures::FutureExt;

    const LIMIT: Duration = Duration::from_secs(60);

    fn apply(ports: &Ports, port: KuryrPort) {
        ports.apply(port.key(), Known::Port(port.into()));
    }

    fn synced() -> Arc<Ports> {
        let ports = Arc::new(Ports::of_node("node-1"));
        ports.replace(HashMap::new());
        ports
    }

    #[tokio::test(start_paused = true)]
    async fn an_assigned_port_is_there_at_once() {
        let ports = synced();
        apply(&ports, kuryr_port("web-0", 1));
        let claim = ports.claim(&testing::pod("web-0", 1), LIMIT).now_or_never().unwrap().unwrap();
        assert_eq!(claim.port.spec.pod_uid, testing::uid(1));
        assert!(ports.get(&claim.port.key()).unwrap().1, "claimed");
        let key = claim.port.key();
        drop(claim);
        assert!(!ports.get(&key).unwrap().1);
        assert!(ports.lock().waiting.is_empty() && ports.lock().claims.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_add_is_woken_by_the_port_and_by_nothing_else() {
        let ports = synced();
        let pod = testing::pod("web-0", 1);
        let mut claim = pin!(ports.claim(&pod, LIMIT));
        assert!(claim.as_mut().now_or_never().is_none());
        apply(&ports, kuryr_port("web-1", 2));
        let mut empty = kuryr_port("web-0", 1);
        empty.spec.vifs.clear();
        apply(&ports, empty);
        assert!(claim.as_mut().now_or_never().is_none());
        apply(&ports, kuryr_port("web-0", 1));
        assert_eq!(claim.as_mut().now_or_never().unwrap().unwrap().port.spec.vifs.len(), 1);
        assert!(ports.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_port_of_an_earlier_pod_is_not_taken_for_ours() {
        let ports = synced();
        let mut old = kuryr_port("web-0", 1);
        apply(&ports, old.clone());
        let pod = testing::pod("web-0", 2);
        let mut claim = pin!(ports.claim(&pod, LIMIT));
        assert!(claim.as_mut().now_or_never().is_none());
        testing::delete(&mut old);
        apply(&ports, old.clone());
        assert!(claim.as_mut().now_or_never().is_none());
        ports.delete(old.key());
        assert!(claim.as_mut().now_or_never().is_none());
        apply(&ports, kuryr_port("web-0", 2));
        assert_eq!(claim.now_or_never().unwrap().unwrap().port.spec.pod_uid, testing::uid(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_deleted_while_its_add_waits_fails_it_at_once() {
        let ports = synced();
        let pod = testing::pod("web-0", 1);
        let mut empty = kuryr_port("web-0", 1);
        empty.spec.vifs.clear();
        apply(&ports, empty.clone());
        {
            let mut claim = pin!(ports.claim(&pod, LIMIT));
            assert!(claim.as_mut().now_or_never().is_none());
            ports.delete(empty.key());
            assert_eq!(claim.now_or_never().unwrap().unwrap_err(), ClaimError::Gone { pod: pod.key.clone() });
        }
        apply(&ports, empty.clone());
        {
            let mut claim = pin!(ports.claim(&pod, LIMIT));
            assert!(claim.as_mut().now_or_never().is_none());
            testing::delete(&mut empty);
            apply(&ports, empty);
            assert_eq!(claim.now_or_never().unwrap().unwrap_err(), ClaimError::Deleting { pod: pod.key.clone() });
        }
        assert!(ports.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_in_vain_is_told_what_is_known() {
        async fn reason(ports: &Arc<Ports>) -> String {
            ports.claim(&testing::pod("web-0", 1), LIMIT).await.unwrap_err().to_string()
        }
        let ports = Arc::new(Ports::of_node("node-1"));
        ports.set_trouble(Some("connection refused".into()));
        assert!(reason(&ports).await.ends_with("cannot see KuryrPorts: connection refused"));
        ports.replace(HashMap::new());
        let text = reason(&ports).await;
        assert_eq!(
            text,
            "pod shop/web-0 has no port after 60 s: the controller has not answered: is it running, and is node-1 the name of this \
             node in Kubernetes (KURYR_NODE)?"
        );
        let mut full = kuryr_port("web-0", 1);
        full.spec.vifs.clear();
        testing::unallocated(&mut full, "subnet pods-a has no free address");
        apply(&ports, full.clone());
        assert!(reason(&ports).await.ends_with(": subnet pods-a has no free address"));
        ports.apply(full.key(), Known::Malformed("spec.vifs[0].mac: no MAC".into()));
        assert!(reason(&ports).await.ends_with("malformed: spec.vifs[0].mac: no MAC"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_tells_of_what_is_gone() {
        let ports = synced();
        apply(&ports, kuryr_port("web-0", 1));
        assert_eq!(ports.changed.take().await, ObjectKey::new("shop", "web-0"));
        ports.changed.done(&ObjectKey::new("shop", "web-0"));
        ports.replace(HashMap::new());
        assert_eq!(ports.changed.take().await, ObjectKey::new("shop", "web-0"));
        assert!(ports.all().is_empty() && ports.synced());
    }
}
