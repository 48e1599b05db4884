//! Ports: created in bulk, bound, updated, deleted.

use super::{
    Site,
    site::{is_refusal, new_port, refused},
};
use anyhow::{Context, ensure};
use kuryr_model::{NetworkId, PortId, neutron::PortStatus};
use kuryr_openstack::{
    Class, Waits,
    network::{NewFixedIp, NewPort, PortUpdate},
};
use uuid::Uuid;

pub(super) async fn a_new_port_is_down_and_as_it_was_asked_for(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let host = site.host().await?;
    let group = site.group().await?;
    let tag = "kuryr:contract".to_owned();
    let new = NewPort {
        host_id: Some(host),
        security_groups: vec![group.id],
        tags: vec![tag.clone()],
        ..new_port(network.id, subnet.id)
    };
    let made = site.port(new.clone()).await?;
    // Tags given in bulk may be missing from the answer itself: they are there from the first look on.
    let port = site.neutron().ports().get(made.id).await?;
    ensure!(made.status == PortStatus::Down, "a new port is {:?}", made.status);
    for port in [&made, &port] {
        ensure!(
            port.name == new.name
                && port.device_owner == new.device_owner
                && port.device_id == new.device_id
                && Some(&port.host_id) == new.host_id.as_ref()
                && port.security_groups == new.security_groups
                && port.network_id == network.id
                && port.revision_number > 0,
            "{port:?} is not {new:?}"
        );
        ensure!(port.fixed_ips.len() == 1 && port.fixed_ips[0].subnet_id == subnet.id, "{:?}", port.fixed_ips);
    }
    ensure!(port.tags == [tag], "tags {:?}", port.tags);
    Ok(())
}

pub(super) async fn a_port_without_groups_has_none(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let port = site.port(new_port(network.id, subnet.id)).await?;
    ensure!(port.security_groups.is_empty(), "it got {:?}", port.security_groups);
    Ok(())
}

pub(super) async fn a_bulk_is_answered_in_its_order(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let new: Vec<_> = (0..5).map(|_| new_port(network.id, subnet.id)).collect();
    let made = site.ports(&new).await?;
    let wanted: Vec<_> = new.iter().map(|port| &port.device_id).collect();
    let got: Vec<_> = made.iter().map(|port| &port.device_id).collect();
    ensure!(got == wanted, "asked for {wanted:?}, answered {got:?}");
    Ok(())
}

pub(super) async fn a_bulk_is_all_or_nothing(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let mut new: Vec<_> = (0..3).map(|_| new_port(network.id, subnet.id)).collect();
    new[2].security_groups = vec![Uuid::new_v4().to_string().parse()?];
    let error = refused("a bulk with an unknown group", site.ports(&new).await)?;
    ensure!(error.status() == Some(404), "{error}");
    ensure!(!error.is_ambiguous(), "{error} looks as if something might have been made");
    ensure!(site.count(network.id).await? == 0, "some of the bulk was made");
    Ok(())
}

pub(super) async fn a_port_gets_an_address_of_each_subnet_that_it_names(site: &Site) -> anyhow::Result<()> {
    let (network, four) = site.wire("10.231.0.0/24").await?;
    let six = site.subnet(network.id, "fd00:231::/64").await?;
    let new = NewPort { fixed_ips: vec![four.id.into(), six.id.into()], ..new_port(network.id, four.id) };
    let port = site.port(new).await?;
    for subnet in [&four, &six] {
        let mut here = port.fixed_ips.iter().filter(|ip| ip.subnet_id == subnet.id);
        let ip = here.next().with_context(|| format!("no address of {} in {:?}", subnet.cidr, port.fixed_ips))?;
        ensure!(subnet.cidr.contains(&ip.ip_address) && here.next().is_none(), "{:?}", port.fixed_ips);
    }
    Ok(())
}

pub(super) async fn a_full_subnet_is_told_from_other_refusals(site: &Site) -> anyhow::Result<()> {
    // Network, gateway, one address, broadcast.
    let (network, subnet) = site.wire("10.231.0.0/30").await?;
    site.port(new_port(network.id, subnet.id)).await?;
    let error = refused("a port in a full subnet", site.ports(&[new_port(network.id, subnet.id)]).await)?;
    is_refusal(&error, 409, &["IpAddressGenerationFailure", "IpAddressGenerationFailureAllSubnets"])?;
    ensure!(error.is_exhausted(), "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn a_bulk_that_does_not_fit_into_a_subnet_makes_nothing(site: &Site) -> anyhow::Result<()> {
    // Nothing is said of the address that was free: Neutron up to at least Zed never gives out again what it took for the ports of
    // such a bulk (ML2 allocates before its transaction). So the controller asks one by one where a subnet was full.
    let (network, subnet) = site.wire("10.231.0.0/30").await?;
    let two = [new_port(network.id, subnet.id), new_port(network.id, subnet.id)];
    let error = refused("a bulk of two for one address", site.ports(&two).await)?;
    is_refusal(&error, 409, &["IpAddressGenerationFailure", "IpAddressGenerationFailureAllSubnets"])?;
    ensure!(site.count(network.id).await? == 0, "some of the bulk was made");
    Ok(())
}

pub(super) async fn how_full_a_subnet_is_is_counted_by_its_ports(site: &Site) -> anyhow::Result<()> {
    // A reader of the extension's answer must know: what a bulk that does not fit has lost counts as free.
    let (network, subnet) = site.wire("10.231.0.0/29").await?;
    let room = async || {
        let subnets = site.neutron().ip_availability(network.id).await?;
        let here = subnets.into_iter().find(|there| there.subnet_id == subnet.id);
        anyhow::Ok(here.context("the subnet is not in the answer")?)
    };
    let before = room().await?;
    ensure!((before.used_ips, before.total_ips) == (0, 5.0), "an empty subnet of five addresses: {before:?}");
    site.port(new_port(network.id, subnet.id)).await?;
    let bulk: Vec<_> = (0..5).map(|_| new_port(network.id, subnet.id)).collect();
    refused("a bulk of five for four addresses", site.ports(&bulk).await)?;
    let after = room().await?;
    ensure!((after.used_ips, after.total_ips) == (1, 5.0), "one port in it: {after:?}");
    Ok(())
}

pub(super) async fn an_address_that_is_taken_is_refused_to_its_owner(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let fixed = NewFixedIp { subnet_id: subnet.id, ip_address: Some("10.231.0.9".parse()?) };
    let new = || NewPort { fixed_ips: vec![fixed.clone()], ..new_port(network.id, subnet.id) };
    let port = site.port(new()).await?;
    ensure!(Some(port.fixed_ips[0].ip_address) == fixed.ip_address, "{:?}", port.fixed_ips);
    let error = refused("an address that is taken", site.ports(&[new()]).await)?;
    is_refusal(&error, 409, &["IpAddressInUse", "IpAddressAlreadyAllocated"])?;
    ensure!(error.class() == Class::Owner, "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn a_network_that_is_not_there_is_not_found(site: &Site) -> anyhow::Result<()> {
    let absent: NetworkId = Uuid::new_v4().to_string().parse()?;
    let error = refused("a port on no network", site.ports(&[NewPort::new(absent)]).await)?;
    is_refusal(&error, 404, &["NetworkNotFound"])?;
    ensure!(error.class() == Class::Operator(Waits::Configuration), "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn an_unknown_host_fails_the_binding_and_not_the_port(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let host = "no-such-host.invalid".to_owned();
    let port = site.port(NewPort { host_id: Some(host.clone()), ..new_port(network.id, subnet.id) }).await?;
    ensure!(port.vif_type == "binding_failed" && port.host_id == host, "{:?} on {:?}", port.vif_type, port.host_id);
    Ok(())
}

pub(super) async fn a_bound_port_says_how_to_plug_it(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let host = site.host().await?;
    let port = site.port(NewPort { host_id: Some(host.clone()), ..new_port(network.id, subnet.id) }).await?;
    ensure!(port.host_id == host, "bound to {:?} instead of {host:?}", port.host_id);
    let vif = kuryr_plan::vif::vif("eth0", &port, &network, &[subnet])?;
    ensure!(vif.mtu == network.mtu && vif.mac == port.mac_address, "{vif:?}");
    Ok(())
}

pub(super) async fn an_update_of_an_old_revision_is_refused(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let port = site.port(new_port(network.id, subnet.id)).await?;
    let ports = site.neutron();
    let rename = |name: &str| PortUpdate { name: Some(name.to_owned()), ..PortUpdate::default() };
    // The data plane may have changed the port since.
    let known = ports.ports().get(port.id).await?.revision_number;
    let changed = ports.ports().update(port.id, &rename("first"), Some(known)).await?;
    ensure!(changed.name == "first" && changed.revision_number > known, "{changed:?}");
    let error = refused("an old revision", ports.ports().update(port.id, &rename("second"), Some(known)).await)?;
    ensure!(error.is_stale() && error.class() == Class::RetryNow, "{error} is {:?}", error.class());
    ensure!(ports.ports().get(port.id).await?.name == "first", "the refused change was made");
    Ok(())
}

pub(super) async fn what_is_absent_is_not_found_and_may_be_deleted(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let port = site.port(new_port(network.id, subnet.id)).await?;
    let neutron = site.neutron();
    for _ in 0..2 {
        neutron.ports().delete(port.id).await?;
    }
    let absent: PortId = Uuid::new_v4().to_string().parse()?;
    for id in [port.id, absent] {
        let error = refused("an absent port", neutron.ports().get(id).await)?;
        is_refusal(&error, 404, &["PortNotFound"])?;
    }
    Ok(())
}
