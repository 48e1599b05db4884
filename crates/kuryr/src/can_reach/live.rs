//! Objects of a running cluster, and what Neutron has of them.

use super::{
    neutron::{Groups, Now, concerned},
    objects::{Cluster, Objects},
};
use anyhow::Context as _;
use kube::{Api, Client, Resource, api::ListParams};
use kuryr_model::{KuryrNetworkPolicy, ObjectKey};
use kuryr_openstack::{Cloud, Filter};
use kuryr_plan::policy::Way;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// Lists what policies look at.
pub(crate) async fn objects(client: &Client) -> anyhow::Result<Objects> {
    let (pods, namespaces, nodes, policies, services, slices, kuryr_ports, load_balancers) = futures::try_join!(
        list(client, "pods"),
        list(client, "namespaces"),
        list(client, "nodes"),
        list(client, "NetworkPolicies"),
        list(client, "Services"),
        list(client, "EndpointSlices"),
        list(client, "KuryrPorts"),
        list(client, "KuryrLoadBalancers"),
    )?;
    let templates = Vec::new();
    Ok(Objects {
        pods,
        templates,
        namespaces,
        nodes,
        policies,
        services,
        slices,
        kuryr_ports,
        load_balancers,
        whole: true,
    })
}

async fn list<K>(client: &Client, what: &str) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let listed = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    Ok(listed.with_context(|| format!("{what} cannot be listed"))?.items)
}

/// The policies that are not applied, and why.
pub(crate) async fn unapplied(client: &Client, cluster: &Cluster) -> anyhow::Result<BTreeMap<ObjectKey, String>> {
    let held: Vec<KuryrNetworkPolicy> = list(client, "KuryrNetworkPolicies").await?;
    let held: BTreeMap<ObjectKey, KuryrNetworkPolicy> = held.into_iter().map(|held| (held.key(), held)).collect();
    let why = |key: &ObjectKey| match held.get(key).map(KuryrNetworkPolicy::ready) {
        None => Some("the controller has not seen it yet".to_owned()),
        Some(None) => Some("nothing was said of it yet".to_owned()),
        Some(Some(ready)) if ready.status == "True" => None,
        Some(Some(ready)) => Some(format!("{} {}", ready.reason, ready.message).trim_end().to_owned()),
    };
    Ok(cluster.world.policies.keys().filter_map(|key| Some((key.clone(), why(key)?))).collect())
}

/// Asks Neutron what it does with each of these ways.
pub(crate) async fn now(cloud: &Cloud, cluster: &Cluster, ways: &[Way]) -> anyhow::Result<Vec<Now>> {
    let ids = concerned(ways, &cluster.ports);
    let network = cloud.network();
    let ports = network.ports().list(&Filter::new().any("id", ids)).await?;
    let groups = ports.iter().flat_map(|port| port.security_groups.iter().copied());
    let groups: BTreeSet<_> = groups.collect();
    let groups = network.security_groups().list(&Filter::new().any("id", groups)).await?;
    let groups = Groups::new(&ports, &groups);
    Ok(ways.iter().map(|way| groups.now(&cluster.world, way)).collect())
}
