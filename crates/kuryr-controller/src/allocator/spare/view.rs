//! What people are told about pools, and may tell them.

use super::Spares;
use crate::{
    allocator::Shared,
    pools::{PoolReport, PoolRow},
};
use kuryr_model::NetworkId;
use kuryr_plan::pool::{Place, PoolKey, PoolView};

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
        let row = |(key, view): (PoolKey, PoolView)| {
            // Such a pool is drained, and by nobody.
            let unfit = state.unfit.contains_key(&key);
            let PoolKey { place, network } = key;
            PoolRow {
                node: state.open.get(&place).cloned().unwrap_or_else(|| place.to_string()),
                place: place.to_string(),
                network,
                view: PoolView { drained: view.drained && !unfit, refused: view.refused || unfit, ..view },
            }
        };
        PoolReport {
            pools: state.pools.view(self.now()).into_iter().map(row).collect(),
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
        Ok(all.filter(|(key, _)| keys.contains(key)).map(|(_, view)| view.target).collect())
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
        let keys: Vec<PoolKey> = state.pools.view(self.now()).into_iter().map(|(key, _)| key).filter(fits).collect();
        if keys.is_empty() { Err(UnknownPool::None(node.to_owned(), network)) } else { Ok(keys) }
    }

    /// Publishes the numbers of all pools.
    pub(super) fn publish(&self, spares: &Spares) {
        self.metrics.pools(&self.report(spares));
        spares.told.notify_one();
    }
}
