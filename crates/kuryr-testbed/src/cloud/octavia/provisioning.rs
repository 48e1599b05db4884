//! What happens to load balancers over time: a provider works off steps, one after the other, and says of each what became of it.
//!
//! Amphorae do all that one request asks for in one step. The OVN provider goes through it object by object, and says `ACTIVE` of the
//! load balancer after each: a new load balancer is `ACTIVE` before its listeners are, and takes the next change while the last one
//! is not through.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::error::{Error, Result};
use super::model::{Hold, LoadBalancer, Operating, Pool, Provisioning};
use super::providers::Kind;
use crate::cloud::config::OvnRelease;

/// Something of a load balancer, or itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Balancer,
    Listener(Uuid),
    Pool(Uuid),
    Member(Uuid),
    Monitor(Uuid),
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// What was asked for is live.
    Put(Target),
    /// It is no more.
    Gone(Target),
    /// It could not be done.
    Fail(Target),
}

/// What a provider does at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) changes: Vec<Change>,
    pub(crate) takes: Duration,
    /// Whether the load balancer is `ACTIVE` afterwards.
    pub(crate) unlocks: bool,
}

impl Step {
    pub(crate) fn new(takes: Duration, changes: impl IntoIterator<Item = Change>) -> Self {
        Self { changes: changes.into_iter().collect(), takes, unlocks: true }
    }
}

/// What a step leaves to be done outside of the load balancer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Ports to be deleted.
    pub(crate) ports: Vec<Uuid>,
    /// The load balancer is no more.
    pub(crate) gone: bool,
}

impl LoadBalancer {
    /// Locks it for a change of something in it.
    pub(crate) fn lock(&mut self) -> Result<()> {
        if self.head.provisioning != Provisioning::Active {
            return Err(Error::immutable("Load Balancer", self.head.id));
        }
        self.head.provisioning = Provisioning::PendingUpdate;
        Ok(())
    }

    /// Locks it for a change of itself, which is possible in these states.
    pub(crate) fn lock_self(&mut self, status: Provisioning, from: &[Provisioning]) -> Result<()> {
        let (state, id) = (self.head.provisioning, self.head.id);
        if !from.contains(&state) {
            return Err(Error::conflict(format!("Invalid state {} of loadbalancer resource {id}", state.text())));
        }
        self.head.provisioning = status;
        Ok(())
    }

    /// Locks it and a pool of it for a change of the pool's members or monitor.
    pub(crate) fn lock_pool(&mut self, pool: Uuid) -> Result<()> {
        if self.pool(pool).is_some_and(|pool| pool.row.head.provisioning != Provisioning::Active) {
            return Err(Error::immutable("Pool", pool));
        }
        self.lock()?;
        self.pend_pool(pool);
        Ok(())
    }

    /// A pool changes, and with it the listeners that use it.
    pub(crate) fn pend_pool(&mut self, pool: Uuid) {
        if let Some(pool) = self.pool_mut(pool) {
            pool.row.head.provisioning = Provisioning::PendingUpdate;
        }
        for listener in self.listeners.iter_mut().filter(|listener| listener.spec.pool == Some(pool)) {
            listener.head.provisioning = Provisioning::PendingUpdate;
        }
    }

    /// A pool and the listeners that use it are live.
    pub(crate) fn put_pool(&self, pool: Uuid) -> Vec<Change> {
        let listeners = self.listeners_of(pool).into_iter().map(Target::Listener);
        std::iter::once(Target::Pool(pool)).chain(listeners).map(Change::Put).collect()
    }

    /// Gives steps to the provider.
    pub(crate) fn schedule(&mut self, steps: Vec<Step>, now: Instant) {
        if self.provider.kind == Kind::Amphora && steps.len() > 1 {
            let takes = steps.iter().map(|step| step.takes).sum();
            self.queue.push_back(Step::new(takes, steps.into_iter().flat_map(|step| step.changes)));
        } else {
            self.queue.extend(steps);
        }
        if self.due.is_none() {
            self.due = self.queue.front().map(|step| now + step.takes);
        }
    }

    /// When the next step is done; `None` when there is none, or it waits for [`Hold`] to end.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        match self.hold {
            Hold::No => self.due,
            Hold::Until(until) => self.due.map(|due| due.max(until)),
            Hold::UntilReleased => None,
        }
    }

    /// Drops what the provider has still to do.
    pub(crate) fn forget_steps(&mut self) {
        self.queue.clear();
        self.due = None;
    }

    /// Does the next step.
    pub(crate) fn step(&mut self, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(step) = self.queue.pop_front() else { return outcome };
        let done = self.next_due();
        for change in step.changes {
            self.apply(change, now, &mut outcome);
        }
        if step.unlocks && self.head.provisioning != Provisioning::Error {
            self.head.provisioning = Provisioning::Active;
            self.head.updated = Some(now);
        }
        self.due = done.and_then(|done| self.queue.front().map(|step| done + step.takes));
        if self.hold != Hold::UntilReleased {
            self.hold = Hold::No;
        }
        self.observe();
        outcome
    }

    fn apply(&mut self, change: Change, now: Timestamp, outcome: &mut Outcome) {
        match change {
            Change::Put(target) => self.put(target, now),
            Change::Gone(Target::Balancer) => {
                outcome.gone = true;
                outcome.ports = self.own_ports();
            }
            Change::Gone(Target::Listener(id)) => self.listeners.retain(|listener| listener.head.id != id),
            Change::Gone(Target::Pool(id)) => self.drop_pool(id),
            Change::Gone(Target::Member(id)) => {
                for pool in &mut self.pools {
                    pool.members.retain(|member| member.head.id != id);
                }
            }
            Change::Gone(Target::Monitor(id)) => {
                for pool in &mut self.pools {
                    pool.monitor.take_if(|monitor| monitor.head.id == id);
                }
            }
            Change::Fail(Target::Balancer) => {
                if self.provider.is_ovn() && self.live.is_none() {
                    // The provider cleans up after itself, although the load balancer stays.
                    outcome.ports = self.own_ports();
                }
                self.fail();
            }
            Change::Fail(target) => {
                if let Some(head) = self.head_of(target) {
                    (head.provisioning, head.operating) = (Provisioning::Error, Operating::Error);
                }
            }
        }
    }

    /// Puts it into ERROR; nothing more is done to it.
    pub(crate) fn fail(&mut self) {
        (self.head.provisioning, self.head.operating) = (Provisioning::Error, Operating::Error);
        self.forget_steps();
    }

    fn put(&mut self, target: Target, now: Timestamp) {
        match target {
            Target::Balancer => self.live = Some(self.enabled),
            Target::Listener(id) => {
                if let Some(listener) = self.listener_mut(id) {
                    listener.put(now);
                }
            }
            Target::Pool(id) => {
                if let Some(pool) = self.pool_mut(id) {
                    pool.row.put(now);
                }
            }
            Target::Member(id) => {
                if let Some(member) = self.member_mut(id) {
                    member.put(now);
                }
            }
            Target::Monitor(id) => {
                if let Some(monitor) = self.monitor_mut(id) {
                    monitor.put(now);
                }
            }
        }
    }

    fn head_of(&mut self, target: Target) -> Option<&mut super::model::Head> {
        match target {
            Target::Balancer => Some(&mut self.head),
            Target::Listener(id) => self.listener_mut(id).map(|listener| &mut listener.head),
            Target::Pool(id) => self.pool_mut(id).map(|pool| &mut pool.row.head),
            Target::Member(id) => self.member_mut(id).map(|member| &mut member.head),
            Target::Monitor(id) => self.monitor_mut(id).map(|monitor| &mut monitor.head),
        }
    }

    fn drop_pool(&mut self, id: Uuid) {
        self.pools.retain(|pool| pool.id() != id);
        for listener in &mut self.listeners {
            for spec in std::iter::once(&mut listener.spec).chain(&mut listener.live) {
                spec.pool.take_if(|pool| *pool == id);
            }
        }
    }

    /// The ports that go with it. The OVN provider of Zed deletes a port even if it was given one.
    pub(crate) fn own_ports(&self) -> Vec<Uuid> {
        if !self.vip.owned && self.provider.kind != Kind::Ovn(OvnRelease::Zed) {
            return Vec::new();
        }
        let mut ports: Vec<Uuid> =
            std::iter::once(self.vip.port).chain(self.additional.iter().filter_map(|vip| vip.port)).collect();
        ports.dedup();
        ports
    }

    /// Works out the operating statuses of what is live.
    pub(crate) fn observe(&mut self) {
        if self.head.provisioning == Provisioning::Error {
            return;
        }
        let ovn = self.provider.is_ovn();
        for pool in &mut self.pools {
            observe_pool(pool, ovn);
        }
        let states: Vec<(Uuid, Operating)> =
            self.pools.iter().map(|pool| (pool.id(), pool.row.head.operating)).collect();
        for listener in &mut self.listeners {
            let Some(live) = &listener.live else { continue };
            let pool = states.iter().find(|(id, _)| live.pool == Some(*id)).map(|(_, state)| *state);
            listener.head.operating = match pool {
                _ if !live.enabled => Operating::Offline,
                Some(state @ (Operating::Error | Operating::Degraded)) => state,
                _ => Operating::Online,
            };
        }
        let worst = |state| self.listeners.iter().any(|listener| listener.head.operating == state);
        self.head.operating = match self.live {
            None | Some(false) => Operating::Offline,
            Some(true) if worst(Operating::Error) => Operating::Error,
            Some(true) if worst(Operating::Degraded) => Operating::Degraded,
            Some(true) => Operating::Online,
        };
    }
}

fn observe_pool(pool: &mut Pool, ovn: bool) {
    if let Some(monitor) = &mut pool.monitor
        && let Some(live) = &monitor.live
    {
        monitor.head.operating = if live.enabled { Operating::Online } else { Operating::Offline };
    }
    let watched = pool.monitor.as_ref().is_some_and(|monitor| monitor.live.is_some());
    for member in &mut pool.members {
        let Some(live) = &member.live else { continue };
        member.head.operating = match member.head.operating {
            _ if !live.enabled => Operating::Offline,
            Operating::Error if watched => Operating::Error,
            _ if !watched => Operating::NoMonitor,
            _ if !ovn && live.weight == 0 => Operating::Draining,
            _ => Operating::Online,
        };
    }
    let Some(live) = &pool.row.live else { return };
    let live_members = || pool.members.iter().filter(|member| member.live.is_some());
    let away = live_members().filter(|member| member.head.operating == Operating::Error).count();
    let all = live_members().count();
    pool.row.head.operating = match (away, all) {
        _ if !live.enabled => Operating::Offline,
        (_, 0) if ovn => Operating::Offline,
        (0, _) => Operating::Online,
        _ if away == all => Operating::Error,
        _ => Operating::Degraded,
    };
}
