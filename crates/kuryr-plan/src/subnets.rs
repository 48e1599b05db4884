//! Which subnets a pod's port may be on, in the order in which they are tried.

use kuryr_model::{NetworkId, SubnetId, neutron::Subnet};
use std::collections::BTreeSet;

/// A network and one subnet of each family on it: what one port is asked for on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Choice {
    /// The network.
    pub network: NetworkId,
    /// One subnet (IPv4 or IPv6) or two (dual stack, IPv4 first).
    pub subnets: Vec<SubnetId>,
}

/// The choices that `subnets` give, best first.
///
/// On each network, in order of its first mention, the IPv4 subnets are tried in their order; where the network has
/// IPv6 subnets too, the port also gets an address in one of those, and every pairing has its turn. A network that has
/// fewer families than another comes after it: a single-stack pod is a last resort in a dual-stack cluster.
#[must_use]
pub fn choices(subnets: &[Subnet]) -> Vec<Choice> {
    let mut seen = BTreeSet::new();
    let networks: Vec<NetworkId> =
        subnets.iter().map(|subnet| subnet.network_id).filter(|network| seen.insert(*network)).collect();
    let family = |network: NetworkId, ipv4: bool| -> Vec<SubnetId> {
        let fits = |subnet: &&Subnet| subnet.network_id == network && subnet.cidr.addr().is_ipv4() == ipv4;
        subnets.iter().filter(fits).map(|subnet| subnet.id).collect()
    };
    let mut choices = Vec::new();
    for network in networks {
        let (v4, v6) = (family(network, true), family(network, false));
        if v4.is_empty() || v6.is_empty() {
            choices.extend(v4.iter().chain(&v6).map(|id| Choice { network, subnets: vec![*id] }));
        } else {
            let pairs = v6.iter().flat_map(|v6| v4.iter().map(|v4| vec![*v4, *v6]));
            choices.extend(pairs.map(|subnets| Choice { network, subnets }));
        }
    }
    choices.sort_by_key(|choice| std::cmp::Reverse(choice.subnets.len()));
    choices
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid_of as id;

    fn uuid_of(n: u8) -> String {
        format!("00000000-0000-0000-0000-0000000000{n:02x}")
    }

    fn subnet(n: u8, network: u8, cidr: &str) -> Subnet {
        Subnet {
            id: id(n).parse().unwrap(),
            network_id: id(network).parse().unwrap(),
            name: format!("subnet-{n}"),
            cidr: cidr.parse().unwrap(),
            gateway_ip: None,
            host_routes: vec![],
            subnetpool_id: None,
            tags: vec![],
        }
    }

    fn plain(choices: &[Choice]) -> Vec<Vec<u8>> {
        choices.iter().map(|c| c.subnets.iter().map(|s| s.0.as_bytes()[15]).collect()).collect()
    }

    #[test]
    fn single_stack_subnets_are_tried_in_turn() {
        let subnets = [subnet(1, 9, "10.0.0.0/24"), subnet(2, 9, "10.0.1.0/24"), subnet(3, 8, "10.0.2.0/24")];
        assert_eq!(plain(&choices(&subnets)), [[1], [2], [3]]);
    }

    #[test]
    fn a_dual_stack_network_gives_one_address_of_each_family_and_tries_every_pair() {
        let subnets = [subnet(1, 9, "fd00::/64"), subnet(2, 9, "10.0.0.0/24"), subnet(3, 9, "10.0.1.0/24")];
        assert_eq!(plain(&choices(&subnets)), [[2, 1], [3, 1]]);
    }

    #[test]
    fn a_network_with_fewer_families_is_the_last_resort() {
        let subnets = [subnet(1, 7, "10.9.0.0/24"), subnet(2, 9, "10.0.0.0/24"), subnet(3, 9, "fd00::/64")];
        assert_eq!(plain(&choices(&subnets)), [vec![2, 3], vec![1]]);
    }
}
