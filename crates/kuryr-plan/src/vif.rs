//! From a Neutron port to the VIF that a node plugs.

use kuryr_model::{
    Plug, PortId, SubnetId, Vif, VifAddress, VifRoute,
    neutron::{Network, Port, Subnet},
    vif::PlugDriver,
};

/// Neutron's answer cannot be made into a VIF.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VifError {
    /// No mechanism driver took the port.
    #[error(
        "Neutron could not bind port {port} on host {host:?}: no agent or chassis of that name is alive; see \
         `openstack network agent list`, or set the annotation kuryr.openstack.org/host on the node"
    )]
    BindingFailed {
        /// The port.
        port: PortId,
        /// The host that was asked for.
        host: String,
    },
    /// Neutron did not say how the port is bound, or that it is bound nowhere.
    #[error(
        "Neutron did not bind port {port} on host {host:?}: the cloud user may not set binding:host_id; give it a \
         role that may (admin or service)"
    )]
    NotBound {
        /// The port.
        port: PortId,
        /// The host that was asked for.
        host: String,
    },
    /// The port is bound in a way for which there is no plug driver.
    #[error("port {port} is bound as {vif_type:?} ({connectivity}), for which Kuryr has no plug driver")]
    Unsupported {
        /// The port.
        port: PortId,
        /// `binding:vif_type`.
        vif_type: String,
        /// `connectivity` of `binding:vif_details`, or a dash.
        connectivity: String,
    },
    /// The port has no address.
    #[error("port {port} has no address")]
    NoAddress {
        /// The port.
        port: PortId,
    },
    /// The port has an address from a subnet that the caller does not know.
    #[error("port {port} has an address from subnet {subnet}, which is not among the configured pod subnets")]
    UnknownSubnet {
        /// The port.
        port: PortId,
        /// The subnet.
        subnet: SubnetId,
    },
}

/// An MTU that every IPv4 and IPv6 path must carry, for a network of which Neutron does not tell the MTU.
const SAFE_MTU: u32 = 1280;

/// The VIF named `interface` for `port`, which is on `network` and has its addresses from `subnets`.
///
/// # Errors
/// [`VifError`] if the port is not bound, bound in an unknown way, or has no usable address.
pub fn vif(interface: &str, port: &Port, network: &Network, subnets: &[Subnet]) -> Result<Vif, VifError> {
    describe(interface, port, network, subnets, plug(port)?)
}

/// The VIF of `port` that is plugged as `plug`.
pub(crate) fn describe(
    interface: &str,
    port: &Port,
    network: &Network,
    subnets: &[Subnet],
    plug: Plug,
) -> Result<Vif, VifError> {
    let mut addresses = Vec::with_capacity(port.fixed_ips.len());
    let mut routes = Vec::new();
    for fixed in &port.fixed_ips {
        let subnet = subnets
            .iter()
            .find(|subnet| subnet.id == fixed.subnet_id)
            .ok_or(VifError::UnknownSubnet { port: port.id, subnet: fixed.subnet_id })?;
        addresses.push(VifAddress {
            ip: fixed.ip_address,
            prefix_length: subnet.cidr.prefix_len(),
            gateway: subnet.gateway_ip,
        });
        routes.extend(
            subnet.host_routes.iter().map(|route| VifRoute { destination: route.destination, gateway: route.nexthop }),
        );
    }
    if addresses.is_empty() {
        return Err(VifError::NoAddress { port: port.id });
    }
    addresses.sort_by_key(|address| address.ip.is_ipv6());
    Ok(Vif {
        interface: interface.to_owned(),
        port_id: port.id,
        network_id: port.network_id,
        mac: port.mac_address,
        mtu: if network.mtu == 0 { SAFE_MTU } else { network.mtu },
        addresses,
        routes,
        plug,
    })
}

fn plug(port: &Port) -> Result<Plug, VifError> {
    let connectivity = port.vif_details.connectivity.as_deref();
    let bridge =
        |default: String| port.vif_details.bridge_name.clone().filter(|name| !name.is_empty()).unwrap_or(default);
    let host = || port.host_id.clone();
    match (port.vif_type.as_str(), connectivity) {
        ("ovs", _) if !port.vif_details.ovs_hybrid_plug => {
            Ok(Plug::own(PlugDriver::Ovs, Some(bridge("br-int".to_owned()))))
        }
        ("bridge", _) => {
            // The Linux bridge agent names its bridges after the first 11 characters of the network's id.
            let network = port.network_id.to_string();
            Ok(Plug::own(PlugDriver::Bridge, Some(bridge(format!("brq{}", &network[..11])))))
        }
        ("tap", Some("l3")) => Ok(Plug::own(PlugDriver::Tap, None)),
        ("binding_failed", _) => Err(VifError::BindingFailed { port: port.id, host: host() }),
        ("" | "unbound", _) => Err(VifError::NotBound { port: port.id, host: host() }),
        (other, _) => Err(VifError::Unsupported {
            port: port.id,
            vif_type: if port.vif_details.ovs_hybrid_plug {
                format!("{other} with ovs_hybrid_plug")
            } else {
                other.to_owned()
            },
            connectivity: connectivity.unwrap_or("-").to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::neutron::{FixedIp, HostRoute, PortStatus, VifDetails};

    const NET: &str = "aaaaaaaa-bbbb-cccc-dddd-000000000001";
    const V4: &str = "aaaaaaaa-bbbb-cccc-dddd-000000000004";
    const V6: &str = "aaaaaaaa-bbbb-cccc-dddd-000000000006";

    fn port(vif_type: &str, details: VifDetails) -> Port {
        Port {
            id: "aaaaaaaa-bbbb-cccc-dddd-0000000000ff".parse().unwrap(),
            network_id: NET.parse().unwrap(),
            mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
            name: String::new(),
            fixed_ips: vec![
                FixedIp { subnet_id: V6.parse().unwrap(), ip_address: "fd00::5".parse().unwrap() },
                FixedIp { subnet_id: V4.parse().unwrap(), ip_address: "10.0.0.5".parse().unwrap() },
            ],
            security_groups: vec![],
            status: PortStatus::Down,
            device_owner: String::new(),
            device_id: String::new(),
            tags: vec![],
            revision_number: 1,
            host_id: "node0".into(),
            vif_type: vif_type.into(),
            vif_details: details,
        }
    }

    fn network(mtu: u32) -> Network {
        Network { id: NET.parse().unwrap(), name: "pods".into(), mtu, tags: vec![], project_id: None, external: false }
    }

    fn subnets() -> Vec<Subnet> {
        let subnet = |id: &str, cidr: &str, gateway: &str, host_routes| Subnet {
            id: id.parse().unwrap(),
            network_id: NET.parse().unwrap(),
            name: String::new(),
            cidr: cidr.parse().unwrap(),
            gateway_ip: Some(gateway.parse().unwrap()),
            host_routes,
            subnetpool_id: None,
            tags: vec![],
        };
        let route = HostRoute { destination: "192.0.2.0/24".parse().unwrap(), nexthop: "10.0.0.9".parse().unwrap() };
        vec![subnet(V4, "10.0.0.0/24", "10.0.0.1", vec![route]), subnet(V6, "fd00::/64", "fd00::1", vec![])]
    }

    #[test]
    fn an_ovs_port_on_two_subnets_becomes_a_dual_stack_vif_ipv4_first() {
        let vif = vif("eth0", &port("ovs", VifDetails::default()), &network(1442), &subnets()).unwrap();
        assert_eq!(vif.addresses[0].ip.to_string(), "10.0.0.5");
        assert_eq!((vif.addresses[1].prefix_length, vif.mtu), (64, 1442));
        assert_eq!(vif.routes[0].gateway.to_string(), "10.0.0.9");
        assert_eq!(vif.plug, Plug::own(PlugDriver::Ovs, Some("br-int".into())));
    }

    #[test]
    fn a_linux_bridge_is_named_after_the_network() {
        let vif = vif("eth0", &port("bridge", VifDetails::default()), &network(0), &subnets()).unwrap();
        assert_eq!(vif.plug.bridge.as_deref(), Some("brqaaaaaaaa-bb"));
        assert_eq!(vif.mtu, SAFE_MTU);
    }

    #[test]
    fn a_routed_tap_needs_no_bridge() {
        let details = VifDetails { connectivity: Some("l3".into()), ..VifDetails::default() };
        let vif = vif("eth0", &port("tap", details), &network(1500), &subnets()).unwrap();
        assert_eq!(vif.plug, Plug::own(PlugDriver::Tap, None));
    }

    #[test]
    fn what_cannot_be_plugged_is_refused_with_its_reason() {
        let error = |port: &Port| vif("eth0", port, &network(1442), &subnets()).unwrap_err();
        assert!(matches!(error(&port("binding_failed", VifDetails::default())), VifError::BindingFailed { .. }));
        assert!(matches!(error(&port("unbound", VifDetails::default())), VifError::NotBound { .. }));
        assert!(matches!(error(&port("", VifDetails::default())), VifError::NotBound { .. }));
        assert!(matches!(error(&port("hw_veb", VifDetails::default())), VifError::Unsupported { .. }));
        let hybrid = VifDetails { ovs_hybrid_plug: true, ..VifDetails::default() };
        assert!(error(&port("ovs", hybrid)).to_string().contains("hybrid"));
        let mut bare = port("ovs", VifDetails::default());
        bare.fixed_ips.clear();
        assert!(matches!(error(&bare), VifError::NoAddress { .. }));
        let unknown = vif("eth0", &port("ovs", VifDetails::default()), &network(1442), &subnets()[..1]).unwrap_err();
        assert!(matches!(unknown, VifError::UnknownSubnet { .. }));
    }
}
