//! Sets of addresses, as blocks.

use super::cidr::subtract;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// The same addresses, sorted, and no block within another. Neighbours are not joined: what is there once stays as it is
/// while others come and go beside it.
pub(crate) fn tidy(nets: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let sorted: BTreeSet<IpNet> = nets.into_iter().map(|net| net.trunc()).collect();
    let mut tidy: Vec<IpNet> = Vec::with_capacity(sorted.len());
    for net in sorted {
        // Of two that begin at the same address the larger one comes first.
        if !tidy.last().is_some_and(|last| last.contains(&net)) {
            tidy.push(net);
        }
    }
    tidy
}

/// The addresses that are in both.
pub(crate) fn intersect(one: &[IpNet], other: &[IpNet]) -> Vec<IpNet> {
    let common = |a: &IpNet, b: &IpNet| {
        if a.contains(b) {
            Some(*b)
        } else if b.contains(a) {
            Some(*a)
        } else {
            None
        }
    };
    tidy(one.iter().flat_map(|a| other.iter().filter_map(move |b| common(a, b))))
}

/// The addresses of `nets` that are not in `others`.
pub(crate) fn rest(nets: &[IpNet], others: &[IpNet]) -> Vec<IpNet> {
    nets.iter().flat_map(|net| subtract(*net, others)).collect()
}

/// Whether all addresses of `nets` are in `others`.
pub(crate) fn within(nets: &[IpNet], others: &[IpNet]) -> bool {
    nets.iter().all(|net| others.iter().any(|other| other.contains(net)) || subtract(*net, others).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..64, 26u8..=32)
            .prop_map(|(low, length)| (IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + low)), length));
        let v6 = (0u128..64, 122u8..=128).prop_map(|(low, length)| (IpAddr::V6(Ipv6Addr::from_bits(low)), length));
        prop_oneof![v4, v6].prop_map(|(address, length)| IpNet::new(address, length).unwrap())
    }

    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        proptest::collection::vec(net(), 0..6)
    }

    proptest! {
        #[test]
        fn sets_of_blocks_have_the_addresses_that_sets_of_addresses_would_have(one in nets(), other in nets()) {
            let has = |nets: &[IpNet], address: &IpAddr| nets.iter().any(|net| net.contains(address));
            let v4 = (0u32..64).map(|low| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + low)));
            let all: Vec<IpAddr> = v4.chain((0u128..64).map(|low| IpAddr::V6(Ipv6Addr::from_bits(low)))).collect();
            let (tidy, both, left) = (tidy(one.clone()), intersect(&one, &other), rest(&one, &other));
            for address in &all {
                let (a, b) = (has(&one, address), has(&other, address));
                prop_assert_eq!((has(&tidy, address), has(&both, address), has(&left, address)), (a, a && b, a && !b));
            }
            prop_assert_eq!(within(&one, &other), all.iter().all(|it| !has(&one, it) || has(&other, it)));
            let once = |nets: &[IpNet]| all.iter().all(|it| nets.iter().filter(|net| net.contains(it)).count() <= 1);
            prop_assert!(once(&tidy) && once(&both), "{:?} {:?}", tidy, both);
        }
    }
}
