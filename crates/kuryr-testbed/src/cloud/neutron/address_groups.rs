//! Address groups: named lists of networks, for rules of security groups to name as their other side.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Access, Attr, Body, Check, Kind, attr, shown, shown_list};
use super::error::{Error, Result};
use super::group_rules::Rule;
use super::resource::{Caller, Resource, Standard, kept_in};
use super::verbs::{check_revision, id_of, json_object, render};
use crate::cloud::http::{Answer, Call};

const ATTRS: &[Attr] = &[attr("name", Access::Write, Check::Text(255)), attr("addresses", Access::Create, Check::List)];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AddressGroup {
    pub(crate) standard: Standard,
    pub(crate) addresses: BTreeSet<IpNet>,
}

impl Resource for AddressGroup {
    const KIND: &'static Kind = &Kind {
        plural: "address_groups",
        singular: "address_group",
        attrs: ATTRS,
        tagged: false,
        not_found: |id| Error::not_found("AddressGroupNotFound", format!("Address group {id} could not be found.")),
    };

    kept_in!(address_groups);

    fn attribute(&self, name: &str, _neutron: &Neutron) -> Option<Value> {
        (name == "addresses").then(|| json!(self.addresses))
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let addresses = body.list("addresses").map(networks).transpose()?.unwrap_or_default();
        Ok(neutron.address_groups.insert(Self { standard: Standard::new(caller, body), addresses }))
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut group = neutron.address_groups.find(id)?.clone();
        group.standard.update(body);
        neutron.address_groups.replace(group, caller.now);
        Ok(())
    }

    fn delete(neutron: &mut Neutron, _caller: &Caller, id: Uuid) -> Result<()> {
        if neutron.rules.iter().any(|rule| rule.spec.address_group == Some(id)) {
            let message = format!("Address group {id} is in use on one or more security group rules.");
            return Err(Error::conflict("AddressGroupInUse", message));
        }
        neutron.address_groups.remove(id);
        Ok(())
    }
}

/// Makes an address group, and a rule of a security group for IPv4 that admits it.
pub(crate) fn admit(neutron: &mut Neutron, caller: &Caller, group: Uuid, addresses: &[IpNet]) -> Result<()> {
    let body =
        |kind: &Kind, attributes: Value| Body::of_create(kind, attributes.as_object().cloned().unwrap_or_default());
    let addresses = body(AddressGroup::KIND, json!({ "name": "admitted", "addresses": addresses }))?;
    let addresses = AddressGroup::create(neutron, caller, &addresses)?;
    let rule = json!({ "security_group_id": group, "direction": "ingress", "remote_address_group_id": addresses });
    Rule::create(neutron, caller, &body(Rule::KIND, rule)?).map(drop)
}

fn networks(items: &[Value]) -> Result<BTreeSet<IpNet>> {
    let network = |item: &Value| {
        let text = shown(item);
        let net = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip)));
        let refused = |_| Error::attribute("addresses", format!("'{text}' is not a valid IP subnet"));
        net.map(|net| net.trunc()).map_err(refused)
    };
    items.iter().map(network).collect()
}

/// What `add_addresses` and `remove_addresses` take: the list, and nothing around it.
fn asked(call: &Call) -> Result<BTreeSet<IpNet>> {
    let body: Map<String, Value> = json_object(call)?;
    let Some(Value::Array(items)) = body.get("addresses") else {
        // Neutron looks the key up unchecked.
        let message = "Request Failed: internal server error while processing your request.";
        return Err(Error::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "HTTPInternalServerError", message));
    };
    networks(items)
}

fn listed(addresses: &[&IpNet]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    shown_list(texts.iter().map(String::as_str))
}

pub(crate) fn add_addresses(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    change(neutron, caller, call, id, |group, asked| {
        let twice: Vec<&IpNet> = asked.intersection(&group.addresses).collect();
        if !twice.is_empty() {
            let id = group.standard.id;
            let message = format!("Addresses {} already exist in the address group {id}.", listed(&twice));
            return Err(Error::bad_request("AddressesAlreadyExist", message));
        }
        group.addresses.extend(asked);
        Ok(())
    })
}

pub(crate) fn remove_addresses(neutron: &mut Neutron, caller: &Caller, call: &Call, id: &str) -> Result<Answer> {
    change(neutron, caller, call, id, |group, asked| {
        let missing: Vec<&IpNet> = asked.difference(&group.addresses).collect();
        if !missing.is_empty() {
            let id = group.standard.id;
            let message = format!("Addresses {} not found in the address group {id}.", listed(&missing));
            return Err(Error::not_found("AddressesNotFound", message));
        }
        group.addresses.retain(|address| !asked.contains(address));
        Ok(())
    })
}

fn change(
    neutron: &mut Neutron,
    caller: &Caller,
    call: &Call,
    id: &str,
    change: impl FnOnce(&mut AddressGroup, BTreeSet<IpNet>) -> Result<()>,
) -> Result<Answer> {
    let id = id_of::<AddressGroup>(neutron, id)?;
    let mut group = neutron.address_groups.find(id)?.clone();
    check_revision(&group, call)?;
    change(&mut group, asked(call)?)?;
    neutron.address_groups.replace(group, caller.now);
    let group = neutron.address_groups.find(id)?;
    Ok(Answer::ok(json!({ AddressGroup::KIND.singular: render(neutron, group, &[]) })))
}
