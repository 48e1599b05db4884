//! The addresses of a load balancer: which the request means, and the port that holds them.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::error::{Error, Result};
use super::model::{AdditionalVip, Vip};
use super::providers::{Kind, Provider};
use crate::cloud::body::Body;
use crate::cloud::config::OvnRelease;
use crate::cloud::neutron::view::PortView;
use crate::cloud::neutron::{Caller, Neutron};

/// How many addresses a subnet must have left to be picked: one for the VIP and one for an amphora, whoever the provider is.
const NEEDED: u128 = 2;

/// What a request means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    network: Uuid,
    subnet: Uuid,
    address: Option<IpAddr>,
    port: Option<Uuid>,
    qos: Option<Uuid>,
    additional: Vec<(Uuid, Option<IpAddr>)>,
}

fn ip(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn uuid(value: &Value) -> Option<Uuid> {
    Uuid::try_parse(value.as_str()?).ok()
}

/// Reads `vip_*` and `additional_vips`.
pub(crate) fn read(neutron: &Neutron, body: &Body) -> Result<Request> {
    let address = body.get("vip_address").and_then(ip);
    let subnet = body.uuid("vip_subnet_id");
    let mut request = match (body.uuid("vip_port_id"), body.uuid("vip_network_id"), subnet) {
        (Some(port), _, _) => of_port(neutron, port, subnet, address)?,
        (None, Some(network), _) => of_network(neutron, network, subnet, address)?,
        (None, None, Some(subnet)) => {
            let found = neutron.subnet(subnet).ok_or_else(|| Error::missing("Subnet", subnet))?;
            Request { network: found.network, subnet, address, port: None, qos: None, additional: Vec::new() }
        }
        (None, None, None) => {
            return Err(Error::validation("VIP must contain one of: vip_port_id, vip_network_id, vip_subnet_id."));
        }
    };
    request.qos = body.uuid("vip_qos_policy_id");
    for item in body.list("additional_vips").unwrap_or_default() {
        request.additional.extend(uuid(&item["subnet_id"]).map(|subnet| (subnet, ip(&item["ip_address"]))));
    }
    check_additional(neutron, &request)?;
    Ok(request)
}

fn of_port(neutron: &Neutron, id: Uuid, subnet: Option<Uuid>, address: Option<IpAddr>) -> Result<Request> {
    let port = neutron.port(id).ok_or_else(|| Error::missing("Port", id))?;
    if !port.device_id.is_empty() {
        let message = format!("Port {id} is already used by device {} ", port.device_id);
        return Err(Error::validation(message));
    }
    let mut ips = port.fixed_ips.iter();
    let found = match (subnet, address) {
        (Some(subnet), _) => {
            neutron.subnet(subnet).ok_or_else(|| Error::missing("Subnet", subnet))?;
            ips.find(|(of, _)| *of == subnet)
                .ok_or("No VIP address found on the specified VIP port within the specified subnet.")
        }
        (None, Some(address)) => {
            ips.find(|(_, ip)| *ip == address).ok_or("Specified VIP address not found on the specified VIP port.")
        }
        (None, None) => ips
            .next()
            .filter(|_| port.fixed_ips.len() == 1)
            .ok_or("VIP port's subnet could not be determined. Please specify either a VIP subnet or address."),
    };
    let (subnet, address) = *found.map_err(Error::validation)?;
    let additional = Vec::new();
    Ok(Request { network: port.network, subnet, address: Some(address), port: Some(id), qos: None, additional })
}

fn of_network(neutron: &Neutron, id: Uuid, subnet: Option<Uuid>, address: Option<IpAddr>) -> Result<Request> {
    let network = neutron.network(id).ok_or_else(|| Error::missing("Network", id))?;
    let cidr = |subnet: Uuid| neutron.subnet(subnet).map(|subnet| subnet.cidr);
    let subnet = match (subnet, address) {
        (Some(subnet), _) if network.subnets.contains(&subnet) => subnet,
        (Some(subnet), _) => return Err(Error::missing("Subnet", subnet)),
        (None, Some(address)) => {
            let holds = |subnet: &Uuid| cidr(*subnet).is_some_and(|cidr| cidr.contains(&address));
            network.subnets.iter().copied().find(holds).ok_or_else(|| {
                Error::validation("Supplied network does not contain a subnet for VIP address specified.")
            })?
        }
        (None, None) if network.subnets.is_empty() => {
            return Err(Error::validation("Supplied network does not contain a subnet."));
        }
        (None, None) => {
            let roomy = || network.subnets.iter().copied().filter(|&id| neutron.free_addresses(id) >= NEEDED);
            let v4 = |id: &Uuid| cidr(*id).is_some_and(|cidr| cidr.addr().is_ipv4());
            roomy().find(v4).or_else(|| roomy().next()).ok_or_else(|| {
                Error::validation("Subnet(s) in the supplied network do not contain enough available IPs.")
            })?
        }
    };
    Ok(Request { network: id, subnet, address, port: None, qos: None, additional: Vec::new() })
}

fn check_additional(neutron: &Neutron, request: &Request) -> Result<()> {
    let mut seen = vec![request.subnet];
    for (subnet, _) in &request.additional {
        if seen.contains(subnet) {
            return Err(Error::validation("Duplicate VIP subnet(s) specified. Only one IP can be bound per subnet."));
        }
        seen.push(*subnet);
    }
    for subnet in seen {
        let found = neutron.subnet(subnet);
        let found = found.ok_or_else(|| Error::internal(format!("subnet not found (subnet id: {subnet}).")))?;
        if found.network != request.network {
            return Err(Error::validation("All VIP subnets must belong to the same network."));
        }
    }
    Ok(())
}

/// Takes the addresses: makes the port that holds them, or uses the given one.
pub(crate) fn take(
    neutron: &mut Neutron,
    caller: &Caller,
    provider: &Provider,
    balancer: Uuid,
    request: &Request,
    request_id: &str,
) -> Result<(Vip, Vec<AdditionalVip>)> {
    let mut make = |attributes: Map<String, Value>| {
        let made = neutron.make_port(caller, attributes).map_err(|error| {
            let ids = format!("Neutron server returns request_ids: ['{request_id}']");
            Error::driver(&provider.name, format!("{}\n{ids}", error.message))
        })?;
        made.ok_or_else(|| Error::driver(&provider.name, "the port is gone"))
    };
    let further = |port: Option<Uuid>, ips: &[(Uuid, IpAddr)]| -> Vec<AdditionalVip> {
        let one = |&(subnet, asked): &(Uuid, Option<IpAddr>)| {
            let address = ips.iter().find(|(of, _)| *of == subnet).map(|(_, ip)| *ip);
            AdditionalVip { subnet, address: address.or(asked), port: address.and(port) }
        };
        request.additional.iter().map(one).collect()
    };
    let vip = |port: &PortView, owned: bool| {
        let held = port.fixed_ips.iter().find(|(of, _)| *of == request.subnet).map(|(_, ip)| *ip);
        let address =
            held.or(request.address).ok_or_else(|| Error::driver(&provider.name, "the port has no address"))?;
        let (network, subnet, qos) = (request.network, request.subnet, request.qos);
        Ok::<_, Error>(Vip { address, port: port.id, subnet, network, qos, owned })
    };
    let first = fixed_ip(request.subnet, request.address);
    match (provider.kind, request.port) {
        // It makes a port whether it was given one or not, and then finds the address taken. It knows nothing of further addresses.
        (Kind::Ovn(OvnRelease::Zed), _) => {
            let port = make(attributes(request, &format!("ovn-lb-vip-{balancer}"), vec![first], &[]))?;
            Ok((vip(&port, true)?, further(None, &[])))
        }
        (_, Some(id)) => {
            let port = neutron.port(id).ok_or_else(|| Error::missing("Port", id))?;
            Ok((vip(&port, false)?, further(Some(id), &port.fixed_ips)))
        }
        (Kind::Ovn(OvnRelease::Later), None) => {
            let owner = [("device_owner", json!("ovn-lb-vip:distributed"))];
            let port = make(attributes(request, &format!("ovn-lb-vip-{balancer}"), vec![first], &owner))?;
            let mut additional = Vec::new();
            for (n, (subnet, address)) in request.additional.iter().enumerate() {
                let name = format!("ovn-lb-vip-additional-{}-{balancer}", n + 1);
                let port = make(attributes(request, &name, vec![fixed_ip(*subnet, *address)], &owner))?;
                let address = port.fixed_ips.first().map(|(_, ip)| *ip);
                additional.push(AdditionalVip { subnet: *subnet, address, port: Some(port.id) });
            }
            Ok((vip(&port, true)?, additional))
        }
        (Kind::Amphora, None) => {
            let more = [
                ("device_owner", json!("Octavia")),
                ("device_id", json!(format!("lb-{balancer}"))),
                ("admin_state_up", json!(false)),
            ];
            let all = request.additional.iter().map(|(subnet, address)| fixed_ip(*subnet, *address));
            let ips = std::iter::once(first).chain(all).collect();
            let port = make(attributes(request, &format!("octavia-lb-{balancer}"), ips, &more))?;
            Ok((vip(&port, true)?, further(Some(port.id), &port.fixed_ips)))
        }
    }
}

fn fixed_ip(subnet: Uuid, address: Option<IpAddr>) -> Value {
    match address {
        Some(address) => json!({ "subnet_id": subnet, "ip_address": address }),
        None => json!({ "subnet_id": subnet }),
    }
}

fn attributes(request: &Request, name: &str, fixed_ips: Vec<Value>, more: &[(&str, Value)]) -> Map<String, Value> {
    let fixed = [
        ("name", json!(name)),
        ("network_id", json!(request.network)),
        ("fixed_ips", Value::Array(fixed_ips)),
        ("admin_state_up", json!(true)),
    ];
    fixed.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}
