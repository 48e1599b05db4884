//! Routers and their gateways; router_interfaces.rs has their interfaces.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::addresses::{self, FixedIp};
use super::attrs::{Access, Attr, Body, Check, Kind, attr, to_bool};
use super::error::{Error, Result};
use super::ports::{self, ROUTER_GATEWAY, ROUTER_INTERFACE};
use super::resource::{Caller, Resource, Standard, kept_in};
use super::{Neutron, floating_ips, port_checks};

const ATTRS: &[Attr] = &[
    attr("name", Access::Write, Check::Text(255)),
    attr("tags", Access::Read, Check::Any),
    attr("admin_state_up", Access::Write, Check::Bool),
    attr("availability_zone_hints", Access::Create, Check::List),
    attr("availability_zones", Access::Read, Check::Any),
    attr("external_gateway_info", Access::Write, Check::Dict),
    attr("flavor_id", Access::Create, Check::Any),
    attr("routes", Access::Write, Check::List),
    attr("status", Access::Read, Check::Any),
];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Router {
    pub(crate) standard: Standard,
    pub(crate) admin_state_up: bool,
    pub(crate) gateway: Option<Gateway>,
    routes: Value,
}

/// The way of a router to an external network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gateway {
    pub(crate) network: Uuid,
    pub(crate) port: Uuid,
    enable_snat: bool,
}

impl Resource for Router {
    const KIND: &'static Kind = &Kind {
        plural: "routers",
        singular: "router",
        attrs: ATTRS,
        tagged: true,
        not_found: |id| Error::not_found("RouterNotFound", format!("Router {id} could not be found")),
    };

    kept_in!(routers);

    fn attribute(&self, name: &str, neutron: &Neutron) -> Option<Value> {
        Some(match name {
            "admin_state_up" => json!(self.admin_state_up),
            "availability_zone_hints" | "availability_zones" => json!([]),
            "external_gateway_info" => match &self.gateway {
                None => Value::Null,
                Some(gateway) => {
                    let port = neutron.ports.get(gateway.port);
                    let ips: Vec<Value> =
                        port.map(|p| p.fixed_ips.iter().map(FixedIp::json).collect()).unwrap_or_default();
                    json!({
                        "network_id": gateway.network, "enable_snat": gateway.enable_snat, "external_fixed_ips": ips,
                    })
                }
            },
            "flavor_id" => Value::Null,
            "routes" => self.routes.clone(),
            "status" => json!("ACTIVE"),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let mut router = Self {
            standard: Standard::new(caller, body),
            admin_state_up: body.boolean("admin_state_up").unwrap_or(true),
            gateway: None,
            routes: body.given("routes").cloned().unwrap_or_else(|| json!([])),
        };
        router.gateway = set_gateway(neutron, caller, &router, body)?;
        Ok(neutron.routers.insert(router))
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut router = neutron.routers.find(id)?.clone();
        router.standard.update(body);
        body.set_bool("admin_state_up", &mut router.admin_state_up);
        if let Some(routes) = body.given("routes") {
            router.routes = routes.clone();
        }
        router.gateway = set_gateway(neutron, caller, &router, body)?;
        neutron.routers.replace(router, caller.now);
        Ok(())
    }

    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()> {
        let router = neutron.routers.find(id)?.clone();
        let ports = neutron.port_index.of_device(&id.to_string());
        let owner = |port: Uuid| neutron.ports.get(port).map(|port| port.device_owner.as_str());
        let attached: Vec<String> = (ports.into_iter())
            .filter(|&port| owner(port) == Some(ROUTER_INTERFACE))
            .map(|port| port.to_string())
            .collect();
        if !attached.is_empty() {
            let message = format!("Router {id} has ports still attached: {}", attached.join(", "));
            return Err(Error::conflict("RouterInUse", message));
        }
        if let Some(gateway) = router.gateway {
            ports::remove(neutron, gateway.port, caller.now);
        }
        neutron.routers.remove(id);
        Ok(())
    }
}

/// The gateway as the body wants it, with its port made, kept or removed.
fn set_gateway(neutron: &mut Neutron, caller: &Caller, router: &Router, body: &Body) -> Result<Option<Gateway>> {
    let Some(info) = body.get("external_gateway_info") else { return Ok(router.gateway.clone()) };
    let empty = Map::new();
    let info = info.as_object().unwrap_or(&empty);
    let Some(text) = info.get("network_id").and_then(Value::as_str) else {
        check_unneeded(neutron, router)?;
        if let Some(gateway) = &router.gateway {
            ports::remove(neutron, gateway.port, caller.now);
        }
        return Ok(None);
    };
    let not_found = || Error::not_found("NetworkNotFound", format!("Network {text} could not be found."));
    let network = neutron.networks.find(Uuid::try_parse(text).map_err(|_| not_found())?)?;
    if !network.external {
        let message = format!("Bad router request: Network {text} is not an external network.");
        return Err(Error::bad_request("BadRequest", message));
    }
    let network = network.standard.id;
    let enable_snat = info.get("enable_snat").and_then(to_bool).unwrap_or(true);
    if let Some(gateway) = router.gateway.as_ref().filter(|gateway| gateway.network == network) {
        return Ok(Some(Gateway { enable_snat, ..gateway.clone() }));
    }
    check_unneeded(neutron, router)?;
    let requests = match info.get("external_fixed_ips").and_then(Value::as_array) {
        Some(list) => Some(addresses::read(list)?),
        None => None,
    };
    let mac = port_checks::mac(neutron, network, None)?;
    let ips = addresses::allocate(neutron, network, requests.as_deref(), &mac, true)?;
    if let Some(gateway) = &router.gateway {
        ports::remove(neutron, gateway.port, caller.now);
    }
    let id = router.standard.id;
    // Gateway ports belong to no project: users do not see them.
    let port = ports::insert(neutron, ports::l3_port(caller, "", network, id, ROUTER_GATEWAY, mac, ips));
    Ok(Some(Gateway { network, port, enable_snat }))
}

/// A gateway that floating IPs need stays.
fn check_unneeded(neutron: &Neutron, router: &Router) -> Result<()> {
    match &router.gateway {
        Some(gateway) if floating_ips::needs_router(neutron, router.standard.id, |_| true) => {
            let message = format!(
                "Gateway cannot be updated for router {}, since a gateway to external network {} is required by one or more \
                 floating IPs.",
                router.standard.id, gateway.network
            );
            Err(Error::conflict("RouterExternalGatewayInUseByFloatingIp", message))
        }
        _ => Ok(()),
    }
}
