//! Port pools: what [`kuryr_plan::pool`] decides is done here.
//!
//! ```text
//!   pods ──lend──▶ Pools::take ──▶ a port, its groups put right ──▶ VIF      misses ──▶ make
//!   release ──▶ Pools::give_back          keep: Pools::plan ──▶ Supply ──▶ bulk create, delete
//! ```
//!
//! Invariants:
//! - A port of a pool carries the mark of pools for all its life, and says nothing of pods: whose it is, its `KuryrPort` tells.
//!   So no look for the ports of a pod ever finds it.
//! - A `KuryrPort` that was written is in the index before its port counts as recorded, so a port is lent, held or spare at each moment.

use super::{Reply, Request, Shared, refusal};
use crate::{
    allocator::Allocated,
    error::{PodError, Reason},
    index::Index,
    topology::Topology,
};
use futures::{
    FutureExt,
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};
use kuryr_model::{DEVICE_OWNER, Mark, NetworkId, PodUid, PortId, Purpose, SecurityGroupId, neutron::Port};
use kuryr_openstack::network::{NewFixedIp, NewPort, PortUpdate};
use kuryr_plan::{
    allocator::{Ask, Batch, Next, Refusal as Refused, Shortage},
    pool::{Back, Bulk, BulkId, Headroom, Place, PoolKey, Pools, Refusal, Settings, Shortage as PoolShortage},
    subnets::Choice,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::timeout};

/// What ports of pools are called.
const NAME: &str = "kuryr-pool";

/// So many ports are deleted at once.
const DELETES: usize = 4;

/// Time between two tries to delete ports.
const RETRY: Duration = Duration::from_secs(10);

/// What became of a port that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// Its pool has it.
    Kept,
    /// There is room for another one.
    Deleted,
}

/// The pools.
pub(super) struct Spares {
    index: Arc<Index>,
    /// The network on which pods get their ports as long as it has room.
    network: Option<NetworkId>,
    choices: Vec<Choice>,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    pools: Pools,
    /// Ports of pools that are lent or held.
    out: HashMap<PortId, Port>,
    /// Deleted since the last listing began, which may tell of them still.
    gone: HashSet<PortId>,
    /// The nodes that have pools.
    open: BTreeSet<String>,
    /// To be deleted.
    delete: Vec<PortId>,
}

impl Spares {
    pub(super) fn new(settings: Settings, topology: &Topology, index: Arc<Index>) -> Self {
        let choices = topology.choices.clone();
        let network = choices.first().map(|choice| choice.network);
        let pools = Pools::new(settings, choices.clone());
        let state =
            State { pools, out: HashMap::new(), gone: HashSet::new(), open: BTreeSet::new(), delete: Vec::new() };
        Self { index, network, choices, state: Mutex::new(state), changed: Notify::new() }
    }

    fn key(&self, host: &str) -> Option<PoolKey> {
        Some(PoolKey { place: Place::Host(host.to_owned()), network: self.network? })
    }
}

impl State {
    /// Opens and closes pools as nodes come and go.
    fn follow(&mut self, nodes: BTreeSet<String>, now: Duration) {
        for host in nodes.difference(&self.open) {
            self.pools.open(&Place::Host(host.clone()), usize::MAX, now);
        }
        for host in self.open.difference(&nodes) {
            let gone = self.pools.close(&Place::Host(host.clone()));
            self.delete.extend(gone);
        }
        self.open = nodes;
    }

    fn give_back(&mut self, port: Port, now: Duration) -> Back {
        self.pools.give_back(&Place::Host(port.host_id.clone()), port, now)
    }
}

impl Shared {
    /// Answers those whose nodes have spare ports; the others are left.
    pub(super) async fn lend(&self, pods: Vec<(Request, Reply)>) -> Vec<(Request, Reply)> {
        let Some(spares) = &self.spares else { return pods };
        let (mut lent, mut without) = (Vec::new(), Vec::new());
        {
            let mut state = spares.state.lock();
            for (request, reply) in pods {
                let key = spares.key(&request.host);
                match key.and_then(|key| state.pools.take(&key, &request.uid, self.now())) {
                    Some(port) => {
                        state.out.insert(port.id, port.clone());
                        lent.push((request, reply, port));
                    }
                    None => without.push((request, reply)),
                }
            }
        }
        spares.changed.notify_one();
        join_all(lent.into_iter().map(|(request, reply, port)| self.hand_out(request, reply, port))).await;
        without
    }

    /// Gives a port the groups that the pod is to have, and then to the pod.
    async fn hand_out(&self, request: Request, reply: Reply, port: Port) {
        let wanted = self.security_groups(&request);
        let same = |a: &[SecurityGroupId], b: &[SecurityGroupId]| BTreeSet::from_iter(a) == BTreeSet::from_iter(b);
        let result = if same(&wanted, &port.security_groups) {
            Ok(())
        } else {
            let change = PortUpdate { security_groups: Some(wanted), ..PortUpdate::default() };
            let changed = self.cloud.network().ports().update(port.id, &change, None).await;
            changed.map(|changed| self.keep_in_mind(changed)).map_err(PodError::from)
        };
        let result = result.and_then(|()| self.plugged(&port)).map(|vif| Allocated { vif, made: true });
        // It stays lent, so that this pod gets the same one at its next try, unless it is wanted no more.
        if reply.send(result).is_err() {
            self.suspect(&request.key, &request.uid, false);
        }
    }

    /// A pod that found no spare port has its answer.
    pub(super) fn answered(&self, host: &str, uid: &PodUid) {
        if let Some(spares) = &self.spares
            && let Some(key) = spares.key(host)
        {
            spares.state.lock().pools.waits_no_more(&key, uid);
        }
    }

    fn keep_in_mind(&self, port: Port) {
        if let Some(spares) = &self.spares {
            spares.state.lock().out.insert(port.id, port);
        }
    }

    pub(super) fn recorded(&self, uid: &PodUid) {
        if let Some(spares) = &self.spares {
            spares.state.lock().pools.recorded(uid);
        }
    }

    /// Whether a port was lent to this pod, which is spare again.
    pub(super) fn returned(&self, uid: &PodUid) -> bool {
        let Some(spares) = &self.spares else { return false };
        let mut state = spares.state.lock();
        let Some((id, back)) = state.pools.returned(uid, self.now()) else { return false };
        let other_groups = state.out.remove(&id).is_some_and(|port| !self.is_plain(&port));
        if back == Back::Delete || other_groups && state.pools.withdraw(id) {
            state.delete.push(id);
        }
        spares.changed.notify_one();
        true
    }

    /// Whether it has the groups that spare ports have.
    fn is_plain(&self, port: &Port) -> bool {
        BTreeSet::from_iter(&port.security_groups) == BTreeSet::from_iter(&self.topology.open_groups)
    }

    /// Gives a port back to its pool, if it is of one and that keeps it.
    pub(super) fn give_back(&self, id: PortId) -> bool {
        let Some(spares) = &self.spares else { return false };
        let mut state = spares.state.lock();
        let Some(port) = state.out.remove(&id).filter(|port| self.is_plain(port)) else { return false };
        let kept = state.give_back(port, self.now()) == Back::Kept;
        spares.changed.notify_one();
        kept
    }

    pub(super) fn deleted(&self, id: PortId) {
        if let Some(spares) = &self.spares {
            let mut state = spares.state.lock();
            state.gone.insert(id);
            state.out.remove(&id);
            state.pools.deleted(id, self.now());
            spares.changed.notify_one();
        }
    }

    pub(super) fn listing(&self) {
        if let Some(spares) = &self.spares {
            spares.state.lock().gone.clear();
        }
    }

    /// Takes over what was listed: `spare` are ports of pools that no `KuryrPort` had.
    pub(super) fn listed(&self, ports: &[Port], spare: &BTreeSet<PortId>) {
        let Some(spares) = &self.spares else { return };
        let mut state = spares.state.lock();
        state.follow(spares.index.serving(), self.now());
        let held = spares.index.held();
        let pooled = |port: &&Port| Mark::read(&self.cluster, &port.tags).is_some_and(|m| m.purpose == Purpose::Pool);
        for port in ports.iter().filter(pooled) {
            if state.gone.contains(&port.id) || state.pools.knows(port.id) {
                continue;
            }
            if held.contains(&port.id) {
                state.out.entry(port.id).or_insert_with(|| port.clone());
            } else if spare.contains(&port.id) {
                let usable = self.is_plain(port) && self.plugged(port).is_ok();
                if !usable || state.give_back(port.clone(), self.now()) == Back::Delete {
                    state.delete.push(port.id);
                }
            }
        }
        spares.changed.notify_one();
    }

    /// Deletes spare ports so that pods get what there is too little of; whether there were any.
    pub(super) async fn make_way(&self, shortage: Shortage, pods: usize) -> bool {
        let Some(spares) = &self.spares else { return false };
        let shortages = match shortage {
            Shortage::Quota => vec![PoolShortage::Quota],
            Shortage::Addresses => spares.choices.iter().cloned().map(PoolShortage::Subnets).collect(),
        };
        let mut victims = Vec::new();
        {
            let mut state = spares.state.lock();
            for shortage in &shortages {
                let left = pods - victims.len();
                if left > 0 {
                    victims.extend(state.pools.starved(shortage, left, self.now()));
                }
            }
        }
        let deleted = join_all(victims.iter().map(|id| self.delete(*id))).await;
        let failed = victims.iter().zip(&deleted).filter(|(_, deleted)| deleted.is_err()).map(|(id, _)| *id);
        let mut state = spares.state.lock();
        state.delete.extend(failed);
        for shortage in &shortages {
            state.pools.starved(shortage, 0, self.now());
        }
        spares.changed.notify_one();
        deleted.iter().any(Result::is_ok)
    }

    /// Makes the ports of a bulk; the rest is said by the last refusal.
    async fn refill(&self, bulk: Bulk) -> (BulkId, Result<Vec<(PoolKey, Port)>, Refusal>) {
        let keys = bulk.parts.into_iter().flat_map(|(key, count)| std::iter::repeat_n(key, count));
        let mut batch = Batch::new(keys.collect());
        let (mut made, mut refused) = (Vec::new(), None);
        loop {
            let next = self.state.lock().supply.next(&mut batch, self.now());
            match next {
                None => break,
                Some(Next::Count(network)) => self.count(&mut batch, network).await,
                Some(Next::Create(ask, keys)) => match self.make_spare(&mut batch, ask, keys).await {
                    Ok(ports) => made.extend(ports),
                    Err(refusal) => refused = Some(refusal),
                },
                Some(Next::Short(Shortage::Quota, _)) => refused = Some(Refusal::Quota),
                Some(Next::Short(Shortage::Addresses, _)) => refused = Some(Refusal::Full),
            }
        }
        let answer = match refused {
            Some(refusal) if made.is_empty() => Err(refusal),
            _ => Ok(made),
        };
        (bulk.id, answer)
    }

    async fn make_spare(
        &self,
        batch: &mut Batch<PoolKey>,
        ask: Ask,
        keys: Vec<PoolKey>,
    ) -> Result<Vec<(PoolKey, Port)>, Refusal> {
        let wanted: Vec<NewPort> = keys.iter().map(|key| self.new_spare(key, &ask.choice)).collect();
        self.metrics.bulk(keys.len());
        match self.cloud.network().background().ports().create_many(&wanted).await {
            Ok(ports) => {
                self.state.lock().supply.made(&ask);
                Ok(keys.into_iter().zip(ports).collect())
            }
            Err(error) => {
                tracing::info!(reason = %error, ports = keys.len(), "spare ports were not made");
                let refused = refusal(&error);
                let failed = self.state.lock().supply.refused(batch, &ask, keys, refused, self.now());
                match refused {
                    _ if failed.is_empty() => Ok(Vec::new()),
                    Refused::Quota => Err(Refusal::Quota),
                    Refused::Exhausted => Err(Refusal::Full),
                    Refused::Request | Refused::All | Refused::Unknown => Err(Refusal::Other),
                }
            }
        }
    }

    fn new_spare(&self, key: &PoolKey, choice: &Choice) -> NewPort {
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Pool };
        NewPort {
            name: NAME.to_owned(),
            fixed_ips: choice.subnets.iter().map(|id| NewFixedIp::from(*id)).collect(),
            security_groups: self.topology.open_groups.clone(),
            host_id: Some(key.place.to_string()),
            device_owner: DEVICE_OWNER.to_owned(),
            tags: mark.tags(),
            ..NewPort::new(choice.network)
        }
    }

    /// Ports of a bulk arrived. A node on which they cannot be plugged gets none until it is opened anew.
    fn arrived(&self, spares: &Spares, id: BulkId, answer: Result<Vec<(PoolKey, Port)>, Refusal>) {
        let mut state = spares.state.lock();
        let answer = answer.map(|made| {
            let (good, bad): (Vec<_>, Vec<_>) = made.into_iter().partition(|(_, port)| {
                let ours = Mark::read(&self.cluster, &port.tags).is_some_and(|mark| mark.purpose == Purpose::Pool);
                ours && self.plugged(port).is_ok()
            });
            for (key, port) in bad {
                let reason = self.plugged(&port).map_or_else(|error| error.reason(), |_| Reason::TagsDropped);
                tracing::warn!(pool = %key, port = %port.id, reason = reason.as_str(), "a spare port cannot be used: this pool stays empty");
                let drained = state.pools.drain(&key);
                state.delete.extend(drained);
                state.delete.push(port.id);
            }
            good
        });
        let unneeded = state.pools.answered(id, answer, self.now());
        state.delete.extend(unneeded);
    }
}

/// Makes and deletes spare ports as planned, for ever.
pub(super) async fn keep(shared: &Arc<Shared>) {
    let Some(spares) = &shared.spares else { return };
    let (mut bulks, mut deletes) = (FuturesUnordered::new(), FuturesUnordered::new());
    loop {
        let again = {
            let mut state = spares.state.lock();
            state.follow(spares.index.serving(), shared.now());
            let plan = state.pools.plan(shared.now(), &Headroom::default());
            state.delete.extend(plan.delete);
            bulks.extend(plan.bulks.into_iter().map(|bulk| shared.refill(bulk).boxed()));
            let free = DELETES.saturating_sub(deletes.len());
            let count = state.delete.len().min(free);
            for id in state.delete.drain(..count) {
                deletes.push(delete(shared, id).boxed());
            }
            plan.again
        };
        let wait = async {
            match again {
                Some(time) => drop(timeout(time, spares.changed.notified()).await),
                None => spares.changed.notified().await,
            }
        };
        tokio::select! {
            Some((id, answer)) = bulks.next() => shared.arrived(spares, id, answer),
            Some(failed) = deletes.next() => spares.state.lock().delete.extend(failed),
            () = wait => {}
        }
    }
}

/// Deletes a port; if that fails, it is to be tried again when this ends.
async fn delete(shared: &Shared, id: PortId) -> Option<PortId> {
    let error = shared.delete(id).await.err()?;
    tracing::info!(port = %id, reason = %error, "a spare port was not deleted; trying again");
    tokio::time::sleep(RETRY).await;
    Some(id)
}
