//! What of ours is in the cloud.

use super::plan::{Found, Interface, description, mark};
use kuryr_model::{
    ClusterId, DEVICE_OWNER,
    mark::{Base, cluster_tag},
    neutron::Port,
};
use kuryr_openstack::{
    Error, Filter, Network,
    network::{routers::INTERFACE_OWNERS, tags::Tagged},
};
use std::{collections::BTreeSet, hash::Hash};

/// Finds what carries our tags, or the description that says the same.
pub(crate) async fn observe(network: &Network, cluster: &ClusterId) -> Result<Found, Error> {
    let by_tag = |base| Filter::new().tags(mark(cluster, base).tags());
    let by_text = |base| Filter::new().with("description", description(cluster, base));
    let mut found = Found::default();
    for filter in [by_tag(Base::Pods), by_text(Base::Pods)] {
        extend(&mut found.networks, network.networks().list(&filter).await?, |network| network.id);
        extend(&mut found.subnets, network.subnets().list(&filter).await?, |subnet| subnet.id);
        extend(&mut found.routers, network.routers().list(&filter).await?, |router| router.id);
    }
    for filter in [by_tag(Base::Services), by_text(Base::Services)] {
        extend(&mut found.service_networks, network.networks().list(&filter).await?, |network| network.id);
        extend(&mut found.service_subnets, network.subnets().list(&filter).await?, |subnet| subnet.id);
    }
    for base in [Base::IngressOpen, Base::EgressOpen] {
        for filter in [by_tag(base), by_text(base)] {
            let groups = network.security_groups().list(&filter).await?;
            extend(&mut found.groups, groups.into_iter().map(|group| (base, group)), |(_, group)| group.id);
        }
    }
    // In the order in which the controller tries them.
    for subnets in [&mut found.subnets, &mut found.service_subnets] {
        subnets.sort_by_key(|subnet| (subnet.cidr.addr().is_ipv6(), subnet.name.clone(), subnet.id));
    }
    if found.all_networks().next().is_some() {
        let filter = Filter::new().any("network_id", found.all_networks().map(|network| network.id));
        let ports = network.ports().list(&filter).await?;
        found.interfaces = ports.iter().flat_map(interfaces).collect();
        // Neutron's own ports (DHCP, metadata, routers) go with the network.
        found.ports.extend(ports.into_iter().filter(|port| !port.device_owner.starts_with("network:")));
    }
    let pods = Filter::new().tags([cluster_tag(cluster)]).with("device_owner", DEVICE_OWNER);
    extend(&mut found.ports, network.ports().list(&pods).await?, |port| port.id);
    let ours: BTreeSet<_> = found.all_subnets().map(|subnet| subnet.id).collect();
    found.interfaces.retain(|interface| ours.contains(&interface.subnet));
    Ok(found)
}

/// Adds what is not there yet.
fn extend<T, K: Eq + Hash>(all: &mut Vec<T>, more: impl IntoIterator<Item = T>, key: impl Fn(&T) -> K) {
    for item in more {
        if all.iter().all(|there| key(there) != key(&item)) {
            all.push(item);
        }
    }
}

fn interfaces(port: &Port) -> impl Iterator<Item = Interface> {
    let is_router = INTERFACE_OWNERS.contains(&port.device_owner.as_str());
    let router = port.device_id.parse().ok().filter(|_| is_router);
    port.fixed_ips.iter().filter_map(move |ip| Some(Interface { router: router?, subnet: ip.subnet_id }))
}

/// The tags that an object of ours is to have besides those that it has.
pub(crate) async fn tag(network: &Network, object: Tagged, cluster: &ClusterId, base: Base) -> Result<(), Error> {
    for tag in mark(cluster, base).tags() {
        network.tags().add(object, &tag).await?;
    }
    Ok(())
}
