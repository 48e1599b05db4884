//! What people are told about pools.

use super::{Breaker, Moment, PoolKey, Pools};

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Which.
    pub key: PoolKey,
    /// Ports that can be handed out.
    pub ready: usize,
    /// Ports that were given back too short a time ago.
    pub cooling: usize,
    /// Ports that are being made.
    pub refilling: usize,
    /// Ports that should be ready.
    pub target: usize,
    /// Pods that got a port from it.
    pub hits: u64,
    /// Pods that found none.
    pub misses: u64,
    /// Of these, those that still have none.
    pub waiting: usize,
    /// An operator drained it.
    pub drained: bool,
    /// Its trunk did not take the last port.
    pub refused: bool,
}

/// All pools together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Spare ports, with those that are being made.
    pub held: usize,
    /// The most that there may be.
    pub budget: usize,
    /// Ports handed out to pods that have no `KuryrPort` with them yet.
    pub lent: usize,
    /// Ports that are to be deleted and are not known to be gone.
    pub leaving: usize,
    /// Requests for spare ports that are under way.
    pub requests: usize,
}

impl Pools {
    /// Every pool, by place and network.
    #[must_use]
    pub fn view(&self, now: Moment) -> Vec<PoolView> {
        let targets = self.targets(now);
        let view = |((key, store), target): ((&PoolKey, &super::store::Store), usize)| {
            let cooled = store.cooling.iter().take_while(|(until, _)| *until <= now).count();
            PoolView {
                key: key.clone(),
                ready: store.ready.len() + cooled,
                cooling: store.cooling.len() - cooled,
                refilling: store.refilling,
                target,
                hits: store.hits,
                misses: store.misses,
                waiting: store.waiting.len(),
                drained: store.drained,
                refused: store.breaker != Breaker::Closed,
            }
        };
        self.stores.iter().zip(targets).map(view).collect()
    }

    /// Whether ports are being made for pools, or for more than so many pods.
    #[must_use]
    pub fn is_waited_for(&self, besides: usize) -> bool {
        !self.bulks.is_empty() || self.stores.values().map(|store| store.waiting.len()).sum::<usize>() > besides
    }

    /// All together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            held: self.held(),
            budget: self.settings.budget,
            lent: self.lent(),
            leaving: self.leaving.len(),
            requests: self.bulks.len(),
        }
    }
}
