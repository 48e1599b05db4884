//! From where clients may come.

use super::input::Family;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Those of `ranges` that are of the families. What was a limit stays one: no range left would mean everybody, so then
/// it is one that nobody comes from.
pub(crate) fn only(ranges: &[IpNet], families: &[Family]) -> Vec<IpNet> {
    if ranges.is_empty() {
        return Vec::new();
    }
    let kept: Vec<IpNet> =
        ranges.iter().copied().filter(|range| families.contains(&Family::of(range.addr()))).collect();
    if !kept.is_empty() {
        return kept;
    }
    families.iter().copied().map(nobody).collect()
}

/// What no client comes from.
pub(crate) fn nobody(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::from(Ipv4Addr::LOCALHOST)),
        Family::V6 => IpNet::V6(Ipv6Net::from(Ipv6Addr::LOCALHOST)),
    }
}
