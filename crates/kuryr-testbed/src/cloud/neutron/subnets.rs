//! Subnets: gateway, pools, modes of IPv6.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use uuid::Uuid;

use super::attrs::{Access, Attr, Body, Check, Kind, attr, shown};
use super::error::{Error, Result};
use super::ipam::{Allocator, Span, default_pools, hosts, number};
use super::ports::Port;
use super::resource::{Caller, Resource, Standard, kept_in};
use super::{Neutron, addresses, subnet_pools};

const MODES: &[&str] = &["slaac", "dhcpv6-stateful", "dhcpv6-stateless", ""];

const ATTRS: &[Attr] = &[
    attr("name", Access::Write, Check::Text(255)),
    attr("tags", Access::Read, Check::Any),
    attr("allocation_pools", Access::Write, Check::List),
    attr("cidr", Access::Create, Check::Cidr),
    attr("dns_nameservers", Access::Write, Check::List),
    attr("enable_dhcp", Access::Write, Check::Bool),
    attr("gateway_ip", Access::Write, Check::Ip),
    attr("host_routes", Access::Write, Check::List),
    attr("ip_version", Access::Create, Check::Int),
    attr("ipv6_address_mode", Access::Create, Check::OneOf(MODES)),
    attr("ipv6_ra_mode", Access::Create, Check::OneOf(MODES)),
    attr("network_id", Access::Required, Check::Uuid),
    attr("prefixlen", Access::Hidden, Check::Int),
    attr("segment_id", Access::Create, Check::UuidOrNull),
    attr("service_types", Access::Write, Check::List),
    attr("subnetpool_id", Access::Create, Check::UuidOrNull),
    attr("use_default_subnetpool", Access::Hidden, Check::Bool),
];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subnet {
    pub(crate) standard: Standard,
    pub(crate) network: Uuid,
    pub(crate) cidr: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) pools: Vec<Span>,
    pub(crate) enable_dhcp: bool,
    pub(crate) dns_nameservers: Vec<IpAddr>,
    /// `destination` and `nexthop`.
    pub(crate) host_routes: Vec<(IpNet, IpAddr)>,
    ra_mode: Option<String>,
    address_mode: Option<String>,
    pub(crate) subnet_pool: Option<Uuid>,
    service_types: Value,
}

impl Subnet {
    pub(crate) fn is_v6(&self) -> bool {
        matches!(self.cidr, IpNet::V6(_))
    }

    /// Whether hosts make their addresses themselves.
    pub(crate) fn is_auto_addressed(&self) -> bool {
        matches!(self.address_mode.as_deref(), Some("slaac" | "dhcpv6-stateless"))
    }
}

impl Resource for Subnet {
    const KIND: &'static Kind = &Kind {
        plural: "subnets",
        singular: "subnet",
        attrs: ATTRS,
        tagged: true,
        not_found: |id| Error::not_found("SubnetNotFound", format!("Subnet {id} could not be found.")),
    };

    kept_in!(subnets);

    fn attribute(&self, name: &str, _neutron: &Neutron) -> Option<Value> {
        Some(match name {
            "allocation_pools" => self.pools.iter().map(|pool| pool.json(self.is_v6())).collect(),
            "cidr" => json!(self.cidr),
            "dns_nameservers" => json!(self.dns_nameservers),
            "enable_dhcp" => json!(self.enable_dhcp),
            "gateway_ip" => json!(self.gateway),
            "host_routes" => {
                let route = |(net, hop): &(IpNet, IpAddr)| json!({ "destination": net, "nexthop": hop });
                self.host_routes.iter().map(route).collect()
            }
            "ip_version" => json!(if self.is_v6() { 6 } else { 4 }),
            "ipv6_address_mode" => json!(self.address_mode),
            "ipv6_ra_mode" => json!(self.ra_mode),
            "network_id" => json!(self.network),
            "segment_id" => Value::Null,
            "service_types" => self.service_types.clone(),
            "subnetpool_id" => json!(self.subnet_pool),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let network = neutron.networks.find(body.uuid("network_id").unwrap_or_default())?;
        let (network_id, siblings) = (network.standard.id, network.subnets.clone());
        let version = match body.int("ip_version") {
            Some(version @ (4 | 6)) => version,
            Some(other) => return Err(Error::attribute("ip_version", format!("'{other}' is not in [4, 6]"))),
            None => return Err(Error::invalid("Subnet requires ip_version")),
        };
        let pool = body.uuid("subnetpool_id").or_else(|| {
            let wanted = body.boolean("use_default_subnetpool").unwrap_or(false);
            if wanted { subnet_pools::default_pool(neutron, version) } else { None }
        });
        let cidr = match (body.text("cidr").and_then(|text| text.parse::<IpNet>().ok()), pool) {
            (given, Some(pool)) => subnet_pools::allocate(neutron, pool, given, body.int("prefixlen"))?,
            (Some(cidr), None) => cidr,
            (None, None) => {
                return Err(Error::bad_request(
                    "BadRequest",
                    "Bad subnets request: a subnetpool must be specified in the absence of a cidr.",
                ));
            }
        };
        check_cidr(neutron, network_id, &siblings, version, cidr)?;
        let gateway = match body.get("gateway_ip") {
            // IPv6: the network's own address, which is that of all routers (the subnet-router anycast address).
            None if matches!(cidr, IpNet::V6(_)) => Some(cidr.network()),
            None => Some(super::ipam::address(hosts(cidr).first, false)),
            Some(value) => check_gateway(cidr, value)?,
        };
        let pools = match body.list("allocation_pools").filter(|_| body.given("allocation_pools").is_some()) {
            Some(list) => read_pools(cidr, gateway, list)?,
            None => default_pools(cidr, gateway),
        };
        let (ra_mode, address_mode) = modes(body, version, cidr)?;
        let standard = Standard::new(caller, body);
        let subnet = Self {
            standard,
            network: network_id,
            cidr,
            gateway,
            enable_dhcp: body.boolean("enable_dhcp").unwrap_or(true),
            dns_nameservers: nameservers(body)?.unwrap_or_default(),
            host_routes: routes(body)?.unwrap_or_default(),
            ra_mode,
            address_mode,
            subnet_pool: pool,
            service_types: body.given("service_types").cloned().unwrap_or_else(|| json!([])),
            pools,
        };
        neutron.allocators.insert(subnet.standard.id, Allocator::new(subnet.pools.clone()));
        let auto = subnet.is_auto_addressed();
        let id = neutron.subnets.insert(subnet);
        if let Some(network) = neutron.networks.get(network_id) {
            let mut network = network.clone();
            network.subnets.push(id);
            neutron.networks.replace(network, caller.now);
        }
        if auto {
            addresses::add_auto_addresses(neutron, id, caller.now);
        }
        Ok(id)
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut subnet = neutron.subnets.find(id)?.clone();
        subnet.standard.update(body);
        body.set_bool("enable_dhcp", &mut subnet.enable_dhcp);
        if let Some(list) = nameservers(body)? {
            subnet.dns_nameservers = list;
        }
        if let Some(list) = routes(body)? {
            subnet.host_routes = list;
        }
        if let Some(types) = body.given("service_types") {
            subnet.service_types = types.clone();
        }
        if let Some(value) = body.get("gateway_ip") {
            let gateway = check_gateway(subnet.cidr, value)?;
            if gateway != subnet.gateway {
                check_gateway_unused(neutron, &subnet)?;
            }
            subnet.gateway = gateway;
        }
        if let Some(list) = body.list("allocation_pools") {
            subnet.pools = read_pools(subnet.cidr, subnet.gateway, list)?;
        } else if body.has("gateway_ip") {
            check_gateway_outside(subnet.gateway, &subnet.pools, subnet.is_v6())?;
        }
        let pools = subnet.pools.clone();
        neutron.subnets.replace(subnet, caller.now);
        if body.has("allocation_pools")
            && let Some(allocator) = neutron.allocators.get_mut(&id)
        {
            allocator.set_pools(pools);
        }
        Ok(())
    }

    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()> {
        let subnet = neutron.subnets.find(id)?.clone();
        let holders: Vec<Uuid> = (neutron.port_index.on_network(subnet.network).into_iter())
            .filter(|&port| neutron.ports.get(port).is_some_and(|port| port.fixed_ips.iter().any(|ip| ip.subnet == id)))
            .collect();
        let blocks = |port: &Uuid| {
            let router = neutron.ports.get(*port).is_some_and(|port| port.device_owner.starts_with("network:router"));
            let own = neutron.ports.get(*port).is_some_and(Port::is_of_the_network);
            router || !(subnet.is_auto_addressed() || own)
        };
        if holders.iter().any(blocks) {
            let message = format!(
                "Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet."
            );
            return Err(Error::conflict("SubnetInUse", message));
        }
        for port in holders {
            addresses::drop_subnet(neutron, port, id, caller.now);
        }
        neutron.subnets.remove(id);
        neutron.allocators.remove(&id);
        if let Some(network) = neutron.networks.get(subnet.network) {
            let mut network = network.clone();
            network.subnets.retain(|&other| other != id);
            neutron.networks.replace(network, caller.now);
        }
        Ok(())
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn check_cidr(neutron: &Neutron, network: Uuid, siblings: &[Uuid], version: i64, cidr: IpNet) -> Result<()> {
    let actual = if matches!(cidr, IpNet::V6(_)) { 6 } else { 4 };
    if actual != version {
        return Err(Error::invalid(format!("cidr '{cidr}' does not match the ip_version '{version}'")));
    }
    if cidr.prefix_len() == 0 {
        return Err(Error::invalid("0 is not allowed as CIDR prefix length"));
    }
    if siblings.iter().filter_map(|&id| neutron.subnets.get(id)).any(|other| overlap(other.cidr, cidr)) {
        return Err(Error::invalid(format!(
            "Requested subnet with cidr: {cidr} for network: {network} overlaps with another subnet"
        )));
    }
    Ok(())
}

fn check_gateway(cidr: IpNet, value: &Value) -> Result<Option<IpAddr>> {
    let Some(text) = value.as_str() else { return Ok(None) };
    let gateway: IpAddr =
        text.parse().map_err(|_| Error::attribute("gateway_ip", format!("'{text}' is not a valid IP address")))?;
    if matches!(cidr, IpNet::V6(_)) != gateway.is_ipv6() {
        let version = if matches!(cidr, IpNet::V6(_)) { 6 } else { 4 };
        return Err(Error::invalid(format!("gateway_ip '{gateway}' does not match the ip_version '{version}'")));
    }
    let local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if cidr.contains(&gateway) && !hosts(cidr).contains(number(gateway)) && !local {
        return Err(Error::invalid("Gateway is not valid on subnet"));
    }
    Ok(Some(gateway))
}

fn check_gateway_unused(neutron: &Neutron, subnet: &Subnet) -> Result<()> {
    let Some(gateway) = subnet.gateway else { return Ok(()) };
    let holder = neutron.port_index.on_network(subnet.network).into_iter().find(|&port| {
        neutron.ports.get(port).is_some_and(|port| {
            port.device_owner.starts_with("network:router") && port.fixed_ips.iter().any(|ip| ip.address == gateway)
        })
    });
    match holder {
        None => Ok(()),
        Some(port) => Err(Error::conflict(
            "GatewayIpInUse",
            format!("Current gateway ip {gateway} already in use by port {port}. Unable to update."),
        )),
    }
}

fn check_gateway_outside(gateway: Option<IpAddr>, pools: &[Span], v6: bool) -> Result<()> {
    let Some(gateway) = gateway else { return Ok(()) };
    match pools.iter().find(|pool| pool.contains(number(gateway)) && gateway.is_ipv6() == v6) {
        None => Ok(()),
        Some(pool) => Err(Error::conflict(
            "GatewayConflictWithAllocationPools",
            format!("Gateway ip {gateway} conflicts with allocation pool {}.", pool_text(*pool, v6)),
        )),
    }
}

fn pool_text(pool: Span, v6: bool) -> String {
    format!("{}-{}", super::ipam::address(pool.first, v6), super::ipam::address(pool.last, v6))
}

fn read_pools(cidr: IpNet, gateway: Option<IpAddr>, list: &[Value]) -> Result<Vec<Span>> {
    let v6 = matches!(cidr, IpNet::V6(_));
    let mut pools: Vec<Span> = Vec::new();
    for item in list {
        let end = |key: &str| item[key].as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let (Some(start), Some(end)) = (end("start"), end("end")) else {
            return Err(Error::attribute(
                "allocation_pools",
                format!("Invalid data format for IP pool: '{}'", shown(item)),
            ));
        };
        let pool = Span { first: number(start), last: number(end) };
        if start.is_ipv6() != v6 || end.is_ipv6() != v6 || pool.first > pool.last {
            let message = format!("The allocation pool {start}-{end} is not valid.");
            return Err(Error::bad_request("InvalidAllocationPool", message));
        }
        let all = hosts(cidr);
        if pool.first < all.first || pool.last > all.last {
            let message = format!("The allocation pool {start}-{end} spans beyond the subnet cidr {cidr}.");
            return Err(Error::bad_request("OutOfBoundsAllocationPool", message));
        }
        if let Some(other) = pools.iter().find(|other| other.overlaps(pool)) {
            let message = format!(
                "Found overlapping allocation pools: {} {} for subnet {cidr}.",
                pool_text(*other, v6),
                pool_text(pool, v6)
            );
            return Err(Error::conflict("OverlappingAllocationPools", message));
        }
        pools.push(pool);
    }
    check_gateway_outside(gateway, &pools, v6)?;
    Ok(pools)
}

fn modes(body: &Body, version: i64, cidr: IpNet) -> Result<(Option<String>, Option<String>)> {
    let mode = |name: &str| body.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let (ra, address) = (mode("ipv6_ra_mode"), mode("ipv6_address_mode"));
    if version == 4 {
        for (name, value) in [("ipv6_ra_mode", &ra), ("ipv6_address_mode", &address)] {
            if value.is_some() {
                return Err(Error::invalid(format!("{name} is not valid when ip_version is 4")));
            }
        }
    }
    if let (Some(ra), Some(address)) = (&ra, &address)
        && ra != address
    {
        return Err(Error::invalid(format!(
            "ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid. If both attributes are set, \
             they must be the same value"
        )));
    }
    let auto = matches!(address.as_deref(), Some("slaac" | "dhcpv6-stateless"));
    if auto && cidr.prefix_len() != 64 {
        return Err(Error::invalid(format!(
            "Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, which requires the prefix to be /64"
        )));
    }
    Ok((ra, address))
}

fn nameservers(body: &Body) -> Result<Option<Vec<IpAddr>>> {
    let Some(list) = body.list("dns_nameservers") else { return Ok(None) };
    let mut out: Vec<IpAddr> = Vec::new();
    for item in list {
        let parsed = item.as_str().and_then(|text| text.parse().ok());
        let ip = parsed.ok_or_else(|| {
            Error::attribute("dns_nameservers", format!("'{}' is not a valid nameserver", shown(item)))
        })?;
        out.push(ip);
    }
    Ok(Some(out))
}

fn routes(body: &Body) -> Result<Option<Vec<(IpNet, IpAddr)>>> {
    let Some(list) = body.list("host_routes") else { return Ok(None) };
    let mut out = Vec::new();
    for item in list {
        let net = item["destination"].as_str().and_then(|text| text.parse::<IpNet>().ok());
        let hop = item["nexthop"].as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let (Some(net), Some(hop)) = (net, hop) else {
            return Err(Error::attribute(
                "host_routes",
                format!("Invalid data format for hostroute: '{}'", shown(item)),
            ));
        };
        out.push((net, hop));
    }
    Ok(Some(out))
}
