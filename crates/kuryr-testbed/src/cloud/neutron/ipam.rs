//! Addresses of a subnet: which are free, which are taken.
//!
//! An address is a `u128` here, for both versions. Free addresses are kept as spans, so that a /64 costs no more than a /24.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

/// A new address is picked at random among this many free ones, so that an address that was just given back is seldom the next.
const WINDOW: u128 = 64;

/// Addresses from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl Span {
    pub(crate) fn contains(self, address: u128) -> bool {
        (self.first..=self.last).contains(&address)
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub(crate) fn json(self, v6: bool) -> Value {
        json!({ "start": address(self.first, v6).to_string(), "end": address(self.last, v6).to_string() })
    }
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

pub(crate) fn address(number: u128, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from(number))
    } else {
        // The numbers of version 4 come from `number` above and fit.
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
    }
}

/// The addresses of a network that hosts may have: without the network's own and, in version 4, the broadcast address.
pub(crate) fn hosts(net: IpNet) -> Span {
    let (first, last) = (number(net.network()), number(net.broadcast()));
    let v4 = matches!(net, IpNet::V4(_));
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return Span { first, last };
    }
    Span { first: first + 1, last: last - u128::from(v4) }
}

/// The pools of a subnet that names none: all host addresses but the gateway.
pub(crate) fn default_pools(net: IpNet, gateway: Option<IpAddr>) -> Vec<Span> {
    let all = hosts(net);
    let Some(gateway) = gateway.map(number).filter(|&g| all.contains(g)) else { return vec![all] };
    let mut pools = Vec::new();
    if gateway > all.first {
        pools.push(Span { first: all.first, last: gateway - 1 });
    }
    if gateway < all.last {
        pools.push(Span { first: gateway + 1, last: all.last });
    }
    pools
}

/// The address that SLAAC gives to a MAC address in a network.
pub(crate) fn eui64(net: IpNet, mac: &str) -> IpAddr {
    let bytes: Vec<u8> = mac.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    let mut host = [0u8; 8];
    if let [a, b, c, d, e, f] = bytes[..] {
        host = [a ^ 0x02, b, c, 0xff, 0xfe, d, e, f];
    }
    let prefix = number(net.network()) & !u128::from(u64::MAX);
    address(prefix | u128::from(u64::from_be_bytes(host)), true)
}

/// The addresses of one subnet.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    pools: Vec<Span>,
    /// First to last of each span of free addresses of the pools; spans neither touch nor overlap.
    free: BTreeMap<u128, u128>,
    used: HashSet<u128>,
    /// Those of them that no port has.
    lost: HashSet<u128>,
}

impl Allocator {
    pub(crate) fn new(pools: Vec<Span>) -> Self {
        let mut allocator = Self::default();
        allocator.set_pools(pools);
        allocator
    }

    /// Changes the pools; taken addresses stay taken.
    pub(crate) fn set_pools(&mut self, pools: Vec<Span>) {
        self.free = pools.iter().map(|span| (span.first, span.last)).collect();
        self.pools = pools;
        let used: Vec<u128> = self.used.iter().copied().collect();
        for address in used {
            self.cut(address);
        }
    }

    /// How many addresses ports have, in the pools or not.
    pub(crate) fn used(&self) -> usize {
        self.used.len() - self.lost.len()
    }

    /// How many addresses are taken and no port has them.
    pub(crate) fn lost(&self) -> usize {
        self.lost.len()
    }

    /// Takes a free address for no port. It never comes back.
    pub(crate) fn lose(&mut self, address: u128) {
        if self.take(address) {
            self.lost.insert(address);
        }
    }

    /// Takes a free address of the pools.
    pub(crate) fn take_any(&mut self) -> Option<u128> {
        let mut seen: u128 = 0;
        let mut spans = Vec::new();
        for (&first, &last) in &self.free {
            // A whole IPv6 subnet has fewer than 2^128 addresses, so this cannot overflow before the window is full.
            let count = (last - first).saturating_add(1).min(WINDOW - seen);
            spans.push((first, count));
            seen += count;
            if seen == WINDOW {
                break;
            }
        }
        if seen == 0 {
            return None;
        }
        let mut pick = fastrand::u128(0..seen);
        for (first, count) in spans {
            if pick < count {
                let address = first + pick;
                self.take(address);
                return Some(address);
            }
            pick -= count;
        }
        None
    }

    /// Takes an address, in the pools or not. False when it is taken already.
    pub(crate) fn take(&mut self, address: u128) -> bool {
        if !self.used.insert(address) {
            return false;
        }
        self.cut(address);
        true
    }

    fn cut(&mut self, address: u128) {
        let Some((&first, &last)) = self.free.range(..=address).next_back() else { return };
        if address > last {
            return;
        }
        self.free.remove(&first);
        if address > first {
            self.free.insert(first, address - 1);
        }
        if address < last {
            self.free.insert(address + 1, last);
        }
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: u128) {
        if !self.used.remove(&address) || !self.pools.iter().any(|pool| pool.contains(address)) {
            return;
        }
        let (mut first, mut last) = (address, address);
        if let Some((&f, &l)) = self.free.range(..address).next_back()
            && l + 1 == address
        {
            first = f;
        }
        if let Some((&f, &l)) = self.free.range(address..).next()
            && f == address + 1
        {
            self.free.remove(&f);
            last = l;
        }
        self.free.insert(first, last);
    }
}

#[cfg(test)]
impl Allocator {
    /// Those that ports have.
    pub(crate) fn taken(&self) -> std::collections::BTreeSet<u128> {
        self.used.difference(&self.lost).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn default_pools_leave_out_gateway_network_and_broadcast() {
        let n = |text: &str| number(text.parse().unwrap());
        let pools = default_pools(net("10.0.0.0/29"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(pools, [Span { first: n("10.0.0.2"), last: n("10.0.0.6") }]);
        let pools = default_pools(net("10.0.0.0/29"), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(pools.len(), 2);
        let pools = default_pools(net("fd00::/64"), Some("fd00::1".parse().unwrap()));
        assert_eq!(pools, [Span { first: n("fd00::2"), last: n("fd00::ffff:ffff:ffff:ffff") }]);
    }

    #[test]
    fn slaac_makes_the_address_from_the_mac() {
        let ip = eui64(net("2001:db8::/64"), "fa:16:3e:01:02:03");
        assert_eq!(ip.to_string(), "2001:db8::f816:3eff:fe01:203");
    }

    #[test]
    fn a_span_gives_each_address_once() {
        let mut allocator = Allocator::new(vec![Span { first: 10, last: 200 }]);
        let mut seen = HashSet::new();
        while let Some(address) = allocator.take_any() {
            assert!((10..=200).contains(&address) && seen.insert(address));
        }
        assert_eq!(seen.len(), 191);
        assert!(allocator.free.is_empty());
    }

    /// Against an independent model: a set of free and a set of used addresses.
    #[test]
    fn any_order_of_takes_and_releases_agrees_with_plain_sets() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let pools = vec![Span { first: 5, last: 20 }, Span { first: 30, last: 33 }];
            let mut allocator = Allocator::new(pools);
            let mut free: std::collections::BTreeSet<u128> = (5..=20).chain(30..=33).collect();
            let mut used = std::collections::BTreeSet::new();
            for _ in 0..100 {
                match rng.u8(0..3) {
                    0 => match allocator.take_any() {
                        Some(a) => assert!(free.remove(&a) && used.insert(a)),
                        None => assert!(free.is_empty()),
                    },
                    1 => {
                        let a = rng.u128(0..40);
                        assert_eq!(allocator.take(a), used.insert(a));
                        free.remove(&a);
                    }
                    _ => {
                        let a = rng.u128(0..40);
                        allocator.release(a);
                        if used.remove(&a) && ((5..=20).contains(&a) || (30..=33).contains(&a)) {
                            free.insert(a);
                        }
                    }
                }
                let spans: std::collections::BTreeSet<u128> =
                    allocator.free.iter().flat_map(|(&f, &l)| f..=l).collect();
                assert_eq!(spans, free);
                assert_eq!(allocator.used.iter().copied().collect::<std::collections::BTreeSet<_>>(), used);
            }
        }
    }
}
