//! What people are told about pools, and may tell them.

use super::{Spares, State};
use crate::allocator::Shared;
use kuryr_model::NetworkId;
use kuryr_plan::pool::{HeldUp, Place, PoolKey, PoolView};
use serde::{Deserialize, Serialize};

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// The node.
    pub node: String,
    /// Where its ports are plugged: the name that Neutron has for the node, or its trunk.
    pub place: String,
    /// The network of its ports.
    pub network: NetworkId,
    /// Ports that can be handed out.
    pub ready: usize,
    /// Ports that were given back too short a time ago.
    pub cooling: usize,
    /// Ports that are being made.
    pub refilling: usize,
    /// Ports that should be ready.
    pub target: usize,
    /// Pods that got a port from it since the controller leads.
    pub hits: u64,
    /// Pods that found none.
    pub misses: u64,
    /// Of these, those that still have none.
    pub waiting: usize,
    /// It is kept empty: an operator drained it.
    pub drained: bool,
    /// It is kept empty for some time: ports for it cannot be plugged, or its trunk does not take them.
    pub refused: bool,
}

/// All pools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// Each, by place and network.
    pub pools: Vec<PoolRow>,
    /// Spare ports, with those that are being made.
    pub held: usize,
    /// The most that there may be.
    pub budget: usize,
    /// Ports that are to be deleted.
    pub leaving: usize,
    /// Requests for spare ports that are under way.
    pub requests: usize,
    /// Pods wait because the quota or the subnets are used up, so pools do not grow.
    pub short: bool,
    /// Why else pools do not get the ports that they should have.
    pub held_up: Option<HeldUp>,
}

/// There is no such pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPool {
    /// There are none at all.
    #[error("there are no port pools: [pools] enabled is false")]
    Off,
    /// Not for this node.
    #[error("node {0} has no port pool{on}; it has one once it is there and not cordoned, and a virtual machine once its trunk is found (kinds macvlan and ipvlan have none)", on = .1.map_or(String::new(), |network| format!(" on network {network}")))]
    None(String, Option<NetworkId>),
}

impl Shared {
    pub(in crate::allocator) fn pool_report(&self) -> Option<PoolReport> {
        self.spares.as_ref().map(|spares| self.report(spares))
    }

    fn report(&self, spares: &Spares) -> PoolReport {
        let state = spares.state.lock();
        let totals = state.pools.totals();
        PoolReport {
            pools: state.pools.view(self.now()).iter().map(|view| state.row(view)).collect(),
            held: totals.held,
            budget: totals.budget,
            leaving: totals.leaving,
            requests: totals.requests,
            short: state.short,
            held_up: state.held_up,
        }
    }

    pub(in crate::allocator) fn fill_pools(
        &self,
        node: &str,
        network: Option<NetworkId>,
        count: usize,
    ) -> Result<Vec<usize>, UnknownPool> {
        let spares = self.spares.as_ref().ok_or(UnknownPool::Off)?;
        let keys = self.pools_of(spares, node, network)?;
        let mut state = spares.state.lock();
        for key in &keys {
            state.unfit.remove(key);
            state.pools.fill(key, count);
        }
        spares.changed.notify_one();
        let all = state.pools.view(self.now()).into_iter();
        Ok(all.filter(|view| keys.contains(&view.key)).map(|view| view.target).collect())
    }

    pub(in crate::allocator) fn drain_pools(
        &self,
        node: &str,
        network: Option<NetworkId>,
    ) -> Result<usize, UnknownPool> {
        let spares = self.spares.as_ref().ok_or(UnknownPool::Off)?;
        let keys = self.pools_of(spares, node, network)?;
        let mut state = spares.state.lock();
        let mut count = 0;
        for key in &keys {
            state.unfit.remove(key);
            let drained = state.pools.drain(key);
            count += drained.len();
            state.delete.extend(drained);
        }
        spares.changed.notify_one();
        Ok(count)
    }

    fn pools_of(&self, spares: &Spares, node: &str, network: Option<NetworkId>) -> Result<Vec<PoolKey>, UnknownPool> {
        let host = Place::Host(spares.index.home(node).host);
        let state = spares.state.lock();
        let there = |place: &Place| *place == host || state.open.get(place).is_some_and(|of| of == node);
        let fits = |key: &PoolKey| there(&key.place) && network.is_none_or(|network| key.network == network);
        let keys: Vec<PoolKey> = state.pools.view(self.now()).into_iter().map(|view| view.key).filter(fits).collect();
        if keys.is_empty() { Err(UnknownPool::None(node.to_owned(), network)) } else { Ok(keys) }
    }

    /// Publishes the numbers of all pools.
    pub(super) fn publish(&self, spares: &Spares) {
        self.metrics.pools(&self.report(spares));
        spares.told.notify_one();
    }
}

impl State {
    fn row(&self, view: &PoolView) -> PoolRow {
        let place = view.key.place.to_string();
        // Such a pool is drained, and by nobody.
        let unfit = self.unfit.contains_key(&view.key);
        PoolRow {
            node: self.open.get(&view.key.place).unwrap_or(&place).clone(),
            place,
            network: view.key.network,
            ready: view.ready,
            cooling: view.cooling,
            refilling: view.refilling,
            target: view.target,
            hits: view.hits,
            misses: view.misses,
            waiting: view.waiting,
            drained: view.drained && !unfit,
            refused: view.refused || unfit,
        }
    }
}
