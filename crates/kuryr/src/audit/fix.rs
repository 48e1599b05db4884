//! Deletes what nobody wants.

use super::{
    Cluster,
    compare::{Finding, Prunable},
    node,
};
use anyhow::{bail, ensure};
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use kuryr_model::KuryrPort;
use kuryr_openstack::chain;
use std::collections::BTreeSet;

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
        (Prunable::KuryrPort(key, uid), Some(cluster)) => {
            let api = Api::<KuryrPort>::namespaced(cluster.client.clone(), &key.namespace);
            let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(&key.name, &params).await {
                // Gone, or another one has the name now.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                result => Ok(result.map(drop)?),
            }
        }
    }
}
