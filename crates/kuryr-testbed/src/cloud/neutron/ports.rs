//! Ports.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::addresses::{self, FixedIp};
use super::attrs::{Access, Attr, Body, Check, Kind, attr};
use super::binding::Binding;
use super::error::{Error, Result};
use super::port_checks::{self, AddressPair};
use super::query::Filters;
use super::resource::{Caller, Resource, Standard, kept_in};
use super::{Neutron, floating_ips, groups, trunks};

const VNIC_TYPES: &[&str] =
    &["baremetal", "direct", "direct-physical", "macvtap", "normal", "smart-nic", "virtio-forwarder"];

const ATTRS: &[Attr] = &[
    attr("name", Access::Write, Check::Text(255)),
    attr("tags", Access::Create, Check::Tags),
    attr("admin_state_up", Access::Write, Check::Bool),
    attr("allowed_address_pairs", Access::Write, Check::List),
    attr("binding:host_id", Access::Write, Check::Any),
    attr("binding:profile", Access::Write, Check::Dict),
    attr("binding:vif_details", Access::Read, Check::Any),
    attr("binding:vif_type", Access::Read, Check::Any),
    attr("binding:vnic_type", Access::Write, Check::OneOf(VNIC_TYPES)),
    attr("device_id", Access::Write, Check::Text(255)),
    attr("device_owner", Access::Write, Check::Text(255)),
    attr("fixed_ips", Access::Write, Check::List),
    attr("mac_address", Access::Write, Check::Mac),
    attr("network_id", Access::Required, Check::Uuid),
    attr("port_security_enabled", Access::Write, Check::Bool),
    attr("security_groups", Access::Write, Check::UuidList),
    attr("status", Access::Read, Check::Any),
];

/// Owners whose ports only the L3 plugin deletes.
pub(crate) const ROUTER_INTERFACE: &str = "network:router_interface";
pub(crate) const ROUTER_GATEWAY: &str = "network:router_gateway";
pub(crate) const FLOATING_IP: &str = "network:floatingip";

/// Owners whose ports Neutron makes for a network, and deletes with it.
const OF_THE_NETWORK: [&str; 2] = ["network:dhcp", "network:distributed"];

/// Whether a port's traffic flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortStatus {
    /// The data plane serves it.
    Active,
    /// The data plane does not serve it.
    Down,
}

impl PortStatus {
    fn text(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Down => "DOWN",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Port {
    pub(crate) standard: Standard,
    pub(crate) network: Uuid,
    pub(crate) mac: String,
    pub(crate) fixed_ips: Vec<FixedIp>,
    pub(crate) admin_state_up: bool,
    pub(crate) status: PortStatus,
    pub(crate) device_id: String,
    pub(crate) device_owner: String,
    pub(crate) host: String,
    pub(crate) vnic_type: String,
    pub(crate) profile: Value,
    pub(crate) binding: Binding,
    pub(crate) groups: Vec<Uuid>,
    pub(crate) port_security: bool,
    pub(crate) pairs: Vec<AddressPair>,
}

impl Port {
    pub(crate) fn is_router_port(&self) -> bool {
        self.device_owner == ROUTER_INTERFACE || self.device_owner == ROUTER_GATEWAY
    }

    /// Whether the port goes with its network and its addresses go with their subnets.
    pub(crate) fn is_of_the_network(&self) -> bool {
        OF_THE_NETWORK.contains(&self.device_owner.as_str())
    }
}

/// Finds ports by what others refer to them by.
#[derive(Debug, Default)]
pub(crate) struct PortIndex {
    by_network: HashMap<Uuid, BTreeSet<Uuid>>,
    by_group: HashMap<Uuid, BTreeSet<Uuid>>,
    by_device: HashMap<String, BTreeSet<Uuid>>,
    macs: HashSet<(Uuid, String)>,
}

impl PortIndex {
    pub(crate) fn on_network(&self, network: Uuid) -> BTreeSet<Uuid> {
        self.by_network.get(&network).cloned().unwrap_or_default()
    }

    pub(crate) fn of_device(&self, device: &str) -> BTreeSet<Uuid> {
        self.by_device.get(device).cloned().unwrap_or_default()
    }

    pub(crate) fn uses_group(&self, group: Uuid) -> bool {
        self.by_group.get(&group).is_some_and(|ports| !ports.is_empty())
    }

    pub(crate) fn has_mac(&self, network: Uuid, mac: &str) -> bool {
        self.macs.contains(&(network, mac.to_owned()))
    }

    fn add(&mut self, port: &Port) {
        let id = port.standard.id;
        self.by_network.entry(port.network).or_default().insert(id);
        self.by_device.entry(port.device_id.clone()).or_default().insert(id);
        self.macs.insert((port.network, port.mac.clone()));
        for &group in &port.groups {
            self.by_group.entry(group).or_default().insert(id);
        }
    }

    fn remove(&mut self, port: &Port) {
        let id = port.standard.id;
        drop_from(&mut self.by_network, &port.network, id);
        drop_from(&mut self.by_device, &port.device_id, id);
        self.macs.remove(&(port.network, port.mac.clone()));
        for group in &port.groups {
            drop_from(&mut self.by_group, group, id);
        }
    }
}

fn drop_from<K: Eq + std::hash::Hash>(index: &mut HashMap<K, BTreeSet<Uuid>>, key: &K, id: Uuid) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

impl Resource for Port {
    const KIND: &'static Kind = &Kind {
        plural: "ports",
        singular: "port",
        attrs: ATTRS,
        tagged: true,
        not_found: |id| Error::not_found("PortNotFound", format!("Port {id} could not be found.")),
    };

    kept_in!(ports);

    fn attribute(&self, name: &str, _neutron: &Neutron) -> Option<Value> {
        Some(match name {
            "admin_state_up" => json!(self.admin_state_up),
            "allowed_address_pairs" => self.pairs.iter().map(AddressPair::json).collect(),
            "binding:host_id" => json!(self.host),
            "binding:profile" => self.profile.clone(),
            "binding:vif_details" => self.binding.vif_details(),
            "binding:vif_type" => json!(self.binding.vif_type()),
            "binding:vnic_type" => json!(self.vnic_type),
            "device_id" => json!(self.device_id),
            "device_owner" => json!(self.device_owner),
            "fixed_ips" => self.fixed_ips.iter().map(FixedIp::json).collect(),
            "mac_address" => json!(self.mac),
            "network_id" => json!(self.network),
            "port_security_enabled" => json!(self.port_security),
            "security_groups" => json!(self.groups),
            "status" => json!(self.status.text()),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let network = neutron.networks.find(body.uuid("network_id").unwrap_or_default())?;
        let (network, secured) = (network.standard.id, network.port_security);
        let mut standard = Standard::new(caller, body);
        if neutron.settings.drops_port_tags {
            standard.tags.clear();
        }
        let device_owner = body.text("device_owner").unwrap_or_default().to_owned();
        let mac = port_checks::mac(neutron, network, body.text("mac_address"))?;
        let port_security = body.boolean("port_security_enabled").unwrap_or(secured);
        let default = port_security && !device_owner.starts_with("network:");
        let groups = match port_checks::groups(neutron, body)? {
            Some(groups) => groups,
            None if default => vec![groups::default_group(neutron, &standard.project, caller.now)],
            None => Vec::new(),
        };
        let mut port = Self {
            network,
            fixed_ips: Vec::new(),
            admin_state_up: body.boolean("admin_state_up").unwrap_or(true),
            status: PortStatus::Down,
            device_id: body.text("device_id").unwrap_or_default().to_owned(),
            device_owner,
            host: host(body)?.unwrap_or_default(),
            vnic_type: body.text("binding:vnic_type").unwrap_or("normal").to_owned(),
            profile: body.given("binding:profile").cloned().unwrap_or_else(|| Value::Object(Map::new())),
            binding: Binding::Unbound,
            groups,
            port_security,
            pairs: port_checks::pairs(body, &mac)?.unwrap_or_default(),
            standard,
            mac,
        };
        port.binding = bind(neutron, &port);
        port_checks::port_security(&port, body)?;
        let requests = body.list("fixed_ips").map(addresses::read).transpose()?;
        port.fixed_ips = addresses::allocate(neutron, network, requests.as_deref(), &port.mac, port.is_router_port())?;
        Ok(insert(neutron, port))
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let old = neutron.ports.find(id)?.clone();
        let mut port = old.clone();
        port.standard.update(body);
        body.set_bool("admin_state_up", &mut port.admin_state_up);
        body.set_bool("port_security_enabled", &mut port.port_security);
        body.set_text("device_id", &mut port.device_id);
        body.set_text("device_owner", &mut port.device_owner);
        body.set_text("binding:vnic_type", &mut port.vnic_type);
        if let Some(profile) = body.get("binding:profile") {
            port.profile = if profile.is_null() { Value::Object(Map::new()) } else { profile.clone() };
        }
        if let Some(groups) = port_checks::groups(neutron, body)? {
            port.groups = groups;
        }
        if let Some(mac) = body.text("mac_address").filter(|mac| *mac != old.mac) {
            if old.binding.is_bound() {
                let message = format!(
                    "Unable to complete operation on port {id}, port is already bound, port type: {}, old_mac {}, new_mac {mac}.",
                    old.binding.vif_type(),
                    old.mac
                );
                return Err(Error::conflict("PortBound", message));
            }
            port.mac = port_checks::mac(neutron, port.network, Some(mac))?;
        }
        if let Some(pairs) = port_checks::pairs(body, &port.mac)? {
            port.pairs = pairs;
        }
        port_checks::port_security(&port, body)?;
        if let Some(host) = host(body)? {
            port.host = host;
        }
        let rebind = (&port.host, &port.profile, &port.vnic_type) != (&old.host, &old.profile, &old.vnic_type);
        if rebind && old.binding != Binding::Subport {
            port.status = PortStatus::Down;
        }
        // A binding that failed is tried again with every update.
        if (rebind || old.binding == Binding::Failed) && old.binding != Binding::Subport {
            port.binding = bind(neutron, &port);
        }
        if let Some(list) = body.list("fixed_ips") {
            let requests = addresses::read(list)?;
            port.fixed_ips = addresses::change(neutron, &old, &requests, &port.mac)?;
            addresses::release(neutron, &old.fixed_ips, &port.fixed_ips);
        }
        let unbound = port.binding == Binding::Unbound && old.binding != Binding::Unbound;
        let status = (port.status != old.status).then_some(port.status);
        store(neutron, port, caller.now);
        if unbound {
            trunks::parent_unbound(neutron, id, caller.now);
        }
        if let Some(status) = status {
            trunks::follow(neutron, id, status, caller.now);
        }
        Ok(())
    }

    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()> {
        let port = neutron.ports.find(id)?;
        if port.is_router_port() || port.device_owner == FLOATING_IP {
            let message = format!(
                "Port {id} cannot be deleted directly via the port API: has device owner {}.",
                port.device_owner
            );
            return Err(Error::conflict("ServicePortInUse", message));
        }
        trunks::check_port_unused(neutron, id)?;
        remove(neutron, id, caller.now);
        Ok(())
    }

    /// ML2 takes the addresses of a whole bulk before it begins its transaction. When there are too few, nobody gives back
    /// those that it took.
    fn undo_create(neutron: &mut Neutron, caller: &Caller, id: Uuid, error: &Error) -> Result<()> {
        let taken = neutron.ports.find(id)?.fixed_ips.clone();
        Self::delete(neutron, caller, id)?;
        if error.kind == "IpAddressGenerationFailure" {
            addresses::lose(neutron, &taken);
        }
        Ok(())
    }

    fn candidates(neutron: &Neutron, filters: &Filters) -> Option<BTreeSet<Uuid>> {
        if let Some(devices) = filters.values.get("device_id") {
            return Some(devices.iter().flat_map(|device| neutron.port_index.of_device(device)).collect());
        }
        // A tag is the better index where there is one.
        if !filters.tags.is_empty() {
            return None;
        }
        let networks = filters.ids("network_id")?;
        Some(networks.into_iter().flat_map(|network| neutron.port_index.on_network(network)).collect())
    }
}

fn host(body: &Body) -> Result<Option<String>> {
    match body.get("binding:host_id") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(String::new())),
        Some(Value::String(host)) => Ok(Some(host.clone())),
        Some(_) => Err(Error::attribute("binding:host_id", "not a valid string")),
    }
}

fn bind(neutron: &Neutron, port: &Port) -> Binding {
    if port.is_router_port() {
        return Binding::Distributed;
    }
    if port.host.is_empty() {
        return Binding::Unbound;
    }
    neutron.hosts.get(&port.host).map_or(Binding::Failed, |&kind| Binding::Bound(kind))
}

/// Adds a port whose addresses are taken already.
pub(crate) fn insert(neutron: &mut Neutron, port: Port) -> Uuid {
    neutron.port_index.add(&port);
    neutron.ports.insert(port)
}

/// Puts a changed port in place of the old one.
pub(crate) fn store(neutron: &mut Neutron, port: Port, now: Timestamp) {
    if let Some(old) = neutron.ports.get(port.standard.id) {
        neutron.port_index.remove(old);
        neutron.port_index.add(&port);
        neutron.ports.replace(port, now);
    }
}

/// Removes a port, whatever it is for, gives its addresses back and parts it from its floating IPs.
pub(crate) fn remove(neutron: &mut Neutron, id: Uuid, now: Timestamp) {
    floating_ips::part_from(neutron, id, now);
    if let Some(port) = neutron.ports.remove(id) {
        neutron.port_index.remove(&port);
        addresses::release(neutron, &port.fixed_ips, &[]);
    }
}

/// A port that the L3 plugin makes, for a router unless the caller changes its binding.
pub(crate) fn l3_port(
    caller: &Caller,
    project: &str,
    network: Uuid,
    device: Uuid,
    owner: &str,
    mac: String,
    fixed_ips: Vec<FixedIp>,
) -> Port {
    let mut standard = Standard::new(caller, &Body::default());
    project.clone_into(&mut standard.project);
    Port {
        standard,
        network,
        mac,
        fixed_ips,
        admin_state_up: true,
        status: PortStatus::Active,
        device_id: device.to_string(),
        device_owner: owner.to_owned(),
        host: String::new(),
        vnic_type: "normal".into(),
        profile: Value::Object(Map::new()),
        binding: Binding::Distributed,
        groups: Vec::new(),
        port_security: false,
        pairs: Vec::new(),
    }
}

impl Neutron {
    /// What the data plane says of a port. False when there is no such port.
    pub(crate) fn set_port_status(&mut self, id: Uuid, status: PortStatus, now: Timestamp) -> bool {
        let Some(mut port) = self.ports.get(id).cloned() else { return false };
        port.status = status;
        self.ports.replace(port, now);
        trunks::follow(self, id, status, now);
        true
    }
}
