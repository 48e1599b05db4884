//! Which cluster this is.

use crate::config;
use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use kuryr_model::ClusterId;

/// The configured id, else the UID of the namespace `kube-system`, which lives as long as the cluster.
pub(crate) async fn id(config: &config::Cluster, client: &Client) -> anyhow::Result<ClusterId> {
    if let Some(id) = &config.id {
        return Ok(ClusterId::from(id.as_str()));
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = namespaces.get_metadata("kube-system").await.context(
        "the namespace kube-system, whose UID is the cluster's id, cannot be read; allow it, or set [cluster] id",
    )?;
    namespace.metadata.uid.map(ClusterId).context("the namespace kube-system has no UID; set [cluster] id")
}
