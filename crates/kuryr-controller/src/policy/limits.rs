//! Services whose listeners let in only whom the pods behind them would, since those do not see who connects.
//!
//! ```text
//!   pods, policies ──▶ compiler ──limits──▶ service reconciler ──▶ Octavia
//!                         ▲                        │
//!                         └──── admits: whom each listener may let in now ◀──── before a change: old and new; after it: what is there
//! ```
//!
//! Invariant: what the compiler is told a listener lets in is never less than what the listener lets in. And no listener lets in
//! more while a port may have a group that lets its load balancer in and is to lose it.

use super::keeper::{Keeper, State};
use kuryr_model::ObjectKey;
use kuryr_plan::policy::{Change, Guard, Limits, Service};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// How long policies wait at the start for what listeners let in. Meanwhile all stays as it was.
const PATIENCE: Duration = Duration::from_secs(10);

impl Keeper {
    /// A Service, or that it is gone.
    pub(crate) fn service(&self, key: ObjectKey, service: Option<Service>) {
        let mut state = self.state_as_it_is();
        let guarded = state.guards.show(&key, service.clone());
        let service = guarded.or(service);
        state.push(service.map_or(Change::ServiceGone(key), Change::Service));
        drop(state);
        self.changed.notify_one();
    }

    /// Whether the Service is guarded by its listeners.
    pub(crate) fn is_guarded(&self, key: &ObjectKey) -> bool {
        self.state_as_it_is().guards.shown.contains_key(key)
    }

    /// Whom its listeners may let in now. `None`: it is not guarded by them.
    pub(crate) fn limits(&self, key: &ObjectKey) -> Option<Limits> {
        if !self.is_guarded(key) {
            return None;
        }
        self.state().limits(key)
    }

    /// Its listeners are about to be changed so that they let in those: from now on until [`admits`](Self::admits) they may let in
    /// those or others. False: they are not to be changed so any more.
    pub(crate) fn begin(&self, key: &ObjectKey, limits: &Limits) -> bool {
        let mut state = self.state();
        if state.limits(key).as_ref() != Some(limits) {
            return false;
        }
        let mut guard = state.guards.known.get(key).cloned().unwrap_or_default();
        for (place, limit) in limits {
            match (&limit.clients, guard.admits.get_mut(place)) {
                (Some(clients), Some(admits)) => {
                    let new: Vec<_> = clients.iter().filter(|net| !admits.contains(net)).copied().collect();
                    admits.extend(new);
                }
                (None, Some(_)) => drop(guard.admits.remove(place)),
                (_, None) => {}
            }
        }
        state.tell(key, guard);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Whom its listeners let in now, and from where the load balancer connects to pods.
    pub(crate) fn admits(&self, key: &ObjectKey, guard: Guard) {
        self.state_as_it_is().tell(key, guard);
        self.changed.notify_one();
        self.progress.send_replace(());
    }

    /// The Services whose limits are others than when this was asked last.
    pub(crate) fn renewed(&self) -> Vec<ObjectKey> {
        let mut state = self.state();
        let news = state.changes != state.guards.looked || state.guards.held;
        if !news || (state.guards.shown.is_empty() && state.guards.last.is_empty()) {
            return Vec::new();
        }
        state.guards.looked = state.changes;
        let limits = state.all_limits();
        let changed = limits.iter().filter(|(key, limits)| state.guards.last.get(*key) != Some(*limits));
        let changed: Vec<ObjectKey> = changed.map(|(key, _)| key.clone()).collect();
        state.guards.last = limits;
        let policies: Vec<ObjectKey> =
            changed.iter().flat_map(|key| state.enforcer.compiler().policies_behind(key)).collect();
        if !policies.is_empty() {
            state.touched.extend(policies);
            self.reportable.notify_one();
        }
        changed
    }

    /// Waits until it is known what all listeners let in that pods depend on, but not for long.
    pub(super) async fn guards_known(&self) {
        let mut progress = self.progress.subscribe();
        let known = async {
            loop {
                {
                    let state = self.state_as_it_is();
                    let guards = &state.guards;
                    if guards.shown.keys().all(|key| guards.known.contains_key(key)) {
                        return;
                    }
                }
                if progress.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(PATIENCE, known).await.is_err() {
            tracing::warn!("it is not known of all load balancers whom they let in: pods are closed to the others");
        }
    }
}

impl State {
    /// Notes what listeners let in.
    fn tell(&mut self, key: &ObjectKey, guard: Guard) {
        if let Some(service) = self.guards.tell(key, guard) {
            self.push(Change::Service(service));
        }
    }

    /// What the policies come to, and no more than now while a port may be open that is to be closed.
    fn limits(&self, key: &ObjectKey) -> Option<Limits> {
        let limits = self.enforcer.compiler().limits(key)?;
        Some(self.held_back(key, limits).1)
    }

    fn all_limits(&mut self) -> BTreeMap<ObjectKey, Limits> {
        let mut held = false;
        let mut all = BTreeMap::new();
        for (key, limits) in self.enforcer.compiler().all_limits() {
            let (back, limits) = self.held_back(&key, limits);
            held |= back;
            all.insert(key, limits);
        }
        self.guards.held = held;
        all
    }

    fn held_back(&self, key: &ObjectKey, mut limits: Limits) -> (bool, Limits) {
        let lingers = !self.guards.surveyed || self.enforcer.lingers(key);
        if let Some(known) = self.guards.known.get(key).filter(|_| lingers) {
            for (place, limit) in &mut limits {
                if let Some(admits) = known.admits.get(place) {
                    limit.hold_back(admits);
                }
            }
        }
        (lingers, limits)
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
