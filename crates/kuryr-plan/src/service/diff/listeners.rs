//! Listeners, listener pools, members and health monitors of a load balancer that is `ACTIVE`.
//!
//! A listener pool is made and filled before its listener sends to it, be the listener new or not; so nothing is ever sent
//! to an empty one, and what stays is served throughout. What is not attached yet is known by its name.

use super::{Planner, Turn};
use crate::service::{
    annotations,
    input::Transport,
    observed::{Members, ObservedPool, ObservedTree},
    problem::{Effect, Reason},
    step::Step,
    tree::{Listener, ListenerKey, Member, Monitor, Place, Pool, Tree},
};
use ipnet::IpNet;
use kuryr_model::{
    ListenerId, ListenerPoolId, LoadBalancerId,
    lb::{self, Provisioning},
};
use std::collections::{BTreeMap, BTreeSet};

impl Planner<'_> {
    /// Makes what is below `there` what is below `tree`.
    pub(super) fn listeners(&mut self, tree: &Tree, there: &ObservedTree) {
        // A listener pool serves one listener only: the first one that has or claims it.
        let mut claimed: BTreeSet<ListenerPoolId> = BTreeSet::new();
        let mut kept: BTreeSet<ListenerId> = BTreeSet::new();
        let wanted: BTreeSet<ListenerKey> = tree.listeners.iter().map(|listener| listener.key).collect();
        // A new listener has to wait for one that goes: there may be room for only one of them.
        let crowded = there.listeners.iter().any(|other| self.is_own(&other.tags) && !wanted.contains(&key(other)));
        let attach = if crowded { Turn::Build } else { Turn::Attach };
        for listener in &tree.listeners {
            match there.listeners.iter().find(|other| key(other) == listener.key) {
                Some(other) if !self.is_own(&other.tags) => self.taken(tree, listener, other),
                Some(own) => {
                    kept.insert(own.id);
                    self.listener(tree, there, listener, Some(own), attach, &mut claimed);
                }
                None => self.listener(tree, there, listener, None, attach, &mut claimed),
            }
        }
        self.remove(there, &kept, &claimed);
    }

    /// Removes all that is ours below a load balancer.
    pub(super) fn clear(&mut self, there: &ObservedTree) {
        self.remove(there, &BTreeSet::new(), &BTreeSet::new());
    }

    fn is_own(&self, tags: &[String]) -> bool {
        self.desired.owns(tags)
    }

    fn taken(&mut self, tree: &Tree, listener: &Listener, other: &lb::Listener) {
        let about = match tree.place {
            Place::Existing(_) => annotations::LOAD_BALANCER_ID,
            _ => "spec.ports",
        };
        let message = format!(
            "port {}: listener {} ({:?}) has it already, and it is not of this Service; use another port, or remove that \
             listener",
            listener.key, other.id, other.name
        );
        self.problem(Reason::ListenerTaken, about, Effect::NotServed, message);
    }

    fn listener(
        &mut self,
        tree: &Tree,
        there: &ObservedTree,
        listener: &Listener,
        own: Option<&lb::Listener>,
        attach: Turn,
        claimed: &mut BTreeSet<ListenerPoolId>,
    ) {
        let load_balancer = there.load_balancer.id;
        let usable = |pool: &&ObservedPool| self.is_own(&pool.pool.tags) && serves(&pool.pool, &listener.pool);
        // Broken, or of another protocol, which cannot be changed: another listener takes its place.
        let replaced =
            own.filter(|own| own.protocol != listener.protocol || own.provisioning_status == Provisioning::Error);
        let current = own.and_then(|own| own.default_pool_id);
        let attached = there
            .pools
            .iter()
            .filter(usable)
            .find(|pool| Some(pool.pool.id) == current && !claimed.contains(&pool.pool.id));
        let spare = || {
            let free = |pool: &&ObservedPool| {
                pool.pool.name == listener.pool.name
                    && !claimed.contains(&pool.pool.id)
                    && !is_attached(there, pool.pool.id)
            };
            there.pools.iter().filter(usable).find(free)
        };
        let Some(pool) = attached.or_else(spare) else {
            let step = Step::CreatePool { load_balancer, pool: listener.pool.clone(), tags: tree.tags.clone() };
            return self.step(Turn::Build, step);
        };
        claimed.insert(pool.pool.id);
        let serving = attached.is_some();
        let ready = self.pool(tree, load_balancer, listener, pool, serving);
        let id = pool.pool.id;
        match own {
            Some(own) if replaced.is_none() => {
                let switch = current != Some(id);
                let restrict = !same_ranges(&own.allowed_cidrs, &listener.allowed_cidrs);
                if restrict || (switch && ready) || !same(own, listener) {
                    // Until a new pool is filled, the listener keeps the one that it has.
                    let pool = if switch && !ready { current.unwrap_or(id) } else { id };
                    let turn = if restrict { Turn::Restrict } else { Turn::Build };
                    self.step(
                        turn,
                        Step::UpdateListener { load_balancer, id: own.id, listener: listener.clone(), pool },
                    );
                }
            }
            _ if !ready => {}
            _ => {
                if let Some(own) = replaced {
                    self.step(attach, Step::DeleteListener { load_balancer, id: own.id, listener: listener.key });
                }
                let (listener, tags) = (listener.clone(), tree.tags.clone());
                self.step(attach, Step::CreateListener { load_balancer, listener, pool: id, tags });
            }
        }
    }

    /// Makes a listener pool what it is to be; whether it was, but for what can follow while it serves.
    fn pool(
        &mut self,
        tree: &Tree,
        load_balancer: LoadBalancerId,
        listener: &Listener,
        there: &ObservedPool,
        serving: bool,
    ) -> bool {
        let (wanted, id) = (&listener.pool, there.pool.id);
        let before = self.steps.len();
        if !same_members(there, &wanted.members) {
            let turn = if serving { Turn::Members } else { Turn::Build };
            let members = wanted.members.clone();
            self.step(turn, Step::SetMembers { load_balancer, pool: id, listener: listener.key, members });
        }
        let persistence = there.pool.session_persistence.as_ref();
        if there.pool.lb_algorithm != wanted.algorithm || !same_persistence(persistence, wanted.persistence.as_ref()) {
            self.step(Turn::Build, Step::UpdatePool { load_balancer, id, pool: wanted.clone() });
        }
        self.monitor(tree, load_balancer, there, wanted);
        self.steps.len() == before
    }

    fn monitor(&mut self, tree: &Tree, load_balancer: LoadBalancerId, there: &ObservedPool, wanted: &Pool) {
        let create = |monitor: &Monitor| Step::CreateMonitor {
            load_balancer,
            pool: there.pool.id,
            monitor: monitor.clone(),
            tags: tree.tags.clone(),
        };
        match (&there.monitor, &wanted.monitor) {
            (None, None) => {}
            (None, Some(wanted)) => self.step(Turn::Build, create(wanted)),
            (Some(there), None) => self.step(Turn::Build, Step::DeleteMonitor { load_balancer, id: there.id }),
            (Some(there), Some(wanted)) => {
                if there.kind != wanted.kind || there.provisioning_status == Provisioning::Error {
                    self.step(Turn::Build, Step::DeleteMonitor { load_balancer, id: there.id });
                    self.step(Turn::Build, create(wanted));
                } else if (there.delay, there.timeout, there.max_retries, there.max_retries_down)
                    != (wanted.delay, wanted.timeout, wanted.max_retries, wanted.max_retries_down)
                {
                    let monitor = wanted.clone();
                    self.step(Turn::Build, Step::UpdateMonitor { load_balancer, id: there.id, monitor });
                }
            }
        }
    }

    /// Removes our listeners that are not `kept`, and our listener pools that nothing uses and nothing claimed. A listener
    /// goes before its pool, so that none is ever without one.
    fn remove(&mut self, there: &ObservedTree, kept: &BTreeSet<ListenerId>, claimed: &BTreeSet<ListenerPoolId>) {
        let load_balancer = there.load_balancer.id;
        let mut still_used: BTreeSet<ListenerPoolId> = claimed.clone();
        for listener in &there.listeners {
            if self.is_own(&listener.tags) && !kept.contains(&listener.id) {
                let step = Step::DeleteListener { load_balancer, id: listener.id, listener: key(listener) };
                self.step(Turn::Remove, step);
            } else {
                still_used.extend(listener.default_pool_id);
            }
        }
        for pool in &there.pools {
            if self.is_own(&pool.pool.tags) && !still_used.contains(&pool.pool.id) {
                self.step(Turn::Remove, Step::DeletePool { load_balancer, id: pool.pool.id });
            }
        }
    }
}

fn key(listener: &lb::Listener) -> ListenerKey {
    ListenerKey { transport: Transport::of(listener.protocol), number: listener.protocol_port }
}

fn is_attached(there: &ObservedTree, id: ListenerPoolId) -> bool {
    there.listeners.iter().any(|listener| listener.default_pool_id == Some(id))
}

/// Whether a listener pool can be made into what is wanted: its protocol cannot be changed, and in `ERROR` nothing can.
fn serves(there: &lb::Pool, wanted: &Pool) -> bool {
    there.protocol == wanted.protocol && there.provisioning_status != Provisioning::Error
}

fn same(there: &lb::Listener, wanted: &Listener) -> bool {
    let timeouts = wanted.timeouts.is_none_or(|timeouts| {
        there.timeout_client_data == Some(timeouts.client_data)
            && there.timeout_member_connect == Some(timeouts.member_connect)
            && there.timeout_member_data == Some(timeouts.member_data)
            && there.timeout_tcp_inspect == Some(timeouts.tcp_inspect)
    });
    timeouts
        && there.connection_limit.unwrap_or(-1) == wanted.connection_limit
        && there.insert_headers == wanted.insert_headers
        && same_ranges(&there.allowed_cidrs, &wanted.allowed_cidrs)
}

/// Octavia gives back the text that it was given.
fn same_ranges(there: &[String], wanted: &[IpNet]) -> bool {
    let there: Option<BTreeSet<IpNet>> = there.iter().map(|text| text.parse().ok()).collect();
    there.is_some_and(|there| there == wanted.iter().copied().collect())
}

fn same_persistence(there: Option<&lb::SessionPersistence>, wanted: Option<&lb::SessionPersistence>) -> bool {
    let essence = |persistence: &lb::SessionPersistence| (persistence.kind, persistence.persistence_timeout);
    there.map(essence) == wanted.map(essence)
}

/// Whether the members are there and get their shares. Octavia knows a member by address and port number, and takes no
/// other subnet for one that is there, so that and its name are not looked at.
fn same_members(there: &ObservedPool, wanted: &[Member]) -> bool {
    let Members::Known(members) = &there.members else { return there.pool.members.len() == wanted.len() };
    let there: BTreeMap<_, _> = members.iter().map(|member| ((member.address, member.protocol_port), member)).collect();
    let same = |member: &Member| {
        there.get(&(member.address, member.port)).is_some_and(|there| {
            there.weight == member.weight && !there.backup && there.provisioning_status != Provisioning::Error
        })
    };
    there.len() == wanted.len() && wanted.iter().all(same)
}
