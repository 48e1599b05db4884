//! Floating IPs, by which Services are reached from outside.

use super::{
    Site,
    site::{is_refusal, new_port, refused},
};
use anyhow::ensure;
use kuryr_model::{PortId, SubnetId, neutron::FloatingIpStatus};
use kuryr_openstack::{Filter, network::floating_ips::NewFloatingIp, network::tags::Tagged};
use std::net::IpAddr;
use uuid::Uuid;

/// A port inside, and its address.
async fn inside(site: &Site, subnet: SubnetId) -> anyhow::Result<(PortId, IpAddr)> {
    let subnet = site.neutron().subnets().get(subnet).await?;
    let port = site.port(new_port(subnet.network_id, subnet.id)).await?;
    Ok((port.id, port.fixed_ips[0].ip_address))
}

pub(super) async fn a_floating_ip_leads_to_a_port_until_it_is_parted_from_it(site: &Site) -> anyhow::Result<()> {
    let (outside, outer, inner) = site.way_out().await?;
    let (port, address) = inside(site, inner.id).await?;
    let new = NewFloatingIp { description: "of the contract".to_owned(), ..NewFloatingIp::new(outside.id) };
    let floating = site.try_floating_ip(&new).await?;
    ensure!(outer.cidr.contains(&floating.floating_ip_address), "{floating:?} is not of {}", outer.cidr);
    ensure!(floating.port_id.is_none() && floating.status == FloatingIpStatus::Down, "{floating:?}");
    let neutron = site.neutron();
    let led = neutron.floating_ips().associate(floating.id, port, None).await?;
    ensure!(led.port_id == Some(port) && led.fixed_ip_address == Some(address), "{led:?}");
    ensure!(led.router_id.is_some() && led.description == "of the contract", "{led:?}");
    let parted = neutron.floating_ips().dissociate(floating.id).await?;
    ensure!(parted.port_id.is_none() && parted.fixed_ip_address.is_none(), "{parted:?}");
    for _ in 0..2 {
        neutron.floating_ips().delete(floating.id).await?;
    }
    Ok(())
}

pub(super) async fn a_port_that_goes_away_leaves_its_floating_ip(site: &Site) -> anyhow::Result<()> {
    let (outside, _, inner) = site.way_out().await?;
    let (port, _) = inside(site, inner.id).await?;
    let floating =
        site.try_floating_ip(&NewFloatingIp { port_id: Some(port), ..NewFloatingIp::new(outside.id) }).await?;
    ensure!(floating.port_id == Some(port), "{floating:?}");
    site.neutron().ports().delete(port).await?;
    let left = site.neutron().floating_ips().get(floating.id).await?;
    ensure!(left.port_id.is_none() && left.floating_ip_address == floating.floating_ip_address, "{left:?}");
    Ok(())
}

pub(super) async fn an_address_outside_is_given_once(site: &Site) -> anyhow::Result<()> {
    let (outside, _, _) = site.way_out().await?;
    // The router has one of the others.
    let router = site.neutron().ports().list(&Filter::new().with("network_id", outside.id)).await?;
    let taken = |address: &IpAddr| router.iter().flat_map(|port| &port.fixed_ips).any(|ip| ip.ip_address == *address);
    let wanted =
        ["203.0.113.9", "203.0.113.10"].map(str::parse::<IpAddr>).into_iter().collect::<Result<Vec<_>, _>>()?;
    let wanted = wanted.into_iter().find(|address| !taken(address));
    let new = NewFloatingIp { floating_ip_address: wanted, ..NewFloatingIp::new(outside.id) };
    let floating = site.try_floating_ip(&new).await?;
    ensure!(Some(floating.floating_ip_address) == wanted, "{floating:?}");
    let error = refused("an address that is taken", site.try_floating_ip(&new).await)?;
    ensure!(error.is_address_in_use() && error.status() == Some(409), "{error}");
    Ok(())
}

pub(super) async fn an_address_inside_has_one_floating_ip(site: &Site) -> anyhow::Result<()> {
    let (outside, _, inner) = site.way_out().await?;
    let (port, _) = inside(site, inner.id).await?;
    let new = NewFloatingIp { port_id: Some(port), ..NewFloatingIp::new(outside.id) };
    site.try_floating_ip(&new).await?;
    let error = refused("a second floating IP for an address", site.try_floating_ip(&new).await)?;
    is_refusal(&error, 409, &["FloatingIPPortAlreadyAssociated"])
}

pub(super) async fn a_floating_ip_needs_a_way_outside(site: &Site) -> anyhow::Result<()> {
    let (outside, _, _) = site.way_out().await?;
    let (apart, subnet) = site.wire("10.232.0.0/24").await?;
    let port = site.port(new_port(apart.id, subnet.id)).await?;
    let new = NewFloatingIp { port_id: Some(port.id), ..NewFloatingIp::new(outside.id) };
    let error = refused("a floating IP for a port without a way out", site.try_floating_ip(&new).await)?;
    is_refusal(&error, 404, &["ExternalGatewayForFloatingIPNotFound"])?;
    let error =
        refused("a floating IP of no external network", site.try_floating_ip(&NewFloatingIp::new(apart.id)).await)?;
    is_refusal(&error, 400, &["BadRequest"])
}

pub(super) async fn floating_ips_are_found_by_tag_and_description(site: &Site) -> anyhow::Result<()> {
    let (outside, _, _) = site.way_out().await?;
    let word = format!("contract-{}", Uuid::new_v4());
    let new = NewFloatingIp { description: word.clone(), ..NewFloatingIp::new(outside.id) };
    let floating = site.try_floating_ip(&new).await?;
    site.try_floating_ip(&NewFloatingIp::new(outside.id)).await?;
    site.neutron().tags().set(Tagged::FloatingIp(floating.id), std::slice::from_ref(&word)).await?;
    for filter in [Filter::new().tags([&word]), Filter::new().with("description", &word)] {
        let found = site.neutron().floating_ips().list(&filter).await?;
        ensure!(found.len() == 1 && found[0].id == floating.id && found[0].tags == [word.clone()], "found {found:?}");
    }
    Ok(())
}
