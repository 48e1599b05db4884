//! Trunks: ports inside of virtual machines.

use super::{
    Site,
    site::{is_refusal, new_port, refused},
};
use anyhow::{Context, ensure};
use kuryr_model::{
    NetworkId, PortId, SegmentationId, SubnetId, TrunkId,
    neutron::{AddressPair, Port, Trunk, TrunkStatus},
};
use kuryr_openstack::{
    Class, Waits,
    network::{NewPort, PortUpdate, tags::Tagged},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A network and a trunk on it.
struct Place {
    network: NetworkId,
    subnet: SubnetId,
    trunk: Trunk,
}

async fn place(site: &Site) -> anyhow::Result<Place> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let parent = site.port(new_port(network.id, subnet.id)).await?;
    let trunk = site.try_trunk(parent.id).await?;
    Ok(Place { network: network.id, subnet: subnet.id, trunk })
}

/// A port as the controller asks for it for a pod in a virtual machine: without a device.
fn new_subport(place: &Place) -> NewPort {
    NewPort { device_id: String::new(), ..new_port(place.network, place.subnet) }
}

async fn subports(site: &Site, place: &Place, count: usize) -> anyhow::Result<Vec<Port>> {
    let new: Vec<NewPort> = (0..count).map(|_| new_subport(place)).collect();
    Ok(site.ports(&new).await?)
}

fn id(number: u16) -> anyhow::Result<SegmentationId> {
    Ok(number.try_into()?)
}

/// The subports of a trunk, as a new look shows them.
async fn carried(site: &Site, trunk: TrunkId) -> anyhow::Result<BTreeMap<PortId, u32>> {
    let trunk = site.neutron().trunks().get(trunk).await?;
    ensure!(trunk.sub_ports.iter().all(|subport| subport.segmentation_type == "vlan"), "{trunk:?}");
    Ok(trunk.sub_ports.iter().map(|subport| (subport.port_id, subport.segmentation_id)).collect())
}

pub(super) async fn subports_are_added_all_or_none(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    ensure!(place.trunk.status == TrunkStatus::Active, "a new trunk is {:?}", place.trunk.status);
    let ports = subports(site, &place, 4).await?;
    let neutron = site.neutron();
    let (trunks, trunk) = (neutron.trunks(), place.trunk.id);
    let added = trunks.add_subports(trunk, &[(ports[0].id, id(101)?), (ports[1].id, id(102)?)]).await?;
    ensure!(added.id == trunk && added.sub_ports.len() == 2, "answered {added:?}");
    let bad = [(ports[2].id, id(103)?), (ports[3].id, id(101)?)];
    let error = refused("a good and a bad subport", trunks.add_subports(trunk, &bad).await)?;
    is_refusal(&error, 409, &["DuplicateSubPort"])?;
    ensure!(error.is_about_subports() && !error.is_ambiguous(), "{error} is {:?}", error.class());
    let there = carried(site, trunk).await?;
    ensure!(there == [(ports[0].id, 101), (ports[1].id, 102)].into(), "{there:?}");
    Ok(())
}

pub(super) async fn a_trunk_is_found_by_its_parent(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let ports = subports(site, &place, 1).await?;
    let neutron = site.neutron();
    neutron.trunks().add_subports(place.trunk.id, &[(ports[0].id, id(7)?)]).await?;
    let found = neutron.trunks().of_parent(place.trunk.port_id).await?.context("not found")?;
    ensure!(found.id == place.trunk.id && found.sub_ports.len() == 1, "{found:?}");
    ensure!(neutron.trunks().of_parent(ports[0].id).await?.is_none(), "a subport is taken for a parent");
    Ok(())
}

pub(super) async fn one_id_has_one_subport_and_may_be_used_again_at_once(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let ports = subports(site, &place, 2).await?;
    let neutron = site.neutron();
    let (trunks, trunk) = (neutron.trunks(), place.trunk.id);
    trunks.add_subports(trunk, &[(ports[0].id, SegmentationId::MAX)]).await?;
    let second = [(ports[1].id, SegmentationId::MAX)];
    let error = refused("an id in use", trunks.add_subports(trunk, &second).await)?;
    is_refusal(&error, 409, &["DuplicateSubPort"])?;
    trunks.remove_subports(trunk, &[ports[0].id]).await?;
    trunks.add_subports(trunk, &second).await?;
    let there = carried(site, trunk).await?;
    ensure!(there == [(ports[1].id, 4094)].into(), "{there:?}");
    Ok(())
}

pub(super) async fn the_same_id_is_free_on_another_trunk(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let other = site.port(new_port(place.network, place.subnet)).await?;
    let other = site.try_trunk(other.id).await?;
    let ports = subports(site, &place, 2).await?;
    let neutron = site.neutron();
    for (trunk, port) in [(place.trunk.id, &ports[0]), (other.id, &ports[1])] {
        neutron.trunks().add_subports(trunk, &[(port.id, SegmentationId::MIN)]).await?;
    }
    Ok(())
}

pub(super) async fn a_subport_is_marked_and_loses_its_mark(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let ports = subports(site, &place, 1).await?;
    let neutron = site.neutron();
    let (trunks, trunk) = (neutron.trunks(), place.trunk.id);
    trunks.add_subports(trunk, &[(ports[0].id, id(7)?)]).await?;
    let port = neutron.ports().get(ports[0].id).await?;
    ensure!(port.device_owner == "trunk:subport", "device_owner {:?}", port.device_owner);
    ensure!(port.fixed_ips == ports[0].fixed_ips && port.mac_address == ports[0].mac_address, "{port:?}");
    let left = trunks.remove_subports(trunk, &[ports[0].id]).await?;
    ensure!(left.sub_ports.is_empty(), "answered {left:?}");
    let port = neutron.ports().get(ports[0].id).await?;
    ensure!(port.device_owner.is_empty(), "device_owner {:?} afterwards", port.device_owner);
    neutron.ports().delete(port.id).await?;
    Ok(())
}

pub(super) async fn a_port_becomes_anothers_where_it_is(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let subport = subports(site, &place, 1).await?.remove(0);
    let plain = site.port(new_port(place.network, place.subnet)).await?;
    let neutron = site.neutron();
    neutron.trunks().add_subports(place.trunk.id, &[(subport.id, id(7)?)]).await?;
    for port in [&subport, &plain] {
        let mut tags: Vec<String> = (0..2).map(|_| format!("kuryr:pool:{}", Uuid::new_v4())).collect();
        tags.sort();
        neutron.tags().set(Tagged::Port(port.id), &tags).await?;
        let mut now = neutron.ports().get(port.id).await?;
        now.tags.sort();
        ensure!(now.tags == tags && now.fixed_ips == port.fixed_ips, "{now:?} instead of {tags:?}");
    }
    let change = PortUpdate { name: Some("spare".into()), device_id: Some(String::new()), ..PortUpdate::default() };
    let now = neutron.ports().update(plain.id, &change, None).await?;
    ensure!(now.device_id.is_empty() && now.host_id == plain.host_id, "{now:?}");
    let there = carried(site, place.trunk.id).await?;
    ensure!(there == [(subport.id, 7)].into(), "{there:?}");
    Ok(())
}

pub(super) async fn a_port_that_has_a_device_is_no_subport(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let port = site.port(new_port(place.network, place.subnet)).await?;
    let neutron = site.neutron();
    let added = neutron.trunks().add_subports(place.trunk.id, &[(port.id, id(7)?)]).await;
    let error = refused("a port that has a device_id", added)?;
    is_refusal(&error, 409, &["PortInUse"])?;
    ensure!(error.is_about_subports(), "{error}");
    Ok(())
}

pub(super) async fn a_port_is_on_one_trunk_only(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let ports = subports(site, &place, 2).await?;
    let other = site.try_trunk(ports[1].id).await?;
    let neutron = site.neutron();
    let trunks = neutron.trunks();
    trunks.add_subports(place.trunk.id, &[(ports[0].id, id(7)?)]).await?;
    for (trunk, what) in [(place.trunk.id, "twice on one trunk"), (other.id, "on a second trunk")] {
        let error = refused(what, trunks.add_subports(trunk, &[(ports[0].id, id(8)?)]).await)?;
        is_refusal(&error, 409, &["TrunkPortInUse"])?;
        ensure!(error.is_about_subports(), "{error}");
    }
    for port in [place.trunk.port_id, ports[1].id] {
        let error = refused("a parent as a subport", trunks.add_subports(place.trunk.id, &[(port, id(9)?)]).await)?;
        is_refusal(&error, 409, &["ParentPortInUse", "TrunkPortInUse"])?;
    }
    let error = refused("a second trunk of one parent", site.try_trunk(place.trunk.port_id).await)?;
    is_refusal(&error, 409, &["ParentPortInUse"])?;
    let error = refused("a subport as a parent", site.try_trunk(ports[0].id).await)?;
    is_refusal(&error, 409, &["TrunkPortInUse"])
}

pub(super) async fn subports_that_are_not_there_are_not_removed(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let ports = subports(site, &place, 2).await?;
    let neutron = site.neutron();
    let (trunks, trunk) = (neutron.trunks(), place.trunk.id);
    trunks.add_subports(trunk, &[(ports[0].id, id(7)?)]).await?;
    let both = trunks.remove_subports(trunk, &[ports[0].id, ports[1].id]).await;
    let error = refused("removing one that is there and one that is not", both)?;
    is_refusal(&error, 404, &["SubPortNotFound"])?;
    ensure!(error.is_about_subports() && !error.is_trunk_gone(), "{error}");
    ensure!(carried(site, trunk).await?.len() == 1, "the refused removal was made");
    Ok(())
}

pub(super) async fn ports_of_a_trunk_are_kept(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let ports = subports(site, &place, 1).await?;
    let neutron = site.neutron();
    neutron.trunks().add_subports(place.trunk.id, &[(ports[0].id, id(7)?)]).await?;
    for (port, kind) in [(ports[0].id, "PortInUseAsSubPort"), (place.trunk.port_id, "PortInUseAsTrunkParent")] {
        let error = refused("deleting a port of a trunk", neutron.ports().delete(port).await)?;
        is_refusal(&error, 409, &[kind])?;
        ensure!(error.class() == Class::RetryLater { after: None }, "{error} is {:?}", error.class());
    }
    Ok(())
}

pub(super) async fn a_subport_needs_an_mtu_that_its_parent_has(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let neutron = site.neutron();
    let mtu = neutron.networks().get(place.network).await?.mtu;
    let (narrow, subnet) = site.wire("10.232.0.0/24").await?;
    neutron.networks().set_mtu(narrow.id, mtu - 100).await?;
    let parent = site.port(new_port(narrow.id, subnet.id)).await?;
    let trunk = site.try_trunk(parent.id).await?;
    let ports = subports(site, &place, 1).await?;
    let error = refused("a wider subport", neutron.trunks().add_subports(trunk.id, &[(ports[0].id, id(7)?)]).await)?;
    is_refusal(&error, 409, &["SubPortMtuGreaterThanTrunkPortMtu"])?;
    ensure!(error.class() == Class::Operator(Waits::Configuration), "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn a_trunk_that_is_gone_is_told_from_a_port_that_is_gone(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let ports = subports(site, &place, 1).await?;
    let neutron = site.neutron();
    let trunks = neutron.trunks();
    let absent: PortId = Uuid::new_v4().to_string().parse()?;
    let error = refused("an absent port", trunks.add_subports(place.trunk.id, &[(absent, id(7)?)]).await)?;
    is_refusal(&error, 404, &["PortNotFound"])?;
    ensure!(error.is_about_subports() && !error.is_trunk_gone(), "{error}");
    let absent: TrunkId = Uuid::new_v4().to_string().parse()?;
    for error in [
        refused("an absent trunk", trunks.add_subports(absent, &[(ports[0].id, id(7)?)]).await)?,
        refused("an absent trunk", trunks.remove_subports(absent, &[ports[0].id]).await)?,
        refused("an absent trunk", trunks.get(absent).await)?,
    ] {
        ensure!(error.is_trunk_gone() && !error.is_about_subports(), "{error}");
    }
    trunks.delete(absent).await?;
    Ok(())
}

pub(super) async fn subports_stay_ports_when_their_trunk_goes(site: &Site) -> anyhow::Result<()> {
    let place = place(site).await?;
    let ports = subports(site, &place, 1).await?;
    let neutron = site.neutron();
    neutron.trunks().add_subports(place.trunk.id, &[(ports[0].id, id(7)?)]).await?;
    neutron.trunks().delete(place.trunk.id).await?;
    let port = neutron.ports().get(ports[0].id).await?;
    ensure!(port.device_owner.is_empty(), "device_owner {:?} afterwards", port.device_owner);
    let again = site.try_trunk(place.trunk.port_id).await?;
    neutron.trunks().add_subports(again.id, &[(port.id, id(7)?)]).await?;
    Ok(())
}

pub(super) async fn address_pairs_are_changed_by_revision_and_limited(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let port = site.port(new_port(network.id, subnet.id)).await?;
    let neutron = site.neutron();
    let known = neutron.address_pairs(port.id).await?;
    ensure!(known.pairs.is_empty(), "{known:?}");
    let pair = |n: u8| AddressPair::new([10, 231, 0, n].into(), kuryr_model::MacAddress([0xfa, 0x16, 0x3e, 1, 2, n]));
    let pairs: Vec<AddressPair> = (1..=10).map(pair).collect();
    let set = neutron.set_address_pairs(port.id, &pairs, known.revision_number).await?;
    let as_set = |mut pairs: Vec<AddressPair>| {
        pairs.sort();
        pairs
    };
    ensure!(as_set(set.pairs) == as_set(pairs.clone()) && set.revision_number > known.revision_number, "other pairs");
    let stale = neutron.set_address_pairs(port.id, &[], known.revision_number).await;
    let error = refused("an old revision", stale)?;
    ensure!(error.is_stale() && error.class() == Class::RetryNow, "{error} is {:?}", error.class());
    let many: Vec<AddressPair> = (1..=11).map(pair).collect();
    let error = refused("eleven pairs", neutron.set_address_pairs(port.id, &many, set.revision_number).await)?;
    is_refusal(&error, 400, &["AllowedAddressPairExhausted"])?;
    ensure!(error.class() == Class::Operator(Waits::Configuration), "{error} is {:?}", error.class());
    Ok(())
}
