//! What Neutron checks on a port beside its addresses: groups, port security, address pairs, MAC addresses.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Body, shown, to_mac};
use super::error::{Error, Result};
use super::ports::Port;

/// `max_allowed_address_pair`.
const MAX_PAIRS: usize = 10;

/// An entry of `allowed_address_pairs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPair {
    /// The MAC address.
    pub mac: String,
    /// An address or a network, as it was given.
    pub ip: String,
}

impl AddressPair {
    pub(crate) fn json(&self) -> Value {
        json!({ "mac_address": self.mac, "ip_address": self.ip })
    }
}

/// Reads `allowed_address_pairs`; a pair without a MAC address gets the port's.
pub(crate) fn pairs(body: &Body, port_mac: &str) -> Result<Option<Vec<AddressPair>>> {
    let Some(list) = body.list("allowed_address_pairs") else { return Ok(None) };
    if list.len() > MAX_PAIRS {
        let message = format!("The number of allowed address pair exceeds the maximum {MAX_PAIRS}.");
        return Err(Error::bad_request("AllowedAddressPairExhausted", message));
    }
    let mut out: Vec<AddressPair> = Vec::new();
    for item in list {
        let Some(ip) = item["ip_address"].as_str() else {
            return Err(Error::bad_request(
                "AllowedAddressPairsMissingIP",
                "AllowedAddressPair must contain ip_address",
            ));
        };
        let valid = ip.parse::<std::net::IpAddr>().is_ok() || ip.parse::<ipnet::IpNet>().is_ok();
        if !valid {
            return Err(Error::attribute("allowed_address_pairs", format!("'{ip}' is not a valid IP subnet")));
        }
        let mac = match &item["mac_address"] {
            Value::Null => port_mac.to_owned(),
            value => value.as_str().and_then(to_mac).ok_or_else(|| {
                Error::attribute("allowed_address_pairs", format!("'{}' is not a valid MAC address", shown(value)))
            })?,
        };
        let pair = AddressPair { mac, ip: ip.to_owned() };
        if out.contains(&pair) {
            let message =
                format!("Request contains duplicate address pair: mac_address {} ip_address {}.", pair.mac, pair.ip);
            return Err(Error::bad_request("DuplicateAddressPairInRequest", message));
        }
        out.push(pair);
    }
    Ok(Some(out))
}

/// The groups that a body names; each must exist.
pub(crate) fn groups(neutron: &Neutron, body: &Body) -> Result<Option<Vec<Uuid>>> {
    let Some(groups) = body.uuids("security_groups") else { return Ok(None) };
    for &id in &groups {
        neutron.groups.find(id)?;
    }
    Ok(Some(groups))
}

/// Port security off excludes groups and address pairs. `asked` says which of them the request itself names.
pub(crate) fn port_security(port: &Port, body: &Body) -> Result<()> {
    if port.port_security {
        return Ok(());
    }
    if !port.pairs.is_empty() {
        let message = "Port Security must be enabled in order to have allowed address pairs on a port.";
        return Err(Error::conflict("AddressPairAndPortSecurityRequired", message));
    }
    if port.groups.is_empty() {
        return Ok(());
    }
    if body.list("security_groups").is_some_and(|list| !list.is_empty()) {
        let message = "Port security must be enabled and port must have an IP address in order to use security groups.";
        return Err(Error::bad_request("PortSecurityAndIPRequiredForSecurityGroups", message));
    }
    let message = "Port has security group associated. Cannot disable port security or IP address until security group is removed.";
    Err(Error::conflict("PortSecurityPortHasSecurityGroup", message))
}

/// The MAC address of a new port: the given one if no other port of the network has it, else a new one.
pub(crate) fn mac(neutron: &Neutron, network: Uuid, given: Option<&str>) -> Result<String> {
    if let Some(mac) = given {
        if neutron.port_index.has_mac(network, mac) {
            let message =
                format!("Unable to complete operation for network {network}. The mac address {mac} is in use.");
            return Err(Error::conflict("MacAddressInUse", message));
        }
        return Ok(mac.to_owned());
    }
    loop {
        let [_, b, c, d] = fastrand::u32(..).to_be_bytes();
        let mac = format!("fa:16:3e:{b:02x}:{c:02x}:{d:02x}");
        if !neutron.port_index.has_mac(network, &mac) {
            return Ok(mac);
        }
    }
}
