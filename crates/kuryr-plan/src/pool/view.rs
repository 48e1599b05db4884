//! What people are told about pools.

use super::{Breaker, Moment, PoolKey, Pools, store::Store};
use serde::{Deserialize, Serialize};

/// What there is of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Ports that can be handed out.
    pub ready: usize,
    /// Ports that were given back too short a time ago.
    pub cooling: usize,
    /// Ports that are being made.
    pub refilling: usize,
    /// Ports that should be ready.
    pub target: usize,
    /// Pods that got a port from it, since the controller leads.
    pub hits: u64,
    /// Pods that found none.
    pub misses: u64,
    /// Of these, those that still have none.
    pub waiting: usize,
    /// It is kept empty: an operator drained it.
    pub drained: bool,
    /// It is kept empty for some time: its trunk did not take the last port.
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
    pub fn view(&self, now: Moment) -> Vec<(PoolKey, PoolView)> {
        let targets = self.targets(now);
        let view = |((key, store), target): ((&PoolKey, &Store), usize)| {
            let cooled = store.cooling.iter().take_while(|(until, _)| *until <= now).count();
            let view = PoolView {
                ready: store.ready.len() + cooled,
                cooling: store.cooling.len() - cooled,
                refilling: store.refilling,
                target,
                hits: store.hits,
                misses: store.misses,
                waiting: store.waiting.len(),
                drained: store.drained,
                refused: store.breaker != Breaker::Closed,
            };
            (key.clone(), view)
        };
        self.stores.iter().zip(targets).map(view).collect()
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
