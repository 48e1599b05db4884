//! The fixed IPs of ports: what a request for addresses means on a network.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::shown;
use super::error::{Error, Result};
use super::ipam::{address, eui64, hosts, number};
use super::ports::{self, Port};
use super::subnets::Subnet;

/// `max_fixed_ips_per_port`.
const MAX_FIXED_IPS: usize = 5;

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FixedIp {
    pub(crate) subnet: Uuid,
    pub(crate) address: IpAddr,
}

impl FixedIp {
    pub(crate) fn json(&self) -> Value {
        json!({ "subnet_id": self.subnet, "ip_address": self.address })
    }
}

/// An item of `fixed_ips` in a request: a subnet, an address, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) subnet: Option<Uuid>,
    pub(crate) address: Option<IpAddr>,
}

/// Reads `fixed_ips` of a body.
pub(crate) fn read(list: &[Value]) -> Result<Vec<Request>> {
    let refuse = |reason: String| Err(Error::attribute("fixed_ips", reason));
    let mut out: Vec<Request> = Vec::new();
    for item in list {
        let Some(map) = item.as_object() else {
            return refuse(format!("Invalid data format for fixed IP: '{}'", shown(item)));
        };
        let mut request = Request { subnet: None, address: None };
        if let Some(value) = map.get("ip_address") {
            let Some(ip) = value.as_str().and_then(|text| text.parse().ok()) else {
                return refuse(format!("'{}' is not a valid IP address", shown(value)));
            };
            request.address = Some(ip);
        }
        if let Some(value) = map.get("subnet_id") {
            let Some(id) = value.as_str().and_then(|text| Uuid::try_parse(text).ok()) else {
                return refuse(format!("'{}' is not a valid UUID", shown(value)));
            };
            request.subnet = Some(id);
        }
        if let Some(ip) = request.address
            && out.iter().any(|other| other.address == Some(ip))
        {
            return refuse(format!("Duplicate IP address '{ip}'"));
        }
        out.push(request);
    }
    if out.len() > MAX_FIXED_IPS {
        return Err(Error::invalid("Exceeded maximum amount of fixed ips per port"));
    }
    Ok(out)
}

/// What is to be taken: an address of one of some subnets, or one certain address.
#[derive(Debug)]
enum Want {
    AnyOf(Vec<Uuid>),
    Exact(FixedIp),
}

/// Takes the addresses of a new port. `requested` is `None` when the request does not name `fixed_ips`.
pub(crate) fn allocate(
    neutron: &mut Neutron,
    network: Uuid,
    requested: Option<&[Request]>,
    mac: &str,
    router: bool,
) -> Result<Vec<FixedIp>> {
    let subnets = subnets_of(neutron, network);
    let mut wants = Vec::new();
    match requested {
        Some(requests) => {
            for request in requests {
                wants.extend(want(neutron, network, &subnets, *request, router)?);
            }
        }
        None => {
            for v6 in [false, true] {
                let ids: Vec<Uuid> = (subnets.iter())
                    .filter(|subnet| subnet.is_v6() == v6 && !subnet.is_auto_addressed())
                    .map(|subnet| subnet.standard.id)
                    .collect();
                if !ids.is_empty() {
                    wants.push(Want::AnyOf(ids));
                }
            }
        }
    }
    if !router {
        wants.extend(
            subnets.iter().filter(|subnet| subnet.is_auto_addressed()).map(|subnet| Want::Exact(auto(subnet, mac))),
        );
    }
    take(neutron, network, wants)
}

/// Takes and gives back addresses so that a port has what an update requests; gives the port's new addresses, of which some may be its
/// old ones. The addresses that it lost are still taken: the caller releases them with [`release`] when all else has succeeded.
pub(crate) fn change(neutron: &mut Neutron, port: &Port, requests: &[Request], mac: &str) -> Result<Vec<FixedIp>> {
    let router = port.is_router_port();
    let subnets = subnets_of(neutron, port.network);
    let mut left = port.fixed_ips.clone();
    let mut kept = Vec::new();
    let mut wants = Vec::new();
    let mut open = Vec::new();
    for request in requests {
        let known =
            |ip: &FixedIp| request.address == Some(ip.address) && request.subnet.is_none_or(|id| id == ip.subnet);
        match left.iter().position(known) {
            Some(at) if request.address.is_some() => kept.push(left.remove(at)),
            _ if request.address.is_some() => wants.extend(want(neutron, port.network, &subnets, *request, router)?),
            _ => open.push(*request),
        }
    }
    for request in open {
        match left.iter().position(|ip| Some(ip.subnet) == request.subnet) {
            Some(at) => kept.push(left.remove(at)),
            None => wants.extend(want(neutron, port.network, &subnets, request, router)?),
        }
    }
    if !router {
        // Automatic addresses stay, whether they are named or not.
        for subnet in subnets.iter().filter(|subnet| subnet.is_auto_addressed()) {
            let ip = auto(subnet, mac);
            if kept.contains(&ip) {
                continue;
            }
            match left.iter().position(|other| *other == ip) {
                Some(at) => kept.push(left.remove(at)),
                None => wants.push(Want::Exact(ip)),
            }
        }
    }
    kept.extend(take(neutron, port.network, wants)?);
    Ok(kept)
}

/// Gives back those of `old` that are not in `new`.
pub(crate) fn release(neutron: &mut Neutron, old: &[FixedIp], new: &[FixedIp]) {
    for ip in old.iter().filter(|ip| !new.contains(ip)) {
        if let Some(allocator) = neutron.allocators.get_mut(&ip.subnet) {
            allocator.release(number(ip.address));
        }
    }
}

/// Takes addresses for no port, for ever.
pub(crate) fn lose(neutron: &mut Neutron, ips: &[FixedIp]) {
    for ip in ips {
        if let Some(allocator) = neutron.allocators.get_mut(&ip.subnet) {
            allocator.lose(number(ip.address));
        }
    }
}

fn subnets_of(neutron: &Neutron, network: Uuid) -> Vec<Subnet> {
    let ids = neutron.networks.get(network).map(|network| network.subnets.as_slice()).unwrap_or_default();
    ids.iter().filter_map(|&id| neutron.subnets.get(id)).cloned().collect()
}

fn auto(subnet: &Subnet, mac: &str) -> FixedIp {
    FixedIp { subnet: subnet.standard.id, address: eui64(subnet.cidr, mac) }
}

/// `None` when automatic addressing already covers the request.
fn want(neutron: &Neutron, network: Uuid, subnets: &[Subnet], request: Request, router: bool) -> Result<Option<Want>> {
    if subnets.is_empty() {
        return Err(Error::invalid("IP allocation requires subnets for network"));
    }
    let usable = |subnet: &Subnet, ip: IpAddr| {
        // An IPv6 network's own address is that of all its routers.
        let of_routers = router && subnet.is_v6() && ip == subnet.cidr.network();
        subnet.cidr.contains(&ip) && (of_routers || hosts(subnet.cidr).contains(number(ip)))
    };
    let subnet = match (request.subnet, request.address) {
        (Some(id), address) => {
            let Some(subnet) = subnets.iter().find(|subnet| subnet.standard.id == id) else {
                neutron.subnets.find(id)?;
                return Err(Error::invalid(format!(
                    "Failed to create port on network {network}, because fixed_ips included invalid subnet {id}"
                )));
            };
            if let Some(ip) = address
                && !usable(subnet, ip)
            {
                let message = format!("IP address {ip} is not a valid IP for the specified subnet.");
                return Err(Error::bad_request("InvalidIpForSubnet", message));
            }
            subnet
        }
        (None, Some(ip)) => subnets.iter().find(|subnet| usable(subnet, ip)).ok_or_else(|| {
            let message = format!("IP address {ip} is not a valid IP for any of the subnets on the specified network.");
            Error::bad_request("InvalidIpForNetwork", message)
        })?,
        (None, None) => return Err(Error::invalid("IP allocation requires subnet_id or ip_address")),
    };
    let id = subnet.standard.id;
    match request.address {
        Some(address) if subnet.is_auto_addressed() && !router => Err(Error::bad_request(
            "AllocationOnAutoAddressSubnet",
            format!(
                "IPv6 address {address} cannot be directly assigned to a port on subnet {id} as the subnet is configured for \
                 automatic addresses"
            ),
        )),
        Some(address) => Ok(Some(Want::Exact(FixedIp { subnet: id, address }))),
        None if subnet.is_auto_addressed() && !router => Ok(None),
        None => Ok(Some(Want::AnyOf(vec![id]))),
    }
}

/// Takes all, or none and says why.
fn take(neutron: &mut Neutron, network: Uuid, wants: Vec<Want>) -> Result<Vec<FixedIp>> {
    let mut taken = Vec::with_capacity(wants.len());
    for want in wants {
        match take_one(&mut neutron.allocators, &neutron.subnets, network, want) {
            Ok(ip) => taken.push(ip),
            Err(error) => {
                release(neutron, &taken, &[]);
                return Err(error);
            }
        }
    }
    Ok(taken)
}

fn take_one(
    allocators: &mut HashMap<Uuid, super::ipam::Allocator>,
    subnets: &super::resource::Table<Subnet>,
    network: Uuid,
    want: Want,
) -> Result<FixedIp> {
    match want {
        Want::Exact(ip) => {
            let taken = allocators.get_mut(&ip.subnet).is_some_and(|allocator| allocator.take(number(ip.address)));
            if taken {
                return Ok(ip);
            }
            let message = format!("IP address {} already allocated in subnet {}", ip.address, ip.subnet);
            Err(Error::conflict("IpAddressAlreadyAllocated", message))
        }
        Want::AnyOf(ids) => {
            for id in ids {
                if let (Some(allocator), Some(subnet)) = (allocators.get_mut(&id), subnets.get(id))
                    && let Some(taken) = allocator.take_any()
                {
                    return Ok(FixedIp { subnet: id, address: address(taken, subnet.is_v6()) });
                }
            }
            let message = format!("No more IP addresses available on network {network}.");
            Err(Error::conflict("IpAddressGenerationFailure", message))
        }
    }
}

/// Gives the ports of a network their addresses of a new automatic subnet.
pub(crate) fn add_auto_addresses(neutron: &mut Neutron, subnet: Uuid, now: Timestamp) {
    let Some(subnet) = neutron.subnets.get(subnet).cloned() else { return };
    for id in neutron.port_index.on_network(subnet.network) {
        let Some(mut port) = neutron.ports.get(id).filter(|port| !port.is_router_port()).cloned() else { continue };
        let ip = auto(&subnet, &port.mac);
        let free = neutron.allocators.get_mut(&ip.subnet).is_some_and(|allocator| allocator.take(number(ip.address)));
        if free {
            port.fixed_ips.push(ip);
            ports::store(neutron, port, now);
        }
    }
}

/// Takes the addresses of a subnet that goes away from a port.
pub(crate) fn drop_subnet(neutron: &mut Neutron, port: Uuid, subnet: Uuid, now: Timestamp) {
    if let Some(mut port) = neutron.ports.get(port).cloned() {
        port.fixed_ips.retain(|ip| ip.subnet != subnet);
        ports::store(neutron, port, now);
    }
}
