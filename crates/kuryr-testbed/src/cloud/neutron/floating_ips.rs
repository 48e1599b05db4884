//! Floating IPs: addresses of an external network, each of which may stand for an address inside.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::addresses::{self, Request};
use super::attrs::{Access, Attr, Body, Check, Kind, attr};
use super::binding::Binding;
use super::error::{Error, Result};
use super::networks::Network;
use super::ports::{self, FLOATING_IP, Port, PortStatus, ROUTER_INTERFACE};
use super::resource::{Caller, Resource, Standard, kept_in};
use super::{Neutron, port_checks};

const ATTRS: &[Attr] = &[
    attr("tags", Access::Read, Check::Any),
    attr("fixed_ip_address", Access::Write, Check::Ip),
    attr("floating_ip_address", Access::Create, Check::Ip),
    attr("floating_network_id", Access::Required, Check::Uuid),
    attr("port_id", Access::Write, Check::UuidOrNull),
    attr("router_id", Access::Read, Check::Any),
    attr("status", Access::Read, Check::Any),
    attr("subnet_id", Access::Hidden, Check::UuidOrNull),
];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FloatingIp {
    pub(crate) standard: Standard,
    pub(crate) network: Uuid,
    pub(crate) address: IpAddr,
    /// The port on the external network that holds the address. No project has it, so users do not see it.
    pub(crate) holder: Uuid,
    pub(crate) inside: Option<Inside>,
}

/// What a floating IP stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inside {
    pub(crate) port: Uuid,
    pub(crate) address: IpAddr,
    pub(crate) router: Uuid,
}

fn bad(message: &str) -> Error {
    Error::bad_request("BadRequest", format!("Bad floatingip request: {message}."))
}

impl Resource for FloatingIp {
    const KIND: &'static Kind = &Kind {
        plural: "floatingips",
        singular: "floatingip",
        attrs: ATTRS,
        tagged: true,
        not_found: |id| Error::not_found("FloatingIPNotFound", format!("Floating IP {id} could not be found")),
    };

    kept_in!(floating_ips);

    fn attribute(&self, name: &str, _neutron: &Neutron) -> Option<Value> {
        let inside = self.inside.as_ref();
        Some(match name {
            "fixed_ip_address" => json!(inside.map(|inside| inside.address)),
            "floating_ip_address" => json!(self.address),
            "floating_network_id" => json!(self.network),
            "port_id" => json!(inside.map(|inside| inside.port)),
            "router_id" => json!(inside.map(|inside| inside.router)),
            "status" => json!(if inside.is_some() { "ACTIVE" } else { "DOWN" }),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let network = neutron.networks.find(body.uuid("floating_network_id").unwrap_or_default())?;
        check_external(neutron, network)?;
        let network = network.standard.id;
        let standard = Standard::new(caller, body);
        let address = body.text("floating_ip_address").and_then(|text| text.parse().ok());
        let request = Request { subnet: body.uuid("subnet_id"), address };
        let requests = (request.subnet.is_some() || address.is_some()).then_some([request]);
        let mac = port_checks::mac(neutron, network, None)?;
        let held = addresses::allocate(neutron, network, requests.as_ref().map(<[Request; 1]>::as_slice), &mac, false)?;
        let made = match held.iter().find(|ip| ip.address.is_ipv4()) {
            None => {
                let message = format!("Unable to find any IP address on external network {network}.");
                Err(Error::bad_request("ExternalIpAddressExhausted", message))
            }
            Some(ip) => {
                let holder = Uuid::nil();
                let mut floating = Self { standard, network, address: ip.address, holder, inside: None };
                inside(neutron, &floating, body).map(|inside| {
                    floating.inside = inside;
                    floating
                })
            }
        };
        let mut floating = match made {
            Ok(floating) => floating,
            Err(error) => {
                addresses::release(neutron, &held, &[]);
                return Err(error);
            }
        };
        let port = ports::l3_port(caller, "", network, floating.standard.id, FLOATING_IP, mac, held);
        floating.holder = ports::insert(neutron, Port { status: PortStatus::Down, binding: Binding::Unbound, ..port });
        Ok(neutron.floating_ips.insert(floating))
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut floating = neutron.floating_ips.find(id)?.clone();
        floating.inside = inside(neutron, &floating, body)?;
        floating.standard.update(body);
        neutron.floating_ips.replace(floating, caller.now);
        Ok(())
    }

    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()> {
        if let Some(floating) = neutron.floating_ips.remove(id) {
            ports::remove(neutron, floating.holder, caller.now);
        }
        Ok(())
    }
}

fn check_external(neutron: &Neutron, network: &Network) -> Result<()> {
    let id = network.standard.id;
    if !network.external {
        return Err(bad(&format!("Network {id} is not a valid external network")));
    }
    let v4 = |id: &Uuid| neutron.subnets.get(*id).is_some_and(|subnet| !subnet.is_v6());
    if !network.subnets.iter().any(v4) {
        return Err(bad(&format!("Network {id} does not contain any IPv4 subnet")));
    }
    Ok(())
}

/// What a floating IP stands for after a request. A request that does not name a port keeps the one there is.
fn inside(neutron: &Neutron, floating: &FloatingIp, body: &Body) -> Result<Option<Inside>> {
    let fixed: Option<IpAddr> = body.text("fixed_ip_address").and_then(|text| text.parse().ok());
    let old = floating.inside.as_ref().map(|inside| inside.port);
    let named = body.uuid("port_id");
    if fixed.is_some() && named.is_none() {
        return Err(bad("fixed_ip_address cannot be specified without a port_id"));
    }
    let Some(port) = named.or(if body.has("port_id") { None } else { old }) else { return Ok(None) };
    let port = neutron.ports.find(port)?;
    let id = port.standard.id;
    let ip = match fixed {
        Some(address) if address.is_ipv6() => {
            let message =
                format!("Cannot process floating IP association with {address}, since that is not an IPv4 address");
            return Err(bad(&message));
        }
        Some(address) => port
            .fixed_ips
            .iter()
            .find(|ip| ip.address == address)
            .ok_or_else(|| bad(&format!("Port {id} does not have fixed ip {address}")))?,
        None => {
            let v4: Vec<_> = port.fixed_ips.iter().filter(|ip| ip.address.is_ipv4()).collect();
            match v4[..] {
                [ip] => ip,
                [] => {
                    let message = format!("Cannot add floating IP to port {id} that has no fixed IPv4 addresses");
                    return Err(bad(&message));
                }
                _ => {
                    let message = format!(
                        "Port {id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a \
                         floating IP"
                    );
                    return Err(bad(&message));
                }
            }
        }
    };
    let router = router(neutron, port.network, ip.subnet, floating.network).ok_or_else(|| {
        let message = format!(
            "External network {} is not reachable from subnet {}.  Therefore, cannot associate Port {id} with a Floating IP.",
            floating.network, ip.subnet
        );
        Error::not_found("ExternalGatewayForFloatingIPNotFound", message)
    })?;
    let taken = |other: &FloatingIp| {
        other.standard.id != floating.standard.id
            && other.network == floating.network
            && other.inside.as_ref().is_some_and(|inside| inside.port == id && inside.address == ip.address)
    };
    if old != Some(id) && neutron.floating_ips.iter().any(taken) {
        let message = format!(
            "Cannot associate floating IP {} ({}) with port {id} using fixed IP {}, as that fixed IP already has a floating \
             IP on external network {}.",
            floating.address, floating.standard.id, ip.address, floating.network
        );
        return Err(Error::conflict("FloatingIPPortAlreadyAssociated", message));
    }
    Ok(Some(Inside { port: id, address: ip.address, router }))
}

/// The router that joins a subnet and an external network; if there are several, the subnet's own gateway.
fn router(neutron: &Neutron, network: Uuid, subnet: Uuid, external: Uuid) -> Option<Uuid> {
    let gateway = neutron.subnets.get(subnet)?.gateway;
    let mut first = None;
    for port in neutron.port_index.on_network(network) {
        let Some(port) = neutron.ports.get(port).filter(|port| port.device_owner == ROUTER_INTERFACE) else { continue };
        let Some(ip) = port.fixed_ips.iter().find(|ip| ip.subnet == subnet) else { continue };
        let Some(router) = Uuid::try_parse(&port.device_id).ok().and_then(|id| neutron.routers.get(id)) else {
            continue;
        };
        if router.gateway.as_ref().is_none_or(|gateway| gateway.network != external) {
            continue;
        }
        if Some(ip.address) == gateway {
            return Some(router.standard.id);
        }
        first.get_or_insert(router.standard.id);
    }
    first
}

/// Parts a port that goes away from its floating IPs.
pub(crate) fn part_from(neutron: &mut Neutron, port: Uuid, now: Timestamp) {
    let of = |floating: &&FloatingIp| floating.inside.as_ref().is_some_and(|inside| inside.port == port);
    let found: Vec<FloatingIp> = neutron.floating_ips.iter().filter(of).cloned().collect();
    for floating in found {
        neutron.floating_ips.replace(FloatingIp { inside: None, ..floating }, now);
    }
}

/// Whether a floating IP needs a router, for the addresses that the function says true for.
pub(crate) fn needs_router(neutron: &Neutron, router: Uuid, of: impl Fn(IpAddr) -> bool) -> bool {
    let needs = |floating: &FloatingIp| {
        floating.inside.as_ref().is_some_and(|inside| inside.router == router && of(inside.address))
    };
    neutron.floating_ips.iter().any(needs)
}

/// The floating IPs of a network that stand for nothing: they go with their network.
pub(crate) fn idle_of(neutron: &Neutron, network: Uuid) -> Vec<Uuid> {
    let idle = |floating: &&FloatingIp| floating.network == network && floating.inside.is_none();
    neutron.floating_ips.iter().filter(idle).map(|floating| floating.standard.id).collect()
}
