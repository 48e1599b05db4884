//! Deletes what nobody wants.

use super::compare::{Finding, Prunable};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Preconditions},
    core::NamespaceResourceScope,
};
use kuryr_model::{KuryrLoadBalancer, KuryrPort, ObjectKey};
use kuryr_openstack::{Cloud, chain};
use serde::de::DeserializeOwned;
use std::{collections::BTreeSet, fmt::Debug};

/// Prunes what can be pruned, one by one, and goes on after a failure. The places of what is gone now.
pub(crate) async fn prune(findings: &[Finding], cloud: &Cloud, client: &Client) -> BTreeSet<usize> {
    let mut fixed = BTreeSet::new();
    for (at, finding) in findings.iter().enumerate() {
        let Some(prunable) = &finding.prune else { continue };
        match delete(prunable, cloud, client).await {
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

async fn delete(prunable: &Prunable, cloud: &Cloud, client: &Client) -> anyhow::Result<()> {
    match prunable {
        Prunable::Port(id) => {
            cloud.network().background().ports().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        Prunable::LoadBalancer(id) => {
            let octavia = cloud.load_balancing().background();
            octavia.load_balancers().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        Prunable::FloatingIp(id) => {
            let network = cloud.network().background();
            network.floating_ips().delete(*id).await.map_err(|error| anyhow::anyhow!(chain(&error)))
        }
        Prunable::KuryrPort(key, uid) => delete_object::<KuryrPort>(client, key, uid).await,
        Prunable::KuryrLoadBalancer(key, uid) => delete_object::<KuryrLoadBalancer>(client, key, uid).await,
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
