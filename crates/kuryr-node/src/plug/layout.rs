//! What a VIF puts into the pod: pure, and the same for plugging and for checking.

use super::PlugError;
use crate::netlink::route::everywhere;
use ipnet::IpNet;
use kuryr_model::{MacAddress, Vif, VifAddress, vif::PlugDriver};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The Ethernet address of every routed host end. Pods on different hosts then see the same gateway.
pub const HOST_END_MAC: MacAddress = MacAddress([0xee; 6]);

/// Next hop of a routed pod's IPv4 packets; exists nowhere but in the pod's permanent neighbour entry.
pub const LINK_GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Next hop of a routed pod's IPv6 packets: the link-local address that belongs to [`HOST_END_MAC`].
pub const LINK_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// The least MTU that IPv6 works with, in bytes.
const MIN_MTU_V6: u32 = 1280;

/// The longest name of a network interface, in bytes.
const MAX_NAME: usize = 15;

/// The inside of a pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Addresses with the prefix length that they have in the pod.
    pub(super) addresses: Vec<IpNet>,
    /// Destinations and next hops; none for what is on the link.
    pub(super) routes: Vec<(IpNet, Option<IpAddr>)>,
    /// Neighbours that are known without asking.
    pub(super) neighbours: Vec<(IpAddr, MacAddress)>,
    /// The Ethernet address of the host end, where it matters.
    pub(super) host_mac: Option<MacAddress>,
}

impl Layout {
    /// Works out the inside of `vif`.
    pub(super) fn of(vif: &Vif) -> Result<Self, PlugError> {
        valid(vif).map_err(|reason| PlugError::BadVif { port: vif.port_id, reason })?;
        Ok(match vif.plug.driver {
            PlugDriver::Tap => routed(vif),
            PlugDriver::Ovs | PlugDriver::Bridge | PlugDriver::Vlan | PlugDriver::Macvlan | PlugDriver::Ipvlan => {
                bridged(vif)
            }
        })
    }

    /// Whether the pod has an address of IPv6.
    pub(super) fn has_v6(&self) -> bool {
        self.addresses.iter().any(|address| address.addr().is_ipv6())
    }
}

fn valid(vif: &Vif) -> Result<(), String> {
    let name = &vif.interface;
    let name_is_fine = !name.is_empty()
        && name.len() <= MAX_NAME
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if !name_is_fine {
        return Err(format!("{name:?} cannot be the name of a network interface"));
    }
    if let Some(address) = vif.addresses.iter().find(|address| net(address).is_none()) {
        return Err(format!("{} has no prefix of {} bits", address.ip, address.prefix_length));
    }
    if vif.mtu < MIN_MTU_V6 && vif.addresses.iter().any(|address| address.ip.is_ipv6()) {
        return Err(format!("its MTU is {} and IPv6 needs {MIN_MTU_V6}; raise the network's MTU", vif.mtu));
    }
    match vif.plug.driver {
        PlugDriver::Ovs | PlugDriver::Bridge if vif.plug.bridge.is_none() => {
            Err(format!("driver {} needs the name of a bridge", vif.plug.driver.as_str()))
        }
        driver if driver.is_nested() && vif.plug.parent.is_none() => {
            Err(format!("driver {} needs the port of the virtual machine", driver.as_str()))
        }
        PlugDriver::Vlan if vif.plug.vlan.is_none() => Err("driver vlan needs a VLAN id".to_owned()),
        _ => Ok(()),
    }
}

fn net(address: &VifAddress) -> Option<IpNet> {
    IpNet::new(address.ip, address.prefix_length).ok()
}

/// On a bridge, and on an interface of the virtual machine's, the subnet is on the link.
fn bridged(vif: &Vif) -> Layout {
    let addresses: Vec<IpNet> = vif.addresses.iter().filter_map(net).collect();
    // The subnet's own routes come first: one of them may be a default route, which then replaces the gateway's.
    let explicit = vif.routes.iter().map(|route| (route.destination.trunc(), Some(route.gateway)));
    let default =
        vif.addresses.iter().filter_map(|address| address.gateway.map(|via| (everywhere(address.ip), Some(via))));
    let on_link = |(destination, gateway): (IpNet, Option<IpAddr>)| {
        (destination, gateway.filter(|gateway| !gateway.is_unspecified()))
    };
    let routes = first_per_destination(explicit.chain(default).map(on_link));
    Layout { addresses, routes, neighbours: Vec::new(), host_mac: None }
}

/// On a routed host end nothing is on the link but the host end itself, which all packets go to.
fn routed(vif: &Vif) -> Layout {
    let addresses: Vec<IpNet> = vif.addresses.iter().map(|address| IpNet::from(address.ip)).collect();
    let wide = vif.addresses.iter().filter(|address| address.gateway.is_some()).map(|address| everywhere(address.ip));
    let subnets = vif.addresses.iter().filter_map(net).map(|net| net.trunc());
    let explicit = vif.routes.iter().map(|route| route.destination.trunc());
    let mut destinations: Vec<IpNet> = wide.chain(subnets).chain(explicit).collect();
    let covers = destinations.clone();
    // What a default route covers needs no route of its own.
    destinations.retain(|net| {
        let default = everywhere(net.addr());
        *net == default || !covers.contains(&default)
    });
    let routes = first_per_destination(destinations.into_iter().map(|net| (net, Some(link_gateway(net.addr())))));
    let mut neighbours: Vec<(IpAddr, MacAddress)> =
        addresses.iter().map(|address| (link_gateway(address.addr()), HOST_END_MAC)).collect();
    neighbours.sort();
    neighbours.dedup();
    Layout { addresses, routes, neighbours, host_mac: Some(HOST_END_MAC) }
}

fn link_gateway(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { LINK_GATEWAY_V4.into() } else { LINK_GATEWAY_V6.into() }
}

fn first_per_destination(routes: impl Iterator<Item = (IpNet, Option<IpAddr>)>) -> Vec<(IpNet, Option<IpAddr>)> {
    let mut kept: Vec<(IpNet, Option<IpAddr>)> = Vec::new();
    for route in routes {
        if kept.iter().all(|(destination, _)| *destination != route.0) {
            kept.push(route);
        }
    }
    // A next hop may itself be reached by a route on the link: those come first.
    kept.sort_by_key(|(_, gateway)| gateway.is_some());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::{NetworkId, Plug, PortId, VifRoute};

    fn vif(driver: PlugDriver, addresses: &[(&str, Option<&str>)], routes: &[(&str, &str)]) -> Vif {
        let address = |(text, gateway): &(&str, Option<&str>)| {
            let net: IpNet = text.parse().unwrap();
            let gateway = gateway.map(|gateway| gateway.parse().unwrap());
            VifAddress { ip: net.addr(), prefix_length: net.prefix_len(), gateway }
        };
        let route =
            |(to, via): &(&str, &str)| VifRoute { destination: to.parse().unwrap(), gateway: via.parse().unwrap() };
        Vif {
            interface: "eth0".into(),
            port_id: PortId(uuid::Uuid::from_u128(1)),
            network_id: NetworkId(uuid::Uuid::from_u128(2)),
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            mtu: 1442,
            addresses: addresses.iter().map(address).collect(),
            routes: routes.iter().map(route).collect(),
            plug: Plug::own(driver, Some("br-int".into())),
        }
    }

    fn printed(vif: &Vif) -> String {
        let layout = Layout::of(vif).unwrap();
        let mut lines: Vec<String> = layout.addresses.iter().map(|address| format!("addr {address}")).collect();
        lines.extend(layout.routes.iter().map(|(to, via)| match via {
            Some(via) => format!("route {to} via {via}"),
            None => format!("route {to}"),
        }));
        lines.extend(layout.neighbours.iter().map(|(ip, mac)| format!("neigh {ip} {mac}")));
        lines.join("\n")
    }

    #[test]
    fn a_bridged_dual_stack_pod_has_its_subnets_on_the_link() {
        let vif = vif(
            PlugDriver::Ovs,
            &[("10.0.0.5/24", Some("10.0.0.1")), ("fd00::5/64", Some("fd00::1"))],
            &[("169.254.169.254/32", "10.0.0.2"), ("192.0.2.0/24", "0.0.0.0")],
        );
        assert_eq!(
            printed(&vif),
            "addr 10.0.0.5/24\naddr fd00::5/64\nroute 192.0.2.0/24\nroute 169.254.169.254/32 via 10.0.0.2\n\
             route 0.0.0.0/0 via 10.0.0.1\nroute ::/0 via fd00::1"
        );
    }

    #[test]
    fn a_default_route_of_the_subnet_replaces_the_gateway_and_there_is_only_one() {
        let vif = vif(
            PlugDriver::Bridge,
            &[("10.0.0.5/24", Some("10.0.0.1")), ("10.0.1.5/24", Some("10.0.1.1"))],
            &[("0.0.0.0/0", "10.0.0.254")],
        );
        assert_eq!(printed(&vif), "addr 10.0.0.5/24\naddr 10.0.1.5/24\nroute 0.0.0.0/0 via 10.0.0.254");
    }

    #[test]
    fn a_routed_pod_sends_everything_to_its_host_end() {
        let vif = vif(
            PlugDriver::Tap,
            &[("10.0.0.5/24", Some("10.0.0.1")), ("fd00::5/64", None)],
            &[("192.0.2.0/24", "10.0.0.9"), ("fd01::/64", "fd00::9")],
        );
        assert_eq!(
            printed(&vif),
            "addr 10.0.0.5/32\naddr fd00::5/128\nroute 0.0.0.0/0 via 169.254.1.1\n\
             route fd00::/64 via fe80::ecee:eeff:feee:eeee\nroute fd01::/64 via fe80::ecee:eeff:feee:eeee\n\
             neigh 169.254.1.1 ee:ee:ee:ee:ee:ee\nneigh fe80::ecee:eeff:feee:eeee ee:ee:ee:ee:ee:ee"
        );
    }

    #[test]
    fn what_cannot_be_plugged_is_refused_with_its_reason() {
        let good = vif(PlugDriver::Ovs, &[("10.0.0.5/24", None), ("fd00::5/64", None)], &[]);
        let reason = |change: fn(&mut Vif)| {
            let mut vif = good.clone();
            change(&mut vif);
            Layout::of(&vif).unwrap_err().to_string()
        };
        assert!(reason(|vif| vif.interface = "../eth0".into()).contains("../eth0"));
        assert!(reason(|vif| vif.interface = "a-name-that-is-too-long".into()).contains("cannot be the name"));
        assert!(reason(|vif| vif.addresses[0].prefix_length = 33).contains("33 bits"));
        assert!(reason(|vif| vif.mtu = 1279).contains("1280"));
        assert!(reason(|vif| vif.plug.bridge = None).contains("needs the name of a bridge"));
    }
}
