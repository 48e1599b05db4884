//! Subnet pools: prefixes out of which subnets are cut.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Access, Attr, Body, Check, Kind, attr, shown};
use super::error::{Error, Result};
use super::ipam::{address, number};
use super::resource::{Caller, Resource, Standard, kept_in};

const ATTRS: &[Attr] = &[
    attr("name", Access::Write, Check::Text(255)),
    attr("tags", Access::Read, Check::Any),
    attr("address_scope_id", Access::Write, Check::UuidOrNull),
    attr("default_prefixlen", Access::Write, Check::Int),
    attr("default_quota", Access::Write, Check::Int),
    attr("ip_version", Access::Read, Check::Int),
    attr("is_default", Access::Write, Check::Bool),
    attr("max_prefixlen", Access::Write, Check::Int),
    attr("min_prefixlen", Access::Write, Check::Int),
    attr("prefixes", Access::Write, Check::List),
    attr("shared", Access::Create, Check::Bool),
];

/// `min_prefixlen` of a pool that names none, by version.
const MIN_V4: u8 = 8;
const MIN_V6: u8 = 64;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SubnetPool {
    pub(crate) standard: Standard,
    prefixes: Vec<IpNet>,
    min: u8,
    max: u8,
    default: u8,
    is_default: bool,
    shared: bool,
}

impl SubnetPool {
    fn is_v6(&self) -> bool {
        self.prefixes.first().is_some_and(|net| matches!(net, IpNet::V6(_)))
    }
}

impl Resource for SubnetPool {
    const KIND: &'static Kind = &Kind {
        plural: "subnetpools",
        singular: "subnetpool",
        attrs: ATTRS,
        tagged: true,
        not_found: |id| Error::not_found("SubnetPoolNotFound", format!("Subnet pool {id} could not be found.")),
    };

    kept_in!(subnet_pools);

    fn attribute(&self, name: &str, _neutron: &Neutron) -> Option<Value> {
        Some(match name {
            "address_scope_id" | "default_quota" => Value::Null,
            "default_prefixlen" => json!(self.default),
            "ip_version" => json!(if self.is_v6() { 6 } else { 4 }),
            "is_default" => json!(self.is_default),
            "max_prefixlen" => json!(self.max),
            "min_prefixlen" => json!(self.min),
            "prefixes" => json!(self.prefixes),
            "shared" => json!(self.shared),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let prefixes = prefixes(body.list("prefixes").unwrap_or_default())?;
        let v6 = matches!(prefixes[0], IpNet::V6(_));
        let longest = if v6 { 128 } else { 32 };
        let min = length(body, "min_prefixlen", longest)?.unwrap_or(if v6 { MIN_V6 } else { MIN_V4 });
        let max = length(body, "max_prefixlen", longest)?.unwrap_or(longest);
        let default = length(body, "default_prefixlen", longest)?.unwrap_or(min);
        if min > max || default < min || default > max {
            let (name, value) = if min > max { ("max_prefixlen", max) } else { ("default_prefixlen", default) };
            let message = format!("Illegal prefix bounds: min_prefixlen={min}, {name}={value}.");
            return Err(Error::bad_request("IllegalSubnetPoolPrefixBounds", message));
        }
        let pool = Self {
            standard: Standard::new(caller, body),
            prefixes,
            min,
            max,
            default,
            is_default: body.boolean("is_default").unwrap_or(false),
            shared: body.boolean("shared").unwrap_or(false),
        };
        Ok(neutron.subnet_pools.insert(pool))
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut pool = neutron.subnet_pools.find(id)?.clone();
        pool.standard.update(body);
        body.set_bool("is_default", &mut pool.is_default);
        if let Some(list) = body.list("prefixes") {
            let new = prefixes(list)?;
            let covered = pool.prefixes.iter().all(|old| new.iter().any(|net| net.contains(old)));
            if !covered {
                let message = "Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.";
                return Err(Error::bad_request("IllegalSubnetPoolPrefixUpdate", message));
            }
            pool.prefixes = new;
        }
        let longest = if pool.is_v6() { 128 } else { 32 };
        for (name, target) in [
            ("min_prefixlen", &mut pool.min),
            ("max_prefixlen", &mut pool.max),
            ("default_prefixlen", &mut pool.default),
        ] {
            if let Some(value) = length(body, name, longest)? {
                *target = value;
            }
        }
        neutron.subnet_pools.replace(pool, caller.now);
        Ok(())
    }

    fn delete(neutron: &mut Neutron, _caller: &Caller, id: Uuid) -> Result<()> {
        if neutron.subnets.iter().any(|subnet| subnet.subnet_pool == Some(id)) {
            let message = "Unable to delete subnet pool: Subnet pool has existing allocations.";
            return Err(Error::bad_request("SubnetPoolDeleteError", message));
        }
        neutron.subnet_pools.remove(id);
        Ok(())
    }
}

fn prefixes(list: &[Value]) -> Result<Vec<IpNet>> {
    let mut out: Vec<IpNet> = Vec::new();
    for item in list {
        let net = item.as_str().and_then(|text| text.parse::<IpNet>().ok());
        let net =
            net.ok_or_else(|| Error::attribute("prefixes", format!("'{}' is not a valid IP subnet", shown(item))))?;
        out.push(net.trunc());
    }
    match out.first() {
        None => Err(Error::bad_request("EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.")),
        Some(first) if out.iter().any(|net| matches!(net, IpNet::V6(_)) != matches!(first, IpNet::V6(_))) => {
            let message = "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.";
            Err(Error::bad_request("PrefixVersionMismatch", message))
        }
        Some(_) => Ok(IpNet::aggregate(&out)),
    }
}

fn length(body: &Body, name: &str, longest: u8) -> Result<Option<u8>> {
    let Some(value) = body.int(name) else { return Ok(None) };
    match u8::try_from(value) {
        Ok(value) if value <= longest => Ok(Some(value)),
        _ => {
            let message = format!("Prefix '{value}' not supported in IPv{} pool.", if longest == 32 { 4 } else { 6 });
            Err(Error::bad_request("UnsupportedMinSubnetPoolPrefix", message))
        }
    }
}

/// Neutron does not count this among its conflicts: it answers 500.
fn allocation_error(message: &str) -> Error {
    Error::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "SubnetAllocationError", message)
}

/// The default pool of a version, if there is one.
pub(crate) fn default_pool(neutron: &Neutron, version: i64) -> Option<Uuid> {
    let found = neutron.subnet_pools.iter().find(|pool| pool.is_default && pool.is_v6() == (version == 6));
    found.map(|pool| pool.standard.id)
}

/// The prefix of a new subnet of a pool: the given one if it is free, else the first free one of the length.
pub(crate) fn allocate(neutron: &Neutron, pool: Uuid, cidr: Option<IpNet>, length: Option<i64>) -> Result<IpNet> {
    let pool = neutron.subnet_pools.find(pool)?;
    let id = pool.standard.id;
    let wanted = match (cidr, length) {
        (Some(cidr), _) => i64::from(cidr.prefix_len()),
        (None, length) => length.unwrap_or_else(|| i64::from(pool.default)),
    };
    if wanted < i64::from(pool.min) {
        let message =
            format!("Unable to allocate subnet with prefix length {wanted}, minimum allowed prefix is {}.", pool.min);
        return Err(Error::bad_request("MinPrefixSubnetAllocationError", message));
    }
    let length = u8::try_from(wanted).ok().filter(|&length| length <= pool.max).ok_or_else(|| {
        let message =
            format!("Unable to allocate subnet with prefix length {wanted}, maximum allowed prefix is {}.", pool.max);
        Error::bad_request("MaxPrefixSubnetAllocationError", message)
    })?;
    let mut taken: Vec<IpNet> =
        neutron.subnets.iter().filter(|subnet| subnet.subnet_pool == Some(id)).map(|subnet| subnet.cidr).collect();
    taken.sort_by_key(|net| number(net.network()));
    if let Some(cidr) = cidr {
        let inside = pool.prefixes.iter().any(|net| net.contains(&cidr));
        let free = !taken.iter().any(|other| other.contains(&cidr) || cidr.contains(other));
        return if inside && free {
            Ok(cidr)
        } else {
            let message =
                "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.";
            Err(allocation_error(message))
        };
    }
    pool.prefixes.iter().find_map(|&prefix| first_free(prefix, length, &taken)).ok_or_else(|| {
        let message =
            format!("Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{length}.");
        allocation_error(&message)
    })
}

/// The first network of a length in a prefix that overlaps none of the taken ones, which are in order.
fn first_free(prefix: IpNet, length: u8, taken: &[IpNet]) -> Option<IpNet> {
    if length < prefix.prefix_len() {
        return None;
    }
    let v6 = matches!(prefix, IpNet::V6(_));
    let bits = u32::from(prefix.max_prefix_len() - length);
    let size = 1u128.checked_shl(bits)?;
    let (mut at, end) = (number(prefix.network()), number(prefix.broadcast()));
    for other in taken.iter().filter(|other| matches!(other, IpNet::V6(_)) == v6) {
        let (first, last) = (number(other.network()), number(other.broadcast()));
        if last < at {
            continue;
        }
        if first > at + (size - 1) {
            break;
        }
        // The next multiple of the size after the taken network.
        at = (last / size).checked_add(1)?.checked_mul(size)?;
    }
    if at.checked_add(size - 1)? > end {
        return None;
    }
    match address(at, v6) {
        std::net::IpAddr::V4(ip) => Ipv4Net::new(ip, length).ok().map(IpNet::V4),
        std::net::IpAddr::V6(ip) => Ipv6Net::new(ip, length).ok().map(IpNet::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_prefix_skips_taken_ones_of_any_size() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let taken = [net("10.0.0.0/26"), net("10.0.1.0/24")];
        assert_eq!(first_free(net("10.0.0.0/16"), 24, &taken), Some(net("10.0.2.0/24")));
        assert_eq!(first_free(net("10.0.0.0/16"), 26, &taken), Some(net("10.0.0.64/26")));
        assert_eq!(first_free(net("10.0.0.0/24"), 24, &taken), None);
        assert_eq!(first_free(net("fd00::/48"), 64, &[net("fd00::/64")]), Some(net("fd00:0:0:1::/64")));
    }
}
