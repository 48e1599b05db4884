//! Hands spare ports out.

use super::{Groups, Out, Spares, State};
use crate::{
    allocator::{Allocated, Reply, Request, Shared},
    error::PodError,
};
use futures::future::join_all;
use kuryr_model::{ObjectKey, PodUid, PortId, SecurityGroupId, neutron::Port};
use kuryr_openstack::network::PortUpdate;
use kuryr_plan::{pool::PoolKey, trunk::Trouble};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// A port that a pod is to get.
struct Lent {
    port: Port,
    groups: Groups,
    /// It was lent to this pod before, so its `KuryrPort` may have it.
    before: bool,
}

impl Shared {
    /// Gives a pod a spare port if its node has one, in a task of its own: whoever asks may go meanwhile, and an update that is under way
    /// must be seen to its end. Else the pod comes back.
    pub(in crate::allocator) fn lend_at_once(
        self: &Arc<Self>,
        request: Request,
        reply: Reply,
    ) -> Option<(Request, Reply)> {
        let Some(lent) = self.take(&request) else { return Some((request, reply)) };
        let shared = self.clone();
        tokio::spawn(async move { shared.hand_out(request, reply, lent).await });
        None
    }

    /// Answers those whose nodes have spare ports; the others are left.
    pub(in crate::allocator) async fn lend(&self, pods: Vec<(Request, Reply)>) -> Vec<(Request, Reply)> {
        let (mut lent, mut without) = (Vec::new(), Vec::new());
        for (request, reply) in pods {
            match self.take(&request) {
                Some(port) => lent.push((request, reply, port)),
                None => without.push((request, reply)),
            }
        }
        join_all(lent.into_iter().map(|(request, reply, port)| self.hand_out(request, reply, port))).await;
        without
    }

    fn take(&self, request: &Request) -> Option<Lent> {
        let spares = self.spares.as_ref()?;
        let key = self.pool_of(request)?;
        let lent = spares.state.lock().take(spares, &key, &request.uid, self.now());
        spares.changed.notify_one();
        lent
    }

    /// Gives a port the groups that the pod is to have, and then to the pod.
    async fn hand_out(&self, request: Request, reply: Reply, lent: Lent) {
        let Some(spares) = &self.spares else { return };
        let Lent { port, groups, before } = lent;
        let result = match groups {
            Groups::Handed => {
                // Its groups are looked after since it was handed out first.
                self.policies.ungrant(&request.uid);
                Ok(())
            }
            Groups::Plain if self.is_plain(&request.groups) => Ok(()),
            Groups::Plain | Groups::Unsure => self.regroup(spares, port.id, request.groups.clone()).await,
        };
        let result = result
            .and_then(|()| self.plugged(&port, request.machine.as_ref()))
            .map(|vif| Allocated { vif, made: !before });
        if result.is_ok() && groups != Groups::Handed {
            self.policies.has(port.id, &request.uid, &request.groups);
            if let Some(out) = spares.state.lock().out.get_mut(&port.id) {
                out.groups = Groups::Handed;
            }
        }
        // It stays lent, so that this pod gets the same one at its next try, unless it is wanted no more.
        if reply.send(result).is_err() {
            self.suspect(&request.key, &request.uid, false);
        }
    }

    async fn regroup(&self, spares: &Spares, id: PortId, groups: Vec<SecurityGroupId>) -> Result<(), PodError> {
        let wanted: BTreeSet<SecurityGroupId> = groups.iter().copied().collect();
        let change = PortUpdate { security_groups: Some(groups), ..PortUpdate::default() };
        let changed = self.cloud.network().ports().update(id, &change, None).await;
        let done =
            changed.as_ref().is_ok_and(|port| port.security_groups.iter().copied().collect::<BTreeSet<_>>() == wanted);
        if !done && let Some(out) = spares.state.lock().out.get_mut(&id) {
            out.groups = Groups::Unsure;
        }
        match changed {
            Ok(_) if done => Ok(()),
            Ok(_) => Err(PodError::WiderThanPolicies),
            Err(error) => {
                if error.is_not_found() {
                    self.look_soon(Duration::ZERO);
                }
                Err(error.into())
            }
        }
    }

    /// A pod has its answer: a port, or why there is none. Until it has one it waits, over however many tries.
    pub(in crate::allocator) fn answered(&self, pool: PoolKey, key: ObjectKey, uid: &PodUid, has_one: bool) {
        let Some(spares) = &self.spares else { return };
        let mut state = spares.state.lock();
        if has_one {
            state.pools.waits_no_more(&pool, uid);
            state.waits.remove(&key);
        } else {
            let now = (pool, uid.clone());
            match state.waits.insert(key, now.clone()) {
                Some(before) if before != now => state.pools.waits_no_more(&before.0, &before.1),
                _ => {}
            }
        }
        // Names are given when nobody waits.
        if has_one && !state.rename.is_empty() {
            spares.changed.notify_one();
        }
    }

    /// No pod of this name waits for a port.
    pub(in crate::allocator) fn waits_no_more(&self, key: &ObjectKey) {
        let Some(spares) = &self.spares else { return };
        let mut state = spares.state.lock();
        if let Some((pool, uid)) = state.waits.remove(key) {
            state.pools.waits_no_more(&pool, &uid);
            spares.changed.notify_one();
        }
    }

    /// A port is where the machine carries it, and its pod is told where.
    pub(in crate::allocator) fn settled(&self, port: PortId) {
        if let Some(spares) = &self.spares
            && let Some(out) = spares.state.lock().out.get_mut(&port)
        {
            out.settled = true;
        }
    }

    /// A port did not get where the machine carries it. If it was lent and never will, its pod is to get another one.
    pub(in crate::allocator) fn not_settled(&self, uid: &PodUid, port: PortId, error: &PodError) {
        if matches!(error, PodError::TrunkGone(_)) {
            // Only the next look tells whose pods are cut off.
            self.look_soon(Duration::ZERO);
        }
        let never = match error {
            PodError::Trunk(trouble) => *trouble != Trouble::Full,
            PodError::Cloud(error) => error.is_about_subports(),
            _ => false,
        };
        let Some(spares) = self.spares.as_ref().filter(|_| never) else { return };
        let mut state = spares.state.lock();
        // What was settled once may be in its KuryrPort.
        if state.out.get(&port).is_some_and(|out| !out.settled) && state.pools.spoilt(uid) == Some(port) {
            tracing::warn!(%port, reason = %error, "a spare port cannot be used: its pod gets another one");
            state.out.remove(&port);
            state.delete.push(port);
            spares.changed.notify_one();
        }
    }

    /// The port that was lent to this pod, if one was, is in its `KuryrPort`.
    pub(in crate::allocator) fn recorded(&self, key: &ObjectKey, uid: &PodUid) {
        let Some(spares) = &self.spares else { return };
        let mut state = spares.state.lock();
        if let Some(id) = state.pools.recorded(uid) {
            spares.call(&mut state, id, super::names::of(key));
        }
    }

    /// A pod has these ports, and its `KuryrPort`, which named them, was let go: it gets the same when it asks again.
    pub(in crate::allocator) fn lend_again(&self, uid: &PodUid, ports: &[PortId]) {
        let Some(spares) = &self.spares else { return };
        let mut state = spares.state.lock();
        for id in ports {
            if let Some(out) = state.out.get(id) {
                let port = out.port.clone();
                if let Some(place) = state.place_of(&port) {
                    state.pools.lend(uid, &place, port);
                }
            }
        }
    }
}

impl State {
    /// A port for a pod. What a `KuryrPort` has all the same, as one that a controller of before has written just now, is no
    /// spare port.
    fn take(&mut self, spares: &Spares, key: &PoolKey, uid: &PodUid, now: Duration) -> Option<Lent> {
        let before = self.pools.lends_to(uid);
        loop {
            let port = self.pools.take(key, uid, now)?;
            if let Some(out) = self.out.get(&port.id).filter(|_| before) {
                return Some(Lent { port, groups: out.groups, before });
            }
            let known = spares.index.holds(port.id);
            let groups = if known { Groups::Handed } else { Groups::Plain };
            self.out.insert(port.id, Out { port: port.clone(), groups, settled: known });
            if !known {
                return Some(Lent { port, groups, before });
            }
            self.pools.recorded(uid);
        }
    }
}
