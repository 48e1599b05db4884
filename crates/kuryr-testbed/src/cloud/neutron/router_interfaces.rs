//! `add_router_interface` and `remove_router_interface`.

use ipnet::IpNet;
use serde_json::json;
use uuid::Uuid;

use super::Neutron;
use super::addresses::{self, FixedIp, Request};
use super::binding::Binding;
use super::error::{Error, Result};
use super::floating_ips;
use super::port_checks;
use super::ports::{self, Port, PortStatus, ROUTER_INTERFACE};
use super::resource::Caller;
use super::routers::Router;
use super::subnets::Subnet;
use super::verbs::{id_of, json_object};
use crate::cloud::http::{Answer, Call};

/// What the body names.
struct Target {
    port: Option<Uuid>,
    subnet: Option<Uuid>,
}

fn bad(message: &str) -> Error {
    Error::bad_request("BadRequest", format!("Bad router request: {message}."))
}

fn target(call: &Call) -> Result<Target> {
    let body = json_object(call)?;
    let id = |key: &str| match body.get(key).and_then(|v| v.as_str()) {
        None => Ok(None),
        Some(text) => {
            Uuid::try_parse(text).map(Some).map_err(|_| Error::invalid(format!("'{text}' is not a valid UUID")))
        }
    };
    Ok(Target { port: id("port_id")?, subnet: id("subnet_id")? })
}

/// The interface ports of a router.
fn interfaces(neutron: &Neutron, router: Uuid) -> Vec<Port> {
    let ports = neutron.port_index.of_device(&router.to_string());
    ports
        .into_iter()
        .filter_map(|id| neutron.ports.get(id))
        .filter(|port| port.device_owner == ROUTER_INTERFACE)
        .cloned()
        .collect()
}

fn answer(neutron: &Neutron, router: Uuid, port: &Port, subnet: Option<Uuid>) -> Answer {
    let project = neutron.routers.get(router).map(|router| router.standard.project.clone());
    let subnets: Vec<Uuid> = port.fixed_ips.iter().map(|ip| ip.subnet).collect();
    let subnet = subnet.or_else(|| subnets.first().copied());
    Answer::ok(json!({
        "id": router, "tenant_id": project, "project_id": project, "port_id": port.standard.id, "network_id": port.network,
        "subnet_id": subnet, "subnet_ids": subnet.map_or(subnets, |id| vec![id]),
    }))
}

pub(crate) fn add(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    let router = id_of::<Router>(neutron, id)?;
    let port = match target(call)? {
        Target { port: Some(_), subnet: Some(_) } => return Err(bad("Cannot specify both subnet-id and port-id")),
        Target { port: None, subnet: None } => return Err(bad("Either subnet_id or port_id must be specified")),
        Target { port: Some(port), subnet: None } => add_port(neutron, caller, router, port)?,
        Target { port: None, subnet: Some(subnet) } => add_subnet(neutron, caller, router, subnet)?,
    };
    neutron.routers.touch(router, caller.now);
    let subnet = port.fixed_ips.last().map(|ip| ip.subnet);
    Ok(answer(neutron, router, &port, subnet))
}

fn check_subnet(neutron: &Neutron, router: Uuid, subnet: &Subnet) -> Result<()> {
    for port in interfaces(neutron, router) {
        for ip in &port.fixed_ips {
            if ip.subnet == subnet.standard.id {
                return Err(bad(&format!("Router already has a port on subnet {}", ip.subnet)));
            }
            let Some(other) = neutron.subnets.get(ip.subnet) else { continue };
            if overlap(other.cidr, subnet.cidr) {
                return Err(bad(&format!(
                    "Cidr {} of subnet {} overlaps with cidr {} of subnet {}",
                    subnet.cidr, subnet.standard.id, other.cidr, ip.subnet
                )));
            }
        }
    }
    Ok(())
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn add_port(neutron: &mut Neutron, caller: &Caller, router: Uuid, id: Uuid) -> Result<Port> {
    let port = neutron.ports.find(id)?.clone();
    if !port.device_id.is_empty() {
        let message = format!(
            "Unable to complete operation on port {id} for network {}. Port already has an attached device {}.",
            port.network, port.device_id
        );
        return Err(Error::conflict("PortInUse", message));
    }
    if port.fixed_ips.is_empty() {
        return Err(bad("Router port must have at least one fixed IP"));
    }
    for ip in &port.fixed_ips {
        check_subnet(neutron, router, neutron.subnets.find(ip.subnet)?)?;
    }
    let changed = Port {
        device_id: router.to_string(),
        device_owner: ROUTER_INTERFACE.to_owned(),
        binding: Binding::Distributed,
        status: PortStatus::Active,
        groups: Vec::new(),
        port_security: false,
        ..port
    };
    ports::store(neutron, changed.clone(), caller.now);
    Ok(changed)
}

fn add_subnet(neutron: &mut Neutron, caller: &Caller, router: Uuid, id: Uuid) -> Result<Port> {
    let subnet = neutron.subnets.find(id)?.clone();
    let Some(gateway) = subnet.gateway else { return Err(bad("Subnet for router interface must have a gateway IP")) };
    check_subnet(neutron, router, &subnet)?;
    let project = neutron.routers.find(router)?.standard.project.clone();
    let mac = port_checks::mac(neutron, subnet.network, None)?;
    let request = [Request { subnet: Some(id), address: Some(gateway) }];
    let ips = addresses::allocate(neutron, subnet.network, Some(&request), &mac, true)?;
    if subnet.is_v6()
        && let Some(port) = v6_port(neutron, router, subnet.network)
    {
        // All IPv6 subnets of a network share one port of the router.
        let mut changed = port;
        changed.fixed_ips.extend(ips);
        ports::store(neutron, changed.clone(), caller.now);
        return Ok(changed);
    }
    let port = ports::l3_port(caller, &project, subnet.network, router, ROUTER_INTERFACE, mac, ips);
    ports::insert(neutron, port.clone());
    Ok(port)
}

fn v6_port(neutron: &Neutron, router: Uuid, network: Uuid) -> Option<Port> {
    let v6 = |port: &Port| port.network == network && port.fixed_ips.iter().all(|ip| ip.address.is_ipv6());
    interfaces(neutron, router).into_iter().find(v6)
}

pub(crate) fn remove(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    let router = id_of::<Router>(neutron, id)?;
    let target = target(call)?;
    let interfaces = interfaces(neutron, router);
    let has = |port: &Port, subnet: Uuid| port.fixed_ips.iter().any(|ip| ip.subnet == subnet);
    let port = match (target.port, target.subnet) {
        (None, None) => return Err(bad("Either subnet_id or port_id must be specified")),
        (Some(port), subnet) => {
            let found = interfaces.into_iter().find(|p| p.standard.id == port).ok_or_else(|| {
                let message = format!("Router {router} does not have an interface with id {port}");
                Error::not_found("RouterInterfaceNotFound", message)
            })?;
            if let Some(subnet) = subnet.filter(|&subnet| !has(&found, subnet)) {
                let message = format!("Subnet on port {port} does not match the requested subnet {subnet}.");
                return Err(Error::bad_request("SubnetMismatchForPort", message));
            }
            found
        }
        (None, Some(subnet)) => {
            neutron.subnets.find(subnet)?;
            interfaces.into_iter().find(|port| has(port, subnet)).ok_or_else(|| {
                let message = format!("Router {router} has no interface on subnet {subnet}");
                Error::not_found("RouterInterfaceNotFoundForSubnet", message)
            })?
        }
    };
    for subnet in port.fixed_ips.iter().filter(|ip| target.port.is_some() || Some(ip.subnet) == target.subnet) {
        check_unneeded(neutron, router, subnet.subnet)?;
    }
    let left: Vec<FixedIp> = match (target.port, target.subnet) {
        (None, Some(subnet)) => port.fixed_ips.iter().filter(|ip| ip.subnet != subnet).copied().collect(),
        _ => Vec::new(),
    };
    if left.is_empty() {
        ports::remove(neutron, port.standard.id, caller.now);
    } else {
        addresses::release(neutron, &port.fixed_ips, &left);
        ports::store(neutron, Port { fixed_ips: left, ..port.clone() }, caller.now);
    }
    neutron.routers.touch(router, caller.now);
    Ok(answer(neutron, router, &port, target.subnet))
}

/// An interface that floating IPs need stays.
fn check_unneeded(neutron: &Neutron, router: Uuid, subnet: Uuid) -> Result<()> {
    let Some(cidr) = neutron.subnets.get(subnet).map(|subnet| subnet.cidr) else { return Ok(()) };
    if floating_ips::needs_router(neutron, router, |address| cidr.contains(&address)) {
        let message = format!(
            "Router interface for subnet {subnet} on router {router} cannot be deleted, as it is required by one or more \
             floating IPs."
        );
        return Err(Error::conflict("RouterInterfaceInUseByFloatingIP", message));
    }
    Ok(())
}
