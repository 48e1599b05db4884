//! All pools, and what becomes of a single port.

use super::{
    Breaker, Lead, Moment, Place, PoolKey, Settings,
    breaker::{PAUSE_AWAY, PAUSE_FULL},
    plan::{BulkId, Sent},
    reclaim::Shortage,
    store::Store,
};
use crate::subnets::Choice;
use kuryr_model::{PodUid, PortId, neutron::Port};
use std::collections::{BTreeMap, BTreeSet};

/// The state of all pools of a cluster.
#[derive(Clone, Debug)]
pub struct Pools {
    pub(super) settings: Settings,
    /// Where ports may be, best first.
    pub(super) choices: Vec<Choice>,
    pub(super) stores: BTreeMap<PoolKey, Store>,
    /// The places that are there, and how many more pods each has room for.
    places: BTreeMap<Place, usize>,
    /// Where each spare port is.
    pub(super) index: BTreeMap<PortId, PoolKey>,
    /// Handed out to pods whose `KuryrPort` is not written yet, or perhaps.
    lent: BTreeMap<PodUid, (PoolKey, Port)>,
    /// To be deleted, and not known to be gone.
    pub(super) leaving: BTreeSet<PortId>,
    /// Made for a trunk, and not on it yet, with when they were asked for.
    placing: BTreeMap<PortId, (PoolKey, Port, Moment)>,
    pub(super) bulks: BTreeMap<BulkId, Sent>,
    pub(super) next_bulk: u64,
    pub(super) lead: Lead,
    pub(super) breakers: BTreeMap<Choice, Breaker>,
    pub(super) quota: Breaker,
    pub(super) cloud: Breaker,
    /// What pods wait for, and how many of them are not covered by what leaves.
    pub(super) shortages: BTreeMap<Shortage, usize>,
}

/// What becomes of a port that a pod does not need any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Back {
    /// Its pool has it. It needs to be as spare ports are: with the groups of a pod that no policy isolates.
    Kept,
    /// It is to be deleted; then [`Pools::deleted`].
    Delete,
}

/// Why a bulk was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A subnet of its choice has too few addresses.
    Full,
    /// The quota is used up.
    Quota,
    /// Anything else: the cloud is away, or does not want to.
    Other,
}

impl Pools {
    /// No pools yet. `choices` are where ports may be, best first.
    #[must_use]
    pub fn new(settings: Settings, choices: Vec<Choice>) -> Self {
        Self {
            settings,
            choices,
            stores: BTreeMap::new(),
            places: BTreeMap::new(),
            index: BTreeMap::new(),
            lent: BTreeMap::new(),
            leaving: BTreeSet::new(),
            placing: BTreeMap::new(),
            bulks: BTreeMap::new(),
            next_bulk: 0,
            lead: Lead::default(),
            breakers: BTreeMap::new(),
            quota: Breaker::default(),
            cloud: Breaker::default(),
            shortages: BTreeMap::new(),
        }
    }

    /// There is such a place, with room for so many more pods: it has a pool on the first network, and none of its pools
    /// is filled beyond that room. To be said again whenever it changes.
    pub fn open(&mut self, place: &Place, room: usize, now: Moment) {
        self.places.insert(place.clone(), room);
        if let Some(network) = self.choices.first().map(|choice| choice.network) {
            self.store(&PoolKey { place: place.clone(), network }, now);
        }
        for store in self.stores.iter_mut().filter(|(key, _)| key.place == *place).map(|(_, store)| store) {
            (store.room, store.closed) = (room, false);
        }
    }

    /// The spare ports that are plugged at a place, or about to be.
    #[must_use]
    pub fn there(&self, place: &Place) -> usize {
        let idle = self.stores.iter().filter(|(key, _)| key.place == *place).map(|(_, store)| store.idle());
        idle.sum::<usize>() + self.placing.values().filter(|(key, ..)| key.place == *place).count()
    }

    /// The pool of this key, which is closed if its place is not there.
    fn store(&mut self, key: &PoolKey, now: Moment) -> &mut Store {
        let room = self.places.get(&key.place);
        let new = || Store { closed: room.is_none(), room: room.copied().unwrap_or(0), ..Store::new(now) };
        self.stores.entry(key.clone()).or_insert_with(new)
    }

    /// A place is gone: the ports that its pools had are to be deleted. What is lent stays so.
    pub fn close(&mut self, place: &Place) -> Vec<PortId> {
        self.places.remove(place);
        let keys: Vec<PoolKey> = self.stores.keys().filter(|key| key.place == *place).cloned().collect();
        let mut gone = Vec::new();
        for key in keys {
            if let Some(store) = self.stores.get_mut(&key) {
                store.closed = true;
            }
            gone.extend(self.empty(&key));
        }
        gone
    }

    /// Takes all ports out of a pool.
    pub(super) fn empty(&mut self, key: &PoolKey) -> Vec<PortId> {
        let mut out = Vec::new();
        if let Some(store) = self.stores.get_mut(key) {
            while let Some(port) = store.discard(|_| true) {
                out.push(port.id);
            }
        }
        self.leave(&out);
        out
    }

    pub(super) fn leave(&mut self, ports: &[PortId]) {
        for id in ports {
            self.index.remove(id);
            self.leaving.insert(*id);
        }
    }

    /// A port for a pod, if there is one that is ready. It is lent until [`Pools::recorded`] or [`Pools::returned`]; a pod that
    /// asks again meanwhile gets the same one. If there is none, the pod waits for one of its own until
    /// [`Pools::waits_no_more`]; it may ask again.
    pub fn take(&mut self, key: &PoolKey, owner: &PodUid, now: Moment) -> Option<Port> {
        if let Some((_, port)) = self.lent.get(owner) {
            return Some(port.clone());
        }
        let (lead, memory) = (self.lead.time(), self.settings.memory);
        let store = self.store(key, now);
        store.settle(now);
        let again = store.waiting.contains(owner);
        if !again {
            store.demand.note(now, lead, memory);
        }
        let Some(port) = store.take() else {
            store.misses += u64::from(!again);
            store.waiting.insert(owner.clone());
            return None;
        };
        store.hits += u64::from(!again);
        store.waiting.remove(owner);
        self.index.remove(&port.id);
        self.lent.insert(owner.clone(), (key.clone(), port.clone()));
        Some(port)
    }

    /// A pod that found no port has one of its own now, or is gone.
    pub fn waits_no_more(&mut self, key: &PoolKey, owner: &PodUid) {
        if let Some(store) = self.stores.get_mut(key) {
            store.waiting.remove(owner);
        }
    }

    /// The port that was lent to this pod, if one was, is in its `KuryrPort`: from now on that tells whose it is.
    pub fn recorded(&mut self, owner: &PodUid) -> Option<PortId> {
        self.lent.remove(owner).map(|(_, port)| port.id)
    }

    /// The port that was lent to this pod is, for sure, in no `KuryrPort`: nobody has used it.
    pub fn returned(&mut self, owner: &PodUid, now: Moment) -> Option<(PortId, Back)> {
        let (key, port) = self.lent.remove(owner)?;
        let id = port.id;
        // It was counted out of the budget when it was lent, and another may have come in.
        let back = if self.keeps(&key, &port) {
            self.store(&key, now).ready.push_back(port);
            self.index.insert(id, key);
            Back::Kept
        } else {
            self.leaving.insert(id);
            Back::Delete
        };
        Some((id, back))
    }

    /// No sandbox can use this port any more. Ports that are found after a restart, and that no `KuryrPort` has, are given
    /// back, too. To give back what was given back already changes nothing.
    pub fn give_back(&mut self, place: &Place, port: Port, now: Moment) -> Back {
        let id = port.id;
        if self.leaving.contains(&id) {
            return Back::Delete;
        }
        if self.index.contains_key(&id) || self.placing.contains_key(&id) {
            return Back::Kept;
        }
        self.lent.retain(|_, (_, lent)| lent.id != id);
        let key = PoolKey { place: place.clone(), network: port.network_id };
        if !self.keeps(&key, &port) {
            self.leaving.insert(id);
            return Back::Delete;
        }
        let until = now + self.settings.cooldown;
        self.store(&key, now).cooling.push_back((until, port));
        self.index.insert(id, key);
        Back::Kept
    }

    /// Whether there is room for one more spare port in this pool, and no pod waits for what it has.
    fn keeps(&mut self, key: &PoolKey, port: &Port) -> bool {
        self.has_room(key) && !self.pays_for_a_pod(port)
    }

    /// Whether there is room for one more spare port in this pool. A place that is not there has none.
    #[must_use]
    pub fn has_room(&self, key: &PoolKey) -> bool {
        let drained = self.stores.get(key).is_some_and(|store| store.closed || store.drained);
        let open = self.places.contains_key(&key.place) && !drained;
        let known = self.choices.iter().any(|choice| choice.network == key.network);
        open && known && self.held() < self.settings.budget
    }

    /// Whether this pool takes a port that was made for a pod. Where quota or addresses were used up of late it
    /// does not: what is deleted may be what another pool, or a pod, lacks.
    #[must_use]
    pub fn takes(&self, key: &PoolKey) -> bool {
        let mut breakers = self.breakers.values().chain([&self.quota]);
        self.has_room(key) && breakers.all(|breaker| *breaker == Breaker::Closed)
    }

    /// Whether a port is lent to this pod.
    #[must_use]
    pub fn lends_to(&self, owner: &PodUid) -> bool {
        self.lent.contains_key(owner)
    }

    /// A pod has this port, although no `KuryrPort` says so any more: it gets the same one when it asks.
    pub fn lend(&mut self, owner: &PodUid, place: &Place, port: Port) {
        let key = PoolKey { place: place.clone(), network: port.network_id };
        self.claim(port.id);
        self.lent.entry(owner.clone()).or_insert((key, port));
    }

    /// The ids of all spare ports.
    #[must_use]
    pub fn spare(&self) -> Vec<PortId> {
        self.index.keys().copied().collect()
    }

    /// Whether this port is a spare one that its pool has.
    #[must_use]
    pub fn is_spare(&self, id: PortId) -> bool {
        self.index.contains_key(&id)
    }

    /// Spare ports, with those that are being made.
    pub(super) fn held(&self) -> usize {
        self.index.len() + self.placing.len() + self.bulks.values().map(Sent::count).sum::<usize>()
    }

    /// How many ports are lent.
    pub(super) fn lent(&self) -> usize {
        self.lent.len()
    }

    /// Whether this port is a spare one, lent or to be deleted, so that it is nobody else's business.
    #[must_use]
    pub fn knows(&self, id: PortId) -> bool {
        self.index.contains_key(&id)
            || self.placing.contains_key(&id)
            || self.leaving.contains(&id)
            || self.lent.values().any(|(_, port)| port.id == id)
    }

    /// A `KuryrPort` has this port, so it is not spare, whatever we thought. Whether it was.
    pub fn claim(&mut self, id: PortId) -> bool {
        let Some(key) = self.index.remove(&id) else { return false };
        if let Some(store) = self.stores.get_mut(&key) {
            store.remove(id);
        }
        true
    }

    /// This spare port is not fit to be one: it is to be deleted. Whether it was spare.
    pub fn withdraw(&mut self, id: PortId) -> bool {
        let spare = self.claim(id);
        if spare {
            self.leaving.insert(id);
        }
        spare
    }

    /// This port, which is nobody's, is to be deleted.
    pub fn discard(&mut self, id: PortId) {
        self.claim(id);
        self.leaving.insert(id);
    }

    /// The port that was lent to this pod cannot be used, and no `KuryrPort` has it: it is to be deleted.
    pub fn spoilt(&mut self, owner: &PodUid) -> Option<PortId> {
        let (_, port) = self.lent.remove(owner)?;
        self.leaving.insert(port.id);
        Some(port.id)
    }

    /// A port that was made for a trunk, or was found there, is `on` it; or it is not, and is to be deleted unless a pod has it. After a
    /// refusal nothing is made for that trunk for a while.
    pub fn placed(&mut self, id: PortId, on: bool, now: Moment) -> Back {
        let Some((key, port, at)) = self.placing.remove(&id) else {
            return if !on && self.withdraw(id) { Back::Delete } else { Back::Kept };
        };
        if on {
            self.lead.note(now.saturating_sub(at));
        }
        if let Some(store) = self.stores.get_mut(&key) {
            store.refilling = store.refilling.saturating_sub(1);
            if !on {
                store.breaker.refused(now, PAUSE_AWAY);
            } else {
                store.breaker.done();
                if !store.closed && !store.drained {
                    store.ready.push_back(port);
                    self.index.insert(id, key);
                    return Back::Kept;
                }
            }
        }
        self.leaving.insert(id);
        Back::Delete
    }

    /// A port that was to be deleted is gone.
    pub fn deleted(&mut self, id: PortId, now: Moment) {
        self.leaving.remove(&id);
        self.freed(now);
    }

    /// There may be room where there was none. As long as pods wait for it, pools do not ask for it.
    pub(super) fn freed(&mut self, now: Moment) {
        if !self.shortages.contains_key(&Shortage::Quota) {
            self.quota.freed(now);
        }
        for (choice, breaker) in &mut self.breakers {
            if !self.shortages.contains_key(&Shortage::Subnets(choice.clone())) {
                breaker.freed(now);
            }
        }
    }

    /// What became of a bulk: its ports, each with its pool; or why there are none. Ports for pools that are gone by now are
    /// returned, and to be deleted. Those of trunks are to be put there: then [`Self::placed`].
    pub fn answered(&mut self, id: BulkId, answer: Result<Vec<(PoolKey, Port)>, Refusal>, now: Moment) -> Vec<PortId> {
        let Some(sent) = self.bulks.remove(&id) else { return Vec::new() };
        for (key, count) in &sent.parts {
            if let Some(store) = self.stores.get_mut(key) {
                store.refilling = store.refilling.saturating_sub(*count);
            }
        }
        let breaker = self.breakers.entry(sent.choice.clone()).or_default();
        let made = match answer {
            Ok(made) => {
                self.lead.note(now.saturating_sub(sent.at));
                breaker.done();
                self.quota.done();
                self.cloud.done();
                made
            }
            Err(Refusal::Full) => {
                breaker.refused(now, PAUSE_FULL);
                self.quota.undecided(now);
                self.cloud.done();
                Vec::new()
            }
            Err(Refusal::Quota) => {
                self.quota.refused(now, PAUSE_FULL);
                breaker.undecided(now);
                self.cloud.done();
                Vec::new()
            }
            Err(Refusal::Other) => {
                self.cloud.refused(now, PAUSE_AWAY);
                self.quota.undecided(now);
                breaker.undecided(now);
                Vec::new()
            }
        };
        let mut unneeded = Vec::new();
        // Whoever looked at all ports meanwhile has found some before.
        for (key, port) in made {
            if self.knows(port.id) {
                continue;
            }
            match self.stores.get_mut(&key) {
                Some(store) if !store.closed && !store.drained => match key.place {
                    Place::Host(_) => {
                        self.index.insert(port.id, key);
                        store.ready.push_back(port);
                    }
                    Place::Trunk(_) => {
                        store.refilling += 1;
                        self.placing.insert(port.id, (key, port, sent.at));
                    }
                },
                _ => unneeded.push(port.id),
            }
        }
        let placing: BTreeSet<&PoolKey> = self.placing.values().map(|(key, ..)| key).collect();
        for (key, _) in sent.parts.iter().filter(|(key, _)| !placing.contains(key)) {
            if let Some(store) = self.stores.get_mut(key) {
                store.breaker.undecided(now);
            }
        }
        self.leave(&unneeded);
        unneeded
    }

    /// Whether a port is to be put on its trunk.
    #[must_use]
    pub fn is_placing(&self, id: PortId) -> bool {
        self.placing.contains_key(&id)
    }

    /// An operator wants so many ready in this pool at least, until the next restart; 0: as many as demand says.
    pub fn fill(&mut self, key: &PoolKey, count: usize) {
        if let Some(store) = self.stores.get_mut(key) {
            (store.fill, store.drained) = (count, false);
        }
    }

    /// An operator wants this pool to be empty, until it is filled or the next restart. What it had is to be deleted.
    pub fn drain(&mut self, key: &PoolKey) -> Vec<PortId> {
        if let Some(store) = self.stores.get_mut(key) {
            (store.fill, store.drained) = (0, true);
        }
        self.empty(key)
    }
}
