//! Sees to it that pods find room before pools do.

use super::Spares;
use crate::{
    allocator::{Shared, port},
    error::PodError,
};
use futures::future::join_all;
use kuryr_model::{NetworkId, PortId};
use kuryr_openstack::{Class, Waits};
use kuryr_plan::{
    allocator::Shortage,
    pool::{Headroom, Shortage as PoolShortage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long Neutron may take to say what it has left. Pools wait for it, and do without if it takes longer.
const HEADROOM_WITHIN: Duration = Duration::from_secs(5);

/// The ways that were made for pods that have no answer yet.
#[derive(Debug, Default)]
pub(in crate::allocator) struct Ways {
    count: usize,
    /// Nothing was there that could make way.
    in_vain: bool,
}

impl Shared {
    /// Deletes spare ports so that pods get what there is too little of; whether there were any.
    pub(in crate::allocator) async fn make_way(&self, ways: &mut Ways, shortage: Shortage, pods: usize) -> bool {
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
                victims.extend(state.pools.starved(shortage, left, self.now()));
            }
            // Until nobody waits any more, what comes free is for those who do.
            state.short = true;
            state.ways += 1;
            ways.count += 1;
        }
        if !victims.is_empty() {
            tracing::info!(pods, ports = victims.len(), ?shortage, "spare ports make way for pods");
        }
        let deleted = join_all(victims.iter().map(|id| self.take_away(spares, *id))).await;
        let failed = victims.iter().zip(&deleted).filter(|(_, deleted)| deleted.is_err()).map(|(id, _)| *id);
        spares.state.lock().delete.extend(failed);
        spares.changed.notify_one();
        let made = deleted.iter().any(Result::is_ok);
        ways.in_vain |= !made;
        made
    }

    /// Deletes a spare port, from its trunk if it is on one. All at once leave that together.
    async fn take_away(&self, spares: &Spares, id: PortId) -> Result<(), PodError> {
        let trunk = spares.state.lock().on.get(&id).copied();
        if let Some(trunk) = trunk {
            self.machines.leave(trunk, id).await?;
        }
        self.delete(id).await
    }

    /// Those for whom these ways were made have their answers.
    pub(in crate::allocator) fn ways_were_made(&self, ways: &Ways) {
        let Some(spares) = self.spares.as_ref().filter(|_| ways.count > 0) else { return };
        let relieved = {
            let mut state = spares.state.lock();
            state.ways -= ways.count;
            // Some wait now.
            state.relieved &= !ways.in_vain;
            state.ways == 0 && std::mem::take(&mut state.relieved)
        };
        if relieved {
            self.relieved();
        }
    }

    /// No pod waits for room any more: pools may grow again. Those for whom way is made just now do not wait yet, and would if a pool
    /// took it.
    pub(in crate::allocator) fn relieved(&self) {
        let Some(spares) = &self.spares else { return };
        let mut state = spares.state.lock();
        if state.ways > 0 {
            state.relieved = true;
            return;
        }
        if std::mem::take(&mut state.short) {
            let all = spares.choices.iter().cloned().map(PoolShortage::Subnets);
            for shortage in all.chain([PoolShortage::Quota]) {
                state.pools.starved(&shortage, 0, self.now());
            }
            spares.changed.notify_one();
        }
    }

    /// What Neutron has left, as far as it says.
    pub(super) async fn headroom(&self) -> Headroom {
        let network = self.cloud.network();
        let network = network.background().within(HEADROOM_WITHIN);
        let quota = match self.cloud.identity().project {
            Some(project) => network.quotas(&project).await.ok(),
            None => None,
        };
        let quota = quota.and_then(|quotas| quotas.get("port")?.free());
        let quota = quota.map(|free| usize::try_from(free).unwrap_or(usize::MAX));
        let mut subnets = BTreeMap::new();
        let networks: BTreeSet<NetworkId> = self.topology.choices.iter().map(|choice| choice.network).collect();
        for id in networks {
            if !self.state.lock().tells_room {
                break;
            }
            match network.ip_availability(id).await {
                Ok(used) => {
                    let free = used.iter().map(|subnet| (subnet.subnet_id, port::free(subnet)));
                    subnets.extend(free.map(|(id, free)| (id, usize::try_from(free).unwrap_or(usize::MAX))));
                }
                Err(error) if error.is_not_found() || error.class() == Class::Operator(Waits::Forbidden) => {
                    self.state.lock().tells_room = false;
                }
                Err(_) => {}
            }
        }
        Headroom { quota, subnets }
    }
}
