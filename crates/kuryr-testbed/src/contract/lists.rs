//! Lists: filters, tags, pages.

use super::{Site, site::new_port};
use anyhow::ensure;
use kuryr_model::{PortId, mark::MAX_TAG};
use kuryr_openstack::{
    Filter,
    network::{NewPort, tags::Tagged},
};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A tag that only this clause knows.
fn tag() -> String {
    format!("kuryr:contract-{}", Uuid::new_v4())
}

pub(super) async fn tags_given_at_creation_are_found_by_a_filter(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let tag = tag();
    let marked = || NewPort { tags: vec![tag.clone()], ..new_port(network.id, subnet.id) };
    let made = site.ports(&[marked(), marked(), new_port(network.id, subnet.id)]).await?;
    let found = site.neutron().ports().list(&Filter::new().tags([&tag])).await?;
    let ids = |ports: &[kuryr_model::neutron::Port]| ports.iter().map(|port| port.id).collect::<BTreeSet<PortId>>();
    ensure!(ids(&found) == ids(&made[..2]), "found {found:?}");
    ensure!(found.iter().all(|port| port.tags == [tag.clone()] && port.revision_number > 0), "{found:?}");
    Ok(())
}

pub(super) async fn an_object_is_found_by_all_of_several_tags_only(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let (both, one) = (tag(), tag());
    let with = |tags: &[&String]| NewPort {
        tags: tags.iter().map(|tag| (*tag).clone()).collect(),
        ..new_port(network.id, subnet.id)
    };
    let made = site.ports(&[with(&[&both, &one]), with(&[&both])]).await?;
    let found = site.neutron().ports().list(&Filter::new().tags([&both, &one])).await?;
    ensure!(found.len() == 1 && found[0].id == made[0].id, "found {found:?}");
    let found = site.neutron().ports().list(&Filter::new().tags([&both])).await?;
    ensure!(found.len() == 2, "found {found:?}");
    Ok(())
}

pub(super) async fn objects_are_found_by_any_of_several_tags(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let (one, other) = (tag(), tag());
    let with = |tag: String| NewPort { tags: vec![tag], ..new_port(network.id, subnet.id) };
    let made = site.ports(&[with(one.clone()), with(tag()), with(other.clone())]).await?;
    let found = site.neutron().ports().list(&Filter::new().any("tags-any", [&one, &other])).await?;
    let found: BTreeSet<PortId> = found.iter().map(|port| port.id).collect();
    ensure!(found == BTreeSet::from([made[0].id, made[2].id]), "found {found:?}");
    Ok(())
}

pub(super) async fn a_list_has_all_pages_once(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let made = site.ports(&[(); 5].map(|()| new_port(network.id, subnet.id))).await?;
    let filter = Filter::new().with("network_id", network.id);
    // Five is no multiple of two, and is one of five: the last page is short, and full.
    for page in [2, 5] {
        let found = site.neutron().ports().list(&filter.clone().page(page)).await?;
        let wanted: BTreeSet<_> = made.iter().map(|port| port.id).collect();
        let ids: BTreeSet<_> = found.iter().map(|port| port.id).collect();
        ensure!(ids == wanted && found.len() == made.len(), "in pages of {page}: {ids:?} instead of {wanted:?}");
    }
    Ok(())
}

pub(super) async fn a_list_by_ids_has_those_that_there_are(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let made = site.ports(&[(); 3].map(|()| new_port(network.id, subnet.id))).await?;
    let absent: PortId = Uuid::new_v4().to_string().parse()?;
    let found = site.neutron().ports().list(&Filter::new().any("id", [made[0].id, made[2].id, absent])).await?;
    let ids: BTreeSet<_> = found.iter().map(|port| port.id).collect();
    ensure!(ids == BTreeSet::from([made[0].id, made[2].id]), "found {ids:?}");
    Ok(())
}

pub(super) async fn tags_are_set_as_a_whole(site: &Site) -> anyhow::Result<()> {
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let router = site.router().await?;
    let group = site.group().await?;
    let neutron = site.neutron();
    for object in [
        Tagged::Network(network.id),
        Tagged::Subnet(subnet.id),
        Tagged::Router(router.id),
        Tagged::SecurityGroup(group.id),
    ] {
        let (old, new) = (tag(), tag());
        neutron.tags().set(object, &[old]).await?;
        let set = neutron.tags().set(object, std::slice::from_ref(&new)).await?;
        ensure!(set == [new.clone()], "{object} has {set:?}");
        let filter = Filter::new().tags([&new]);
        let found = match object {
            Tagged::Network(_) => neutron.networks().list(&filter).await?.len(),
            Tagged::Subnet(_) => neutron.subnets().list(&filter).await?.len(),
            Tagged::Router(_) => neutron.routers().list(&filter).await?.len(),
            _ => neutron.security_groups().list(&filter).await?.len(),
        };
        ensure!(found == 1, "{object} was found {found} times by its tag");
    }
    Ok(())
}

pub(super) async fn a_tag_may_have_sixty_characters(site: &Site) -> anyhow::Result<()> {
    // Newer releases take more; Kuryr's tags fit into what all take.
    let network = site.network().await?;
    let longest = vec!["x".repeat(MAX_TAG)];
    let set = site.neutron().tags().set(Tagged::Network(network.id), &longest).await?;
    ensure!(set == longest, "set {set:?}");
    ensure!(site.neutron().networks().get(network.id).await?.tags == longest, "not kept");
    Ok(())
}
