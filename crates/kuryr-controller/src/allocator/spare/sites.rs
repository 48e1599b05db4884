//! Where there are pools: nodes, and trunks of nodes that are virtual machines. These are looked for before any pod asks.

use super::State;
use crate::{allocator::Shared, error::PodError, index::Serving, machines::Machines};
use kuryr_model::{PortId, TrunkId, neutron::Port};
use kuryr_plan::{
    nested::{Found, Machine, Pods},
    pool::{Back, Place},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The first and the longest time after which a machine that was not found is looked for again, if nobody finds it before.
const AGAIN: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(60));

/// A node that is a virtual machine whose trunk is to have pools.
#[derive(Clone, Debug)]
pub(super) struct Site {
    machine: Arc<Machine>,
    found: Option<Found>,
    /// It is known that it has no trunk.
    without: bool,
    /// It is being looked for.
    looking: bool,
    /// When it is looked for, if it is not found.
    next: Duration,
    failures: u32,
}

impl Site {
    /// [`Machines::find_new`] looks for all that are new in a few requests: only one that it does not find is looked for alone.
    fn new(machine: Arc<Machine>, now: Duration) -> Self {
        Self { machine, found: None, without: false, looking: false, next: now + AGAIN.0, failures: 0 }
    }

    fn trunk(&self) -> Option<TrunkId> {
        match self.found?.pods {
            Pods::Subports(trunk) => Some(trunk),
            Pods::Pairs | Pods::Addresses => None,
        }
    }
}

impl State {
    /// Opens and closes pools as nodes and trunks come and go.
    pub(super) fn follow(&mut self, serving: Serving, machines: &Machines, now: Duration) {
        self.sites.retain(|node, site| serving.machines.get(node) == Some(&site.machine));
        for (node, machine) in serving.machines {
            self.sites.entry(node).or_insert_with(|| Site::new(machine, now));
        }
        for (node, site) in &mut self.sites {
            if site.found.is_some_and(|found| !machines.holds(&found)) {
                (site.found, site.next) = (None, now);
            }
            if site.found.is_none() {
                site.found = machines.known(node, &site.machine);
            }
        }
        let mut open: BTreeMap<Place, String> =
            serving.hosts.into_iter().map(|(host, node)| (Place::Host(host), node)).collect();
        for (node, site) in &self.sites {
            if let Some(trunk) = site.trunk() {
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

    /// The machines that are to be looked for now, at most so many.
    pub(super) fn wanted_machines(&mut self, most: usize, now: Duration) -> Vec<(String, Arc<Machine>)> {
        let due = |site: &Site| site.found.is_none() && !site.looking && site.next <= now;
        let mut all = Vec::new();
        for (node, site) in self.sites.iter_mut().filter(|(_, site)| due(site)).take(most) {
            site.looking = true;
            all.push((node.clone(), site.machine.clone()));
        }
        all
    }

    /// What came of it.
    pub(super) fn was_looked_for(
        &mut self,
        node: &str,
        machine: &Machine,
        found: Result<Found, PodError>,
        now: Duration,
    ) {
        // It may say something else by now.
        let Some(site) = self.sites.get_mut(node).filter(|site| *site.machine == *machine) else { return };
        site.looking = false;
        match found {
            Ok(found) => (site.found, site.without, site.failures) = (Some(found), false, 0),
            Err(error) => {
                tracing::debug!(node, reason = %error, "no pool there: the machine's trunk is not found");
                site.without = matches!(error, PodError::Parent(_));
                let (first, longest) = AGAIN;
                site.next = now + first.saturating_mul(1 << site.failures.min(16)).min(longest);
                site.failures += 1;
            }
        }
    }

    /// Time until a machine is to be looked for.
    pub(super) fn look_after(&self, now: Duration) -> Option<Duration> {
        let waiting = self.sites.values().filter(|site| site.found.is_none() && !site.looking);
        waiting.map(|site| site.next.saturating_sub(now)).min()
    }

    /// The machine with this trunk.
    pub(super) fn machine_on(&self, place: &Place) -> Option<&Found> {
        let Place::Trunk(trunk) = place else { return None };
        self.sites.values().find(|site| site.trunk() == Some(*trunk))?.found.as_ref()
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
        let all_known = self.sites.values().all(|site| site.found.is_some() || site.without);
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
