//! Deletes what nobody wants.
//!
//! Between the look and the deletion the controller goes on working, so whether a thing is still wanted by nobody is asked once
//! more before each. Kuryr's own objects need no such question: they are deleted by UID, and the controller deletes what
//! belongs to them when their node says that it may.

use super::{
    Cluster, base_of,
    compare::{Finding, Prunable},
    node,
};
use crate::view::ClusterView;
use anyhow::{bail, ensure};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Preconditions},
    core::NamespaceResourceScope,
};
use kuryr_model::{KuryrLoadBalancer, KuryrPort, ObjectKey, PodUid, PortId, neutron::Trunk};
use kuryr_openstack::{Error, Filter, chain};
use serde::de::DeserializeOwned;
use std::{collections::BTreeSet, fmt::Debug};

/// Prunes what can be pruned, one by one, and goes on after a failure. The places of what is gone now.
pub(crate) async fn prune(findings: &[Finding], cluster: Option<&Cluster>) -> BTreeSet<usize> {
    let mut fixed = BTreeSet::new();
    for (at, finding) in findings.iter().enumerate() {
        let Some(prunable) = &finding.prune else { continue };
        match delete(finding, prunable, cluster).await {
            Ok(()) => {
                fixed.insert(at);
            }
            Err(error) => {
                tracing::error!(subject = finding.subject, id = finding.id, "cannot be pruned: {error:#}");
            }
        }
    }
    fixed
}

async fn delete(finding: &Finding, prunable: &Prunable, cluster: Option<&Cluster>) -> anyhow::Result<()> {
    match (prunable, cluster) {
        (Prunable::OnNode(socket), _) => {
            node::prune(socket).await?;
            let left = node::findings(socket).await?;
            ensure!(left.iter().all(|other| other.key() != finding.key()), "the daemon has left it");
            Ok(())
        }
        (_, None) => bail!("it was not looked for"),
        (Prunable::Port(id, uid), Some(cluster)) => {
            ensure!(!is_wanted(cluster, *id, uid).await?, "it is wanted by now");
            delete_port(cluster, *id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        // Neutron itself refuses to delete what is used.
        (Prunable::Network(id), Some(cluster)) => {
            let unused = base_of(cluster).await?.unused_network(&cluster.config.cluster, *id);
            ensure!(unused, "something is on it by now");
            let network = cluster.cloud.network().background();
            network.networks().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        (Prunable::Router(id), Some(cluster)) => {
            let unused = base_of(cluster).await?.unused_router(&cluster.config.cluster, *id);
            ensure!(unused, "it joins something by now");
            let network = cluster.cloud.network().background();
            network.routers().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        (Prunable::LoadBalancer(id), Some(cluster)) => {
            let octavia = cluster.cloud.load_balancing().background();
            octavia.load_balancers().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        (Prunable::SecurityGroup(id), Some(cluster)) => {
            let network = cluster.cloud.network().background();
            network.security_groups().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        (Prunable::FloatingIp(id), Some(cluster)) => {
            let network = cluster.cloud.network().background();
            network.floating_ips().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        (Prunable::KuryrPort(key, uid), Some(cluster)) => delete_object::<KuryrPort>(&cluster.client, key, uid).await,
        (Prunable::KuryrLoadBalancer(key, uid), Some(cluster)) => {
            delete_object::<KuryrLoadBalancer>(&cluster.client, key, uid).await
        }
    }
}

/// Deletes a port, and takes it off its trunk before if it is on one.
async fn delete_port(cluster: &Cluster, id: PortId) -> Result<(), Error> {
    let network = cluster.cloud.network().background();
    match network.ports().delete(id).await {
        Err(error) if error.is_subport_in_use() => {}
        deleted => return deleted,
    }
    let trunks = network.trunks().list(&Filter::new()).await?;
    let carries = |trunk: &&Trunk| trunk.sub_ports.iter().any(|subport| subport.port_id == id);
    if let Some(trunk) = trunks.iter().find(carries) {
        network.trunks().remove_subports(trunk.id, &[id]).await?;
    }
    network.ports().delete(id).await
}

/// Whether a port, which was made for the pod with this UID, may be handed out or is in use. Ports and `KuryrPort`s are named like
/// their pods, so that two requests tell; if somebody has given the port another name, all pods and `KuryrPort`s are looked at.
async fn is_wanted(cluster: &Cluster, id: PortId, uid: &PodUid) -> anyhow::Result<bool> {
    let found = cluster.cloud.network().background().ports().list(&Filter::new().with("id", id)).await;
    let Some(port) = found.map_err(|error| anyhow::anyhow!(chain(&error)))?.pop() else { return Ok(false) };
    let view = match port.name.parse::<ObjectKey>() {
        Ok(key) => ClusterView::read_one(&cluster.client, &key).await?,
        Err(_) => ClusterView::read(&cluster.client).await?,
    };
    Ok(wants(&view, id, uid))
}

fn wants(view: &ClusterView, id: PortId, uid: &PodUid) -> bool {
    let held = view.kuryr_ports.iter().any(|port| port.port_ids().any(|held| held == id));
    let waits = view.pods.iter().any(|pod| pod.uid == *uid && pod.node.is_some() && pod.may_hold_ports());
    // What cannot be read may have it.
    held || waits || !view.unreadable.is_empty()
}

async fn delete_object<K>(client: &Client, key: &ObjectKey, uid: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), &key.namespace);
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&key.name, &params).await {
        // Gone, or another one has the name now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{
        Unreadable,
        tests::{kuryr_port, pod, port_id},
    };

    #[test]
    fn a_port_goes_only_if_nobody_has_come_to_want_it() {
        let id: PortId = port_id(1).parse().unwrap();
        let wanted = |view: ClusterView| wants(&view, id, &"uid-web".into());
        let view = ClusterView::default;
        assert!(!wanted(view()));
        assert!(wanted(ClusterView { kuryr_ports: vec![kuryr_port("web", Some(1))], ..view() }), "it was handed out");
        assert!(wanted(ClusterView { pods: vec![pod("web")], ..view() }), "its pod waits");
        assert!(!wanted(ClusterView { pods: vec![pod("db")], kuryr_ports: vec![kuryr_port("db", Some(2))], ..view() }));
        let odd = Unreadable { key: ObjectKey::new("default", "web"), why: "spec".into() };
        assert!(wanted(ClusterView { unreadable: vec![odd], ..view() }));
        let mut done = pod("web");
        done.completed = true;
        assert!(!wanted(ClusterView { pods: vec![done], ..view() }));
    }
}
