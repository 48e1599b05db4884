//! The addresses that a virtual machine's port may use besides its own: those of its `macvlan` and `ipvlan` pods.

use kuryr_model::{MacAddress, neutron::AddressPair};
use std::{collections::BTreeSet, net::IpAddr};

/// A pod's address and the Ethernet address with which it is used.
pub type Used = (IpAddr, MacAddress);

/// All pairs that a port is to have, if those that it has (`there`) are not as they should be. `wanted` are the pods' addresses, and of
/// `gone` it is known that pods had them and have them no more. Everything else was made by somebody else, and stays as it is.
///
/// A pair is one change for all pods: Neutron has no way to add a single one.
#[must_use]
pub fn plan(there: &[AddressPair], wanted: &BTreeSet<Used>, gone: &BTreeSet<Used>) -> Option<Vec<AddressPair>> {
    let used = |pair: &AddressPair| Some((pair.ip()?, pair.mac_address));
    let stays = |pair: &&AddressPair| used(pair).is_none_or(|used| wanted.contains(&used) || !gone.contains(&used));
    let mut pairs: Vec<AddressPair> = there.iter().filter(stays).cloned().collect();
    let has: BTreeSet<Used> = pairs.iter().filter_map(used).collect();
    pairs.extend(wanted.difference(&has).map(|(ip, mac)| AddressPair::new(*ip, *mac)));
    (pairs != there).then_some(pairs)
}

/// How many pairs a port may have, as far as that was learnt. Neutron tells nobody its `max_allowed_address_pair`, but refuses what is
/// more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    most: Option<usize>,
    there: usize,
    each: usize,
}

impl Limit {
    /// The port has so many. If these are more than were known to be allowed, the limit was raised, and is not known any more.
    pub fn has(&mut self, pairs: usize) {
        self.there = pairs;
        self.most = self.most.filter(|most| pairs <= *most);
    }

    /// The port has `there`, and Neutron refused to let it have `pairs`, the last `each` of them for one pod.
    pub fn refused(&mut self, there: usize, pairs: usize, each: usize) {
        let most = pairs.saturating_sub(1);
        (self.there, self.each) = (there, each.max(1));
        self.most = Some(self.most.map_or(most, |known| known.min(most)));
    }

    /// The most that are allowed; `None`: that was not learnt yet.
    #[must_use]
    pub fn most(&self) -> Option<usize> {
        self.most
    }

    /// How many more pods fit, if the limit is known.
    #[must_use]
    pub fn room(&self) -> Option<usize> {
        Some(self.most?.saturating_sub(self.there) / self.each.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_limit_is_learnt_when_neutron_refuses_and_forgotten_when_more_fits() {
        let mut limit = Limit::default();
        limit.has(10);
        assert_eq!((limit.most(), limit.room()), (None, None));
        // Two pods at once do not fit, of which one does.
        limit.refused(9, 11, 2);
        limit.has(10);
        limit.refused(10, 11, 1);
        assert_eq!((limit.most(), limit.room()), (Some(10), Some(0)));
        limit.has(7);
        assert_eq!(limit.room(), Some(3));
        limit.has(11);
        assert_eq!(limit.most(), None, "it was raised");
        // A pod with two addresses: the one pair that is left is no room.
        limit.refused(11, 13, 2);
        assert_eq!((limit.most(), limit.room()), (Some(12), Some(0)));
    }

    proptest! {
        /// Whatever comes and goes one by one below a limit that nobody tells: once it was met, the room is exactly what is left.
        #[test]
        fn the_room_is_what_is_left_of_the_limit(most in 1usize..20, comes in prop::collection::vec(any::<bool>(), 1..80)) {
            let (mut limit, mut there, mut met) = (Limit::default(), 0usize, false);
            for comes in comes {
                match comes {
                    true if there == most => {
                        limit.refused(there, there + 1, 1);
                        met = true;
                    }
                    true => {
                        there += 1;
                        limit.has(there);
                    }
                    false => {
                        there = there.saturating_sub(1);
                        limit.has(there);
                    }
                }
                prop_assert_eq!(limit.room(), met.then(|| most - there));
            }
        }
    }

    fn used(n: u8) -> Used {
        ([10, 0, 0, n].into(), MacAddress([2, 0, 0, 0, 0, n]))
    }

    fn pair(text: &str, n: u8) -> AddressPair {
        AddressPair { ip_address: text.into(), mac_address: used(n).1 }
    }

    #[test]
    fn pods_that_come_and_go_are_one_change_and_what_others_made_stays() {
        let there = [pair("10.0.0.0/24", 9), pair("10.0.0.1/32", 1), pair("10.0.0.2", 2), pair("192.0.2.7", 2)];
        let planned = plan(&there, &[used(1), used(3)].into(), &[used(2)].into()).unwrap();
        assert_eq!(planned, [there[0].clone(), there[1].clone(), there[3].clone(), pair("10.0.0.3", 3)]);
        assert_eq!(plan(&planned, &[used(1), used(3)].into(), &[used(2)].into()), None);
    }

    #[test]
    fn the_same_address_with_another_ethernet_address_is_another_pair() {
        let there = [pair("10.0.0.1", 7)];
        let planned = plan(&there, &[used(1)].into(), &BTreeSet::new()).unwrap();
        assert_eq!(planned, [there[0].clone(), pair("10.0.0.1", 1)]);
    }

    proptest! {
        /// Whatever is there: afterwards the wanted are there once, the gone are not, and all others are as they were.
        #[test]
        fn a_plan_brings_what_is_wanted_and_touches_nothing_else(
            there in prop::collection::btree_set(0u8..12, 0..8),
            wanted in prop::collection::btree_set(0u8..12, 0..6),
            gone in prop::collection::btree_set(0u8..12, 0..6),
            networks in 0u8..3,
        ) {
            let mut before: Vec<AddressPair> = there.iter().map(|n| AddressPair::new(used(*n).0, used(*n).1)).collect();
            before.extend((0..networks).map(|n| pair(&format!("10.{n}.0.0/16"), n)));
            let set = |numbers: &BTreeSet<u8>| -> BTreeSet<Used> { numbers.iter().map(|n| used(*n)).collect() };
            let after = plan(&before, &set(&wanted), &set(&gone)).unwrap_or_else(|| before.clone());
            for n in 0..12 {
                let count = after.iter().filter(|pair| pair.ip() == Some(used(n).0)).count();
                let expected = wanted.contains(&n) || (there.contains(&n) && !gone.contains(&n));
                prop_assert_eq!(count, usize::from(expected), "{}", n);
            }
            prop_assert_eq!(after.iter().filter(|pair| pair.ip().is_none()).count(), usize::from(networks));
            prop_assert_eq!(plan(&after, &set(&wanted), &set(&gone)), None);
        }
    }
}
