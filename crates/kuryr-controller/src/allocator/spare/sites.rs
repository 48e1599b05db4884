//! Where there are pools: nodes, and trunks of nodes that are virtual machines. These are looked for before any pod asks.

use super::State;
use crate::{
    allocator::Shared,
    index::Serving,
    machines::{Machines, Sight},
};
use kuryr_model::{PortId, TrunkId, neutron::Port};
use kuryr_plan::{
    nested::{Found, Pods},
    pool::{Back, Place},
};
use std::{collections::BTreeMap, time::Duration};

/// The trunk of a machine that is found.
fn trunk(sight: &Sight) -> Option<TrunkId> {
    match sight {
        Sight::Found(Found { pods: Pods::Subports(trunk), .. }) => Some(*trunk),
        Sight::Found(_) | Sight::Nothing | Sight::NotYet => None,
    }
}

impl State {
    /// Opens and closes pools as nodes and trunks come and go.
    pub(super) fn follow(&mut self, serving: Serving, machines: &Machines, now: Duration) {
        let sights = serving.machines.into_iter().map(|(node, machine)| (machines.sight(&node, &machine), node));
        self.sites = sights.map(|(sight, node)| (node, sight)).collect();
        let mut open: BTreeMap<Place, String> =
            serving.hosts.into_iter().map(|(host, node)| (Place::Host(host), node)).collect();
        for (node, sight) in &self.sites {
            if let Some(trunk) = trunk(sight) {
                open.entry(Place::Trunk(trunk)).or_insert_with(|| node.clone());
            }
        }
        for place in open.keys() {
            // Spare ports have ids there, too.
            let room = match place {
                Place::Host(_) => None,
                Place::Trunk(trunk) => machines.room(*trunk).map(|free| free + self.pools.there(place)),
            };
            if room.is_some() || !self.open.contains_key(place) {
                self.pools.open(place, room.unwrap_or(usize::MAX), now);
            }
        }
        for place in self.open.keys().filter(|place| !open.contains_key(*place)) {
            self.delete.extend(self.pools.close(place));
        }
        self.open = open;
        for key in self.unfit.extract_if(|_, until| *until <= now).map(|(key, _)| key) {
            self.pools.fill(&key, 0);
        }
    }

    /// The machine with this trunk.
    pub(super) fn machine_on(&self, place: &Place) -> Option<&Found> {
        let Place::Trunk(trunk) = place else { return None };
        self.sites.values().find_map(|sight| match sight {
            Sight::Found(found) if found.pods == Pods::Subports(*trunk) => Some(found),
            _ => None,
        })
    }

    /// Where a port is plugged; `None`: nowhere, so it was made for a trunk and did not get there.
    pub(super) fn place_of(&self, port: &Port) -> Option<Place> {
        match self.on.get(&port.id) {
            Some(trunk) => Some(Place::Trunk(*trunk)),
            None if port.host_id.is_empty() || port.device_owner == SUBPORT => None,
            None => Some(Place::Host(port.host_id.clone())),
        }
    }

    /// Takes over spare ports that were found on trunks, as it becomes known whose trunks these are; those of nobody's are deleted.
    pub(super) fn adopt(&mut self, shared: &Shared, now: Duration) {
        let all_known = self.sites.values().all(|sight| *sight != Sight::NotYet);
        for port in std::mem::take(&mut self.found) {
            let place = self.place_of(&port).filter(|place| self.open.contains_key(place));
            match place {
                _ if self.pools.knows(port.id) => {}
                Some(place) => self.take_over(shared, &place, port, now),
                None if all_known => self.discard(port.id),
                None => self.found.push(port),
            }
        }
    }

    /// Takes over a spare port that was found at a place, if it is as it should be.
    pub(super) fn take_over(&mut self, shared: &Shared, place: &Place, port: Port, now: Duration) {
        let id = port.id;
        let machine = self.machine_on(place).copied();
        if !shared.is_plain(&port.security_groups) || shared.plugged(&port, machine.as_ref()).is_err() {
            self.discard(id);
        } else if self.pools.give_back(place, port, now) == Back::Delete {
            self.delete.push(id);
        } else if let Place::Trunk(trunk) = place {
            // Its writer did not know of it.
            self.to_place.push((*trunk, id));
        }
    }

    /// A port that nobody has is to be deleted.
    pub(super) fn discard(&mut self, id: PortId) {
        self.pools.discard(id);
        self.delete.push(id);
    }
}

/// The owner that Neutron gives ports on trunks.
pub(super) const SUBPORT: &str = "trunk:subport";
