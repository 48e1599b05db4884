//! Takes ports back.

use super::{Groups, Spares, State};
use crate::allocator::Shared;
use kuryr_model::{PodUid, PortId, Vif, vif::PlugDriver};
use kuryr_openstack::network::PortUpdate;
use kuryr_plan::{
    enforce::Left,
    pool::{Back, PoolKey},
};

impl Shared {
    /// Whether a port was lent to this pod, which is in no `KuryrPort` for sure: it is spare again.
    pub(in crate::allocator) fn returned(&self, uid: &PodUid) -> bool {
        let Some(spares) = &self.spares else { return false };
        let mut state = spares.state.lock();
        let Some((id, back)) = state.pools.returned(uid, self.now()) else { return false };
        let groups = state.out.remove(&id).map(|out| out.groups);
        let plain = match groups {
            Some(Groups::Plain) => true,
            Some(Groups::Handed) => matches!(self.policies.give_up(id), Left::With(groups) if self.is_plain(&groups)),
            Some(Groups::Unsure) | None => false,
        };
        if back == Back::Delete || !plain && state.pools.withdraw(id) {
            state.delete.push(id);
        }
        spares.changed.notify_one();
        true
    }

    /// Gives the port of a VIF back to its pool, if it is of one, or was made because that had none, and the pool keeps it.
    pub(in crate::allocator) async fn give_back(&self, vif: &Vif) -> bool {
        let Some(spares) = &self.spares else { return false };
        let id = vif.port_id;
        {
            let state = spares.state.lock();
            // It was given back already, and what was to be done after that did not succeed.
            if state.pools.is_spare(id) {
                return true;
            }
            if !state.out.contains_key(&id) && !state.missed.contains_key(&id) {
                return false;
            }
        }
        let trunk = match vif.plug.parent.filter(|_| vif.plug.driver == PlugDriver::Vlan) {
            // The one that it has now. If there is none the port cannot stay there, and if that is not known, who takes it off will say why.
            Some(parent) => match self.machines.trunk_of(parent.port_id).await {
                Ok(Some(trunk)) => Some(trunk),
                Ok(None) | Err(_) => return false,
            },
            None => None,
        };
        let (place, mut port, missed, old_name) = {
            let mut state = spares.state.lock();
            let own = state.missed.remove(&id);
            let missed = own.is_some();
            let Some(port) = state.out.remove(&id).map(|out| out.port).or(own) else { return false };
            if let Some(trunk) = trunk {
                state.on.insert(id, trunk);
            }
            let Some(place) = state.place_of(&port) else { return false };
            let key = PoolKey { place: place.clone(), network: port.network_id };
            let room = if missed { state.pools.takes(&key) } else { state.pools.has_room(&key) };
            if !room {
                return false;
            }
            (place, port, missed, state.rename.remove(&id))
        };
        if !self.is_plain_again(id).await || missed && !self.mark_as_spare(spares, &mut port).await {
            return false;
        }
        port.security_groups = self.plain();
        let mut state = spares.state.lock();
        if missed {
            state.disown(&mut port);
        } else if old_name.is_none() {
            spares.call(&mut state, id, super::NAME.to_owned());
        }
        let kept = state.pools.give_back(&place, port, self.now()) == Back::Kept;
        if !kept {
            state.rename.remove(&id);
        }
        spares.changed.notify_one();
        kept
    }

    /// Whether a port that is its pod's no more has the groups of spare ports, in the end.
    async fn is_plain_again(&self, id: PortId) -> bool {
        match self.policies.give_up(id) {
            // That request may be carried out after any other.
            Left::Changing => return false,
            Left::With(groups) if self.is_plain(&groups) => return true,
            Left::With(_) | Left::Unknown => {}
        }
        let change = PortUpdate { security_groups: Some(self.plain()), ..PortUpdate::default() };
        match self.cloud.network().background().ports().update(id, &change, None).await {
            Ok(port) => self.is_plain(&port.security_groups),
            Err(error) => {
                tracing::info!(port = %id, reason = %error, "the port does not get the groups of spare ports, and is deleted");
                false
            }
        }
    }

    /// A port was deleted.
    pub(in crate::allocator) fn deleted(&self, id: PortId) {
        if let Some(spares) = &self.spares {
            let mut state = spares.state.lock();
            state.gone.insert(id);
            state.out.remove(&id);
            state.missed.remove(&id);
            state.on.remove(&id);
            state.rename.remove(&id);
            state.pools.deleted(id, self.now());
            spares.changed.notify_one();
        }
    }
}

impl Spares {
    /// A port is to be called so, if ports have names.
    pub(super) fn call(&self, state: &mut State, id: PortId, name: String) {
        if self.names {
            state.rename.entry(id).or_default().name = Some(name);
            self.changed.notify_one();
        }
    }
}
