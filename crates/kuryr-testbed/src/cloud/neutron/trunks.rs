//! Trunks and their subports.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Access, Attr, Body, Check, Kind, attr, shown};
use super::binding::{Binding, HostKind};
use super::error::{Error, Result};
use super::ports;
use super::resource::{Caller, Resource, Standard, kept_in};
use super::verbs::{id_of, json_object, render};
use crate::cloud::http::{Answer, Call};

const ATTRS: &[Attr] = &[
    attr("name", Access::Write, Check::Text(255)),
    attr("tags", Access::Read, Check::Any),
    attr("admin_state_up", Access::Write, Check::Bool),
    attr("port_id", Access::Required, Check::Uuid),
    attr("status", Access::Read, Check::Any),
    attr("sub_ports", Access::Create, Check::List),
];

/// `max` of a VLAN id, IEEE 802.1Q.
const MAX_VLAN: i64 = 4094;

/// `device_owner` of subports.
const SUBPORT: &str = "trunk:subport";

/// What the driver of a trunk says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkStatus {
    /// All is well.
    Active,
    /// Its parent is bound nowhere, or nobody has looked since the last change.
    Down,
    /// Being wired.
    Build,
    /// Some subports do not work.
    Degraded,
    /// It takes no more subports until some are removed.
    Error,
}

impl TrunkStatus {
    fn text(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Down => "DOWN",
            Self::Build => "BUILD",
            Self::Degraded => "DEGRADED",
            Self::Error => "ERROR",
        }
    }
}

/// A port on a trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subport {
    pub(crate) port: Uuid,
    /// `vlan`, or `inherit`, which is read as `vlan`.
    segmentation_type: String,
    pub(crate) segmentation_id: u16,
}

impl Subport {
    fn json(&self) -> Value {
        json!({
            "port_id": self.port, "segmentation_type": self.segmentation_type, "segmentation_id": self.segmentation_id,
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trunk {
    pub(crate) standard: Standard,
    admin_state_up: bool,
    pub(crate) parent: Uuid,
    pub(crate) subports: Vec<Subport>,
    /// What its driver has said last.
    pub(crate) status: TrunkStatus,
}

impl Trunk {
    /// Nothing but its name and whether it is on can be changed of one that is off.
    fn check_on(&self) -> Result<()> {
        if self.admin_state_up {
            return Ok(());
        }
        Err(Error::conflict("TrunkDisabled", format!("Trunk {} is currently disabled.", self.standard.id)))
    }
}

impl Resource for Trunk {
    const KIND: &'static Kind = &Kind {
        plural: "trunks",
        singular: "trunk",
        attrs: ATTRS,
        tagged: true,
        not_found: |id| Error::not_found("TrunkNotFound", format!("Trunk {id} could not be found.")),
    };

    kept_in!(trunks);

    fn attribute(&self, name: &str, _neutron: &Neutron) -> Option<Value> {
        Some(match name {
            "admin_state_up" => json!(self.admin_state_up),
            "port_id" => json!(self.parent),
            "status" => json!(self.status.text()),
            "sub_ports" => self.subports.iter().map(Subport::json).collect(),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let parent = body.uuid("port_id").unwrap_or_default();
        let list = body.list("sub_ports").unwrap_or_default();
        check_list(list).map_err(|reason| Error::attribute("sub_ports", reason))?;
        check_no_trunk(neutron, parent)?;
        check_parent(neutron, parent)?;
        let mut trunk = Self {
            standard: Standard::new(caller, body),
            admin_state_up: body.boolean("admin_state_up").unwrap_or(true),
            parent,
            subports: Vec::new(),
            status: TrunkStatus::Active,
        };
        trunk.subports = read(neutron, &trunk, list)?;
        let added = trunk.subports.clone();
        let id = neutron.trunks.insert(trunk);
        for subport in &added {
            attach(neutron, caller, parent, subport);
        }
        Ok(id)
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut trunk = neutron.trunks.find(id)?.clone();
        trunk.standard.update(body);
        body.set_bool("admin_state_up", &mut trunk.admin_state_up);
        neutron.trunks.replace(trunk, caller.now);
        Ok(())
    }

    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()> {
        neutron.trunks.find(id)?.check_on()?;
        if let Some(trunk) = neutron.trunks.remove(id) {
            for subport in &trunk.subports {
                detach(neutron, caller, subport.port);
            }
        }
        Ok(())
    }
}

/// The trunk on which a port is, as parent or subport.
fn trunk_of(neutron: &Neutron, port: Uuid) -> Option<&Trunk> {
    neutron.trunks.iter().find(|trunk| trunk.parent == port || trunk.subports.iter().any(|sub| sub.port == port))
}

/// No trunk has the port, neither as a subport nor as its parent.
fn check_no_trunk(neutron: &Neutron, port: Uuid) -> Result<()> {
    match trunk_of(neutron, port) {
        None => Ok(()),
        Some(trunk) if trunk.parent == port => Err(not_eligible(port)),
        Some(_) => Err(Error::conflict("TrunkPortInUse", format!("Port {port} is in use by another trunk."))),
    }
}

fn not_eligible(port: Uuid) -> Error {
    let message = format!("Port {port} is currently in use and is not eligible for use as a parent port.");
    Error::conflict("ParentPortInUse", message)
}

/// A port that is bound can become a parent where its host's driver knows trunks; one that is not always can.
fn check_parent(neutron: &Neutron, port: Uuid) -> Result<()> {
    let found = neutron.ports.find(port)?;
    match found.binding {
        // These go without asking whether a trunk has them.
        _ if found.device_owner == ports::FLOATING_IP => Err(not_eligible(port)),
        Binding::Unbound | Binding::Bound(HostKind::Ovs | HostKind::Bridge) => Ok(()),
        Binding::Bound(HostKind::Tap) | Binding::Failed | Binding::Subport | Binding::Distributed => {
            Err(not_eligible(port))
        }
    }
}

/// A port on a trunk cannot be deleted.
pub(crate) fn check_port_unused(neutron: &Neutron, port: Uuid) -> Result<()> {
    match trunk_of(neutron, port) {
        None => Ok(()),
        Some(trunk) if trunk.parent == port => Err(Error::conflict(
            "PortInUseAsTrunkParent",
            format!("Port {port} is currently a parent port for trunk {}.", trunk.standard.id),
        )),
        Some(trunk) => Err(Error::conflict(
            "PortInUseAsSubPort",
            format!("Port {port} is currently a subport for trunk {}.", trunk.standard.id),
        )),
    }
}

/// What the API's own layer says of a list of subports: the reason why it is refused.
fn check_list(list: &[Value]) -> std::result::Result<(), String> {
    let (mut ports, mut segments) = (BTreeSet::new(), BTreeSet::new());
    for item in list {
        let Some(fields) = item.as_object() else {
            return Err(format!("Invalid data format for subport: '{}' is not a dict", shown(item)));
        };
        let Some(port) = fields.get("port_id") else {
            return Err("A valid port UUID must be specified".to_owned());
        };
        let Some(id) = port.as_str().and_then(|text| Uuid::try_parse(text).ok()) else {
            return Err(format!("Invalid UUID for subport: '{}'", shown(port)));
        };
        if !ports.insert(id) {
            return Err(format!("Non unique UUID for subport: '{id}'"));
        }
        let kind = item["segmentation_type"].as_str().filter(|kind| !kind.is_empty());
        let segment = &item["segmentation_id"];
        if (kind.is_none() || segment.is_null()) && fields.len() > 1 {
            return Err(format!(
                "Invalid subport details '{item}': missing segmentation information. Must specify both segmentation_id and segmentation_type"
            ));
        }
        if !segment.is_null() && !segments.insert((kind, shown(segment))) {
            return Err(format!("Segmentation ID '{}' for '{id}' is not unique", shown(segment)));
        }
    }
    Ok(())
}

/// Reads and checks subports that are to be added to a trunk, in the trunk plugin's order.
fn read(neutron: &Neutron, trunk: &Trunk, list: &[Value]) -> Result<Vec<Subport>> {
    let mtu = |port: Uuid| Some(neutron.networks.get(neutron.ports.get(port)?.network)?.mtu);
    let mut added: Vec<Subport> = Vec::new();
    for item in list {
        let port = item["port_id"].as_str().and_then(|text| Uuid::try_parse(text).ok()).unwrap_or_default();
        if port == trunk.parent {
            return Err(not_eligible(port));
        }
        if let (Some(own), Some(most)) = (mtu(port), mtu(trunk.parent))
            && own > most
        {
            // The id of the parent is what Neutron gives as the trunk's.
            let message =
                format!("MTU {own} of subport {port} cannot be greater than MTU {most} of trunk {}.", trunk.parent);
            return Err(Error::conflict("SubPortMtuGreaterThanTrunkPortMtu", message));
        }
        let (kind, segment) = (&item["segmentation_type"], &item["segmentation_id"]);
        if kind.is_null() || segment.is_null() {
            return Err(Error::invalid(format!(
                "Invalid subport details '{item}': missing segmentation information. Must specify both segmentation_id and segmentation_type"
            )));
        }
        let Ok(number) = shown(segment).parse::<i64>() else {
            let what = format!("Invalid subport details: segmentation_id '{}' is not an integer", shown(segment));
            return Err(Error::invalid(what));
        };
        if kind.as_str() != Some("vlan") {
            return Err(Error::invalid(format!("Unknown segmentation_type '{}'", shown(kind))));
        }
        let Some(segmentation_id) = u16::try_from(number).ok().filter(|_| (1..=MAX_VLAN).contains(&number)) else {
            return Err(Error::invalid(format!("Segmentation ID '{number}' is not in range")));
        };
        check_no_trunk(neutron, port)?;
        let owned = neutron.ports.find(port)?;
        if !owned.device_id.is_empty() {
            let message = format!(
                "Unable to complete operation on port {port} for network {}. Port already has an attached device {}.",
                owned.network, owned.device_id
            );
            return Err(Error::conflict("PortInUse", message));
        }
        added.push(Subport { port, segmentation_type: "vlan".to_owned(), segmentation_id });
    }
    // The database sees this, when all else was found good.
    for subport in &added {
        let Subport { segmentation_type, segmentation_id, .. } = subport;
        if trunk.subports.iter().any(|other| other.segmentation_id == *segmentation_id) {
            let message = format!(
                "segmentation_type {segmentation_type} and segmentation_id {segmentation_id} already in use on trunk {}.",
                trunk.standard.id
            );
            return Err(Error::conflict("DuplicateSubPort", message));
        }
    }
    Ok(added)
}

/// A subport has its parent's host and status.
fn attach(neutron: &mut Neutron, caller: &Caller, parent: Uuid, subport: &Subport) {
    let Some(parent) = neutron.ports.get(parent) else { return };
    let (host, status) = (parent.host.clone(), parent.status);
    let profile = json!({ "parent_name": parent.standard.id, "tag": subport.segmentation_id });
    if let Some(mut port) = neutron.ports.get(subport.port).cloned() {
        port.device_owner = SUBPORT.to_owned();
        port.host = host;
        port.status = status;
        port.profile = profile;
        port.binding = Binding::Subport;
        ports::store(neutron, port, caller.now);
    }
}

fn detach(neutron: &mut Neutron, caller: &Caller, port: Uuid) {
    if let Some(mut port) = neutron.ports.get(port).cloned() {
        port.device_owner.clear();
        port.host.clear();
        port.status = ports::PortStatus::Down;
        port.profile = json!({});
        port.binding = Binding::Unbound;
        ports::store(neutron, port, caller.now);
    }
}

/// A parent's state is its subports', too.
pub(crate) fn follow(neutron: &mut Neutron, parent: Uuid, status: ports::PortStatus, now: Timestamp) {
    let Some(trunk) = neutron.trunks.iter().find(|trunk| trunk.parent == parent) else { return };
    let subports: Vec<Uuid> = trunk.subports.iter().map(|subport| subport.port).collect();
    for port in subports {
        if let Some(mut port) = neutron.ports.get(port).cloned() {
            port.status = status;
            neutron.ports.replace(port, now);
        }
    }
}

/// A parent that is bound no more takes its trunk down.
pub(crate) fn parent_unbound(neutron: &mut Neutron, parent: Uuid, now: Timestamp) {
    let found = neutron.trunks.iter().find(|trunk| trunk.parent == parent).cloned();
    if let Some(trunk) = found {
        neutron.trunks.replace(Trunk { status: TrunkStatus::Down, ..trunk }, now);
    }
}

fn sub_ports(call: &Call) -> Result<Vec<Value>> {
    let mut body = json_object(call)?;
    let list = match body.remove("sub_ports") {
        Some(Value::Array(list)) => list,
        other => {
            let other = other.unwrap_or_default();
            return Err(Error::invalid(format!("Invalid data format for subports: '{}' is not a list", shown(&other))));
        }
    };
    check_list(&list).map_err(Error::invalid)?;
    Ok(list)
}

fn shown_trunk(neutron: &Neutron, id: Uuid) -> Result<Answer> {
    Ok(Answer::new(StatusCode::OK, render(neutron, neutron.trunks.find(id)?, &[])))
}

pub(crate) fn add_subports(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    let id = id_of::<Trunk>(neutron, id)?;
    let mut trunk = neutron.trunks.find(id)?.clone();
    let list = sub_ports(call)?;
    // The trunk's own state is looked at after the subports, and before the database finds ids in use.
    let added = read(neutron, &trunk, &list);
    if added.as_ref().err().is_none_or(|error| error.kind == "DuplicateSubPort") {
        trunk.check_on()?;
        if trunk.status == TrunkStatus::Error {
            let message =
                format!("Trunk {id} is in error state. Attempt to resolve the error condition before proceeding.");
            return Err(Error::conflict("TrunkInErrorState", message));
        }
    }
    let added = added?;
    let parent = trunk.parent;
    // Its driver makes it ACTIVE again when it has something to do.
    trunk.status = if added.is_empty() { TrunkStatus::Down } else { TrunkStatus::Active };
    trunk.subports.extend(added.iter().cloned());
    neutron.trunks.replace(trunk, caller.now);
    for subport in &added {
        attach(neutron, caller, parent, subport);
    }
    shown_trunk(neutron, id)
}

pub(crate) fn remove_subports(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    let id = id_of::<Trunk>(neutron, id)?;
    let mut trunk = neutron.trunks.find(id)?.clone();
    trunk.check_on()?;
    let mut removed = Vec::new();
    for item in sub_ports(call)? {
        let port = item["port_id"].as_str().and_then(|text| Uuid::try_parse(text).ok()).unwrap_or_default();
        let Some(at) = trunk.subports.iter().position(|subport| subport.port == port) else {
            let message = format!("SubPort on trunk {id} with parent port {port} could not be found.");
            return Err(Error::not_found("SubPortNotFound", message));
        };
        removed.push(trunk.subports.remove(at).port);
    }
    trunk.status = if removed.is_empty() { TrunkStatus::Down } else { TrunkStatus::Active };
    neutron.trunks.replace(trunk, caller.now);
    for port in removed {
        detach(neutron, caller, port);
    }
    shown_trunk(neutron, id)
}

pub(crate) fn get_subports(neutron: &Neutron, id: &str) -> Result<Answer> {
    let id = id_of::<Trunk>(neutron, id)?;
    let list: Vec<Value> = neutron.trunks.find(id)?.subports.iter().map(Subport::json).collect();
    Ok(Answer::ok(json!({ "sub_ports": list })))
}

impl Neutron {
    /// What the driver says of a trunk. False when there is no such trunk.
    pub(crate) fn set_trunk_status(&mut self, id: Uuid, status: TrunkStatus, now: Timestamp) -> bool {
        let Some(mut trunk) = self.trunks.get(id).cloned() else { return false };
        trunk.status = status;
        self.trunks.replace(trunk, now);
        true
    }
}
