//! What is to be made and what is to be deleted, so that all pools become as large as they should be.

use super::{Breaker, Moment, PoolKey, Pools, grant, split, store::Store};
use crate::subnets::Choice;
use kuryr_model::{NetworkId, PortId, SubnetId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Which bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BulkId(u64);

/// Ports to be made in one request, perhaps for several places. The answer goes to [`Pools::answered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Which.
    pub id: BulkId,
    /// Where the ports are to be.
    pub choice: Choice,
    /// How many each pool gets; none 0.
    pub parts: Vec<(PoolKey, usize)>,
}

/// What is remembered of it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) choice: Choice,
    pub(super) parts: Vec<(PoolKey, usize)>,
    pub(super) at: Moment,
}

impl Sent {
    pub(super) fn count(&self) -> usize {
        self.parts.iter().map(|(_, count)| count).sum()
    }
}

/// What may still be made, besides all that is under way. What is not known is not there, and is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headroom {
    /// Ports in the quota.
    pub quota: Option<usize>,
    /// Addresses in subnets.
    pub subnets: BTreeMap<SubnetId, usize>,
}

/// What is to be done now, all at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ports to be made.
    pub bulks: Vec<Bulk>,
    /// Ports to be deleted; each then to [`Pools::deleted`].
    pub delete: Vec<PortId>,
    /// Plan again after this time even if nothing happens.
    pub again: Option<Duration>,
    /// Some pools lack ports that could not be asked for now.
    pub short: bool,
    /// Why, if that will not end by itself at once.
    pub held_up: Option<HeldUp>,
}

/// Why pools do not get what they lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldUp {
    /// The quota of ports is used up, but for what is left to pods.
    Quota,
    /// No subnet has addresses but those that are left to pods.
    Addresses,
    /// The cloud did not do what it was asked for last.
    Cloud,
}

/// Time between two plans while pools are larger than they are at rest, unless they are to shrink sooner.
const TICK: Duration = Duration::from_secs(15);

/// The least of it.
const QUICK_TICK: Duration = Duration::from_secs(1);

/// Time between two plans while nothing can be made, as far as is known.
const SLOW_TICK: Duration = Duration::from_secs(60);

/// What one pool should have, and lacks.
struct Lack {
    key: PoolKey,
    /// What there will be of what there should be, in thousandths: the emptiest first.
    full: usize,
    count: usize,
}

impl Pools {
    /// How many ports each pool should have ready.
    pub(super) fn targets(&self, now: Moment) -> Vec<usize> {
        let wants: Vec<(usize, usize)> = self.stores.values().map(|store| store.wants(now, &self.settings)).collect();
        grant(&wants, self.settings.budget)
    }

    /// Whether some pool has fewer ports than it should: only then the headroom matters.
    #[must_use]
    pub fn lacks(&self, now: Moment) -> bool {
        let lead = self.lead.time();
        self.stores.values().zip(self.targets(now)).any(|(store, target)| store.lack(target, now, lead) > 0)
    }

    /// What is to be done. Bulks are taken for sent and ports that are to be deleted for leaving from now on.
    pub fn plan(&mut self, now: Moment, headroom: &Headroom) -> Plan {
        self.stores.values_mut().for_each(|store| store.settle(now));
        self.stores.retain(|_, store| !store.closed || store.held() > 0 || !store.waiting.is_empty());
        let targets: BTreeMap<PoolKey, usize> = self.stores.keys().cloned().zip(self.targets(now)).collect();

        let mut delete = self.shrink(now, &targets);
        let mut lacks = self.lacking(now, &targets);
        let lacking: usize = lacks.iter().map(|lack| lack.count).sum();
        delete.extend(self.make_way(now, &targets, (self.held() + lacking).saturating_sub(self.settings.budget)));

        let bulks = self.refill(now, &mut lacks, headroom);
        let asked: usize = bulks.iter().flat_map(|bulk| &bulk.parts).map(|(_, count)| count).sum();
        let short = asked < lacking;
        let again = self.again(now, short && self.bulks.is_empty(), &targets);
        Plan { bulks, delete, again, short, held_up: self.held_up(now, lacking > 0, headroom) }
    }

    /// Why the next ports cannot be asked for, if some are lacking or what was refused is just tried again.
    fn held_up(&self, now: Moment, lacking: bool, headroom: &Headroom) -> Option<HeldUp> {
        let tried = |breaker: Breaker| matches!(breaker, Breaker::Probing { .. });
        let refused = |breaker: Breaker| tried(breaker) || lacking && breaker != Breaker::Closed;
        let full = |choice: &Choice| self.most(choice, &headroom.subnets, now) == 0;
        let one_is_tried = || self.choices.iter().any(|choice| self.breakers.get(choice).is_some_and(|it| tried(*it)));
        if refused(self.cloud) {
            Some(HeldUp::Cloud)
        } else if refused(self.quota) || lacking && headroom.quota.is_some_and(|left| left <= self.settings.reserve) {
            Some(HeldUp::Quota)
        } else if (lacking || one_is_tried()) && self.choices.iter().all(full) {
            Some(HeldUp::Addresses)
        } else {
            None
        }
    }

    /// How many more ports may be made. Those that leave count until they are gone.
    fn budget_left(&self) -> usize {
        self.settings.budget.saturating_sub(self.held() + self.leaving.len())
    }

    fn shrink(&mut self, now: Moment, targets: &BTreeMap<PoolKey, usize>) -> Vec<PortId> {
        let mut out = Vec::new();
        for (key, store) in &mut self.stores {
            let target = targets.get(key).copied().unwrap_or(0);
            for _ in 0..store.surplus(key, target, now, &self.settings) {
                out.extend(store.ready.pop_back().map(|port| port.id));
            }
            store.low = store.low.min(store.ready.len());
        }
        self.leave(&out);
        out
    }

    /// Where the budget is too small for what pools lack, others have no surplus: what they have beyond their targets goes now.
    fn make_way(&mut self, now: Moment, targets: &BTreeMap<PoolKey, usize>, count: usize) -> Vec<PortId> {
        let lead = self.lead.time();
        let mut out = Vec::new();
        for (key, store) in &mut self.stores {
            let target = targets.get(key).copied().unwrap_or(0);
            while out.len() < count && store.ready.len() > target {
                out.extend(store.ready.pop_back().map(|port| port.id));
            }
            // What cools for longer than a refill takes does not count as supply.
            while out.len() < count && store.cooling.back().is_some_and(|(until, _)| *until > now + lead) {
                out.extend(store.cooling.pop_back().map(|(_, port)| port.id));
            }
            store.low = store.low.min(store.ready.len());
        }
        self.leave(&out);
        out
    }

    fn lacking(&self, now: Moment, targets: &BTreeMap<PoolKey, usize>) -> Vec<Lack> {
        let lead = self.lead.time();
        let lack = |(key, store): (&PoolKey, &Store)| {
            let target = targets.get(key).copied().unwrap_or(0);
            let (supply, count) = (store.supply(now, lead), store.lack(target, now, lead));
            (count > 0).then(|| Lack { key: key.clone(), full: supply * 1000 / target, count })
        };
        let mut lacks: Vec<Lack> = self.stores.iter().filter_map(lack).collect();
        lacks.sort_by(|a, b| a.full.cmp(&b.full).then(b.count.cmp(&a.count)));
        lacks
    }

    fn refill(&mut self, now: Moment, lacks: &mut [Lack], headroom: &Headroom) -> Vec<Bulk> {
        let quota = headroom.quota.map_or(usize::MAX, |left| left.saturating_sub(self.settings.reserve));
        let breakers = self.quota.allows(now).min(self.cloud.allows(now));
        let mut allowed = self.budget_left().min(quota).min(breakers);
        let mut rooms = headroom.subnets.clone();
        let networks: BTreeSet<NetworkId> = lacks.iter().map(|lack| lack.key.network).collect();
        let mut bulks = Vec::new();
        for network in networks {
            let mut lacks: Vec<&mut Lack> = lacks.iter_mut().filter(|lack| lack.key.network == network).collect();
            let choices = self.choices.iter().filter(|choice| choice.network == network).cloned();
            for choice in choices.collect::<Vec<_>>() {
                let most = self.most(&choice, &rooms, now);
                let slots = self.settings.requests.saturating_sub(self.bulks.len());
                let wanted: usize = lacks.iter().map(|lack| lack.count).sum();
                for size in split(wanted.min(allowed).min(most), self.settings.bulk_size, slots) {
                    allowed -= size;
                    for subnet in &choice.subnets {
                        rooms.entry(*subnet).and_modify(|left| *left = left.saturating_sub(size));
                    }
                    bulks.push(self.send(&choice, parts(&mut lacks, size), now));
                }
            }
        }
        bulks
    }

    /// How many ports may be asked for on this choice.
    fn most(&self, choice: &Choice, rooms: &BTreeMap<SubnetId, usize>, now: Moment) -> usize {
        let room = choice.subnets.iter().filter_map(|subnet| rooms.get(subnet)).min();
        let room = room.map_or(usize::MAX, |left| left.saturating_sub(self.settings.reserve));
        room.min(self.breakers.get(choice).copied().unwrap_or_default().allows(now))
    }

    fn send(&mut self, choice: &Choice, parts: Vec<(PoolKey, usize)>, now: Moment) -> Bulk {
        for (key, count) in &parts {
            if let Some(store) = self.stores.get_mut(key) {
                store.refilling += count;
                store.breaker.sent();
            }
        }
        self.breakers.entry(choice.clone()).or_default().sent();
        self.quota.sent();
        self.cloud.sent();
        let id = BulkId(self.next_bulk);
        self.next_bulk += 1;
        self.bulks.insert(id, Sent { choice: choice.clone(), parts: parts.clone(), at: now });
        Bulk { id, choice: choice.clone(), parts }
    }

    /// When to plan again. At rest: never.
    fn again(&self, now: Moment, stuck: bool, targets: &BTreeMap<PoolKey, usize>) -> Option<Duration> {
        let lead = self.lead.time();
        let lacks =
            |(key, store): &(&PoolKey, &Store)| store.supply(now, lead) < targets.get(*key).copied().unwrap_or(0);
        let trunks = self.stores.iter().filter(lacks).filter_map(|(_, store)| store.breaker.until());
        let cooling = self.stores.values().filter_map(|store| Some(store.cooling.front()?.0));
        let restless = |store: &Store| store.ready.len() > store.rest(&self.settings);
        let breakers =
            self.breakers.values().chain([&self.quota, &self.cloud]).filter_map(|breaker| Breaker::until(*breaker));
        let mut next: Vec<Duration> = cooling.map(|until| until.saturating_sub(now)).collect();
        next.extend(trunks.filter(|until| *until > now).map(|until| until - now));
        if self.stores.values().any(restless) {
            next.push(TICK.min(self.settings.shrink_after).max(QUICK_TICK));
        }
        if stuck {
            next.extend(breakers.filter(|until| *until > now).map(|until| until - now));
            next.push(SLOW_TICK);
        }
        next.into_iter().min()
    }
}

/// Which pools get how many of the next `size` ports.
fn parts(lacks: &mut [&mut Lack], size: usize) -> Vec<(PoolKey, usize)> {
    let mut left = size;
    let mut parts = Vec::new();
    for lack in lacks {
        let count = lack.count.min(left);
        if count > 0 {
            parts.push((lack.key.clone(), count));
            lack.count -= count;
            left -= count;
        }
    }
    parts
}
