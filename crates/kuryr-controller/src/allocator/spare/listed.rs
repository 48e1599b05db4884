//! After a restart, and now and then: takes over what was listed.

use super::{Groups, Out, State, sites::SUBPORT};
use crate::{allocator::Shared, error::PodError};
use kuryr_model::{Mark, PortId, Purpose, TrunkId, neutron::Port};
use kuryr_plan::{allocator::LATE, pool::Place};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

impl Shared {
    /// All ports with our mark are about to be listed.
    pub(in crate::allocator) fn listing(&self) {
        if let Some(spares) = &self.spares {
            let mut state = spares.state.lock();
            state.gone.clear();
            state.made_since = state.pools.totals().requests > 0;
            state.spare_before = state.pools.spare().into_iter().collect();
        }
    }

    /// The trunks that carry ports of pools, as far as that is not known: one list, or none.
    pub(in crate::allocator) async fn carriers(&self, ports: &[Port]) -> Result<HashMap<PortId, TrunkId>, PodError> {
        let Some(spares) = &self.spares else { return Ok(HashMap::new()) };
        let unknown = {
            let state = spares.state.lock();
            let carried = |port: &&Port| port.device_owner == SUBPORT && !state.on.contains_key(&port.id);
            ports.iter().filter(carried).any(|port| self.is_pooled(port))
        };
        if !unknown {
            return Ok(HashMap::new());
        }
        let mut carriers = HashMap::new();
        for trunk in self.machines.all_trunks().await? {
            carriers.extend(trunk.sub_ports.iter().map(|subport| (subport.port_id, trunk.id)));
        }
        Ok(carriers)
    }

    fn is_pooled(&self, port: &Port) -> bool {
        Mark::read(&self.cluster, &port.tags).is_some_and(|mark| mark.purpose == Purpose::Pool)
    }

    /// Whether some of these are ports of pools that nobody knows of.
    pub(in crate::allocator) fn has_unknown(&self, ports: &BTreeSet<PortId>) -> bool {
        match &self.spares {
            Some(spares) => {
                let state = spares.state.lock();
                ports.iter().any(|id| !state.gone.contains(id) && !state.pools.knows(*id))
            }
            None => !ports.is_empty(),
        }
    }

    /// Takes over what was listed: `spare` are ports of pools that no `KuryrPort` had. Those that are to be deleted, because there are no
    /// pools, are left.
    pub(in crate::allocator) fn listed(
        &self,
        ports: &[Port],
        spare: BTreeSet<PortId>,
        carriers: &HashMap<PortId, TrunkId>,
    ) -> BTreeSet<PortId> {
        let Some(spares) = &self.spares else { return spare };
        let mut state = spares.state.lock();
        state.follow(spares.index.serving(), &self.machines, self.now());
        let held = spares.index.held();
        state.found.clear();
        for port in ports.iter().filter(|port| self.is_pooled(port)) {
            state.spare_before.remove(&port.id);
            if let Some(trunk) = carriers.get(&port.id) {
                state.on.entry(port.id).or_insert(*trunk);
            }
            if held.contains(&port.id) {
                state.pools.claim(port.id);
                let out = || Out { port: port.clone(), groups: Groups::Handed, settled: true };
                state.out.entry(port.id).or_insert_with(out);
            } else if state.gone.contains(&port.id) || state.pools.knows(port.id) {
            } else if spare.contains(&port.id) {
                self.found(&mut state, port);
            }
        }
        state.adopt(self, self.now());
        // Somebody deleted these behind our back.
        for id in std::mem::take(&mut state.spare_before) {
            if state.pools.claim(id) {
                tracing::warn!(port = %id, "a spare port is not there any more");
                state.on.remove(&id);
                self.machines.forget(id);
            }
        }
        spares.changed.notify_one();
        BTreeSet::new()
    }

    /// A spare port that nobody knew of.
    fn found(&self, state: &mut State, port: &Port) {
        match state.place_of(port) {
            Some(place @ Place::Host(_)) => state.take_over(self, &place, port.clone(), self.now()),
            Some(Place::Trunk(_)) => state.found.push(port.clone()),
            // It may be about to be put on its trunk.
            None if state.made_since => self.look_soon(LATE),
            // A controller died before it put it on its trunk, or the trunk is gone.
            None => state.discard(port.id),
        }
    }

    /// All ports are to be listed again after this time, if not before.
    pub(super) fn look_soon(&self, after: Duration) {
        if let Some(spares) = &self.spares {
            let at = Instant::now() + after;
            spares.look.send_modify(|look| *look = Some(look.map_or(at, |before| before.min(at))));
        }
    }

    /// Waits until all ports are to be listed again, because some may have been made unseen.
    pub(in crate::allocator) async fn look_is_due(&self) {
        let Some(spares) = &self.spares else { return std::future::pending().await };
        let mut look = spares.look.subscribe();
        loop {
            let due = *look.borrow_and_update();
            let at = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = at => {
                    spares.look.send_replace(None);
                    return;
                }
                changed = look.changed() => if changed.is_err() { return std::future::pending().await },
            }
        }
    }
}
