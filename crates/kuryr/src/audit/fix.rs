//! Deletes what nobody wants.

use super::{
    Cluster,
    compare::{Finding, Prunable},
    node,
};
use anyhow::{bail, ensure};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Preconditions},
    core::NamespaceResourceScope,
};
use kuryr_model::{KuryrLoadBalancer, KuryrPort, ObjectKey};
use kuryr_openstack::chain;
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
        (Prunable::Port(id), Some(cluster)) => {
            let network = cluster.cloud.network().background();
            network.ports().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        (Prunable::LoadBalancer(id), Some(cluster)) => {
            let octavia = cluster.cloud.load_balancing().background();
            octavia.load_balancers().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
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
