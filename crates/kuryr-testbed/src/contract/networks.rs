//! Networks, subnets and routers: what `kuryr setup` makes and takes away.

use super::{
    Site,
    site::{is_refusal, new_port, refused},
};
use anyhow::ensure;
use kuryr_openstack::{Filter, network::routers::INTERFACE_OWNERS};

pub(super) async fn a_network_has_an_mtu_that_can_be_changed(site: &Site) -> anyhow::Result<()> {
    let network = site.network().await?;
    ensure!((1280..=9216).contains(&network.mtu), "an MTU of {}", network.mtu);
    let smaller = network.mtu - 20;
    let changed = site.neutron().networks().set_mtu(network.id, smaller).await?;
    ensure!(changed.mtu == smaller, "an MTU of {} instead of {smaller}", changed.mtu);
    Ok(())
}

pub(super) async fn a_subnet_has_a_gateway(site: &Site) -> anyhow::Result<()> {
    let network = site.network().await?;
    let four = site.subnet(network.id, "10.231.0.0/24").await?;
    ensure!(four.gateway_ip == Some("10.231.0.1".parse()?), "{} has gateway {:?}", four.cidr, four.gateway_ip);
    // Zed gives the network's own address, the routers' anycast address, where others give the one after it.
    let six = site.subnet(network.id, "fd00:231::/64").await?;
    let inside = six.gateway_ip.is_some_and(|gateway| six.cidr.contains(&gateway));
    ensure!(inside, "{} has gateway {:?}", six.cidr, six.gateway_ip);
    for (subnet, cidr) in [(four, "10.231.0.0/24"), (six, "fd00:231::/64")] {
        ensure!(subnet.cidr == cidr.parse()? && subnet.network_id == network.id, "{subnet:?}");
    }
    Ok(())
}

pub(super) async fn overlapping_subnets_of_one_network_are_refused(site: &Site) -> anyhow::Result<()> {
    let (network, _) = site.wire("10.231.0.0/24").await?;
    let error = refused("a subnet within another", site.try_subnet(network.id, "10.231.0.128/25").await?)?;
    ensure!(error.status() == Some(400), "{error}");
    Ok(())
}

pub(super) async fn a_router_joins_a_subnet_at_its_gateway(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let router = site.router().await?;
    site.join(router.id, subnet.id).await?;
    let filter = Filter::new().with("network_id", network.id).any("device_owner", INTERFACE_OWNERS);
    let found = site.neutron().ports().list(&filter).await?;
    let [interface] = &found[..] else { anyhow::bail!("{} interfaces: {found:?}", found.len()) };
    let ip = &interface.fixed_ips[0];
    ensure!(interface.device_id == router.id.to_string(), "{interface:?}");
    ensure!(Some(ip.ip_address) == subnet.gateway_ip && ip.subnet_id == subnet.id, "{:?}", interface.fixed_ips);
    let again = refused("to join a subnet twice", site.join(router.id, subnet.id).await)?;
    ensure!(again.status() == Some(400), "{again}");
    for _ in 0..2 {
        site.neutron().routers().remove_interface(router.id, subnet.id).await?;
    }
    ensure!(site.count(network.id).await? == 0, "the interface is left");
    // Whatever the gateway of an IPv6 subnet is, a router can have it.
    let six = site.subnet(network.id, "fd00:231::/64").await?;
    site.join(router.id, six.id).await?;
    let found = site.neutron().ports().list(&filter).await?;
    let [interface] = &found[..] else { anyhow::bail!("{} interfaces: {found:?}", found.len()) };
    ensure!(Some(interface.fixed_ips[0].ip_address) == six.gateway_ip, "{:?}", interface.fixed_ips);
    Ok(())
}

pub(super) async fn what_is_in_use_is_kept(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let router = site.router().await?;
    site.join(router.id, subnet.id).await?;
    site.port(new_port(network.id, subnet.id)).await?;
    let neutron = site.neutron();
    let refusal = |what: &str, result, kind| is_refusal(&refused(what, result)?, 409, &[kind]);
    refusal("to delete a network with ports", neutron.networks().delete(network.id).await, "NetworkInUse")?;
    refusal("to delete a subnet with ports", neutron.subnets().delete(subnet.id).await, "SubnetInUse")?;
    refusal("to delete a router with interfaces", neutron.routers().delete(router.id).await, "RouterInUse")?;
    Ok(())
}
