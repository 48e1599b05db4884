//! Networks.

use serde_json::{Value, json};
use uuid::Uuid;

use super::attrs::{Access, Attr, Body, Check, Kind, attr};
use super::error::{Error, Result};
use super::floating_ips::{self, FloatingIp};
use super::ports::{self, ROUTER_GATEWAY};
use super::resource::{Caller, Resource, Standard, kept_in};
use super::{Neutron, groups};

const ATTRS: &[Attr] = &[
    attr("name", Access::Write, Check::Text(255)),
    attr("tags", Access::Read, Check::Any),
    attr("admin_state_up", Access::Write, Check::Bool),
    attr("availability_zone_hints", Access::Create, Check::List),
    attr("availability_zones", Access::Read, Check::Any),
    attr("ipv4_address_scope", Access::Read, Check::Any),
    attr("ipv6_address_scope", Access::Read, Check::Any),
    attr("is_default", Access::Write, Check::Bool),
    attr("mtu", Access::Write, Check::Int),
    attr("port_security_enabled", Access::Write, Check::Bool),
    attr("provider:network_type", Access::Create, Check::Any),
    attr("provider:physical_network", Access::Create, Check::Any),
    attr("provider:segmentation_id", Access::Create, Check::Int),
    attr("router:external", Access::Write, Check::Bool),
    attr("shared", Access::Write, Check::Bool),
    attr("status", Access::Read, Check::Any),
    attr("subnets", Access::Read, Check::Any),
];

/// The smallest MTU that a network may have: what IPv4 requires.
const MIN_MTU: i64 = 68;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Network {
    pub(crate) standard: Standard,
    pub(crate) admin_state_up: bool,
    pub(crate) mtu: u16,
    pub(crate) port_security: bool,
    pub(crate) external: bool,
    pub(crate) shared: bool,
    is_default: bool,
    network_type: String,
    physical_network: Value,
    segmentation_id: Value,
    availability_zone_hints: Value,
    /// In the order in which they were made.
    pub(crate) subnets: Vec<Uuid>,
}

impl Resource for Network {
    const KIND: &'static Kind = &Kind {
        plural: "networks",
        singular: "network",
        attrs: ATTRS,
        tagged: true,
        not_found: |id| Error::not_found("NetworkNotFound", format!("Network {id} could not be found.")),
    };

    kept_in!(networks);

    fn attribute(&self, name: &str, _neutron: &Neutron) -> Option<Value> {
        Some(match name {
            "admin_state_up" => json!(self.admin_state_up),
            "availability_zone_hints" => self.availability_zone_hints.clone(),
            "availability_zones" => json!([]),
            "is_default" => json!(self.is_default),
            "mtu" => json!(self.mtu),
            "port_security_enabled" => json!(self.port_security),
            "provider:network_type" => json!(self.network_type),
            "provider:physical_network" => self.physical_network.clone(),
            "provider:segmentation_id" => self.segmentation_id.clone(),
            "router:external" => json!(self.external),
            "shared" => json!(self.shared),
            "status" => json!("ACTIVE"),
            "subnets" => json!(self.subnets),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let network_type = body.text("provider:network_type").unwrap_or("geneve").to_owned();
        let segmentation_id = match body.given("provider:segmentation_id") {
            Some(id) => id.clone(),
            None => json!(fastrand::u32(1..16_777_216)),
        };
        let mtu = mtu(body)?.unwrap_or(neutron.settings.mtu);
        let standard = Standard::new(caller, body);
        groups::default_group(neutron, &standard.project, caller.now);
        Ok(neutron.networks.insert(Self {
            standard,
            admin_state_up: body.boolean("admin_state_up").unwrap_or(true),
            mtu,
            port_security: body.boolean("port_security_enabled").unwrap_or(true),
            external: body.boolean("router:external").unwrap_or(false),
            shared: body.boolean("shared").unwrap_or(false),
            is_default: body.boolean("is_default").unwrap_or(false),
            network_type,
            physical_network: body.get("provider:physical_network").cloned().unwrap_or_default(),
            segmentation_id,
            availability_zone_hints: body.given("availability_zone_hints").cloned().unwrap_or_else(|| json!([])),
            subnets: Vec::new(),
        }))
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut network = neutron.networks.find(id)?.clone();
        let is_gateway = |port: &Uuid| neutron.ports.get(*port).is_some_and(|port| port.device_owner == ROUTER_GATEWAY);
        if body.boolean("router:external") == Some(false) && neutron.port_index.on_network(id).iter().any(is_gateway) {
            let message = format!(
                "External network {id} cannot be updated to be made non-external, since it has existing gateway ports."
            );
            return Err(Error::conflict("ExternalNetworkInUse", message));
        }
        network.standard.update(body);
        body.set_bool("admin_state_up", &mut network.admin_state_up);
        body.set_bool("port_security_enabled", &mut network.port_security);
        body.set_bool("router:external", &mut network.external);
        body.set_bool("shared", &mut network.shared);
        body.set_bool("is_default", &mut network.is_default);
        if let Some(mtu) = mtu(body)? {
            network.mtu = mtu;
        }
        neutron.networks.replace(network, caller.now);
        Ok(())
    }

    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()> {
        let idle = floating_ips::idle_of(neutron, id);
        let goes = |port: &Uuid| {
            neutron.ports.get(*port).is_some_and(|port| {
                port.is_of_the_network() || idle.iter().any(|floating| floating.to_string() == port.device_id)
            })
        };
        let (own, others): (Vec<Uuid>, Vec<Uuid>) = neutron.port_index.on_network(id).into_iter().partition(goes);
        if !others.is_empty() {
            let ids: Vec<String> = others.iter().map(Uuid::to_string).collect();
            let message = format!(
                "Unable to complete operation on network {id}. There are one or more ports still in use on the network, \
                 id for these ports is: {}.",
                ids.join(",")
            );
            return Err(Error::conflict("NetworkInUse", message));
        }
        for floating in idle {
            FloatingIp::delete(neutron, caller, floating)?;
        }
        for port in own {
            ports::remove(neutron, port, caller.now);
        }
        if let Some(network) = neutron.networks.remove(id) {
            for subnet in network.subnets {
                neutron.subnets.remove(subnet);
                neutron.allocators.remove(&subnet);
            }
        }
        Ok(())
    }
}

fn mtu(body: &Body) -> Result<Option<u16>> {
    match body.int("mtu") {
        None | Some(0) => Ok(None),
        Some(n) if n < MIN_MTU => {
            Err(Error::attribute("mtu", format!("'{n}' is too small - must be at least '{MIN_MTU}'")))
        }
        Some(n) => u16::try_from(n)
            .map(Some)
            .map_err(|_| Error::invalid(format!("Requested MTU is too big, maximum is {}", u16::MAX))),
    }
}
