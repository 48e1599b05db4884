//! Spare ports make way for pods that find no room.

use super::{Moment, PoolKey, Pools};
use crate::subnets::Choice;
use kuryr_model::{PortId, neutron::Port};
use std::collections::BinaryHeap;

/// What there is too little of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Ports in the quota.
    Quota,
    /// Addresses in these subnets.
    Subnets(Choice),
}

impl Pools {
    /// So many pods wait now because of this shortage (0: none any more). Spare ports that are to be deleted for them, those of the least
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
        let still = lacking - out.len();
        match shortage {
            Shortage::Quota => {
                self.lacking_quota = still;
                if lacking > 0 {
                    self.quota.refused(now, super::pools::PAUSE_FULL);
                }
            }
            Shortage::Subnets(choice) => {
                self.lacking_room.insert(choice.clone(), still);
                if lacking > 0 {
                    self.breakers.entry(choice.clone()).or_default().refused(now, super::pools::PAUSE_FULL);
                }
            }
        }
        out
    }

    /// Whether a pod waits for what this port has.
    pub(super) fn pays_for_a_pod(&mut self, port: &Port) -> bool {
        for (choice, lacking) in &mut self.lacking_room {
            if *lacking > 0 && uses(choice, port) {
                *lacking -= 1;
                return true;
            }
        }
        let lacks = self.lacking_quota > 0;
        self.lacking_quota -= usize::from(lacks);
        lacks
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
