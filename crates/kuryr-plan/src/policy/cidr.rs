//! Arithmetic with blocks of addresses.

use ipnet::IpNet;
use kuryr_model::neutron::EtherType;
use std::{collections::BTreeSet, fmt, net::IpAddr};

/// What an `ipBlock` says: a block of addresses without some smaller ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// The block, without host bits.
    cidr: IpNet,
    /// What is not in it; may overlap, lie outside of it or cover it.
    except: BTreeSet<IpNet>,
}

impl IpBlock {
    /// `cidr` without all of `except`. Host bits do not count.
    #[must_use]
    pub fn new(cidr: IpNet, except: impl IntoIterator<Item = IpNet>) -> Self {
        let cidr = cidr.trunc();
        let cuts = |net: &IpNet| overlap(net, &cidr);
        Self { cidr, except: except.into_iter().map(|net| net.trunc()).filter(cuts).collect() }
    }

    /// One address.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        Self { cidr: address.into(), except: BTreeSet::new() }
    }

    /// Whether the block has this address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|net| net.contains(&address))
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> EtherType {
        family(self.cidr.addr())
    }

    /// The same addresses as blocks that have no exceptions.
    pub(super) fn pieces(&self) -> Vec<IpNet> {
        subtract(self.cidr, &self.except.iter().copied().collect::<Vec<_>>())
    }
}

/// Like `10.0.0.0/8 except 10.1.0.0/16,10.2.0.0/16`.
impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cidr)?;
        for (index, net) in self.except.iter().enumerate() {
            write!(f, "{}{net}", if index == 0 { " except " } else { "," })?;
        }
        Ok(())
    }
}

/// The family of an address.
#[must_use]
pub(super) fn family(address: IpAddr) -> EtherType {
    if address.is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 }
}

/// All addresses of a family.
pub(super) fn whole(family: EtherType) -> IpNet {
    match family {
        EtherType::IPv4 => IpNet::V4(ipnet::Ipv4Net::default()),
        EtherType::IPv6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// What is left of `net` without `holes`, in few blocks, ascending.
///
/// A block that a hole lies in is cut into halves, until each half is untouched or gone: at most as many blocks as the
/// family has bits for each hole.
pub(super) fn subtract(net: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    let mut left = Vec::new();
    cut(net, holes, &mut left);
    left
}

fn cut(net: IpNet, holes: &[IpNet], left: &mut Vec<IpNet>) {
    let inside: Vec<IpNet> = holes.iter().copied().filter(|hole| overlap(hole, &net)).collect();
    if inside.is_empty() {
        left.push(net);
    } else if !inside.iter().any(|hole| hole.contains(&net)) {
        // A hole is smaller than the block here, so the block has two halves.
        for half in net.subnets(net.prefix_len() + 1).into_iter().flatten() {
            cut(half, &inside, left);
        }
    }
}

/// Of two blocks either one contains the other or they have nothing in common.
fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        IpBlock::new(cidr.parse().unwrap(), except.iter().map(|net| net.parse().unwrap()))
    }

    fn pieces(cidr: &str, except: &[&str]) -> Vec<String> {
        block(cidr, except).pieces().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_block_without_exceptions_is_one_piece_and_one_that_is_excepted_is_none() {
        assert_eq!(pieces("10.0.0.0/8", &[]), ["10.0.0.0/8"]);
        assert_eq!(pieces("10.0.0.0/8", &["10.0.0.0/8"]), [""; 0]);
        assert_eq!(pieces("10.1.0.0/16", &["10.0.0.0/8"]), [""; 0]);
        assert_eq!(pieces("1.1.1.0/24", &["1.1.1.0/26"]), ["1.1.1.64/26", "1.1.1.128/25"]);
    }

    #[test]
    fn two_exceptions_that_cover_the_block_leave_nothing() {
        assert_eq!(pieces("10.0.0.0/24", &["10.0.0.0/25", "10.0.0.128/25"]), [""; 0]);
    }

    #[test]
    fn exceptions_outside_of_the_block_or_of_the_other_family_change_nothing() {
        assert_eq!(block("10.0.0.0/24", &["10.0.1.0/24", "fd00::/8"]), block("10.0.0.0/24", &[]));
        assert_eq!(block("10.0.0.7/24", &["10.0.0.9/25"]), block("10.0.0.0/24", &["10.0.0.0/25"]));
    }

    #[test]
    fn all_addresses_without_one_take_a_piece_for_every_bit() {
        assert_eq!(pieces("0.0.0.0/0", &["10.0.0.1/32"]).len(), 32);
        assert_eq!(pieces("::/0", &["fd00::1/128"]).len(), 128);
        assert_eq!(pieces("0.0.0.0/0", &["0.0.0.0/0"]), [""; 0]);
    }

    /// Nets of a few bits around a few places, so that they overlap often.
    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..64, 24u8..=32)
            .prop_map(|(low, length)| (IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + low)), length));
        let v6 = (0u128..64, 120u8..=128).prop_map(|(low, length)| (IpAddr::V6(Ipv6Addr::from_bits(low)), length));
        prop_oneof![v4, v6].prop_map(|(address, length)| IpNet::new(address, length).unwrap())
    }

    proptest! {
        #[test]
        fn pieces_have_exactly_the_addresses_of_the_block_each_once(
            cidr in net(), except in proptest::collection::vec(net(), 0..5), low in 0u32..300,
        ) {
            let block = IpBlock::new(cidr, except.clone());
            let pieces = block.pieces();
            let (v4, v6) = (Ipv4Addr::from_bits(0x0a00_0000 + low), Ipv6Addr::from_bits(low.into()));
            for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
                let wanted = cidr.contains(&address) && !except.iter().any(|net| net.contains(&address));
                prop_assert_eq!(block.contains(address), wanted);
                prop_assert_eq!(pieces.iter().filter(|piece| piece.contains(&address)).count(), usize::from(wanted));
            }
        }
    }
}
