//! The network of the outside, which is there before anybody comes.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::Neutron;
use super::attrs::Body;
use super::error::Result;
use super::networks::Network;
use super::resource::{Caller, Resource};
use super::subnets::Subnet;

/// Makes an external network with one subnet, both of this name.
pub(crate) fn create(neutron: &mut Neutron, caller: &Caller, name: &str, cidr: IpNet) -> Result<()> {
    let network = make::<Network>(neutron, caller, &json!({ "name": name, "router:external": true }))?;
    let version = if cidr.addr().is_ipv4() { 4 } else { 6 };
    let subnet = json!({
        "name": name, "network_id": network, "ip_version": version, "cidr": cidr.to_string(), "enable_dhcp": false,
    });
    make::<Subnet>(neutron, caller, &subnet).map(drop)
}

fn make<R: Resource>(neutron: &mut Neutron, caller: &Caller, attributes: &Value) -> Result<uuid::Uuid> {
    let map = attributes.as_object().cloned().unwrap_or_else(Map::new);
    R::create(neutron, caller, &Body::of_create(R::KIND, map)?)
}
