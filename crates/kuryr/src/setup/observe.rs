//! What of ours is in the cloud.

use super::plan::{Found, Interface, description, mark};
use futures::{future::try_join_all, try_join};
use kuryr_model::{
    ClusterId,
    mark::{Base, cluster_tag},
    neutron::Port,
};
use kuryr_openstack::{
    Error, Filter, Network,
    network::{routers::INTERFACE_OWNERS, tags::Tagged},
};
use kuryr_plan::policy;
use std::{collections::BTreeSet, hash::Hash};

/// Finds what carries our tags, or the description that says the same.
pub(crate) async fn observe(network: &Network, cluster: &ClusterId) -> Result<Found, Error> {
    let by_tag = |base| Filter::new().tags(mark(cluster, base).tags());
    let by_text = |base| Filter::new().with("description", description(cluster, base));
    let by_either = |base| [by_tag(base), by_text(base)];
    let kinds = by_either(Base::Pods);
    let services = by_either(Base::Services);
    let groups: Vec<_> = [Base::IngressOpen, Base::EgressOpen]
        .into_iter()
        .flat_map(|base| by_either(base).map(|by| (base, by)))
        .collect();
    let pods = Filter::new().tags([cluster_tag(cluster)]);
    let list_groups = async |(base, by): &(Base, Filter)| {
        let groups = network.security_groups().list(by).await?;
        Ok::<_, Error>(groups.into_iter().map(|group| (*base, group)).collect::<Vec<_>>())
    };
    let policies = Filter::new().with("description", policy::description(cluster));
    let (networks, subnets, service_networks, service_subnets, routers, groups, policy_groups, pods) = try_join!(
        try_join_all(kinds.iter().map(async |by| network.networks().list(by).await)),
        try_join_all(kinds.iter().map(async |by| network.subnets().list(by).await)),
        try_join_all(services.iter().map(async |by| network.networks().list(by).await)),
        try_join_all(services.iter().map(async |by| network.subnets().list(by).await)),
        try_join_all(kinds.iter().map(async |by| network.routers().list(by).await)),
        try_join_all(groups.iter().map(list_groups)),
        async { network.security_groups().list(&policies).await },
        async { network.ports().list(&pods).await },
    )?;
    let mut found = Found { policy_groups, ..Found::default() };
    extend(&mut found.networks, networks.into_iter().flatten(), |network| network.id);
    extend(&mut found.subnets, subnets.into_iter().flatten(), |subnet| subnet.id);
    extend(&mut found.service_networks, service_networks.into_iter().flatten(), |network| network.id);
    extend(&mut found.service_subnets, service_subnets.into_iter().flatten(), |subnet| subnet.id);
    extend(&mut found.routers, routers.into_iter().flatten(), |router| router.id);
    extend(&mut found.groups, groups.into_iter().flatten(), |(_, group)| group.id);
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
    extend(&mut found.ports, pods, |port| port.id);
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
