//! After a restart, and now and then: takes over what was listed.

use super::{Groups, Out};
use crate::allocator::Shared;
use kuryr_model::{Mark, PortId, Purpose, neutron::Port};
use kuryr_plan::pool::Back;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{Instant, sleep_until};

impl Shared {
    /// All ports with our mark are about to be listed.
    pub(in crate::allocator) fn listing(&self) {
        if let Some(spares) = &self.spares {
            let mut state = spares.state.lock();
            state.gone.clear();
            state.spare_before = state.pools.spare().into_iter().collect();
        }
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
    pub(in crate::allocator) fn listed(&self, ports: &[Port], spare: BTreeSet<PortId>) -> BTreeSet<PortId> {
        let Some(spares) = &self.spares else { return spare };
        let mut state = spares.state.lock();
        state.follow(spares.index.serving(), self.now());
        let held = spares.index.held();
        let pooled = |port: &&Port| Mark::read(&self.cluster, &port.tags).is_some_and(|m| m.purpose == Purpose::Pool);
        for port in ports.iter().filter(pooled) {
            state.spare_before.remove(&port.id);
            if held.contains(&port.id) {
                state.pools.claim(port.id);
                let out = || Out { port: port.clone(), groups: Groups::Handed };
                state.out.entry(port.id).or_insert_with(out);
            } else if state.gone.contains(&port.id) || state.pools.knows(port.id) {
            } else if spare.contains(&port.id) {
                let usable = self.is_plain(&port.security_groups) && self.plugged(port).is_ok();
                if !usable || state.give_back(port.clone(), self.now()) == Back::Delete {
                    state.delete.push(port.id);
                }
            }
        }
        // Somebody deleted these behind our back.
        for id in std::mem::take(&mut state.spare_before) {
            if state.pools.claim(id) {
                tracing::warn!(port = %id, "a spare port is not there any more");
            }
        }
        spares.changed.notify_one();
        BTreeSet::new()
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
