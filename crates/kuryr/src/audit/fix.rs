//! Deletes what nobody wants.

use super::compare::{Finding, Prunable};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use kuryr_model::KuryrPort;
use kuryr_openstack::{Cloud, chain};
use std::collections::BTreeSet;

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
        Prunable::KuryrPort(key, uid) => {
            let api = Api::<KuryrPort>::namespaced(client.clone(), &key.namespace);
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
