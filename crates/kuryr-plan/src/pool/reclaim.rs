//! Spare ports make way for pods that find no room.

use super::{Moment, PoolKey, Pools, breaker::PAUSE_FULL};
use crate::subnets::Choice;
use kuryr_model::{PortId, neutron::Port};
use std::collections::BinaryHeap;

/// What there is too little of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    /// Ports in the quota.
    Quota,
    /// Addresses in these subnets.
    Subnets(Choice),
}

impl Pools {
    /// So many pods wait now because of this shortage; 0: none any more, to be said as soon as it is so, for until then pools ask
    /// for nothing of it whatever comes free. Spare ports that are to be deleted for them, those of the least
    /// busy pools first. What they do not cover is covered by ports that are given back: those are not kept.
    pub fn starved(&mut self, shortage: &Shortage, lacking: usize, now: Moment) -> Vec<PortId> {
        let mut heap: BinaryHeap<(usize, std::cmp::Reverse<PoolKey>)> = BinaryHeap::new();
        let memory = self.settings.memory;
        for (key, store) in &self.stores {
            let surplus = store.idle().saturating_sub(store.demand.expected(now, memory));
            heap.push((surplus, std::cmp::Reverse(key.clone())));
        }
        let mut out = Vec::new();
        while out.len() < lacking
            && let Some((surplus, key)) = heap.pop()
        {
            let Some(store) = self.stores.get_mut(&key.0) else { continue };
            if let Some(port) = store.discard(|port| helps(shortage, port)) {
                out.push(port.id);
                heap.push((surplus.saturating_sub(1), key));
            }
        }
        self.leave(&out);
        if lacking == 0 {
            self.shortages.remove(shortage);
            return out;
        }
        self.shortages.insert(shortage.clone(), lacking - out.len());
        let breaker = match shortage {
            Shortage::Quota => &mut self.quota,
            Shortage::Subnets(choice) => self.breakers.entry(choice.clone()).or_default(),
        };
        breaker.refused(now, PAUSE_FULL);
        out
    }

    /// Whether a pod waits for what this port has.
    pub(super) fn pays_for_a_pod(&mut self, port: &Port) -> bool {
        match self.shortages.iter_mut().find(|(shortage, lacking)| **lacking > 0 && helps(shortage, port)) {
            Some((_, lacking)) => {
                *lacking -= 1;
                true
            }
            None => false,
        }
    }
}

fn helps(shortage: &Shortage, port: &Port) -> bool {
    match shortage {
        Shortage::Quota => true,
        Shortage::Subnets(choice) => uses(choice, port),
    }
}

/// Whether it has an address of each subnet of the choice: one of a single subnet may not be what the pod lacks.
fn uses(choice: &Choice, port: &Port) -> bool {
    choice.subnets.iter().all(|subnet| port.fixed_ips.iter().any(|fixed| fixed.subnet_id == *subnet))
}
