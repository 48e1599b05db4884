//! Virtual time, and chance that is the same in each run.

use std::{cmp::Reverse, collections::BinaryHeap};

pub(crate) type Millis = u64;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Begin,
    /// A pod wants a port on a node.
    Start {
        pod: u32,
        node: usize,
    },
    /// Its port is given back.
    End {
        pod: u32,
    },
    /// No pod starts on this node from now on, or again.
    Cordon {
        node: usize,
        on: bool,
    },
    /// Neutron has done this request.
    Done {
        request: u64,
    },
    /// For the rule itself.
    Wake {
        what: u32,
    },
    /// A pod asks again.
    Again {
        pod: u32,
        tries: usize,
    },
}

#[derive(Default)]
pub(crate) struct Clock {
    now: Millis,
    order: u64,
    events: BinaryHeap<Reverse<(Millis, u64, Event)>>,
}

impl Clock {
    pub(crate) fn now(&self) -> Millis {
        self.now
    }

    pub(crate) fn at(&mut self, when: Millis, event: Event) {
        self.order += 1;
        self.events.push(Reverse((when.max(self.now), self.order, event)));
    }

    pub(crate) fn after(&mut self, time: Millis, event: Event) {
        self.at(self.now + time, event);
    }

    pub(crate) fn next(&mut self) -> Option<(Millis, Event)> {
        let Reverse((when, _, event)) = self.events.pop()?;
        self.now = when;
        Some((when, event))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(crate) fn node(&mut self) -> usize {
        usize::try_from(self.below(crate::NODES as u64)).unwrap_or(0)
    }

    /// Exponentially distributed with this mean: time between events that know nothing of each other.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn around(&mut self, mean: f64) -> Millis {
        let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (-(1.0 - uniform).ln() * mean) as Millis
    }
}
