//! `/v2.0/network-ip-availabilities`: how many addresses networks and subnets have, and how many are taken.

use axum::http::Method;
use serde_json::{Value, json};

use super::Neutron;
use super::error::{Error, Result};
use super::networks::Network;
use super::subnets::Subnet;
use super::verbs::id_of;
use crate::cloud::http::{Answer, Call};

pub(crate) fn handle(neutron: &Neutron, call: &Call, rest: &[&str]) -> Result<Answer> {
    if call.method != Method::GET {
        return Err(Error::no_such_method());
    }
    match rest {
        [] => {
            let wanted = |summary: &Value| {
                ["network_id", "network_name", "project_id", "tenant_id"].into_iter().all(|key| {
                    let mut values = call.query.iter().filter(|(name, _)| name == key).peekable();
                    values.peek().is_none() || values.any(|(_, value)| summary[key].as_str() == Some(value))
                })
            };
            let list: Vec<Value> =
                neutron.networks.iter().map(|network| summary(neutron, network)).filter(wanted).collect();
            Ok(Answer::ok(json!({ "network_ip_availabilities": list })))
        }
        [id] => {
            let network = neutron.networks.find(id_of::<Network>(neutron, id)?)?;
            Ok(Answer::ok(json!({ "network_ip_availability": summary(neutron, network) })))
        }
        _ => Err(Error::no_such_path()),
    }
}

pub(crate) fn total(subnet: &Subnet) -> u128 {
    subnet.pools.iter().map(|pool| pool.last - pool.first + 1).sum()
}

pub(crate) fn used(neutron: &Neutron, subnet: &Subnet) -> usize {
    neutron.allocators.get(&subnet.standard.id).map_or(0, super::Allocator::used)
}

/// JSON has no whole numbers beyond 64 bits here; what an IPv6 subnet holds is rounded.
#[expect(clippy::cast_precision_loss, reason = "rounding is what is meant")]
fn big(number: u128) -> Value {
    u64::try_from(number).map_or_else(|_| json!(number as f64), |number| json!(number))
}

fn summary(neutron: &Neutron, network: &Network) -> Value {
    let subnets: Vec<&Subnet> = network.subnets.iter().filter_map(|&id| neutron.subnets.get(id)).collect();
    let one = |subnet: &&Subnet| {
        json!({
            "subnet_id": subnet.standard.id, "subnet_name": subnet.standard.name, "cidr": subnet.cidr,
            "ip_version": if subnet.is_v6() { 6 } else { 4 }, "used_ips": used(neutron, subnet), "total_ips": big(total(subnet)),
        })
    };
    json!({
        "network_id": network.standard.id, "network_name": network.standard.name,
        "project_id": network.standard.project, "tenant_id": network.standard.project,
        "used_ips": subnets.iter().map(|subnet| used(neutron, subnet)).sum::<usize>(),
        "total_ips": big(subnets.iter().map(|subnet| total(subnet)).sum()),
        "subnet_ip_availability": subnets.iter().map(one).collect::<Vec<_>>(),
    })
}
