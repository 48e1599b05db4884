//! Trunks and their subports.

use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Access, Attr, Body, Check, Kind, attr, shown};
use super::binding::Binding;
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

/// `device_owner` of subports.
const SUBPORT: &str = "trunk:subport";

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
            "status" => json!("ACTIVE"),
            "sub_ports" => self.subports.iter().map(Subport::json).collect(),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let parent = body.uuid("port_id").unwrap_or_default();
        neutron.ports.find(parent)?;
        check_free(neutron, parent)?;
        let mut trunk = Self {
            standard: Standard::new(caller, body),
            admin_state_up: body.boolean("admin_state_up").unwrap_or(true),
            parent,
            subports: Vec::new(),
        };
        trunk.subports = read(neutron, &trunk, body.list("sub_ports").unwrap_or_default())?;
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

fn check_free(neutron: &Neutron, port: Uuid) -> Result<()> {
    match trunk_of(neutron, port) {
        None => Ok(()),
        Some(_) => Err(Error::conflict("TrunkPortInUse", format!("Port {port} is in use by another trunk."))),
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

/// Reads and checks subports that are to be added to a trunk.
fn read(neutron: &Neutron, trunk: &Trunk, list: &[Value]) -> Result<Vec<Subport>> {
    let mut added: Vec<Subport> = Vec::new();
    for item in list {
        let port = item["port_id"].as_str().and_then(|text| Uuid::try_parse(text).ok());
        let port = port.ok_or_else(|| Error::invalid(format!("'{}' is not a valid UUID", shown(&item["port_id"]))))?;
        let kind = item["segmentation_type"].as_str().unwrap_or("vlan");
        let id = shown(&item["segmentation_id"]).parse::<u16>().ok().filter(|id| (1..=4094).contains(id));
        let Some(segmentation_id) = id else {
            return Err(Error::invalid(format!("Invalid VLAN ID: {}", shown(&item["segmentation_id"]))));
        };
        neutron.ports.find(port)?;
        if port == trunk.parent || added.iter().any(|sub| sub.port == port) {
            return Err(Error::conflict("TrunkPortInUse", format!("Port {port} is in use by another trunk.")));
        }
        check_free(neutron, port)?;
        if trunk.subports.iter().chain(&added).any(|sub| sub.segmentation_id == segmentation_id) {
            let message = format!(
                "segmentation_type {kind} and segmentation_id {segmentation_id} already in use on trunk {}.",
                trunk.standard.id
            );
            return Err(Error::conflict("DuplicateSubPort", message));
        }
        added.push(Subport { port, segmentation_type: kind.to_owned(), segmentation_id });
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

fn sub_ports(call: &Call) -> Result<Vec<Value>> {
    let mut body = json_object(call)?;
    match body.remove("sub_ports") {
        Some(Value::Array(list)) => Ok(list),
        _ => Err(Error::invalid("Invalid data format for subports: 'sub_ports' is missing or is not a list")),
    }
}

fn shown_trunk(neutron: &Neutron, id: Uuid) -> Result<Answer> {
    Ok(Answer::new(StatusCode::OK, render(neutron, neutron.trunks.find(id)?, &[])))
}

pub(crate) fn add_subports(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    let id = id_of::<Trunk>(neutron, id)?;
    let mut trunk = neutron.trunks.find(id)?.clone();
    let added = read(neutron, &trunk, &sub_ports(call)?)?;
    let parent = trunk.parent;
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
    let mut removed = Vec::new();
    for item in sub_ports(call)? {
        let at = trunk.subports.iter().position(|sub| item["port_id"].as_str() == Some(&sub.port.to_string()));
        let Some(at) = at else {
            let message = format!("SubPort on trunk {id} with parent port {} could not be found.", trunk.parent);
            return Err(Error::not_found("SubPortNotFound", message));
        };
        removed.push(trunk.subports.remove(at).port);
    }
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
