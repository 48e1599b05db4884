//! How many more pods fit on nodes that are virtual machines. Told from what is known: of a trunk since its machine was found, of
//! address pairs since Neutron refused one.

use super::{Machines, Slot};
use crate::error::PodError;
use kuryr_model::{PortId, TrunkId, neutron::Port, vif::PlugDriver};
use kuryr_openstack::{Error as CloudError, Filter};
use kuryr_plan::{
    fullness::{Capacity, Limit},
    nested::{Machine, Pods, Question},
    pairs, trunk,
};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{Notify, watch};

/// What is known of a node's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Not yet what there is.
    NotYet,
    /// That there is nothing to say: no limit was met, or the machine has no port or trunk.
    Nothing,
    /// So many pods fit.
    Of(Capacity),
}

/// Tells when what is known may have changed.
pub(crate) struct Changes<'a> {
    looked: &'a Notify,
    trunks: watch::Receiver<HashMap<TrunkId, trunk::Room>>,
    pairs: watch::Receiver<HashMap<PortId, pairs::Limit>>,
}

impl Changes<'_> {
    /// Waits for a change.
    pub(crate) async fn next(&mut self) {
        // Those who write end with the machines, which are borrowed here.
        tokio::select! {
            () = self.looked.notified() => {}
            _ = self.trunks.changed() => {}
            _ = self.pairs.changed() => {}
        }
    }
}

impl Machines {
    /// Changes of what is known from now on.
    pub(crate) fn changes(&self) -> Changes<'_> {
        Changes { looked: &self.looked, trunks: self.trunks.rooms(), pairs: self.pairs.limits.subscribe() }
    }

    /// How many more pods fit on a node.
    pub(crate) fn room_of(&self, node: &str, machine: &Machine) -> Room {
        let slot = self.state.lock().slots.get(node).cloned();
        // One that is held is being looked for.
        let Some(slot) = slot.as_ref().and_then(|slot| slot.try_lock().ok()) else { return Room::NotYet };
        let found = match &slot.0 {
            Some((known, found, _)) if known == machine => found,
            _ => return Room::NotYet,
        };
        match found {
            Err(PodError::Cloud(_)) => Room::NotYet,
            Err(_) => Room::Nothing,
            Ok(found) if !self.holds(found) => Room::Nothing,
            Ok(found) => match found.pods {
                Pods::Subports(trunk) => self.trunks.room(trunk).map_or(Room::NotYet, |room| {
                    Room::Of(Capacity { free: room.free, limit: Limit::Ids { trunk, others: room.others } })
                }),
                Pods::Pairs | Pods::Addresses => {
                    let parent = found.parent.port_id;
                    let limit = self.pairs.limits.borrow().get(&parent).copied();
                    let known = limit.and_then(|limit| Some((limit.room()?, limit.most()?)));
                    known.map_or(Room::Nothing, |(free, most)| {
                        Room::Of(Capacity { free, limit: Limit::Pairs { parent, most } })
                    })
                }
            },
        }
    }

    /// Somebody may have taken their subports off a trunk.
    pub(crate) fn look_again(&self, trunk: TrunkId) {
        self.trunks.look_again(trunk);
    }

    /// Looks for all machines that were never looked for, in a few requests: a node may be full before any pod comes to it.
    ///
    /// # Errors
    /// Neutron's. Those that were not found have told why where that is known.
    pub(crate) async fn find_new(&self) -> Result<(), CloudError> {
        let new = self.index.machines().into_iter().filter(|(node, machine)| !self.was_looked_for(node, machine));
        let new: Vec<(String, Arc<Machine>)> = new.collect();
        let (mut ids, mut servers, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for (_, machine) in &new {
            match machine.question() {
                Ok(Question::Id(port)) => ids.push(port),
                Ok(Question::Device(server)) => servers.push(server),
                Ok(Question::Addresses(ips)) => addresses.extend(ips),
                // It says why below.
                Err(_) => {}
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let network = self.network.background();
        let mut ports: Vec<Port> = Vec::new();
        for (filter, asks) in [
            (Filter::new().any("id", &ids), !ids.is_empty()),
            (Filter::new().any("device_id", &servers), !servers.is_empty()),
            (self.by_address(&addresses), !addresses.is_empty()),
        ] {
            if asks {
                ports.extend(network.ports().list(&filter).await?);
            }
        }
        // One may be an answer to two questions.
        ports.sort_by_key(|port| port.id);
        ports.dedup_by_key(|port| port.id);
        // A cloud may have no trunks at all.
        let trunks = if new.iter().any(|(_, machine)| machine.driver == PlugDriver::Vlan) {
            self.trunks_of(ports.iter().map(|port| port.id)).await?
        } else {
            Vec::new()
        };
        for (node, machine) in new {
            let slot: Arc<tokio::sync::Mutex<Slot>> = self.state.lock().slots.entry(node.clone()).or_default().clone();
            let mut slot = slot.lock().await;
            // A pod's look for it is newer.
            if !was_looked_for(&slot, &machine) {
                let judged = machine.question().map_err(PodError::from);
                let (found, trunk) = match judged.and_then(|_| self.judge(&machine, &ports, &trunks)) {
                    Ok((found, trunk)) => (Ok(found), trunk),
                    Err(error) => (Err(error), None),
                };
                self.found(&node, &mut slot, &machine, &found, trunk);
            }
        }
        Ok(())
    }

    fn was_looked_for(&self, node: &str, machine: &Machine) -> bool {
        let slot = self.state.lock().slots.get(node).cloned();
        // One that is held is being looked for.
        slot.is_some_and(|slot| slot.try_lock().map_or(true, |slot| was_looked_for(&slot, machine)))
    }
}

fn was_looked_for(slot: &Slot, machine: &Machine) -> bool {
    slot.0.as_ref().is_some_and(|(known, found, _)| known == machine && !matches!(found, Err(PodError::Cloud(_))))
}
