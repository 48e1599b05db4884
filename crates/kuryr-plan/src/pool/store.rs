//! The ports of one pool.

use super::{Breaker, Demand, Moment, PoolKey, Settings};
use kuryr_model::{PodUid, PortId, neutron::Port};
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

/// One pool.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// Ready to be handed out, longest idle first.
    pub(super) ready: VecDeque<Port>,
    /// Given back too short a time ago, with when that is over, earliest first.
    pub(super) cooling: VecDeque<(Moment, Port)>,
    /// Asked for and not answered yet, or not on their trunk yet.
    pub(super) refilling: usize,
    pub(super) demand: Demand,
    /// How many more pods the place has room for.
    pub(super) room: usize,
    /// An operator said how many there should be at least.
    pub(super) fill: usize,
    /// An operator said that there should be none.
    pub(super) drained: bool,
    /// Its node or network is gone.
    pub(super) closed: bool,
    /// Pods that wait for a port of their own, because there was none.
    pub(super) waiting: BTreeSet<PodUid>,
    /// Whether its trunk takes ports.
    pub(super) breaker: Breaker,
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// The fewest that were ready since then.
    pub(super) low: usize,
    pub(super) since: Moment,
}

impl Store {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            ready: VecDeque::new(),
            cooling: VecDeque::new(),
            refilling: 0,
            demand: Demand::default(),
            room: usize::MAX,
            fill: 0,
            drained: false,
            closed: false,
            waiting: BTreeSet::new(),
            breaker: Breaker::default(),
            hits: 0,
            misses: 0,
            low: 0,
            since: now,
        }
    }

    /// Moves what has cooled.
    pub(super) fn settle(&mut self, now: Moment) {
        while self.cooling.front().is_some_and(|(until, _)| *until <= now) {
            self.ready.extend(self.cooling.pop_front().map(|(_, port)| port));
        }
    }

    pub(super) fn idle(&self) -> usize {
        self.ready.len() + self.cooling.len()
    }

    /// With those that are being made.
    pub(super) fn held(&self) -> usize {
        self.idle() + self.refilling
    }

    /// What there will be when a refill that began now would be there.
    pub(super) fn supply(&self, now: Moment, lead: Duration) -> usize {
        let soon = self.cooling.iter().take_while(|(until, _)| *until <= now + lead).count();
        self.ready.len() + self.refilling + soon
    }

    /// How many are to be asked for now, so that it will have what it should.
    pub(super) fn lack(&self, target: usize, now: Moment, lead: Duration) -> usize {
        target.saturating_sub(self.supply(now, lead)).min(self.breaker.allows(now))
    }

    /// How many it should have ready when nobody has asked for any for long.
    pub(super) fn rest(&self, settings: &Settings) -> usize {
        if self.closed || self.drained {
            return 0;
        }
        // What an operator asks for by number is not held to the ceiling.
        settings.floor.min(settings.ceiling).max(self.fill).min(self.room)
    }

    /// The floor and the whole of what it should have ready, if there is budget for all.
    pub(super) fn wants(&self, now: Moment, settings: &Settings) -> (usize, usize) {
        let rest = self.rest(settings);
        if self.closed || self.drained {
            return (rest, rest);
        }
        let expected = self.demand.expected(now, settings.memory).min(settings.ceiling).min(self.room);
        (settings.floor.min(rest), rest.max(expected))
    }

    pub(super) fn take(&mut self) -> Option<Port> {
        let port = self.ready.pop_front();
        self.low = self.low.min(self.ready.len());
        port
    }

    /// Takes out one that is to be deleted: rather one that has cooled, for Neutron may give its address away at once.
    pub(super) fn discard(&mut self, fits: impl Fn(&Port) -> bool) -> Option<Port> {
        let port = match self.ready.iter().rposition(&fits) {
            Some(index) => self.ready.remove(index),
            None => {
                let index = self.cooling.iter().position(|(_, port)| fits(port))?;
                self.cooling.remove(index).map(|(_, port)| port)
            }
        };
        self.low = self.low.min(self.ready.len());
        port
    }

    /// Takes out one port, wherever it is.
    pub(super) fn remove(&mut self, id: PortId) -> Option<Port> {
        self.discard(|port| port.id == id)
    }

    /// How many may go: of those that were not needed for long enough the half, so that a demand that comes back finds some.
    pub(super) fn surplus(&mut self, key: &PoolKey, target: usize, now: Moment, settings: &Settings) -> usize {
        if now.saturating_sub(self.since) < patience(key, settings.shrink_after) {
            return 0;
        }
        let unneeded = self.low.min(self.ready.len()).saturating_sub(target);
        (self.low, self.since) = (self.ready.len(), now);
        unneeded.div_ceil(2)
    }
}

/// How long this pool waits before it shrinks: not all as long, so that not all nodes shrink at one moment.
fn patience(key: &PoolKey, usual: Duration) -> Duration {
    // FNV-1a of 64 bits (draft-eastlake-fnv).
    let text = key.to_string();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let share = u32::try_from(hash >> 56).unwrap_or(0);
    usual * 3 / 4 + usual * share / 512
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Place;

    #[test]
    fn no_two_nodes_wait_equally_long_and_none_much_longer_than_another() {
        let usual = Duration::from_secs(300);
        let network = "00000000-0000-0000-0000-0000000000ff".parse().unwrap();
        let times: Vec<Duration> =
            (0..50).map(|n| patience(&PoolKey { place: Place::Host(format!("node{n}")), network }, usual)).collect();
        assert!(times.iter().all(|time| (225..=375).contains(&time.as_secs())), "{times:?}");
        let different: BTreeSet<_> = times.iter().map(Duration::as_secs).collect();
        assert!(different.len() > 30, "{different:?}");
    }
}
